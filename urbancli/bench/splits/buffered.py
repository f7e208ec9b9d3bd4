"""Spatial folds with a buffer: what lies within the label's correlation range is not learnt from.

The folds are those of `spatial`. Beside units that touch, training units nearer to a test unit than
the label's correlation range leave the fold, so that no neighbour by correlation is left; where
that would leave a fold less than a third of its training units, the buffer is halved until it does
not, and that is said.
"""

from dataclasses import replace

import numpy as np

from urbancli.bench.splits import spatial
from urbancli.bench.splits.base import Floats, Split, Units, near

SEEDS = None
"""The user's own seed."""

KEPT = 1 / 3
"""Share of a fold's training units that a buffer must leave."""

LEAST_M = 100.0
"""Shorter buffers are none: units that touch leave anyway."""


def make(units: Units, target: Floats, seed: int, folds: int) -> Split:
    """Return the spatial split with a buffer, metres, between footprints; see `spatial.make`.

    Raises:
        NotScored: there are no two groups.
    """
    split = spatial.make(units, target, seed, folds)
    buffer_m = split.range_m
    while buffer_m >= LEAST_M and _least_kept(units, split, buffer_m) < KEPT:
        buffer_m /= 2
    if buffer_m < LEAST_M:
        buffer_m = 0.0
    warnings = split.warnings
    if buffer_m < split.range_m:
        warnings += (
            f"the buffer is {buffer_m:,.0f} m, not the label's correlation range of "
            f"{split.range_m:,.0f} m: too few training units would be left",
        )
    return replace(split, kind="buffered", buffer_m=buffer_m, warnings=warnings)


def _least_kept(units: Units, split: Split, buffer_m: float) -> float:
    """Return the least share of its training units that a fold keeps."""
    close = near(units, buffer_m)
    shares = []
    for fold in range(split.folds):
        test = split.fold == fold
        touched = np.asarray(close[np.flatnonzero(test)].sum(axis=0)).ravel() > 0
        shares.append(float((~test & ~touched).sum() / max((~test).sum(), 1)))
    return min(shares)
