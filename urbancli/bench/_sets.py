"""Probes on sets of blocks of features: a set is fitted once, and the best judged one answers.

A probe on many features does worse than on the few that matter. What a set of modalities tells
would then hang on how many others stand beside the one that matters, and each of these would seem
to take something away. So a set may be asked through several smaller ones: for every fold and
target, that set answers whose setting was the least wrong where the fold's training units judged it
(`Predicted.errors`). No test unit has a say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.evaluation import Answers, Exam, answer_and_judge
from urbancli.bench.probes.base import Fold, in_threads

Names = tuple[str, ...]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Sets:
    """The answers of one sitting on sets of its blocks.

    Args:
        exams: of equal `Exam.sitting`, through a probe that says its errors.
        blocks: name → features of the units (U, D), NaN where missing.
    """

    def __init__(self, exams: Sequence[Exam], blocks: Mapping[str, npt.NDArray[Any]]) -> None:
        self._exams = exams
        self._blocks = blocks
        self._known: dict[Names, tuple[list[Answers], Floats]] = {}
        self.folds: list[Fold] = [fold for fold in exams[0].folds if fold.testing.any()]

    def joined(self, names: Names) -> npt.NDArray[Any]:
        """Return the features of blocks side by side, (U, ΣD); without names (U, 0)."""
        empty = np.zeros((len(self._exams[0].target), 0), dtype=np.float32)
        return np.concatenate([empty, *(self._blocks[name] for name in names)], axis=1)

    def best(self, candidates: Sequence[Names]) -> list[Answers]:
        """Return the answers to every exam, in each fold those of the best judged set.

        Args:
            candidates: sets of names; of equally good ones the first.
        """
        found = [self._answers(names) for names in candidates]
        chosen = self.chosen(candidates)
        answers = []
        for target in range(len(self._exams)):
            last = found[-1][0][target]
            predicted = last.predicted.copy()
            for fold, number in zip(self.folds, chosen[:, target], strict=True):
                own = found[number][0][target].predicted
                predicted[fold.testing] = own[fold.testing]
            answers.append(replace(last, predicted=predicted))
        return answers

    def chosen(self, candidates: Sequence[Names]) -> Integers:
        """Return which of the candidates answers, per fold that tests something and exam (F, T)."""
        errors = [self._answers(names)[1] for names in candidates]
        return np.asarray(np.argmin(errors, axis=0), dtype=np.int64)

    def left_over(self, candidates: Sequence[Names]) -> list[Floats]:
        """Return per fold (U, T) what ridge regression on the best judged set leaves of its judging
        units, each from a fit that saw neither it nor the fold's test units; elsewhere 0."""
        target = np.stack([exam.target for exam in self._exams], axis=1).astype(np.float64)
        chosen = self.chosen(candidates)
        left = [np.zeros_like(target) for _ in self.folds]
        tasks, places = [], []
        for number, fold in enumerate(self.folds):
            for which in np.unique(chosen[number]):
                mine = np.flatnonzero(chosen[number] == which)
                tasks.append((self.joined(candidates[which]), target[:, mine], fold))
                places.append((number, mine))
        found = in_threads(_left_over, tasks)
        for (number, mine), one in zip(places, found, strict=True):
            left[number][:, mine] = one
        return left

    def _answers(self, names: Names) -> tuple[list[Answers], Floats]:
        if names not in self._known:
            self._known[names] = answer_and_judge(self._exams, self.joined(names))
        return self._known[names]


def _left_over(x: npt.NDArray[Any], y: Floats, fold: Fold) -> Floats:
    """Return y less its predictions with the penalty, per target, of the least error; (U, T)."""
    from urbancli.bench.probes.ridge import ridge_path

    pairs = fold.judgements()
    paths = [ridge_path(x[learnt], y[learnt], x[out]) for learnt, out in pairs]
    errors = sum(
        ((path - y[out]) ** 2).sum(axis=1) for path, (_, out) in zip(paths, pairs, strict=True)
    )
    best = np.argmin(errors, axis=0)
    left = np.zeros_like(y)
    for path, (_, out) in zip(paths, pairs, strict=True):
        left[out] = y[out] - path[best, :, np.arange(y.shape[1])].T
    return left
