"""Tables of encoders: what each needs, and what they made of a city."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def render_encoders(found: Sequence[dict[str, Any]]) -> None:
    """Print the encoders of the package, as `encoding.described` tells of them."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("encoder", "of", "needs", "window m", "width"):
        table.add_column(name)
    for one in found:
        modalities = [m + ("*" if m in one["default_of"] else "") for m in one["modalities"]]
        windows = [f"{window:g}" for window in sorted(set(one["window_m"].values()))]
        widths = sorted({"by data" if w is None else str(w) for w in one["width"].values()})
        table.add_row(
            one["encoder"],
            " ".join(modalities),
            one["needs"],
            " ".join(windows),
            " ".join(widths),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("* the default; settings of each: `urban list encoders --json`")
    for one in found:
        if one["weights"]:
            text = f"{one['encoder']}: weights {one['weights']}, {one['licence']}"
            console.print(text, soft_wrap=True, markup=False)


def render_encoded(rows: Sequence[dict[str, Any]]) -> None:
    """Print what encoders made of cities, a row per modality."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("city", "modality", "encoder"):
        table.add_column(name, overflow="fold", no_wrap=name != "encoder")
    for name in ("places", "present", "tokens", "width", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["city"], row["modality"], row["encoder"], f"{row['places']:,}",
            f"{row['present']:,}", f"{row['tokens']:,}", str(row["width"]), f"{row['seconds']:.1f}",
        )  # fmt: skip
    Console().print(table)
