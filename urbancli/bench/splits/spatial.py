"""Spatial groups: squares of a size chosen for the label, folds of neighbouring squares."""

import numpy as np
import shapely

from urbancli.bench.splits.base import (
    GROUP_SIZES_M,
    Floats,
    NotScored,
    Split,
    Units,
    choose_group_m,
    correlation_range,
    equal_runs,
    hilbert_ranks,
)
from urbancli.grid import Grid

SEEDS = None
"""The user's own seed."""


def make(units: Units, target: Floats, seed: int, folds: int) -> Split:
    """Return the split of units: a size for their groups, and runs of groups as folds.

    Args:
        units: with a value and enough coverage.
        target: (U, K) see `correlation_range`.
        seed: shifts where along the curve the first fold starts.
        folds: wanted number of folds.

    Raises:
        NotScored: there are no two groups.
    """
    if len(units) < 2:
        raise NotScored(f"{len(units)} units cannot be split: fetch a larger area")
    x, y = shapely.get_coordinates(shapely.centroid(units.shape)).T
    cells = {size: Grid(units.grid.epsg, size).tile_at(x, y) for size in GROUP_SIZES_M}
    range_m, found = correlation_range(x, y, target)
    diameter_m = float(np.median(2 * np.sqrt(shapely.area(units.shape) / np.pi)))
    numbers = {size: len(np.unique(cell, axis=0)) for size, cell in cells.items()}
    group_m, warnings = choose_group_m(range_m, found, diameter_m, numbers)
    grid = Grid(units.grid.epsg, group_m)
    ids = grid.tile_ids(cells[group_m]).to_numpy(zero_copy_only=False)
    order = hilbert_ranks(cells[group_m])
    counts = np.bincount(order)
    if len(counts) < 2:
        raise NotScored(
            f"all {len(units)} units lie in one square of {group_m} m: fetch a larger area"
        )
    shift = int(np.random.default_rng(seed).integers(len(counts)))
    runs = np.roll(equal_runs(np.roll(counts, -shift), folds), shift)
    return Split(
        "spatial", ids, order, runs[order], None, True, 0.0, group_m, range_m, seed, warnings
    )
