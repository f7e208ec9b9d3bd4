"""`urban reproduce`: a project made from urban.toml, its lock run again, and what breaks it."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Urban
from urbancli.workspace import Workspace, read_table

ROOT = Path(__file__).parents[2]

TOML = """
[project]
cities = ["demo"]
[train]
methods = ["urbanfusion"]
set = ["epochs=5"]
[encoders]
entities = "tagcounts"
[bench]
suite = "cookie"
drop = ["satellite"]
probes = ["ridge"]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> Path:
    """A workspace with the files of the city of 100 tiles and an urban.toml; nothing else yet."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(demo_inputs, folder / "inputs/demo")
    (folder / "urban.toml").write_text(TOML)
    return folder


@pytest.fixture
def made(project: Path, urban: Urban) -> Path:
    """The lock of the project, made by the first test that asks; the workspace is as it left it."""
    if not list(project.glob("results/*.lock.json")):
        done = urban("-w", project, "reproduce", project / "urban.toml")
        assert done.code == 0, done.err
        assert "SYNTHETIC" in done.out and "lock: " in done.err
    (lock,) = project.glob("results/*.lock.json")
    return lock


def rewritten(lock: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Return a copy of a lock with something else in it."""
    content = json.loads(lock.read_text())
    change(content)
    path = folder / "tampered.lock.json"
    path.write_text(json.dumps(content))
    return path


def bare(project: Path, folder: Path) -> Path:
    """Return a workspace of the same data, without runs and results."""
    for name in ("inputs", "data"):
        shutil.copytree(project / name, folder / name)
    return folder


def test_the_example_workflow_reproduces_a_lock(
    project: Path, made: Path, urban: Urban, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bare(project, tmp_path))
    shutil.copy(made, "bench.lock.json")
    steps = re.findall(r"- run: urban (.*)", (ROOT / "examples/reproduce.yml").read_text())
    assert steps
    for step in steps:
        done = urban(*shlex.split(step))
        assert done.code == 0, done.err
    rows = len(json.loads(made.read_text())["rows"])
    assert done.out.startswith(f"reproduced: {rows} rows of {made.name.partition('.')[0]}")
    assert len(done.out.splitlines()) == 1
    assert Workspace(tmp_path).runs() == Workspace(project).runs()
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.glob("results/*.lock.json"))


def test_a_broken_score_is_told(project: Path, made: Path, urban: Urban, tmp_path: Path) -> None:
    content = json.loads(made.read_text())
    names = content["columns"]
    value, run, count = (names.index(name) for name in ("value", "run", "n"))
    number = next(n for n, row in enumerate(content["rows"]) if row[run] and row[value])

    def change(lock: dict[str, Any]) -> None:
        lock["rows"][number][value] += 0.01
        lock["rows"][0][count] += 1

    path = rewritten(made, tmp_path, change)
    done = urban("-w", project, "reproduce", path, "--check")
    assert done.code == 5 and "a new --workspace makes all anew" in done.err
    assert done.err.splitlines()[-1].startswith(f"error: 2 of {len(content['rows'])} rows are not")
    assert "−1.0e−02" in done.out and "untrained" in done.out
    assert f"{content['rows'][number][value]:.5f}".replace("-", "−") in done.out
    found = urban("-w", project, "reproduce", path, "--check", "--json").json()
    assert not found["within_tolerance"]
    assert [one["column"] for one in found["differences"]] == ["n", "value"]
    wide = urban("-w", project, "reproduce", path, "--check", "--tolerance", "r2=0.02", "--json")
    assert [one["column"] for one in wide.json()["differences"]] == ["n"] and wide.code == 5
    done = urban("-w", project, "reproduce", path)
    assert done.code == 0 and "not compared" in done.err and not done.out


def test_other_data_are_told_before_anything_is_trained(
    project: Path, made: Path, urban: Urban, tmp_path: Path
) -> None:
    layer = "layers/naip.parquet"
    path = rewritten(
        made, tmp_path, lambda lock: lock["cities"]["demo"]["files"].update({layer: "0" * 64})
    )
    done = urban("-w", project, "reproduce", path, "--check")
    assert done.code == 1 and layer in done.out and "0" * 12 in done.out
    assert "`urban fetch --city demo`" in done.err and "train" not in done.err
    done = urban("-w", project, "reproduce", path, "--check", "--other-data")
    assert done.code == 0 and "going on with them" in done.err and "reproduced" in done.out


