"""One label, one exam: the same units, folds, removals and probe for every method.

This is the benchmark's core. It takes feature tables and knows neither runs nor files.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import DEFAULTS, Fold, inner_folds, load_probe
from urbancli.bench.splits.base import NotScored, Split
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
        module: of the probe.
        target: (U,) transformed values, or class numbers; −1 where the class is left out.
        classes: names of the classes scored; none for a regression.
        kept: (U,) false where the class is left out, or a compared file has no embedding.
        folds: per fold what may be learnt from (units that touch gone), and what is predicted.
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
    folds: tuple[Fold, ...]
    removed: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def training(self) -> tuple[Mask, ...]:
        """Per fold (U,) what may be learnt from."""
        return tuple(fold.training for fold in self.folds)

    @cached_property
    def design(self) -> str:
        """What changes whenever units are learnt from, chosen by or predicted otherwise."""
        digest = hashlib.blake2b(f"{self.task.kind}".encode(), digest_size=16)
        for array in (self.split.fold, self.split.order, self.kept):
            digest.update(np.ascontiguousarray(array).tobytes())
        for fold in self.folds:
            digest.update(bytes([fold.refit]))
            for part in (fold.training, fold.testing, fold.inner):
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @cached_property
    def question(self) -> str:
        """What changes whenever the target does."""
        digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.target).tobytes())
        return digest.hexdigest()

    def sitting(self, alignment: Alignment) -> str:
        """Return what regressions have in common that can be answered together.

        Units and their places, folds, groups, training units and probe; a classification is alone.
        """
        weights = alignment.weights.tocsr()
        digest = hashlib.blake2b(f"{self.probe} {weights.shape}".encode(), digest_size=16)
        for array in (weights.data, weights.indices, weights.indptr):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(self.design.encode())
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
        judged: fold → how wrong the probe was where the fold's training units judged its setting;
            empty of probes that do not say it.
    """

    predicted: npt.NDArray[Any]
    baseline: Floats
    scored: Mask
    imputed: int
    unconverged: int
    judged: Mapping[int, float] = field(default_factory=dict)


def make_exam(
    task: Task,
    values: npt.NDArray[Any],
    split: Split,
    touch: Any,
    support: Mask | None = None,
) -> Exam:
    """Return the exam on a label, with the default probe of its kind.

    Args:
        task: from `find_task`.
        values: (U,) numbers or class names, none missing.
        split: of these units.
        touch: (U, U) sparse, which units must not be learnt from where others are predicted.
        support: (U,) units that every compared file of embeddings has; default all.

    Raises:
        NotScored: the target is constant, a fold keeps too few training units, or fewer than two
            classes are common.
    """
    notes, names = list(split.warnings), tuple[str, ...]()
    kept = np.ones(len(values), dtype=bool) if support is None else support.copy()
    target: npt.NDArray[Any]
    if task.kind == "classification":
        groups = np.where(kept, split.group, "")
        classes, merged = merge_classes(values[kept], groups[kept])
        notes += merged
        every = np.full(len(values), None, dtype=object)
        every[kept] = classes
        kept &= np.array([name is not None for name in every])
        names = tuple(sorted(set(every[kept].tolist())))
        number = {name: index for index, name in enumerate(names)}
        target = np.array([number.get(name, -1) for name in every], dtype=np.int64)
    else:
        target = regression_target(task, values)
    folds, removed = [], []
    for number_of_fold in range(split.folds):
        fold, gone = _fold(split, kept, touch, number_of_fold)
        folds.append(fold)
        removed.append(gone)
        absent = set(range(len(names))) - set(target[fold.training].tolist())
        for index in sorted(absent):
            notes.append(
                f"class '{names[index]}' is absent from the training units of fold {number_of_fold}"
            )
    probe = DEFAULTS[task.kind]
    return Exam(
        task, split, probe, load_probe(probe), target, names, kept, tuple(folds), tuple(removed),
        tuple(notes),
    )  # fmt: skip


