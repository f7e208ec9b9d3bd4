"""`kill -9` at random moments: nothing partial is taken for whole, and the rerun ends the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from examples.small_city import commands, write_inputs
from urbancli.workspace import sha256

FETCH, TRAIN = 0, 1


def _urban(workspace: Path, arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "urbancli", "--workspace", str(workspace), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _finish(workspace: Path, arguments: list[str]) -> None:
    process = _urban(workspace, arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def _checksums(workspace: Path) -> dict[str, str]:
    """SHA-256 of every finished file that is a function of inputs and seeds (costs are not)."""
    return {
        path.relative_to(workspace).as_posix(): sha256(path)
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and path.name != "cost.json"
    }


def _assert_whole(workspace: Path) -> None:
    """Every file under a final name opens: what is unfinished has a temporary name."""
    for path in workspace.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 — a handle, not a dict
                    tensors.get_tensor(name)


def _storm(folder: Path, moments: int, tiles: int, seed: int) -> None:
    box = write_inputs(folder / "inputs", tiles=tiles)
    steps = commands(folder / "inputs", box)[:2]
    expected = folder / "expected"
    durations = []
    for step in steps:
        started = time.monotonic()
        _finish(expected, step)
        durations.append(time.monotonic() - started)
    whole = _checksums(expected)
    generator = random.Random(seed)
    killed = 0
    for step in (FETCH, TRAIN):
        for moment in range(moments):
            workspace = folder / f"killed-{step}-{moment}"
            if step == TRAIN:
                _finish(workspace, steps[FETCH])
            process = _urban(workspace, steps[step])
            time.sleep(generator.uniform(0.2, durations[step]))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            _assert_whole(workspace)
            for again in steps[: step + 1]:
                _finish(workspace, again)
            if step == FETCH:
                _finish(workspace, steps[TRAIN])
            assert _checksums(workspace) == whole
            shutil.rmtree(workspace)
    assert killed >= moments, f"only {killed} of {2 * moments} runs were still alive to be killed"


def test_a_killed_fetch_and_train_go_on(tmp_path: Path) -> None:
    _storm(tmp_path, moments=1, tiles=10, seed=1)


@pytest.mark.soak
def test_ten_killed_fetches_and_trains_go_on(tmp_path: Path) -> None:
    _storm(tmp_path, moments=10, tiles=20, seed=random.SystemRandom().randrange(1 << 30))
