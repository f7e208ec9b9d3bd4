"""The contract of a probe, and what every probe does inside a training fold.

A probe is a module with `KIND`, `VERSION`, `fit_predict` and `fit_predict_folds`: the same for one
fold and for all of a split at once. It never sees a test value: scaling, imputation and the choice
of its penalty happen on the training units alone.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli import plugins
from urbancli.bench.splits import NotScored, equal_runs

INNER_FOLDS = 4
"""Folds for the choice of a penalty, runs of neighbouring groups as the outer ones."""

Floats = npt.NDArray[np.float64]


class Predicted(NamedTuple):
    """What a probe returns.

    Attributes:
        values: predictions for the test units, in their order.
        penalty: the chosen penalty, one per target.
        unconverged: number of fits that stopped before they converged.
    """

    values: npt.NDArray[Any]
    penalty: tuple[float, ...]
    unconverged: int


def probe_for(kind: str) -> tuple[str, ModuleType]:
    """Return (name, module) of the first probe by name for `regression` or `classification`."""
    for name in plugins.names("bench.probes"):
        module = plugins.load("bench.probes", name)
        if kind == module.KIND:
            return name, module
    raise ValueError(f"no probe for {kind}")


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
