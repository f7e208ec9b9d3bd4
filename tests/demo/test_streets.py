"""The bones of a synthetic city: cells, one network, and bridges where they belong."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import shapely

from urbancli.demo._lattice import bend, main_centre, regular_lattice, sharpness
from urbancli.demo._zones import BUILT
from urbancli.demo.factors import UNIQUE, Factors, draw_factors
from urbancli.demo.recipe import Recipe
from urbancli.demo.streets import Skeleton, lay_streets
from urbancli.demo.town import Elements
from urbancli.grid import TILE_M

DRIVEN = ("motorway", "motorway_link", "primary", "secondary", "tertiary", "residential", "service")


@pytest.fixture(scope="module")
def small() -> Factors:
    return draw_factors(Recipe(seed=3, tiles=10))


@pytest.fixture(scope="module")
def village(small: Factors) -> Skeleton:
    return lay_streets(small)


@pytest.fixture(scope="module")
def city() -> Skeleton:
    return lay_streets(draw_factors(Recipe()))


def _fingerprint(skeleton: Skeleton) -> str:
    digest = hashlib.sha256()
    for shape in shapely.to_wkb(skeleton.elements.geometry):
        digest.update(shape)
    digest.update(repr([list(t.items()) for t in skeleton.elements.tags]).encode())
    digest.update(repr([(r.tags, list(r.members)) for r in skeleton.relations]).encode())
    digest.update(skeleton.cells.corners.tobytes() + skeleton.cells.setback_m.tobytes())
    digest.update(repr(skeleton.cells.zone.tolist()).encode())
    return digest.hexdigest()


def _tiles(recipe: Recipe) -> Any:
    left, bottom, right, top = recipe.box_m
    x, y = np.meshgrid(np.arange(left, right, TILE_M), np.arange(bottom, top, TILE_M))
    return shapely.box(x.ravel(), y.ravel(), x.ravel() + TILE_M, y.ravel() + TILE_M)


def _touched(recipe: Recipe, elements: Elements) -> Any:
    """Return how many elements touch each tile of the city."""
    tiles = _tiles(recipe)
    pairs = shapely.STRtree(elements.geometry).query(tiles, predicate="intersects")
    return np.bincount(pairs[0], minlength=len(tiles))


def _streets(skeleton: Skeleton) -> Elements:
    lines = shapely.get_type_id(skeleton.elements.geometry) == 1
    having = np.array(["highway" in tags for tags in skeleton.elements.tags])
    index = np.flatnonzero(lines & having)
    return Elements(
        skeleton.elements.geometry[index], [skeleton.elements.tags[i] for i in index.tolist()]
    )


def _untagged(elements: Elements, *keys: str) -> Elements:
    keep = [i for i, tags in enumerate(elements.tags) if not any(key in tags for key in keys)]
    return Elements(elements.geometry[keep], [elements.tags[i] for i in keep])


@pytest.mark.parametrize(("seed", "tiles"), [(0, 8), (4, 8), (1, 13), (7, 13)])
def test_cells_fill_the_square(seed: int, tiles: int) -> None:
    recipe = Recipe(seed=seed, tiles=tiles)
    cells = lay_streets(draw_factors(recipe)).cells
    polygons, square = cells.polygons(), shapely.box(*recipe.rendered_m)
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 300).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    # As large as the square together, and with its outline: no gap and no overlap.
    assert shapely.area(polygons).sum() == pytest.approx(square.area, rel=1e-9)
    assert shapely.coverage_is_valid(polygons)
    assert shapely.symmetric_difference(shapely.coverage_union_all(polygons), square).area < 1
    assert (cells.tile == np.floor(cells.centres() / TILE_M)).all()


def test_the_lattice_is_bent_but_not_folded(small: Factors) -> None:
    centre = main_centre(small)
    straight = regular_lattice(small.recipe, centre)
    bent = bend(straight, small.recipe)
    assert sharpness(straight).min() == pytest.approx(1)
    assert sharpness(bent).min() > 0.12
    along = np.diff(bent.vertices, axis=1).reshape(-1, 2)
    turned = np.degrees(np.arctan2(along[:, 1], along[:, 0]))
    assert np.quantile(turned, 0.95) > 8
    assert np.quantile(turned, 0.05) < -8


def test_hierarchy(city: Skeleton) -> None:
    streets = _streets(city)
    square = np.prod(np.diff(np.array(Recipe().rendered_m).reshape(2, 2), axis=0)) / 1e6
    # Streets of one class and both directions, s km apart: 2 / s km per km².
    for classes, apart in (("primary",), 1.8), (("primary", "secondary"), 0.9):
        length = shapely.length(streets.having("highway", *classes).geometry).sum() / 1000
        assert 2 * square / length == pytest.approx(apart, rel=0.2)
    kinds = {tags["highway"] for tags in streets.tags}
    assert kinds >= {*DRIVEN, "pedestrian", "footway", "cycleway", "path", "track"}
    points = shapely.get_num_points(streets.geometry)
    assert points.max() <= 26
    assert np.median(shapely.length(streets.having("highway", "residential").geometry)) < 500


@pytest.mark.parametrize("name", ["village", "city"])
def test_one_network(name: str, request: pytest.FixtureRequest) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    streets = _streets(request.getfixturevalue(name))
    points, way = shapely.get_coordinates(streets.geometry, return_index=True)
    _, node = np.unique(points, axis=0, return_inverse=True)
    size = (len(streets), node.max() + 1)
    links = coo_array((np.ones(len(way)), (way, node.ravel())), shape=size).tocsr()
    _, part = connected_components(links @ links.T, directed=False)
    assert np.bincount(part).max() >= 0.95 * len(streets)


def test_ends_meet_other_ways(village: Skeleton) -> None:
    streets = _untagged(_streets(village), "ref")
    minor = np.array(
        [t["highway"] in ("footway", "path", "track", "cycleway") for t in streets.tags]
    )
    points, way = shapely.get_coordinates(streets.geometry, return_index=True)
    _, node, count = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    last = np.append(np.diff(way) > 0, True)
    first = np.append(True, np.diff(way) > 0)
    alone = count[node.ravel()] == 1
    dead = np.zeros(len(streets), dtype=int)
    np.add.at(dead, way[first], alone[first])
    np.add.at(dead, way[last], alone[last])
    shared = np.bincount(way, weights=~alone, minlength=len(streets))
    assert (shared > 0).all()
    assert dead[~minor].sum() < 0.12 * 2 * (~minor).sum()


@pytest.mark.parametrize("name", ["village", "city"])
def test_streets_cross_water_on_bridges_alone(name: str, request: pytest.FixtureRequest) -> None:
    skeleton = request.getfixturevalue(name)
    streets = _streets(skeleton)
    water = skeleton.elements.having("natural", "water")
    courses = skeleton.elements.having("waterway")
    on_ground = _untagged(streets, "bridge")
    tree = shapely.STRtree(on_ground.geometry)
    assert not tree.query(water.geometry, predicate="intersects").size
    # A course that ends in the river runs on under its bridges.
    crossing = tree.query(courses.geometry, predicate="intersects")[1]
    assert not len(crossing)


@pytest.mark.parametrize("name", ["village", "city"])
def test_bridges_and_tunnels_cross_something(name: str, request: pytest.FixtureRequest) -> None:
    skeleton = request.getfixturevalue(name)
    elements = skeleton.elements
    lines = [elements.having("waterway"), elements.having("railway", "rail")]
    lines += [elements.having("highway", "motorway"), elements.having("natural", "water")]
    below = np.concatenate([part.geometry for part in lines])
    for key, layer in ("bridge", "1"), ("tunnel", "-1"):
        raised = _streets(skeleton).having(key, "yes")
        assert len(raised) > 0
        assert all(tags["layer"] == layer for tags in raised.tags)
        near = shapely.STRtree(below).query(raised.geometry, predicate="dwithin", distance=8.0)
        assert len(np.unique(near[0])) == len(raised)


def test_enough_bridges_of_both_kinds(city: Skeleton) -> None:
    bridges = city.elements.having("bridge")
    some = _touched(Recipe(), bridges) > 0
    cars = _touched(Recipe(), bridges.having("highway", *DRIVEN)) > 0
    assert some.sum() >= 80
    assert cars.sum() >= 50
    assert (some & ~cars).sum() >= 25


@pytest.mark.parametrize("seed", range(3))
def test_a_few_bridges_of_both_kinds_in_a_small_city(seed: int) -> None:
    recipe = Recipe(seed=seed, tiles=10)
    bridges = lay_streets(draw_factors(recipe)).elements.having("bridge")
    some = _touched(recipe, bridges) > 0
    cars = _touched(recipe, bridges.having("highway", *DRIVEN)) > 0
    assert cars.sum() >= 5
    assert (some & ~cars).sum() >= 3
    assert (~some).sum() >= 20


def test_water_has_islands_and_stays_small(city: Skeleton) -> None:
    water = city.elements.having("natural", "water")
    box = shapely.box(*Recipe().box_m)
    assert 0.003 < shapely.area(shapely.intersection(water.geometry, box)).sum() / box.area < 0.06
    for kinds in ("river",), ("lake", "pond"):
        holes = shapely.get_num_interior_rings(water.having("water", *kinds).geometry)
        assert holes.max() >= 1
    for kind in ("river", "stream", "canal"):
        assert len(city.elements.having("waterway", kind)) > 2


def test_nearly_every_tile_is_built(city: Skeleton) -> None:
    built = np.isin(city.cells.zone, BUILT)
    origin = np.floor(np.array(Recipe().box_m[:2]) / TILE_M).astype(int)
    column, row = (city.cells.tile[built] - origin).T
    side = Recipe().tiles
    inside = (column >= 0) & (row >= 0) & (column < side) & (row < side)
    count = np.bincount(row[inside] * side + column[inside], minlength=side**2)
    assert (count >= 4).mean() >= 0.88
    assert set(city.cells.zone) >= {*BUILT, "park", "forest", "meadow", "water", "railway"}


def test_signals_follow_centrality(city: Skeleton) -> None:
    recipe = Recipe()
    signals = city.elements.having("highway", "traffic_signals")
    count = _touched(recipe, signals)
    centrality = draw_factors(recipe).tile_means("centrality").ravel()
    assert np.corrcoef(count, centrality)[0, 1] > 0.35
    assert (count == 0).sum() > 300
    assert count.max() >= 5
    assert (np.bincount(count)[:4] > 60).all()
    # They are nodes of the streets.
    nodes = {tuple(p) for p in shapely.get_coordinates(_streets(city).geometry)}
    assert all(tuple(p) in nodes for p in shapely.get_coordinates(signals.geometry))
    crossings = city.elements.having("highway", "crossing")
    assert all(tuple(p) in nodes for p in shapely.get_coordinates(crossings.geometry))


TAGS = [
    ("lit", "yes", "centrality"),
    ("smoothness", "excellent", "affluence"),
    ("tree_lined", "both", "greenery"),
    ("surface", "sett", "age"),
    ("parking:both", "lane", "density"),
]


@pytest.mark.parametrize(("key", "value", "factor"), TAGS)
def test_tags_follow_their_factor(city: Skeleton, key: str, value: str, factor: str) -> None:
    factors = draw_factors(Recipe())
    streets = _streets(city).having("highway", "residential", "secondary", "tertiary")
    has = np.array([tags[key] == value for tags in streets.tags], dtype=float)
    spots = shapely.get_coordinates(shapely.centroid(streets.geometry))
    known = np.column_stack([factors.at(name, *spots.T) for name in factors.fields])
    weights = np.linalg.lstsq(np.column_stack([known, np.ones(len(has))]), has, rcond=None)[0]
    names = list(factors.fields)
    own = weights[names.index(factor)]
    others = [abs(w) for name, w in zip(names, weights, strict=False) if name != factor]
    assert own > 0.15
    assert max(others) < 0.15 * own


def test_speed_limits_take_parsing(city: Skeleton) -> None:
    streets = _streets(city)
    limits = [tags["maxspeed"] for tags in streets.tags if "maxspeed" in tags]
    assert {"30", "50", "60", "120", "30 mph"} <= set(limits)
    assert 5 < limits.count("30 mph") < 0.05 * len(limits)
    assert any("maxspeed" not in tags for tags in streets.having("highway", "primary").tags)


def test_geometry_is_valid_and_inside(village: Skeleton, small: Factors) -> None:
    geometry = village.elements.geometry
    assert shapely.is_valid(geometry).all()
    assert not shapely.is_empty(geometry).any()
    left, bottom, right, top = shapely.bounds(geometry).T
    box = small.recipe.rendered_m
    assert left.min() >= box[0] - 7
    assert bottom.min() >= box[1] - 7
    assert right.max() <= box[2] + 7
    assert top.max() <= box[3] + 7
    solid = shapely.get_dimensions(geometry) == 2
    assert np.hypot(right - left, top - bottom)[solid].max() < 1000


def test_land_use_does_not_overlap(village: Skeleton) -> None:
    land = [
        part.geometry
        for part in (
            village.elements.having("landuse"),
            village.elements.having("leisure", "park", "garden"),
            village.elements.having("natural", "wood", "scrub"),
            village.elements.having("amenity", "school", "hospital"),
        )
    ]
    shapes = np.concatenate(land)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="overlaps")
    apart = first < second
    assert not (shapely.area(shapely.intersection(shapes[first], shapes[second]))[apart] > 1).any()


def test_plots_keep_off_streets(village: Skeleton) -> None:
    cells = village.cells
    assert ((cells.setback_m == 0) | (cells.setback_m >= 3)).all()
    assert (cells.setback_m == 0).mean() < 0.45
    start, end = cells.corners, np.roll(cells.corners, -1, axis=1)
    sides = shapely.linestrings(np.stack([start, end], axis=2).reshape(-1, 2, 2))
    ground = _untagged(_streets(village), "bridge", "tunnel", "ref")
    streets = shapely.union_all(ground.having("highway", *DRIVEN).geometry)
    shapely.prepare(streets)
    covered = shapely.covers(shapely.buffer(streets, 0.01), shapely.centroid(sides))
    assert covered.any()
    assert (cells.setback_m.ravel()[covered] > 0).all()


def test_relations_have_members_of_their_kind(village: Skeleton) -> None:
    tags = village.elements.tags
    kinds = {(r.tags["type"], r.tags.get("route", "")) for r in village.relations}
    assert kinds >= {("route", "bus"), ("route", "tram"), ("boundary", ""), ("street", "")}
    for relation in village.relations:
        assert relation.members
        for member, role in relation.members:
            if role == "platform":
                assert tags[member]["highway"] == "bus_stop"
            elif relation.tags["type"] == "boundary":
                assert tags[member]["boundary"] == "administrative"
            elif relation.tags.get("route") == "tram":
                assert tags[member]["railway"] == "tram"
            elif relation.tags["type"] in ("route", "street"):
                assert "highway" in tags[member]
    borders = [r for r in village.relations if r.tags["type"] == "boundary"]
    for border in borders:
        lines = village.elements.geometry[[member for member, _ in border.members]]
        assert shapely.get_num_geometries(shapely.polygonize(lines)) == 1


def test_unique_factors_leave_no_trace(small: Factors, village: Skeleton) -> None:
    noise = np.random.default_rng(0)
    fields = {
        name: noise.standard_normal(field.shape) if name in UNIQUE else field
        for name, field in small.fields.items()
    }
    other = lay_streets(dataclasses.replace(small, fields=fields))
    assert _fingerprint(other) == _fingerprint(village)


def test_ramps_join_the_motorway_to_streets(city: Skeleton) -> None:
    ramps = city.elements.having("highway", "motorway_link").geometry
    assert len(ramps) > 30
    roads = {tuple(p) for p in shapely.get_coordinates(
        city.elements.having("highway", "motorway").geometry)}  # fmt: skip
    streets = city.elements.having("highway", "primary", "secondary").geometry
    crossed = {tuple(p) for p in shapely.get_coordinates(streets)}
    for ramp in ramps:
        ends = {ramp.coords[0], ramp.coords[-1]}
        assert ends & roads
        assert ends & crossed


def test_same_in_every_process(village: Skeleton) -> None:
    code = (
        "from tests.demo.test_streets import _fingerprint;"
        "from urbancli.demo.factors import draw_factors; from urbancli.demo.recipe import Recipe;"
        "from urbancli.demo.streets import lay_streets;"
        "print(_fingerprint(lay_streets(draw_factors(Recipe(seed=3, tiles=10)))))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert answer.stdout.strip() == _fingerprint(village)
