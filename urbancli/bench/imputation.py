"""What stands for frozen features missing at test: their mean, or a regression on the rest.

Everything is learnt from the training units of the fold in which a unit is tested. What a tested
unit lacks is never read: it is not in what is given.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Fold, eigen

COMPONENTS = 64
"""Principal components by which a block of features enters and leaves the regression, at most."""

PENALTIES = np.logspace(-4, 4, 9)
"""α / N of the regression; with standardised columns the ends are next to none and all."""

MIN_UNITS = 10
"""Training units that a regression needs; with fewer the mean stands."""

SINGLE_THREADED = 5000
"""Up to so many units one thread is as fast as several, and on busy cores many times faster."""

Blocks = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Imputer:
    """Fills gaps in frozen features of the units of a split; what it learns serves every gap."""

    def __init__(self, folds: Sequence[Fold], known: Blocks) -> None:
        """Take what may be learnt from.

        Args:
            folds: each unit is tested in at most one.
            known: modality → features (U, D), a row NaN where a unit lacks it; of each fold only
                its training units are read.
        """
        self._folds, self._known = folds, known
        self._views: dict[int, dict[str, _View]] = {}

    def fill(self, spoilt: Blocks, how: str) -> npt.NDArray[np.float32]:
        """Return features to predict from, (U, ΣD), the blocks side by side and their gaps filled.

        `mean`: the mean over the fold's training units. `regression`: what the present blocks of a
        unit let expect of the missing ones. For each pattern of present blocks and each missing
        one: ridge between their 64 leading principal components (of standardised columns; more
        would cost hours on a city and carry little), fitted on the training units that have all of
        these blocks, with the penalty of the least squared error over the fold's inner folds. Where
        fewer than 10 units have them all, and where a unit has nothing at all, the mean stands.

        Args:
            spoilt: the columns that are known, as they are at test; NaN where a unit lacks a block.
            how: `mean` or `regression`.

        Returns:
            Rows of units that are never tested are NaN.
        """
        from threadpoolctl import threadpool_limits

        names = list(self._known)
        size = len(self._known[names[0]])
        filled = []
        with threadpool_limits(1 if size <= SINGLE_THREADED else None, "blas"):
            for number, fold in enumerate(self._folds):
                rows = np.flatnonzero(fold.testing)
                given = {name: np.array(spoilt[name][rows], dtype=np.float64) for name in names}
                lacks = {name: _lacks(block) for name, block in given.items()}
                for name in names:
                    given[name][lacks[name]] = _mean(self._known[name][fold.training])
                if how == "regression":
                    _regress(fold.inner[fold.training], self._of(number), given, lacks)
                filled.append((rows, np.concatenate([given[name] for name in names], axis=1)))
        out = np.full((size, filled[0][1].shape[1]), np.nan, np.float32)
        for rows, values in filled:
            out[rows] = values
        return out

    def _of(self, number: int) -> dict[str, "_View"]:
        """Return the views of a fold's training units."""
        if number not in self._views:
            training = self._folds[number].training
            self._views[number] = {n: _view(block[training]) for n, block in self._known.items()}
        return self._views[number]


class _View(NamedTuple):
    """A block of features of N training units, by its principal components.

    Attributes:
        mean: (D,) of the units that have it.
        scale: (D,) deviation, 0 where a column does not vary.
        axes: (D, R) orthonormal.
        scores: (N, R) of the units; whatever where a unit lacks it.
        has: (N,) which units have it.
    """

    mean: Floats
    scale: Floats
    axes: Floats
    scores: Floats
    has: Mask

    def scores_of(self, block: Floats) -> Floats:
        """Return the components (M, R) of other units' features (M, D)."""
        inverse = np.where(self.scale > 0, 1.0 / np.where(self.scale > 0, self.scale, 1.0), 0.0)
        return np.asarray(((block - self.mean) * inverse) @ self.axes)

    def features_of(self, scores: Floats) -> Floats:
        """Return the features (M, D) that components (M, R) stand for."""
        return np.asarray(self.mean + (scores @ self.axes.T) * self.scale)