def _fold(split: Split, kept: Mask, touch: Any, number: int) -> tuple[Fold, int]:
    """Return one fold, and how many training units left it because they touch a test unit."""
    test = kept & (split.fold == number)
    train = kept & (split.fold != number)
    touched = np.zeros(len(kept), dtype=bool)
    if split.apart or split.buffer_m:
        touched = np.asarray(touch[np.flatnonzero(test)].sum(axis=0)).ravel() > 0
    training = train & ~touched
    if training.sum() < MIN_TRAINING_UNITS and test.any():
        raise NotScored(
            f"fold {number} keeps {training.sum()} of {train.sum()} training units once "
            f"those that touch its test units leave: fetch a larger area"
        )
    inner = np.full(len(kept), -1, dtype=np.int64)
    if split.validation is None:
        if training.any():
            inner[training] = inner_folds(split.order[training])
    else:
        inner[training & split.validation] = 0
    fold = Fold(training, test, inner, split.validation is None)
    return fold, int((train & touched).sum())


def with_probe(exam: Exam, name: str) -> Exam:
    """Return the exam answered through another probe."""
    return replace(exam, probe=name, module=load_probe(name))


def at_random(exam: Exam, seed: int) -> Exam:
    """Return the exam with folds drawn at random, as most papers have them: what flatters.

    Neighbours of test units are learnt from, and inner folds are random too. Units, target,
    classes and probe are those of the exam.

    Args:
        exam: on spatial folds.
        seed: of the draw; equal units and seeds have equal folds.
    """
    order = np.random.default_rng(seed).permutation(len(exam.target))
    number = order * exam.split.folds // len(order)
    split = replace(
        exam.split, kind="random", order=order, fold=number, validation=None, apart=False,
        buffer_m=0.0, sha256="",
    )  # fmt: skip
    folds = tuple(_fold(split, exam.kept, None, one)[0] for one in range(exam.split.folds))
    return replace(exam, split=split, folds=folds, removed=(0,) * len(folds))


def answer(exam: Exam, features: npt.NDArray[Any], folds: Sequence[int] | None = None) -> Answers:
    """Return the predictions of a probe on features for one exam; see `answer_together`."""
    return answer_together([exam], features, folds)[0]


def answer_together(
    exams: Sequence[Exam],
    features: npt.NDArray[Any],
    folds: Sequence[int] | None = None,
    tested: npt.NDArray[Any] | None = None,
) -> list[Answers]:
    """Return the predictions of a probe on features, fold by fold, for exams of one sitting.

    A probe of several targets learns them at once: what it must compute of the features alone is
    computed once.

    Args:
        exams: of equal `Exam.sitting`; several only where they are regressions.
        features: (U, D), NaN where missing; D = 0 asks what a constant would score.
        folds: those to predict; default all.
        tested: (U, D) features of the units as they are predicted, where those differ.
    """
    return _answered(exams, features, folds, tested)[0]


def answer_spoilt(
    exams: Sequence[Exam],
    features: npt.NDArray[Any],
    spoilt: Sequence[npt.NDArray[Any]],
    folds: Sequence[int] | None = None,
) -> list[list[Answers]]:
    """Return, for each spoilt table, what `answer_together` returns with it as `tested`.

    Every fold is fitted once: the tables stand below the features as units that are only tested.

    Args:
        exams: see `answer_together`.
        features: (U, D) to learn from.
        spoilt: S tables (U, D) to predict from.
        folds: those to predict; default all.
    """
    units, copies = len(features), len(spoilt)
    grown = tuple(_grown(fold, copies) for fold in exams[0].folds)
    every = [replace(one, target=np.tile(one.target, copies + 1), folds=grown) for one in exams]
    found = answer_together(every, np.concatenate([features, *spoilt]), folds)
    answers = []
    for number, table in enumerate(spoilt):
        part = slice((number + 1) * units, (number + 2) * units)
        lacks = np.isnan(table).any(axis=1)
        answers.append([
            Answers(
                one.predicted[part], one.baseline[part], one.scored[part],
                int((lacks & one.scored[part]).sum()), one.unconverged, one.judged,
            )
            for one in found
        ])  # fmt: skip
    return answers


def _grown(fold: Fold, copies: int) -> Fold:
    """Return a fold with copies of the units below them, of which those tested are predicted."""
    below = len(fold.testing) * copies
    return Fold(
        np.concatenate([fold.training, np.zeros(below, dtype=bool)]),
        np.concatenate([np.zeros_like(fold.testing), np.tile(fold.testing, copies)]),
        np.concatenate([fold.inner, np.full(below, -1, dtype=np.int64)]),
        fold.refit,
    )


