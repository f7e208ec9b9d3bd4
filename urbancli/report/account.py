"""The information account as terminal tables: what each modality tells of each task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = ("alone", "unique", "redundant", "synergistic")

Row = dict[str, Any]


def render_account(rows: Sequence[Row], console: "Console") -> None:
    """Print, per city, a line for every task and modality; nothing without rows.

    Args:
        rows: of `bench.accounting`.
        console: where to.
    """
    for city in dict.fromkeys(row["city"] for row in rows):
        mine = [row for row in rows if row["city"] == city]
        console.print(f"\n{city} · information account", style="bold")
        console.print(
            "of frozen features, held out, ± half the 95 % interval; unique: only this modality "
            "tells it; redundant: others tell it too; synergistic: only products with others do; "
            "kept: what a run's embedding still tells of what the modality tells alone",
            style="dim", highlight=False,
        )  # fmt: skip
        console.print(_table(mine))
        for pair in _pairs(mine):
            console.print(pair, highlight=False, markup=False)


def render_alignment(rows: Sequence[Row], console: "Console") -> None:
    """Print, per run, how alike its embeddings through single modalities are; nothing without rows.

    Args:
        rows: of `alignment_measures`, with `run`.
        console: where to.
    """
    from rich.table import Table

    for run in dict.fromkeys(row["run"] for row in rows):
        console.print(f"\n{run} · embeddings through single modalities", style="bold")
        console.print(
            "recall@k: the same place among the k nearest in the other modality, in brackets by "
            "chance; gap: between centroids on the sphere; cka: linear",
            style="dim", highlight=False,
        )  # fmt: skip
        mine = [row for row in rows if row["run"] == run]
        names = list(dict.fromkeys(row["quantity"] for row in mine))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("modality", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right")
        found = {(row["modality"], row["quantity"]): row for row in mine}
        for modality in dict.fromkeys(row["modality"] for row in mine):
            table.add_row(modality, *(_measure(found.get((modality, name))) for name in names))
        console.print(table)


def _measure(row: Row | None) -> str:
    if row is None:
        return ""
    chance = "" if row["chance"] is None else f" [{row['chance']:.3f}]"
    return f"{row['value']:.2f}{chance}".replace("-", "−")


def _table(rows: Sequence[Row]) -> "Table":
    from rich.table import Table

    runs = list(dict.fromkeys(row["run"] for row in rows if row["run"]))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("task", "all", "modality"):
        table.add_column(name, no_wrap=True)
    for name in (*COLUMNS, *(f"kept {run}" for run in runs)):
        table.add_column(name, justify="right")
    found = {(r["task"], r["modality"], r["quantity"], r["run"]): r for r in rows}
    for task in dict.fromkeys(row["task"] for row in rows):
        modalities = dict.fromkeys(
            row["modality"] for row in rows if row["task"] == task and row["quantity"] == "alone"
        )
        for number, modality in enumerate(modalities):
            cells = [_cell(found.get((task, modality, name, ""))) for name in COLUMNS]
            cells += [_cell(found.get((task, modality, "retained", run))) for run in runs]
            whole = _cell(found.get((task, "all", "all", "")))
            first = (task, whole) if not number else ("", "")
            table.add_row(*first, modality, *cells)
    return table


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    wide = "" if row["low"] is None else f"±{(row['high'] - row['low']) / 2:.2f}"
    return f"{row['value']:.2f}{wide}".replace("-", "−")


def _pairs(rows: Sequence[Row]) -> list[str]:
    """Return the pairs of modalities that surely tell together what neither tells alone."""
    lines = []
    for row in rows:
        sure = row["low"] is not None and row["low"] > 0
        if row["quantity"] == "synergistic" and "×" in row["modality"] and sure:
            lines.append(
                f"{row['task']}: products of {row['modality'].replace('×', ' and ')} add "
                f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            )
    return lines
