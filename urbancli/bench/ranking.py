"""Who is surely better than whom: ranks with intervals, and ties shown as ties.

On one task a city is what might have come out otherwise: two methods are told apart by the p value
of their paired difference over spatial groups. Over tasks it is the tasks: a suite is taken as a
draw of such tasks, and two methods are told apart by a t test on their differences task by task.
Tasks of one city share its places, so this says what other tasks of such cities would show, not
other cities.

All pairs of methods are tested at a time, and Holm's correction holds the chance of any false
verdict among them below 5 %. What follows from the verdicts alone holds with them: a method's rank
is at least 1 + the number surely better and at most M − the number surely worse, for all methods at
once (Klein, Wright and Wieczorek 2020; Mogstad, Romano, Shaikh and Wilhelm 2024).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from urbancli.bench.statistics import LEVEL, Interval

Floats = npt.NDArray[np.float64]
Difference = Callable[[str, str, str], Interval | None]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Standing:
    """Where a method stands, on a task or over tasks.

    Attributes:
        method: its title.
        value: its score; over tasks the mean over the tasks that all methods have, None where
            there is none.
        rank: 1 is best, the mean of their ranks where scores are equal; over tasks the mean over
            the tasks that all methods have.
        low: the best rank that the verdicts leave; over tasks that of its expected score.
        high: the worst.
        ties: letters; two methods share one exactly where neither is surely better.
        tasks: on how many tasks it has a score.
    """

    method: str
    value: float | None
    rank: float | None
    low: int
    high: int
    ties: str
    tasks: int


@dataclass(frozen=True)
class Ranking:
    """Methods in their order, the best first.

    Attributes:
        overall: over tasks.
        by_task: task → on it; methods without a score there are left out.
        common: number of tasks on which all methods have a score.
        shared: for every two methods (in the order they were named) on how many tasks both have
            one: it is those that compare them.
    """

    overall: tuple[Standing, ...]
    by_task: Mapping[str, tuple[Standing, ...]]
    common: int
    shared: Mapping[Pair, int]


def rank(scores: Mapping[Pair, float], difference: Difference) -> Ranking:
    """Return the ranking of methods on tasks.

    Args:
        scores: (method, task) → score, more is better; absent where the task does not apply to the
            method. Methods and tasks keep the order in which they come.
        difference: (first, second, task) → the score of `first` minus that of `second` with its
            interval, both of which have one; None where they cannot be compared.
    """
    methods = list(dict.fromkeys(method for method, _ in scores))
    tasks = list(dict.fromkeys(task for _, task in scores))
    by_task = {
        task: _on_task(
            {m: scores[m, task] for m in methods if (m, task) in scores}, task, difference
        )
        for task in tasks
    }
    common = [task for task in tasks if all((method, task) in scores for method in methods)]
    ranks = {task: {one.method: float(one.rank or 0) for one in by_task[task]} for task in common}
    gaps = {
        (first, second): np.array([
            scores[first, task] - scores[second, task]
            for task in tasks
            if (first, task) in scores and (second, task) in scores
        ])
        for first, second in combinations(methods, 2)
    }  # fmt: skip
    found = {}
    for method in methods:
        own = [scores[method, task] for task in common]
        places = [ranks[task][method] for task in common]
        number = sum((method, task) in scores for task in tasks)
        mean = float(np.mean(own)) if common else None
        found[method] = (mean, float(np.mean(places)) if common else None, number)
    overall = _standings(
        found, surely_better({pair: over_tasks(gap) for pair, gap in gaps.items()})
    )
    shared = {pair: len(gap) for pair, gap in gaps.items()}
    return Ranking(overall, by_task, len(common), shared)


def _on_task(
    scores: Mapping[str, float], task: str, difference: Difference
) -> tuple[Standing, ...]:
    """Return where methods stand on one task."""
    from scipy.stats import rankdata

    ranks = rankdata([-value for value in scores.values()])
    found = {
        method: (value, float(place), 1)
        for (method, value), place in zip(scores.items(), ranks, strict=True)
    }
    pairs: dict[Pair, tuple[float, float | None]] = {}
    for first, second in combinations(scores, 2):
        gap = difference(first, second, task)
        pairs[first, second] = (0.0, None) if gap is None else (gap.value, gap.p)
    return _standings(found, surely_better(pairs))


def over_tasks(gaps: Floats) -> tuple[float, float | None]:
    """Return the mean difference over tasks, and the p value of Student's t test that it is 0.

    Args:
        gaps: (T,) differences, task by task.

    Returns:
        p is None for fewer than two tasks.
    """
    from scipy import special

    if len(gaps) < 2:
        return (float(gaps.mean()) if len(gaps) else 0.0), None
    mean, error = float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
    if error == 0:
        return mean, float(mean == 0)
    return mean, float(2 * special.stdtr(len(gaps) - 1, -abs(mean) / error))


# --- verdicts --------------------------------------------------------------------------------


def holm(p: Sequence[float] | Floats) -> Floats:
    """Return p values adjusted for their number (Holm 1979), in their order.

    The i-th smallest of m becomes the largest of (m − j + 1) · p₍j₎ over j ≤ i, at most 1.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def surely_better(pairs: Mapping[Pair, tuple[float, float | None]]) -> set[Pair]:
    """Return the pairs (better, worse) that all the pairs' tests together leave no doubt of.

    Args:
        pairs: (first, second) → (difference, its p value); None where it was not tested.
    """
    tested = {pair: (gap, p) for pair, (gap, p) in pairs.items() if p is not None}
    adjusted = holm([p for _, p in tested.values()])
    return {
        (pair if gap > 0 else (pair[1], pair[0]))
        for (pair, (gap, _)), p in zip(tested.items(), adjusted, strict=True)
        if p <= 1 - LEVEL
    }


