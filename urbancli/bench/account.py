"""The information account: what each modality tells of a task, alone, only itself, and with others.

All scores are held out R²: the exam's own folds, nested selection, ridge regression on frozen
features, and intervals over the exam's groups, paired where several scores are in a quantity. s(S)
is the score on a set S of modalities, M all of them; a constant's is 0. A probe on S may read all
of S or, as the inner folds judge (`_sets`), only one of its modalities, or all of S but one where S
is M: else many blank features beside one that matters would pass for redundancy.

- `alone` s({m}), `without` s(M∖m), `all` s(M) (modality `all`).
- `unique` s(M) − s(M∖m): what only m tells, to a probe that adds.
- `redundant` s({m}) + s(M∖m) − s(M): what of m the others tell too; `alone` is this and `unique`.
  A probe that adds sees no product, so no synergy of that kind is mixed in; where it is below 0 the
  modalities help each other by adding (one tells the other's noise), which no such difference can
  part from redundancy (Williams and Beer 2010, arXiv 1004.2515, on why).
- `synergistic`: what products of two modalities (`_products`) add to s(M) and to the products
  within each modality, which that one tells by itself: of a pair `m×n`, of m with any other, and of
  all pairs (modality `all`).
- `retained` by a run with embedding z, a share: 1 − (s({z, m}) − s({z})) / s({m}); what m
  still adds to the embedding is what was lost of it. What z knows of others counts: it is told.
- `retained unique`: 1 − (s({z} ∪ M) − s({z} ∪ M∖m)) / (s(M) − s(M∖m)), the same of what only m
  tells. Either is given where its denominator surely exceeds 0.02.

A modality `beside` M, as coordinates are, is in none of these sets: its rows are those of M with it
as one more, and it has no products.

Of classes the account is of their probabilities: regressions on the indicators of all classes, and
R² over all of these, which is the Brier skill score against the classes' shares. Macro-F1 does not
add up, and a probe that knows nothing scores more in it than a constant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench._products import Pair, Products
from urbancli.bench._sets import Names, Sets
from urbancli.bench.evaluation import Answers, Exam, group_sums, with_probe
from urbancli.bench.statistics import MIN_GAIN, Interval, interval, r_squared

ALL = "all"
"""In place of a modality: all of them."""

PROBE = "ridge"

Blocks = Mapping[str, npt.NDArray[Any]]
Row = dict[str, Any]
Floats = npt.NDArray[np.float64]


def account(
    exams: Sequence[Exam], blocks: Blocks, embeddings: Blocks, beside: Blocks | None = None
) -> list[Row]:
    """Return the account of exams of one sitting, whatever their probe.

    Args:
        exams: of equal `Exam.sitting`.
        blocks: modality → frozen features of the units (U, D), NaN where missing.
        embeddings: run → its embedding of the units (U, D), likewise.
        beside: what is looked at beside the modalities, likewise.

    Returns:
        Rows of `task, probe, metric, modality, quantity, run, value, low, high, n, groups,
        too_few, warning`.
    """
    found = _Account(exams, blocks, embeddings, beside or {})
    rows = found.additive()
    if len(blocks) > 1:
        rows += found.synergistic()
    for run in embeddings:
        rows += found.retained(run)
    order = {exam.task.name: number for number, exam in enumerate(exams)}
    return sorted(rows, key=lambda row: order[row["task"]])


class _Account:
    """The account of one sitting; see `account`. Of a part m `rest` is M∖m, M where m is beside."""

    def __init__(
        self, exams: Sequence[Exam], blocks: Blocks, embeddings: Blocks, beside: Blocks
    ) -> None:
        self._questions = [_columns(exam) for exam in exams]
        self._blocks = blocks
        self._whole: Names = tuple(blocks)
        self._parts: Names = (*blocks, *beside)
        runs = {_key(run): values for run, values in embeddings.items()}
        columns = [column for question in self._questions for column in question]
        self._sets = Sets(columns, {**blocks, **beside, **runs})
        self._alone = {name: self._sets.best([(name,)]) for name in self._parts}
        self._all = self._sets.best(self._within(self._whole))
        self._without = {
            name: self._sets.best(self._within(rest)) if (rest := self._rest(name)) else None
            for name in self._parts
        }
        self._with = {
            name: self._all if name in blocks else self._sets.best(self._beyond(self._whole, name))
            for name in self._parts
        }

    def _rest(self, name: str) -> Names:
        return tuple(other for other in self._whole if other != name)

    def _within(self, names: Names) -> list[Names]:
        """Return the sets that a probe on some modalities may read."""
        found: list[Names] = [(name,) for name in names]
        if names == self._whole:
            found += [self._rest(name) for name in names]
        return list(dict.fromkeys([*found, names]))

    def _beyond(self, names: Names, more: str) -> list[Names]:
        """Return the sets that a probe on modalities and one block more may read."""
        return [(more,), *self._within(names), (*names, more)]

    def _with_run(self, names: Names, key: str) -> list[Names]:
        """Return the sets that a probe on parts and an embedding may read."""
        own = [name for name in names if name in self._blocks]
        beside = [name for name in names if name not in self._blocks]
        without = self._beyond(tuple(own), beside[0]) if beside else self._within(names)
        return [(key,), *without, *((name, key) for name in names), (*names, key)]

    def _of(self, answers: Sequence[Answers]) -> list[Sequence[Answers]]:
        """Return the answers to the columns of each question."""
        given = iter(answers)
        return [[next(given) for _ in question] for question in self._questions]

    # --- probes that add ---------------------------------------------------------------------

    def additive(self) -> list[Row]:
        """Return the rows of `all`, `alone`, `without`, `unique` and `redundant`."""
        rows = [
            _row(asked, ALL, ALL, combined(asked, [given]))
            for asked, given in zip(self._questions, self._of(self._all), strict=True)
        ]
        for name in self._parts:
            alone = self._of(self._alone[name])
            for asked, mine in zip(self._questions, alone, strict=True):
                rows.append(_row(asked, name, "alone", combined(asked, [mine])))
            without = self._without[name]
            if without is None:
                continue
            others = self._of(without), self._of(self._with[name])
            for asked, mine, rest, both in zip(self._questions, alone, *others, strict=True):
                shared = combined(asked, [mine, rest, both], _redundant)
                rows.append(_row(asked, name, "without", combined(asked, [rest])))
                rows.append(_row(asked, name, "unique", combined(asked, [both, rest], _gain)))
                rows.append(_row(asked, name, "redundant", shared))
        return rows

    # --- products ----------------------------------------------------------------------------

    def synergistic(self) -> list[Row]:
        """Return what products of modalities add, for all, for each modality and each pair."""
        names = self._whole
        left_over = self._sets.left_over(self._within(names))
        products = Products(self._sets.folds, self._blocks, left_over)
        own: list[Pair] = [(name, name) for name in names]
        pairs = list(combinations(names, 2))
        asked: dict[str, list[Pair]] = {ALL: pairs}
        for name in names if len(names) > 2 else ():
            asked[name] = [pair for pair in pairs if name in pair]
        asked |= {"×".join(pair): [pair] for pair in pairs}
        before = self._of(self._and(products.predict(own)))
        rows = []
        for name, some in asked.items():
            after = self._of(self._and(products.predict([*own, *some])))
            for question, first, second in zip(self._questions, after, before, strict=True):
                gain = combined(question, [first, second], _gain)
                rows.append(_row(question, name, "synergistic", gain))
        return rows

    def _and(self, told: Floats) -> list[Answers]:
        """Return the answers on all modalities with what else is told (U, T) added."""
        return [
            replace(given, predicted=given.predicted + told[:, number])
            for number, given in enumerate(self._all)
        ]

    # --- what a run retains ------------------------------------------------------------------

    def retained(self, run: str) -> list[Row]:
        """Return which share of what modalities tell the embedding of a run still tells."""
        rows, key = [], _key(run)
        mine = self._of(self._sets.best([(key,)]))
        for name in self._parts:
            alone = self._of(self._alone[name])
            both = self._of(self._sets.best([(key,), (name,), (name, key)]))
            for asked, *told in zip(self._questions, both, mine, alone, strict=True):
                if _surely(combined(asked, told[2:])):
                    rows.append(_row(asked, name, "retained", combined(asked, told, _kept), run))
            rows += self._retained_unique(name, run)
        return rows

    def _retained_unique(self, name: str, run: str) -> list[Row]:
        without, key = self._without[name], _key(run)
        if without is None:
            return []
        given = self._of(self._with[name]), self._of(without)
        sure = [
            _surely(combined(asked, told, _gain))
            for asked, *told in zip(self._questions, *given, strict=True)
        ]
        if not any(sure):
            return []
        every = tuple(dict.fromkeys((*self._whole, name)))
        both = self._of(self._sets.best(self._with_run(every, key)))
        rest = self._of(self._sets.best(self._with_run(self._rest(name), key)))
        return [
            _row(asked, name, "retained unique", combined(asked, told, _kept_of_gain), run)
            for yes, asked, *told in zip(sure, self._questions, both, rest, *given, strict=True)
            if yes
        ]


def _columns(exam: Exam) -> list[Exam]:
    """Return an exam as regressions: as it is, or one on the indicator of each class."""
    exam = with_probe(exam, PROBE)
    if exam.task.kind == "regression":
        return [exam]
    task = replace(exam.task, kind="regression", metric="r2")
    return [
        replace(exam, task=task, target=(exam.target == number).astype(np.float64))
        for number in range(len(exam.classes))
    ]


def _key(run: str) -> str:
    """Return the name of a run's block, which no modality has."""
    return f"run {run}"


