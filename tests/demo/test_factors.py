"""The hidden factors: the table of truth, correlation ranges, orthogonality, determinism."""

import numpy as np
import pytest

from urbancli.demo.factors import (
    FACTORS,
    MODALITIES,
    SHARED,
    SYNERGY,
    TARGETS,
    UNIQUE,
    draw_factors,
    truth,
)
from urbancli.demo.recipe import Recipe, demo_seed
from urbancli.errors import UsageError


def test_the_table_says_where_each_factor_shows() -> None:
    shows = {factor.name: factor.shows_in for factor in FACTORS}
    assert all(shows[name] == MODALITIES for name in SHARED)
    assert sorted(shows[name] for name in UNIQUE) == sorted((name,) for name in MODALITIES)
    (synergy,) = [row for row in truth(Recipe())["targets"] if row["target"] == "synergy"]
    assert synergy["needs"] == [shows[name][0] for name in SYNERGY]
    assert len(set(synergy["needs"])) == 2


@pytest.mark.parametrize(("seed", "tiles"), [(0, 40), (1, 10), (2, 25)])
def test_factors_have_mean_0_and_variance_1_over_the_city(seed: int, tiles: int) -> None:
    factors = draw_factors(Recipe(seed, tiles))
    for name in (*SHARED, *UNIQUE):
        means = factors.tile_means(name)
        assert means.shape == (tiles, tiles)
        assert means.mean() == pytest.approx(0, abs=1e-9)
        assert means.std() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_unique_factors_are_orthogonal_to_all_others(seed: int) -> None:
    factors = draw_factors(Recipe(seed))
    means = {name: factors.tile_means(name).ravel() for name in (*SHARED, *UNIQUE)}
    for name in UNIQUE:
        for other in means.keys() - {name}:
            assert np.corrcoef(means[name], means[other])[0, 1] == pytest.approx(0, abs=1e-9)
    shared = np.corrcoef([means[name] for name in SHARED])
    assert np.abs(shared - np.eye(len(SHARED))).max() > 0.3, "shared factors are correlated"


def test_unique_factors_vary_within_two_tiles_and_shared_ones_beyond() -> None:
    far: dict[str, list[float]] = {name: [] for name in (*SHARED, *UNIQUE)}
    for seed in range(8):
        factors = draw_factors(Recipe(seed))
        for name, found in far.items():
            means = factors.tile_means(name)
            found.append(float(np.corrcoef(means[:, :-2].ravel(), means[:, 2:].ravel())[0, 1]))
    for name in UNIQUE:
        assert abs(np.mean(far[name])) < 0.05, name
    for name in SHARED:
        assert np.mean(far[name]) > 0.5, name


def test_the_synergy_is_the_product_of_two_unique_factors() -> None:
    factors = draw_factors(Recipe(3))
    first, second = (factors.tile_means(name) for name in SYNERGY)
    product = factors.tile_means("synergy")
    np.testing.assert_array_equal(product, first * second)
    for one in (first, second):
        assert abs(np.corrcoef(product.ravel(), one.ravel())[0, 1]) < 0.15


def test_values_between_samples_are_interpolated() -> None:
    factors = draw_factors(Recipe(0, 10))
    left, bottom, right, top = factors.recipe.rendered_m
    field = factors.fields["density"]
    assert factors.at("density", left + 30, bottom + 30) == pytest.approx(field[0, 0])
    assert factors.at("density", right - 30, bottom + 90) == pytest.approx(field[1, -1])
    middle = factors.at("density", left + 60, bottom + 60)
    assert middle == pytest.approx(field[:2, :2].mean())
    assert factors.at("density", left - 1e4, top + 1e4) == pytest.approx(field[-1, 0])


def test_a_recipe_is_drawn_alike_again_and_other_seeds_otherwise() -> None:
    first, again, other = (draw_factors(Recipe(seed, 10)) for seed in (5, 5, 6))
    for name in TARGETS:
        np.testing.assert_array_equal(first.tile_means(name), again.tile_means(name))
        assert (first.tile_means(name) != other.tile_means(name)).any()


def test_recipes_out_of_range_are_refused() -> None:
    wrong = {
        "tiles": (7, "give 8 to 100"),
        "gsd_m": (3.0, "give one of"),
        "seed": (-1, "is not in"),
    }
    for name, (value, remedy) in wrong.items():
        with pytest.raises(UsageError, match=remedy):
            Recipe(**{name: value})


def test_a_citys_key_names_its_seed() -> None:
    keys = {"demo": 0, "demo-7": 7, "demo-x": None, "delhi": None, "demolition": None}
    assert {key: demo_seed(key) for key in keys} == keys
    for wrong in ("demo-0", "demo-07", "demo-99999999999"):
        with pytest.raises(UsageError, match="seed"):
            demo_seed(wrong)
    for seed in (0, 7, 123):
        assert demo_seed(Recipe(seed).key) == seed