def _standings(
    found: Mapping[str, tuple[float | None, float | None, int]], better: Iterable[Pair]
) -> tuple[Standing, ...]:
    """Return standings, the best rank first; without ranks by what the verdicts leave.

    Args:
        found: method → (score, rank, tasks).
        better: pairs (better, worse).
    """
    verdicts = set(better)
    low = {name: 1 + sum((other, name) in verdicts for other in found) for name in found}
    high = {name: len(found) - sum((name, other) in verdicts for other in found) for name in found}

    def place(name: str) -> tuple[bool, float]:
        rank = found[name][1]
        return rank is None, low[name] + high[name] if rank is None else rank

    order = sorted(found, key=place)
    ties = letters(order, verdicts)
    return tuple(
        Standing(name, *found[name][:2], low[name], high[name], ties[name], found[name][2])
        for name in order
    )


def letters(order: Sequence[str], better: Iterable[Pair]) -> dict[str, str]:
    """Return letters of each method: two share one exactly where neither is surely better.

    Insert and absorb (Piepho 2004): all methods begin in one set; each verdict splits the sets that
    hold both; a set within another is dropped. What is left are the largest sets of ties.

    Args:
        order: methods; the letters run along it.
        better: pairs (better, worse).
    """
    place = {name: number for number, name in enumerate(order)}
    groups = [frozenset(order)] if order else []
    for first, second in sorted(better, key=lambda pair: (place[pair[0]], place[pair[1]])):
        split: list[frozenset[str]] = []
        for group in groups:
            both = first in group and second in group
            split += [group - {first}, group - {second}] if both else [group]
        whole = dict.fromkeys(split)
        groups = [one for one in whole if not any(one < other for other in whole)]
    groups.sort(key=lambda group: sorted(place[name] for name in group))
    return {
        name: "".join(_letter(number) for number, group in enumerate(groups) if name in group)
        for name in order
    }


def _letter(number: int) -> str:
    """Return a … z, then a1 … z1, a2 …"""
    round_, place = divmod(number, 26)
    return chr(ord("a") + place) + (str(round_) if round_ else "")
