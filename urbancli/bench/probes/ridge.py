"""Ridge regression in closed form: one eigendecomposition serves every target and penalty.

With X (N, D) standardised and Y (N, T) centred, and a penalty α on ‖β‖² beside the squared error:

    D ≤ N:  XᵀX = V diag(w) Vᵀ    ŷ(x) = xᵀ V (w + α)⁻¹ Vᵀ Xᵀ Y
    D > N:  XXᵀ = U diag(w) Uᵀ    ŷ(x) = xᵀ Xᵀ U (w + α)⁻¹ Uᵀ Y

Both are `sklearn.linear_model.Ridge(alpha=α)` with an intercept.

Where D ≤ N the folds of a split, outer and inner, share one pass over the features: the sums of
products (`_moments`) of their parts add up to those of every training set, and standardising is
algebra on sums. The squared error on units left out needs their sums alone, no predictions.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes._moments import Frame, Moments, chunks, frame_of, moments
from urbancli.bench.probes.base import Fold, Predicted, eigen, standardise

KINDS = ("regression",)
VERSION = 2  # sums of products instead of predictions: the last digits of errors and scores

PENALTIES = np.logspace(-6, 6, 13)
"""α / N. With standardised columns the eigenvalues of XᵀX / N add up to D, so that the ends are no
penalty at all and nothing but the mean, for any N and any D up to some ten thousand."""

SUMS_BYTES = 2 << 30
"""What the sums of all folds may take; beyond that every fold is fitted on its own."""

VARIES = 1e-6
"""Of a column's deviation over all units: one that varies less over the training units does not."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def ridge_path(
    x_train: npt.ArrayLike,
    y_train: Floats,
    x_test: npt.ArrayLike,
    penalties: Floats = PENALTIES,
) -> Floats:
    """Return the predictions of every penalty, (P, M, T).

    Args:
        x_train: (N, D) features, NaN where missing; standardised here.
        y_train: (N, T).
        x_test: (M, D).
        penalties: (P,) α / N.
    """
    train, test = standardise(x_train, x_test)
    mean = y_train.mean(axis=0)
    centred = y_train - mean
    number, width = train.shape
    if width <= number:
        values, vectors = eigen(train.T @ train)
        inner, outer = vectors.T @ (train.T @ centred), test @ vectors
    else:
        values, vectors = eigen(train @ train.T)
        inner, outer = vectors.T @ centred, (test @ train.T) @ vectors
    # Rounding makes eigenvalues of a singular matrix slightly negative.
    shrunk = np.maximum(values, 0.0)[:, None] + number * penalties[None, :]
    weights = inner[:, None, :] / shrunk[:, :, None]
    shape = (len(penalties), y_train.shape[1])
    flat = outer @ weights.reshape(len(values), shape[0] * shape[1])
    path = flat.reshape(len(test), *shape).transpose(1, 0, 2)
    return np.asarray(path + mean, dtype=np.float64)


# --- all folds of a split ----------------------------------------------------------------------


def fit_predict_folds(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    folds: Sequence[Fold],
    x_test: npt.ArrayLike | None = None,
    seed: int = 0,
) -> list[Predicted]:
    """Return predictions with the penalty, per target, of the least squared error when judged.

    Args:
        x: (N, D) features, NaN where missing; D may be 0: the prediction is the mean.
        y: (N,) or (N, T).
        folds: see `Fold`.
        x_test: (N, D) features of units as they are predicted, where those differ.
        seed: not used: nothing here is random.
    """
    features, target = np.asarray(x), np.asarray(y, dtype=np.float64)
    tested = features if x_test is None else np.asarray(x_test)
    width = features.shape[1]
    least, runs = len(features), 0
    for fold in folds:
        counts = np.bincount(fold.inner[fold.inner >= 0], minlength=1)
        gone = int(counts.max()) if fold.refit else int(counts.sum())
        least = min(least, int(fold.training.sum()) - gone)
        runs += len(counts) + 1
    if not 0 < width <= least or 8 * runs * width**2 > SUMS_BYTES:
        return [_fit_predict(features, target, fold, tested) for fold in folds]
    from threadpoolctl import threadpool_limits

    targets = target.reshape(len(target), -1)
    frame = frame_of(features)
    parts = _sums(features, targets, frame, folds)
    wholes = [_total(runs.values()) for runs in parts]
    left_out = [
        (whole - run, run)
        for whole, runs in zip(wholes, parts, strict=True)
        for number, run in runs.items()
        if number >= 0
    ]
    finals = [
        whole if fold.refit else runs[-1]
        for fold, whole, runs in zip(folds, wholes, parts, strict=True)
    ]
    # A fold a thread and not a fold on all: their matrices are too small to share.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = iter(list(pool.map(_errors, *zip(*left_out, strict=True))))
        errors = [sum(next(found) for number in runs if number >= 0) for runs in parts]
        fits = list(pool.map(_fit, finals, errors))
    return [
        _predict(tested, frame, fit, np.flatnonzero(fold.testing), target.shape[1:])
        for fit, fold in zip(fits, folds, strict=True)
    ]


