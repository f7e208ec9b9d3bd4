"""CityRep's protocol (arXiv 2605.26036): 10 × 10 spatial blocks, seeds 42, 24, 7, 0 and 100.

The blocks divide the extent of the units, each unit belongs to that of its centroid, and blocks are
drawn to be learnt from, to choose settings, or to be tested. How many of each our reference does
not state [?]: 60, 20 and 20 of 100. Neighbouring blocks touch, and nothing is removed. Where a
class would be missing from what is learnt or tested, the blocks are drawn again.
"""

import numpy as np
import shapely

from urbancli.bench.splits.base import (
    Floats,
    Integers,
    NotScored,
    Split,
    Units,
    classes_of,
    correlation_range,
    hilbert_ranks,
)

SEEDS = (42, 24, 7, 0, 100)

SIDE = 10
TESTED, CHOOSING = 0.2, 0.2
"""Shares of the blocks with units."""

DRAWS = 200
"""So often blocks are drawn, where a class would be missing."""


def make(units: Units, target: Floats, seed: int, folds: int) -> Split:
    """Return the split: fold 0 is tested, −1 is learnt from or chooses.

    Args:
        units: with a value and enough coverage.
        target: (U, K) see `correlation_range`.
        seed: one of the protocol's.
        folds: not used: there is one.

    Raises:
        NotScored: the units lie in fewer than five blocks.
    """
    x, y = shapely.get_coordinates(shapely.centroid(units.shape)).T
    spans = np.array([np.ptp(x), np.ptp(y)])
    corner = np.array([x.min(), y.min()])
    steps = np.where(spans > 0, spans / SIDE, 1.0)
    cells = np.minimum((np.column_stack([x, y]) - corner) // steps, SIDE - 1).astype(np.int64)
    order = hilbert_ranks(cells)
    blocks = int(order.max()) + 1
    if blocks < 5:
        raise NotScored(f"its units lie in {blocks} of 10 × 10 blocks: fetch a larger area")
    group_m = round(float(steps.max()))
    ids = np.array(
        [f"{units.grid.epsg}_{group_m}_{column}_{row}" for column, row in cells.tolist()],
        dtype=object,
    )
    part, told = _drawn(order, blocks, classes_of(target, ids), seed)
    return Split(
        "cityrep", ids, order, np.where(part == 0, 0, -1), part == 1, False, 0.0, group_m,
        correlation_range(x, y, target)[0], seed, told,
    )  # fmt: skip


def _drawn(
    order: Integers, blocks: int, classes: Integers | None, seed: int
) -> tuple[Integers, tuple[str, ...]]:
    """Return the part (U,) of each unit: 0 tested, 1 choosing, 2 learnt from; and what to say."""
    rng = np.random.default_rng(seed)
    tested, choosing = (max(1, round(share * blocks)) for share in (TESTED, CHOOSING))
    best, least = np.zeros(0, dtype=np.int64), -1
    for draw in range(DRAWS):
        drawn = np.full(blocks, 2, dtype=np.int64)
        shuffled = rng.permutation(blocks)
        drawn[shuffled[:tested]] = 0
        drawn[shuffled[tested : tested + choosing]] = 1
        part = drawn[order]
        missing = 0 if classes is None else _missing(classes, part)
        if least < 0 or missing < least:
            best, least = part, missing
        if not missing:
            again = f"blocks were drawn {draw + 1} times until every class was in train and test"
            return part, (again,) if draw else ()
    return best, (f"{least} classes are missing from what is learnt or tested, in every draw",)


def _missing(classes: Integers, part: Integers) -> int:
    names = set(classes[classes >= 0].tolist())
    return sum(len(names - set(classes[part == one].tolist())) for one in (0, 2))
