"""Folds drawn at random, as most papers have them: what flatters where neighbours are alike.

Nothing is removed. Classes are dealt evenly to the folds. Groups are those of `spatial`, so that
intervals still know that neighbours are not independent, and settings are still chosen on them.
"""

from dataclasses import replace

import numpy as np

from urbancli.bench.splits import spatial
from urbancli.bench.splits.base import Floats, Integers, Split, Units, classes_of

SEEDS = None
"""The user's own seed."""


def make(units: Units, target: Floats, seed: int, folds: int) -> Split:
    """Return random folds of like size, stratified by class; see `spatial.make`.

    Raises:
        NotScored: there are no two groups.
    """
    split = spatial.make(units, target, seed, folds)
    fold = deal(classes_of(target, split.group), len(units), folds, seed)
    return replace(split, kind="random", fold=fold, apart=False, warnings=())


def deal(classes: Integers | None, number: int, parts: int, seed: int) -> Integers:
    """Return the part (U,) of each unit, 0 … parts − 1: of like sizes, within each class too.

    Args:
        classes: (U,), or None.
        number: U.
        parts: how many.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(number)
    if classes is not None:
        # In random order within a class, the classes one after another.
        order = order[np.argsort(classes[order], kind="stable")]
    found = np.empty(number, dtype=np.int64)
    found[order] = np.arange(number) % parts
    return found
