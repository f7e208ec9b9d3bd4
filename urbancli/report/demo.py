"""The result of `urban demo` on one screen: scores, what a drop costs, and the known truth."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from urbancli.bench.contestants import title
from urbancli.bench.rows import Row

if TYPE_CHECKING:
    from rich.table import Table

PREFIX = "factor_"

ASIDE = ("constant", "tags", "concatenation-pca")
"""Controls that stand in the rows alone: a constant scores 0 by definition of R²."""


def render_demo(rows: Sequence[Row], synthetic: str) -> None:
    """Print three tables of a benchmark on a synthetic city.

    Args:
        rows: of the benchmark.
        synthetic: says what it is.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    rows = [row for row in rows if row["drop_at"] != "test"]
    mine = [row for row in rows if row["run"] and row["method"] != "untrained"]
    tables = {
        "Scores: R² of regressions, macro-F1 of land_use; ± half the 95 % interval": _scores(rows)
    }
    for name in dict.fromkeys(title(row) for row in mine):
        found = [row for row in mine if title(row) == name]
        tables[f"{name} with all modalities and without some"] = _drops(found)
    tables["The truth: where each factor shows, and R² of concatenation"] = _truth(rows)
    for heading, table in tables.items():
        console.print(f"\n{heading}", style="bold")
        console.print(synthetic, style="dim")
        console.print(table)


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}".replace("-", "−")


def _tasks(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in rows))


def _scores(rows: Sequence[Row]) -> "Table":
    """Return a task per row, a contestant per column."""
    full = [row for row in rows if not row["drop"] and row["method"] not in ASIDE]
    names = list(dict.fromkeys(title(row) for row in full))
    table = _table("task", *names)
    for task in _tasks(full):
        cells = []
        for name in names:
            (row,) = [r for r in full if r["task"] == task and title(r) == name]
            wide = "" if row["low"] is None else f" ± {(row['high'] - row['low']) / 2:.2f}"
            cells.append(_number(row["value"]) + wide)
        table.add_row(task, *cells)
    return table


def _drops(rows: Sequence[Row]) -> "Table":
    """Return a task per row, a drop per column, of one method."""
    drops = list(dict.fromkeys(row["drop"] for row in rows))
    table = _table("task", *(f"without {drop}" if drop else "all" for drop in drops))
    for task in _tasks(rows):
        found = {row["drop"]: row["value"] for row in rows if row["task"] == task}
        table.add_row(task, *(_number(found[drop]) for drop in drops))
    return table


def _truth(rows: Sequence[Row]) -> "Table":
    """Return a factor per row: its modalities, and what concatenation scores with and without."""
    from urbancli.demo.factors import FACTORS, SYNERGY, TARGETS

    shows = {f.name: "all" if f.kind == "shared" else f.shows_in[0] for f in FACTORS}
    shows["synergy"] = " and ".join(shows[name] for name in SYNERGY)
    drops = list(dict.fromkeys(row["drop"] for row in rows))
    pooled = [row for row in rows if row["method"] == "concatenation"]
    score = {(row["task"], row["drop"]): row["value"] for row in pooled}
    table = _table("factor", "shows in", *(f"without {drop}" if drop else "all" for drop in drops))
    for name in TARGETS:
        cells = [_number(score.get((PREFIX + name, drop))) for drop in drops]
        table.add_row(name, shows[name], *cells)
    return table
