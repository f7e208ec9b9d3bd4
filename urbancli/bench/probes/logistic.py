"""Multinomial logistic regression with an L2 penalty, warm-started along the penalties.

With z = Wᵀx + b and p = softmax(z), minimised is the mean of −log p_class plus λ/2 ‖W‖², by L-BFGS
over u, W = V diag(s) u, where XᵀX / N = V diag(v) Vᵀ and s = (½ (1 − 1/K) v + λ)^−½: the curvature
of the loss is nowhere above ½ (1 − 1/K) XᵀX / N + λ (Böhning 1992, "Multinomial logistic regression
algorithm"), so that in u it is about the same in all directions, however weak the penalty.

The loss and its penalty do not change when the features are rotated, so where there are more
features than units the fit happens in the row space: X = (XXᵀ's) U √w, at most N columns, exactly.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Floats, Fold, Predicted, eigen, standardise
from urbancli.bench.statistics import confusion, macro_f1

KINDS = ("classification",)
VERSION = 2  # another path to the same optimum, within the same tolerance

PENALTIES = np.logspace(2, -3, 6)
"""λ of mean log-loss + λ/2 ‖W‖², from strong to weak; scikit-learn's C is 1 / (N λ)."""

MAX_ITERATIONS = 400
TOLERANCE = 1e-3
"""Largest entry of the gradient of the mean loss at which a fit counts as converged."""


