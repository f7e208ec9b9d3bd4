"""Buildings: whole, on their own ground, and telling what they should of the factors, no more."""

import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import shapely
from lattice import lattice
from scipy.stats import spearmanr

from urbancli.demo._draws import SLOPE, sigmoid, tile_index, tile_levels
from urbancli.demo.buildings import build
from urbancli.demo.factors import SHARED, UNIQUE, Factors, draw_factors
from urbancli.demo.recipe import Recipe
from urbancli.demo.streets import lay_streets
from urbancli.demo.town import Cells, Elements

City = tuple[Factors, Cells, Elements]


def _city(factors: Factors, cells: Cells) -> City:
    return factors, cells, build(factors, cells)


@pytest.fixture(scope="module", params=["lattice", "streets"])
def city(request: pytest.FixtureRequest) -> City:
    """A small city, once on plain squares and once between the streets of the demo."""
    factors = draw_factors(Recipe(seed=3, tiles=16))
    plain = request.param == "lattice"
    return _city(factors, lattice(factors) if plain else lay_streets(factors).cells)


def _numbers(elements: Elements, factors: Factors) -> np.ndarray:
    centroids = shapely.get_coordinates(shapely.centroid(elements.geometry))
    return tile_index(factors, centroids)


def _share(
    elements: Elements, factors: Factors, follows: Callable[[dict[str, str]], bool], least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tiles with at least so many elements, the share that follows, and how many there."""
    tile = _numbers(elements, factors)
    count = np.bincount(tile)
    yes = np.bincount(tile, [follows(tags) for tags in elements.tags])
    known = np.flatnonzero(count >= least)
    return known, yes[known] / count[known], count[known]


def test_everything_is_valid_and_inside_one_block(city: City) -> None:
    _, cells, elements = city
    assert shapely.is_valid(elements.geometry).all()
    blocks = shapely.buffer(cells.polygons(), 1e-6)
    found = shapely.STRtree(blocks).query(elements.geometry, predicate="covered_by")[0]
    assert len(np.unique(found)) == len(elements)
    buildings = elements.having("building")
    assert shapely.area(buildings.geometry).min() > 5
    assert not (shapely.get_type_id(buildings.geometry) != 3).any()


def test_buildings_keep_the_setback_of_their_block(city: City) -> None:
    factors, _, _ = city
    cells = lattice(factors)
    buildings = build(factors, cells).having("building")
    left, bottom = factors.recipe.rendered_m[:2]
    bounds = shapely.bounds(buildings.geometry) - np.array([left, bottom] * 2)
    assert ((bounds[:, :2] % 100) >= 8 - 1e-6).all() and ((bounds[:, 2:] % 100) <= 92 + 1e-6).all()


def test_buildings_do_not_overlap(city: City) -> None:
    shapes = city[2].having("building").geometry
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = first < second
    first, second = first[pairs], second[pairs]
    assert shapely.area(shapely.intersection(shapes[first], shapes[second])).max() < 1e-3
    assert len(first) > 100  # shared walls there are


def test_terraces_share_whole_walls(city: City) -> None:
    shapes = city[2].having("building", "terrace").geometry
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = first < second
    assert pairs.sum() > 50
    for a, b in zip(shapes[first[pairs]], shapes[second[pairs]], strict=True):
        assert len(set(a.exterior.coords) & set(b.exterior.coords)) == 2


def test_pools_and_gardens_are_clear_of_buildings(city: City) -> None:
    buildings = city[2].having("building").geometry
    outside = city[2].having("leisure").geometry
    assert len(outside) > 50
    hit = shapely.STRtree(buildings).query(outside, predicate="intersects")
    assert not hit.size


def test_the_share_of_brick_is_the_sigmoid_of_masonry_to_within_one_building(city: City) -> None:
    factors, _, elements = city
    buildings = elements.having("building")
    tile, share, count = _share(
        buildings, factors, lambda tags: tags["building:material"] == "brick", 1
    )
    wanted = sigmoid(SLOPE * tile_levels(factors, "masonry")[tile])
    assert (np.abs(share - wanted) * count <= 1 + 1e-9).all()
    assert {tags["building:material"] for tags in buildings.tags} == {"brick", "plaster"}


@pytest.mark.parametrize(
    ("factor", "follows"),
    [
        ("affluence", lambda tags: tags["building:condition"] == "good"),
        ("affluence", lambda tags: tags["roof:shape"] in {"hipped", "skillion"}),
        ("age", lambda tags: tags["start_date"] in {"1890s", "1930s"}),
        ("age", lambda tags: tags["roof:shape"] in {"hipped", "gabled"}),
        ("centrality", lambda tags: tags["building:use"] == "commercial"),
    ],
)
def test_shares_of_tags_follow_their_factor(
    city: City, factor: str, follows: Callable[[dict[str, str]], bool]
) -> None:
    factors, _, elements = city
    tile, share, _ = _share(elements.having("building"), factors, follows, 8)
    assert spearmanr(share, tile_levels(factors, factor)[tile]).statistic > 0.9
    assert len(tile) > 0.8 * len(tile_levels(factors, factor))


@pytest.mark.parametrize(
    ("factor", "key", "values", "least"),
    [
        ("greenery", "barrier", ("hedge",), 0.7),
        ("greenery", "roof:material", ("grass",), 0.7),
        ("centrality", "roof:material", ("gravel", "glass"), 0.7),
        ("age", "roof:material", ("roof_tiles", "slate"), 0.7),
    ],
)
def test_the_rarer_tags_follow_their_factor_too(
    city: City, factor: str, key: str, values: tuple[str, ...], least: float
) -> None:
    factors, _, elements = city
    tile, share, _ = _share(elements.having(key), factors, lambda tags: tags[key] in values, 5)
    assert spearmanr(share, tile_levels(factors, factor)[tile]).statistic > least


def test_counts_and_storeys_follow_density_pools_affluence_and_gardens_greenery() -> None:
    factors = draw_factors(Recipe(seed=3, tiles=16))
    plain = lattice(factors)
    cells = dataclasses.replace(plain, zone=np.full(len(plain), "residential", dtype=object))
    elements = build(factors, cells)
    buildings = elements.having("building")
    tile = _numbers(buildings, factors)
    storeys = np.array([int(tags["building:levels"]) for tags in buildings.tags])
    mean = np.bincount(tile, storeys) / np.bincount(tile)
    levels = {name: tile_levels(factors, name) for name in SHARED}
    assert spearmanr(mean, levels["density"]).statistic > 0.9
    floor = np.bincount(tile, storeys * shapely.area(buildings.geometry))
    assert spearmanr(floor, levels["density"]).statistic > 0.8
    for kind, factor in (("swimming_pool", "affluence"), ("garden", "greenery")):
        count = np.bincount(
            _numbers(elements.having("leisure", kind), factors), minlength=len(mean)
        )
        others = [np.ones(len(mean)), *(levels[name] for name in SHARED)]
        weights = np.linalg.lstsq(np.column_stack(others), count, rcond=None)[0]
        assert weights[1 + SHARED.index(factor)] > 0.5


def test_a_unique_factor_changes_nothing_but_the_material_of_walls() -> None:
    factors = draw_factors(Recipe(seed=5, tiles=8))
    cells = lattice(factors)
    before = build(factors, cells)
    for name in UNIQUE:
        noise = np.random.default_rng(1).standard_normal(factors.fields[name].shape)
        other = build(dataclasses.replace(factors, fields=factors.fields | {name: noise}), cells)
        np.testing.assert_array_equal(
            shapely.to_wkb(other.geometry), shapely.to_wkb(before.geometry)
        )
        changed = Counter(
            key
            for old, new in zip(before.tags, other.tags, strict=True)
            for key in old.keys() | new.keys()
            if old.get(key) != new.get(key)
        )
        assert set(changed) == ({"building:material"} if name == "masonry" else set())


def test_no_street_no_setback_and_slivers_are_no_mistake() -> None:
    factors = draw_factors(Recipe(seed=5, tiles=8))
    cells = lattice(factors)
    corners = cells.corners.copy()
    corners[:50, 2] = corners[:50, 0] + np.array([3.0, 40.0])  # slivers and dents
    corners[50:100, 1:3, 0] -= 85  # narrow
    odd = dataclasses.replace(cells, corners=corners, setback_m=cells.setback_m * 0)
    elements = build(factors, odd)
    assert shapely.is_valid(elements.geometry).all()
    assert len(elements) > 1000
