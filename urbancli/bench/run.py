"""`urban bench`: every run, control and file on every label, with intervals and with gaps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.bench.accounting import SCHEMA as ACCOUNT_SCHEMA
from urbancli.bench.accounting import accounts
from urbancli.bench.alignment_measures import run_alignment
from urbancli.bench.answers import AnswerBook
from urbancli.bench.contestants import FILE, Contestant, from_file, trained, untrained
from urbancli.bench.controls import CONSTANT, controls, with_coordinates
from urbancli.bench.crossing import transfer_rows
from urbancli.bench.evaluation import compare
from urbancli.bench.external import load_externals
from urbancli.bench.papers import Paper, Setting, set_papers
from urbancli.bench.preparation import load_split, prepare
from urbancli.bench.probes.base import DEFAULTS, load_probe
from urbancli.bench.rows import NAMES, SCHEMA, Row, retention_notes
from urbancli.bench.scoring import Given, Progress, Stage, score_papers
from urbancli.bench.splits._files import load_kind
from urbancli.bench.splits.base import NotScored
from urbancli.bench.statistics import Interval
from urbancli.bench.stress import Condition, conditions, spared_notes
from urbancli.bench.tasks.base import in_suite
from urbancli.bench.transfer import FEW
from urbancli.configs import check_range
from urbancli.errors import UrbanError, UsageError
from urbancli.layers import CityLayers, expand_modalities, open_city
from urbancli.runs import Run, open_run
from urbancli.workspace import Workspace, fingerprint, read_table, write_table

FOLDS = 5

VERSION = 3
"""Raised whenever the same inputs would score otherwise for a reason no other version names."""


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
        splits: kinds of splits.
        probes: names of probes; none for the default of each kind of task.
        subsets: whether every non-empty subset of the modalities is left in turn.
        drop_rates: shares of (place, modality) pairs that go missing at random.
        noise: deviations of noise on frozen features, `S` or `MODALITY=S`.
        stale: `MODALITY=CITY`: another fetch of the same tiles stands for a modality.
        embeddings: `[NAME=]FILE` of anybody's embeddings.
        append_coords: whether every contestant is scored once more with coordinates beside it.
        account: whether the information account of every task is drawn up.
        transfer: whether what is learnt in each city is asked in each other one.
        few_shot: how many units of the other city are learnt from too; none for `transfer.FEW`.
    """

    cities: tuple[str, ...]
    runs: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    seed: int = 0
    folds: int = FOLDS
    suite: str | None = None
    splits: tuple[str, ...] = ("spatial",)
    probes: tuple[str, ...] = ()
    subsets: bool = False
    drop_rates: tuple[float, ...] = ()
    noise: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    append_coords: bool = False
    account: bool = False
    transfer: bool = False
    few_shot: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_range("seed", self.seed, "0 to 2**32 - 1", 0 <= self.seed < 1 << 32)
        check_range("folds", self.folds, "at least 2", self.folds >= 2)
        check_range("few-shot", self.few_shot, "at least 1", all(n >= 1 for n in self.few_shot))
        if not self.splits:
            raise UsageError("no split is asked for: leave splits out for the spatial one")
        for pair in self.stale:
            if (key := pair.rpartition("=")[2]) in self.cities:
                raise UsageError(f"{pair} is no other date: {key} is scored itself, name another")
        if self.few_shot and not self.transfer:
            raise UsageError("--few-shot says how --transfer learns: give --transfer with it")

    @property
    def probe_names(self) -> tuple[str, ...]:
        """Names of the probes: those that are asked for, or the default ones."""
        return tuple(dict.fromkeys(self.probes or DEFAULTS.values()))


@dataclass(frozen=True)
class BenchResult:
    """What came out.

    Attributes:
        rows: dicts with the fields of `SCHEMA`.
        notes: `{city, task, note}`: counts and warnings; city and task are empty where a note
            is about all.
        path: of the rows as Parquet.
        gaps: what was asked and could not be scored, in a line each.
        account: rows of the information account, where it was asked for.
        alignment: rows of `alignment_measures` of every run, with `city` and `run`, likewise.
        given: number of a row → the answers behind it, where it has a score of its own city.
    """

    rows: list[Row]
    notes: list[dict[str, str]]
    path: Path
    gaps: tuple[str, ...] = ()
    account: Sequence[Row] = ()
    alignment: Sequence[Row] = ()
    given: Mapping[int, Given] = field(default_factory=dict)

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {id(row): number for number, row in enumerate(self.rows)}

    def difference(self, first: Row, second: Row) -> Interval:
        """Return the score of one row minus another's of the same exam, paired over units.

        Args:
            first: one of `rows`.
            second: likewise, of the same paper.

        Raises:
            ValueError: they are of other exams.
        """
        one, other = (self.given[self._numbers[id(row)]] for row in (first, second))
        if one.exam is not other.exam:
            raise ValueError("rows of two exams cannot be paired")
        return compare(one.exam, one.answers, other.answers)


