"""What missing, noisy and stale modalities cost, over all tasks of a city, as terminal tables."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from urbancli.bench.rows import Row, described
from urbancli.bench.stress import degradation, improvements, only_gone, worst_subsets

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LISTED = 8
"""Improvements that are listed; the rest is counted, and stands in the rows."""


def render_stress(rows: Sequence[Row], console: "Console") -> None:
    """Print, per city, what is kept without each set of modalities, and at each rate or noise.

    Args:
        rows: of a bench; nothing is printed where nothing but single drops was asked.
        console: where to.
    """
    many = [row for row in rows if "=" in row["drop"] or _subset(row)]
    for city in dict.fromkeys(row["city"] for row in many):
        mine = [row for row in rows if row["city"] == city and row["drop"]]
        console.print(f"\n{city} · with modalities missing, over all tasks", style="bold")
        console.print(
            "score: mean over tasks; kept: retention, ratio of means over the n tasks where the "
            "whole surely beats the constant",
            style="dim", highlight=False,
        )  # fmt: skip
        console.print(_kept_table(mine))
        for text in [*_areas(mine), *_worst(mine), *_improved(mine)]:
            console.print(text, highlight=False, markup=False)


def _subset(row: Row) -> bool:
    return only_gone(row) and "+" in row["drop"]


def _kept_table(rows: Sequence[Row]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("without", "at"):
        table.add_column(name)
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if row["value"] is not None:
            mine = groups.setdefault((row["drop"], row["drop_at"]), {})
            mine.setdefault(described(row), []).append(row)
    names = list(dict.fromkeys(name for found in groups.values() for name in found))
    names = [
        name for name in names if any(_subset(r) or "=" in r["drop"] for r in _of(groups, name))
    ]
    for name in names:
        table.add_column(name, justify="right")
    for (drop, at), found in groups.items():
        cells = [_cell(found.get(name, [])) for name in names]
        if any(cells):
            table.add_row(drop, at, *cells)
    return table


def _of(groups: dict[tuple[str, str], dict[str, list[Row]]], name: str) -> list[Row]:
    return [row for found in groups.values() for row in found.get(name, [])]


def _cell(rows: Sequence[Row]) -> str:
    """Return mean score and retention, ratio of means, of one contestant and condition."""
    if not rows:
        return ""
    score = _number(float(np.mean([row["value"] for row in rows])))
    defined = [row for row in rows if row["retention"] is not None]
    if not defined:
        return score
    kept = np.array([row["retention"] for row in defined])
    change = np.array([row["difference_full"] for row in defined])
    # What the whole gains over the constant: the change is (kept − 1) of it.
    gain = np.where(kept == 1, np.nan, change / np.where(kept == 1, np.nan, kept - 1))
    gain = np.where(np.isnan(gain), np.nanmean(gain) if (kept != 1).any() else 1.0, gain)
    share = float((kept * gain).sum() / gain.sum())
    return f"{score} kept {share:.0%} n {len(defined)}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _who(found: dict[str, Any]) -> str:
    at = " at test only" if found["drop_at"] == "test" else ""
    return described(found) + at


def _areas(rows: Iterable[Row]) -> list[str]:
    areas: dict[str, list[dict[str, Any]]] = {}
    for one in degradation(rows):
        areas.setdefault(_who(one), []).append(one)
    return [
        f"area under the degradation curve (1: nothing lost, rates up to {found[0]['up_to']:g}): "
        f"{name} {np.mean([one['area'] for one in found]):.2f}, mean of {len(found)} tasks"
        for name, found in areas.items()
    ]


def _worst(rows: Iterable[Row]) -> list[str]:
    """Return, per contestant, the set whose absence is the worst of the most tasks."""
    sets: dict[str, list[str]] = {}
    for one in worst_subsets(rows):
        if one["of"] > 1:
            sets.setdefault(_who(one), []).append(one["drop"])
    lines = []
    for name, drops in sets.items():
        worst = max(dict.fromkeys(drops), key=drops.count)
        lines.append(
            f"worst set of {name}: without {worst}, on {drops.count(worst)} of {len(drops)} tasks"
        )
    return lines


def _improved(rows: Iterable[Row]) -> list[str]:
    found = improvements(rows)
    lines = [
        f"{one['task']} improves without {one['drop']}: {_who(one)} "
        f"{one['difference_full']:+.2f} [{one['difference_full_low']:+.2f}, "
        f"{one['difference_full_high']:+.2f}]".replace("-0.", "−0.")
        for one in found[:LISTED]
    ]
    if len(found) > LISTED:
        lines.append(f"… and {len(found) - LISTED} more improvements, in the rows")
    return lines
