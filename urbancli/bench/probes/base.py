"""The contract of a probe, and what every probe does inside a training fold.

A probe is a module with `KINDS` (of tasks), `VERSION` (raised when scores change) and
`fit_predict_folds(x, y, folds, x_test=None, seed=0)`. It never sees a test value: scaling,
imputation and the choice of its settings happen on the training units alone. It never copies the
features as a whole either: a million units of 768 leave no room for that.
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli import plugins
from urbancli.bench.splits.base import NotScored, equal_runs
from urbancli.bench.statistics import confusion, macro_f1

INNER_FOLDS = 4
"""Folds for the choice of a setting, runs of neighbouring groups as the outer ones."""

CHUNK_BYTES = 32 << 20
"""Features held as float64 at a time."""

TASKS_BYTES = 2 << 30
"""What the tasks that run at a time may take together."""
LARGE_BYTES = 512 << 20
"""A task that takes more may use the cores that are left."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DEFAULTS = {"regression": "ridge", "classification": "logistic"}
"""The probe of each kind of task where none is named."""


class Fold(NamedTuple):
    """One fold of a split.

    Attributes:
        training: (U,) what may be learnt from, the units that choose settings among them.
        testing: (U,) what is predicted.
        inner: (U,) which inner fold judges the settings; −1 where a unit is only learnt from, and
            outside `training`.
        refit: whether the chosen setting is fitted on all training units; else without those that
            judged, as where a paper fixes them.
    """

    training: Mask
    testing: Mask
    inner: Integers
    refit: bool = True

    def judgements(self) -> list[tuple[Integers, Integers]]:
        """Return per inner fold (rows learnt from, rows that judge what was learnt).

        Raises:
            NotScored: no unit judges, or none is left to learn from.
        """
        judging = self.training & (self.inner >= 0)
        pairs = []
        for number in np.unique(self.inner[judging]):
            out = judging & (self.inner == number)
            pairs.append((np.flatnonzero(self.training & ~out), np.flatnonzero(out)))
        if not pairs or not all(len(learnt) for learnt, _ in pairs):
            raise NotScored(
                "the training units of a fold cannot be parted into some that are learnt from and "
                "some that choose the probe's setting: fetch a larger area"
            )
        return pairs

    def last_judgement(self) -> tuple[Integers, Integers]:
        """Return `judgements` of the last inner fold alone, for probes that are slow to fit."""
        return self.judgements()[-1]

    def learnt(self) -> Integers:
        """Return the rows that the chosen setting is fitted on."""
        return np.flatnonzero(self.training & (self.refit | (self.inner < 0)))

    def tested(self) -> Integers:
        """Return the rows that are predicted."""
        return np.flatnonzero(self.testing)


class Predicted(NamedTuple):
    """What a probe returns for a fold.

    Attributes:
        values: (M,) or (M, T) predictions for the units tested, in their order.
        chosen: the chosen setting, one per target.
        unconverged: number of fits that stopped before they converged.
        errors: how wrong the chosen setting was where it was judged, one per target: of two tables
            of features on one fold, the better judged has less. The default probes say it.
    """

    values: npt.NDArray[Any]
    chosen: tuple[float, ...]
    unconverged: int
    errors: tuple[float, ...] = ()


def load_probe(name: str) -> ModuleType:
    """Return the module of a probe.

    Raises:
        UsageError: there is none of that name.
    """
    return plugins.load("bench.probes", name)


def probes_of(kind: str) -> list[str]:
    """Return the names of the probes for `regression` or `classification`."""
    names = plugins.names("bench.probes")
    return [name for name in names if kind in load_probe(name).KINDS]


def nested(training: Mask, testing: Mask, order: npt.NDArray[np.int64]) -> Fold:
    """Return a fold whose settings are chosen on runs of its training units' groups.

    Args:
        training: (U,).
        testing: (U,).
        order: (U,) ranks of groups.

    Raises:
        NotScored: the training units are of one group.
    """
    inner = np.full(len(training), -1, dtype=np.int64)
    inner[training] = inner_folds(order[training])
    return Fold(training, testing, inner)


