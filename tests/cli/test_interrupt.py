"""Ctrl-C at any moment: exit code 130, one line, whole files."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Town
from urbancli.workspace import Workspace


@pytest.mark.parametrize("seconds", [0.0, 1.5])
def test_an_interrupted_training_is_one_line(town: Town, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "urbancli", "-w", str(town.workspace), "train", "--method",
         "urbanfusion", "--seed", "9", "--set", "epochs=100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("training on every fetched city")
    time.sleep(seconds)
    _interrupt(process)
    assert len(Workspace(town.workspace).runs()) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_an_interrupted_fetch_is_one_line(town: Town, tmp_path: Path, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "urbancli", "-w", str(tmp_path), *town.fetch],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "data").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    _interrupt(process)


def _interrupt(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("interrupted: what was finished stays")
    assert "Traceback" not in errors
