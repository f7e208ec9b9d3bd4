"""Sums of products of features and targets: what a least-squares fit needs of any set of units.

Sets of units add up, so the folds of a split share one pass over the features. A missing value
stands for the mean of the training units, whichever these are: with x⁰ the features, 0 where
missing, k whether they are known, and m a mean,

    Σ (x⁰ − k∘m)(x⁰ − k∘m)ᵀ = Σ x⁰x⁰ᵀ − Σ x⁰(k∘m)ᵀ − Σ (k∘m)x⁰ᵀ + mmᵀ ∘ Σ kkᵀ
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Floats, Integers, Scaling, chunks


@dataclass(frozen=True)
class Moments:
    """Sums over n units of x⁰ (`x`), k, x⁰x⁰ᵀ (`xx`), x⁰kᵀ (`xk`), kkᵀ (`kk`), and with targets y.

    `xk` and `kk` are None where nothing is missing: then they follow from the others.
    """

    n: int
    x: Floats
    k: Floats
    xx: Floats
    xk: Floats | None
    kk: Floats | None
    xy: Floats
    ky: Floats
    y: Floats
    yy: Floats

    def __add__(self, other: "Moments") -> "Moments":
        """Return the sums over both sets of units."""
        return self._with(other, np.add)

    def __sub__(self, other: "Moments") -> "Moments":
        """Return the sums over the units that are not in the other, a part of these."""
        return self._with(other, np.subtract)

    def _with(self, other: "Moments", combine: Any) -> "Moments":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        sums: list[Any] = [None if mine is None else combine(mine, its) for mine, its in pairs]
        return Moments(int(sums[0]), *sums[1:])

    def about(self, mean: Floats, target_mean: Floats) -> tuple[Floats, Floats, Floats]:
        """Return Σ zzᵀ (D, D), Σ z(y − ȳ)ᵀ (D, T) and Σ (y − ȳ)² (T,), where z = x⁰ − k∘m.

        Args:
            mean: m (D,), ȳ (T,) with it: of any units, not only these.
            target_mean: ȳ (T,).
        """
        if self.xk is None or self.kk is None:
            turned = np.outer(self.x, mean)
            gram = self.xx - turned - turned.T + self.n * np.outer(mean, mean)
        else:
            turned = self.xk * mean
            gram = self.xx - turned - turned.T + np.outer(mean, mean) * self.kk
        cross = self.xy - mean[:, None] * self.ky - np.outer(self.x - mean * self.k, target_mean)
        return gram, cross, self.yy - 2 * target_mean * self.y + self.n * target_mean**2


def moments(x: npt.NDArray[Any], y: Floats, rows: Integers, frame: Scaling) -> Moments:
    """Return the moments of some units, a chunk at a time.

    Args:
        x: (N, D), NaN where missing.
        y: (N, T).
        rows: of the units, at least one.
        frame: brings columns to about mean 0 and deviation 1, so that sums keep their digits. Any
            frame gives the same fit: it is not what standardises.
    """
    total: Moments | None = None
    for part in chunks(rows, x.shape[1]):
        found = _sums(x[part], y[part], frame)
        total = found if total is None else total + found
    assert total is not None
    return total


def _sums(x: npt.NDArray[Any], target: Floats, frame: Scaling) -> Moments:
    framed = frame.of(x)
    known = (~np.isnan(x)).astype(np.float64) if frame.missing else None
    sums = target.sum(axis=0)
    return Moments(
        len(x),
        framed.sum(axis=0),
        np.full(x.shape[1], float(len(x))) if known is None else known.sum(axis=0),
        framed.T @ framed,
        None if known is None else framed.T @ known,
        None if known is None else known.T @ known,
        framed.T @ target,
        np.tile(sums, (x.shape[1], 1)) if known is None else known.T @ target,
        sums,
        (target**2).sum(axis=0),
    )