def _fit_predict(x: npt.NDArray[Any], y: Floats, fold: Fold, tested: npt.NDArray[Any]) -> Predicted:
    """Return the predictions of one fold by itself."""
    targets = y.reshape(len(y), -1)
    errors = np.zeros((len(PENALTIES), targets.shape[1]))
    for number in np.unique(fold.inner[fold.inner >= 0]):
        out = fold.inner == number
        rest = fold.training & ~out
        guesses = ridge_path(x[rest], targets[rest], x[out])
        errors += ((guesses - targets[out]) ** 2).sum(axis=1)
    best = _least(errors)
    final = fold.training if fold.refit else fold.training & (fold.inner < 0)
    path = ridge_path(x[final], targets[final], tested[fold.testing])
    chosen = path[best, :, np.arange(targets.shape[1])].T
    penalties = tuple(float(value) for value in PENALTIES[best])
    return Predicted(chosen.reshape(-1, *y.shape[1:]), penalties, 0)


class _Fit(NamedTuple):
    """A fit on the training units of a fold.

    Attributes:
        mean: (D,) of their features, in the frame.
        inverse: (D,) of their deviations, 0 where a column does not vary.
        weights: (D, T).
        target_mean: (T,).
        penalty: (T,) chosen.
    """

    mean: Floats
    inverse: Floats
    weights: Floats
    target_mean: Floats
    penalty: tuple[float, ...]


def _sums(
    x: npt.NDArray[Any], y: Floats, frame: Frame, folds: Sequence[Fold]
) -> list[dict[int, Moments]]:
    """Return the moments of every inner run of every fold's training units, by its number.

    Units that are in the same run of every fold are summed once, and added where they belong.
    """
    outside = -2
    runs = np.full((len(x), len(folds)), outside, dtype=np.int64)
    for number, fold in enumerate(folds):
        runs[fold.training, number] = fold.inner[fold.training]
    kinds, kind = np.unique(runs, axis=0, return_inverse=True)
    found: list[dict[int, Moments]] = [{} for _ in folds]
    for number, places in enumerate(kinds.tolist()):
        if max(places) == outside:
            continue
        sums = moments(x, y, np.flatnonzero(kind.ravel() == number), frame)
        for parts, run in zip(found, places, strict=True):
            if run > outside:
                parts[run] = parts[run] + sums if run in parts else sums
    return [{run: parts[run] for run in sorted(parts)} for parts in found]


def _total(parts: Iterable[Moments]) -> Moments:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _decomposed(train: Moments) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return mean and inverse deviation (D,) of training units, and w, V and Vᵀ Xᵀ Y of them."""
    mean = train.x / np.maximum(train.k, 1.0)
    gram, cross, _ = train.about(mean, train.y / train.n)
    variance = np.maximum(np.diag(gram), 0.0) / np.maximum(train.k, 1.0)
    scale = np.sqrt(variance)
    inverse = np.where(scale > VARIES, 1.0 / np.where(scale > VARIES, scale, 1.0), 0.0)
    values, vectors = eigen(gram * inverse * inverse[:, None])
    return mean, inverse, np.maximum(values, 0.0), vectors, vectors.T @ (cross * inverse[:, None])


def _errors(train: Moments, test: Moments) -> Floats:
    """Return the squared errors (P, T) of every penalty on units left out."""
    mean, inverse, values, vectors, inner = _decomposed(train)
    gram, cross, squares = test.about(mean, train.y / train.n)
    turned = vectors.T @ (gram * inverse * inverse[:, None]) @ vectors
    aimed = vectors.T @ (cross * inverse[:, None])
    errors = np.empty((len(PENALTIES), inner.shape[1]))
    for number, penalty in enumerate(PENALTIES):
        weights = inner / (values + train.n * penalty)[:, None]
        errors[number] = squares + (weights * (turned @ weights - 2 * aimed)).sum(axis=0)
    return errors


def _fit(train: Moments, errors: Floats) -> _Fit:
    """Return the fit with each target's penalty of the least error (P, T)."""
    mean, inverse, values, vectors, inner = _decomposed(train)
    best = _least(errors)
    shrunk = values[:, None] + train.n * PENALTIES[best]
    weights = inverse[:, None] * (vectors @ (inner / shrunk))
    return _Fit(mean, inverse, weights, train.y / train.n, tuple(PENALTIES[best].tolist()))


def _least(errors: Floats) -> npt.NDArray[np.int64]:
    """Return the penalty (T,) of the least error (P, T); of equal ones the strongest."""
    return np.asarray(len(PENALTIES) - 1 - np.argmin(errors[::-1], axis=0))


def _predict(
    x: npt.NDArray[Any],
    frame: Frame,
    fit: _Fit,
    rows: npt.NDArray[np.int64],
    shape: tuple[int, ...],
) -> Predicted:
    """Return the predictions of some units."""
    values = np.empty((len(rows), len(fit.target_mean)))
    done = 0
    for part in chunks(rows, x.shape[1]):
        framed = (x[part].astype(np.float64) - frame.centre) / frame.scale - fit.mean
        np.nan_to_num(framed, copy=False)
        values[done : done + len(part)] = framed @ fit.weights + fit.target_mean
        done += len(part)
    return Predicted(values.reshape(-1, *shape), fit.penalty, 0)
