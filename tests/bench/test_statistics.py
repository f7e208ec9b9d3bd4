"""Scores and jackknife intervals against loops that score again without a group."""

import math

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
    difference_over_seeds,
    interval,
    macro_f1,
    over_seeds,
    r_squared,
    resemblance,
    retention,
    retention_means,
    squares,
)
from urbancli.bench.validity import BAR, held


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


# --- what the jackknife does not see --------------------------------------------------------------


@pytest.mark.parametrize(("groups", "reach"), [(10, 0.5), (14, 2.0)])
def test_resemblance_is_that_of_sums_over_squares(groups: int, reach: float) -> None:
    side = math.ceil(math.sqrt(groups))
    spots = [(i + 0.5) / 6 for i in range(6)]
    inside = [(x, y) for x in spots for y in spots]

    def alike(first: int, second: int) -> float:
        total = 0.0
        for x, y in inside:
            for u, v in inside:
                dx = first // side + x - second // side - u
                dy = first % side + y - second % side - v
                total += (0.2 ** (math.hypot(dx, dy) / reach)) ** 2
        return total

    known: dict[tuple[int, int], float] = {}
    c = np.empty((groups, groups))
    for i, j in np.ndindex(groups, groups):
        step = (abs(i // side - j // side), abs(i % side - j % side))
        if step not in known:
            known[step] = alike(step[0] * side + step[1], 0)
        c[i, j] = known[step] / known.setdefault((0, 0), alike(0, 0))
    m = np.eye(groups) - 1 / groups
    seen = m @ c @ m
    factor, df = resemblance(groups, reach)
    assert factor == pytest.approx(c.sum() / groups / (np.trace(seen) / (groups - 1)))
    assert df == pytest.approx(np.trace(seen) ** 2 / np.trace(seen @ seen))
    assert factor > 1 and df < groups - 1


def test_resemblance_ends_where_there_is_none() -> None:
    assert resemblance(30, 0.0) == (1, 29)
    assert resemblance(30, 0.05) == pytest.approx((1, 29), rel=1e-3)
    far, most = resemblance(2000, 1.0), resemblance(400, 1.0)
    assert far[0] == most[0] and far[1] / 1999 == pytest.approx(most[1] / 399)


@pytest.mark.parametrize("reach", [0.0, 0.7])
def test_neighbours_and_learning_widen_an_interval(reach: float) -> None:
    truth, first, baseline, group = regression(90, 14, 0)
    pair = [squares(truth, guess, baseline, group) for guess in (first, regression(90, 14, 1)[1])]
    alike, df = resemblance(14, reach)
    found = interval(pair[0], r_squared, 90, reach)
    without = deletions(pair[0], r_squared).tolist()
    expected = naive_jackknife(found.value, without, alike * (1 + 15 * alike / 14), df)
    assert (found.low, found.high) == pytest.approx(expected)
    found = difference(*pair, r_squared, 90, reach)
    gaps = (deletions(pair[0], r_squared) - deletions(pair[1], r_squared)).tolist()
    expected = naive_jackknife(found.value, gaps, alike * (1 + 5 * alike / 14), df)
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.error is not None and found.df == pytest.approx(df)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / found.error, df))


def test_a_contrast_is_widened_as_a_difference() -> None:
    truth, first, baseline, group = regression(90, 14, 0)
    pair = [squares(truth, guess, baseline, group) for guess in (first, regression(90, 14, 1)[1])]

    def gap(sums: np.ndarray) -> np.ndarray:
        return r_squared(sums[..., 0, :]) - r_squared(sums[..., 1, :])

    found = interval(np.stack(pair, axis=1), gap, 90, 0.5, contrast_of=r_squared)
    expected = difference(*pair, r_squared, 90, 0.5)
    assert (found.value, found.error) == pytest.approx((expected.value, expected.error))
    assert (found.low, found.df, found.p) == pytest.approx((expected.low, expected.df, expected.p))


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_p_and_interval_say_the_same(seed: int) -> None:
    truth, first, baseline, group = regression(90, 12, seed)
    second = truth + np.random.default_rng(seed + 7).normal(scale=1.3, size=90)
    pair = [squares(truth, guess, baseline, group) for guess in (first, second)]
    found = difference(*pair, r_squared, 90)
    assert found.low is not None and found.high is not None and found.p is not None
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    other = difference(pair[1], pair[0], r_squared, 90)
    assert other.p == pytest.approx(found.p) and other.low == pytest.approx(-found.high)
    assert difference(pair[0], pair[0], r_squared, 90).p == 1


def test_an_interval_out_of_its_range_is_given_with_a_warning() -> None:
    truth, predicted, baseline, group = regression(90, 12, 0)
    parts = squares(truth, predicted, baseline, group)
    assert interval(parts, r_squared, 90, 0.25).warning == ""
    assert difference(parts, parts, r_squared, 90, 0.5).warning == ""
    beyond = interval(parts, r_squared, 90, 2.4)
    assert beyond.low is not None and "2.4 sides of a group, beyond" in beyond.warning
    inside = interval(parts, r_squared, 90, 1.7).warning
    if held(("r2", False), 12, 1.7) < BAR:
        assert f"held {held(('r2', False), 12, 1.7):.0%} of the time" in inside


# --- several trainings ----------------------------------------------------------------------------


def trainings(seeds: int, groups: int, seed: int) -> list[np.ndarray]:
    truth, predicted, baseline, group = regression(90, groups, seed)
    rng = np.random.default_rng(seed)
    noises = rng.normal(scale=0.5, size=(seeds, 90))
    return [squares(truth, predicted + noise, baseline, group) for noise in noises]


def test_seeds_add_their_variance() -> None:
    first, second = trainings(4, 14, 0), trainings(3, 14, 1)
    scores = [[float(r_squared(one.sum(axis=0))) for one in each] for each in (first, second)]
    without = [
        float(
            np.mean([r_squared(np.delete(one, g, axis=0).sum(axis=0)) for one in first])
            - np.mean([r_squared(np.delete(one, g, axis=0).sum(axis=0)) for one in second])
        )
        for g in range(14)
    ]
    city = (1 + 5 / 14) * 13 / 14 * sum((v - np.mean(without)) ** 2 for v in without)
    terms = [(city, 13), *[(np.var(own, ddof=1) / len(own), len(own) - 1) for own in scores]]
    variance = sum(term for term, _ in terms)
    df = variance**2 / sum(term**2 / own for term, own in terms)
    value = np.mean(scores[0]) - np.mean(scores[1])
    found = difference_over_seeds(first, second, r_squared, 90)
    half = stats.t.ppf(0.975, df) * variance**0.5
    assert (found.value, found.low, found.high) == pytest.approx(
        (value, value - half, value + half)
    )
    assert found.df == pytest.approx(df)


def test_seeds_of_one_method() -> None:
    parts = trainings(3, 14, 0)
    found = over_seeds(parts, r_squared, 90)
    assert found.value == pytest.approx(np.mean([interval(p, r_squared, 90).value for p in parts]))
    single = over_seeds(parts[:1], r_squared, 90)
    assert single == interval(parts[0], r_squared, 90)
    assert over_seeds([parts[0]] * 3, r_squared, 90).error == pytest.approx(single.error)
    assert over_seeds(parts, r_squared, 49).too_few
