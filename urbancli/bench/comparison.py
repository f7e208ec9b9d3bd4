"""Two results side by side: which row is which row's counterpart, and how far apart they lie."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from urbancli.bench.contestants import UNTRAINED, title
from urbancli.bench.rows import Row
from urbancli.bench.statistics import Interval
from urbancli.errors import UsageError, unknown

CONTESTANT = ("method", "preset", "settings", "seed", "pretraining")
"""Columns that say whose a row is. Names of runs are not among them: they change with the bytes of
what was held out."""

PAPER = ("city", "train_city", "few_shot", "task", "split", "split_seed", "probe", "metric")
"""Columns that say what was asked, and where it was learnt."""

CONDITION = ("drop", "drop_at", "imputation")
"""Columns that say what was missing."""

IDENTITY = (*CONTESTANT, *PAPER, *CONDITION)
"""Columns in which a row and its counterpart are equal."""

INPUTS = ("task_version", "split_sha256", "group_m", "n", "groups")
"""Columns whose difference says that it was not the same question."""

Key = tuple[Any, ...]


def keyed(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """Return rows by what they are of; equal ones are numbered in their order.

    Args:
        rows: of a bench, or of a lock.
    """
    rows = list(rows)
    twins = methods_of_runs(rows)
    seen: Counter[Key] = Counter()
    found = {}
    for row in rows:
        twin = twins.get(row["run"], "") if row["method"] == UNTRAINED else ""
        fold = row.get("folds") if row["pretraining"] == "inductive" else ""
        key: Key = (*(row.get(name) for name in IDENTITY), twin, fold)
        found[*key, seen[key]] = row
        seen[key] += 1
    return found


def methods_of_runs(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return run → method: an untrained twin's row names only the run."""
    return {row["run"]: row["method"] for row in rows if row["run"] and row["method"] != UNTRAINED}


def asked_text(row: Mapping[str, Any]) -> str:
    """Return in words what a row was asked: city, task, split, probe, and what was missing."""
    parts = [
        row["city"], row["task"], row["split"], row["probe"],
        f"learnt in {row['train_city']}" if row["train_city"] else "",
        f"with {row['few_shot']:,} units here" if row["train_city"] else "",
        f"without {row['drop']}" if row["drop"] else "",
        "at test only" if row["drop_at"] == "test" else "",
        f"{row['imputation']} imputed" if row["imputation"] else "",
    ]  # fmt: skip
    return " ".join(filter(None, parts))


# --- two results -----------------------------------------------------------------------------


def compare_results(first: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """Return the rows of two results beside each other, in the order of the first.

    Args:
        first: rows of a bench.
        second: of another.

    Returns:
        Rows of `IDENTITY` and: `first`, `second` (scores) with `_low` and `_high`; `difference`,
        the second minus the first; `first_in_second`, whether the interval of the second holds the
        first's value, and the reverse (None without interval); `only_in`, `first` or `second`,
        where there is no counterpart; `inputs`, the `INPUTS` that differ, with commas.
    """
    mine, theirs = keyed(first), keyed(second)
    return [_compared(mine.get(key), theirs.get(key)) for key in dict.fromkeys([*mine, *theirs])]


def _compared(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> Row:
    row: Row = {name: (first or second or {}).get(name) for name in ("run", *IDENTITY)}
    for name, one in (("first", first), ("second", second)):
        for column, end in (("value", ""), ("low", "_low"), ("high", "_high")):
            row[f"{name}{end}"] = None if one is None else one[column]
    both = first is not None and second is not None
    inputs = []
    if first is not None and second is not None:
        inputs = [name for name in INPUTS if first.get(name) != second.get(name)]
    row["difference"] = _minus(row["second"], row["first"])
    row["first_in_second"] = _holds(row, "second", "first")
    row["second_in_first"] = _holds(row, "first", "second")
    row["only_in"] = "" if both else "second" if first is None else "first"
    row["inputs"] = ",".join(inputs)
    return row


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _holds(row: Row, interval: str, value: str) -> bool | None:
    low, high = row[f"{interval}_low"], row[f"{interval}_high"]
    if low is None or high is None or row[value] is None:
        return None
    return bool(low <= row[value] <= high)


# --- two contestants of one result -----------------------------------------------------------


def compare_contestants(
    rows: Sequence[Row], first: str, second: str, difference: Callable[[Row, Row], Interval]
) -> list[Row]:
    """Return the paired differences of two contestants of a result, wherever both have a score.

    Args:
        rows: of a bench.
        first: a title as in its tables, the name of a run, or a method that names only one.
        second: likewise.
        difference: (row of the first, row of the second) → score of the first minus the second's,
            paired over units.

    Returns:
        Rows of `PAPER`, `CONDITION` and: `first`, `second` (titles) and their `_value`;
        `difference`, `low`, `high`, `n`, `groups`, `too_few`, `warning`.

    Raises:
        UsageError: a name of none or of several, the same one twice, or none that both have.
    """
    names = (first, second)
    chosen = [_rows_of(rows, name) for name in names]
    titles = [title(found[0]) for found in chosen]
    if titles[0] == titles[1]:
        raise UsageError(f"'{first}' and '{second}' are the same, {titles[0]}: give two")
    sides = [{tuple(row[c] for c in (*PAPER, *CONDITION)): row for row in part} for part in chosen]
    compared = []
    for key, mine in sides[0].items():
        theirs = sides[1].get(key)
        if theirs is None or mine["value"] is None or theirs["value"] is None:
            continue
        found = difference(mine, theirs)
        compared.append({
            **dict(zip((*PAPER, *CONDITION), key, strict=True)),
            "first": titles[0], "first_value": mine["value"],
            "second": titles[1], "second_value": theirs["value"],
            "difference": found.value, "low": found.low, "high": found.high,
            "n": found.n, "groups": found.groups, "too_few": found.too_few,
            "warning": found.warning,
        })  # fmt: skip
    if not compared:
        raise UsageError(f"no task on which both {titles[0]} and {titles[1]} have a score")
    return compared


def _rows_of(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the rows of the one contestant that a name is of."""
    runs = methods_of_runs(rows)
    found: dict[Key, list[Row]] = {}
    for row in rows:
        trained = row["method"] != UNTRAINED
        if name in {title(row), row["method"]} or (name == row["run"] and trained):
            twin = "" if trained else runs.get(row["run"], "")
            held_out = row["run"] if row["pretraining"] == "inductive" else ""
            key = (*(row[column] for column in CONTESTANT), twin, held_out)
            found.setdefault(key, []).append(row)
    if not found:
        raise unknown("method or run", name, {title(row) for row in rows})
    if len(found) > 1:
        several = sorted({row["run"] or title(row) for part in found.values() for row in part})
        raise UsageError(f"'{name}' names several: give one of {', '.join(several)}")
    return next(iter(found.values()))
