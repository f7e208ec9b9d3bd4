"""From a lock to the same scores: its data compared, its runs trained, its benchmark run again."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urbancli.bench.comparison import asked_text, keyed
from urbancli.bench.contestants import UNTRAINED, title
from urbancli.bench.preparation import load_split, prepare
from urbancli.bench.run import BenchOptions, BenchResult, bench
from urbancli.bench.seeds import JOINT
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.layers import open_city
from urbancli.reproduction.lock import COUNTS, SCORE, WEIGHTS, external_text, versions
from urbancli.runs import HoldOut, Run, RunOptions, create_run
from urbancli.runs.creation import other_run
from urbancli.workspace import Workspace, sha256, write_text

TOLERANCES = {"r2": (1e-4, 0.02), "r2_free": (1e-4, 0.02), "macro_f1": (0.005, 0.04)}
"""How far a score and the ends of its interval may lie from the lock's: of the same weights, or of
none; and of weights that were trained anew and are not the lock's to the bit.

Measured on the demo city (1,600 tiles, urbanfusion `small`, 40 epochs; 100 tiles, 5 epochs): with
another number of threads, or instructions of older processors, scores of controls and untrained
methods move by at most 8e-7 in R², macro-F1 not at all (one unit at the border may flip: 0.005).
Training amplifies rounding: one thread or two moved scores of the run by up to 0.0056 in R² and
0.013 in macro-F1, ends of intervals by 0.007 and 0.017. Allowed is a little over twice that."""

MISSING = "missing"

Bar = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Difference:
    """What is not as the lock says.

    Attributes:
        what: whose row, or which file.
        where: the city, and of a row its task, split, probe and what is missing.
        column: of a row, or `checksum`.
        locked: what the lock says.
        found: what is here.
        tolerance: how far they may be apart; None where they must be equal.
    """

    what: str
    where: str
    column: str
    locked: Any
    found: Any
    tolerance: float | None = None


# --- data ------------------------------------------------------------------------------------


def data_differences(workspace: Workspace, lock: Mapping[str, Any]) -> list[Difference]:
    """Return which files that scores depend on are missing, or not those of a lock.

    Layers that the lock does not know count: the controls would read them.

    Args:
        workspace: with the cities.
        lock: of a result.
    """
    found = []
    for key, pin in lock["cities"].items():
        folder = workspace.city_dir(key)
        here = {f"layers/{name}.parquet": "" for name in workspace.layers(key)}
        for name, locked in {**here, **pin["files"]}.items():
            path = folder / name
            mine = sha256(path) if path.is_file() else MISSING
            if mine != locked:
                found.append(Difference(name, key, "checksum", locked or "no such layer", mine))
    for pin in lock["bench"].get("embeddings", []):
        for name, locked in pin["files"].items():
            path = workspace.root / name
            mine = sha256(path) if path.is_file() else MISSING
            if mine != locked:
                found.append(Difference(name, pin["name"], "checksum", locked, mine))
    return found


def version_notes(lock: Mapping[str, Any]) -> list[str]:
    """Return which packages are of another version than when the lock was written."""
    here = versions()
    return [
        f"{name} {here.get(name, 'missing')} (lock: {locked})"
        for name, locked in sorted(lock["versions"].items())
        if here.get(name) != locked
    ]


# --- runs ------------------------------------------------------------------------------------


def train_again(
    workspace: Workspace, lock: Mapping[str, Any], progress: Bar, say: Callable[[str], None]
) -> list[Run]:
    """Return the runs of a lock, trained where they are not there.

    Args:
        workspace: with the cities.
        lock: of a result.
        progress: told (what, done, total).
        say: given one line about what a user should know.

    Raises:
        UrbanError: the lock is damaged, or does not say how a run's split was made.
    """
    runs = []
    for name, pin in lock["runs"].items():
        city = open_city(workspace, pin["city"])
        method = _method_of(workspace, name, pin, say)
        options = RunOptions(
            preset=pin["preset"],
            seed=pin["seed"],
            overrides=tuple(pin["overrides"]),
            without=tuple(pin["without"]),
            precision=pin["precision"],
            missing=pin.get("missing", 0.0),
            chunk=pin.get("chunk", 0),
            encoders=tuple(pin["encoders"]),
            hold_out=pin["hold_out"] and _hold_out(workspace, name, pin["city"], pin["hold_out"]),
        )
        if fault := other_run(workspace, city, method, options):
            raise UrbanError(
                f"{fault}, and is not what the lock pins: give --workspace a folder of its own, "
                "and this run stays"
            )
        runs.append(create_run(workspace, city, method, options, progress, say))
    return runs


def _method_of(
    workspace: Workspace, name: str, pin: Mapping[str, Any], say: Callable[[str], None]
) -> str:
    """Return a run's method as `urban train` takes it; a user's own is written from the lock."""
    if pin["source"] is None:
        return str(pin["method"])
    code = hashlib.sha256(pin["source"].encode()).hexdigest()
    if code != pin["method_sha256"]:
        raise UrbanError(
            f"the code of {pin['method']} in the lock is not what its checksum says: take the "
            "lock anew from whoever wrote it"
        )
    stem = pin["method"].removeprefix("./").rpartition("-")[0]
    path = workspace.method_file(stem, code)
    if not path.is_file() or sha256(path) != code:
        write_text(path, pin["source"])
    say(f"{name}: the lock brings its method's code, which is run: {path}")
    return str(path)


def _hold_out(workspace: Workspace, name: str, key: str, held: Mapping[str, Any]) -> HoldOut:
    """Return the split file and fold that a run holds out; the file is made where it is missing."""
    if held["kind"] is None:
        raise UrbanError(
            f"the lock does not say how the split of {held['label']} was made that {name} held "
            "out: its file was gone when the lock was written; write the lock anew with it"
        )
    city = open_city(workspace, key)
    material = prepare(city, city.tiles(), held["label"])
    load_split(city, material, held["kind"], held["seed"], held["folds"])
    path: Path = workspace.split_file(key, held["label"], held["seed"], held["kind"])
    return path, int(held["fold"])


def trained_anew(lock: Mapping[str, Any], runs: Sequence[Run]) -> set[str]:
    """Return the runs of a lock, by their names in it, whose weights are not the same to the bit.

    Args:
        lock: of a result.
        runs: of `train_again`.
    """
    return {
        name
        for (name, pin), run in zip(lock["runs"].items(), runs, strict=True)
        if run.facts["files"][WEIGHTS]["sha256"] != pin["weights_sha256"]
    }


def input_notes(lock: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """Return what of code and encoders is not as when the runs of a lock were trained.

    Args:
        lock: of a result.
        runs: of `train_again`.
    """
    notes = []
    for pin, run in zip(lock["runs"].values(), runs, strict=True):
        facts = run.facts
        if facts["method_sha256"] != pin["method_sha256"]:
            notes.append(f"the code of {pin['method']} is not the lock's")
        if facts["data"]["places"] != pin["data"]["places"]:
            notes.append(f"the tiles of {run.city} are not the lock's")
        for modality, locked in pin["data"]["encoders"].items():
            if facts["data"]["encoders"].get(modality) != locked:
                notes.append(f"the encoder of {modality} is not the lock's")
    return list(dict.fromkeys(notes))


# --- scores ----------------------------------------------------------------------------------


def bench_again(
    workspace: Workspace, lock: Mapping[str, Any], runs: Sequence[Run], progress: Bar
) -> BenchResult:
    """Return the result of the benchmark that a lock says, of runs made again.

    Raises:
        UrbanError: it was asked for in a way that this urban does not know.
    """
    asked = {name: _untuple(value) for name, value in lock["bench"].items()}
    if unheard := sorted(set(asked) - {field.name for field in dataclasses.fields(BenchOptions)}):
        raise UrbanError(
            f"the lock asks for {', '.join(unheard)}, which this urban does not know: use "
            f"urbancli {lock['versions'].get('urbancli', 'as in the lock')}"
        )
    asked["embeddings"] = tuple(
        external_text(workspace, pin) for pin in lock["bench"].get("embeddings", [])
    )
    options = BenchOptions(**asked, runs=tuple(run.name for run in runs))
    return bench(workspace, options, progress)


def _untuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def tolerances(lock: Mapping[str, Any], given: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the two tolerances of each metric of a lock, see `TOLERANCES`.

    Args:
        lock: of a result.
        given: `METRIC=T`, for both.

    Raises:
        UsageError: a metric that the lock has not, or no number.
    """
    metrics = dict.fromkeys(row["metric"] for row in lock["rows"])
    found = {metric: TOLERANCES.get(metric, TOLERANCES["r2"]) for metric in metrics}
    for text in given:
        metric, equals, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not equals or not 0 <= value < math.inf:
            raise UsageError(f"'{text}' is not METRIC=T, e.g. r2=0.001")
        if metric not in found:
            raise unknown("metric", metric, found)
        found[metric] = (value, value)
    return found


