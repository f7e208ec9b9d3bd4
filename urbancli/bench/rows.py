"""The rows of a result: what stands in them, and how they follow from answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from urbancli.bench.contestants import FILE, UNTRAINED, Contestant, title
from urbancli.bench.controls import CONCATENATION, CONSTANT
from urbancli.bench.evaluation import Answers, Exam, compare, plain_score, score
from urbancli.bench.papers import Paper
from urbancli.bench.statistics import Interval, retention, retention_means
from urbancli.bench.stress import Condition

Row = dict[str, Any]

_TEXT, _NUMBER, _WHOLE, _YES = pa.string(), pa.float64(), pa.int64(), pa.bool_()

SCHEMA = pa.schema(
    {
        "city": _TEXT, "train_city": _TEXT, "few_shot": _WHOLE,
        "method": _TEXT, "preset": _TEXT, "run": _TEXT, "settings": _TEXT, "pretraining": _TEXT,
        "task": _TEXT, "task_version": _WHOLE, "split": _TEXT, "split_seed": _WHOLE,
        "split_sha256": _TEXT, "group_m": _WHOLE, "folds": _TEXT, "probe": _TEXT,
        "drop": _TEXT, "drop_at": _TEXT, "imputation": _TEXT, "seed": _WHOLE,
        "metric": _TEXT, "value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "n": _WHOLE,
        "groups": _WHOLE, "too_few": _YES, "removed": _NUMBER, "imputed": _WHOLE, "leak": _TEXT,
        "inflation": _NUMBER, "retention": _NUMBER,
        "difference_full": _NUMBER, "difference_full_low": _NUMBER,
        "difference_full_high": _NUMBER,
        "difference_concatenation": _NUMBER, "difference_concatenation_low": _NUMBER,
        "difference_concatenation_high": _NUMBER,
        "difference_untrained": _NUMBER, "difference_untrained_low": _NUMBER,
        "difference_untrained_high": _NUMBER,
        "params": _WHOLE, "flops": _WHOLE, "seconds": _NUMBER, "peak_mb": _NUMBER,
        "warning": _TEXT, "difference_warning": _TEXT, "note": _TEXT,
    }
)  # fmt: skip
"""A row of a result: one contestant, one task, one split, one probe, one condition.

