"""A lock holds all that its result was made from, and the result follows from it again."""

import json
import shlex
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.conftest import Town, local_fetch
from urbancli.bench.run import BenchOptions, BenchResult, bench, write_splits
from urbancli.errors import UrbanError, UsageError
from urbancli.layers import open_city
from urbancli.reproduction import (
    Difference,
    bench_again,
    data_differences,
    input_notes,
    lock_file,
    read_lock,
    score_differences,
    tolerances,
    train_again,
    trained_anew,
    write_lock,
)
from urbancli.runs import RunOptions, create_run
from urbancli.workspace import Workspace, read_json, sha256, write_json

KEY, LABEL = "synthetic-town", "population_density"

OWN = Path(__file__).parents[1] / "examples/mean_pooling.py"

FEW = ("epochs=1", "width=8")


class Made(NamedTuple):
    """A workspace with a result of a user's own method that held a fold out, and its lock."""

    workspace: Workspace
    options: BenchOptions
    result: BenchResult
    path: Path
    lock: dict[str, Any]


def quiet(*_: Any) -> None:
    return None


def copy_data(source: Workspace, root: Path) -> Workspace:
    shutil.copytree(source.city_dir(KEY), Workspace(root).city_dir(KEY))
    return Workspace(root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, town: Town) -> Made:
    folder = tmp_path_factory.mktemp("lock")
    workspace = copy_data(Workspace(town.workspace), folder / "made")
    options = BenchOptions((KEY,), probes=("ridge",), seed=3)
    for seed in (3, 7):
        write_splits(workspace, KEY, replace(options, seed=seed))
    held = (workspace.split_file(KEY, LABEL, 3), 1)
    how = RunOptions(overrides=FEW, without=("coords",), hold_out=held)
    create_run(workspace, open_city(workspace, KEY), str(OWN), how)
    np.save(folder / "vectors.npy", np.random.default_rng(0).normal(size=(100, 3)))
    asked = BenchOptions(
        (KEY,), drop=("pois",), probes=("ridge",), seed=3,
        embeddings=(f"theirs={folder / 'vectors.npy'}:units={LABEL}",),
    )  # fmt: skip
    result = bench(workspace, asked)
    path = write_lock(workspace, asked, result)
    return Made(workspace, asked, result, path, read_lock(path))