def inner_folds(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the inner fold (N,) of each training unit: runs of its groups in their order.

    Args:
        groups: (N,) ranks of the units' groups: near ranks are near groups.

    Raises:
        NotScored: all units are of one group.
    """
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise NotScored(
            "the training units of a fold lie in one group, so no penalty can be chosen: fetch a "
            "larger area"
        )
    return equal_runs(counts, INNER_FOLDS)[member]


def is_regression(y: npt.NDArray[Any]) -> bool:
    """Return whether targets are numbers, and not classes."""
    return y.dtype.kind == "f"


def macro_f1_of(truth: Integers, guess: Integers, classes: int) -> float:
    """Return the macro-F1 of guesses (N,) of classes 0 … K − 1 by which settings are chosen."""
    one = np.zeros(len(truth), dtype=np.int64)
    return float(macro_f1(confusion(truth, guess, one, classes).sum(axis=0)))


def in_threads(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    task_bytes: int = 0,
    then: Callable[..., Any] | None = None,
) -> list[Any]:
    """Return what a function returns for the arguments of each task, in their order.

    A task a thread and not a task on all, unless it is large: most products of a fold are too small
    to share, and on busy cores threads of BLAS or OpenMP wait for each other up to a hundred times
    as long as one thread takes.

    Args:
        function: called in a thread.
        tasks: arguments of each call.
        task_bytes: what one call takes; so many run at a time as fit into `TASKS_BYTES`.
        then: called with what the function returned and the same arguments; what it returns is
            what is returned. Two halves keep cores busy where tasks are few.
    """
    cores = os.cpu_count() or 1
    most = max(1, TASKS_BYTES // max(task_bytes, 1))
    workers = max(1, min(cores, most, len(tasks)))
    threads = cores // workers if task_bytes > LARGE_BYTES else 1

    def begin() -> None:
        limited(threads, "openmp")  # holds for the thread that asks for it, till its end

    with limited(threads, "blas"), ThreadPoolExecutor(workers, "", begin) as pool:
        halves = [pool.submit(function, *task) for task in tasks]
        if then is None:
            return [half.result() for half in halves]
        # First halves begin first, so that none waits for one that has no thread.
        wholes = [
            pool.submit(lambda half, task: then(half.result(), *task), half, task)
            for half, task in zip(halves, tasks, strict=True)
        ]
        return [whole.result() for whole in wholes]


def limited(threads: int | None, kind: str) -> Any:
    """Return a context in which libraries of a kind, `blas` or `openmp`, use so many threads.

    They are those that are loaded by then. None changes nothing.
    """
    return _libraries("torch" in sys.modules, "sklearn" in sys.modules).limit(
        limits=threads, user_api=kind
    )


@cache
def _libraries(*loaded: bool) -> Any:
    """Return the libraries with threads of their own; to look for them takes milliseconds."""
    import scipy.linalg  # noqa: F401 - has a BLAS of its own
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


# --- scaling and imputation ----------------------------------------------------------------------


class Scaling(NamedTuple):
    """What brings columns to mean 0 and deviation 1.

    Attributes:
        mean: (D,) of the values that are not missing; 0 where all are.
        inverse: (D,) of their deviation; 0 where a column does not vary beyond the rounding of
            float32.
        missing: whether any value is.
    """

    mean: Floats
    inverse: Floats
    missing: bool

    def of(self, x: npt.NDArray[Any]) -> Floats:
        """Return features (N, D), standardised; missing values become the mean, 0."""
        scaled: Floats = np.subtract(x, self.mean, dtype=np.float64)
        scaled *= self.inverse
        # Of other units more may be missing than of those that the scaling was learnt from.
        if np.isnan(scaled.sum()):
            np.nan_to_num(scaled, copy=False)
        return scaled


def scaling(x: npt.NDArray[Any], rows: Integers | None = None) -> Scaling:
    """Return the scaling learnt from some units, a chunk at a time.

    Args:
        x: (N, D), NaN where missing.
        rows: of the units; default all.
    """
    count, total, squares, shift = (np.zeros(x.shape[1]) for _ in range(4))
    missing = False
    for number, part in enumerate(chunks(np.arange(len(x)) if rows is None else rows, x.shape[1])):
        # About the first chunk's mean, so that squares keep their digits.
        shifted = np.subtract(x[part], shift, dtype=np.float64)
        known = np.full(x.shape[1], float(len(shifted)))
        if np.isnan(shifted.sum()):
            gaps = np.isnan(shifted)
            missing = True
            shifted[gaps] = 0.0
            known -= gaps.sum(axis=0)
        if not number:
            shift = shifted.sum(axis=0) / np.maximum(known, 1)
            shifted -= shift
            if missing:
                shifted[gaps] = 0.0
        count += known
        total += shifted.sum(axis=0)
        squares += np.einsum("nd,nd->d", shifted, shifted)
    count = np.maximum(count, 1)
    mean = shift + total / count
    scale = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0))
    varies = scale > 1e-6 * np.abs(mean)
    return Scaling(mean, np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0), missing)


def chunks(rows: Integers, width: int) -> list[Integers]:
    """Return row numbers in parts whose features fit into `CHUNK_BYTES` as float64."""
    most = max(1, CHUNK_BYTES // (8 * max(width, 1)))
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def standardise(train: npt.ArrayLike, test: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return (train, test) z-scored by the training units; missing values become their mean, 0.

    A column that does not vary over the training units beyond the rounding of float32 is set to 0.

    Args:
        train: (N, D), NaN where a unit has no embedding.
        test: (M, D), likewise.
    """
    own = scaling(np.asarray(train))
    return own.of(np.asarray(train)), own.of(np.asarray(test))


def eigen(gram: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues (K,), ascending, and eigenvectors (K, K) of a symmetric matrix.

    Up to 1000 × 1000 on one thread: more bring little on idle cores, and on busy ones they wait
    for each other up to a hundred times as long as one thread takes.
    """
    with limited(1 if len(gram) <= 1000 else None, "blas"):
        values, vectors = np.linalg.eigh(gram)
    return values, vectors