def fit_predict_folds(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    folds: Sequence[Fold],
    x_test: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> list[Predicted]:
    """Return predicted classes with the penalty of the best macro-F1 over the inner folds.

    Args:
        x: (N, D) features, NaN where missing; D may be 0: the commonest class is predicted.
        y: (N,) classes.
        folds: see `Fold`.
        x_test: (N, D) features of units as they are predicted, where those differ.
        seed: not used: nothing here is random.

    Returns:
        Per fold the classes (M,), of the type of `y`.
    """
    tested = x if x_test is None else x_test
    return [_fit_predict(x, y, fold, tested) for fold in folds]


def _fit_predict(
    x: npt.NDArray[Any], y: npt.NDArray[Any], fold: Fold, tested: npt.NDArray[Any]
) -> Predicted:
    names = np.unique(y[fold.training])
    classes = np.searchsorted(names, y)
    judging = fold.training & (fold.inner >= 0)
    guesses = np.zeros((len(PENALTIES), len(y)), dtype=np.int64)
    unconverged = 0
    for number in np.unique(fold.inner[judging]):
        out = judging & (fold.inner == number)
        rest = fold.training & ~out
        guesses[:, out], late = logistic_path(x[rest], classes[rest], x[out], len(PENALTIES))
        unconverged += late
    truth = classes[judging]
    one = np.zeros(len(truth), dtype=np.int64)
    scores = [
        macro_f1(confusion(truth, guess[judging], one, len(names)).sum(axis=0)) for guess in guesses
    ]
    # Of equal scores the first: the strongest penalty.
    best = int(np.argmax(scores))
    final = fold.training if fold.refit else fold.training & ~judging
    path, late = logistic_path(x[final], classes[final], tested[fold.testing], best + 1)
    return Predicted(names[path[best]], (float(PENALTIES[best]),), unconverged + late)


def logistic_path(
    x_train: npt.ArrayLike, classes: npt.NDArray[np.int64], x_test: npt.ArrayLike, length: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Return the classes (length, M) of the strongest penalties, and how many fits went wrong.

    A fit goes wrong that stops at its last iteration before it converged.
    """
    from threadpoolctl import threadpool_limits

    train, test = rotate(*standardise(x_train, x_test))
    known, counts = np.unique(classes, return_counts=True)
    if len(known) < 2 or not train.shape[1]:
        return np.full((length, len(test)), known[np.argmax(counts)]), 0
    predicted = np.zeros((length, len(test)), dtype=np.int64)
    unconverged = 0
    # Hundreds of small products: a second BLAS thread costs more in waiting than it brings.
    with threadpool_limits(1, "blas"):
        descent = _Descent(train, np.searchsorted(known, classes), len(known))
        for step, penalty in enumerate(PENALTIES[:length]):
            unconverged += not descent.descend(float(penalty))
            scores = test @ descent.weights + descent.bias
            predicted[step] = known[scores.argmax(axis=1)]
    return predicted, unconverged


class _Descent:
    """A fit that goes on from where it is to the optimum of the next penalty.

    The products are in float32, twice as fast: their rounding is far below the tolerance.

    Attributes:
        weights: W (D, K).
        bias: b (K,).

    Args:
        x: (N, D) standardised.
        classes: (N,) numbers 0 … K − 1, each there.
        count: K.
    """

    def __init__(self, x: Floats, classes: npt.NDArray[np.int64], count: int) -> None:
        self._x = x.astype(np.float32)
        self._classes = classes
        shares = np.bincount(classes, minlength=count) / len(classes)
        self.weights = np.zeros((x.shape[1], count))
        self.bias = np.log(shares) - np.log(shares).mean()
        values, self._vectors = eigen((self._x.T @ self._x).astype(np.float64) / len(x))
        self._curvature = 0.5 * (1 - 1 / count)
        self._bound = self._curvature * np.maximum(values, 0.0)

    def descend(self, penalty: float) -> bool:
        """Go to the optimum of a penalty; return whether it was reached."""
        from scipy.optimize import minimize

        scale = 1 / np.sqrt(self._bound + penalty)
        turn, size = self._vectors * scale, self.weights.size
        steepest = np.inf

        def unpacked(point: Floats) -> tuple[Floats, Floats]:
            own = point[:size].reshape(self.weights.shape)
            return turn @ own, point[size:] / np.sqrt(self._curvature)

        def loss(point: Floats) -> tuple[float, Floats]:
            nonlocal steepest
            value, by_weight, by_bias = self._loss(*unpacked(point), penalty)
            steepest = max(np.abs(by_weight).max(), np.abs(by_bias).max())
            own = [(turn.T @ by_weight).ravel(), by_bias / np.sqrt(self._curvature)]
            return value, np.concatenate(own)

        def stop(intermediate_result: Any) -> None:
            # Its gradient is in other coordinates: the tolerance is on the one in W and b.
            if steepest <= TOLERANCE:
                raise StopIteration

        start = [(self._vectors / scale).T @ self.weights, self.bias * np.sqrt(self._curvature)]
        point = np.concatenate([part.ravel() for part in start])
        loss(point)
        if steepest > TOLERANCE:
            options = {"maxiter": MAX_ITERATIONS, "ftol": 0.0, "gtol": 0.0}
            point = minimize(
                loss, point, jac=True, method="L-BFGS-B", callback=stop, options=options
            ).x
            loss(point)
        self.weights, self.bias = unpacked(point)
        return bool(steepest <= TOLERANCE)

    def _loss(self, weights: Floats, bias: Floats, penalty: float) -> tuple[float, Floats, Floats]:
        """Return the loss and its gradients by weights and bias."""
        rows = np.arange(len(self._x))
        scores = self._x @ weights.astype(np.float32) + bias.astype(np.float32)
        scores -= scores.max(axis=1, keepdims=True)
        own = scores[rows, self._classes]
        shares = np.exp(scores, out=scores)
        total = shares.sum(axis=1, keepdims=True)
        value = (np.log(total[:, 0]) - own).mean(dtype=np.float64)
        shares /= total
        shares[rows, self._classes] -= 1
        by_weight = (self._x.T @ shares).astype(np.float64) / len(rows) + penalty * weights
        by_bias = shares.mean(axis=0, dtype=np.float64)
        return float(value) + penalty / 2 * float((weights**2).sum()), by_weight, by_bias


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
