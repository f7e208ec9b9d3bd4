"""Several trainings of one method that differ in their seed: one more row, for the method itself.

A row of one run says how good that training is; the row of its seeds says how good the method is,
over cities of this law and over trainings: intervals hold the spread between seeds too.
"""

from collections.abc import Sequence

import numpy as np

from urbancli.bench.contestants import UNTRAINED
from urbancli.bench.controls import CONCATENATION
from urbancli.bench.evaluation import Answers, Exam, Floats, Mask, bounded, group_sums, metric_of
from urbancli.bench.rows import Row, interval_columns
from urbancli.bench.statistics import Interval, difference_over_seeds, over_seeds

WHOSE = ("method", "preset", "settings", "pretraining", "folds")
"""Columns in which trainings of one method are equal."""

WHAT = ("drop", "drop_at", "imputation")
"""Columns in which rows of one paper are of one condition."""

JOINT = "+"
"""Between the names of the runs that a row of several seeds is of."""


def seed_rows(rows: Sequence[Row], exam: Exam) -> list[Row]:
    """Return a row for every method of which several seeds were trained, and condition.

    Args:
        rows: of one paper, with the answers behind them (`_given`) and, of runs, `_beside`, the
            settings of the concatenation that they are compared with.
        exam: of the paper.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row["run"] and row["method"] != UNTRAINED and row.get("_given") is not None:
            key = tuple(row[name] for name in (*WHOSE, *WHAT))
            groups.setdefault(key, []).append(row)
    return [
        _row(group, rows, exam)
        for group in groups.values()
        if len({row["seed"] for row in group}) > 1
    ]


def _row(group: Sequence[Row], rows: Sequence[Row], exam: Exam) -> Row:
    """Return the row of trainings with several seeds."""
    first = group[0]
    condition = [first[name] for name in WHAT]
    alike = [row for row in rows if [row[name] for name in WHAT] == condition]
    alike = [row for row in alike if row.get("_given") is not None]
    runs = [row["run"] for row in group]
    other = {
        "concatenation": [
            row
            for row in alike
            if (row["method"], row["settings"]) == (CONCATENATION, first["_beside"])
        ],
        "untrained": [row for row in alike if row["method"] == UNTRAINED and row["run"] in runs],
    }
    found = _score(group, exam)
    row = {
        **first,
        **interval_columns(found, "value", "low", "high"),
        "run": JOINT.join(runs),
        "settings": ", ".join(filter(None, [first["settings"], f"{len(group)} seeds"])),
        "seed": None,
        "warning": found.warning,
        "note": _notes(group),
        "imputed": max(one["imputed"] for one in group),
        "_given": None,
    }
    for name in ("inflation", "retention", "seconds", "difference_full"):
        values = [one[name] for one in group]
        row[name] = None if None in values else float(np.mean(values))
    row |= dict.fromkeys(("difference_full_low", "difference_full_high"))
    if row["retention"] is not None:
        row["_triple"] = tuple(np.mean([one["_triple"] for one in group], axis=0))
    for name, others in other.items():
        key = f"difference_{name}"
        ends = (key, f"{key}_low", f"{key}_high")
        gap = _difference(group, others, exam) if others else None
        row |= dict.fromkeys(ends) if gap is None else interval_columns(gap, *ends)
    return row


def _notes(group: Sequence[Row]) -> str:
    """Return the notes of the seeds' rows: one where all say the same, else whose each is."""
    told = {row["seed"]: row["note"] or "" for row in group}
    if len(set(told.values())) == 1:
        return told[group[0]["seed"]]
    return ". ".join(f"seed {seed}: {note}" for seed, note in told.items() if note)


def _answers(rows: Sequence[Row]) -> list[Answers]:
    return [row["_given"].answers for row in rows]


def _sums(exam: Exam, answers: Sequence[Answers], scored: Mask) -> list[Floats]:
    return [group_sums(exam, one, scored) for one in answers]


def _score(group: Sequence[Row], exam: Exam) -> Interval:
    answers = _answers(group)
    scored = answers[0].scored
    sums, units = _sums(exam, answers, scored), int(scored.sum())
    return bounded(over_seeds(sums, metric_of(exam), units, exam.split.range_in_groups), exam)


def _difference(group: Sequence[Row], others: Sequence[Row], exam: Exam) -> Interval:
    mine, theirs = _answers(group), _answers(others)
    both: Mask = np.logical_and.reduce([one.scored for one in (*mine, *theirs)])
    return difference_over_seeds(
        _sums(exam, mine, both), _sums(exam, theirs, both), metric_of(exam), int(both.sum()),
        exam.split.range_in_groups,
    )  # fmt: skip
