"""The truth of the demo city, measured: what shows in a modality and what does not.

The long form is `python -m benchmarks.demo_truth`, on 20 cities that were never looked at.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo_truth import COMPONENTS, examine, examine_cities, fit_product
from urbancli.demo.factors import FACTORS, MODALITIES, SHARED, UNIQUE
from urbancli.demo.recipe import Recipe


def test_one_small_city_keeps_its_truth(tmp_path: Path) -> None:
    found = examine(Recipe(1, 16, 5.0), tmp_path)["scores"]
    shows = {factor.name: factor.shows_in for factor in FACTORS}
    # A sixth of the default city has a sixth of its units: the bars are wider than in soak.
    for name in MODALITIES:
        shared = np.mean([found[name][target] for target in SHARED])
        assert shared > 0.5, (name, found[name])
        for target in UNIQUE:
            if name in shows[target]:
                assert found[name][target] > 0.3, (name, target)
            else:
                assert -0.15 < found[name][target] < 0.1, (name, target)


@pytest.mark.soak
def test_twenty_cities_never_looked_at_keep_their_truth() -> None:
    found = examine_cities(list(range(100, 120)), 40)
    assert all(found["met"].values()), {key: found[key] for key in found if key not in {"sd"}}


def test_the_probe_of_products_finds_a_product_and_nothing_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    number, width = 1200, max(COMPONENTS) + 6
    first, second = rng.normal(size=(2, number, width))
    order = np.arange(number) // 20
    train = (order % 5) > 0
    product = first[:, 3] * second[:, 5] + rng.normal(0, 0.3, number)

    def r2(target: np.ndarray) -> float:
        predicted = fit_product((first, second), target, train, ~train, order[train])
        errors = ((target[~train] - predicted) ** 2).sum()
        return float(1 - errors / ((target[~train] - target[train].mean()) ** 2).sum())

    assert r2(product) > 0.4
    assert -0.05 < r2(rng.normal(size=number)) < 0.05
    assert -0.05 < r2(first[:, 3]) < 0.1, "a sum is not a product"
