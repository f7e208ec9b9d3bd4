"""Where an interval holds what it should, by the cities that `benchmarks.coverage` simulates.

The figures are those of `benchmarks/results/coverage.json`: of R² 1,000 cities a cell up to half a
group and 500 beyond, of macro-F1 150 to 1,000.
"""

BAR = 0.90
"""An interval of 95 % that holds the expected value less often than this is not valid."""

RANGES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Correlation ranges that were simulated, in sides of a group."""

GROUPS = (10, 16, 25, 49, 100)
"""Numbers of groups that were simulated."""

HELD: dict[tuple[str, bool], tuple[tuple[float, ...], ...]] = {
    ("r2", False): (
        (0.9305, 0.9555, 0.9595, 0.9525, 0.9395),
        (0.935, 0.9465, 0.966, 0.957, 0.951),
        (0.936, 0.9065, 0.9065, 0.944, 0.937),
        (0.947, 0.951, 0.949, 0.897, 0.905),
        (0.915, 0.935, 0.918, 0.897, 0.888),
    ),
    ("r2", True): (
        (0.947, 0.943, 0.947, 0.926, 0.91),
        (0.946, 0.956, 0.963, 0.957, 0.932),
        (0.961, 0.94, 0.936, 0.95, 0.958),
        (0.968, 0.972, 0.97, 0.946, 0.95),
        (0.992, 0.99, 0.99, 0.97, 0.95),
    ),
    ("macro_f1", False): (
        (0.97, 0.962, 0.964, 0.99, 0.9567),
        (0.9775, 0.972, 0.9765, 0.99, 0.9533),
        (0.958, 0.9785, 0.976, 0.967, 0.9933),
        (0.9611, 0.972, 0.962, 0.968, 0.9833),
        (0.974, 0.9711, 0.9577, 0.988, 0.98),
    ),
    ("macro_f1", True): (
        (0.98, 0.952, 0.96, 0.972, 0.9667),
        (0.986, 0.973, 0.97, 0.974, 0.9733),
        (0.983, 0.989, 0.988, 0.976, 0.9933),
        (0.9918, 0.996, 0.988, 0.984, 0.9933),
        (0.9896, 0.9917, 0.996, 1.0, 1.0),
    ),
}
"""Lowest coverage of any simulated law: (metric, paired) → range → number of groups."""


def held(kind: tuple[str, bool], groups: int, range_in_groups: float) -> float:
    """Return how often an interval held what it should in simulated cities of such a design.

    The next longer range that was simulated, and the worse of the two next numbers of groups.

    Args:
        kind: `r2` or `macro_f1`, and whether two scores on the same units are compared.
        groups: their number, at least 10.
        range_in_groups: the label's correlation range in sides of a group.
    """
    row = HELD[kind][next((i for i, one in enumerate(RANGES) if one >= range_in_groups), -1)]
    fewer = max(i for i, one in enumerate(GROUPS) if one <= groups)
    more = next((i for i, one in enumerate(GROUPS) if one >= groups), -1)
    return min(row[fewer], row[more])


def warning(kind: tuple[str, bool], groups: int, range_in_groups: float) -> str:
    """Return what a reader of an interval outside its valid range must know; empty inside it.

    Args:
        kind: see `held`.
        groups: see `held`.
        range_in_groups: see `held`.
    """
    range_of = f"the label's correlation range is {range_in_groups:.1f} sides of a group"
    what = "differences" if kind[1] else "scores"
    if range_in_groups > RANGES[-1]:
        return f"{range_of}, beyond what was simulated: intervals of {what} may be too narrow"
    share = held(kind, groups, range_in_groups)
    if share >= BAR:
        return ""
    return f"{range_of}: 95 % intervals of {what} held {share:.0%} of the time in simulated cities"
