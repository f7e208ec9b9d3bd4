"""Scores with intervals, from out-of-fold predictions.

Every score is a function of sums over units, so the sums are kept per spatial group, and deleting
a group is a subtraction: the delete-one-group jackknife costs no loop over units. Predictions stay
as they are when a group is deleted; the probe is not fitted again.

What an interval is about (the estimand): the score that is expected over cities of this law, fresh
draws of its fields on a city of this size and design, the probe fitted anew in each. The method is
given: it is the features that it is. What its own training adds is `over_seeds`.

The jackknife alone is too sure of itself (`benchmarks.coverage`), for two reasons. Groups next to
each other are alike; and in another city the probe would have learnt from other groups too, of
which predictions that stay as they are know nothing. So its variance is multiplied by

    f · (1 + a + c · f / G)        G groups; f: `resemblance`; a, c: `LEARNING`

f is what the label's correlation range makes of sums over neighbouring squares; G / f is how many
independent groups there are as it were. a and c are the smallest round numbers that held in
simulated cities of every kind tried: strong and weak labels, few and many features, noise that is
white or a field. Where they do not suffice the interval says so: `validity.warning`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.bench import validity

LEVEL = 0.95
MIN_GROUPS = 10
MIN_UNITS = 50
MIN_GAIN = 0.02
"""Retention is given only where the full score beats the constant's by this much, surely."""

MOST_SQUARES = 400
"""The resemblance of more groups than this is that of so many: it hardly changes any more."""

KNOTS = 6
"""Along each side of a square, where a field is looked at."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Score = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Interval:
    """A score or a difference of scores, as expected over cities of this law (see the module).

    Attributes:
        value: of all units.
        low: lower end of the 95 % interval; None where `too_few`.
        high: upper end.
        n: units.
        groups: spatial groups.
        too_few: fewer than 10 groups or 50 units.
        error: standard error; None where `too_few`.
        df: degrees of freedom of the error.
        p: two-sided, for an expected value of 0; of use for differences.
        warning: why the interval may hold the expected value less often than it should; or empty.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    groups: int
    too_few: bool
    error: float | None = None
    df: float | None = None
    p: float | None = None
    warning: str = ""


class Learning(NamedTuple):
    """What the variance of a score grows by for what its probe would learn in another city.

    Attributes:
        share: a, of the variance, however many groups there are.
        groups: c, of the variance, shared by the independent groups.
    """

    share: float
    groups: float


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

LEARNING = {
    ("r2", False): Learning(0.0, 15.0),
    ("r2", True): Learning(0.0, 5.0),
    ("macro_f1", False): Learning(1.0, 5.0),
    ("macro_f1", True): Learning(0.5, 5.0),
}
"""By metric, and whether scores on the same units are compared. A probe minimises squared errors,
so that what else it might have learnt moves them in the second order only. Macro-F1 it moves in the
first, by how often a class is called, however many groups there are."""


def metric_name(score: Score) -> str:
    """Return whose `LEARNING` and coverage stand for a score: any but R² is treated as macro-F1."""
    return "r2" if score is r_squared else "macro_f1"


def deletions(parts: Floats, score: Score) -> Floats:
    """Return the score without each group, (G,); `parts` are its sums per group, (G, …)."""
    return score(parts.sum(axis=0) - parts)


def interval(
    parts: Floats,
    score: Score,
    n: int,
    range_in_groups: float = 0.0,
    contrast_of: Score | None = None,
) -> Interval:
    """Return a score with its jackknife-t interval.

    θ ± t₀.₉₇₅(ν) · √(k · (G−1)/G · Σ(θ₍g₎ − mean θ₍·₎)²), θ₍g₎ the score without group g (Efron and
    Tibshirani 1993, chapter 11, with groups instead of units, as in Busing et al. 1999 but
    unweighted); the factor k is the module's, ν that of `resemblance`.

    Args:
        parts: sums per group, (G, …).
        score: function of sums.
        n: units.
        range_in_groups: the label's correlation range in sides of a group; 0 where it is not known.
        contrast_of: the metric, where `score` adds up and takes off scores on the same units.
    """
    metric = metric_name(contrast_of or score)
    return _widened([([parts], 1.0)], score, n, range_in_groups, (metric, contrast_of is not None))


def difference(
    first: Floats, second: Floats, score: Score, n: int, range_in_groups: float = 0.0
) -> Interval:
    """Return the score of `first` minus that of `second`, paired: the same groups go at a time.

    Args:
        first: sums per group, (G, …).
        second: likewise, of the same units.
        score: function of sums.
        n: units.
        range_in_groups: see `interval`.
    """
    return difference_over_seeds([first], [second], score, n, range_in_groups)


def over_seeds(
    parts: Sequence[Floats], score: Score, n: int, range_in_groups: float = 0.0
) -> Interval:
    """Return the score expected over cities and over trainings with other seeds.

    The mean of the seeds' scores. Its variance is that of the jackknife over groups, which go from
    all seeds at a time, plus that between seeds over their number; degrees of freedom after
    Satterthwaite (1946). What city and seed have together is in both, so that few seeds rather
    widen the interval. One seed says nothing of others: the interval is then that of `interval`.

    Args:
        parts: of every seed the sums per group, (G, …), of the same units.
        score: function of sums.
        n: units.
        range_in_groups: see `interval`.
    """
    return _widened([(parts, 1.0)], score, n, range_in_groups, (metric_name(score), False))


