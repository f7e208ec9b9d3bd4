"""Scores with intervals, from out-of-fold predictions.

Every score is a function of sums over units, so the sums are kept per spatial group, and deleting
a group is a subtraction: the delete-one-group jackknife costs no loop over units. Predictions stay
as they are when a group is deleted; the probe is not fitted again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
MIN_GROUPS = 10
MIN_UNITS = 50
MIN_GAIN = 0.02
"""Retention is given only where the full score beats the constant's by this much, surely."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Score = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Interval:
    """A score or a difference of scores.

    Attributes:
        value: of all units.
        low: lower end of the 95 % interval; None where `too_few`.
        high: upper end.
        n: units.
        groups: spatial groups.
        too_few: fewer than 10 groups or 50 units.
        warning: why it may be too narrow, or nothing.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    groups: int
    too_few: bool
    warning: str = ""


# --- scores as functions of sums -------------------------------------------------------------


def squares(truth: Floats, predicted: Floats, baseline: Floats, group: Integers) -> Floats:
    """Return Σ(y−ŷ)² and Σ(y−ȳ_train(fold))² of every group, (G, 2).

    Args:
        truth: (N,) y.
        predicted: (N,) ŷ, out of fold.
        baseline: (N,) mean of y over the training units of the unit's fold.
        group: (N,) numbers 0 … G − 1.
    """
    errors = (truth - predicted) ** 2, (truth - baseline) ** 2
    return np.column_stack([np.bincount(group, weights=part) for part in errors])


def r_squared(sums: Floats) -> Floats:
    """Return 1 − Σ(y−ŷ)² / Σ(y−ȳ_train)² of sums (…, 2)."""
    return np.asarray(1.0 - sums[..., 0] / sums[..., 1])


def confusion(truth: Integers, predicted: Integers, group: Integers, classes: int) -> Floats:
    """Return how often class i was called j in every group, (G, classes, classes)."""
    number = int(group.max()) + 1
    flat = (group * classes + truth) * classes + predicted
    counts = np.bincount(flat, minlength=number * classes**2)
    return counts.reshape(number, classes, classes).astype(np.float64)


def macro_f1(counts: Floats) -> Floats:
    """Return the mean over classes of 2·TP / (true + called) of confusions (…, classes, classes).

    A class that neither occurs nor is called has no F1 and is left out of the mean.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(axis=-1) + counts.sum(axis=-2)
    f1 = 2 * hits / np.maximum(total, 1e-300)
    return np.asarray(f1.sum(axis=-1) / (total > 0).sum(axis=-1))


# --- intervals -------------------------------------------------------------------------------


def deletions(parts: Floats, score: Score) -> Floats:
    """Return the score without each group, (G,); `parts` are its sums per group, (G, …)."""
    return score(parts.sum(axis=0) - parts)


def interval(parts: Floats, score: Score, n: int) -> Interval:
    """Return a score with its jackknife-t interval.

    θ ± t₀.₉₇₅(G−1) · √((G−1)/G · Σ(θ₍g₎ − mean θ₍·₎)²), θ₍g₎ the score without group g (Efron and
    Tibshirani 1993, chapter 11, with groups instead of units, as in Busing et al. 1999 but
    unweighted).

    Args:
        parts: sums per group, (G, …).
        score: function of sums.
        n: units.
    """
    value = float(score(parts.sum(axis=0)))
    return _jackknife(value, parts, lambda sums: score(sums), n)


def difference(first: Floats, second: Floats, score: Score, n: int) -> Interval:
    """Return the score of `first` minus that of `second`, paired: the same groups go at a time."""
    both = np.stack([first, second], axis=1)

    def gap(sums: Floats) -> Floats:
        pair = np.moveaxis(sums, -first.ndim, 0)
        return score(pair[0]) - score(pair[1])

    return _jackknife(float(gap(both.sum(axis=0))), both, gap, n)


def _jackknife(value: float, parts: Floats, score: Score, n: int) -> Interval:
    from scipy import stats

    groups = len(parts)
    if groups < MIN_GROUPS or n < MIN_UNITS:
        return Interval(value, None, None, n, groups, True)
    without = deletions(parts, score)
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    reach = float(stats.t.ppf((1 + LEVEL) / 2, groups - 1) * error)
    return Interval(value, value - reach, value + reach, n, groups, False)


# --- retention -------------------------------------------------------------------------------


def retention(dropped: float, constant: float, full: float, gain: Interval) -> float | None:
    """Return (s_drop − s_constant) / (s_full − s_constant), or None where it says nothing.

    Args:
        dropped: score with a modality missing.
        constant: score of the constant.
        full: score with everything.
        gain: full minus constant, with its interval.
    """
    if gain.low is None or gain.low <= MIN_GAIN:
        return None
    return (dropped - constant) / (full - constant)


def retention_means(
    scores: Sequence[tuple[float, float, float]],
) -> tuple[float, float, int] | None:
    """Return (ratio of means, mean of ratios, n) of (dropped, constant, full) triples, or None.

    The ratio of means is the papers' form; the triples are those whose retention is defined.
    """
    if not scores:
        return None
    kept, possible = (np.array(scores) - np.array(scores)[:, 1:2])[:, [0, 2]].T
    return float(kept.mean() / possible.mean()), float((kept / possible).mean()), len(scores)
