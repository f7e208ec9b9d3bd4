"""Trees: as many as the greenery says, in streets and gardens, never in a building."""

import dataclasses

import numpy as np
import shapely
from lattice import SETBACK_M, lattice
from scipy.stats import spearmanr

from urbancli.demo._draws import tile_index, tile_levels
from urbancli.demo.factors import UNIQUE, draw_factors
from urbancli.demo.recipe import Recipe
from urbancli.demo.trees import MOST_TREES, TREES_PER_TILE, plant

FACTORS = draw_factors(Recipe(seed=3, tiles=12))
TREES = plant(FACTORS, lattice(FACTORS))


def test_their_number_follows_greenery_and_is_bounded() -> None:
    points = TREES.having("natural", "tree")
    tile = tile_index(FACTORS, shapely.get_coordinates(points.geometry))
    count = np.bincount(tile, minlength=len(tile_levels(FACTORS, "greenery")))
    assert spearmanr(count, tile_levels(FACTORS, "greenery")).statistic > 0.98
    assert count.max() <= MOST_TREES and count.mean() < TREES_PER_TILE * 1.2


def test_their_tags_follow_factors() -> None:
    points = TREES.having("natural", "tree")
    tile = tile_index(FACTORS, shapely.get_coordinates(points.geometry))
    for factor, key, values in (
        ("affluence", "genus", ("Platanus", "Tilia")),
        ("age", "circumference", ("2.8", "1.9")),
        ("centrality", "denotation", ("avenue",)),
    ):
        yes = np.bincount(tile, [tags[key] in values for tags in points.tags])
        share = yes / np.bincount(tile)
        assert spearmanr(share, tile_levels(FACTORS, factor)).statistic > 0.9


def test_none_stands_on_a_carriageway() -> None:
    left, bottom = FACTORS.recipe.rendered_m[:2]
    points = shapely.get_coordinates(TREES.having("natural", "tree").geometry) - [left, bottom]
    inside = points % 100
    assert (inside > SETBACK_M - 2).all() and (inside < 100 - SETBACK_M + 2).all()


def test_unique_factors_leave_no_trace() -> None:
    cells = lattice(FACTORS)
    noise = np.random.default_rng(1).standard_normal(FACTORS.fields["masonry"].shape)
    fields = FACTORS.fields | dict.fromkeys(UNIQUE, noise)
    other = plant(dataclasses.replace(FACTORS, fields=fields), cells)
    np.testing.assert_array_equal(shapely.to_wkb(other.geometry), shapely.to_wkb(TREES.geometry))
    assert other.tags == TREES.tags
