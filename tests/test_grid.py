"""The grid's laws: ids, disjoint tiles, shares, halo, blocks, hemispheres and zones."""

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.city import box_area, find_city
from urbancli.errors import UrbanError
from urbancli.grid import (
    Grid,
    cells_of_ids,
    parse_tile_id,
    places_from_table,
    point_places,
    tiles_of,
)

# Zones in both hemispheres, at the antimeridian, and at the equator.
CENTRES = [(77.2, 28.6), (-73.98, 40.7), (151.1, -33.9), (179.99, -16.9), (36.8, -0.01), (9, 59.9)]


@st.composite
def areas(draw: st.DrawFn) -> tuple[Grid, tuple[float, float, float, float]]:
    """A zone and a box of a few kilometres in it."""
    lon, lat = draw(st.sampled_from(CENTRES))
    west = lon + draw(st.floats(-0.02, 0.0))
    south = lat + draw(st.floats(-0.02, 0.0))
    east, north = west + draw(st.floats(0.002, 0.03)), south + draw(st.floats(0.002, 0.03))
    return Grid(find_city("any", box=(lon, lat, lon + 1e-4, lat + 1e-4)).epsg), (
        west, south, (east + 180) % 360 - 180, north,
    )  # fmt: skip


@given(first=areas(), grow=st.floats(0, 0.02))
@settings(max_examples=40, deadline=None)
def test_an_id_never_depends_on_the_box(first: tuple[Grid, tuple[float, ...]], grow: float) -> None:
    grid, (west, south, east, north) = first
    small = tiles_of(box_area((west, south, east, north)), grid)
    wrap = (east + grow + 180) % 360 - 180
    large = tiles_of(box_area((west - grow, south - grow, wrap, north + grow)), grid)
    assert set(small.place_id) <= set(large.place_id)
    where = dict(zip(large.place_id, zip(large.x, large.y, strict=True), strict=True))
    for place, x, y in zip(small.place_id, small.x, small.y, strict=True):
        assert where[place] == (x, y)
        _, column, row = parse_tile_id(place)
        assert ((column + 0.5) * 300, (row + 0.5) * 300) == (x, y)


@given(area=areas())
@settings(max_examples=40, deadline=None)
def test_tiles_are_disjoint_and_cover_the_area(area: tuple[Grid, tuple[float, ...]]) -> None:
    grid, box = area
    outline = grid.project_geometry(shapely.segmentize(box_area(box), 0.01))
    places = tiles_of(box_area(box), grid)
    boxes = places.boxes()
    assert len(set(places.place_id)) == len(places)
    assert shapely.union_all(boxes).area == pytest.approx(shapely.area(boxes).sum())
    inside = float((places.share_inside * 300**2).sum())
    assert inside == pytest.approx(shapely.union_all(shapely.get_parts(outline)).area, rel=1e-6)
    assert (places.share_inside > 0).all() and (places.share_inside <= 1).all()


def test_the_same_ground_in_two_zones_has_two_ids() -> None:
    # 6° E is the border of zones 31 and 32: a city there keeps one zone, chosen by its centre.
    box = (5.95, 52.0, 6.05, 52.05)
    west, east = (set(tiles_of(box_area(box), Grid(epsg)).place_id) for epsg in (32631, 32632))
    assert west and east and not west & east


def test_a_city_across_two_zones_is_one_grid() -> None:
    city = find_city("straddler", box=(5.9, 52.0, 6.2, 52.05))
    places = tiles_of(city.area, Grid(city.epsg))
    assert city.epsg == 32632
    lon, _ = places.lonlat()
    assert lon.min() < 6 < lon.max()
    assert {parse_tile_id(place)[0].epsg for place in places.place_id} == {32632}


def test_tiles_across_the_antimeridian_are_cut_in_the_file_only() -> None:
    city = find_city("fiji", box=(179.99, -17.0, -179.99, -16.99))
    places = tiles_of(city.area, Grid(city.epsg))
    assert np.ptp(places.x) < 3000  # contiguous in metres
    table = places.to_table()
    kinds = {shape.geom_type for shape in shapely.from_wkb(table.column("geometry").to_pylist())}
    assert kinds == {"Polygon", "MultiPolygon"}
    bbox = table.column("bbox").to_pylist()
    assert all(-180 <= box["xmin"] <= box["xmax"] <= 180 for box in bbox)


