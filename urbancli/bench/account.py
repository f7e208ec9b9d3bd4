"""The information account: what each modality tells of a task, alone, only itself, and with others.

All scores are held out: the exam's own folds, nested selection, one probe on frozen features, and
intervals over its groups, paired where a quantity is a difference. With s(S) the score on the
features of a set S of modalities, and M all of them:

- `alone` s({m}), `without` s(M∖m), `all` s(M) (modality `all`).
- `unique` s(M) − s(M∖m): what only m tells, to a probe that adds.
- `redundant` s({m}) + s(M∖m) − s(M): what of m the others tell too. A probe that adds sees no
  product, so no synergy of that kind is mixed in; where it is below 0 the modalities help each
  other by adding (one tells the other's noise), which no such difference can part from redundancy
  (Williams and Beer 2010, arXiv 1004.2515, on why).
- `synergistic`: what products of m with others add to s(M): a probe of products (`_products`) on
  what the additive probe leaves over, for each pair `m×n`, and for m with all others.
- `retained` by a run: how much of what m alone tells its embedding still tells: R² of a probe on
  the embedding for the predictions of m's own probe. `retained unique`: the same for what only m
  tells, the predictions from M minus those from M∖m. Given where s({m}), or the unique part,
  surely exceeds 0.02; such targets are functions of features, so a score of 1 can be reached.

Products and what is retained are of regressions alone: a class has no numbers to multiply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench._products import Products
from urbancli.bench.evaluation import (
    Answers,
    Exam,
    answer_together,
    compare,
    group_sums,
    metric_of,
    score,
)
from urbancli.bench.probes.base import nested
from urbancli.bench.statistics import MIN_GAIN, Interval, interval

ALL = "all"
"""In place of a modality: all of them."""

Blocks = Mapping[str, npt.NDArray[Any]]
Row = dict[str, Any]
Floats = npt.NDArray[np.float64]


def account(exams: Sequence[Exam], blocks: Blocks, embeddings: Blocks) -> list[Row]:
    """Return the account of exams of one sitting.

    Args:
        exams: of equal `Exam.sitting`.
        blocks: modality → frozen features of the units (U, D), NaN where missing.
        embeddings: run → its embedding of the units (U, D), likewise.

    Returns:
        Rows of `task, probe, metric, modality, quantity, run, value, low, high, n, groups,
        too_few, warning`.
    """
    names = list(blocks)
    answers = {name: answer_together(exams, blocks[name]) for name in names}
    answers[ALL] = answer_together(exams, _joined(blocks, names))
    for name in names if len(names) > 1 else ():
        left = [other for other in names if other != name]
        answers[f"-{name}"] = answer_together(exams, _joined(blocks, left))
    rows = [
        row
        for number, exam in enumerate(exams)
        for row in _additive(exam, {key: given[number] for key, given in answers.items()}, names)
    ]
    if exams[0].task.kind == "regression":
        rows += _synergy(exams, blocks, answers[ALL])
        rows += _retained(exams, answers, names, embeddings)
    order = {exam.task.name: number for number, exam in enumerate(exams)}
    return sorted(rows, key=lambda row: order[row["task"]])


def _joined(blocks: Blocks, names: Sequence[str]) -> npt.NDArray[Any]:
    return np.concatenate([blocks[name] for name in names], axis=1)


def _row(exam: Exam, modality: str, quantity: str, found: Interval, run: str = "") -> Row:
    return {
        "task": exam.task.name,
        "probe": exam.probe,
        "metric": exam.task.metric,
        "modality": modality,
        "quantity": quantity,
        "run": run,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "groups": found.groups,
        "too_few": found.too_few,
        "warning": found.warning,
    }


# --- probes that add -------------------------------------------------------------------------


def _additive(exam: Exam, answers: Mapping[str, Answers], names: Sequence[str]) -> list[Row]:
    rows = [_row(exam, ALL, ALL, score(exam, answers[ALL]))]
    for name in names:
        rows.append(_row(exam, name, "alone", score(exam, answers[name])))
        rest = answers.get(f"-{name}")
        if rest is not None:
            rows.append(_row(exam, name, "without", score(exam, rest)))
            rows.append(_row(exam, name, "unique", compare(exam, answers[ALL], rest)))
            shared = combined(exam, [answers[name], rest, answers[ALL]], (1, 1, -1))
            rows.append(_row(exam, name, "redundant", shared))
    return rows


def combined(exam: Exam, answers: Sequence[Answers], weights: Sequence[float]) -> Interval:
    """Return a weighted sum of scores with its paired interval: the same groups go at a time."""
    both = np.logical_and.reduce([one.scored for one in answers])
    parts = [group_sums(exam, one, both) for one in answers]
    metric = metric_of(exam)

    def total(sums: Floats) -> Floats:
        each = np.moveaxis(sums, -parts[0].ndim, 0)
        scores = [weight * metric(one) for weight, one in zip(weights, each, strict=True)]
        return np.asarray(np.sum(scores, axis=0))

    reach = exam.split.range_in_groups
    return interval(np.stack(parts, axis=1), total, int(both.sum()), reach, metric)


# --- products --------------------------------------------------------------------------------


def _synergy(exams: Sequence[Exam], blocks: Blocks, whole: Sequence[Answers]) -> list[Row]:
    """Return what products add to the additive probe, for pairs and for each modality."""
    names = list(blocks)
    if len(names) < 2:
        return []
    left_over = _left_over(exams, _joined(blocks, names))
    products = Products(exams[0].folds, blocks)
    pairs = {pair: products.predict(left_over, *pair) for pair in combinations(names, 2)}
    sets = {"×".join(pair): found for pair, found in pairs.items()}
    for name in names if len(names) > 2 else ():
        sets[name] = np.sum([found for pair, found in pairs.items() if name in pair], axis=0)
    rows = []
    for number, (exam, answers) in enumerate(zip(exams, whole, strict=True)):
        for name, found in sets.items():
            more = replace(answers, predicted=answers.predicted + found[:, number])
            rows.append(_row(exam, name, "synergistic", compare(exam, more, answers)))
    return rows


def _left_over(exams: Sequence[Exam], x: npt.NDArray[Any]) -> list[Floats]:
    """Return per fold (U, T) what the additive probe leaves of its training units, each unit from a
    fit that saw neither it nor the fold's test units."""
    first = exams[0]
    target = np.stack([exam.target for exam in exams], axis=1)
    inner, owner = [], []
    for number, fold in enumerate(first.folds):
        for run in np.unique(fold.inner[fold.inner >= 0]):
            out = fold.training & (fold.inner == run)
            inner.append(nested(fold.training & ~out, out, first.split.order))
            owner.append(number)
    found = first.module.fit_predict_folds(x, target, inner)
    left = [np.zeros_like(target) for _ in first.folds]
    for number, fold, one in zip(owner, inner, found, strict=True):
        left[number][fold.testing] = target[fold.testing] - one.values.reshape(-1, len(exams))
    return left