def score_differences(
    lock: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    allowed: Mapping[str, tuple[float, float]],
    anew: Collection[str] = (),
) -> tuple[list[Difference], int]:
    """Return where scores are not those of a lock, and how many rows it does not know.

    Args:
        lock: of a result.
        rows: of `bench_again`.
        allowed: of `tolerances`; numbers of units and groups must be equal.
        anew: names of runs, as in the lock, whose weights are not the lock's.
    """
    mine, locked = keyed(rows), keyed(lock["rows"])
    found: list[Difference] = []
    for key, row in locked.items():
        other = not set(anew).isdisjoint(row["run"].split(JOINT)) and row["method"] != UNTRAINED
        found += _differences(row, mine.get(key), allowed[row["metric"]][other])
    return found, len(set(mine) - set(locked))


def _differences(
    locked: Mapping[str, Any], row: Mapping[str, Any] | None, allowed: float
) -> Iterator[Difference]:
    who, where = title(locked), asked_text(locked)
    if row is None:
        yield Difference(who, where, "value", locked["value"], MISSING)
        return
    for column in SCORE:
        old, new = locked[column], row[column]
        alike = old is new if old is None or new is None else abs(new - old) <= allowed
        if not alike:
            yield Difference(who, where, column, old, new, allowed)
    for column in COUNTS:
        if locked[column] != row[column]:
            yield Difference(who, where, column, locked[column], row[column])