def test_places_survive_their_table() -> None:
    grid = Grid(32756)
    places = tiles_of(box_area((151.1, -33.91, 151.12, -33.9)), grid)
    again = places_from_table(places.to_table(), grid)
    assert list(again.place_id) == list(places.place_id)
    np.testing.assert_array_equal(again.x, places.x)
    np.testing.assert_array_equal(again.share_inside, places.share_inside)
    points = point_places([151.1, 151.2], [-33.9, -33.8], grid)
    back = places_from_table(points.to_table(), grid)
    np.testing.assert_allclose(back.x, points.x, atol=1e-6)
    assert back.kind == "point"


def test_negative_rows_have_ids_too() -> None:
    # A city on the equator whose centre is north: its southern tiles lie below northing 0.
    grid = Grid(32637)
    places = tiles_of(box_area((36.8, -0.01, 36.81, 0.01)), grid)
    assert min(row for _, row in places.cells) < 0
    assert parse_tile_id(grid.tile_id(5, -7)) == (grid, 5, -7)
    assert {block.row for block in grid.blocks(places.cells)} == {-1, 0}


@given(halo_m=st.floats(0, 2000))
@settings(max_examples=20, deadline=None)
def test_a_halo_holds_every_window(halo_m: float) -> None:
    grid = Grid(32643)
    cells = np.array([[100, 200], [101, 200], [140, 210]])
    halo = {tuple(cell) for cell in grid.halo(cells, halo_m).tolist()}
    reach = int(np.ceil(halo_m / 300))
    steps = range(-reach, reach + 1)
    expected = {(c + i, r + j) for c, r in cells.tolist() for i in steps for j in steps}
    assert halo == expected


def test_a_block_is_eight_by_eight_and_blocks_are_neighbours_on_the_curve() -> None:
    grid = Grid(32643)
    cells = np.array([[c, r] for c in range(64) for r in range(64)])
    blocks = grid.blocks(cells)
    assert len(blocks) == 64
    assert sorted(map(tuple, np.concatenate([b.tiles() for b in blocks]).tolist())) == sorted(
        map(tuple, cells.tolist())
    )
    steps = [abs(a.column - b.column) + abs(a.row - b.row) for a, b in itertools.pairwise(blocks)]
    assert set(steps) == {1}


def test_a_point_on_a_border_belongs_to_the_tile_of_its_floor() -> None:
    grid = Grid(32643)
    assert grid.tile_at([300.0, 299.999], [600.0, 600.0]).tolist() == [[1, 2], [0, 2]]


def test_too_large_an_area_is_refused_at_once() -> None:
    with pytest.raises(UrbanError, match="in parts"):
        tiles_of(box_area((60.0, 10.0, 90.0, 40.0)), Grid(32643))


def test_ids_of_many_are_the_ids_of_each() -> None:
    grid = Grid(32733)
    cells = np.random.default_rng(0).integers(-40, 40, (200, 2))
    ids = [grid.tile_id(column, row) for column, row in cells.tolist()]
    assert grid.tile_ids(cells).to_pylist() == ids
    blocks = [grid.block_of(column, row).block_id for column, row in cells.tolist()]
    assert grid.block_ids(cells).to_pylist() == blocks
    assert cells_of_ids(ids).tolist() == cells.tolist()


@pytest.mark.parametrize(
    "bad",
    ["32733_300_1", "32733_300_1_2x", "", "a_b_c_d", f"1_1_1_{10**20}", "1_1_1_٣", "1_1_1_2\n"],
)
def test_a_broken_id_among_many_is_refused(bad: str) -> None:
    with pytest.raises(UrbanError, match="no tile id"):
        cells_of_ids(["32733_300_1_2", bad])
    with pytest.raises(UrbanError, match="no tile id"):
        parse_tile_id(bad)