`train_city` is empty where the probe was fitted in the same city; else it is where the contestant
and the probe learnt, with `few_shot` units of the city itself. `drop` is empty where nothing is
missing, and `drop_at` says where it is: `both` where the probe was fitted on what is left, `test`
where it was fitted on everything; `imputation` how a control's missing features were filled.
`value` is null where there is no score, and `note` says why. `seed` is that of the training;
`removed` the mean over folds of training units that touch a test unit; `inflation` how much higher
the score is with random folds; `difference_full` the score minus that with nothing missing, paired,
as the differences to controls are; `warning` and `difference_warning` say where intervals lie
outside their valid range. `flops` are of embedding one place, `seconds` and `peak_mb` of
training."""

NAMES = tuple(SCHEMA.names)


def blank(city: str, paper: Paper, contestant: Contestant, condition: Condition, note: str) -> Row:
    """Return the row of a contestant before anything is scored.

    Args:
        city: key.
        paper: whose task it is.
        contestant: whose row.
        condition: what is missing.
        note: why there is no score, or nothing.
    """
    task, left = paper.material.task, contestant.left(condition.spoiling.gone)
    return {
        **dict.fromkeys(NAMES),
        "city": city,
        "train_city": "",
        "method": contestant.method,
        "preset": contestant.preset,
        "run": contestant.run,
        "settings": contestant.settings,
        "pretraining": contestant.pretraining,
        "task": task.name,
        "task_version": task.version,
        "split": paper.kind,
        "split_seed": paper.split_seed,
        "probe": paper.probe,
        "drop": condition.spoiling.label,
        "drop_at": condition.at,
        "imputation": condition.imputation,
        "seed": contestant.seed,
        "metric": task.metric,
        "leak": "unknown" if contestant.pretraining == FILE else task.leak(left),
        "params": contestant.parameters,
        "flops": contestant.flops,
        "seconds": contestant.seconds,
        "peak_mb": contestant.peak_mb,
        "warning": "",
        "difference_warning": "",
        "note": note,
    }


def scores(exam: Exam, answers: Answers, folds: Sequence[int] | None) -> Row:
    """Return what a row says of its score, interval, units and split."""
    found = score(exam, answers)
    used = range(len(exam.folds)) if folds is None else folds
    late = answers.unconverged
    return {
        "split_sha256": exam.split.sha256,
        "group_m": exam.split.group_m,
        "folds": "all" if folds is None else ",".join(str(fold) for fold in folds),
        **interval_columns(found, "value", "low", "high"),
        "n": found.n,
        "groups": found.groups,
        "too_few": found.too_few,
        "removed": sum(exam.removed[fold] for fold in used) / len(used),
        "imputed": answers.imputed,
        "warning": found.warning,
        "note": f"{late} fits did not converge" if late else "",
    }


def inflation(exam: Exam, answers: Answers, spatial: float | None) -> Row:
    """Return how much higher than on spatial folds a score is on random ones.

    Args:
        exam: of `at_random`.
        answers: to it.
        spatial: the score on spatial folds.
    """
    return {} if spatial is None else {"inflation": plain_score(exam, answers) - spatial}


def interval_columns(found: Interval, value: str, low: str, high: str) -> Row:
    """Return an interval as three columns of a row."""
    return {value: found.value, low: found.low, high: found.high}


Given = Mapping[tuple[int, Condition], Answers]
"""Answers to one exam: of (number of the contestant, condition)."""


def comparisons(
    exam: Exam,
    contestants: Sequence[Contestant],
    answers: Given,
    index: int,
    condition: Condition,
) -> Row:
    """Return the retention of a drop, and the differences to the whole and to the controls.

    Args:
        exam: of one task.
        contestants: all.
        answers: those given so far: of whole modalities all, and this one.
        index: of the contestant.
        condition: what is missing.
    """
    me, mine, row = contestants[index], answers[index, condition], Row()
    numbers = {(one.method, one.settings): number for number, one in enumerate(contestants)}
    whole = Condition()
    if condition != whole and (index, whole) in answers:
        floor = answers[numbers[CONSTANT, ""], whole]
        row |= kept_columns(exam, mine, floor, answers[index, whole])
    if not me.trained:
        return row
    # The untrained twin of a run stands right before it.
    others = {"concatenation": numbers.get((CONCATENATION, me.beside)), UNTRAINED: index - 1}
    for name, other in others.items():
        beside = _beside(condition) if name == "concatenation" else condition
        if other is not None and (other, beside) in answers:
            row |= difference_columns(name, compare(exam, mine, answers[other, beside]))
    return row


def _beside(condition: Condition) -> Condition:
    """Return under which condition a concatenation is compared: its gaps at test are filled."""
    gaps_at_test = condition.at == "test" and condition.spoiling.gaps
    return replace(condition, imputation="mean") if gaps_at_test else condition


def kept_columns(exam: Exam, mine: Answers, floor: Answers, full: Answers) -> Row:
    """Return the retention of a drop, and the difference to the whole.

    Args:
        exam: of one task.
        mine: answers with something missing.
        floor: those of the constant.
        full: those with nothing missing.
    """
    there = replace(floor, scored=floor.scored & full.scored)
    triple = tuple(score(exam, one).value for one in (mine, there, full))
    kept = retention(triple[0], triple[1], triple[2], compare(exam, full, floor))
    gap = difference_columns("full", compare(exam, mine, full))
    return {"retention": kept, "_triple": triple, **gap}


def difference_columns(name: str, found: Interval) -> Row:
    """Return a paired difference to `concatenation`, `untrained` or `full` as columns of a row."""
    key = f"difference_{name}"
    columns = interval_columns(found, key, f"{key}_low", f"{key}_high")
    return {**columns, "difference_warning": found.warning}


def retention_notes(rows: Sequence[Row]) -> list[str]:
    """Return retention over all tasks per contestant and single drop, in words."""
    triples: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["retention"] is not None and not set(row["drop"]) & set("+=:"):
            key = (described(row), row["drop"], row["drop_at"])
            triples.setdefault(key, []).append(row["_triple"])
    notes = []
    for (name, drop, at), found in triples.items():
        means = retention_means(found)
        if means is not None:
            where = " at test only" if at == "test" else ""
            notes.append(
                f"{name} without {drop}{where} keeps {means[0]:.0%} "
                f"(ratio of means; mean of ratios {means[1]:.0%}; n = {means[2]})"
            )
    return notes


def described(row: Row) -> str:
    """Return who a row is of, and how its missing features were filled."""
    filled = f", {row['imputation']} imputed" if row["imputation"] else ""
    return title(row) + filled
