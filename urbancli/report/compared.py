"""What is not as it was, or as it is elsewhere, as terminal tables."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from urbancli.bench.comparison import asked_text
from urbancli.bench.contestants import title
from urbancli.bench.rows import Row
from urbancli.report.sheets import MINUS, interval_text
from urbancli.report.terminal import verdict
from urbancli.reproduction import Difference

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LISTED = 40
"""Differences that are listed; the rest is counted, and stands in the JSON."""

SHOWN = 12
"""Digits of a checksum that are shown."""


def _console(console: "Console | None") -> "Console":
    from rich.console import Console

    return console or Console(file=sys.stdout, highlight=False, markup=False)


def _table(*columns: str, numbers: Sequence[str] = ()) -> "Table":
    """Return an empty table; of texts that are too long the words go on below."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def render_differences(found: Sequence[Difference], console: "Console | None" = None) -> None:
    """Print what is not as a lock says, the largest differences of scores first.

    Args:
        found: of a reproduction.
        console: where to; default stdout.
    """
    console = _console(console)
    numeric = any(one.tolerance is not None for one in found)
    apart_columns = ("apart", "allowed") if numeric else ()
    table = _table("what", "where", "column", numbers=("lock", "here", *apart_columns))
    ordered = sorted(found, key=lambda one: -abs(_apart(one) or 0.0))
    for one in ordered[:LISTED]:
        apart = _apart(one)
        gap = "" if apart is None else f"{apart:+.1e}".replace("-", MINUS)
        allowed = "" if one.tolerance is None else f"{one.tolerance:g}"
        values = (_text(one.locked), _text(one.found), *((gap, allowed) if numeric else ()))
        table.add_row(one.what, one.where, one.column, *values)
    console.print(table)
    if len(ordered) > LISTED:
        console.print(f"… and {len(ordered) - LISTED:,} more")


def _apart(one: Difference) -> float | None:
    numbers = [value for value in (one.locked, one.found) if isinstance(value, float)]
    return numbers[1] - numbers[0] if one.tolerance is not None and len(numbers) == 2 else None


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5f}".replace("-", MINUS)
    text = "none" if value is None else str(value)
    digits = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:SHOWN] + "…" if digits else text


# --- two results -----------------------------------------------------------------------------


def render_compared(rows: Sequence[Row], console: "Console | None" = None) -> None:
    """Print where two results part: the counts, then each row outside of the other's interval.

    Args:
        rows: of `compare_results`.
        console: where to; default stdout.
    """
    console = _console(console)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    both = [row for row in rows if row["difference"] is not None]
    apart = [row for row in both if False in (row["first_in_second"], row["second_in_first"])]
    say(f"{len(both):,} scores of both; {len(apart):,} lie outside the other's interval")
    if both:
        largest = max(both, key=lambda row: abs(row["difference"]))
        say(f"largest difference: {largest['difference']:+.4f} {_where(largest)}")
    for side in ("first", "second"):
        if count := sum(row["only_in"] == side for row in rows):
            say(f"{count:,} rows are only in the {side}")
    for inputs in dict.fromkeys(row["inputs"] for row in rows if row["inputs"]):
        count = sum(row["inputs"] == inputs for row in rows)
        say(f"{count:,} rows were asked something else: {inputs.replace(',', ', ')} differ")
    if not apart:
        return
    table = _table("row", numbers=("first", "second", "second − first"))
    for row in sorted(apart, key=lambda row: -abs(row["difference"]))[:LISTED]:
        sides = [_side(row, name) for name in ("first", "second")]
        table.add_row(_where(row), *sides, f"{row['difference']:+.3f}".replace("-", MINUS))
    console.print(table)
    if len(apart) > LISTED:
        say(f"… and {len(apart) - LISTED:,} more")


def _side(row: Row, name: str) -> str:
    return interval_text(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _where(row: Row) -> str:
    return f"{title({'folds': None, **row})}: {asked_text(row)}"


def render_paired(rows: Sequence[Row], console: "Console | None" = None) -> None:
    """Print the paired differences of two contestants, and what their intervals allow to say.

    Args:
        rows: of `compare_contestants`.
        console: where to; default stdout.
    """
    console = _console(console)
    first, second = rows[0]["first"], rows[0]["second"]
    console.print(f"{first} minus {second}, paired; 95 % intervals", style="bold")
    table = _table("task", "", numbers=("first", "second", "difference"))
    for row in rows:
        scores = [interval_text(row[f"{side}_value"], None, None) for side in ("first", "second")]
        gap = interval_text(row["difference"], row["low"], row["high"])
        said = "; ".join(filter(None, [verdict(row["low"], row["high"]), row["warning"]]))
        table.add_row(asked_text(row), said, *scores, gap)
    console.print(table)