def _lacks(block: npt.NDArray[Any]) -> Mask:
    """Return the units (U,) that lack a block."""
    return np.asarray(np.isnan(block).any(axis=1))


def _mean(block: npt.NDArray[Any]) -> Floats:
    """Return the mean (D,) of the units (N, D) that have a block; zero where nobody has it."""
    has = ~_lacks(block)
    if not has.any():
        return np.zeros(block.shape[1])
    return np.asarray(block[has].mean(axis=0, dtype=np.float64))


def _view(block: npt.NDArray[Any]) -> _View:
    """Return the view of a block (N, D) of training units; without axes where nobody has it."""
    has = ~_lacks(block)
    values = block.astype(np.float64)
    width = values.shape[1]
    if not has.any():
        nothing = np.zeros((len(values), 0))
        return _View(np.zeros(width), np.zeros(width), np.zeros((width, 0)), nothing, has)
    mean, scale = _mean(block), values[has].std(axis=0)
    scale[scale <= 1e-6 * np.abs(mean)] = 0.0
    plain = _View(mean, scale, np.eye(width), values, has)
    standard = plain.scores_of(np.where(has[:, None], values, mean))
    wide = width > len(standard)
    gram = standard @ standard.T if wide else standard.T @ standard
    sizes, vectors = eigen(gram)
    kept = np.flatnonzero(sizes > 1e-9 * max(sizes[-1], 1e-300))[-COMPONENTS:]
    axes = vectors[:, kept]
    if wide:
        axes = standard.T @ axes / np.sqrt(sizes[kept])
    return _View(mean, scale, axes, standard @ axes, has)


def _regress(
    inner: npt.NDArray[np.int64],
    views: Mapping[str, _View],
    given: dict[str, Floats],
    lacks: Mapping[str, Mask],
) -> None:
    """Put what the rest lets expect where means stand in features of a fold's tested units.

    Args:
        inner: (N,) inner folds of the training units.
        views: of these.
        given: modality → (M, D) of the tested units, changed in place.
        lacks: modality → (M,) where `given` is a mean.
    """
    names = list(views)
    scores = {name: views[name].scores_of(given[name]) for name in names}
    patterns = np.stack([lacks[name] for name in names], axis=1)
    for pattern in np.unique(patterns, axis=0):
        missing = [name for name, gone in zip(names, pattern, strict=True) if gone]
        present = [name for name in names if name not in missing]
        if not missing or not present:
            continue
        these = (patterns == pattern).all(axis=1)
        x_test = np.concatenate([scores[name][these] for name in present], axis=1)
        for name in missing:
            units = np.logical_and.reduce([views[m].has for m in (*present, name)])
            if units.sum() < MIN_UNITS:
                continue
            x = np.concatenate([views[m].scores[units] for m in present], axis=1)
            guess = _predict(x, views[name].scores[units], inner[units], x_test)
            given[name][these] = views[name].features_of(guess)


def _predict(x: Floats, y: Floats, inner: npt.NDArray[np.int64], x_test: Floats) -> Floats:
    """Return ridge predictions (M, T) with one penalty, of the least error over inner folds."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    runs = [inner == number for number in np.unique(inner[inner >= 0])]
    gram, cross = x.T @ x, x.T @ y
    errors = np.zeros(len(PENALTIES))
    for out in runs if len(runs) > 1 else ():
        own, aimed = x[out].T @ x[out], x[out].T @ y[out]
        left = len(x) - int(out.sum())
        values, vectors = eigen(gram - own)
        turned = vectors.T @ (cross - aimed)
        own, aimed = vectors.T @ own @ vectors, vectors.T @ aimed
        for place, penalty in enumerate(PENALTIES.tolist()):
            weights = turned / (np.maximum(values, 0.0) + left * penalty)[:, None]
            errors[place] += (weights * (own @ weights - 2 * aimed)).sum()
    # Of equal ones, and where no inner folds judge, the strongest.
    penalty = PENALTIES[len(PENALTIES) - 1 - int(np.argmin(errors[::-1]))]
    weights = np.linalg.solve(gram + len(x) * penalty * np.eye(len(gram)), cross)
    return np.asarray((x_test - x_mean) @ weights + y_mean)
