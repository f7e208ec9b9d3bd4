"""`urban bench` as a user calls it: formats, comparisons, locks, gaps, going on after a kill."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Town, Urban
from urbancli.bench.run import read_result
from urbancli.report.tables import read_csv
from urbancli.workspace import open_parquet, read_json, sha256, write_json

CITY = "synthetic-town"


@pytest.fixture(scope="module")
def copied(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the town that tests may change."""
    folder = tmp_path_factory.mktemp("bench") / "workspace"
    shutil.copytree(town.workspace, folder)
    return folder


def results(workspace: Path) -> set[Path]:
    return set((workspace / "results").glob("bench-*.parquet"))


def test_formats_locks_and_comparisons(copied: Path, urban: Urban) -> None:
    before = results(copied)
    formats = ["--format", "csv", "--format", "markdown", "--format", "latex"]
    done = urban("-w", copied, "bench", "--drop", "pois", *formats)
    assert done.code == 0, done.err
    (first,) = results(copied) - before
    assert read_csv(first.with_suffix(".csv")) == read_result(first)
    assert "urbanfusion" in first.with_suffix(".md").read_text()
    assert r"\toprule" in first.with_suffix(".tex").read_text()
    lock = read_json(first.with_name(f"{first.stem}.lock.json"))
    assert lock["cities"][CITY] and len(lock["runs"]) == 1
    assert str(copied) not in first.with_name(f"{first.stem}.lock.json").read_text()
    assert urban("-w", copied, "bench").code == 0
    (second,) = results(copied) - before - {first}
    told = urban("bench", "--compare", first, second)
    assert told.code == 0 and "0 lie outside the other's interval" in told.out, told.err
    assert "rows are only in the first" in told.out and "in the second" not in told.out
    paired = urban("-w", copied, "bench", "--compare", "urbanfusion", "concatenation", "--json")
    rows = paired.json()
    assert {row["task"] for row in rows} == {"population_density", "cover"}
    assert all(row["low"] is None or row["low"] <= row["difference"] for row in rows)


def test_the_same_benchmark_again_asks_nothing_and_writes_the_same(
    copied: Path, urban: Urban
) -> None:
    before = results(copied)
    assert urban("-w", copied, "bench", "--drop", "naip").code == 0
    (made,) = results(copied) - before or before
    stamps = {p: p.stat().st_mtime_ns for p in (copied / "results/answers").iterdir()}
    digest = sha256(made)
    assert urban("-w", copied, "bench", "--drop", "naip").code == 0
    assert sha256(made) == digest
    assert {p: p.stat().st_mtime_ns for p in (copied / "results/answers").iterdir()} == stamps


def test_places_that_chance_would_leave_with_nothing_are_told(copied: Path, urban: Urban) -> None:
    done = urban("-w", copied, "bench", "--drop-rate", "0.7", "--probe", "ridge")
    assert done.code == 0, done.err
    told = " ".join((done.out + done.err).split())
    read = re.search(r"would lose all keeps one modality; of (\d) that is ([\d.]+)%", told)
    assert read and float(read[2]) == pytest.approx(100 * 0.7 ** int(read[1]), abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--probe", "rigde"), "did you mean ridge"),
        (("--split", "spacial"), "did you mean spatial"),
        (("--format", "xlsx"), "csv"),
        (("--drop-rate", "1.5"), "below 1"),
        (("--noise", "loud"), "is not S or MODALITY=S"),
        (("--stale", "sentinel2"), "MODALITY=CITY"),
        (("--embeddings", "nowhere.parquet"), "no file nowhere.parquet"),
        (("--transfer",), "two cities"),
        (("--few-shot", "10"), "--transfer"),
        (("--noise", "streetview=1"), "nothing of streetview is read here"),
        (("--compare", "urbanfusion", "nobody"), "nobody"),
        (("--compare", "a.parquet", "b.parquet"), "a.parquet"),
        (("--compare", "a.parquet", "counts"), "two .parquet files of results, or two methods"),
        (("--compare", "a.csv", "b.csv"), "two .parquet files of results, or two methods"),
        (("--stale", f"sentinel2={CITY}"), f"{CITY} is scored itself"),
    ],
)
def test_mistakes_are_one_line(
    copied: Path, urban: Urban, arguments: tuple[str, ...], remedy: str
) -> None:
    done = urban("-w", copied, "bench", *arguments)
    assert done.code in {1, 2}, done.out
    assert remedy in done.err.splitlines()[-1] and "Traceback" not in done.err


def test_a_run_that_cannot_be_loaded_is_named_and_the_rest_is_scored(
    copied: Path, urban: Urban, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(copied, workspace)
    runs = [path.parent for path in (workspace / "runs").glob("*/run.json")]
    for run in runs:
        write_json(run / "config.json", {"config": {}})
    done = urban("-w", workspace, "bench", "--city", CITY)
    assert done.code == 3, done.err
    for run in runs:
        assert f"{run.name}: run" in done.err and "`urban train` again" in done.err
    assert "concatenation" in done.out and "urbanfusion" not in done.out


def test_what_has_no_score_is_told_with_exit_code_3(
    copied: Path, urban: Urban, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(copied, workspace)
    source = open_parquet(workspace / f"data/{CITY}/places.parquet")[0]
    with source:
        table = source.read(["lon", "lat"]).to_pylist()
    lines = [f"{row['lat']},{row['lon']},7" for row in table]
    (tmp_path / "same.csv").write_text("\n".join(["lat,lon,v", *lines]) + "\n")
    label = f"same={tmp_path / 'same.csv'}:v"
    assert urban("-w", workspace, "fetch", "--city", CITY, "--label", label).code == 0
    done = urban("-w", workspace, "bench")
    assert done.code == 3, done.err
    assert f"{CITY}/same: not scored: task 'same' has the same value" in done.err
    assert "population_density" in done.out


def test_a_killed_benchmark_goes_on_and_ends_as_if_it_had_not_been(
    copied: Path, tmp_path: Path
) -> None:
    """Killed as soon as it has answered something; every file it left is whole."""
    workspace = tmp_path / "workspace"
    shutil.copytree(copied, workspace, ignore=shutil.ignore_patterns("results"))
    command = [sys.executable, "-m", "urbancli", "-w", str(workspace), "bench"]
    command += ["--drop", "naip"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    answers = workspace / "results/answers"
    while process.poll() is None and len(list(answers.glob("*.parquet"))) < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = sorted(answers.glob("*.parquet"))
    assert left and not results(workspace)
    stamps = {}
    for path in left:
        open_parquet(path)[0].close()
        stamps[path] = path.stat().st_mtime_ns
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    # What is of labels that are answered one by one is not asked again.
    assert any(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    (made,) = results(workspace)
    shutil.rmtree(workspace / "results")
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert {path.name for path in results(workspace)} == {made.name}
