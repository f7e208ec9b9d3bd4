"""UrbanFusion's protocol (arXiv 2510.13774): random 60/20/20 with seed 42.

Stratified for classifications; by unit, which for ZIP tasks is by ZIP. A fifth is tested, a fifth
chooses the probe's settings, and what was chosen is fitted on the other three fifths alone. Nothing
is removed. Which units are drawn is ours: the paper's own generator is not known [?].

Deviation: the features of a ZIP are the mean over its tiles; the paper fits the probe on locations
and averages their predictions.
"""

from dataclasses import replace

import numpy as np

from urbancli.bench.splits import spatial
from urbancli.bench.splits.base import Floats, NotScored, Split, Units, classes_of
from urbancli.bench.splits.random import deal

SEEDS = (42,)

FIFTHS = 5


def make(units: Units, target: Floats, seed: int, folds: int) -> Split:
    """Return the split: fold 0 is tested, −1 is learnt from or chooses.

    Args:
        units: with a value and enough coverage.
        target: (U, K) see `correlation_range`.
        seed: the protocol's.
        folds: not used: there is one.

    Raises:
        NotScored: there are fewer than five units, or no two groups.
    """
    if len(units) < FIFTHS:
        raise NotScored(f"{len(units)} units cannot be split 60/20/20: fetch a larger area")
    split = spatial.make(units, target, seed, FIFTHS)
    part = deal(classes_of(target, split.group), len(units), FIFTHS, seed)
    return replace(
        split,
        kind="urbanfusion",
        fold=np.where(part == 0, 0, -1),
        validation=part == 1,
        apart=False,
        warnings=(),
    )
