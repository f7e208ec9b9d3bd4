"""The synthetic city's known truth beside what the frozen features tell of it, as a table."""

import sys
from collections.abc import Sequence
from typing import Any

PREFIX = "factor_"


def render_truth(rows: Sequence[dict[str, Any]], synthetic: str) -> None:
    """Print, for every factor, where it shows and what concatenation scores with and without.

    Args:
        rows: of a benchmark on a synthetic city.
        synthetic: says so.
    """
    from rich.console import Console
    from rich.table import Table

    from urbancli.demo.factors import FACTORS, SYNERGY, TARGETS

    shows = {f.name: "all" if f.kind == "shared" else f.shows_in[0] for f in FACTORS}
    shows["synergy"] = " and ".join(shows[name] for name in SYNERGY)
    drops = list(dict.fromkeys(row["drop"] for row in rows))
    score = {
        (row["task"], row["drop"]): row["value"] for row in rows if row["method"] == "concatenation"
    }
    console = Console(file=sys.stdout, highlight=False)
    console.print("\nThe truth of the city, and R² of concatenation", style="bold")
    console.print(synthetic, style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("factor")
    table.add_column("shows in")
    for drop in drops:
        table.add_column(f"without {drop}" if drop else "everything", justify="right")
    for name in TARGETS:
        values = [score.get((PREFIX + name, drop)) for drop in drops]
        cells = ["n/a" if v is None else f"{v:.2f}".replace("-", "−") for v in values]
        table.add_row(name, shows[name], *cells)
    console.print(table)
