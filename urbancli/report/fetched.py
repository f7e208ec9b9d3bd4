"""What a fetch brought, as a terminal table."""

import sys
from typing import Any


def render(summary: dict[str, Any]) -> None:
    """Print tiles, layers and labels of a city with everything that was left out, counted."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    console.print(
        f"[bold]{summary['city']}[/bold]: {summary['tiles']:,} tiles of 300 m, "
        f"{summary['edge_tiles']:,} of them cut by the edge"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("left out or changed", overflow="fold")
    for name, facts in summary["layers"].items():
        table.add_row(f"layers/{name}", f"{facts['rows_in_file']:,}", *_layer(facts))
    for name, facts in summary["labels"].items():
        table.add_row(f"labels/{name}", f"{facts['rows_in_file']:,}", *_label(facts))
    console.print(table)


LEFT_OUT = {
    "outside": "outside the city",
    "without_coordinates": "without coordinates",
    "broken": "broken",
    "metadata_only": "with metadata tags only",
}
"""Keys of a layer's facts that count what did not come in."""

CHANGED = {
    "incomplete": "incomplete relations kept",
    "repaired": "repaired",
    "broken_tags": "bad tags",
}
"""Keys of a layer's facts that count what came in otherwise than it was."""


def _layer(facts: dict[str, Any]) -> tuple[str, str]:
    if "bands" in facts:
        what = f"{len(facts['bands'])} bands of {facts['dtype']} at {facts['pixel_m']:g} m"
        return what, f"resampled from {facts['native_m']:g} m"
    named = {text: _total(facts.get(key, 0)) for key, text in {**LEFT_OUT, **CHANGED}.items()}
    return f"{facts['licence']}, {facts['counted']:,} read", ", ".join(_counts(named))


def _total(count: Any) -> int:
    """Return the number behind a count, a count with ids, or a table of such by kind."""
    if isinstance(count, int):
        return count
    return int(count["count"]) if "count" in count else sum(_total(part) for part in count.values())


def _label(facts: dict[str, Any]) -> tuple[str, str]:
    what = f"{facts['kind']} by {facts['unit']}"
    left = {"outside the city": facts["outside"], "without a value": facts["without_value"]}
    return what, ", ".join(_counts(left))


def _counts(counts: dict[str, Any]) -> list[str]:
    return [f"{count:,} {name}" for name, count in counts.items() if count]
