"""Multinomial logistic regression with an L2 penalty, warm-started along the penalties.

The loss and its penalty do not change when the features are rotated, so where there are more
features than units the fit happens in the row space: X = (XXᵀ's) U √w, at most N columns, exactly.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Floats, Predicted, eigen, inner_folds, standardise
from urbancli.bench.statistics import confusion, macro_f1

KIND = "classification"
VERSION = 1

PENALTIES = np.logspace(2, -3, 6)
"""λ of mean log-loss + λ/2 ‖W‖², from strong to weak; scikit-learn's C is 1 / (N λ)."""

MAX_ITERATIONS = 400
TOLERANCE = 1e-3
"""Largest entry of the gradient of the mean loss at which a fit counts as converged."""


def fit_predict(
    x_train: npt.ArrayLike,
    y_train: npt.NDArray[Any],
    groups: npt.ArrayLike,
    x_test: npt.ArrayLike,
    seed: int = 0,
) -> Predicted:
    """Return predicted classes with the penalty of the best macro-F1 over inner folds.

    Args:
        x_train: (N, D) features, NaN where missing; D may be 0: the commonest class is predicted.
        y_train: (N,) classes.
        groups: (N,) ranks of groups.
        x_test: (M, D).
        seed: not used: nothing here is random.

    Returns:
        Classes (M,), of the type of `y_train`.
    """
    x = np.asarray(x_train)
    names, classes = np.unique(y_train, return_inverse=True)
    inner = inner_folds(np.asarray(groups))
    guesses = np.zeros((len(PENALTIES), len(classes)), dtype=np.int64)
    unconverged = 0
    for fold in np.unique(inner):
        out = inner == fold
        guesses[:, out], late = logistic_path(x[~out], classes[~out], x[out], len(PENALTIES))
        unconverged += late
    one = np.zeros(len(classes), dtype=np.int64)
    scores = [macro_f1(confusion(classes, g, one, len(names)).sum(axis=0)) for g in guesses]
    # Of equal scores the first: the strongest penalty.
    best = int(np.argmax(scores))
    path, late = logistic_path(x, classes, np.asarray(x_test), best + 1)
    return Predicted(names[path[best]], (float(PENALTIES[best]),), unconverged + late)


def fit_predict_folds(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    groups: npt.NDArray[np.int64],
    training: Sequence[npt.NDArray[np.bool_]],
    testing: Sequence[npt.NDArray[np.bool_]],
) -> list[Predicted]:
    """Return what `fit_predict` returns for every fold of a split.

    Args:
        x: (N, D) features, NaN where missing.
        y: (N,) classes.
        groups: (N,) ranks of groups.
        training: per fold (N,) which units are learnt from.
        testing: per fold (N,) which units are predicted.
    """
    return [
        fit_predict(x[train], y[train], groups[train], x[test])
        for train, test in zip(training, testing, strict=True)
    ]


def logistic_path(
    x_train: npt.ArrayLike, classes: npt.NDArray[np.int64], x_test: npt.ArrayLike, length: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Return the classes (length, M) of the strongest penalties, and how many fits went wrong.

    A fit goes wrong that stops at its last iteration before it converged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    train, test = rotate(*standardise(x_train, x_test))
    known, counts = np.unique(classes, return_counts=True)
    if len(known) < 2 or not train.shape[1]:
        return np.full((length, len(test)), known[np.argmax(counts)]), 0
    model = LogisticRegression(warm_start=True, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
    predicted = np.zeros((length, len(test)), dtype=np.int64)
    unconverged = 0
    # Thousands of small products: a second BLAS thread costs more in waiting than it brings.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for step, penalty in enumerate(PENALTIES[:length]):
            model.C = 1.0 / (len(train) * penalty)
            model.fit(train, classes)
            unconverged += int(np.max(model.n_iter_) >= MAX_ITERATIONS)
            predicted[step] = model.predict(test)
    return predicted, unconverged


def rotate(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Return features in the row space of `train` where that is smaller: (N, r), (M, r), r ≤ N.

    Inner products among units are kept, so a fit with an L2 penalty predicts the same.
    """
    number, width = train.shape
    if width <= number:
        return train, test
    values, vectors = eigen(train @ train.T)
    kept = values > 1e-10 * values[-1]
    roots = np.sqrt(values[kept])
    return vectors[:, kept] * roots, (test @ train.T) @ vectors[:, kept] / roots
