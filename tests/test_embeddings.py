"""Alignment against naive shapely loops, aggregation against numpy, and the file's round trip."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.embeddings import Alignment, aggregate, align, read_embeddings, write_embeddings
from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, parse_tile_id, point_places, tiles_of

ZONES = [32618, 32643, 32723, 32760]
"""New York, Delhi, São Paulo and the Fiji of the antimeridian."""


def tiles(epsg: int, columns: int, rows: int, first=(1500, 15000)) -> Places:
    grid = Grid(epsg)
    cells = np.array([(first[0] + c, first[1] + r) for c in range(columns) for r in range(rows)])
    x, y = ((cells + 0.5) * grid.tile_m).T
    ids = np.array([grid.tile_id(int(c), int(r)) for c, r in cells], dtype=object)
    return Places(grid, ids, "tile", x, y, np.ones(len(x)))


def naive(units_m: list, places: Places) -> tuple[np.ndarray, np.ndarray]:
    weights = np.zeros((len(units_m), len(places)))
    coverage = np.zeros(len(units_m))
    for u, unit in enumerate(units_m):
        for p in range(len(places)):
            half = places.grid.tile_m / 2
            x, y = places.x[p], places.y[p]
            weights[u, p] = unit.intersection(
                shapely.box(x - half, y - half, x + half, y + half)
            ).area
        coverage[u] = weights[u].sum() / unit.area
        if weights[u].sum() > 0:
            weights[u] /= weights[u].sum()
    return weights, coverage


def lonlat(units_m: list, places: Places) -> np.ndarray:
    return places.grid.unproject_geometry(np.array(units_m, dtype=object))


@settings(max_examples=25, deadline=None)
@given(
    epsg=st.sampled_from(ZONES),
    spots=st.lists(
        st.tuples(st.floats(-300, 1500), st.floats(-300, 1500), st.floats(30, 900)),
        min_size=1,
        max_size=6,
    ),
)
def test_polygons_are_the_tiles_they_overlap_by_area(epsg, spots) -> None:
    places = tiles(epsg, 4, 4)
    left, bottom = places.x.min() - 150, places.y.min() - 150
    units = [shapely.Point(left + x, bottom + y).buffer(r, quad_segs=5) for x, y, r in spots]
    alignment = align(lonlat(units, places), places)
    weights, coverage = naive(units, places)
    np.testing.assert_allclose(alignment.weights.toarray(), weights, atol=1e-7)
    np.testing.assert_allclose(alignment.coverage, coverage, atol=1e-7)
    sums = np.asarray(alignment.weights.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums, coverage > 0, atol=1e-12)


def test_holes_and_parts_count_by_area() -> None:
    places = tiles(32618, 5, 5)
    left, bottom = places.x.min() - 150, places.y.min() - 150
    ring = shapely.box(left, bottom, left + 1500, bottom + 1500).difference(
        shapely.box(left + 100, bottom + 100, left + 1400, bottom + 1300)
    )
    parts = shapely.MultiPolygon(
        [
            shapely.box(left, bottom, left + 50, bottom + 50),
            shapely.box(left + 1400, bottom + 1400, left + 1600, bottom + 1500),
        ]
    )
    alignment = align(lonlat([ring, parts], places), places)
    weights, coverage = naive([ring, parts], places)
    np.testing.assert_allclose(alignment.weights.toarray(), weights, atol=1e-7)
    np.testing.assert_allclose(alignment.coverage, coverage, atol=1e-7)
    assert coverage[1] < 1


def test_a_crossing_outline_counts_by_its_valid_area() -> None:
    places = tiles(32618, 3, 3)
    x, y = places.x.min() - 150, places.y.min() - 150
    bow = shapely.Polygon([(x, y), (x + 900, y + 800), (x + 900, y), (x, y + 800)])
    alignment = align(lonlat([bow], places), places)
    weights, coverage = naive([shapely.make_valid(bow)], places)
    np.testing.assert_allclose(alignment.weights.toarray(), weights, atol=1e-7)
    assert alignment.coverage[0] == pytest.approx(coverage[0]) == pytest.approx(1)


def test_a_unit_of_exactly_two_tiles_has_just_these() -> None:
    places = tiles(32643, 3, 2)
    pair = shapely.union_all(places.boxes()[[0, 2]])
    alignment = align(lonlat([pair], places), places)
    assert alignment.weights.indices.tolist() == [0, 2], "slivers of the neighbours count"
    np.testing.assert_allclose(alignment.weights.data, [0.5, 0.5], atol=1e-9)
    assert alignment.coverage[0] == pytest.approx(1.0, abs=1e-9)


def test_a_unit_outside_has_no_place_and_no_coverage() -> None:
    places = tiles(32618, 2, 2)
    far = shapely.box(places.x[0] + 9e3, places.y[0], places.x[0] + 9.1e3, places.y[0] + 100)
    spot = shapely.Point(places.x[0] - 400, places.y[0])
    half_world = shapely.box(-179, -89, 179, 89)
    units = np.append(lonlat([far, spot], places), half_world)
    alignment = align(units, places)
    assert alignment.weights.nnz == 0
    assert alignment.weights.shape == (3, 4)
    assert alignment.coverage.tolist() == [0, 0, 0]


def test_a_point_belongs_to_the_tile_of_floor() -> None:
    places = tiles(32618, 3, 3)
    rng = np.random.default_rng(0)
    x = places.x.min() - 150 + rng.uniform(-100, 1000, 200)
    y = places.y.min() - 150 + rng.uniform(-100, 1000, 200)
    # A millimetre past the border of the middle tile, and as near as projecting there and back.
    x[:2], y[:2] = places.x[4] - 150 + [1e-3, -1e-3], places.y[4]
    lon, lat = places.grid.unproject(x, y)
    alignment = align(np.asarray(shapely.points(lon, lat), dtype=object), places)
    cells = [parse_tile_id(p)[1:] for p in places.place_id]
    for unit in range(200):
        home = (int(x[unit] // 300), int(y[unit] // 300))
        row = alignment.weights[unit]
        expected = [cells.index(home)] if home in cells else []
        assert row.indices.tolist() == expected
        assert row.data.tolist() == [1.0] * len(expected)
        assert alignment.coverage[unit] == len(expected)
    assert alignment.weights[0].indices[0] == 4
    assert alignment.weights[1].indices[0] == 1


def test_a_tile_border_belongs_to_the_tile_east_and_north_of_it() -> None:
    """The equator is the one border that survives projection to the last bit: y = 0."""
    grid = Grid(32618)
    x, _ = grid.project([-75.01, -75.01], [0.0, -1e-6])
    cells = np.array([[x[0] // 300, 0], [x[0] // 300, -1]])
    ids = np.array(["north", "south"], dtype=object)
    places = Places(grid, ids, "tile", *((cells + 0.5) * 300).T, np.ones(2))
    spots = np.asarray(shapely.points([-75.01, -75.01], [0.0, -1e-6]), dtype=object)
    assert align(spots, places).weights.toarray().tolist() == [[1, 0], [0, 1]]


def test_the_antimeridian_does_not_cut_a_unit() -> None:
    grid = Grid(32760)
    area = shapely.MultiPolygon(
        [shapely.box(179.97, -17.05, 180, -17.0), shapely.box(-180, -17.05, -179.97, -17.0)]
    )
    places = tiles_of(area, grid)
    x, y = grid.project([180.0], [-17.02])
    circle = shapely.Point(x[0], y[0]).buffer(640, quad_segs=8)
    unit = lonlat([circle], places)
    assert unit[0].geom_type == "MultiPolygon", "the unit crosses"
    weights, coverage = naive([circle], places)
    alignment = align(unit, places)
    np.testing.assert_allclose(alignment.weights.toarray(), weights, atol=1e-5)
    np.testing.assert_allclose(alignment.coverage, coverage, atol=1e-5)


def test_lines_are_refused() -> None:
    places = tiles(32618, 1, 1)
    with pytest.raises(UrbanError, match="neither a polygon nor a point"):
        align(np.array([shapely.LineString([(0, 0), (1, 1)])], dtype=object), places)


def test_no_units_align_to_an_empty_table() -> None:
    alignment = align(np.zeros(0, dtype=object), tiles(32618, 2, 1))
    assert alignment.weights.shape == (0, 2)
    assert alignment.coverage.shape == (0,)


def test_point_places_inside_a_polygon_count_alike_and_points_match_within_a_metre() -> None:
    grid = Grid(32723)
    x = np.array([0.0, 10.0, 50.0, 10.0, 50.0]) + 333_000
    y = np.array([0.0, 0.0, 0.0, 0.3, 0.0]) + 7_390_000
    places = point_places(*grid.unproject(x, y), grid, ids=list("abcde"))
    square = shapely.box(x[0] - 5, y[0] - 5, x[0] + 20, y[0] + 5)
    near_b, near_none = shapely.Point(x[1] + 0.2, y[1]), shapely.Point(x[1] + 5, y[1])
    at_c_and_e = shapely.Point(x[2], y[2])
    empty = shapely.box(x[0] + 100, y[0], x[0] + 101, y[0] + 1)
    alignment = align(lonlat([square, near_b, near_none, empty, at_c_and_e], places), places)
    expected = np.zeros((5, 5))
    expected[0, [0, 1, 3]] = 1 / 3
    expected[1, 1] = expected[4, 2] = 1
    np.testing.assert_allclose(alignment.weights.toarray(), expected)
    assert alignment.coverage.tolist() == [1, 1, 0, 0, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_aggregate_is_the_weighted_mean_over_present_places(seed) -> None:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(seed)
    dense = rng.random((6, 9)) * (rng.random((6, 9)) < 0.4)
    dense[0] = 0
    total = dense.sum(axis=1, keepdims=True)
    dense = np.divide(dense, total, out=np.zeros_like(dense), where=total > 0)
    coverage = rng.random(6) * (dense.sum(axis=1) > 0)
    present = rng.random(9) < 0.6
    values = rng.normal(size=(9, 3)).astype(np.float32)
    values[~present] = np.nan  # must never be read
    mean, covered = aggregate(Alignment(csr_matrix(dense), coverage), values, present)
    assert mean.dtype == np.float32
    for unit in range(6):
        there = [p for p in range(9) if present[p] and dense[unit, p] > 0]
        share = sum(dense[unit, p] for p in there)
        assert covered[unit] == pytest.approx(coverage[unit] * share)
        if there:
            expected = sum(dense[unit, p] * values[p].astype(float) for p in there) / share
            np.testing.assert_allclose(mean[unit], expected, rtol=1e-5, atol=1e-6)
        else:
            assert np.isnan(mean[unit]).all()
            assert covered[unit] == 0


def test_the_mean_of_one_is_one_at_any_weights() -> None:
    """Sums are in float64: 1,200 equal tiles give their common value to float32 precision."""
    places = tiles(32618, 40, 30)
    unit = shapely.union_all(places.boxes()).buffer(-37.0)
    alignment = align(lonlat([unit], places), places)
    values = np.full((len(places), 2), 16_777_217 / 3, dtype=np.float32)
    mean, covered = aggregate(alignment, values, np.ones(len(places), dtype=bool))
    np.testing.assert_array_equal(mean, values[:1])
    assert covered[0] == pytest.approx(1.0, abs=1e-9)


def test_a_file_of_embeddings_comes_back_as_it_went(tmp_path: Path) -> None:
    places = tiles(32723, 4, 3, first=(1200, 24000))
    values = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)
    present = np.ones(12, dtype=bool)
    present[[2, 7]] = False
    values[2] = np.nan
    path = tmp_path / "embeddings.parquet"
    write_embeddings(path, places, values, present, {"run": "r1"})

    read, facts = read_embeddings(path)
    assert facts["run"] == "r1" and facts["absent"] == 2 and facts["kind"] == "tile"
    assert len(read.place_id) == 10 and read.present.all()
    back = read.at(places.place_id)
    assert back.present.tolist() == present.tolist()
    np.testing.assert_array_equal(back.values[present], values[present])
    assert np.isnan(back.values[~present]).all()

    frame = gpd.read_parquet(path).set_index("place_id")
    lon, lat = places.lonlat()
    assert frame.crs.to_epsg() == 4326
    np.testing.assert_allclose(frame.loc[places.place_id[0]].geometry.coords[0], (lon[0], lat[0]))
    np.testing.assert_allclose(frame.loc[places.place_id[5], "lat"], lat[5])
    np.testing.assert_array_equal(frame.loc[places.place_id[3], "embedding"], values[3])


def test_a_file_without_present_places_keeps_its_width(tmp_path: Path) -> None:
    places = tiles(32618, 2, 1)
    path = tmp_path / "none.parquet"
    write_embeddings(path, places, np.zeros((2, 4)), np.zeros(2, dtype=bool), {})
    read, facts = read_embeddings(path)
    assert read.values.shape == (0, 4) and facts["absent"] == 2


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    places = tiles(32618, 2, 1)
    values = np.array([[1.0], [np.inf]])
    with pytest.raises(UrbanError, match="1 of 2 embeddings are not finite"):
        write_embeddings(tmp_path / "x.parquet", places, values, np.ones(2, dtype=bool), {})
    assert list(tmp_path.iterdir()) == []


def test_another_parquet_file_of_ours_is_not_embeddings(tmp_path: Path) -> None:
    from urbancli.workspace import write_table

    path = tmp_path / "places.parquet"
    write_table(path, tiles(32618, 2, 1).to_table(), {})
    with pytest.raises(UrbanError, match="holds no embeddings"):
        read_embeddings(path)
