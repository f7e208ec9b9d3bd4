"""The mean, or the commonest class, of the k nearest training units.

Nearness is the Euclidean distance of standardised features, every neighbour counts alike (Fix and
Hodges 1951; Cover and Hart 1967), and the search is exact: scikit-learn's `KNeighborsRegressor` and
`KNeighborsClassifier` with `algorithm="brute"`. k is chosen on the inner folds, for each target the
least squared error, for classes the best macro-F1. What it says of an embedding is what its
distances say: no direction of it is weighed by the target.

Units and their training units are compared a block at a time, so that memory does not grow with
their number. Seconds do, with its square: a million units take days.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import (
    Floats,
    Fold,
    Integers,
    Predicted,
    chunks,
    in_threads,
    is_regression,
    macro_f1_of,
    scaling,
)

KINDS = ("regression", "classification")
VERSION = 1

NEIGHBOURS = (50, 20, 10, 5, 3, 1)
"""k, from smooth to rough: of equal errors the smoothest is taken."""

BLOCK = 512
"""Units asked at a time."""


def fit_predict_folds(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    folds: Sequence[Fold],
    x_test: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> list[Predicted]:
    """Return predictions with the k of the least squared error, or the best macro-F1, when judged.

    Args:
        x: (N, D) features, NaN where missing: the mean; D may be 0: the mean or commonest class.
        y: (N,) or (N, T) numbers, or (N,) classes.
        folds: see `Fold`.
        x_test: (N, D) features of units as they are predicted, where those differ.
        seed: not used: nothing here is random.
    """
    tested = x if x_test is None else x_test
    judged = [fold.judgements() for fold in folds]
    regression = is_regression(y)
    tasks = []
    for fold, pairs in zip(folds, judged, strict=True):
        # Of a target that nobody may learn from nothing is passed on.
        names, values = _values(y, fold, regression=regression)
        tasks += [(x, values, learnt, x, out, names) for learnt, out in pairs]
        tasks.append((x, values, fold.learnt(), tested, fold.tested(), names))
    paths = iter(in_threads(neighbour_path, tasks))
    found = []
    for fold, pairs in zip(folds, judged, strict=True):
        names, values = _values(y, fold, regression=regression)
        inner = np.concatenate([next(paths) for _ in pairs], axis=1)
        truth = values[np.concatenate([out for _, out in pairs])]
        final = next(paths)
        if names is None:
            best = ((inner - truth) ** 2).sum(axis=1).argmin(axis=0)
            chosen = final[best, :, np.arange(len(best))].T.reshape(-1, *y.shape[1:])
        else:
            scores = [macro_f1_of(truth[:, 0], guess[:, 0], len(names)) for guess in inner]
            best = np.array([np.argmax(scores)])
            chosen = names[final[best[0], :, 0]]
        found.append(Predicted(chosen, tuple(float(NEIGHBOURS[one]) for one in best), 0))
    return found


def _values(
    y: npt.NDArray[Any], fold: Fold, *, regression: bool
) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any]]:
    """Return the names of classes, None for numbers, and values (N, T) or class numbers (N, 1)."""
    if regression:
        return None, y.reshape(len(y), -1)
    names = np.unique(y[fold.training])
    return names, np.searchsorted(names, y)[:, None]


def neighbour_path(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    learnt: Integers,
    tested: npt.NDArray[Any],
    asked: Integers,
    names: npt.NDArray[Any] | None,
) -> npt.NDArray[Any]:
    """Return the predictions (K, M, T) of every k.

    Args:
        x: (N, D) features of units as they are learnt from.
        y: (N, T) numbers, or (N, 1) class numbers.
        learnt: rows learnt from.
        tested: (N, D) features of units as they are predicted.
        asked: rows predicted.
        names: of the classes; None for numbers.
    """
    own = scaling(x, learnt)
    kept = np.flatnonzero(own.inverse)
    path = np.empty((len(NEIGHBOURS), len(asked), y.shape[1]), dtype=y.dtype)
    if not len(kept):
        path[:] = y[learnt].mean(axis=0) if names is None else np.bincount(y[learnt, 0]).argmax()
        return path
    most = min(NEIGHBOURS[0], len(learnt))
    for start in range(0, len(asked), BLOCK):
        part = asked[start : start + BLOCK]
        near: Floats = np.empty((len(part), 0))
        rows: Integers = np.empty((len(part), 0), dtype=np.int64)
        point = own.of(tested[part])
        # Of four blocks' width: what is compared at a time is as large as the features.
        for block in chunks(learnt, max(x.shape[1], 4 * BLOCK)):
            other = own.of(x[block])
            # The squared distance but for |point|², which is the same for all.
            distance = np.einsum("nd,nd->n", other, other) - 2 * (point @ other.T)
            near = np.concatenate([near, distance], axis=1)
            rows = np.concatenate([rows, np.tile(block, (len(part), 1))], axis=1)
            if near.shape[1] > most:
                first = np.argpartition(near, most - 1, axis=1)[:, :most]
                near = np.take_along_axis(near, first, axis=1)
                rows = np.take_along_axis(rows, first, axis=1)
        order = np.lexsort((rows, near), axis=1)
        path[:, start : start + BLOCK] = _votes(y[np.take_along_axis(rows, order, 1)], names)
    return path


def _votes(neighbours: npt.NDArray[Any], names: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Return what the nearest of neighbours (M, most, T), near ones first, say: (K, M, T)."""
    counts = [min(k, neighbours.shape[1]) for k in NEIGHBOURS]
    if names is None:
        sums: Floats = neighbours.cumsum(axis=1)
        return np.stack([sums[:, count - 1] / count for count in counts])
    every = np.arange(len(names))
    votes = (neighbours == every).cumsum(axis=1)
    # Of equal votes the first class, as scikit-learn has it.
    return np.stack([votes[:, count - 1].argmax(axis=1)[:, None] for count in counts])
