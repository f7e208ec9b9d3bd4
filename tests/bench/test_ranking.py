"""Ranks over tasks: Holm against a loop, letters by brute force, errors by simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from urbancli.bench.ranking import _cliques, holm, over_tasks, rank, within_task


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_is_its_step_down_procedure(p: list[float]) -> None:
    """At any level, what the procedure rejects step by step is what is below it when adjusted."""
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2, 0.5):
        order = sorted(range(len(p)), key=lambda i: p[i])
        rejected = set()
        for step, index in enumerate(order):
            if not p[index] * (len(p) - step) <= level:
                break
            rejected.add(index)
        assert {i for i, value in enumerate(adjusted) if value <= level} == rejected
    assert (adjusted >= np.array(p)).all() and (adjusted <= 1).all()


def test_pairs_over_tasks_are_paired_t_tests_on_common_tasks() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 9))
    scores[1, 2] = np.nan
    found = over_tasks(scores)
    assert found[0, 2] == pytest.approx(ttest_rel(scores[0], scores[2]).pvalue)
    known = ~np.isnan(scores[1])
    assert found[0, 1] == pytest.approx(ttest_rel(scores[0][known], scores[1][known]).pvalue)
    assert over_tasks(scores[:, :2]) == {}


def test_clear_ranks_are_single_and_ties_share_letters() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=12)
    scores = np.stack([base + 3, base, base + 0.01 * rng.normal(size=12), base - 3])
    scores += 0.02 * rng.normal(size=scores.shape)
    found = rank(["good", "plain", "like plain", "bad"], scores, over_tasks(scores))
    by_name = {one.name: one for one in found}
    assert found[0].name == "good" and found[-1].name == "bad"
    assert (by_name["good"].low, by_name["good"].high, by_name["good"].mean_rank) == (1, 1, 1.0)
    assert (by_name["plain"].low, by_name["plain"].high) == (2, 3)
    assert by_name["plain"].ties == by_name["like plain"].ties
    assert len({by_name[name].ties for name in ("good", "plain", "bad")}) == 3
    assert all(one.tasks == 12 for one in found)


def test_what_has_no_interval_is_not_told_apart() -> None:
    scores = np.array([[0.9], [0.1]])
    found = rank(["a", "b"], scores, within_task(2, lambda i, j: None))
    assert [(one.low, one.high, one.ties) for one in found] == [(1, 2, "a"), (1, 2, "a")]
    sure = rank(["a", "b"], scores, within_task(2, lambda i, j: 0.001))
    assert [(one.low, one.high) for one in sure] == [(1, 1), (2, 2)]


@given(st.integers(1, 7), st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_letters_are_the_maximal_sets(number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = np.triu(rng.uniform(size=(number, number)) < 0.6, 1)
    alike = half | half.T | np.eye(number, dtype=bool)
    whole = [
        set(members)
        for size in range(1, number + 1)
        for members in combinations(range(number), size)
        if all(alike[i, j] for i, j in combinations(members, 2))
    ]
    maximal = [one for one in whole if not any(one < other for other in whole)]
    assert sorted(map(sorted, _cliques(alike))) == sorted(map(sorted, maximal))


@pytest.mark.parametrize("methods", [4])
def test_equal_methods_are_told_apart_in_one_of_twenty(methods: int) -> None:
    """Family-wise: of 400 benchmarks of equal methods, at most 5 % (and chance) tell any apart."""
    wrong = 0
    for seed in range(400):
        scores = np.random.default_rng(seed).normal(size=(methods, 14))
        found = rank([str(one) for one in range(methods)], scores, over_tasks(scores))
        wrong += any((one.low, one.high) != (1, methods) for one in found)
    assert wrong <= 400 * 0.05 + 3 * (400 * 0.05 * 0.95) ** 0.5
    assert wrong > 2  # a test that never rejects would tell nothing
