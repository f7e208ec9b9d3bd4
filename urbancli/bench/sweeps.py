"""Several settings of one method: one more row, of the method with its setting chosen.

Which setting is best is chosen fold by fold, by how wrong the probe was where the fold's own
training units judged it (`Predicted.errors`): no test unit has a say, and the row is what a user of
the sweep would have got. The rows of the settings stay beside it; the best of them flatters.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from urbancli.bench.contestants import UNTRAINED
from urbancli.bench.controls import CONCATENATION, CONSTANT
from urbancli.bench.evaluation import Answers, Exam, compare, score
from urbancli.bench.rows import Row, difference_columns, interval_columns, kept_columns
from urbancli.bench.seeds import JOINT, WHAT

WHOSE = ("method", "preset", "seed", "pretraining", "folds", "_rest")
"""Columns in which the settings of a sweep are equal."""


def chosen_rows(rows: Sequence[Row], exam: Exam) -> list[Row]:
    """Return a row for every method, seed and condition of which several settings were trained.

    They set the same keys to other values. A probe that does not say how wrong it was where it was
    judged chooses nothing.

    Args:
        rows: of one paper, with the answers behind them (`_given`) and, of runs, `_overrides` and
            `_rest`, what else tells them from others.
        exam: of the paper.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        given = row.get("_given")
        if row.get("_overrides") and row["method"] != UNTRAINED and given is not None:
            if not given.answers.judged:
                continue
            keys = tuple(sorted(text.partition("=")[0] for text in row["_overrides"]))
            whose = tuple(row[name] for name in (*WHOSE, *WHAT))
            groups.setdefault((*whose, keys), []).append(row)
    found: list[Row] = []
    for group in groups.values():
        if len({row["_overrides"] for row in group}) > 1:
            found.append(_row(group, rows, found, exam))
    return found


def _row(group: Sequence[Row], rows: Sequence[Row], before: Sequence[Row], exam: Exam) -> Row:
    """Return the row of a sweep under one condition; that of the whole is among those before."""
    first = group[0]
    values = [dict(_pair(text) for text in row["_overrides"]) for row in group]
    varied = [key for key in values[0] if len({one[key] for one in values}) > 1]
    answers, picked = _chosen([row["_given"].answers for row in group], exam)
    interval = score(exam, answers)
    fixed = [text for text in first["_overrides"] if _pair(text)[0] not in varied]
    names = [", ".join(f"{key}={one[key]}" for key in varied) for one in values]
    row = {
        **first,
        **interval_columns(interval, "value", "low", "high"),
        **dict.fromkeys(("inflation", "retention", "flops", "peak_mb")),
        "run": JOINT.join(row["run"] for row in group),
        "settings": ", ".join(
            filter(None, [f"{', '.join(varied)} chosen of {len(group)}", *fixed, first["_rest"]])
        ),
        "seconds": sum(row["seconds"] for row in group),
        "imputed": answers.imputed,
        "warning": interval.warning,
        "note": "chosen: "
        + "; ".join(
            f"{names[number]} in {count} of {sum(picked.values())} folds"
            for number, count in picked.most_common()
        ),
        "_given": replace(first["_given"], answers=answers),
        "_overrides": (),
    }
    row.pop("_triple", None)
    for key in row:
        if key.startswith("difference_") and key != "difference_warning":
            row[key] = None
    _compare(row, rows, before, exam)
    return row


def _compare(row: Row, rows: Sequence[Row], before: Sequence[Row], exam: Exam) -> None:
    """Set the differences to the concatenation and to the whole, and the retention."""
    mine = row["_given"].answers
    beside = (CONCATENATION, row["_beside"], *(row[name] for name in WHAT))
    for other in rows:
        settings = (other["method"], other["settings"], *(other[name] for name in WHAT))
        if settings == beside and (given := other.get("_given")) is not None:
            row |= difference_columns("concatenation", compare(exam, mine, given.answers))
    if not row["drop"]:
        return
    floor = next((r["_given"] for r in rows if (r["method"], r["drop"]) == (CONSTANT, "")), None)
    for other in before:
        alike = all(other[name] == row[name] for name in (*WHOSE, "settings"))
        if alike and not other["drop"] and floor is not None:
            row |= kept_columns(exam, mine, floor.answers, other["_given"].answers)


def _chosen(every: Sequence[Answers], exam: Exam) -> tuple[Answers, Counter[int]]:
    """Return of each fold the answers that were judged the least wrong, and how often whose."""
    first = every[0]
    predicted, baseline = first.predicted.copy(), first.baseline.copy()
    picked = Counter[int]()
    for fold in first.judged:
        best = int(np.argmin([one.judged[fold] for one in every]))
        testing = exam.folds[fold].testing
        predicted[testing] = every[best].predicted[testing]
        baseline[testing] = every[best].baseline[testing]
        picked[best] += 1
    imputed = max(one.imputed for one in every)
    late = sum(one.unconverged for one in every)
    return Answers(predicted, baseline, first.scored, imputed, late), picked


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value
