"""From one city to another: learn on all of city A, be asked about city B, with few labels of B.

Features of both cities come from one contestant of A: a run trained on A embeds B, and frozen
encoders fitted on A encode B. The probe learns from A's units alone (k = 0), or from them and k
units of B that touch no test unit, drawn group by group (the few-shot curve). All of B is tested:
at k = 0 at once, else fold by fold of B's own spatial split.

R² here is 1 − Σ(y−ŷ)² / Σ(y−ȳ_B)², ȳ_B the mean of B's tested units: with the mean of the training
units, as within a city, a difference in level between the cities would raise the score of everyone
who sees that B is not A. So a wrong level counts against a method; what is left when level and
scale are free is the squared correlation, which stands beside it as the metric `r2_free`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.evaluation import Answers, Exam, Mask, score
from urbancli.bench.probes.base import Fold, inner_folds
from urbancli.bench.splits.base import NotScored, Split
from urbancli.bench.statistics import Interval, interval
from urbancli.bench.tasks.base import OTHER

FEW = (10, 30, 100)
"""Units of the tested city that a probe may learn from, where none are named."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """An exam over the units of two cities, those of A before those of B.

    Attributes:
        exam: learnt from A, and k units of B; tested on B.
        first: how many units A has.
        notes: what was left out.
    """

    exam: Exam
    first: int
    notes: tuple[str, ...]


def cross(learnt: Exam, asked: Exam, few: int, seed: int) -> Crossing:
    """Return the exam from one city to another.

    Args:
        learnt: of the task in city A, on a spatial split.
        asked: of the same task in city B, likewise.
        few: k, units of B that are learnt from too; 0 for none.
        seed: of their draw; a larger k adds to those of a smaller one.

    Raises:
        NotScored: the cities share fewer than two classes, or a fold of B has no k units to give.
    """
    names, target, kept, notes = _common(learnt, asked)
    first, size = len(learnt.target), len(target)
    ours = np.arange(size) < first
    order = np.concatenate([learnt.split.order, asked.split.order + learnt.split.order.max() + 1])
    inner = np.full(size, -1, dtype=np.int64)
    training = kept & ours
    inner[training] = inner_folds(order[training])
    folds = []
    for fold in asked.folds if few else [_everything(asked)]:
        given = np.zeros(size, dtype=bool)
        testing = np.zeros(size, dtype=bool)
        testing[first:] = fold.testing
        if few:
            available = fold.training & kept[first:]
            given[first:] = draw(available, asked.split.order, few, seed)
        folds.append(Fold(training | given, testing & kept, inner))
    split = Split(
        "city", np.concatenate([learnt.split.group, asked.split.group]), order,
        np.where(ours, -1, 0), None, False, 0.0, asked.split.group_m, asked.split.range_m, seed,
        asked.split.warnings, asked.split.sha256,
    )  # fmt: skip
    exam = replace(
        asked, split=split, target=target, classes=names, kept=kept, folds=tuple(folds),
        removed=(0,) * len(folds),
    )  # fmt: skip
    return Crossing(exam, first, notes)


def _everything(exam: Exam) -> Fold:
    nothing = np.zeros(len(exam.target), dtype=bool)
    return Fold(nothing, exam.kept, np.full(len(exam.target), -1, dtype=np.int64))


def _common(
    learnt: Exam, asked: Exam
) -> tuple[tuple[str, ...], npt.NDArray[Any], Mask, tuple[str, ...]]:
    """Return classes, target and kept units of both cities, and what was left out.

    `other` is no class here: it holds other things in each city.
    """
    kept = np.concatenate([learnt.kept, asked.kept])
    if not asked.classes:
        return (), np.concatenate([learnt.target, asked.target]), kept, ()
    names = tuple(sorted((set(learnt.classes) & set(asked.classes)) - {OTHER}))
    if len(names) < 2:
        raise NotScored(f"the cities share {len(names)} classes: nothing can be told apart")
    number = {name: index for index, name in enumerate(names)}
    parts = []
    for exam in (learnt, asked):
        codes = np.array([number.get(name, -1) for name in exam.classes] + [-1])
        parts.append(codes[exam.target])
    target = np.concatenate(parts)
    left = kept & (target < 0)
    gone = sorted((set(learnt.classes) | set(asked.classes)) - set(names))
    notes = (
        (f"classes that are not in both cities are left out: {', '.join(gone)}",) if gone else ()
    )
    return names, target, kept & ~left, notes


def draw(available: Mask, order: npt.NDArray[np.int64], count: int, seed: int) -> Mask:
    """Return `count` units among those available, drawn group by group.

    Groups come in random order, and give one unit each in turn: few units cover much of the city.

    Args:
        available: (U,).
        order: (U,) rank of a unit's group.
        count: how many.
        seed: of the order.

    Raises:
        NotScored: there are not so many.
    """
    if available.sum() < count:
        raise NotScored(f"a fold has {available.sum()} units to give, not {count}")
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(available))
    _, group = np.unique(order[rows], return_inverse=True)
    by_group = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[by_group], np.arange(group.max() + 1))
    turn = np.empty(len(rows), dtype=np.int64)
    turn[by_group] = np.arange(len(rows)) - starts[group[by_group]]
    taken = rows[np.lexsort([np.arange(len(rows)), turn])][:count]
    chosen = np.zeros(len(available), dtype=bool)
    chosen[taken] = True
    return chosen


def transfer_scores(crossing: Crossing, answers: Answers) -> dict[str, Interval]:
    """Return metric → score on the tested city, with intervals over its groups."""
    exam = crossing.exam
    scored = answers.scored
    if exam.task.kind == "classification":
        return {"macro_f1": score(exam, answers)}
    mean = exam.target[scored].mean()
    level = replace(answers, baseline=np.full(len(scored), mean))
    group = np.unique(exam.split.order[scored], return_inverse=True)[1]
    sums = products(exam.target[scored], answers.predicted[scored], group)
    reach = exam.split.range_in_groups
    free = interval(sums, squared_correlation, int(scored.sum()), reach)
    return {"r2": score(exam, level), "r2_free": free}


def products(truth: Floats, predicted: Floats, group: npt.NDArray[np.int64]) -> Floats:
    """Return n, Σy, Σŷ, Σy², Σŷ² and Σyŷ of every group, (G, 6), about their means."""
    y, guess = truth - truth.mean(), predicted - predicted.mean()
    parts = (np.ones(len(y)), y, guess, y**2, guess**2, y * guess)
    return np.column_stack([np.bincount(group, weights=part) for part in parts])


def squared_correlation(sums: Floats) -> Floats:
    """Return the squared Pearson correlation of sums (…, 6) of `products`; 0 of a constant."""
    n, y, guess, yy, gg, yg = np.moveaxis(sums, -1, 0)
    covariance = yg - y * guess / n
    variances = np.maximum(yy - y**2 / n, 0) * np.maximum(gg - guess**2 / n, 0)
    return np.asarray(np.where(variances > 1e-12, covariance**2 / np.maximum(variances, 1e-300), 0))


def pairs(cities: Sequence[str]) -> list[tuple[str, str]]:
    """Return every ordered pair of two cities: (learnt from, asked about)."""
    return [(a, b) for a in cities for b in cities if a != b]
