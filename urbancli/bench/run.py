"""`urban bench`: every run and control on every label, with intervals, differences and drops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.bench.controls import (
    Contestant,
    concatenations,
    constant,
    coordinates,
    trained,
    unit_features,
    untrained,
)
from urbancli.bench.evaluation import Answers, Exam, answer_together, at_random
from urbancli.bench.preparation import Material, load_split, prepare, set_exam, split_path
from urbancli.bench.probes.base import probe_for
from urbancli.bench.rows import (
    SCHEMA,
    Row,
    blank,
    comparisons,
    gone_of,
    inflation,
    retention_notes,
    scores,
)
from urbancli.bench.splits import NotScored, Split
from urbancli.bench.tasks.base import in_suite
from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.layers import CityLayers, expand_modalities, open_city
from urbancli.runs import Run, open_run
from urbancli.workspace import Workspace, fingerprint, sha256, write_table

FOLDS = 5

VERSION = 2
"""Raised whenever the same inputs would score otherwise for a reason no other version names."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BenchOptions:
    """What is scored.

    Attributes:
        cities: fetched cities.
        runs: names of runs; None for all of these cities.
        drop: modalities or groups, each dropped by itself in rows of its own.
        seed: of the folds.
        folds: wanted number of folds.
        suite: name of the suite whose tasks are scored; None for all labels.
    """

    cities: tuple[str, ...]
    runs: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    seed: int = 0
    folds: int = FOLDS
    suite: str | None = None


@dataclass(frozen=True)
class BenchResult:
    """What came out.

    Attributes:
        rows: dicts with the fields of `SCHEMA`.
        notes: `{city, task, note}`: counts and warnings; city and task are empty where a note
            is about all.
        path: of the rows as Parquet.
    """

    rows: list[Row]
    notes: list[dict[str, str]]
    path: Path


def _ignore(*_: Any) -> None:
    return None


def bench(workspace: Workspace, options: BenchOptions, progress: Progress = _ignore) -> BenchResult:
    """Score runs and controls on the labels of cities; write `results/bench-….parquet`.

    Args:
        workspace: with `data/` and `runs/`.
        options: what.
        progress: told (what, done, total).

    Raises:
        UsageError: an unknown city, run or modality.
        UrbanError: nothing can be scored, or embeddings are not finite.
    """
    expand_modalities(options.drop)
    names = workspace.runs() if options.runs is None else list(dict.fromkeys(options.runs))
    runs = [open_run(workspace, name) for name in names]
    for run in runs:
        if options.runs is not None and run.city not in options.cities:
            raise UrbanError(f"{run.name} is a run of '{run.city}': add --city {run.city}")
    rows: list[Row] = []
    notes: list[dict[str, str]] = []
    pins: list[Any] = [VERSION, options.drop]
    for key in options.cities:
        mine = [run for run in runs if run.city == key]
        stage = _open_stage(open_city(workspace, key), mine, options, progress)
        for mark in stage.city.marks().values():
            notes.append({"city": "", "task": "", "note": f"{key} is {mark}"})
        pins.append(stage.pins(mine))
        papers = [_set_paper(stage, name) for name in _labels(workspace, key, options.suite)]
        for paper, done in zip(papers, _score_papers(stage, papers), strict=True):
            rows += done
            pins.append(paper.pins)
            notes += [{"city": key, "task": paper.name, "note": text} for text in paper.notes]
        if not mine:
            text = f"no run to score: `urban train --city {key}` makes one"
            notes.append({"city": key, "task": "", "note": text})
    _refuse_nothing(rows, options)
    notes += [{"city": "", "task": "", "note": text} for text in retention_notes(rows)]
    rows = [{name: row[name] for name in SCHEMA.names} for row in rows]
    path = workspace.results_dir() / f"bench-{fingerprint(pins)}.parquet"
    write_table(path, pa.Table.from_pylist(rows, schema=SCHEMA), {"notes": notes})
    return BenchResult(rows, notes, path)