def answer_and_judge(
    exams: Sequence[Exam], features: npt.NDArray[Any]
) -> tuple[list[Answers], Floats]:
    """Return the answers of `answer_together`, and what tells which features are the better ones.

    Returns:
        Answers, and per fold and exam (F, T) how wrong the probe was where the fold's training
        units judged its setting: never on test units.
    """
    answers, errors = _answered(exams, features)
    return answers, np.array(errors)


def _answered(
    exams: Sequence[Exam],
    features: npt.NDArray[Any],
    folds: Sequence[int] | None = None,
    tested: npt.NDArray[Any] | None = None,
) -> tuple[list[Answers], list[tuple[float, ...]]]:
    first = exams[0]
    target = np.stack([exam.target for exam in exams], axis=1)
    predicted = np.zeros(target.shape, dtype=target.dtype)
    baseline = np.zeros(target.shape)
    scored = np.zeros(len(target), dtype=bool)
    unconverged = 0
    wanted = range(len(first.folds)) if folds is None else folds
    numbers = [number for number in wanted if first.folds[number].testing.any()]
    used = [first.folds[number] for number in numbers]
    results = first.module.fit_predict_folds(
        features, target if len(exams) > 1 else target[:, 0], used, x_test=tested
    )
    for fold, result in zip(used, results, strict=True):
        predicted[fold.testing] = result.values.reshape(-1, len(exams))
        baseline[fold.testing] = target[fold.training].mean(axis=0)
        scored |= fold.testing
        unconverged += result.unconverged
    seen = features if tested is None else tested
    errors = [result.errors for result in results]
    missing = int((np.isnan(seen).any(axis=1) & scored).sum())
    answers = [
        Answers(
            predicted[:, number], baseline[:, number], scored, missing, unconverged,
            {fold: one[number] for fold, one in zip(numbers, errors, strict=True) if one},
        )
        for number in range(len(exams))
    ]  # fmt: skip
    return answers, errors


def group_sums(exam: Exam, answers: Answers, scored: Mask, *, whole: bool = False) -> Floats:
    """Return the sums of the metric by group of the split, or of all units as one group.

    Args:
        exam: what was asked.
        answers: to it.
        scored: (U,) units that count.
        whole: whether all are one group.
    """
    order = np.zeros(len(scored), dtype=np.int64) if whole else exam.split.order
    group = np.unique(order[scored], return_inverse=True)[1]
    truth, predicted = exam.target[scored], answers.predicted[scored]
    if exam.task.kind == "classification":
        return confusion(truth, predicted, group, len(exam.classes))
    return squares(truth, predicted, answers.baseline[scored], group)


def score(exam: Exam, answers: Answers) -> Interval:
    """Return the task's metric over all scored units; its interval ends where scores do."""
    parts = group_sums(exam, answers, answers.scored)
    units = int(answers.scored.sum())
    return bounded(interval(parts, metric_of(exam), units, exam.split.range_in_groups), exam)


def bounded(found: Interval, exam: Exam) -> Interval:
    """Return the interval of a score, ended where scores end."""
    if found.low is None or found.high is None:
        return found
    least = 0.0 if exam.task.kind == "classification" else -np.inf
    return replace(found, low=max(found.low, least), high=min(found.high, 1.0))


def plain_score(exam: Exam, answers: Answers) -> float:
    """Return the task's metric over all scored units, without an interval."""
    return float(metric_of(exam)(group_sums(exam, answers, answers.scored, whole=True).sum(axis=0)))


def compare(exam: Exam, first: Answers, second: Answers) -> Interval:
    """Return the score of `first` minus that of `second`, on the units that both were asked."""
    both = first.scored & second.scored
    parts = group_sums(exam, first, both), group_sums(exam, second, both)
    return difference(
        *parts, score=metric_of(exam), n=int(both.sum()), range_in_groups=exam.split.range_in_groups
    )


def metric_of(exam: Exam) -> Any:
    """Return the task's metric as a function of sums."""
    return macro_f1 if exam.task.kind == "classification" else r_squared
