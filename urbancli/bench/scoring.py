"""Papers and contestants to rows: who answers what, from the book of answers where it can be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.answers import AnswerBook
from urbancli.bench.contestants import Contestant
from urbancli.bench.controls import CONCATENATION
from urbancli.bench.evaluation import Answers, Exam, answer_spoilt, answer_together, at_random
from urbancli.bench.imputation import Imputer
from urbancli.bench.papers import Paper
from urbancli.bench.rows import Row, blank, comparisons, inflation, scores
from urbancli.bench.seeds import seed_rows
from urbancli.bench.splits.base import NotScored
from urbancli.bench.stress import Condition
from urbancli.bench.sweeps import chosen_rows
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.spoiling import VERSION as SPOILING_VERSION
from urbancli.spoiling import WHOLE
from urbancli.workspace import fingerprint

Progress = Callable[[str, int, int], None]

AHEAD_BYTES = 256 << 20
"""Spoilt features that one fit is asked about at a time."""

RANDOM_SEED = 0
"""Of the random folds that a spatial score is compared with: the same draw for all."""


@dataclass
class Stage:
    """A city with its contestants and what they are asked.

    Attributes:
        city: a fetched city.
        places: its tiles.
        contestants: all; the untrained twin of a run stands right before it.
        conditions: what is missing; the first is nothing.
        book: of answers.
        progress: told (what, done, total).
    """

    city: CityLayers
    places: Places
    contestants: list[Contestant]
    conditions: Sequence[Condition]
    book: AnswerBook
    progress: Progress

    def identity(self, contestant: Contestant, condition: Condition) -> Any:
        """Return all that a contestant's features depend on beside the units, JSON-able."""
        city = [self.city.key, fingerprint([self.places.grid.epsg, *self.places.place_id.tolist()])]
        layers = {
            name: self.city.checksum(name)
            for name in contestant.modalities
            if name in self.city.modalities()
        }
        spoiling = condition.spoiling
        read = tuple(name for name in spoiling.gone if name in contestant.modalities)
        stale = {key: self._checksums(key) for _, key in spoiling.stale}
        done = [vars(replace(spoiling, gone=read)), SPOILING_VERSION if spoiling != WHOLE else 0]
        spoilt = [*done, stale, condition.at, condition.imputation]
        return [city, layers, contestant.identity, spoilt]

    def _checksums(self, key: str) -> list[Any]:
        files = self.city.workspace.listed_files(key)
        return sorted((name, entry["sha256"]) for name, entry in files.items())


@dataclass(frozen=True)
class Given:
    """The answers behind a row, for what compares it with others.

    Attributes:
        exam: what was asked.
        answers: to it.
    """

    exam: Exam
    answers: Answers

    @staticmethod
    def of(
        paper: Paper, answers: Mapping[tuple[int, Condition], Answers], row: Row
    ) -> "Given | None":
        """Return those behind a row of a paper; None where it has no score."""
        at = row.pop("_answer", None)
        return None if at is None or paper.exam is None else Given(paper.exam, answers[at])


def score_papers(stage: Stage, papers: Sequence[Paper]) -> list[Row]:
    """Return the rows of all papers, in their order, then by condition and contestant.

    Labels with equal units, folds and training units are answered at once.
    """
    sittings: dict[Any, list[int]] = {}
    for number, paper in enumerate(papers):
        mark: Any = number
        if paper.exam is not None:
            mark = paper.exam.sitting(paper.material.alignment)
        sittings.setdefault(mark, []).append(number)
    rows: dict[int, list[Row]] = {}
    done, total = 0, len(papers) * len(stage.conditions) * len(stage.contestants)
    for numbers in sittings.values():
        together = [papers[number] for number in numbers]
        sitting = _Sitting(stage, together, (done, total))
        found = sitting.rows()
        for number, part, answers in zip(numbers, found, sitting.answers, strict=True):
            paper = papers[number]
            for row in part:
                row["_given"] = Given.of(paper, answers, row)
            rows[number] = _with_seeds(part, paper)
        done += len(together) * len(stage.conditions) * len(stage.contestants)
    stage.progress(f"bench {stage.city.key}", done, total)
    return [row for number in range(len(papers)) for row in rows[number]]


def _with_seeds(rows: list[Row], paper: Paper) -> list[Row]:
    """Return the rows of a paper with those of sweeps and over seeds, behind their condition's."""
    if paper.exam is None:
        return rows
    every = rows + chosen_rows(rows, paper.exam)
    every += seed_rows(every, paper.exam)
    order = {key: place for place, key in enumerate(dict.fromkeys(map(_condition, rows)))}
    return sorted(every, key=lambda row: order[_condition(row)])


