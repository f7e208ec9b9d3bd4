"""The rows of a result: what stands in them, and how they follow from answers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from urbancli.bench.controls import Contestant, title
from urbancli.bench.evaluation import Answers, Exam, compare, plain_score, score
from urbancli.bench.preparation import Material
from urbancli.bench.probes.base import probe_for
from urbancli.bench.statistics import Interval, retention, retention_means
from urbancli.layers import expand_modalities

Row = dict[str, Any]

_TEXT, _NUMBER, _WHOLE, _YES = pa.string(), pa.float64(), pa.int64(), pa.bool_()

SCHEMA = pa.schema(
    {
        "city": _TEXT, "method": _TEXT, "preset": _TEXT, "run": _TEXT, "settings": _TEXT,
        "pretraining": _TEXT,
        "task": _TEXT, "task_version": _WHOLE, "split": _TEXT, "split_sha256": _TEXT,
        "group_m": _WHOLE, "folds": _TEXT, "probe": _TEXT, "drop": _TEXT, "seed": _WHOLE,
        "metric": _TEXT, "value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "n": _WHOLE,
        "groups": _WHOLE, "too_few": _YES, "removed": _NUMBER, "imputed": _WHOLE, "leak": _TEXT,
        "inflation": _NUMBER, "retention": _NUMBER,
        "difference_concatenation": _NUMBER, "difference_concatenation_low": _NUMBER,
        "difference_concatenation_high": _NUMBER,
        "difference_untrained": _NUMBER, "difference_untrained_low": _NUMBER,
        "difference_untrained_high": _NUMBER,
        "parameters": _WHOLE, "seconds": _NUMBER, "peak_mb": _NUMBER, "note": _TEXT,
    }
)  # fmt: skip
"""A row of a result: one contestant, one task, one drop. `drop` is empty where nothing is dropped;
`value` is null where there is no score, and `note` says why. `seed` is that of the training;
`removed` the mean over folds of training units that touch a test unit; `inflation` how much higher
the score is with random folds, null where something is dropped or held out; `seconds` and `peak_mb`
of training."""


def gone_of(contestant: Contestant, drop: str) -> tuple[str, ...]:
    """Return the modalities a contestant reads and must do without."""
    gone = expand_modalities([drop]) if drop else []
    return tuple(name for name in contestant.modalities if name in gone)


def blank(city: str, material: Material, contestant: Contestant, drop: str, note: str) -> Row:
    """Return the row of a contestant before anything is scored."""
    task = material.task
    left = [name for name in contestant.modalities if name not in gone_of(contestant, drop)]
    return {
        **dict.fromkeys(SCHEMA.names),
        "city": city,
        "method": contestant.method,
        "preset": contestant.preset,
        "run": contestant.run,
        "settings": contestant.settings,
        "pretraining": contestant.pretraining,
        "task": task.name,
        "task_version": task.version,
        "split": "spatial",
        "probe": probe_for(task.kind)[0],
        "drop": drop,
        "seed": contestant.seed,
        "metric": task.metric,
        "leak": task.leak(tuple(left)),
        "parameters": contestant.parameters,
        "seconds": contestant.seconds,
        "peak_mb": contestant.peak_mb,
        "note": note,
    }


def scores(exam: Exam, answers: Answers, folds: Sequence[int] | None) -> Row:
    """Return what a row says of its score, interval, units and split."""
    found = score(exam, answers)
    used = range(exam.split.folds) if folds is None else folds
    late = answers.unconverged
    return {
        "split_sha256": exam.split.sha256,
        "group_m": exam.split.group_m,
        "folds": "all" if folds is None else ",".join(str(fold) for fold in folds),
        **_interval(found, "value", "low", "high"),
        "n": found.n,
        "groups": found.groups,
        "too_few": found.too_few,
        "removed": sum(exam.removed[fold] for fold in used) / len(used),
        "imputed": answers.imputed,
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


def _interval(found: Interval, value: str, low: str, high: str) -> Row:
    return {value: found.value, low: found.low, high: found.high}


def comparisons(
    exam: Exam,
    contestants: Sequence[Contestant],
    answers: dict[tuple[int, str], Answers],
    index: int,
    drop: str,
) -> Row:
    """Return the retention of a drop, and a run's differences to concatenation and untrained."""
    mine, row = answers[index, drop], Row()
    position = {
        (one.method, one.encoders): number for number, one in enumerate(contestants) if not one.run
    }
    if drop and contestants[index].modalities:
        full, floor = answers[index, ""], answers[position["constant", ""], ""]
        there = replace(floor, scored=floor.scored & full.scored)
        triple = [score(exam, one).value for one in (mine, there, full)]
        row["retention"] = retention(triple[0], triple[1], triple[2], compare(exam, full, floor))
        row["_triple"] = tuple(triple)
    if not contestants[index].run or contestants[index].method == "untrained":
        return row
    # The untrained twin of a run stands right before it.
    same_tokens = position.get(("concatenation", contestants[index].encoders))
    for name, other in (("concatenation", same_tokens), ("untrained", index - 1)):
        if other is not None and (other, drop) in answers:
            key = f"difference_{name}"
            found = compare(exam, mine, answers[other, drop])
            row |= _interval(found, key, f"{key}_low", f"{key}_high")
    return row


def retention_notes(rows: Sequence[Row]) -> list[str]:
    """Return retention over all tasks per contestant and drop, in words."""
    triples: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["retention"] is not None:
            triples.setdefault((title(row), row["drop"]), []).append(row["_triple"])
    notes = []
    for (name, drop), scores in triples.items():
        means = retention_means(scores)
        if means is not None:
            notes.append(
                f"{name} without {drop} keeps {means[0]:.0%} "
                f"(ratio of means; mean of ratios {means[1]:.0%}; n = {means[2]})"
            )
    return notes