def changed(made: Made, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return the lock with something else in it."""
    lock: dict[str, Any] = json.loads(json.dumps(made.lock))
    change(lock)
    return lock


def where(lock: Mapping[str, Any], **wanted: Any) -> dict[str, Any]:
    """Return the first row of a lock with these values."""
    return next(r for r in lock["rows"] if all(r[name] == v for name, v in wanted.items()))


# --- what it holds ---------------------------------------------------------------------------


def test_a_lock_stands_beside_its_rows_and_says_who_scored_what(made: Made) -> None:
    assert made.path == lock_file(made.result.path)
    assert made.path.name == f"{made.lock['result']}.lock.json"
    assert len(made.lock["rows"]) == len(made.result.rows)
    for locked, row in zip(made.lock["rows"], made.result.rows, strict=True):
        assert locked == {name: row[name] for name in locked}
    (pin,) = made.lock["runs"].values()
    assert pin["source"] == OWN.read_text() and pin["seed"] == 0
    assert pin["hold_out"] == {
        "label": LABEL, "fold": 1, "kind": "spatial", "seed": 3, "folds": 5
    }  # fmt: skip
    assert made.lock["bench"]["seed"] == 3 and made.lock["bench"]["drop"] == ["pois"]
    files = made.lock["cities"][KEY]["files"]
    assert files["layers/naip.parquet"] == sha256(made.workspace.layer_file(KEY, "naip"))
    assert f"labels/{LABEL}.parquet" in files and "labels/cover.parquet" not in files


def test_a_lock_says_nothing_of_where_and_when(made: Made) -> None:
    text = made.path.read_text()
    assert str(made.workspace.root.parent) not in text and "/tmp" not in text
    assert socket.gethostname() not in text and "seconds" not in text
    assert write_lock(made.workspace, made.options, made.result).read_text() == text


def test_the_lock_names_the_fetch_of_its_data(made: Made, town: Town, tmp_path: Path) -> None:
    command = shlex.split(made.lock["cities"][KEY]["fetch"])
    fetch = local_fetch(town.inputs)
    named = {Path(word.rpartition("=")[2]).name for word in fetch if "population" in word}
    assert command[:4] == ["urban", "fetch", "--city", KEY] and "--bbox" in command
    assert f"{LABEL}={named.pop()}:1" in command
    assert {"--osm", "--pois", "map.osm.pbf", "pois.csv"} <= set(command)
    assert sum(word.startswith("naip=") for word in command) == 4
    west, south, east, north = map(float, command[command.index("--bbox") + 1].split(","))
    assert west < -41.13 < east and south < 44.96 < north


@pytest.mark.parametrize(
    "content", ["{}", '{"schema_version": 1, "rows": []}', "[]", "nothing", '{"schema_version": 2}']
)
def test_what_is_no_lock_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bench-1.lock.json"
    path.write_text(content)
    with pytest.raises(UrbanError, match=r"bench-1\.lock\.json"):
        read_lock(path)


def test_a_lock_without_the_checksums_of_a_city_is_refused(made: Made, tmp_path: Path) -> None:
    content = json.loads(made.path.read_text())
    content["cities"] = {}
    path = tmp_path / "bench-1.lock.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UrbanError, match="no lock of a result"):
        read_lock(path)
    with pytest.raises(UrbanError, match="Is a directory"):
        read_lock(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("cities", KEY, "recipe"), None, f"cities.{KEY} lacks recipe"),
        (("cities", KEY, "files"), None, f"cities.{KEY} lacks files"),
        (("runs", 0, "seed"), None, "lacks seed"),
        (("bench", "seed"), "zero", "bench.seed is no int"),
        (("bench", "probes"), "ridge", "bench.probes is no list"),
        (("rows", 0, 19), "abc", "a row's value is no number"),
    ],
)
def test_a_torn_lock_is_told_before_anything_is_done(
    made: Made, tmp_path: Path, path: tuple[Any, ...], value: Any, said: str
) -> None:
    content = json.loads(made.path.read_text())
    at: Any = content
    for step in path[:-1]:
        at = at[list(at)[step]] if isinstance(at, dict) and isinstance(step, int) else at[step]
    last = content["columns"].index("value") if path[0] == "rows" else path[-1]
    if value is None:
        del at[last]
    else:
        at[last] = value
    file = tmp_path / "bench-1.lock.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UrbanError, match=said):
        read_lock(file)


def test_a_run_of_other_code_is_not_trained_over(made: Made, tmp_path: Path) -> None:
    """`urban reproduce` keeps what is there: it asks for a workspace of its own."""
    folder = tmp_path / "workspace"
    shutil.copytree(made.workspace.root, folder)
    (name,) = made.lock["runs"]
    facts = read_json(folder / "runs" / name / "run.json")
    write_json(folder / "runs" / name / "run.json", {**facts, "fingerprint": "older"})
    before = {p.name: sha256(p) for p in (folder / "runs" / name).iterdir()}
    with pytest.raises(UrbanError, match=r"other settings, code or data.*folder of its own"):
        train_again(Workspace(folder), read_lock(made.path), quiet, quiet)
    assert {p.name: sha256(p) for p in (folder / "runs" / name).iterdir()} == before


# --- data ------------------------------------------------------------------------------------


def test_data_are_compared_file_by_file(made: Made, tmp_path: Path) -> None:
    workspace = copy_data(made.workspace, tmp_path)
    vectors = made.workspace.root.parent / "vectors.npy"
    assert data_differences(workspace, made.lock) == [
        Difference("vectors.npy", "theirs", "checksum", sha256(vectors), "missing")
    ]
    shutil.copy(vectors, tmp_path)
    assert data_differences(workspace, made.lock) == []
    (tmp_path / f"data/{KEY}/labels/cover.parquet").unlink()  # nothing was scored on it
    assert data_differences(workspace, made.lock) == []
    pois, naip = (workspace.layer_file(KEY, name) for name in ("pois", "naip"))
    with pois.open("ab") as file:
        file.write(b"x")
    naip.rename(workspace.layer_file(KEY, "sentinel1"))
    found = {one.what: (one.locked, one.found) for one in data_differences(workspace, made.lock)}
    locked = made.lock["cities"][KEY]["files"]
    assert found == {
        "layers/naip.parquet": (locked["layers/naip.parquet"], "missing"),
        "layers/pois.parquet": (locked["layers/pois.parquet"], sha256(pois)),
        "layers/sentinel1.parquet": ("no such layer", locked["layers/naip.parquet"]),
    }


# --- runs and scores -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def again(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Any], Any]:
    """The result of the lock in a workspace that holds the data and nothing else."""
    root = tmp_path_factory.mktemp("again")
    workspace = copy_data(made.workspace, root)
    shutil.copy(made.workspace.root.parent / "vectors.npy", root)
    said: list[str] = []
    runs = train_again(workspace, made.lock, quiet, said.append)
    assert any("the lock brings its method's code" in line for line in said)
    return workspace, runs, bench_again(workspace, made.lock, runs, quiet)


def test_a_result_follows_from_its_lock(made: Made, again: Any) -> None:
    workspace, runs, result = again
    assert workspace.runs() == made.workspace.runs() == [run.name for run in runs]
    assert not trained_anew(made.lock, runs) and not input_notes(made.lock, runs)
    allowed = tolerances(made.lock, ["r2=0"])
    assert score_differences(made.lock, result.rows, allowed) == ([], 0)
    assert result.path.name == made.result.path.name
    method = "./mean-pooling-" + sha256(OWN)[:8]
    assert where(made.lock, method=method, drop="")["pretraining"] == "inductive"
    assert where(made.lock, method="theirs")["value"] is not None


def test_what_is_there_is_kept(made: Made, again: Any) -> None:
    workspace, runs, _ = again
    before = (runs[0].folder / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    train_again(workspace, made.lock, quiet, said.append)
    assert (runs[0].folder / "model.safetensors").stat().st_mtime_ns == before
    assert f"{runs[0].name} is already trained" in said


def test_another_seed_is_another_result(made: Made, again: Any) -> None:
    lock = changed(made, lambda lock: next(iter(lock["runs"].values())).update(seed=1))
    workspace, _, _ = again
    runs = train_again(workspace, lock, quiet, quiet)
    assert trained_anew(lock, runs) == set(lock["runs"])
    result = bench_again(workspace, lock, runs, quiet)
    found, more = score_differences(lock, result.rows, tolerances(lock, []), set(lock["runs"]))
    assert found and {one.found for one in found} == {"missing"} and more
    assert all("untrained" in one.what or "mean-pooling" in one.what for one in found)


def test_scores_may_be_apart_as_far_as_allowed(made: Made) -> None:
    rows, lock = made.result.rows, made.lock
    number = next(n for n, r in enumerate(rows) if r["method"] == "concatenation" and r["low"])
    moved = [{**row} for row in rows]
    moved[number]["value"] += 5e-5
    assert score_differences(lock, moved, tolerances(lock, []))[0] == []
    moved[number]["value"] += 1e-4
    (one,) = score_differences(lock, moved, tolerances(lock, []))[0]
    assert one.column == "value" and one.tolerance == 1e-4 and one.locked == rows[number]["value"]
    assert one.found == moved[number]["value"] and one.where.startswith(f"{KEY} {LABEL} spatial")
    assert score_differences(lock, moved, tolerances(lock, ["r2=0.001"]))[0] == []
    moved[number] |= {"value": rows[number]["value"], "groups": rows[number]["groups"] + 1}
    moved[0]["low"] = None
    found = score_differences(lock, moved, tolerances(lock, ["r2=1e9"]))[0]
    assert [one.column for one in found] == ["low", "groups"]
    moved[number]["value"] = float("nan")
    assert "value" in {o.column for o in score_differences(lock, moved, tolerances(lock, []))[0]}
    found, more = score_differences(lock, rows[1:], tolerances(lock, []))
    assert [one.found for one in found] == ["missing"] and more == 0
    assert score_differences(lock, [*rows, {**rows[0], "drop": "x"}], tolerances(lock, [])) == (
        [],
        1,
    )


def test_weights_trained_anew_may_be_further_apart(made: Made) -> None:
    rows, lock = made.result.rows, made.lock
    (name,) = lock["runs"]
    moved = [{**row} for row in rows]
    for row in moved:
        if row["run"] and row["value"] is not None:
            row["value"] += 0.01
    strict = score_differences(lock, moved, tolerances(lock, []))[0]
    loose = score_differences(lock, moved, tolerances(lock, []), {name})[0]
    assert {one.what.split()[0] for one in strict} > {one.what.split()[0] for one in loose}
    assert {one.what.split()[0] for one in loose} == {"untrained"}


def test_wrong_tolerances_are_refused(made: Made) -> None:
    for text in ("r2", "r2=x", "r2=-1", "r2=nan", "r2=inf", "acc=0.1"):
        with pytest.raises(UsageError):
            tolerances(made.lock, [text])


# --- locks that cannot be followed -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda pin: pin.update(source=pin["source"] + "\nimport os"), "take the lock anew"),
        (lambda pin: pin["hold_out"].update(kind=None), "does not say how the split"),
    ],
)
def test_a_lock_that_cannot_be_followed_says_why(
    made: Made, again: Any, change: Callable[[dict[str, Any]], Any], remedy: str
) -> None:
    lock = changed(made, lambda lock: change(next(iter(lock["runs"].values()))))
    with pytest.raises(UrbanError, match=remedy):
        train_again(again[0], lock, quiet, quiet)


def test_options_of_another_urban_are_not_passed_over(made: Made, again: Any) -> None:
    lock = changed(made, lambda lock: lock["bench"].update(weather="rain"))
    with pytest.raises(UrbanError, match="asks for weather, which this urban does not know"):
        bench_again(again[0], lock, again[1], quiet)


def test_other_code_and_encoders_are_told(made: Made, again: Any) -> None:
    def change(lock: dict[str, Any]) -> None:
        pin = next(iter(lock["runs"].values()))
        pin["method_sha256"] = "0"
        pin["data"]["encoders"]["naip"][0]["version"] += 1

    notes = input_notes(changed(made, change), again[1])
    assert len(notes) == 2 and "code of ./mean-pooling" in notes[0] and "naip" in notes[1]
