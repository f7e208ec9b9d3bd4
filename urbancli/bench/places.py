"""The places of a benchmark's contestants: per task, and per city over its tasks."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from urbancli.bench.contestants import UNTRAINED, title
from urbancli.bench.controls import APPENDED, CONSTANT
from urbancli.bench.ranking import over_tasks, rank, within_task
from urbancli.bench.rows import Row
from urbancli.bench.seeds import JOINT

if TYPE_CHECKING:
    from urbancli.bench.run import BenchResult


def places(result: "BenchResult") -> list[dict[str, Any]]:
    """Return the places of all that was scored whole, on the first split and probe of each task.

    Left out are the constant, untrained twins, coordinates appended, single seeds where several
    were trained, and runs that held a fold out: those were asked less.

    Returns:
        Rows of `city`, `task` (empty: over the tasks of the city) and the fields of
        `ranking.Ranked`; best mean first.
    """
    found: list[dict[str, Any]] = []
    rows = [row for row in result.rows if _counts(row)]
    joint = {name for row in rows if JOINT in row["run"] for name in row["run"].split(JOINT)}
    rows = [row for row in rows if row["run"] not in joint]
    for city in dict.fromkeys(row["city"] for row in rows):
        mine = [row for row in rows if row["city"] == city]
        tasks = list(dict.fromkeys(row["task"] for row in mine))
        by_task = [_first_paper([row for row in mine if row["task"] == task]) for task in tasks]
        names = list(dict.fromkeys(title(row) for part in by_task for row in part))
        scores = np.full((len(names), len(tasks)), np.nan)
        for column, (task, part) in enumerate(zip(tasks, by_task, strict=True)):
            by_name = {title(row): row for row in part}
            for line, name in enumerate(names):
                scores[line, column] = by_name[name]["value"] if name in by_name else np.nan
            one = rank(names, scores[:, [column]], _pairs(result, names, by_name))
            found += [{"city": city, "task": task, **asdict(each)} for each in one if each.tasks]
        if len(tasks) > 1:
            every = rank(names, scores, over_tasks(scores))
            found += [{"city": city, "task": "", **asdict(each)} for each in every]
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
    first = tuple(rows[0][name] for name in ("split", "split_seed", "probe"))
    return [r for r in rows if tuple(r[n] for n in ("split", "split_seed", "probe")) == first]


def _pairs(
    result: "BenchResult", names: Sequence[str], rows: dict[str, Row]
) -> dict[tuple[int, int], float]:
    """Return the p-values of paired differences within a task; none of rows of several seeds."""

    def p(first: int, second: int) -> float | None:
        pair = [rows.get(names[one]) for one in (first, second)]
        if not result.given or any(row is None or JOINT in row["run"] for row in pair):
            return None
        return result.difference(*(row for row in pair if row is not None)).p

    return within_task(len(names), p)
