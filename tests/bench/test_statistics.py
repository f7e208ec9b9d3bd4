"""Scores and jackknife intervals against loops that score again without a group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, r2_score

from urbancli.bench.statistics import (
    Interval,
    confusion,
    deletions,
    difference,
    interval,
    macro_f1,
    r_squared,
    retention,
    retention_means,
    squares,
)


def regression(number: int, groups: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, number - groups)])
    truth = rng.normal(size=number) + rng.normal(size=groups)[group]
    predicted = truth + rng.normal(size=number)
    baseline = rng.normal(scale=0.1, size=5)[group % 5]
    return truth, predicted, baseline, group


def naive_r2(truth: np.ndarray, predicted: np.ndarray, baseline: np.ndarray) -> float:
    above = below = 0.0
    for y, guess, mean in zip(truth, predicted, baseline, strict=True):
        above += (y - guess) ** 2
        below += (y - mean) ** 2
    return 1 - above / below


def naive_jackknife(
    value: float, without: list[float], factor: float, df: float | None = None
) -> tuple[float, float]:
    groups = len(without)
    mean = sum(without) / groups
    variance = factor * (groups - 1) / groups * sum((v - mean) ** 2 for v in without)
    half = stats.t.ppf(0.975, groups - 1 if df is None else df) * variance**0.5
    return value - half, value + half


def test_r_squared_equals_scikit_learn_with_the_mean_as_baseline() -> None:
    truth, predicted, _, group = regression(80, 12, 0)
    parts = squares(truth, predicted, np.full(80, truth.mean()), group)
    assert r_squared(parts.sum(axis=0)) == pytest.approx(r2_score(truth, predicted))


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_r_squared_interval_equals_scoring_again(seed: int) -> None:
    truth, predicted, baseline, group = regression(90, 14, seed)
    parts = squares(truth, predicted, baseline, group)
    without = [
        naive_r2(truth[group != g], predicted[group != g], baseline[group != g]) for g in range(14)
    ]
    np.testing.assert_allclose(deletions(parts, r_squared), without)
    found = interval(parts, r_squared, 90)
    value = naive_r2(truth, predicted, baseline)
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx(naive_jackknife(value, without, 1 + 15 / 14))
    assert (found.n, found.groups, found.too_few) == (90, 14, False)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_macro_f1_equals_scoring_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(11), rng.integers(0, 11, 109)])
    truth = rng.choice(4, p=[0.6, 0.2, 0.15, 0.05], size=120)
    predicted = np.where(rng.uniform(size=120) < 0.6, truth, rng.integers(0, 4, 120))
    parts = confusion(truth, predicted, group, 4)
    without = [
        f1_score(truth[group != g], predicted[group != g], average="macro", zero_division=0)
        for g in range(11)
    ]
    np.testing.assert_allclose(deletions(parts, macro_f1), without)
    expected = f1_score(truth, predicted, average="macro", zero_division=0)
    found = interval(parts, macro_f1, 120)
    assert found.value == pytest.approx(expected)
    factor = 1 + 1 + 5 / 11
    assert (found.low, found.high) == pytest.approx(naive_jackknife(expected, without, factor))


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_difference_deletes_the_same_group_from_both(seed: int) -> None:
    truth, first, baseline, group = regression(90, 12, seed)
    second = regression(90, 12, seed + 1)[1]
    pair = [squares(truth, guess, baseline, group) for guess in (first, second)]
    found = difference(pair[0], pair[1], r_squared, 90)
    without = [
        naive_r2(truth[keep], first[keep], baseline[keep])
        - naive_r2(truth[keep], second[keep], baseline[keep])
        for keep in (group != g for g in range(12))
    ]
    value = naive_r2(truth, first, baseline) - naive_r2(truth, second, baseline)
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx(naive_jackknife(value, without, 1 + 5 / 12))


def test_difference_of_classifications() -> None:
    rng = np.random.default_rng(0)
    group, truth = np.arange(100) % 10, rng.integers(0, 3, 100)
    guesses = [np.where(rng.uniform(size=100) < p, truth, 0) for p in (0.8, 0.5)]
    pair = [confusion(truth, guess, group, 3) for guess in guesses]
    found = difference(pair[0], pair[1], macro_f1, 100)
    scores = [f1_score(truth, guess, average="macro") for guess in guesses]
    assert found.value == pytest.approx(scores[0] - scores[1])
    same = difference(pair[0], pair[0], macro_f1, 100)
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(("n", "groups", "few"), [(49, 10, True), (50, 9, True), (50, 10, False)])
def test_too_few_has_no_interval(n: int, groups: int, few: bool) -> None:
    truth, predicted, baseline, group = regression(n, groups, 0)
    found = interval(squares(truth, predicted, baseline, group), r_squared, n)
    assert found.too_few == few
    assert (found.low is None) == few and (found.high is None) == few
    assert np.isfinite(found.value)


def gain(low: float | None) -> Interval:
    return Interval(0.5, low, 0.9, 100, 20, low is None)


def test_retention() -> None:
    assert retention(0.3, 0.1, 0.6, gain(0.1)) == pytest.approx(0.4)
    assert retention(0.3, 0.1, 0.6, gain(0.02)) is None
    assert retention(0.3, 0.1, 0.6, gain(None)) is None
    ratio, mean, number = retention_means([(0.3, 0.1, 0.6), (0.4, 0.0, 0.4)])
    assert ratio == pytest.approx((0.2 + 0.4) / (0.5 + 0.4))
    assert mean == pytest.approx((0.4 + 1.0) / 2)
    assert number == 2
    assert retention_means([]) is None


@pytest.mark.soak
def test_intervals_cover() -> None:
    """Independent groups: the interval holds the score of an endless city in 90 of 100 cities."""
    held = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(25), 12)
        effect = rng.normal(size=25)[group]
        truth = effect + rng.normal(size=300)
        predicted = 0.6 * truth + 0.6 * rng.normal(size=25)[group]
        parts = squares(truth, predicted, np.zeros(300), group)
        found = interval(parts, r_squared, 300)
        expected = 1 - (0.16 * 2 + 0.36) / 2
        held += found.low <= expected <= found.high
    assert held / 1000 >= 0.9
