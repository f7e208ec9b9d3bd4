"""Who is better over tasks, and who cannot be told apart: rank intervals and tie groups.

Within a task two contestants are compared by the paired difference of their scores over spatial
groups (`statistics.difference`). Over tasks, tasks are the sampling unit: the mean over tasks of
the difference of two contestants, with a t-test over the tasks that both have a score on; it
speaks of further tasks like these, not of further cities. All pairs are tested at once, after Holm
(1979, "A simple sequentially rejective multiple test procedure"), so that the chance that any two
equal contestants are told apart is at most 5 %.

A rank interval runs from 1 + the number surely better to M − the number surely worse (Mogstad,
Romano, Shaikh and Wilhelm 2024, "Inference for ranks"). Contestants that share a letter are not
told apart: letters are the maximal sets of such.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
"""Chance of telling any two equal contestants apart."""

LEAST_TASKS = 3
"""With fewer common tasks nothing is said over tasks."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """A contestant's place.

    Attributes:
        name: of the contestant.
        mean: of its scores, over its tasks.
        mean_rank: of its ranks among those that have a score, over its tasks; 1 is best.
        low: best rank that cannot be excluded.
        high: worst such rank.
        ties: letters; two that share one are not told apart.
        tasks: number of tasks it has a score on.
    """

    name: str
    mean: float
    mean_rank: float
    low: int
    high: int
    ties: str
    tasks: int


def holm(p: Sequence[float]) -> Floats:
    """Return the p-values (K,) adjusted after Holm: below a level, they are rejected at it at once.

    The i-th smallest is multiplied by K − i + 1, none smaller than one before it, none above 1.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factor = len(values) - np.arange(len(values))
    stepped = np.maximum.accumulate(values[order] * factor)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def rank(names: Sequence[str], scores: Floats, p: Mapping[tuple[int, int], float]) -> list[Ranked]:
    """Return the places of contestants, best mean first.

    Args:
        names: M.
        scores: (M, T), NaN where a contestant has none; a column per task.
        p: (i, j), i < j → p-value that the two are equal; pairs that are missing are not told
            apart.
    """
    number = len(names)
    pairs = list(combinations(range(number), 2))
    adjusted = holm([p.get(pair, 1.0) for pair in pairs])
    gaps = {pair: _mean_gap(scores[pair[0]], scores[pair[1]]) for pair in pairs}
    apart = np.zeros((number, number), dtype=bool)
    better = np.zeros((number, number), dtype=bool)
    for pair, value in zip(pairs, adjusted.tolist(), strict=True):
        if value < LEVEL:
            first, second = pair if gaps[pair] > 0 else pair[::-1]
            better[first, second] = True
            apart[pair] = apart[pair[::-1]] = True
    ranks = _ranks(scores)
    means = np.array([_mean(row) for row in scores])
    order = np.argsort(-np.where(np.isnan(means), -np.inf, means), kind="stable")
    letters = _letters(~apart, order)
    return [
        Ranked(
            names[one],
            float(means[one]),
            _mean(ranks[one]),
            int(1 + better[:, one].sum()),
            int(number - better[one].sum()),
            letters[one],
            int((~np.isnan(scores[one])).sum()),
        )
        for one in order.tolist()
    ]


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _mean_gap(first: Floats, second: Floats) -> float:
    return _mean(first - second)


def _ranks(scores: Floats) -> Floats:
    """Return the ranks (M, T) within each task, 1 the best, ties their mean; NaN where no score."""
    from scipy.stats import rankdata

    ranks = np.full(scores.shape, np.nan)
    for task in range(scores.shape[1]):
        known = ~np.isnan(scores[:, task])
        ranks[known, task] = rankdata(-scores[known, task])
    return ranks


def over_tasks(scores: Floats) -> dict[tuple[int, int], float]:
    """Return the p-value of each pair over their common tasks: a paired t-test.

    Args:
        scores: (M, T), NaN where a contestant has none.
    """
    from scipy.stats import t

    found = {}
    for pair in combinations(range(len(scores)), 2):
        gap = scores[pair[0]] - scores[pair[1]]
        gap = gap[~np.isnan(gap)]
        if len(gap) < LEAST_TASKS:
            continue
        error = gap.std(ddof=1) / np.sqrt(len(gap))
        if error > 0:
            found[pair] = float(2 * t.sf(abs(gap.mean()) / error, len(gap) - 1))
        else:
            found[pair] = 0.0 if gap.mean() else 1.0
    return found


def within_task(
    number: int, difference: Callable[[int, int], float | None]
) -> dict[tuple[int, int], float]:
    """Return the p-value of each pair within a task; none where there is no interval.

    Args:
        number: M.
        difference: (i, j) → p-value of their paired difference, or None.
    """
    found = {pair: difference(*pair) for pair in combinations(range(number), 2)}
    return {pair: p for pair, p in found.items() if p is not None}


def _letters(alike: npt.NDArray[np.bool_], order: npt.NDArray[np.int64]) -> list[str]:
    """Return the letters of each contestant: one for every maximal set of such as are alike."""
    place = {one: number for number, one in enumerate(order.tolist())}
    sets = sorted(_cliques(alike), key=lambda one: sorted(place[member] for member in one))
    letters = [""] * len(alike)
    for number, members in enumerate(sets):
        for member in members:
            letters[member] += _letter(number)
    return letters


def _letter(number: int) -> str:
    turn, letter = divmod(number, 26)
    return "abcdefghijklmnopqrstuvwxyz"[letter] + (str(turn) if turn else "")


def _cliques(alike: npt.NDArray[np.bool_]) -> list[frozenset[int]]:
    """Return the maximal sets whose members are all alike (Bron and Kerbosch 1973, algorithm 457,
    with a pivot)."""
    neighbours = [set(np.flatnonzero(row).tolist()) - {n} for n, row in enumerate(alike)]
    found: list[frozenset[int]] = []

    def extend(chosen: set[int], open_: set[int], closed: set[int]) -> None:
        if not open_ and not closed:
            found.append(frozenset(chosen))
            return
        pivot = max(open_ | closed, key=lambda one: len(neighbours[one] & open_))
        for one in sorted(open_ - neighbours[pivot]):
            extend(chosen | {one}, open_ & neighbours[one], closed & neighbours[one])
            open_ = open_ - {one}
            closed = closed | {one}

    extend(set(), set(range(len(alike))), set())
    return found
