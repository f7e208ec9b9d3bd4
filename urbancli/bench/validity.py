"""Where an interval holds what it should, by the cities that `benchmarks.coverage` simulates.

The figures are of trial runs of it, of 200 to 1,500 cities a cell for R². Of macro-F1 only 10 and
25 groups were simulated, of ranges up to one group; what stands between and beyond in round numbers
is set, not measured. The run of 1,000 cities a cell that is to publish
`benchmarks/results/coverage.json` has not been finished.
"""

BAR = 0.90
"""An interval of 95 % that holds the expected value less often than this is not valid."""

RANGES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Correlation ranges that were simulated, in sides of a group."""

GROUPS = (10, 16, 25, 49, 100)
"""Numbers of groups that were simulated."""

HELD: dict[tuple[str, bool], tuple[tuple[float, ...], ...]] = {
    ("r2", False): (
        (0.907, 0.932, 0.919, 0.945, 0.943),
        (0.911, 0.933, 0.934, 0.945, 0.953),
        (0.931, 0.915, 0.926, 0.945, 0.941),
        (0.939, 0.933, 0.929, 0.893, 0.908),
        (0.886, 0.902, 0.925, 0.911, 0.862),
    ),
    ("r2", True): (
        (0.919, 0.909, 0.929, 0.925, 0.927),
        (0.923, 0.928, 0.944, 0.935, 0.937),
        (0.937, 0.933, 0.939, 0.961, 0.953),
        (0.964, 0.959, 0.950, 0.928, 0.951),
        (0.991, 0.984, 0.979, 0.956, 0.906),
    ),
    ("macro_f1", False): (
        (0.963, 0.95, 0.930, 0.93, 0.93),
        (0.958, 0.95, 0.928, 0.93, 0.93),
        (0.970, 0.95, 0.948, 0.93, 0.93),
        (0.972, 0.95, 0.978, 0.93, 0.93),
        (0.900, 0.90, 0.900, 0.90, 0.90),
    ),
    ("macro_f1", True): (
        (0.962, 0.95, 0.932, 0.93, 0.93),
        (0.968, 0.95, 0.937, 0.93, 0.93),
        (0.983, 0.95, 0.968, 0.93, 0.93),
        (0.970, 0.95, 0.980, 0.93, 0.93),
        (0.900, 0.90, 0.900, 0.90, 0.90),
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
