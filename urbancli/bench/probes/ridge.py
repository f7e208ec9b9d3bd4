"""Ridge regression in closed form: one decomposition serves every target and penalty.

With X (N, D) standardised and Y (N, T) centred, and a penalty α on ‖β‖² beside the squared error:

    D ≤ N:  β = (XᵀX + α)⁻¹ Xᵀ Y
    D > N:  β = Xᵀ (XXᵀ + α)⁻¹ Y        ŷ(x) = xᵀ β

Both are `sklearn.linear_model.Ridge(alpha=α)` with an intercept. The matrix is made tridiagonal
once (`_tridiagonal`).

Where D ≤ N the folds of a split, outer and inner, share one pass over the features: the sums of
products (`_moments`) of their parts add up to those of every training set, and standardising is
algebra on sums. The squared error on units left out needs their sums alone, no predictions.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes._moments import Moments, moments
from urbancli.bench.probes._tridiagonal import Tridiagonal
from urbancli.bench.probes.base import (
    Floats,
    Fold,
    Integers,
    Predicted,
    Scaling,
    chunks,
    in_threads,
    scaling,
    standardise,
)

KINDS = ("regression",)
VERSION = 3  # solved through a tridiagonal matrix: the last digits of errors and scores

PENALTIES = np.logspace(-6, 6, 13)
"""α / N. With standardised columns the eigenvalues of XᵀX / N add up to D, so that the ends are no
penalty at all and nothing but the mean, for any N and any D up to some ten thousand."""

SUMS_BYTES = 2 << 30
"""What the sums of folds may take; beyond that every fold has its own, or none."""

VARIES = 1e-6
"""Of a column's deviation over all units: one that varies less over the training units does not."""


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
    targets = target.reshape(len(target), -1)
    # Of each fold how many units every fit learns from, the last one included.
    sizes = [[*(len(own) for own, _ in fold.judgements()), len(fold.learnt())] for fold in folds]
    least = min((min(own) for own in sizes), default=0)
    width = features.shape[1]
    # Three products are kept of every part where values are missing.
    sums_bytes = 24 * width**2 * sum(len(own) for own in sizes)
    if 0 < width <= least and sums_bytes <= SUMS_BYTES:
        found = _from_sums(features, targets, folds, tested)
    elif 0 < width <= least and len(folds) > 1:
        return [fit_predict_folds(x, y, [fold], x_test)[0] for fold in folds]
    elif not width:
        found = [_means(targets, fold) for fold in folds]
    else:
        found = _from_products(features, targets, folds, tested)
    return [
        Predicted(
            values.reshape(-1, *target.shape[1:]),
            tuple(PENALTIES[_least(errors)].tolist()),
            0,
            tuple(errors.min(axis=0).tolist()),
        )
        for values, errors in found
    ]


def _means(y: Floats, fold: Fold) -> tuple[Floats, Floats]:
    """Return what is known without features: the mean, whatever the penalty."""
    mean = y[fold.learnt()].mean(axis=0)
    wrong = [
        ((y[out] - y[learnt].mean(axis=0)) ** 2).sum(axis=0) for learnt, out in fold.judgements()
    ]
    errors = np.tile(np.sum(wrong, axis=0), (len(PENALTIES), 1))
    return np.tile(mean, (int(fold.testing.sum()), 1)), errors


def _least(errors: Floats) -> Integers:
    """Return the penalty (T,) of the least error (P, T); of equal ones the strongest."""
    return np.asarray(len(PENALTIES) - 1 - np.argmin(errors[::-1], axis=0))


# --- each training set by itself -----------------------------------------------------------------


def _from_products(
    x: npt.NDArray[Any], y: Floats, folds: Sequence[Fold], tested: npt.NDArray[Any]
) -> list[tuple[Floats, Floats]]:
    """Return per fold the predictions (M, T), with the penalties of the least errors (P, T)."""

    def judge(learnt: Integers, out: Integers) -> Floats:
        path = ridge_path(x[learnt], y[learnt], x[out])
        return np.asarray(((path - y[out]) ** 2).sum(axis=1))

    def predict(fold: Fold, wrong: Floats) -> Floats:
        learnt, best = fold.learnt(), _least(wrong)
        train, test = standardise(x[learnt], tested[fold.testing])
        mean = y[learnt].mean(axis=0)
        system, right, turn = _equations(train, y[learnt] - mean)
        solved = system.solve(right, len(learnt) * PENALTIES[best])
        return np.asarray(test @ (solved if turn is None else turn @ solved) + mean)

    task_bytes = 32 * len(x) * max(x.shape[1], 1)
    judged = [fold.judgements() for fold in folds]
    errors = iter(in_threads(judge, [pair for pairs in judged for pair in pairs], task_bytes))
    summed = [np.sum([next(errors) for _ in pairs], axis=0) for pairs in judged]
    values = in_threads(predict, list(zip(folds, summed, strict=True)), task_bytes)
    return list(zip(values, summed, strict=True))


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
    system, right, turn = _equations(train, y_train - mean)
    path = system.path(right, len(train) * penalties)
    flat = path.reshape(len(path), -1)
    found = test @ (flat if turn is None else turn @ flat)
    return np.asarray(found.reshape(len(test), *path.shape[1:]).transpose(1, 0, 2) + mean)