def write_splits(workspace: Workspace, key: str, seed: int = 0, folds: int = FOLDS) -> list[Path]:
    """Write the split files of a city's labels and return their paths.

    Raises:
        UsageError: the city is not fetched.
        UrbanError: it has no labels, or one that cannot be split.
    """
    city = open_city(workspace, key)
    places = city.tiles()
    names = workspace.labels(key)
    if not names:
        raise UrbanError(f"'{key}' has no labels: `urban fetch --city {key} --label NAME=FILE`")
    for name in names:
        try:
            load_split(city, prepare(city, places, name, seed), folds)
        except NotScored as err:
            raise UrbanError(f"label '{name}' of '{key}': {err}") from err
    return [workspace.split_file(key, name, seed) for name in names]


def _refuse_nothing(rows: Sequence[Row], options: BenchOptions) -> None:
    if not rows and options.suite is not None:
        raise UrbanError(
            f"{', '.join(options.cities)}: no label of the suite '{options.suite}'; see `urban "
            "fetch --help` on --label, or leave out --suite"
        )
    if not rows:
        raise UrbanError(
            f"{', '.join(options.cities)}: no labels; give some: `urban fetch --city "
            f"{options.cities[0]} --label NAME=FILE`"
        )
    if all(row["value"] is None for row in rows):
        raise UrbanError(f"nothing can be scored: {rows[0]['task']}: {rows[0]['note']}")


# --- one city --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stage:
    """A city with its contestants."""

    city: CityLayers
    places: Places
    contestants: list[Contestant]
    options: BenchOptions
    progress: Progress

    @property
    def drops(self) -> tuple[str, ...]:
        return ("", *self.options.drop)

    def windows_m(self) -> list[float]:
        """Return how far the encoders of all contestants look, metres."""
        return sorted({one.reach_m for one in self.contestants})

    def pins(self, runs: Sequence[Run]) -> Any:
        """Return what scores depend on, beside labels and splits."""
        folders = [self.city.workspace.run_dir(run.name) for run in runs]
        weights = [
            [sha256(path / name) for name in ("run.json", "model.safetensors")] for path in folders
        ]
        layers = {name: self.city.checksum(name) for name in self.city.modalities()}
        return [self.city.key, weights, layers]


def _open_stage(
    city: CityLayers, runs: Sequence[Run], options: BenchOptions, progress: Progress
) -> _Stage:
    places = city.tiles()
    contestants = [constant(), coordinates(places), *concatenations(city, places, runs)]
    for run in runs:
        contestants += [untrained(run, city, places), trained(run, city, places)]
    return _Stage(city, places, contestants, options, progress)


# --- labels ----------------------------------------------------------------------------------


@dataclass
class _Paper:
    """A label that is put to the contestants; without an exam where it cannot be scored."""

    name: str
    material: Material
    exam: Exam | None = None
    notes: list[str] = field(default_factory=list)
    pins: list[Any] = field(default_factory=list)
    why_not: str = ""

    def fail(self, why: NotScored) -> None:
        """Note why the label is not scored."""
        self.exam, self.why_not = None, f"not scored: {why}"
        self.notes.append(self.why_not)
        self.pins.append(str(why))


def _labels(workspace: Workspace, key: str, suite: str | None) -> list[str]:
    """Return the city's labels, or those of them that a suite names."""
    names = workspace.labels(key)
    return names if suite is None else [name for name in names if in_suite(suite, name)]


def _set_paper(stage: _Stage, name: str) -> _Paper:
    """Return a label with its units, split and training units."""
    material = prepare(stage.city, stage.places, name, stage.options.seed)
    paper = _Paper(name, material, None, list(material.notes))
    paper.pins += [material.pins, probe_for(material.task.kind)[1].VERSION]
    try:
        split = load_split(stage.city, material, stage.options.folds)
        paper.exam = set_exam(material, split, stage.places, stage.windows_m())
    except NotScored as err:
        paper.fail(err)
        return paper
    paper.pins += [split.sha256, stage.windows_m()]
    paper.notes += paper.exam.notes
    return paper