def test_what_is_missing_names_its_fetch(made: Path, urban: Urban, tmp_path: Path) -> None:
    def change(lock: dict[str, Any]) -> None:
        lock["cities"]["demo"] |= {"recipe": None, "fetch": "urban fetch --city demo --osm a.pbf"}

    path = rewritten(made, tmp_path, change)
    done = urban("-w", tmp_path / "new", "reproduce", path, "--check", "--json")
    assert done.code == 1 and "`urban fetch --city demo --osm a.pbf`" in done.err
    assert {one["found"] for one in done.json()["data"]} == {"missing"}
    done = urban("-w", tmp_path / "new", "reproduce", path, "--other-data")
    assert done.code == 1 and "urban fetch" in done.err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("none.lock.json",), "no file"),
        (("LOCK", "--tolerance", "r3=0.1"), "choose from r2"),
        (("LOCK", "--tolerance", "r2"), "is not METRIC=T"),
        (("urban.toml", "--check"), "give a result's lock"),
    ],
)
def test_mistakes_name_their_remedy(
    project: Path, made: Path, urban: Urban, arguments: tuple[str, ...], remedy: str
) -> None:
    where = {"LOCK": made, "urban.toml": project / "urban.toml"}
    done = urban("-w", project, "reproduce", *(where.get(one, one) for one in arguments))
    assert done.code in {1, 2} and remedy in done.err.splitlines()[-1]


def test_other_versions_are_told_and_refused_when_asked(
    project: Path, made: Path, urban: Urban, tmp_path: Path
) -> None:
    path = rewritten(made, tmp_path, lambda lock: lock["versions"].update(numpy="1.0"))
    done = urban("-w", project, "reproduce", path, "--check")
    assert done.code == 0 and "(lock: 1.0)" in done.err
    done = urban("-w", project, "reproduce", path, "--check", "--same-versions")
    assert done.code == 1 and "install those" in done.err and not done.out


def test_train_and_bench_take_from_urban_toml(project: Path, made: Path, urban: Urban) -> None:
    done = urban("-w", project, "train")
    assert done.code == 0 and "already trained" in done.err, done.err
    assert (
        "methods urbanfusion; set epochs=5" in done.err and "the cities of urban.toml" in done.err
    )
    done = urban("-w", project, "bench", "--json")
    assert done.code == 0 and "suite cookie; drop satellite; probes ridge" in done.err, done.err
    assert {row["probe"] for row in done.json()["rows"]} == {"ridge"}
    assert f"rows: {made.parent / made.name.partition('.')[0]}.parquet" in done.err


def test_results_and_contestants_are_compared(project: Path, made: Path, urban: Urban) -> None:
    result = made.with_name(f"{made.name.partition('.')[0]}.parquet")
    done = urban("-w", project, "bench", "--compare", result, result)
    assert done.code == 0 and "0 lie outside the other's interval" in done.out, done.err
    names = ("urbanfusion", "concatenation (control, entities=tagcounts)")
    rows = urban("-w", project, "bench", "--compare", *names, "--json").json()
    assert {row["task"] for row in rows} == {"population_density", "crime", "greenness"}
    scores = {(row["method"], row["settings"], row["task"], row["drop_at"]): row["value"]
              for row in read_table(result)[0].to_pylist()}  # fmt: skip
    for row in rows:
        assert row["difference"] == pytest.approx(row["first_value"] - row["second_value"])
        key = ("concatenation", "entities=tagcounts", row["task"], row["drop_at"])
        assert row["second_value"] == scores[key]
    done = urban("-w", project, "bench", "--compare", "urbanfusion", "concatenation")
    assert done.code == 2 and "names several: give one of" in done.err.splitlines()[-1]


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [2.0, 6.0, 10.0, 14.0, 18.0])
def test_killed_at_any_moment_the_next_run_goes_on(
    made: Path, tmp_path: Path, seconds: float
) -> None:
    command = [sys.executable, "-m", "urbancli", "-w", str(tmp_path), "reproduce", str(made)]
    process = subprocess.Popen([*command, "--check"], stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 0 and "reproduced" in done.stdout, done.stderr
    assert not list(tmp_path.rglob("*.part"))
