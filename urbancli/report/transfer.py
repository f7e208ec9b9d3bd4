"""What is learnt in one city and asked in another, as terminal tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from urbancli.bench.contestants import title
from urbancli.bench.rows import Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NAMES = {"r2": "R² about the asked city's own mean", "r2_free": "squared correlation",
         "macro_f1": "macro-F1"}  # fmt: skip


def render_transfer(rows: Sequence[Row], console: "Console") -> None:
    """Print, per task and metric, a row for each pair of cities and contestant.

    Args:
        rows: those of a bench that were learnt in another city; nothing is printed without any.
        console: where to.
    """
    papers = dict.fromkeys((row["task"], row["probe"], row["metric"]) for row in rows)
    for task, probe, metric in papers:
        mine = [
            row
            for row in rows
            if (row["task"], row["probe"], row["metric"]) == (task, probe, metric)
        ]
        console.print(f"\nfrom city to city · {task}", style="bold")
        console.print(
            f"{NAMES[metric]}, {probe}; learnt in one city, asked in another, with so many units "
            "of that learnt too; 95 % intervals",
            style="dim", highlight=False,
        )  # fmt: skip
        console.print(_table(mine))


def _table(rows: Sequence[Row]) -> "Table":
    from rich.table import Table

    counts = sorted({row["few_shot"] for row in rows})
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("learnt in → asked in", "method"):
        table.add_column(name)
    for count in counts:
        table.add_column(f"{count} units", justify="right")
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        key = (f"{row['train_city']} → {row['city']}", title(row))
        found.setdefault(key, {})[row["few_shot"]] = row
    for key, by_count in found.items():
        table.add_row(*key, *(_cell(by_count.get(count)) for count in counts))
    return table


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return "n/a"
    value = f"{row['value']:.2f}"
    if row["low"] is not None:
        value += f" [{row['low']:.2f}, {row['high']:.2f}]"
    return value.replace("-", "−").replace(" ", "\u00a0")
