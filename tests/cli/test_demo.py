"""`urban demo` and `--city demo`: the whole path on 100 tiles, SYNTHETIC in every output."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from osmium import FileProcessor

from tests.cli.conftest import Urban
from urbancli.cli.demo import METHODS
from urbancli.workspace import Workspace, open_parquet, read_json, sha256


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> Path:
    """A workspace with the files of the city of 100 tiles already made."""
    folder = tmp_path_factory.mktemp("demo-workspace")
    shutil.copytree(demo_inputs, folder / "inputs/demo")
    return folder


def test_the_demo_shows_scores_drops_and_truth(workspace: Path, urban: Urban) -> None:
    done = urban("-w", workspace, "demo", "--tiles", "10")
    assert done.code == 0, done.err
    assert "SYNTHETIC" in done.err.splitlines()[0]
    tables = done.out.split("\n\n")
    assert all("SYNTHETIC" in table for table in tables if table.strip())
    for name in ("moisture", "synergy", "concatenation", "urbanfusion", "without satellite"):
        assert name in done.out, name
    for task in ("population_density", "crime", "greenness", "land_use", "factor_chains"):
        assert task in done.out, task
    assert (workspace / "results/demo.png").read_bytes().startswith(b"\x89PNG")


def test_every_file_says_synthetic(workspace: Path, urban: Urban) -> None:
    assert urban("-w", workspace, "demo", "--tiles", "10").code == 0
    paths = [
        p for part in ("data", "splits", "runs") for p in (workspace / part).rglob("*.parquet")
    ]
    assert len(paths) > 30
    for path in paths:
        _, facts = open_parquet(path)
        assert "SYNTHETIC" in str(facts), path
    for run in Workspace(workspace).runs():
        assert "SYNTHETIC" in read_json(workspace / "runs" / run / "run.json")["synthetic"]
    (result,) = (workspace / "results").glob("bench-*.parquet")
    assert b"SYNTHETIC" in pq.read_schema(result).metadata[b"urban"]
    assert read_json(workspace / "data/demo/lock.json")["city"]["origin"] == "synthetic"
    for path in (workspace / "inputs/demo").rglob("*"):
        if path.suffix in {".json", ".geojson", ".csv", ".pbf"} and path.name != "manifest.json":
            content = path.read_bytes()
            marked = b"SYNTHETIC" in content or b'"synthetic": true' in content
            assert marked or path.suffix == ".pbf", path
    header = FileProcessor(str(workspace / "inputs/demo/map.osm.pbf")).header
    assert "SYNTHETIC" in header.get("generator")


def test_the_demo_again_changes_nothing(workspace: Path, urban: Urban) -> None:
    def content() -> dict[str, str]:
        kept = [p for p in workspace.rglob("*") if p.is_file() and not p.name.startswith(".")]
        return {str(p): sha256(p) for p in kept}

    models = sorted((workspace / "runs").glob("*/model.safetensors"))
    trained, before = [model.stat().st_mtime_ns for model in models], content()
    done = urban("-w", workspace, "demo", "--tiles", "10", "--json")
    assert done.code == 0, done.err
    assert done.err.count("already trained") == len(models) == len(METHODS)
    assert [model.stat().st_mtime_ns for model in models] == trained
    assert content() == before
    assert "SYNTHETIC" in done.json()["synthetic"]


def test_demo_is_a_city_like_others(workspace: Path, urban: Urban) -> None:
    done = urban("-w", workspace, "fetch", "--city", "Demo", "--json")
    assert done.code == 0, done.err
    assert done.json()["tiles"] == 100 and done.json()["edge_tiles"] == 0
    mine = workspace / "inputs/demo/labels/perception.csv"
    done = urban("-w", workspace, "fetch", "--city", "demo", "--label", f"calm={mine}:livelier")
    assert done.code == 0 and "SYNTHETIC" in done.out, done.err
    assert "calm" in Workspace(workspace).labels("demo")
    done = urban("-w", workspace, "bench", "--city", "demo", "--suite", "cookie")
    assert done.code == 0 and "SYNTHETIC" in done.out


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("demo", "--tiles", "3"), "give 8 to 100"),
        (("demo", "--tiles", "12"), "another --workspace"),
        (("demo", "--gsd", "0.7"), "give one of"),
        (("demo", "--seed", "-1"), "seed"),
    ],
)
def test_wrong_sizes_are_refused(
    workspace: Path, urban: Urban, arguments: tuple[str, ...], remedy: str
) -> None:
    done = urban("-w", workspace, *arguments)
    assert done.code in {1, 2} and remedy in done.err.splitlines()[-1]


def test_a_folder_of_another_city_is_refused(
    urban: Urban, demo_inputs: Path, tmp_path: Path
) -> None:
    shutil.copytree(demo_inputs, tmp_path / "inputs/demo-3")
    done = urban("-w", tmp_path, "fetch", "--city", "demo-3")
    assert done.code == 1 and "holds demo, not demo-3" in done.err
    assert urban("-w", tmp_path, "fetch", "--city", "demo-0").code == 2
    shutil.copytree(demo_inputs, tmp_path / "inputs/demo")
    (tmp_path / "inputs/demo/truth.json").unlink()
    done = urban("-w", tmp_path, "fetch", "--city", "demo")
    assert done.code == 1 and "move it away" in done.err
    assert not (tmp_path / "data/demo").exists()


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_a_killed_making_leaves_nothing_half(tmp_path: Path, seconds: float) -> None:
    script = (
        "import sys; from pathlib import Path; from urbancli.demo.files import make_inputs;"
        "from urbancli.demo.recipe import Recipe;"
        "make_inputs(Path(sys.argv[1]), Recipe(4, 8, 5.0), lambda *_: None)"
    )
    folder = tmp_path / "inputs/demo-4"
    command = [sys.executable, "-c", script, str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not folder.parent.exists():
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not folder.exists() or (folder / "manifest.json").exists()
    subprocess.run(command, check=True)
    listed = read_json(folder / "manifest.json")["files"]
    assert all(sha256(folder / name) == entry["sha256"] for name, entry in listed.items())
    assert not (folder.parent / ".demo-4.partial").exists()
