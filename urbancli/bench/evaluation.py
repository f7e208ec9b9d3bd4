"""One label, one exam: the same units, folds, removals and probe for every method.

This is the benchmark's core. It takes feature tables and knows neither runs nor files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import probe_for
from urbancli.bench.splits import NotScored, Split
from urbancli.bench.statistics import (
    Interval,
    confusion,
    difference,
    interval,
    macro_f1,
    r_squared,
    squares,
)
from urbancli.bench.tasks.base import Task, merge_classes, regression_target
from urbancli.embeddings import Alignment

MIN_TRAINING_UNITS = 10

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Exam:
    """What every method is asked alike.

    Attributes:
        task: what the target is.
        split: groups and folds of the U units.
        probe: name of the probe.
        target: (U,) transformed values, or class numbers; −1 where the class is left out.
        classes: names of the classes scored; none for a regression.
        kept: (U,) false where the class is left out.
        training: one (U,) mask per fold: what may be learnt from, units that touch gone.
        removed: training units that left each fold because they touch a test unit.
        notes: what a reader must know: merged classes, warnings.
    """

    task: Task
    split: Split
    probe: str
    module: ModuleType
    target: npt.NDArray[Any]
    classes: tuple[str, ...]
    kept: Mask
    training: tuple[Mask, ...]
    removed: tuple[int, ...]
    notes: tuple[str, ...]

    def sitting(self, alignment: Alignment) -> str:
        """Return what regressions have in common that can be answered together.

        Units and their places, folds, groups, training units and probe; a classification is alone.
        """
        weights, split = alignment.weights.tocsr(), self.split
        arrays = [weights.data, weights.indices, weights.indptr, split.fold, split.order, self.kept]
        digest = hashlib.blake2b(f"{self.probe} {weights.shape}".encode(), digest_size=16)
        for array in [*arrays, *self.training]:
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.task.kind == "classification":
            digest.update(self.task.name.encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Answers:
    """A method's predictions, each from a probe that never saw its unit's fold.

    Attributes:
        predicted: (U,) in units of `Exam.target`.
        baseline: (U,) mean of the target over the same fold's training units.
        scored: (U,) where a prediction was asked for.
        imputed: scored units with a missing feature, which the training mean stands for.
        unconverged: fits that stopped before they converged.
    """

    predicted: npt.NDArray[Any]
    baseline: Floats
    scored: Mask
    imputed: int
    unconverged: int


def make_exam(task: Task, values: npt.NDArray[Any], split: Split, touch: Any) -> Exam:
    """Return the exam on a label.

    Args:
        task: from `find_task`.
        values: (U,) numbers or class names, none missing.
        split: of these units.
        touch: (U, U) sparse, from `splits.touching`.

    Raises:
        NotScored: the target is constant, a fold keeps too few training units, or fewer than two
            classes are common.
    """
    notes, names = list(split.warnings), tuple[str, ...]()
    kept = np.ones(len(values), dtype=bool)
    target: npt.NDArray[Any]
    if task.kind == "classification":
        classes, merged = merge_classes(values, split.group)
        notes += merged
        kept = np.array([name is not None for name in classes])
        names = tuple(sorted(set(classes[kept].tolist())))
        number = {name: index for index, name in enumerate(names)}
        target = np.array([number.get(name, -1) for name in classes], dtype=np.int64)
    else:
        target = regression_target(task, values)
    training, removed = [], []
    for fold in range(split.folds):
        test = kept & (split.fold == fold)
        touched = np.asarray(touch[np.flatnonzero(test)].sum(axis=0)).ravel() > 0
        train = kept & (split.fold != fold)
        training.append(train & ~touched)
        removed.append(int((train & touched).sum()))
        if training[-1].sum() < MIN_TRAINING_UNITS and test.any():
            raise NotScored(
                f"fold {fold} keeps {training[-1].sum()} of {train.sum()} training units once "
                f"those that touch its test units leave: fetch a larger area"
            )
        for index in sorted(set(range(len(names))) - set(target[training[-1]].tolist())):
            notes.append(f"class '{names[index]}' is absent from the training units of fold {fold}")
    probe, module = probe_for(task.kind)
    return Exam(
        task, split, probe, module, target, names, kept, tuple(training), tuple(removed),
        tuple(notes),
    )  # fmt: skip


def at_random(exam: Exam, seed: int) -> Exam:
    """Return the exam with folds drawn at random, as most papers have them: what flatters.

    Neighbours of test units are learnt from, and inner folds are random too. Units, target,
    classes and probe are those of the exam.

    Args:
        exam: on spatial folds.
        seed: of the draw; equal units and seeds have equal folds.
    """
    order = np.random.default_rng(seed).permutation(len(exam.target))
    fold = order * exam.split.folds // len(order)
    split = replace(exam.split, order=order, fold=fold, sha256="")
    training = tuple(exam.kept & (fold != one) for one in range(exam.split.folds))
    return replace(exam, split=split, training=training, removed=(0,) * len(training))


def answer(exam: Exam, features: npt.NDArray[Any], folds: Sequence[int] | None = None) -> Answers:
    """Return the predictions of a probe on features for one exam; see `answer_together`."""
    return answer_together([exam], features, folds)[0]


def answer_together(
    exams: Sequence[Exam], features: npt.NDArray[Any], folds: Sequence[int] | None = None
) -> list[Answers]:
    """Return the predictions of a probe on features, fold by fold, for exams of one sitting.

    A probe of several targets learns them at once: what it must compute of the features alone is
    computed once.

    Args:
        exams: of equal `Exam.sitting`; several only where they are regressions.
        features: (U, D), NaN where missing; D = 0 asks what a constant would score.
        folds: those to predict; default all.
    """
    first = exams[0]
    target = np.stack([exam.target for exam in exams], axis=1)
    predicted = np.zeros(target.shape, dtype=target.dtype)
    baseline = np.zeros(target.shape)
    scored = np.zeros(len(target), dtype=bool)
    unconverged = 0
    wanted = range(first.split.folds) if folds is None else folds
    testing = {fold: first.kept & (first.split.fold == fold) for fold in wanted}
    used = [fold for fold, test in testing.items() if test.any()]
    results = first.module.fit_predict_folds(
        features,
        target if len(exams) > 1 else target[:, 0],
        first.split.order,
        [first.training[fold] for fold in used],
        [testing[fold] for fold in used],
    )
    for fold, result in zip(used, results, strict=True):
        test = testing[fold]
        predicted[test] = result.values.reshape(-1, len(exams))
        baseline[test] = target[first.training[fold]].mean(axis=0)
        scored |= test
        unconverged += result.unconverged
    missing = int((np.isnan(features).any(axis=1) & scored).sum())
    return [
        Answers(predicted[:, number], baseline[:, number], scored, missing, unconverged)
        for number in range(len(exams))
    ]


def _parts(exam: Exam, answers: Answers, scored: Mask, *, whole: bool = False) -> Floats:
    """Return the sums of the metric by group of the split, or of all units as one group."""
    order = np.zeros(len(scored), dtype=np.int64) if whole else exam.split.order
    group = np.unique(order[scored], return_inverse=True)[1]
    truth, predicted = exam.target[scored], answers.predicted[scored]
    if exam.task.kind == "classification":
        return confusion(truth, predicted, group, len(exam.classes))
    return squares(truth, predicted, answers.baseline[scored], group)


def score(exam: Exam, answers: Answers) -> Interval:
    """Return the task's metric over all scored units."""
    parts = _parts(exam, answers, answers.scored)
    return interval(parts, _metric(exam), int(answers.scored.sum()))


def plain_score(exam: Exam, answers: Answers) -> float:
    """Return the task's metric over all scored units, without an interval."""
    return float(_metric(exam)(_parts(exam, answers, answers.scored, whole=True).sum(axis=0)))


def compare(exam: Exam, first: Answers, second: Answers) -> Interval:
    """Return the score of `first` minus that of `second`, on the units that both were asked."""
    both = first.scored & second.scored
    parts = _parts(exam, first, both), _parts(exam, second, both)
    return difference(*parts, score=_metric(exam), n=int(both.sum()))


def _metric(exam: Exam) -> Any:
    return macro_f1 if exam.task.kind == "classification" else r_squared
