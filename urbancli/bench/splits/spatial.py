"""Spatial groups: squares of a size chosen for the label, folds of neighbouring squares.

The curve through the squares is cut into as many runs as there are folds. Where that leaves a class
in no training fold but one's own, it is cut elsewhere, else into more and shorter runs that are
dealt to the folds in turn; a square is never in two folds.
"""

from collections.abc import Iterator

import numpy as np
import shapely

from urbancli.bench.splits.base import (
    GROUP_SIZES_M,
    Floats,
    Integers,
    NotScored,
    Split,
    Units,
    choose_group_m,
    classes_of,
    correlation_range,
    equal_runs,
    hilbert_ranks,
    vanishing,
)
from urbancli.grid import Grid

SEEDS = None
"""The user's own seed."""

STARTS = 16
"""Other starts of the first fold that are tried, where a class would vanish."""

MOST_RUNS = 8
"""Runs of a fold, at most, where one does not do."""


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
    if order.max() < 1:
        raise NotScored(
            f"all {len(units)} units lie in one square of {group_m} m: fetch a larger area"
        )
    fold, told = _cut(order, classes_of(target, ids), seed, folds)
    return Split(
        "spatial", ids, order, fold, None, True, 0.0, group_m, range_m, seed,
        (*warnings, *told),
    )  # fmt: skip


def _cut(
    order: Integers, classes: Integers | None, seed: int, folds: int
) -> tuple[Integers, tuple[str, ...]]:
    """Return the fold (U,) of each unit, and what must be said: of all cuts the first that does."""
    cuts = _cuts(np.bincount(order), seed, folds)
    first, _ = next(cuts)
    if classes is None or not (lost := vanishing(classes, first[order])):
        return first[order], ()
    best, least, how = first, lost, ""
    for runs, text in cuts:
        count = vanishing(classes, runs[order])
        if count < least:
            best, least, how = runs, count, text
        if not count:
            break
    told = (
        [f"folds are cut {how}: else {_counted(lost)} would stand in one fold alone"] if how else []
    )
    if least:
        told.append(
            f"however folds are cut, {_counted(least)} would stand in one fold alone, where no "
            "other can teach it"
        )
    return best[order], tuple(told)


def _counted(classes: int) -> str:
    return f"{classes} class{'es' if classes != 1 else ''}"


def _cuts(counts: Integers, seed: int, folds: int) -> Iterator[tuple[Integers, str]]:
    """Yield folds (G,) of groups in order: the usual cut, other starts, then shorter runs dealt."""
    rng = np.random.default_rng(seed)
    shift = int(rng.integers(len(counts)))
    yield np.roll(equal_runs(np.roll(counts, -shift), folds), shift), ""
    for other in rng.permutation(len(counts))[:STARTS].tolist():
        yield np.roll(equal_runs(np.roll(counts, -other), folds), other), "at another start"
    for parts in range(2, MOST_RUNS + 1):
        runs = np.roll(equal_runs(np.roll(counts, -shift), folds * parts), shift) % folds
        yield (
            np.unique(runs, return_inverse=True)[1].astype(np.int64),
            f"into {folds * parts} runs dealt in turn",
        )
