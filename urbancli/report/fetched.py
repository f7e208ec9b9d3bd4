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
    for heading in ("file", "rows", "what", "left out"):
        table.add_column(heading, justify="right" if heading == "rows" else "left")
    for name, facts in summary["layers"].items():
        table.add_row(f"layers/{name}", f"{facts['rows_in_file']:,}", *_layer(facts))
    for name, facts in summary["labels"].items():
        table.add_row(f"labels/{name}", f"{facts['rows_in_file']:,}", *_label(facts))
    console.print(table)


def _layer(facts: dict[str, Any]) -> tuple[str, str]:
    if "bands" in facts:
        what = f"{len(facts['bands'])} bands of {facts['dtype']} at {facts['pixel_m']:g} m"
        return what, f"resampled from {facts['native_m']:g} m" if facts["native_m"] else ""
    return facts["licence"], ", ".join(_counts(facts.get("left_out", {})))


def _label(facts: dict[str, Any]) -> tuple[str, str]:
    what = f"{facts['kind']} by {facts['unit']}"
    left = {"outside the city": facts["outside"], "without a value": facts["without_value"]}
    return what, ", ".join(_counts(left))


def _counts(counts: dict[str, Any]) -> list[str]:
    return [f"{count:,} {name}" for name, count in counts.items() if count]
