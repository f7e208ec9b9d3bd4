"""The transfer matrix: runs and frozen features of each city, asked about each other city."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from urbancli.bench.contestants import Contestant, trained, untrained
from urbancli.bench.controls import constant, transferred
from urbancli.bench.evaluation import Exam, answer_together
from urbancli.bench.papers import Paper
from urbancli.bench.rows import Row, blank, interval_columns
from urbancli.bench.scoring import Stage, folds_of
from urbancli.bench.splits.base import NotScored
from urbancli.bench.stress import Condition
from urbancli.bench.transfer import Crossing, cross, pairs, transfer_scores
from urbancli.errors import UrbanError
from urbancli.runs import Run
from urbancli.spoiling import WHOLE

if TYPE_CHECKING:
    from urbancli.bench.statistics import Interval


def transfer_rows(
    stages: Mapping[str, tuple[Stage, Sequence[Paper]]],
    runs: Sequence[Run],
    few: Sequence[int],
    seed: int,
) -> Iterator[Row]:
    """Yield a row for every label of two cities, contestant, and number of few-shot units.

    Args:
        stages: city → what was scored within it: papers on a spatial split.
        runs: of all cities.
        few: numbers of units of the tested city, beside 0.
        seed: of their draw.

    Raises:
        UrbanError: fewer than two cities share a label.
    """
    told = 0
    for learnt, asked in pairs(list(stages)):
        (here, ours), (there, theirs) = stages[learnt], stages[asked]
        entrants = _entrants(here, there, [run for run in runs if run.city == learnt])
        for mine in filter(_spatial, ours):
            for other in filter(_spatial, theirs):
                if (mine.name, mine.probe) == (other.name, other.probe):
                    for count in (0, *few):
                        told += 1
                        yield from _rows((here, mine), (there, other), entrants, count, seed)
    if not told:
        raise UrbanError(
            "--transfer needs a label of the same name in two cities, scored on a spatial split: "
            "fetch it in another city too"
        )


def _spatial(paper: Paper) -> bool:
    return paper.exam is not None and paper.kind == "spatial"


Entrant = tuple[Contestant, Contestant]
"""A contestant in the city where it learnt, and in the one that it is asked about."""


def _entrants(here: Stage, there: Stage, runs: Sequence[Run]) -> list[Entrant]:
    found: list[Entrant] = [(constant(), constant())]
    found += transferred(here.city, here.places, there.city, there.places)
    for run in runs:
        for make in (untrained, trained):
            pair = (make(run, here.city, here.places), make(run, there.city, there.places))
            found.append((pair[0], replace(pair[1], hold_out=None)))
    return found


def _rows(
    learnt: tuple[Stage, Paper],
    asked: tuple[Stage, Paper],
    entrants: Sequence[Entrant],
    few: int,
    seed: int,
) -> Iterator[Row]:
    (here, mine), (there, other) = learnt, asked
    assert mine.exam is not None and other.exam is not None
    facts = {"train_city": here.city.key, "few_shot": few, "split": "city"}
    try:
        crossing = cross(mine.exam, other.exam, few, seed)
    except NotScored as err:
        for _, contestant in entrants:
            note = f"not scored: {err}"
            yield {**blank(there.city.key, other, contestant, Condition(), note), **facts}
        return
    for first, second in entrants:
        row = {**blank(there.city.key, other, second, Condition(), ""), **facts}
        why_not = folds_of(first, mine, mine.exam, here)[1] or second.mismatch
        if why_not:
            yield {**row, "note": f"n/a: {why_not}"}
            continue
        for metric, found in _scores(learnt, asked, (first, second), crossing).items():
            note = "; ".join(crossing.notes)
            yield {**row, "metric": metric, "note": note, **_columns(other.exam, found)}


def _columns(exam: Exam, found: "Interval") -> Row:
    return {
        **interval_columns(found, "value", "low", "high"),
        "n": found.n,
        "groups": found.groups,
        "too_few": found.too_few,
        "warning": found.warning,
        "group_m": exam.split.group_m,
        "split_sha256": exam.split.sha256,
        "folds": "all",
        "removed": 0.0,
        "imputed": 0,
    }


def _scores(
    learnt: tuple[Stage, Paper],
    asked: tuple[Stage, Paper],
    entrant: Entrant,
    crossing: Crossing,
) -> dict[str, "Interval"]:
    (here, mine), (there, other) = learnt, asked
    facts: Any = [
        "transfer", here.identity(entrant[0], Condition()), there.identity(entrant[1], Condition()),
        [mine.pins, other.pins], crossing.exam.design, crossing.exam.probe,
        crossing.exam.module.VERSION,
    ]  # fmt: skip

    def give(exams: Sequence[Exam]) -> Any:
        parts = [
            one.on_units(paper.material, WHOLE)
            for one, (_, paper) in zip(entrant, (learnt, asked), strict=True)
        ]
        return answer_together(exams, np.concatenate(parts))

    (answers,) = there.book.answers(facts, [crossing.exam], give)
    return transfer_scores(crossing, answers)
