"""What a fetch brought, as a terminal table."""

import sys
from typing import Any

FEW = 0.5
"""Share of the tiles with any entity, below which the file may be an extract of a part."""


def render(summary: dict[str, Any]) -> None:
    """Print tiles, layers and labels of a city with everything that was left out, counted.

    What was read less what was left out is the number of rows of a file.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    console.print(
        f"[bold]{summary['city']}[/bold]: {summary['tiles']:,} tiles of 300 m, "
        f"{summary['edge_tiles']:,} of them cut by the edge"
    )
    if summary["synthetic"]:
        console.print(summary["synthetic"], style="bold yellow", highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("left out", overflow="fold")
    table.add_column("of the rows", overflow="fold")
    for name, facts in summary["layers"].items():
        table.add_row(f"layers/{name}", f"{facts['rows_in_file']:,}", *_layer(facts))
    for name, facts in summary["labels"].items():
        table.add_row(f"labels/{name}", f"{facts['rows_in_file']:,}", *_label(facts))
    console.print(table)
    for name, facts in summary["layers"].items():
        for remark in _remarks(facts):
            console.print(f"layers/{name}: {remark}", markup=False, highlight=False)


def render_gaps(gaps: list[dict[str, str]], *, accepted: bool) -> None:
    """Print on stderr what no service gave, why, and how to go on."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=True)
    table = Table(box=None, pad_edge=False, title="gaps", title_justify="left")
    for name in ("layer", "missing", "why"):
        table.add_column(name, overflow="fold")
    for gap in gaps:
        table.add_row(escape(gap["layer"]), gap["missing"], escape(gap["why"]))
    console.print(table)
    remedy = "" if accepted else " (--accept-gaps finishes layers without it)"
    console.print(f"finished with gaps: run the same command again, what was read is kept{remedy}")


def render_plan(plan: dict[str, Any]) -> None:
    """Print what a fetch would read, per layer."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    console.print(f"[bold]{plan['city']}[/bold]: {plan['tiles']:,} tiles of 300 m; not fetched")
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for name in ("items", "blocks", "done before", "requests ≈", "MB ≈"):
        table.add_column(name, justify="right")
    for layer, cost in plan["layers"].items():
        numbers = (cost["items"], cost["blocks"], cost["done"], cost["requests"])
        table.add_row(layer, *(f"{number:,}" for number in numbers), f"{cost['bytes'] / 1e6:,.1f}")
    console.print(table)


LEFT_OUT = {
    "outside": "outside the city",
    "without_coordinates": "without coordinates in range",
    "broken": "broken",
    "metadata_only": "with metadata tags only",
    "closed": "closed for good",
    "no_point_of_interest": "no points of interest",
}
"""Keys of a layer's facts that count what did not come in."""

CHANGED = {
    "halo": "within 1.2 km of the tiles",
    "incomplete": "incomplete relations kept",
    "repaired": "repaired",
    "broken_tags": "bad tags",
    "duplicate_ids": "with an id made unique",
}
"""Keys of a layer's facts that count what came in otherwise than it was; some may lie outside."""

PHOTOS_LEFT_OUT = {
    "outside": "outside the city",
    "left_out": "beyond the most a tile",
    "without_position": "without position",
    "unreadable": "unreadable",
    "copies": "copies",
    "gone": "gone from the service",
}
"""Keys of a street-view layer's facts that count photos that did not come in."""

LABEL_LEFT_OUT = {"outside": "outside the city", "without_geometry": "without geometry"}
LABEL_CHANGED = {
    "without_value": "without a value",
    "repaired": "repaired",
    "ties": "classes tied, the first taken",
}
"""Keys of a label's facts, likewise."""


def _layer(facts: dict[str, Any]) -> tuple[str, str, str]:
    if "bands" in facts:
        what = f"{len(facts['bands'])} bands of {facts['dtype']} at {facts['pixel_m']:g} m"
        return what, "", f"resampled from {facts['native_m']:g} m"
    if "photos" in facts:
        what = f"{facts['licence']}, at most {facts['per_tile']} photos a tile"
        headed = f"{facts['with_heading']:,} with heading"
        return what, _counts(facts, PHOTOS_LEFT_OUT), headed
    # What carries metadata tags only is not counted among the entities, but it was read.
    read = facts["counted"] + facts.get("metadata_only", 0)
    return f"{facts['licence']}, {read:,} read", _counts(facts, LEFT_OUT), _counts(facts, CHANGED)


def _remarks(facts: dict[str, Any]) -> list[str]:
    """Return what a user should know of a layer beyond its counts, a line each."""
    remarks = [facts["advice"]] if facts.get("advice") else []
    if gaps := facts.get("provenance", {}).get("gaps"):
        remarks.append(f"without {len(gaps)} blocks that could not be read (--accept-gaps)")
    if facts.get("mask_band"):
        remarks.append(f"band {facts['mask_band']} is alpha: it was read as the mask, not a band")
    if hidden := facts.get("hidden_inputs"):
        remarks.append(
            f"{', '.join(hidden)} wholly under earlier files: seen only where these are invalid"
        )
    counted = "tiles_with_any" in facts and "photos" not in facts
    share = facts["tiles_with_any"] / facts["tiles"] if counted else 1.0
    if share < FEW:
        remarks.append(
            f"only {share:.0%} of the tiles hold any entity: is the file an extract of a part of "
            "the city?"
        )
    return remarks


def _total(count: Any) -> int:
    """Return the number behind a count, a count with ids, or a table of such by kind."""
    if isinstance(count, int):
        return count
    return int(count["count"]) if "count" in count else sum(_total(part) for part in count.values())


def _label(facts: dict[str, Any]) -> tuple[str, str, str]:
    what = f"{facts['kind']} by {facts['unit']}, {facts['rows']:,} read"
    return what, _counts(facts, LABEL_LEFT_OUT), _counts(facts, LABEL_CHANGED)


def _counts(facts: dict[str, Any], names: dict[str, str]) -> str:
    counts = {name: _total(facts.get(key, 0)) for key, name in names.items()}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
