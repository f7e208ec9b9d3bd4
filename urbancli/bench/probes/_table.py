"""Standardised features of some units in float32, without a copy of them where they are many."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Integers, Scaling

Singles = npt.NDArray[np.float32]

HELD_BYTES = 64 << 20
"""A table up to this size is kept; of a larger one each part is made when it is asked for."""

PART_BYTES = 4 << 20
"""What is made at a time: it stays in the caches of a core."""


class Table:
    """Features (N, D) of the units in `rows`, standardised, missing ones 0.

    Args:
        x: (U, D), NaN where missing.
        rows: (N,) of the units.
        own: how the training units are scaled.
    """

    def __init__(self, x: npt.NDArray[Any], rows: Integers, own: Scaling) -> None:
        self.shape = len(rows), x.shape[1]
        self._x, self._rows = x, rows
        self._mean, self._inverse = own.mean, own.inverse.astype(np.float32)
        self._kept: Singles | None = None
        if 4 * len(rows) * x.shape[1] <= HELD_BYTES:
            self._kept = self._made(x[rows])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, places: Integers) -> Singles:
        """Return the features (n, D) of units by their places in `rows`."""
        if self._kept is not None:
            return self._kept[places]
        return self._made(self._x[self._rows[places]])

    def parts(self) -> Iterator[tuple[slice, Singles]]:
        """Yield the whole table in parts, each with its place."""
        if self._kept is not None:
            yield slice(0, len(self)), self._kept
            return
        most = max(1, PART_BYTES // (4 * self.shape[1]))
        for start in range(0, len(self), most):
            part = slice(start, min(start + most, len(self)))
            yield part, self._made(self._x[self._rows[part]])

    def _made(self, x: npt.NDArray[Any]) -> Singles:
        # The mean is as exact as the features: what is lost of it is the same for all units.
        kind = np.result_type(x.dtype, np.float32)
        made: Singles = (x - self._mean.astype(kind)).astype(np.float32, copy=False)
        made *= self._inverse
        if np.isnan(made.sum()):
            np.nan_to_num(made, copy=False)
        return made
