"""Every command the README shows, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from examples.small_city import write_inputs

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_commands_run(tmp_path: Path) -> None:
    (block,) = re.findall(r"<!-- run by .*? -->\n```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert block.count("urban ") >= 8
    write_inputs(tmp_path / "demo/inputs")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "urbanfusion" in done.stdout
    assert (tmp_path / "pois.parquet").exists()


def test_every_option_the_readme_names_exists() -> None:
    text = README.read_text()
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--json"}
    help_text = ""
    for command in ("fetch", "train", "embed", "bench", "list"):
        done = subprocess.run(
            [sys.executable, "-m", "urbancli", command, "--help"],
            capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        help_text += done.stdout
    missing = {option for option in named if option not in help_text} - {"--workspace", "--version"}
    assert not missing