# --- what a run retains ----------------------------------------------------------------------


def _retained(
    exams: Sequence[Exam],
    answers: Mapping[str, Sequence[Answers]],
    names: Sequence[str],
    embeddings: Blocks,
) -> list[Row]:
    """Return how much of what modalities tell the embeddings of runs still tell."""
    asked: list[tuple[Exam, str, str]] = []
    for number, exam in enumerate(exams):
        for name in names:
            mine = answers[name][number]
            if _surely(compare(exam, mine, _nothing(mine))):
                asked.append((replace(exam, target=mine.predicted), name, "retained"))
            rest = answers.get(f"-{name}")
            if rest is None:
                continue
            whole = answers[ALL][number]
            if _surely(compare(exam, whole, rest[number])):
                only = whole.predicted - rest[number].predicted
                asked.append((replace(exam, target=only), name, "retained unique"))
    if not asked:
        return []
    rows = []
    for run, values in embeddings.items():
        found = answer_together([exam for exam, _, _ in asked], values)
        for (exam, name, quantity), given in zip(asked, found, strict=True):
            rows.append(_row(exam, name, quantity, score(exam, given), run))
    return rows


def _nothing(answers: Answers) -> Answers:
    """Return the answers of a constant to the same units."""
    return replace(answers, predicted=answers.baseline)


def _surely(found: Interval) -> bool:
    return found.low is not None and found.low > MIN_GAIN