def _condition(row: Row) -> tuple[str, str]:
    return str(row["drop"]), str(row["drop_at"])


def takes(contestant: Contestant, condition: Condition, paper: Paper) -> bool:
    """Return whether a contestant is put to a condition at all.

    Everybody to the whole, and, with the default probe of its kind, to each single drop with the
    probe fitted on what is left; the rest is asked of runs and concatenations. So are single drops
    with other probes, and those alone. What is missing at test is imputed for concatenations, but
    not for every subset.
    """
    if condition == Condition():
        return True
    # A constant and a file of embeddings read no modality that could be missing.
    if not contestant.modalities:
        return False
    if not paper.usual:
        plain = condition.single and condition.at == "both"
        return plain and (contestant.trained or contestant.method == CONCATENATION)
    if condition.imputation:
        few = condition.single or not condition.spoiling.gone
        return few and contestant.blocks is not None and contestant.method == CONCATENATION
    if condition.single and condition.at == "both":
        return True
    gaps_at_test = condition.at == "test" and condition.spoiling.gaps
    if gaps_at_test and contestant.method == CONCATENATION:
        return False  # its missing columns must be filled: see the imputations
    return contestant.trained or contestant.method == CONCATENATION


class _Sitting:
    """Papers that are answered together: their exams share units, folds and training units."""

    def __init__(self, stage: Stage, papers: Sequence[Paper], progress: tuple[int, int]) -> None:
        self._stage, self._papers = stage, papers
        self._exams = [paper.exam for paper in papers if paper.exam is not None]
        self._done, self._total = progress
        self._whole: dict[int, npt.NDArray[np.float32]] = {}
        self._imputers: dict[int, Imputer] = {}
        self._ahead: dict[tuple[Any, Condition], list[Answers]] = {}
        self.answers: list[dict[tuple[int, Condition], Answers]] = [{} for _ in papers]

    def rows(self) -> list[list[Row]]:
        """Return, per paper, a row for every condition and contestant."""
        if self._exams:
            try:
                return self._rows()
            except NotScored as err:
                for paper in self._papers:
                    paper.fail(err)
        stage = self._stage
        return [
            [
                blank(stage.city.key, paper, contestant, stage.conditions[0], paper.why_not)
                for contestant in stage.contestants
            ]
            for paper in self._papers
        ]

    def _rows(self) -> list[list[Row]]:
        """Return the rows by condition, though a contestant answers all of its at once."""
        stage = self._stage
        found: dict[tuple[int, int], list[Row | None]] = {}
        for index, contestant in enumerate(stage.contestants):
            for place, condition in enumerate(stage.conditions):
                stage.progress(f"bench {stage.city.key}", self._done, self._total)
                self._done += len(self._papers)
                if takes(contestant, condition, self._papers[0]):
                    found[place, index] = self._ask(index, condition)
        ordered = [found[key] for key in sorted(found)]
        return [
            [row for asked in ordered if (row := asked[number]) is not None]
            for number in range(len(self._papers))
        ]

    def _ask(self, index: int, condition: Condition) -> list[Row | None]:
        """Return the row of every paper for one contestant and condition; None where it says
        nothing."""
        stage, contestant = self._stage, self._stage.contestants[index]
        rows: list[Row | None] = []
        asked: dict[tuple[int, ...] | None, list[int]] = {}
        for number, (paper, exam) in enumerate(zip(self._papers, self._exams, strict=True)):
            folds, why_not = folds_of(contestant, paper, exam, stage)
            if not why_not and condition.spoiling.gone:
                why_not = contestant.why_not(condition.spoiling, stage.city.modalities())
            note = why_not and f"n/a: {why_not}"
            # That a subset leaves what is not read is no news, that a drop does is.
            single = condition.single and condition.at == "both"
            told = not why_not or single or condition == Condition()
            row = blank(stage.city.key, paper, contestant, condition, note)
            rows.append(row if told else None)
            if not why_not:
                asked.setdefault(folds, []).append(number)
        for folds, numbers in asked.items():
            exams = [self._exams[number] for number in numbers]
            found = self._answers(index, condition, exams, folds)
            for number, exam, given in zip(numbers, exams, found, strict=True):
                mine, own = self.answers[number], rows[number]
                assert own is not None
                mine[index, condition] = given
                own |= {
                    "_answer": (index, condition), "_beside": contestant.beside,
                    "_overrides": contestant.overrides, "_rest": contestant.rest,
                }  # fmt: skip
                own.update(scores(exam, given, folds))
                own.update(comparisons(exam, stage.contestants, mine, index, condition))
            self._inflate(index, condition, folds, numbers, rows)
        return rows

    def _inflate(
        self,
        index: int,
        condition: Condition,
        folds: tuple[int, ...] | None,
        numbers: Sequence[int],
        rows: Sequence[Row | None],
    ) -> None:
        """Set what random folds would add, where all folds of a spatial split were asked."""
        first = self._papers[0]
        exams = [self._exams[number] for number in numbers]
        whole = condition == Condition() and folds is None
        if not (whole and first.usual and exams[0].split.apart):
            return
        flattering = [at_random(exam, RANDOM_SEED) for exam in exams]
        found = self._answers(index, condition, flattering, None)
        for number, exam, given in zip(numbers, flattering, found, strict=True):
            row = rows[number]
            assert row is not None
            row |= inflation(exam, given, row["value"])

    def _answers(
        self,
        index: int,
        condition: Condition,
        exams: Sequence[Exam],
        folds: tuple[int, ...] | None,
    ) -> list[Answers]:
        stage, contestant = self._stage, self._stage.contestants[index]
        first, material = exams[0], self._papers[0].material
        facts = [
            stage.identity(contestant, condition), first.sitting(material.alignment), first.probe,
            first.module.VERSION, folds,
        ]  # fmt: skip

        def give(missing: Sequence[Exam]) -> Sequence[Answers]:
            if condition.at == "test":
                return self._at_test(index, condition, missing, folds)
            return answer_together(missing, self._learnt(index, condition), folds)

        return stage.book.answers(facts, exams, give)

    def _at_test(
        self,
        index: int,
        condition: Condition,
        exams: Sequence[Exam],
        folds: tuple[int, ...] | None,
    ) -> list[Answers]:
        """Return the answers under a condition at test, from one fit for all such conditions.

        Those that follow are answered along with it, as many as `AHEAD_BYTES` hold, and kept.
        """
        key = (index, folds, tuple(exam.question for exam in exams))
        if (key, condition) not in self._ahead:
            stage, whole = self._stage, self._learnt(index, Condition())
            later = stage.conditions[list(stage.conditions).index(condition) :]
            asked = [one for one in later if one.at == "test" and self._asked(index, one)]
            asked = asked[: max(1, AHEAD_BYTES // max(whole.nbytes, 1))]
            tables = [self._tested(index, one, exams) for one in asked]
            found = answer_spoilt(exams, whole, tables, folds)
            self._ahead = {(key, one): given for one, given in zip(asked, found, strict=True)}
        return self._ahead[key, condition]

    def _asked(self, index: int, condition: Condition) -> bool:
        stage, contestant = self._stage, self._stage.contestants[index]
        gone = condition.spoiling.gone
        if gone and contestant.why_not(condition.spoiling, stage.city.modalities()):
            return False
        return takes(contestant, condition, self._papers[0])

    def _learnt(self, index: int, condition: Condition) -> npt.NDArray[np.float32]:
        """Return the features that a probe is fitted on under a condition, (U, D)."""
        contestant, material = self._stage.contestants[index], self._papers[0].material
        if condition == Condition():
            if index not in self._whole:
                self._whole = {index: contestant.on_units(material, WHOLE)}
            return self._whole[index]
        values = contestant.on_units(material, condition.spoiling)
        # Columns of what is gone, empty everywhere, only cost time.
        return values[:, ~np.isnan(values).all(axis=0)]

    def _tested(
        self, index: int, condition: Condition, exams: Sequence[Exam]
    ) -> npt.NDArray[np.float32]:
        """Return the features that units are predicted from under a condition at test, (U, D)."""
        contestant, material = self._stage.contestants[index], self._papers[0].material
        if not condition.imputation:
            return contestant.on_units(material, condition.spoiling)
        assert contestant.blocks is not None
        if index not in self._imputers:
            known = contestant.blocks(material, WHOLE)
            self._imputers = {index: Imputer(exams[0].folds, known)}
        spoilt = contestant.blocks(material, condition.spoiling)
        return self._imputers[index].fill(spoilt, condition.imputation)


def folds_of(
    contestant: Contestant, paper: Paper, exam: Exam, stage: Stage
) -> tuple[tuple[int, ...] | None, str]:
    """Return the folds a contestant may be scored on (None: all), and why not at all."""
    if contestant.mismatch:
        return (), f"{contestant.mismatch} since it was trained: train it again"
    if silent := contestant.reach(paper.material)[0]:
        return (), silent
    held = contestant.hold_out
    if held is None:
        return None, ""
    if held["label"] != paper.name:
        return (), f"held out test units of {held['label']}, not of {paper.name}"
    if held["sha256"] != exam.split.sha256:
        path = stage.city.workspace.split_file(
            stage.city.key, paper.name, paper.split_seed, paper.kind
        )
        return (), f"held out another split: train with --hold-out-split {path}:{held['fold']}"
    return (int(held["fold"]),), ""
