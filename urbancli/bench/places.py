"""The places of a benchmark's contestants: per task, and per city over its tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from urbancli.bench.contestants import UNTRAINED, title
from urbancli.bench.controls import APPENDED, CONSTANT
from urbancli.bench.ranking import rank
from urbancli.bench.rows import Row
from urbancli.bench.seeds import JOINT
from urbancli.bench.statistics import Interval

if TYPE_CHECKING:
    from urbancli.bench.run import BenchResult

PAPER = ("split", "split_seed", "probe")


def places(result: "BenchResult") -> list[dict[str, Any]]:
    """Return the places of all that was scored whole, on the first split and probe of each task.

    Left out are the constant, untrained twins, coordinates appended, single seeds where several
    were trained, and runs that held a fold out: those were asked less.

    Returns:
        Rows of `city`, `task` (empty: over the tasks of the city) and the fields of
        `ranking.Standing`; the best first.
    """
    found: list[dict[str, Any]] = []
    rows = [row for row in result.rows if _counts(row)]
    joint = {name for row in rows if JOINT in row["run"] for name in row["run"].split(JOINT)}
    rows = [row for row in rows if row["run"] not in joint]
    for city in dict.fromkeys(row["city"] for row in rows):
        mine = [row for row in rows if row["city"] == city]
        tasks = dict.fromkeys(row["task"] for row in mine)
        first = [_first_paper([row for row in mine if row["task"] == task]) for task in tasks]
        asked = {(title(row), row["task"]): row for part in first for row in part}
        scores = {key: float(row["value"]) for key, row in asked.items()}
        ranking = rank(scores, _difference(result, asked))
        parts = dict(ranking.by_task)
        if len(tasks) > 1:
            parts[""] = ranking.overall
        found += [
            {"city": city, "task": task, **asdict(one)}
            for task, ones in parts.items()
            for one in ones
        ]
    return found


def _counts(row: Row) -> bool:
    return bool(
        row["value"] is not None
        and not row["drop"]
        and not row["train_city"]
        and row["method"] not in {CONSTANT, UNTRAINED}
        and row["pretraining"] != "inductive"
        and APPENDED not in (row["settings"] or "")
    )


def _first_paper(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the first split and probe: the default ones, where they are among them."""
    first = [rows[0][name] for name in PAPER]
    return [row for row in rows if [row[name] for name in PAPER] == first]


def _difference(result: "BenchResult", asked: Mapping[tuple[str, str], Row]) -> Any:
    """Return the paired difference of two contestants on a task; None of rows of several seeds."""

    def difference(first: str, second: str, task: str) -> Interval | None:
        pair = [asked[name, task] for name in (first, second)]
        if any(JOINT in row["run"] for row in pair) or not result.given:
            return None
        return result.difference(*pair)

    return difference
