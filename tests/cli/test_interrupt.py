"""Ctrl-C at any moment: exit code 130, one line, whole files."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Town
from urbancli.workspace import Workspace


@pytest.mark.parametrize("moment", [0.6, 1.6, 2.6])
def test_an_interrupt_is_one_line(town: Town, tmp_path: Path, moment: float) -> None:
    command = [sys.executable, "-m", "urbancli", "-w", str(tmp_path), *town.fetch]
    train = [sys.executable, "-m", "urbancli", "-w", str(town.workspace), "train", "--method",
             "urbanfusion", "--seed", "9", "--set", "epochs=500"]  # fmt: skip
    for arguments in (command, train):
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:  # the fetch was faster
            assert arguments is command
            continue
        assert process.returncode == 130, errors
        assert errors.splitlines()[-1].startswith("interrupted: what was finished stays")
        assert "Traceback" not in errors
    assert len(Workspace(town.workspace).runs()) == 1
