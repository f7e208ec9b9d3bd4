"""What stands for frozen features missing at test: their mean, or a regression on the rest.

Everything is learnt from the training units of the fold in which a unit is tested. What a tested
unit lacks is never read: it is not in what is given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Fold, eigen

PENALTIES = np.logspace(-4, 4, 9)
"""α / N of the regression; with standardised columns the ends are next to none and all."""

MIN_UNITS = 10
"""Training units that a regression needs; with fewer the mean stands."""

Blocks = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def impute(folds: Sequence[Fold], known: Blocks, spoilt: Blocks, how: str) -> npt.NDArray[Any]:
    """Return features to predict from, (U, ΣD), the blocks side by side and their gaps filled.

    `mean`: the mean over the fold's training units. `regression`: for each pattern of present
    blocks, ridge from their columns to those of the missing ones, fitted on the training units that
    have all of them; one penalty for each missing block, of the least squared error over the fold's
    inner folds, its columns weighing alike. Where fewer than 10 units have them all, and where a
    unit has nothing at all, the mean stands.

    Args:
        folds: each unit is tested in at most one.
        known: modality → features (U, D) to learn from, a row NaN where a unit lacks it.
        spoilt: the same columns as they are at test, likewise.
        how: `mean` or `regression`.

    Returns:
        float32; rows of units that are never tested are NaN.
    """
    names = list(known)
    width = sum(known[name].shape[1] for name in names)
    out = np.full((len(known[names[0]]), width), np.nan, np.float32)
    for fold in folds:
        rows = np.flatnonzero(fold.testing)
        given = {name: np.array(spoilt[name][rows], dtype=np.float64) for name in names}
        lacks = {name: _lacks(block) for name, block in given.items()}
        for name in names:
            given[name][lacks[name]] = _mean(known[name][fold.training])
        if how == "regression":
            _regress(fold, known, given, lacks)
        out[rows] = np.concatenate([given[name] for name in names], axis=1)
    return out


def _lacks(block: npt.NDArray[Any]) -> Mask:
    """Return the units (U,) that lack a block."""
    return np.asarray(np.isnan(block).any(axis=1))


def _mean(block: npt.NDArray[Any]) -> Floats:
    has = ~_lacks(block)
    if not has.any():
        return np.zeros(block.shape[1])
    return np.asarray(block[has].mean(axis=0, dtype=np.float64))


def _regress(
    fold: Fold,
    known: Blocks,
    given: dict[str, Floats],
    lacks: Mapping[str, Mask],
) -> None:
    """Put regressions where means stand in what the fold's tested units have."""
    names = list(given)
    has = {name: ~_lacks(known[name]) for name in names}
    patterns = np.stack([lacks[name] for name in names], axis=1)
    for pattern in np.unique(patterns, axis=0):
        missing = [name for name, gone in zip(names, pattern, strict=True) if gone]
        present = [name for name in names if name not in missing]
        if not missing or not present:
            continue
        these = (patterns == pattern).all(axis=1)
        x_test = np.concatenate([given[name][these] for name in present], axis=1)
        for name in missing:
            units = fold.training & np.logical_and.reduce([has[m] for m in (*present, name)])
            if units.sum() < MIN_UNITS:
                continue
            x = np.concatenate([known[m][units] for m in present], axis=1, dtype=np.float64)
            y = known[name][units].astype(np.float64)
            given[name][these] = _predict(x, y, fold.inner[units], x_test)


def _predict(x: Floats, y: Floats, inner: npt.NDArray[np.int64], x_test: Floats) -> Floats:
    """Return ridge predictions (M, T) with the penalty of the least error over inner folds."""
    errors = np.zeros(len(PENALTIES))
    spread = y.std(axis=0)
    inverse = np.where(spread > 0, 1.0 / np.where(spread > 0, spread, 1.0), 0.0)
    judges = [number for number in np.unique(inner) if number >= 0 and (inner != number).any()]
    for number in judges:
        out = inner == number
        for place, guess in enumerate(_path(x[~out], y[~out], x[out], PENALTIES)):
            errors[place] += (((guess - y[out]) * inverse) ** 2).sum()
    # Of equal ones, and where no inner fold judges, the strongest.
    best = len(PENALTIES) - 1 - int(np.argmin(errors[::-1]))
    return _path(x, y, x_test, PENALTIES[[best]])[0]


def _path(x: Floats, y: Floats, x_test: Floats, penalties: Floats) -> list[Floats]:
    """Return the ridge predictions (M, T) of each penalty α / N; columns of x standardised."""
    centre, scale = x.mean(axis=0), x.std(axis=0)
    varies = scale > 1e-6 * np.abs(centre)
    inverse = np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
    train, test = (x - centre) * inverse, (x_test - centre) * inverse
    mean = y.mean(axis=0)
    number, width = train.shape
    if width <= number:
        values, vectors = eigen(train.T @ train)
        inner, outer = vectors.T @ (train.T @ (y - mean)), test @ vectors
    else:
        values, vectors = eigen(train @ train.T)
        inner, outer = vectors.T @ (y - mean), (test @ train.T) @ vectors
    # Rounding makes eigenvalues of a singular matrix slightly negative.
    values = np.maximum(values, 0.0)
    return [
        np.asarray((outer / (values + number * one)) @ inner + mean) for one in penalties.tolist()
    ]
