"""What only products of two modalities tell: a probe of rank one over their principal components.

Predicted is β (u·a)(v·b) of what an additive probe leaves over, r: a and b are the leading
principal components of two blocks, standardised, at unit variance; u and v the leading singular
vectors of the mean of r a bᵀ over the training units. The number of components and β come from
predictions on the inner folds, so that where there is no product β is about 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Fold, standardise

COMPONENTS = (8, 16, 32, 64)
"""Principal components per modality that are chosen from."""

LARGEST = 4.0
"""Of a principal component, in standard deviations: of two heavy tails the product would be all
that a fit sees."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Products:
    """The blocks of a sitting, decomposed once for every training set.

    Args:
        folds: of the exams.
        blocks: modality → features (U, D), NaN where missing.
    """

    def __init__(self, folds: Sequence[Fold], blocks: Mapping[str, npt.NDArray[Any]]) -> None:
        from threadpoolctl import threadpool_limits

        self._folds = folds
        self._scores: list[dict[str, Floats]] = []
        self._inner: list[list[tuple[Mask, dict[str, Floats]]]] = []
        with threadpool_limits(1, "blas"):
            for fold in folds:
                self._scores.append(_all_whitened(blocks, fold.training))
                numbers = np.unique(fold.inner[fold.inner >= 0])
                held = [fold.training & (fold.inner == number) for number in numbers]
                self._inner.append(
                    [(out, _all_whitened(blocks, fold.training & ~out)) for out in held]
                )

    def predict(self, left_over: Sequence[Floats], first: str, second: str) -> Floats:
        """Return the predictions (U, T) of what is left over, each unit in the fold that tests it.

        Args:
            left_over: per fold (U, T), what an additive probe leaves of its training units.
            first: a modality.
            second: another, or the same.
        """
        out = np.zeros_like(left_over[0])
        for number, fold in enumerate(self._folds):
            rest = left_over[number] - left_over[number][fold.training].mean(axis=0)
            count, slope = self._chosen(number, rest, first, second)
            scores = self._scores[number]
            along = _along(scores[first], scores[second], rest, fold.training, fold.testing, count)
            out[fold.testing] = slope * along
        return out

    def _chosen(
        self, number: int, rest: Floats, first: str, second: str
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the number of components (T,) and slope (T,) that judge best."""
        fold, targets = self._folds[number], rest.shape[1]
        judged = fold.training & (fold.inner >= 0)
        best = np.full(targets, np.inf)
        count, slope = np.full(targets, COMPONENTS[0], np.int64), np.zeros(targets)
        for components in COMPONENTS:
            along = np.zeros_like(rest)
            every = np.full(targets, components, np.int64)
            for out, scores in self._inner[number]:
                known = fold.training & ~out
                along[out] = _along(scores[first], scores[second], rest, known, out, every)
            mine, truth = along[judged], rest[judged]
            beta = np.maximum((mine * truth).sum(axis=0) / _positive((mine**2).sum(axis=0)), 0.0)
            error = ((truth - beta * mine) ** 2).sum(axis=0)
            better = error < best
            best[better], count[better], slope[better] = error[better], components, beta[better]
        return count, slope


def _positive(values: Floats) -> Floats:
    return np.asarray(np.maximum(values, 1e-12))


def _along(
    first: Floats,
    second: Floats,
    rest: Floats,
    train: Mask,
    asked: Mask,
    count: npt.NDArray[np.int64],
) -> Floats:
    """Return (M, T) the products along the leading pair of directions, for units asked."""
    a, b = first[train], second[train]
    a_asked, b_asked = first[asked], second[asked]
    found = np.empty((int(asked.sum()), rest.shape[1]))
    for target, size in enumerate(count.tolist()):
        moment = (a[:, :size] * rest[train, target][:, None]).T @ b[:, :size] / len(a)
        left, values, right = np.linalg.svd(moment)
        found[:, target] = (
            values[0] * (a_asked[:, :size] @ left[:, 0]) * (b_asked[:, :size] @ right[0])
        )
    return found


def _all_whitened(blocks: Mapping[str, npt.NDArray[Any]], train: Mask) -> dict[str, Floats]:
    return {name: _whitened(block, train) for name, block in blocks.items()}


def _whitened(block: npt.NDArray[Any], train: Mask) -> Floats:
    """Return the leading components (U, C ≤ 64) at unit variance over the training units."""
    x, every = standardise(block[train], block)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    most = min(COMPONENTS[-1], len(values))
    axes = vectors[:, ::-1][:, :most] / np.sqrt(np.maximum(values[::-1][:most], 1e-9))
    return np.asarray((every @ axes).clip(-LARGEST, LARGEST))
