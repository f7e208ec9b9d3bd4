"""What products of modalities tell: probes of rank one over their principal components.

Predicted is Σ β (u·a)(v·b), over pairs of blocks, of what an additive probe leaves over, r: a and b
are the leading principal components of two blocks (or twice of one), standardised, at unit
variance; u and v the leading singular vectors of the mean of r a bᵀ over the training units; each
product less its mean. The number of components of a pair and the β ≥ 0 of all pairs together come
from predictions on the inner folds, so that where there is no product β is about 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Fold, Integers, in_threads, standardise

COMPONENTS = (8, 16, 32, 64)
"""Principal components per modality that are chosen from."""

LARGEST = 4.0
"""Of a principal component, in standard deviations: of two heavy tails the product would be all
that a fit sees."""

Floats = npt.NDArray[np.float64]
Pair = tuple[str, str]


class Products:
    """The blocks of a sitting, decomposed once for every training set.

    Args:
        folds: of the exams.
        blocks: name → features (U, D), NaN where missing.
        left_over: per fold (U, T), what an additive probe leaves of its training units.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        blocks: Mapping[str, npt.NDArray[Any]],
        left_over: Sequence[Floats],
    ) -> None:
        self._folds = folds
        self._rest = [
            left - left[fold.learnt()].mean(axis=0)
            for fold, left in zip(folds, left_over, strict=True)
        ]
        self._judged = [fold.judgements() for fold in folds]
        # Of every fold (learnt from, asked): its inner ones, and last what it is tested on.
        self._sets = [
            [*pairs, (fold.learnt(), fold.tested())]
            for fold, pairs in zip(folds, self._judged, strict=True)
        ]
        every = [
            (fold, number) for fold, sets in enumerate(self._sets) for number in range(len(sets))
        ]
        tasks = [
            (x, self._sets[fold][number][0]) for x in blocks.values() for fold, number in every
        ]
        found = iter(in_threads(_whitened, tasks))
        self._scores = {
            (name, fold, number): next(found) for name in blocks for fold, number in every
        }
        self._known: dict[Pair, list[tuple[Floats, Floats]]] = {}

    def predict(self, pairs: Sequence[Pair]) -> Floats:
        """Return what products of pairs tell of what is left over, (U, T): each unit in the fold
        that tests it; 0 without pairs.

        Args:
            pairs: of names; twice the same name for a block's own products.
        """
        from scipy.optimize import nnls

        out = np.zeros_like(self._rest[0])
        for pair in pairs:
            if pair not in self._known:
                tasks = [(number, pair) for number in range(len(self._folds))]
                self._known[pair] = in_threads(self._along, tasks)
        for number, fold in enumerate(self._folds if pairs else ()):
            judging = np.concatenate([rows for _, rows in self._judged[number]])
            truth = self._rest[number][judging]
            inner, tested = zip(*(self._known[pair][number] for pair in pairs), strict=True)
            for target in range(out.shape[1]):
                columns = np.column_stack([one[judging, target] for one in inner])
                slopes = nnls(columns, truth[:, target])[0]
                told = np.column_stack([one[:, target] for one in tested])
                out[fold.testing, target] = told @ slopes
        return np.asarray(out)

    def _along(self, number: int, pair: Pair) -> tuple[Floats, Floats]:
        """Return products along the leading directions: of judging units (U, T) as inner folds
        have them, and of tested ones (M, T); both with the numbers of components judged best."""
        rest = self._rest[number]
        judging = np.concatenate([rows for _, rows in self._judged[number]])
        truth = rest[judging]
        inner = np.zeros((len(COMPONENTS), *rest.shape))
        for one, (learnt, asked) in enumerate(self._sets[number][:-1]):
            a, b = (self._scores[name, number, one] for name in pair)
            inner[:, asked] = _directions(a, b, rest, learnt, asked)
        mine = inner[:, judging]
        slope = np.maximum((mine * truth).sum(axis=1), 0.0) / np.maximum(
            (mine**2).sum(axis=1), 1e-12
        )
        best = ((truth - slope[:, None] * mine) ** 2).sum(axis=1).argmin(axis=0)
        last = len(self._sets[number]) - 1
        a, b = (self._scores[name, number, last] for name in pair)
        tested = _directions(a, b, rest, *self._sets[number][-1])
        every = np.arange(rest.shape[1])
        return np.asarray(inner[best, :, every].T), np.asarray(tested[best, :, every].T)


def _directions(a: Floats, b: Floats, rest: Floats, learnt: Integers, asked: Integers) -> Floats:
    """Return the products along the leading pair of directions, for units asked.

    Args:
        a: (U, C) scores of one block.
        b: (U, C) of another.
        rest: (U, T) what is left over.
        learnt: rows that say which directions.
        asked: rows.

    Returns:
        For each of `COMPONENTS` (K, M, T), less the mean over the units learnt from.
    """
    found = np.empty((len(COMPONENTS), len(asked), rest.shape[1]))
    known, other = a[learnt], b[learnt]
    for target in range(rest.shape[1]):
        moment = (known * rest[learnt, target][:, None]).T @ other / len(learnt)
        for row, size in enumerate(COMPONENTS):
            u, v = _leading(moment[:size, :size])
            mean = float(((known[:, : len(u)] @ u) * (other[:, : len(v)] @ v)).mean())
            found[row, :, target] = (a[asked, : len(u)] @ u) * (b[asked, : len(v)] @ v) - mean
    return found


def _leading(matrix: Floats) -> tuple[Floats, Floats]:
    """Return the leading left singular vector of a matrix, times its value, and the right one."""
    vectors = np.linalg.eigh(matrix.T @ matrix)[1]
    right = vectors[:, -1]
    # Of either sign, but the product has one.
    return matrix @ right, right


def _whitened(block: npt.NDArray[Any], learnt: Integers) -> Floats:
    """Return the leading components (U, C ≤ 64) at unit variance over the units learnt from."""
    from scipy.linalg import eigh

    x, every = standardise(block[learnt], block)
    wide = x.shape[1] > len(x)
    small = (x @ x.T if wide else x.T @ x) / len(x)
    last = len(small) - 1
    most = min(COMPONENTS[-1], len(small))
    values, vectors = eigh(small, subset_by_index=[last - most + 1, last], overwrite_a=True)
    values, vectors = values[::-1], vectors[:, ::-1]
    if wide:
        vectors = x.T @ vectors / np.sqrt(np.maximum(values * len(x), 1e-9))
    axes = vectors / np.sqrt(np.maximum(values, 1e-9))
    return np.asarray((every @ axes).clip(-LARGEST, LARGEST))