def _ignore(*_: Any) -> None:
    return None


def bench(workspace: Workspace, options: BenchOptions, progress: Progress = _ignore) -> BenchResult:
    """Score runs and controls on the labels of cities; write `results/bench-….parquet`.

    Args:
        workspace: with `data/` and `runs/`.
        options: what.
        progress: told (what, done, total).

    Raises:
        UsageError: an unknown city, run, modality, probe or kind of split.
        UrbanError: nothing can be scored, or embeddings are not finite.
    """
    told = _Told([], [], [VERSION])
    runs = _open_runs(workspace, options, told)
    for key in options.cities:
        mine = [run for run in runs if run.city == key]
        _bench_city(workspace, key, mine, options, told, progress)
    if options.transfer:
        few = options.few_shot or FEW
        told.rows.extend(transfer_rows(told.stages, runs, few, options.seed))
        told.pins.append(["transfer", few])
    _refuse_nothing(told.rows, options)
    told.say("", "", retention_notes(told.rows))
    given = {n: one for n, row in enumerate(told.rows) if (one := row.get("_given")) is not None}
    rows = [{name: row[name] for name in NAMES} for row in told.rows]
    path = workspace.results_dir() / f"bench-{fingerprint(told.pins)}.parquet"
    write_table(path, pa.Table.from_pylist(rows, schema=SCHEMA), {"notes": told.notes})
    if options.account:
        table = pa.Table.from_pylist(told.account, schema=ACCOUNT_SCHEMA)
        write_table(path.with_name(f"account-{path.name.removeprefix('bench-')}"), table, {})
        table = pa.Table.from_pylist(told.alignment)
        write_table(path.with_name(f"alignment-{path.name.removeprefix('bench-')}"), table, {})
    return BenchResult(
        rows,
        told.notes,
        path,
        tuple(dict.fromkeys(told.gaps)),
        told.account,
        told.alignment,
        given,
    )


def read_result(path: Path) -> list[Row]:
    """Return the rows of a result's Parquet file.

    Raises:
        UrbanError: it is no such file, or of another version of urban.
    """
    table, _ = read_table(path)
    if table.schema.names != SCHEMA.names:
        raise UrbanError(f"{path} holds no rows of this urban's benchmark: give results/bench-…")
    rows: list[Row] = table.to_pylist()
    return rows


def write_splits(workspace: Workspace, key: str, options: BenchOptions) -> list[Path]:
    """Write the split files of a city's labels and return their paths.

    Raises:
        UsageError: the city is not fetched, or an unknown kind of split.
        UrbanError: it has no labels, or one that cannot be split.
    """
    city = open_city(workspace, key)
    places = city.tiles()
    names = _labels(workspace, key, options.suite)
    if not names:
        raise UrbanError(f"'{key}' has no labels: `urban fetch --city {key} --label NAME=FILE`")
    paths = []
    for name in names:
        material = prepare(city, places, name)
        for kind, seed in _splits(options):
            try:
                load_split(city, material, kind, seed, options.folds)
            except NotScored as err:
                raise UrbanError(f"label '{name}' of '{key}': {err}") from err
            paths.append(workspace.split_file(key, name, seed, kind))
    return paths


@dataclass(frozen=True)
class _Told:
    """What has come out so far."""

    rows: list[Row]
    notes: list[dict[str, str]]
    pins: list[Any]
    gaps: list[str] = field(default_factory=list)
    stages: dict[str, tuple[Stage, list[Paper]]] = field(default_factory=dict)
    account: list[Row] = field(default_factory=list)
    alignment: list[Row] = field(default_factory=list)

    def say(self, city: str, task: str, notes: Sequence[str]) -> None:
        """Add notes about a city and task, each once."""
        for note in notes:
            told = {"city": city, "task": task, "note": note}
            if told not in self.notes:
                self.notes.append(told)


