"""`urban bench`: every run and control on every label, with intervals, differences and drops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.bench.controls import (
    Contestant,
    concatenation,
    constant,
    coordinates,
    title,
    trained,
    unit_features,
    untrained,
)
from urbancli.bench.evaluation import Answers, Exam, answer, compare, score
from urbancli.bench.preparation import Material, load_split, prepare, set_exam, split_path
from urbancli.bench.probes.base import probe_for
from urbancli.bench.splits import NotScored, Split
from urbancli.bench.statistics import Interval, retention, retention_means
from urbancli.encoders.base import window_of
from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.layers import CityLayers, expand_modalities, open_city
from urbancli.runs import Run, open_run
from urbancli.workspace import Workspace, fingerprint, sha256, write_table

FOLDS = 5

VERSION = 1
"""Raised whenever the same inputs would score otherwise for a reason no other version names."""

Progress = Callable[[str, int, int], None]
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
        "retention": _NUMBER,
        "difference_concatenation": _NUMBER, "difference_concatenation_low": _NUMBER,
        "difference_concatenation_high": _NUMBER,
        "difference_untrained": _NUMBER, "difference_untrained_low": _NUMBER,
        "difference_untrained_high": _NUMBER,
        "parameters": _WHOLE, "seconds": _NUMBER, "peak_mb": _NUMBER, "note": _TEXT,
    }
)  # fmt: skip
"""A row of a result: one contestant, one task, one drop. `drop` is empty where nothing is dropped;
`value` is null where there is no score, and `note` says why. `seed` is that of the training;
`removed` the mean over folds of training units that touch a test unit; `seconds` and `peak_mb` of
training."""


@dataclass(frozen=True)
class BenchOptions:
    """What is scored.

    Attributes:
        cities: fetched cities.
        runs: names of runs; None for all of these cities.
        drop: modalities or groups, each dropped by itself in rows of its own.
        seed: of the folds.
        folds: wanted number of folds.
    """

    cities: tuple[str, ...]
    runs: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    seed: int = 0
    folds: int = FOLDS


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
        pins.append(stage.pins(mine))
        for number, name in enumerate(workspace.labels(key)):
            done, said, pinned = _score_label(stage, name, number)
            rows += done
            pins.append(pinned)
            notes += [{"city": key, "task": name, "note": text} for text in said]
        if not mine:
            text = f"no run to score: `urban train --city {key}` makes one"
            notes.append({"city": key, "task": "", "note": text})
    _refuse_nothing(rows, options)
    notes += [{"city": "", "task": "", "note": text} for text in _retention_notes(rows)]
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
        modalities = {name for one in self.contestants for name in one.modalities}
        return [window_of(name) for name in sorted(modalities)]

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
    contestants = [constant(), coordinates(places)]
    pooled = concatenation(city, places)
    if pooled is not None:
        contestants.append(pooled)
    for run in runs:
        contestants += [untrained(run, city, places), trained(run, city, places)]
    return _Stage(city, places, contestants, options, progress)


# --- one label -------------------------------------------------------------------------------


def _score_label(stage: _Stage, name: str, number: int) -> tuple[list[Row], list[str], Any]:
    """Return the rows of a label, its notes, and what its scores depend on."""
    material = prepare(stage.city, stage.places, name, stage.options.seed)
    notes = list(material.notes)
    pins = [material.pins, probe_for(material.task.kind)[1].VERSION]
    try:
        split = load_split(stage.city, material, stage.options.folds)
        exam = set_exam(material, split, stage.places, stage.windows_m())
        rows = _score_all(stage, material, exam, number)
    except NotScored as err:
        notes.append(f"not scored: {err}")
        rows = [
            _blank(stage, material, contestant, drop, f"not scored: {err}")
            for drop in stage.drops
            for contestant in stage.contestants
        ]
        return rows, notes, [pins, str(err)]
    notes += exam.notes
    return rows, notes, [pins, split.sha256, stage.windows_m()]


def _score_all(stage: _Stage, material: Material, exam: Exam, number: int) -> list[Row]:
    """Return a row for every contestant and drop; the full ones come first."""
    contestants, modalities = stage.contestants, stage.city.modalities()
    answers: dict[tuple[int, str], Answers] = {}
    rows: list[Row] = []
    per_label = len(contestants) * len(stage.drops)
    labels = len(stage.city.workspace.labels(stage.city.key))
    for drop in stage.drops:
        for index, contestant in enumerate(contestants):
            stage.progress(
                f"bench {stage.city.key}", number * per_label + len(rows), labels * per_label
            )
            folds, why_not = _folds(contestant, material, exam.split, stage)
            why_not = why_not or (contestant.why_not(drop, modalities) if drop else "")
            row = _blank(stage, material, contestant, drop, why_not and f"n/a: {why_not}")
            if not why_not:
                gone = _gone(contestant, drop)
                features = unit_features(contestant, material.alignment, gone)
                answers[index, drop] = answer(exam, features, folds)
                row |= _scores(exam, answers[index, drop], folds)
                row |= _comparisons(exam, contestants, answers, index, drop)
            rows.append(row)
    stage.progress(f"bench {stage.city.key}", (number + 1) * per_label, labels * per_label)
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


def _gone(contestant: Contestant, drop: str) -> tuple[str, ...]:
    """Return the modalities a contestant reads and must do without."""
    gone = expand_modalities([drop]) if drop else []
    return tuple(name for name in contestant.modalities if name in gone)


def _blank(stage: _Stage, material: Material, contestant: Contestant, drop: str, note: str) -> Row:
    """Return the row of a contestant before anything is scored."""
    task = material.task
    left = [name for name in contestant.modalities if name not in _gone(contestant, drop)]
    return {
        **dict.fromkeys(SCHEMA.names),
        "city": stage.city.key,
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


def _scores(exam: Exam, answers: Answers, folds: Sequence[int] | None) -> Row:
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


def _interval(found: Interval, value: str, low: str, high: str) -> Row:
    return {value: found.value, low: found.low, high: found.high}


def _comparisons(
    exam: Exam,
    contestants: Sequence[Contestant],
    answers: dict[tuple[int, str], Answers],
    index: int,
    drop: str,
) -> Row:
    """Return the retention of a drop, and a run's differences to concatenation and untrained."""
    mine, row = answers[index, drop], Row()
    position = {one.method: number for number, one in enumerate(contestants) if not one.run}
    if drop and contestants[index].modalities:
        full, floor = answers[index, ""], answers[position["constant"], ""]
        there = replace(floor, scored=floor.scored & full.scored)
        triple = [score(exam, one).value for one in (mine, there, full)]
        row["retention"] = retention(triple[0], triple[1], triple[2], compare(exam, full, floor))
        row["_triple"] = tuple(triple)
    if not contestants[index].run or contestants[index].method == "untrained":
        return row
    # The untrained twin of a run stands right before it.
    for name, other in (("concatenation", position.get("concatenation")), ("untrained", index - 1)):
        if other is not None and (other, drop) in answers:
            key = f"difference_{name}"
            found = compare(exam, mine, answers[other, drop])
            row |= _interval(found, key, f"{key}_low", f"{key}_high")
    return row


def _retention_notes(rows: Sequence[Row]) -> list[str]:
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
