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


def _kill(workspace: Path, arguments: list[str], seconds: float, after: str = "") -> bool:
    """Kill a command after so many seconds; return whether it was still alive.

    Args:
        workspace: where it works.
        arguments: of the command.
        seconds: how long it lives, counted from the moment that `after` appears.
        after: pattern of a file below the workspace; empty: from its start.
    """
    process = _urban(workspace, arguments)
    while after and process.poll() is None and not any(workspace.glob(after)):
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


class Storm:
    """Kills a command again and again and lets it go on.

    Attributes:
        resumed: how many trainings went on from a checkpoint.
        expected: the workspace as the command leaves it when nobody kills it.

    Args:
        before: the workspace that the command finds, None for an empty one.
        expected: where to bring it about.
        arguments: of the command.
        seed: of the moments.
    """

    def __init__(
        self, before: Path | None, expected: Path, arguments: list[str], seed: int
    ) -> None:
        self.expected = expected
        self.resumed = 0
        self._before = before
        self._arguments = arguments
        self._generator = random.Random(seed)
        if before:
            shutil.copytree(before, expected)
        started = time.monotonic()
        _finish(expected, arguments)
        self._seconds = time.monotonic() - started
        self._whole = _checksums(expected)

    def kill(self, times: int, after: str = "") -> None:
        """Kill so many times at random moments, or soon after a file has appeared."""
        killed = 0
        while killed < times:  # a command that ended before its moment was not killed
            workspace = self.expected.with_name("killed")
            if self._before:
                shutil.copytree(self._before, workspace)
            moment = self._generator.uniform(0.2, 1.0 if after else self._seconds)
            killed += _kill(workspace, self._arguments, moment, after)
            _assert_whole(workspace)
            self.resumed += "resumed after epoch" in _finish(workspace, self._arguments)
            assert _checksums(workspace) == self._whole
            shutil.rmtree(workspace)


def _train(epochs: int) -> list[str]:
    return ["train", "--method", "urbanfusion", "--set", f"epochs={epochs}"]


def test_a_killed_fetch_and_train_go_on(tmp_path: Path, demo_inputs: Path) -> None:
    fetch = Storm(None, tmp_path / "fetched", local_fetch(demo_inputs), seed=1)
    fetch.kill(1)
    Storm(fetch.expected, tmp_path / "trained", _train(epochs=10), seed=2).kill(1)


@pytest.mark.soak
def test_killed_fetches_and_trains_go_on(tmp_path: Path, demo_inputs: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    sys.stdout.write(f"seed {seed}\n")
    fetch = Storm(None, tmp_path / "fetched", local_fetch(demo_inputs), seed)
    fetch.kill(8)
    # Long enough for checkpoints, which follow each other by ten seconds.
    train = Storm(fetch.expected, tmp_path / "trained", _train(epochs=300), seed + 1)
    train.kill(3)
    train.resumed = 0
    train.kill(3, after="runs/*/checkpoint.safetensors")
    assert train.resumed == 3
