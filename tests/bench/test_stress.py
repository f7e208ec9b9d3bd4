"""Conditions that a call asks for, and what their rows add up to."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from urbancli.bench.run import BenchOptions
from urbancli.bench.stress import (
    IMPUTATIONS,
    WHO,
    Condition,
    conditions,
    degradation,
    improvements,
    worst_subsets,
)
from urbancli.errors import UsageError

READ = ["coords", "sentinel2", "naip", "pois"]


def asked(**changes: Any) -> list[Condition]:
    return conditions(BenchOptions(("town",), **changes), READ)


def test_nothing_asked_is_the_whole_alone() -> None:
    assert asked() == [Condition()] and Condition().spoiling.label == ""


def test_a_drop_is_scored_four_ways_and_named_as_it_was_asked_for() -> None:
    found = asked(drop=("satellite", "pois"))[1:]
    ways = [("both", ""), ("test", ""), ("test", "mean"), ("test", "regression")]
    assert [(one.at, one.imputation) for one in found] == 2 * ways
    assert [one.spoiling.label for one in found] == 4 * ["satellite"] + 4 * ["pois"]
    assert all(one.single for one in found)


def test_subsets_are_every_non_empty_one_once() -> None:
    found = asked(subsets=True)
    kept = {tuple(name for name in READ if name not in one.spoiling.gone) for one in found}
    assert kept == {s for size in range(1, 5) for s in combinations(READ, size)}
    assert len(found) == 1 + 14 * 4 and len(set(found)) == len(found)
    single = {one.spoiling.label for one in found if one.single}
    assert single == set(READ)
    # What was asked for by another name is not asked twice: there is no sentinel1.
    more = asked(drop=("satellite", "pois", "streetview"), subsets=True)
    assert len(more) == len(found) + 4, "streetview, which nobody reads, is told apart"
    labels = {one.spoiling.label for one in more}
    assert "satellite" in labels and "sentinel2+naip" not in labels


def test_rates_noise_and_other_dates_are_asked_at_both_and_at_test() -> None:
    found = asked(drop_rates=(0.1, 0.3, 0.1), noise=("1", "coords=0.5", "0"), seed=3,
                  stale=("satellite=then", "pois=then"))[1:]  # fmt: skip
    by = {label: [one for one in found if one.spoiling.label == label]
          for label in dict.fromkeys(one.spoiling.label for one in found)}  # fmt: skip
    assert list(by) == ["rate=0.1", "rate=0.3", "noise=1", "noise:coords=0.5",
                        "stale:sentinel2=then,stale:naip=then", "stale:pois=then"]  # fmt: skip
    for label, ones in by.items():
        filled = IMPUTATIONS if label.startswith("rate") else ()
        assert [one.at for one in ones] == ["both", "test"] + ["test"] * len(filled)
        assert [one.imputation for one in ones] == ["", "", *filled]
        assert not any(one.single for one in ones)
    assert all(one.spoiling.seed == 3 for one in found if one.spoiling.rate or one.spoiling.noise)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop": ("satelite",)}, "unknown modality 'satelite': did you mean satellite"),
        ({"drop_rates": (1.0,)}, "rate=1.0 does not fit"),
        ({"noise": ("loud",)}, "noise 'loud' is not S or MODALITY=S, e.g. 1 or coords=0.5"),
        ({"noise": ("poi=1",)}, "unknown modality 'poi'"),
        ({"noise": ("-1",)}, "noise=-1.0 does not fit"),
        ({"stale": ("sentinel2",)}, "'sentinel2' is not MODALITY=CITY, e.g. sentinel2=delhi-2019"),
        ({"stale": ("=a",)}, "'=a' is not MODALITY=CITY"),
        ({"stale": ("osm=a",)}, "nothing of osm is read here: name a modality that is"),
        ({"stale": ("coords=a",)}, "coords are the same at every date"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(**changes)


# --- summaries -------------------------------------------------------------------------------


def row(drop: str, value: float | None, **changes: Any) -> dict[str, Any]:
    who = dict.fromkeys(WHO, "") | {"method": "m", "run": "r", "task": "t", "seed": 0}
    parts = {"drop_at": "both" if drop else "", "imputation": "", "retention": None}
    low = {"difference_full": None, "difference_full_low": None, "difference_full_high": None}
    return {**who, **parts, **low, "drop": drop, "value": value, **changes}


def test_the_area_is_that_under_the_curve() -> None:
    kept = {0.1: 0.9, 0.3: 0.8, 0.5: 0.4, 0.7: -0.1}
    rows = [row("", 0.6), *(row(f"rate={r:g}", 0.5, retention=k) for r, k in kept.items())]
    (found,) = degradation(rows[::-1])
    x, y = [0.0, *kept], [1.0, *kept.values()]
    assert found["area"] == pytest.approx(np.trapezoid(y, x) / 0.7)
    assert found["rates"] == "0.1, 0.3, 0.5, 0.7" and found["up_to"] == 0.7
    assert found["method"] == "m" and found["drop_at"] == "both"
    lossless = [row(f"rate={r}", 0.5, retention=1.0) for r in kept]
    assert degradation(lossless)[0]["area"] == pytest.approx(1.0)
    at_once = [row(f"rate={r}", 0.5, retention=0.0) for r in kept]
    assert degradation(at_once)[0]["area"] == pytest.approx(0.05 / 0.7)


def test_each_curve_is_its_own_and_whole() -> None:
    rows = [row(f"rate={r}", 0.5, retention=k, task=task, drop_at=at, imputation=how)
            for r in (0.1, 0.7) for task, at, how, k in (("a", "both", "", 0.9),
            ("a", "test", "mean", 0.5), ("b", "both", "", None if r == 0.7 else 0.9))]  # fmt: skip
    rows += [row("pois,rate=0.1", 0.1, retention=0.1), row("noise=1", 0.1, retention=0.1)]
    found = {(one["task"], one["drop_at"], one["imputation"]): one["area"]
             for one in degradation(rows)}  # fmt: skip
    assert set(found) == {("a", "both", ""), ("a", "test", "mean")}, "b has no retention at 0.7"
    assert found["a", "both", ""] > found["a", "test", "mean"]


def test_the_worst_subset_has_the_least_score() -> None:
    rows = [row("", 0.1), row("pois", 0.5), row("coords+pois", 0.3, retention=0.4),
            row("rate=0.7", 0.0), row("noise=1", 0.0), row("sentinel2", None),
            row("coords", -0.2, drop_at="test"), row("naip", 0.9, task="u")]  # fmt: skip
    found = {(one["task"], one["drop_at"]): one for one in worst_subsets(rows)}
    assert set(found) == {("t", "both"), ("t", "test"), ("u", "both")}
    worst = found["t", "both"]
    assert (worst["drop"], worst["value"], worst["retention"]) == ("coords+pois", 0.3, 0.4)
    assert worst["of"] == 2


def test_only_what_surely_improves_is_told() -> None:
    def differs(drop: str, gap: float, low: float | None, **changes: Any) -> dict[str, Any]:
        parts = {"difference_full": gap, "difference_full_low": low}
        return row(drop, 0.5, **parts, **changes)

    rows = [row("", 0.4), differs("pois", 0.1, 0.02), differs("naip", 0.2, -0.01),
            differs("coords", 0.3, None), differs("coords+pois", 0.3, 0.1, task="u"),
            differs("noise=1", 0.5, 0.4), differs("sentinel2", -0.2, -0.3)]  # fmt: skip
    found = improvements(rows)
    assert [(one["task"], one["drop"], one["of"]) for one in found] == [
        ("u", "coords+pois", 1), ("t", "pois", 4),
    ]  # fmt: skip
