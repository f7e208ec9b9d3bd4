"""Ridge regression in closed form: one eigendecomposition serves every target and penalty.

With X (N, D) standardised and Y (N, T) centred, and a penalty α on ‖β‖² beside the squared error:

    D ≤ N:  XᵀX = V diag(w) Vᵀ    ŷ(x) = xᵀ V (w + α)⁻¹ Vᵀ Xᵀ Y
    D > N:  XXᵀ = U diag(w) Uᵀ    ŷ(x) = xᵀ Xᵀ U (w + α)⁻¹ Uᵀ Y

Both are `sklearn.linear_model.Ridge(alpha=α)` with an intercept.
"""

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Predicted, eigen, inner_folds, standardise

KIND = "regression"
VERSION = 1

PENALTIES = np.logspace(-6, 6, 13)
"""α / N. With standardised columns the eigenvalues of XᵀX / N add up to D, so that the ends are no
penalty at all and nothing but the mean, for any N and any D up to some ten thousand."""

Floats = npt.NDArray[np.float64]


def fit_predict(
    x_train: npt.ArrayLike,
    y_train: npt.ArrayLike,
    groups: npt.ArrayLike,
    x_test: npt.ArrayLike,
    seed: int = 0,
) -> Predicted:
    """Return predictions with the penalty, per target, of the least squared error over inner folds.

    The inner folds are runs of the training units' groups; neighbours across their borders stay.

    Args:
        x_train: (N, D) features, NaN where missing; D may be 0: the prediction is the mean.
        y_train: (N,) or (N, T).
        groups: (N,) ranks of groups.
        x_test: (M, D).
        seed: not used: nothing here is random.

    Returns:
        Predictions (M,) or (M, T), float64.
    """
    x, y = np.asarray(x_train), np.asarray(y_train, dtype=np.float64)
    targets = y.reshape(len(y), -1)
    inner = inner_folds(np.asarray(groups))
    errors = np.zeros((len(PENALTIES), targets.shape[1]))
    for fold in np.unique(inner):
        out = inner == fold
        guesses = ridge_path(x[~out], targets[~out], x[out])
        errors += ((guesses - targets[out]) ** 2).sum(axis=1)
    # Of equal errors the strongest penalty: without features all are equal.
    best = len(PENALTIES) - 1 - np.argmin(errors[::-1], axis=0)
    path = ridge_path(x, targets, np.asarray(x_test))
    chosen = path[best, :, np.arange(targets.shape[1])].T
    penalties = tuple(float(value) for value in PENALTIES[best])
    return Predicted(chosen.reshape(-1, *y.shape[1:]), penalties, 0)


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
