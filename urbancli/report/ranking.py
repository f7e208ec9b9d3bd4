"""Who is better over the tasks of a city, and who cannot be told apart, as a terminal table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def render_ranking(places: Sequence[Mapping[str, Any]], console: "Console") -> None:
    """Print, per city with several tasks, the places over its tasks.

    Args:
        places: of `bench.places`.
        console: where to.
    """
    from rich.table import Table

    over = [place for place in places if not place["task"]]
    for city in dict.fromkeys(place["city"] for place in over):
        mine = [place for place in over if place["city"] == city]
        tasks = max(place["tasks"] for place in mine)
        console.print(f"\n{city} · ranks over {tasks} tasks", style="bold")
        console.print(
            "mean score: R² and macro-F1 alike; rank interval: 1 + those surely better to all but "
            "those surely worse, 95 % for all pairs at once (Holm); who shares a letter is not "
            "told apart; tasks are the sample; the constant and untrained twins are left out",
            style="dim", highlight=False,
        )  # fmt: skip
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("method")
        for name in ("mean score", "mean rank", "rank interval", "ties", "tasks"):
            table.add_column(name, justify="right")
        for place in mine:
            interval = f"{place['low']} to {place['high']}"
            table.add_row(
                place["method"], _number(place["value"]), _number(place["rank"]), interval,
                place["ties"], str(place["tasks"]),
            )  # fmt: skip
        console.print(table)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}".replace("-", "−")
