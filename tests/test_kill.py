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

from tests.conftest import local_fetch
from urbancli.workspace import sha256


def _urban(workspace: Path, arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "urbancli", "--workspace", str(workspace), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _finish(workspace: Path, arguments: list[str]) -> str:
    process = _urban(workspace, arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


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


def _kill(workspace: Path, arguments: list[str], seconds: float) -> bool:
    """Kill a command after so many seconds; return whether it was still alive."""
    process = _urban(workspace, arguments)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def _storm(folder: Path, inputs: Path, moments: int, epochs: int, seed: int) -> int:
    """Kill fetch and train at `moments` moments each; return how many trainings were resumed."""
    fetch = local_fetch(inputs)
    train = ["train", "--method", "urbanfusion", "--set", f"epochs={epochs}"]
    generator = random.Random(seed)
    resumed = 0
    fetched, trained = folder / "fetched", folder / "trained"
    for before, expected, step in ((None, fetched, fetch), (fetched, trained, train)):
        if before:
            shutil.copytree(before, expected)
        started = time.monotonic()
        _finish(expected, step)
        seconds = time.monotonic() - started
        whole, killed = _checksums(expected), 0
        while killed < moments:  # a command that ended before its moment was not killed
            workspace = folder / "killed"
            if before:
                shutil.copytree(before, workspace)
            killed += _kill(workspace, step, generator.uniform(0.2, seconds))
            _assert_whole(workspace)
            resumed += "resumed after epoch" in _finish(workspace, step)
            assert _checksums(workspace) == whole
            shutil.rmtree(workspace)
    return resumed


def test_a_killed_fetch_and_train_go_on(tmp_path: Path, demo_inputs: Path) -> None:
    _storm(tmp_path, demo_inputs, moments=1, epochs=10, seed=1)


@pytest.mark.soak
def test_ten_killed_fetches_and_trains_go_on(tmp_path: Path, demo_inputs: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    # Long enough for checkpoints, which follow each other by ten seconds.
    assert _storm(tmp_path, demo_inputs, moments=10, epochs=300, seed=seed) > 0
