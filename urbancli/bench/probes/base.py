"""The contract of a probe, and what every probe does inside a training fold.

A probe is a module with `KINDS` (of tasks), `VERSION` (raised when scores change) and
`fit_predict_folds(x, y, folds, x_test=None, seed=0)`. It never sees a test value: scaling,
imputation and the choice of its settings happen on the training units alone.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli import plugins
from urbancli.bench.splits.base import NotScored, equal_runs

INNER_FOLDS = 4
"""Folds for the choice of a penalty, runs of neighbouring groups as the outer ones."""

Floats = npt.NDArray[np.float64]


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
    inner: npt.NDArray[np.int64]
    refit: bool = True


class Predicted(NamedTuple):
    """What a probe returns for a fold.

    Attributes:
        values: (M,) or (M, T) predictions for the units tested, in their order.
        chosen: the chosen setting, one per target.
        unconverged: number of fits that stopped before they converged.
    """

    values: npt.NDArray[Any]
    chosen: tuple[float, ...]
    unconverged: int


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


def standardise(train: npt.ArrayLike, test: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return (train, test) z-scored by the training units; missing values become their mean, 0.

    A column that does not vary over the training units beyond the rounding of float32 is set to 0.

    Args:
        train: (N, D), NaN where a unit has no embedding.
        test: (M, D), likewise.
    """
    train, test = np.array(train, dtype=np.float64), np.array(test, dtype=np.float64)
    known = ~np.isnan(train)
    number = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, train, 0.0).sum(axis=0) / number
    deviation = np.where(known, train - mean, 0.0)
    scale = np.sqrt((deviation**2).sum(axis=0) / number)
    varies = scale > 1e-6 * np.abs(mean)
    inverse = np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
    return deviation * inverse, np.nan_to_num((test - mean) * inverse)


def eigen(gram: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues (K,), ascending, and eigenvectors (K, K) of a symmetric matrix.

    Up to 1000 × 1000 on one thread: more bring little on idle cores, and on busy ones they wait
    for each other up to a hundred times as long as one thread takes.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1 if len(gram) <= 1000 else None, "blas"):
        values, vectors = np.linalg.eigh(gram)
    return values, vectors