def _equations(train: Floats, centred: Floats) -> tuple[Tridiagonal, Floats, Floats | None]:
    """Return A, B and Xᵀ of β = Xᵀ (A + α)⁻¹ B, without Xᵀ where it is in B."""
    if train.shape[1] <= len(train):
        return Tridiagonal(train.T @ train), train.T @ centred, None
    return Tridiagonal(train @ train.T), centred, train.T


# --- all training sets from shared sums ----------------------------------------------------------


class _Fit(NamedTuple):
    """A fit on the training units of a fold.

    Attributes:
        mean: (D,) of their features, in the frame.
        weights: (D, T).
        target_mean: (T,).
    """

    mean: Floats
    weights: Floats
    target_mean: Floats


def _from_sums(
    x: npt.NDArray[Any], y: Floats, folds: Sequence[Fold], tested: npt.NDArray[Any]
) -> list[tuple[Floats, Floats]]:
    """Return what `_from_products` does, to rounding."""
    frame = scaling(x)
    parts = _sums(x, y, frame, folds)
    wholes = [_total(runs.values()) for runs in parts]
    left_out = [
        (whole - run, run)
        for whole, runs in zip(wholes, parts, strict=True)
        for number, run in runs.items()
        if number >= 0
    ]
    found = iter(in_threads(_errors, left_out))
    errors = [np.sum([next(found) for number in runs if number >= 0], axis=0) for runs in parts]
    finals = [
        whole if fold.refit else runs[-1]
        for fold, whole, runs in zip(folds, wholes, parts, strict=True)
    ]
    fits = in_threads(_fit, list(zip(finals, errors, strict=True)))
    asked = [
        (tested, part, frame, fit)
        for fit, fold in zip(fits, folds, strict=True)
        for part in chunks(fold.tested(), x.shape[1])
    ]
    values = iter(in_threads(_predict, asked))
    every = []
    for wrong, fold in zip(errors, folds, strict=True):
        count = len(chunks(fold.tested(), x.shape[1]))
        own = [next(values) for _ in range(count)]
        every.append((np.concatenate([np.zeros((0, y.shape[1])), *own]), wrong))
    return every


def _sums(
    x: npt.NDArray[Any], y: Floats, frame: Scaling, folds: Sequence[Fold]
) -> list[dict[int, Moments]]:
    """Return the moments of every inner run of every fold's training units, by its number.

    Units that are in the same run of every fold are summed once, and added where they belong.
    """
    outside = -2
    kind = np.zeros(len(x), dtype=np.int64)
    kinds = np.zeros((1, 0), dtype=np.int64)
    for fold in folds:
        run = np.where(fold.training, np.maximum(fold.inner, -1), outside)
        span = int(run.max()) - outside + 1
        codes, kind = np.unique(kind * span + run - outside, return_inverse=True)
        kinds = np.column_stack([kinds[codes // span], codes % span + outside])
    used = [number for number, places in enumerate(kinds.tolist()) if max(places) > outside]
    rows = [(x, y, np.flatnonzero(kind == number), frame) for number in used]
    found: list[dict[int, Moments]] = [{} for _ in folds]
    for number, sums in zip(used, in_threads(moments, rows), strict=True):
        for parts, run in zip(found, kinds[number].tolist(), strict=True):
            if run > outside:
                parts[run] = parts[run] + sums if run in parts else sums
    return [{run: parts[run] for run in sorted(parts)} for parts in found]


def _total(parts: Iterable[Moments]) -> Moments:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _prepared(train: Moments) -> tuple[Floats, Floats, Tridiagonal, Floats]:
    """Return mean and inverse deviation (D,) of training units, and A and B of (A + α) β = B."""
    mean = train.x / np.maximum(train.k, 1.0)
    gram, cross, _ = train.about(mean, train.y / train.n)
    scale = np.sqrt(np.maximum(np.diag(gram), 0.0) / np.maximum(train.k, 1.0))
    inverse = np.where(scale > VARIES, 1.0 / np.where(scale > VARIES, scale, 1.0), 0.0)
    gram *= inverse
    gram *= inverse[:, None]
    return mean, inverse, Tridiagonal(gram), cross * inverse[:, None]


def _errors(train: Moments, test: Moments) -> Floats:
    """Return the squared errors (P, T) of every penalty on units left out."""
    mean, inverse, system, right = _prepared(train)
    gram, cross, squares = test.about(mean, train.y / train.n)
    # Of all penalties and targets at once: (D, P T).
    weights = system.path(right, train.n * PENALTIES)
    weights *= inverse[:, None, None]
    turned = (gram @ weights.reshape(len(gram), -1)).reshape(weights.shape)
    turned -= 2 * cross[:, None, :]
    return np.asarray(squares + np.einsum("dpt,dpt->pt", weights, turned))


def _fit(train: Moments, errors: Floats) -> _Fit:
    """Return the fit with each target's penalty of the least error (P, T)."""
    mean, inverse, system, right = _prepared(train)
    best = _least(errors)
    solved = system.solve(right, train.n * PENALTIES[best])
    return _Fit(mean, inverse[:, None] * solved, train.y / train.n)


def _predict(x: npt.NDArray[Any], rows: Integers, frame: Scaling, fit: _Fit) -> Floats:
    """Return the predictions (M, T) of some units."""
    framed = np.subtract(x[rows], frame.mean, dtype=np.float64)
    framed *= frame.inverse
    framed -= fit.mean
    if np.isnan(framed.sum()):
        np.nan_to_num(framed, copy=False)
    return np.asarray(framed @ fit.weights + fit.target_mean)