def _open_runs(workspace: Workspace, options: BenchOptions, told: _Told) -> list[Run]:
    """Return the runs asked for; one that this urban cannot load is told, and not scored."""
    expand_modalities(options.drop)
    for name in options.probe_names:
        load_probe(name)
    for kind in options.splits:
        load_kind(kind)
    names = workspace.runs() if options.runs is None else list(dict.fromkeys(options.runs))
    runs = []
    for name in names:
        try:
            run = open_run(workspace, name)
            # A cached property: what cannot be loaded fails here, not in the middle of scoring.
            run.trained  # noqa: B018
        except UrbanError as err:
            if options.runs is not None:
                raise
            told.gaps.append(f"{name}: {err}")
            continue
        if options.runs is not None and run.city not in options.cities:
            raise UrbanError(f"{run.name} is a run of '{run.city}': add --city {run.city}")
        runs.append(run)
    return runs


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


def _bench_city(
    workspace: Workspace,
    key: str,
    runs: Sequence[Run],
    options: BenchOptions,
    told: _Told,
    progress: Progress,
) -> None:
    city = open_city(workspace, key)
    stage = open_stage(city, runs, options, progress)
    told.say("", "", [f"{key} is {mark}" for mark in city.marks().values()])
    most = max((len(one.modalities) for one in stage.contestants if one.trained), default=0)
    told.say(key, "", spared_notes(stage.conditions, most))
    if not runs:
        told.say(key, "", [f"no run to score: `urban train --city {key}` makes one"])
    papers = list(_papers(stage, options))
    _refuse_silent(stage, papers)
    told.stages[key] = (stage, papers)
    told.rows.extend(score_papers(stage, papers))
    if options.account:
        told.account.extend(accounts(stage, papers))
        told.alignment.extend(
            {"city": key, "run": run.name, **row}
            for run in runs
            if not run.mismatch(city)
            for row in run_alignment(run, city, stage.places)
        )
    told.pins.append([
        [stage.identity(one, condition) for one in stage.contestants]
        for condition in stage.conditions
    ])  # fmt: skip
    told.pins.extend([paper.name, paper.pins] for paper in papers)
    for paper in papers:
        told.say(key, paper.name, paper.notes)
        if paper.why_not:
            told.gaps.append(f"{key}/{paper.name}: {paper.why_not}")
    told.gaps.extend(
        f"{one.run}: {one.mismatch} since it was trained: train it again"
        for one in stage.contestants
        if one.mismatch
    )


def _refuse_silent(stage: Stage, papers: Sequence[Paper]) -> None:
    """Refuse a file of embeddings that says nothing of any label of a city."""
    for one in stage.contestants:
        if one.pretraining == FILE and papers:
            reasons = [one.reach(paper.material)[0] for paper in papers]
            if all(reasons):
                raise UrbanError(reasons[0])


def open_stage(
    city: CityLayers, runs: Sequence[Run], options: BenchOptions, progress: Progress = _ignore
) -> Stage:
    """Return a city with its contestants and conditions."""
    places = city.tiles()
    contestants = controls(city, places, runs)
    contestants += [from_file(one, city) for one in load_externals(options.embeddings)]
    for run in runs:
        contestants += [untrained(run, city, places), trained(run, city, places)]
    if options.append_coords:
        contestants += _appended(contestants, places)
    book = AnswerBook(city.workspace.answers_dir())
    read = {name for one in contestants for name in one.modalities}
    asked = conditions(options, [name for name in city.modalities() if name in read])
    return Stage(city, places, contestants, asked, book, progress)


def _appended(contestants: Sequence[Contestant], places: Any) -> list[Contestant]:
    plain = (CONSTANT, "coordinates")
    return [with_coordinates(one, places) for one in contestants if one.method not in plain]


def _labels(workspace: Workspace, key: str, suite: str | None) -> list[str]:
    """Return the city's labels, or those of them that a suite names."""
    names = workspace.labels(key)
    return names if suite is None else [name for name in names if in_suite(suite, name)]


def _splits(options: BenchOptions) -> list[tuple[str, int]]:
    """Return the kind and seed of each split: a protocol has seeds of its own."""
    found = []
    for kind in dict.fromkeys(options.splits):
        seeds = load_kind(kind).SEEDS or (options.seed,)
        found += [(kind, seed) for seed in seeds]
    return found


def _papers(stage: Stage, options: BenchOptions) -> Iterator[Paper]:
    setting = Setting(
        stage.city, stage.places, _splits(options), options.probe_names, options.folds
    )
    for name in _labels(stage.city.workspace, stage.city.key, options.suite):
        material = prepare(stage.city, stage.places, name)
        kinds = {kind for probe in setting.probes for kind in load_probe(probe).KINDS}
        if material.task.kind in kinds:
            yield from set_papers(setting, material, stage.contestants)


__all__ = ["BenchOptions", "BenchResult", "Condition", "bench", "open_stage", "write_splits"]