def _score_papers(stage: _Stage, papers: Sequence[_Paper]) -> list[list[Row]]:
    """Return the rows of every label: those with equal units, folds and training units at once."""
    sittings: dict[Any, list[int]] = {}
    for number, paper in enumerate(papers):
        mark = number if paper.exam is None else paper.exam.sitting(paper.material.alignment)
        sittings.setdefault(mark, []).append(number)
    rows: list[list[Row]] = [[] for _ in papers]
    done, total = 0, len(papers) * len(stage.drops) * len(stage.contestants)
    for numbers in sittings.values():
        together = [papers[number] for number in numbers]
        exams = [paper.exam for paper in together if paper.exam is not None]
        try:
            found = _score_sitting(stage, together, exams, (done, total))
        except NotScored as err:
            for paper in together:
                paper.fail(err)
            exams = []
        if not exams:
            found = [_unscored(stage, paper) for paper in together]
        for number, part in zip(numbers, found, strict=True):
            rows[number] = part
        done += len(together) * len(stage.drops) * len(stage.contestants)
    stage.progress(f"bench {stage.city.key}", done, total)
    return rows


def _unscored(stage: _Stage, paper: _Paper) -> list[Row]:
    return [
        blank(stage.city.key, paper.material, contestant, drop, paper.why_not)
        for drop in stage.drops
        for contestant in stage.contestants
    ]


def _score_sitting(
    stage: _Stage, papers: Sequence[_Paper], exams: Sequence[Exam], progress: tuple[int, int]
) -> list[list[Row]]:
    """Return, per label, a row for every contestant and drop; the full ones come first."""
    contestants, modalities = stage.contestants, stage.city.modalities()
    answers: list[dict[tuple[int, str], Answers]] = [{} for _ in papers]
    rows: list[list[Row]] = [[] for _ in papers]
    for drop in stage.drops if exams else ():
        for index, contestant in enumerate(contestants):
            stage.progress(
                f"bench {stage.city.key}", progress[0] + sum(map(len, rows)), progress[1]
            )
            asked: dict[tuple[int, ...] | None, list[int]] = {}
            for number, (paper, exam) in enumerate(zip(papers, exams, strict=True)):
                folds, why_not = _folds(contestant, paper.material, exam.split, stage)
                why_not = why_not or (contestant.why_not(drop, modalities) if drop else "")
                note = why_not and f"n/a: {why_not}"
                rows[number].append(blank(stage.city.key, paper.material, contestant, drop, note))
                if not why_not:
                    asked.setdefault(folds, []).append(number)
            for folds, numbers in asked.items():
                gone = gone_of(contestant, drop)
                features = unit_features(contestant, papers[0].material.alignment, gone)
                found = answer_together([exams[number] for number in numbers], features, folds)
                for number, given in zip(numbers, found, strict=True):
                    mine = answers[number]
                    mine[index, drop] = given
                    rows[number][-1] |= scores(exams[number], given, folds)
                    rows[number][-1] |= comparisons(exams[number], contestants, mine, index, drop)
                if not drop and folds is None:
                    flattering = [
                        at_random(exams[number], stage.options.seed) for number in numbers
                    ]
                    found = answer_together(flattering, features)
                    for number, exam, given in zip(numbers, flattering, found, strict=True):
                        row = rows[number][-1]
                        row |= inflation(exam, given, row["value"])
    return rows


def _folds(
    contestant: Contestant, material: Material, split: Split, stage: _Stage
) -> tuple[tuple[int, ...] | None, str]:
    """Return the folds a contestant may be scored on (None: all), and why not at all."""
    if contestant.mismatch:
        return (), f"{contestant.mismatch} since it was trained: train it again"
    held = contestant.hold_out
    if held is None:
        return None, ""
    label = material.pins["label"]
    if held["label"] != label:
        return (), f"held out test units of {held['label']}, not of {label}"
    if held["sha256"] != split.sha256:
        path = split_path(stage.city, material)
        return (), f"held out another split: train with --hold-out-split {path}:{held['fold']}"
    return (int(held["fold"]),), ""