def difference_over_seeds(
    first: Sequence[Floats],
    second: Sequence[Floats],
    score: Score,
    n: int,
    range_in_groups: float = 0.0,
) -> Interval:
    """Return the mean score of the seeds of one method minus that of another's, paired by groups.

    Seeds are not paired: those of two methods have nothing in common. Their numbers may differ.

    Args:
        first: of every seed the sums per group, (G, …).
        second: likewise, of the same units.
        score: function of sums.
        n: units.
        range_in_groups: see `interval`.
    """
    sides = [(first, 1.0), (second, -1.0)]
    return _widened(sides, score, n, range_in_groups, (metric_name(score), True))


def _widened(
    sides: Sequence[tuple[Sequence[Floats], float]],
    score: Score,
    n: int,
    range_in_groups: float,
    kind: tuple[str, bool],
) -> Interval:
    """Return the interval of a weighted sum of mean scores.

    Args:
        sides: (sums per group of every seed, weight).
        score: function of sums.
        n: units.
        range_in_groups: see `interval`.
        kind: of `LEARNING`.
    """
    from scipy import special

    groups = len(sides[0][0][0])
    scores = [np.array([score(one.sum(axis=0)) for one in seeds]) for seeds, _ in sides]
    value = float(sum(weight * own.mean() for own, (_, weight) in zip(scores, sides, strict=True)))
    if groups < MIN_GROUPS or n < MIN_UNITS:
        return Interval(value, None, None, n, groups, True)
    without = np.zeros(groups)
    for seeds, weight in sides:
        without += weight * np.mean([deletions(one, score) for one in seeds], axis=0)
    factor, df = widening(kind, groups, range_in_groups)
    spread = (groups - 1) / groups * ((without - without.mean()) ** 2).sum()
    terms = [(factor * float(spread), df)]
    for own in scores:
        if len(own) > 1:
            terms.append((float(own.var(ddof=1)) / len(own), len(own) - 1.0))
    variance = sum(term for term, _ in terms)
    if variance > 0:
        df = variance**2 / sum(term**2 / own for term, own in terms)
    error = float(np.sqrt(variance))
    reaches = float(special.stdtrit(df, (1 + LEVEL) / 2)) * error
    p = float(2 * special.stdtr(df, -abs(value) / error)) if error else float(value == 0)
    warning = validity.warning(kind, groups, range_in_groups)
    return Interval(
        value, value - reaches, value + reaches, n, groups, False, error, df, p, warning
    )


def widening(kind: tuple[str, bool], groups: int, range_in_groups: float) -> tuple[float, float]:
    """Return the factor k of the jackknife's variance, and its degrees of freedom ν.

    Args:
        kind: of `LEARNING`.
        groups: G.
        range_in_groups: the label's correlation range in sides of a group.
    """
    alike, df = resemblance(groups, round(range_in_groups, 2))
    share, each = LEARNING[kind]
    return alike * (1 + share + each * alike / groups), df


@functools.cache
def resemblance(groups: int, range_in_groups: float) -> tuple[float, float]:
    """Return how much more the mean over groups varies than independent ones would tell, and ν.

    The groups are taken as squares that lie together as closely as they can, row after row of a
    square. What is summed in them is taken to have the square of the label's correlation, as
    products of Gaussian fields have, and that to fall exponentially to 0.2 at the range (as
    `correlation_range` has it). With C the correlation of sums over squares and M = I − 1/G,

        f = (1ᵀC1 / G) / (tr MC / (G − 1))        ν = (tr MC)² / tr (MCM)²

    Args:
        groups: G.
        range_in_groups: the correlation range in sides of a square.

    Returns:
        f, 1 where the range is 0, and the degrees of freedom ν of the jackknife's variance.
    """
    if range_in_groups <= 0:
        return 1.0, groups - 1.0
    count = min(groups, MOST_SQUARES)
    side = int(np.ceil(np.sqrt(count)))
    column, row = np.divmod(np.arange(count), side)
    knots = np.stack(np.meshgrid(*[(np.arange(KNOTS) + 0.5) / KNOTS] * 2), axis=-1).reshape(-1, 2)
    apart = knots[:, None] - knots
    alike = np.empty((side, side))
    for x, y in np.ndindex(side, side):
        distance = np.hypot(apart[..., 0] + x, apart[..., 1] + y)
        alike[x, y] = (0.2 ** (2 * distance / range_in_groups)).mean()
    c = alike[np.abs(column[:, None] - column), np.abs(row[:, None] - row)] / alike[0, 0]
    centred = c - c.mean(axis=0) - c.mean(axis=1)[:, None] + c.mean()
    trace = float(np.trace(centred))
    df = trace**2 / float((centred**2).sum()) * (groups - 1) / (count - 1)
    return float(c.mean()) * count * (count - 1) / trace, df


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
