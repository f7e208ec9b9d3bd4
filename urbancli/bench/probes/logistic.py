"""Multinomial logistic regression with an L2 penalty, warm-started along the penalties.

With z = Wᵀx + b and p = softmax(z), minimised is the mean of −log p_class plus λ/2 ‖W‖², by L-BFGS
over u = LᵀW, where L is the Cholesky factor of ½ (1 − 1/K) XᵀX / N + λ: the curvature of the loss
is nowhere above that (Böhning 1992, "Multinomial logistic regression algorithm"), so that in u it
is about the same in all directions, however weak the penalty.

The loss and its penalty do not change when the features are rotated, so where there are more
features than units the fit happens in the row space: X = (XXᵀ's) U √w, at most N columns, exactly.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes._lapack import cholesky, triangular
from urbancli.bench.probes._table import HELD_BYTES, Table
from urbancli.bench.probes.base import (
    Floats,
    Fold,
    Integers,
    Predicted,
    Scaling,
    eigen,
    in_threads,
    macro_f1_of,
    scaling,
)

KINDS = ("classification",)
VERSION = 4  # preconditioned by a Cholesky factor: other roundings

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
    judged = [fold.judgements() for fold in folds]
    names = [np.unique(y[fold.training]) for fold in folds]
    classes = [np.searchsorted(known, y) for known in names]
    task_bytes = 32 * x.size if x.shape[1] > len(x) else min(4 * x.size, HELD_BYTES)
    judging = [
        (x, own, learnt, x, out, len(PENALTIES))
        for own, pairs in zip(classes, judged, strict=True)
        for learnt, out in pairs
    ]
    paths = iter(in_threads(logistic_path, judging, task_bytes))
    best, wrong, late = [], [], []
    for own, known, pairs in zip(classes, names, judged, strict=True):
        found = [next(paths) for _ in pairs]
        guesses = np.concatenate([guess for guess, _ in found], axis=1)
        truth = own[np.concatenate([out for _, out in pairs])]
        scores = [macro_f1_of(truth, guess, len(known)) for guess in guesses]
        # Of equal scores the first: the strongest penalty.
        best.append(int(np.argmax(scores)))
        wrong.append(1.0 - max(scores))
        late.append(sum(count for _, count in found))
    finals = [
        (x, own, fold.learnt(), tested, fold.tested(), one + 1)
        for own, fold, one in zip(classes, folds, best, strict=True)
    ]
    found = in_threads(logistic_path, finals, task_bytes)
    return [
        Predicted(known[path[-1]], (float(PENALTIES[one]),), before + count, (error,))
        for known, one, error, before, (path, count) in zip(
            names, best, wrong, late, found, strict=True
        )
    ]


def logistic_path(
    x: npt.NDArray[Any],
    classes: Integers,
    learnt: Integers,
    tested: npt.NDArray[Any],
    asked: Integers,
    length: int,
) -> tuple[Integers, int]:
    """Return the classes (length, M) of the strongest penalties, and how many fits went wrong.

    A fit goes wrong that stops at its last iteration before it converged.

    Args:
        x: (N, D) features of units as they are learnt from.
        classes: (N,).
        learnt: rows learnt from.
        tested: (N, D) features of units as they are predicted.
        asked: rows predicted.
        length: of the path, from strong to weak.
    """
    known, member = np.unique(classes[learnt], return_inverse=True)
    own = scaling(x, learnt)
    if len(known) < 2 or not own.inverse.any():
        return np.full((length, len(asked)), known[np.bincount(member).argmax()]), 0
    if x.shape[1] <= len(learnt):
        descent = _Descent(Table(x, learnt, own), member, len(known))
        table = Table(tested, asked, own)
    else:
        train, test, squares = rotate(own.of(x[learnt]), own.of(tested[asked]))
        descent = _Descent(_plain(train), member, len(known), squares / len(train))
        table = _plain(test)
    predicted = np.zeros((length, len(asked)), dtype=np.int64)
    unconverged = 0
    for step, penalty in enumerate(PENALTIES[:length]):
        unconverged += not descent.descend(float(penalty))
        weights = descent.weights.astype(np.float32)
        for part, features in table.parts():
            scores = features @ weights + descent.bias
            predicted[step, part] = known[scores.argmax(axis=1)]
    return predicted, unconverged


def _plain(x: Floats) -> Table:
    """Return features as they are."""
    width = x.shape[1]
    return Table(x, np.arange(len(x)), Scaling(np.zeros(width), np.ones(width), False))


class _Descent:
    """A fit that goes on from where it is to the optimum of the next penalty.

    The products are in float32, twice as fast: their rounding is far below the tolerance.

    Attributes:
        weights: W (D, K).
        bias: b (K,).

    Args:
        table: (N, D) standardised.
        classes: (N,) numbers 0 … K − 1, each there.
        count: K.
        squares: (D,) of the columns, over N, where they are orthogonal to each other.
    """

    def __init__(
        self, table: Table, classes: Integers, count: int, squares: Floats | None = None
    ) -> None:
        self._table, self._classes = table, classes
        width = table.shape[1]
        shares = np.bincount(classes, minlength=count) / len(classes)
        self.weights = np.zeros((width, count))
        self.bias = np.log(shares) - np.log(shares).mean()
        self._curvature = 0.5 * (1 - 1 / count)
        if squares is None:
            squares = np.zeros((width, width))
            for _, x in table.parts():
                squares += x.T @ x
            squares /= len(table)
            # Rounding in float32 leaves no direction less than nothing.
            squares[np.diag_indices(width)] += 1e-6 * np.trace(squares)
        self._bound = self._curvature * squares
        self._room = np.empty_like(self._bound)

    def descend(self, penalty: float) -> bool:
        """Go to the optimum of a penalty; return whether it was reached."""
        from scipy.optimize import minimize

        factor = _Factor(self._bound, penalty, self._room)
        size, steepest = self.weights.size, np.inf

        def unpacked(point: Floats) -> tuple[Floats, Floats]:
            own = factor.solved(point[:size].reshape(self.weights.shape), True)
            return own, point[size:] / np.sqrt(self._curvature)

        def loss(point: Floats) -> tuple[float, Floats]:
            nonlocal steepest
            value, by_weight, by_bias = self._loss(*unpacked(point), penalty)
            steepest = max(np.abs(by_weight).max(), np.abs(by_bias).max())
            own = factor.solved(by_weight)
            return value, np.concatenate([own.ravel(), by_bias / np.sqrt(self._curvature)])

        def stop(intermediate_result: Any) -> None:
            # Its gradient is in other coordinates: the tolerance is on the one in W and b.
            if steepest <= TOLERANCE:
                raise StopIteration

        start = factor.product(self.weights)
        point = np.concatenate([start.ravel(), self.bias * np.sqrt(self._curvature)])
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
        turned, first = weights.astype(np.float32), bias[:, None].astype(np.float32)
        value, by_weight, by_bias = 0.0, np.zeros(turned.shape[::-1]), np.zeros(bias.shape)
        for part, x in self._table.parts():
            rows, classes = np.arange(len(x)), self._classes[part]
            # (K, N): sums over the few classes are fast where the units lie side by side.
            scores = np.ascontiguousarray((x @ turned).T)
            scores += first
            scores -= scores.max(axis=0)
            own = scores[classes, rows]
            shares = np.exp(scores, out=scores)
            total = shares.sum(axis=0)
            value += float((np.log(total) - own).sum(dtype=np.float64))
            shares /= total
            shares[classes, rows] -= 1
            by_weight += shares @ x
            by_bias += shares.sum(axis=1, dtype=np.float64)
        count = len(self._table)
        value = value / count + penalty / 2 * float((weights**2).sum())
        return value, by_weight.T / count + penalty * weights, by_bias / count


class _Factor:
    """The Cholesky factor L (D, D), L Lᵀ = B + λ.

    Args:
        bound: B (D, D), or its diagonal (D,) where the rest is 0.
        penalty: λ.
        room: of B's shape, where the factor is made: new memory takes as long as the factor.
    """

    def __init__(self, bound: Floats, penalty: float, room: Floats) -> None:
        self._plain = bound.ndim == 1
        if self._plain:
            self._factor = np.sqrt(bound + penalty)[:, None]
        else:
            np.copyto(room, bound)
            room[np.diag_indices(len(bound))] += penalty
            self._factor = cholesky(room)

    def solved(self, right: Floats, transposed: bool = False) -> Floats:
        """Return L⁻¹ B (D, K), or L⁻ᵀ B where it is transposed."""
        if self._plain:
            return np.asarray(right / self._factor)
        return triangular(self._factor, right, transposed)

    def product(self, right: Floats) -> Floats:
        """Return Lᵀ B (D, K)."""
        return np.asarray(self._factor * right if self._plain else np.tril(self._factor).T @ right)


def rotate(train: Floats, test: Floats) -> tuple[Floats, Floats, Floats]:
    """Return features in the row space of `train`: (N, r), (M, r), and its squares (r,), r ≤ N.

    Inner products among units are kept, so a fit with an L2 penalty predicts the same, and the
    columns are orthogonal over the training units.
    """
    values, vectors = eigen(train @ train.T)
    kept = values > 1e-10 * values[-1]
    roots = np.sqrt(values[kept])
    return vectors[:, kept] * roots, (test @ train.T) @ vectors[:, kept] / roots, values[kept]