def _row(
    asked: Sequence[Exam], modality: str, quantity: str, found: Interval, run: str = ""
) -> Row:
    exam = asked[0]
    return {
        "task": exam.task.name,
        "probe": exam.probe,
        "metric": "brier_skill" if exam.classes else "r2",
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


# --- quantities of several scores ------------------------------------------------------------


def combined(
    asked: Sequence[Exam],
    answers: Sequence[Sequence[Answers]],
    formula: Callable[..., Floats] | None = None,
) -> Interval:
    """Return a formula of the R² of answers, with its paired interval.

    Args:
        asked: the regressions that are one question; their squared errors add up.
        answers: A times answers to each of these.
        formula: of A arrays of R², one where all groups are in or one per group that is out; none
            where A is 1, for the score itself.
    """
    both = np.logical_and.reduce([one.scored for given in answers for one in given])
    parts = [
        np.sum([group_sums(e, a, both) for e, a in zip(asked, given, strict=True)], axis=0)
        for given in answers
    ]
    count, reach = int(both.sum()), asked[0].split.range_in_groups
    if formula is None:
        return interval(parts[0], r_squared, count, reach)

    def total(sums: Floats) -> Floats:
        return np.asarray(formula(*np.moveaxis(r_squared(sums), -1, 0)))

    return interval(np.stack(parts, axis=1), total, count, reach, r_squared)


def _gain(after: Floats, before: Floats) -> Floats:
    return after - before


def _redundant(mine: Floats, rest: Floats, both: Floats) -> Floats:
    return mine + rest - both


def _kept(after: Floats, before: Floats, told: Floats) -> Floats:
    """Return 1 less what a modality adds to an embedding over what it tells alone."""
    return 1 - (after - before) / told


def _kept_of_gain(after: Floats, before: Floats, told: Floats, untold: Floats) -> Floats:
    """Return 1 less what a modality adds to an embedding and others over what it adds to these."""
    return 1 - (after - before) / (told - untold)


def _surely(found: Interval) -> bool:
    return found.low is not None and found.low > MIN_GAIN
