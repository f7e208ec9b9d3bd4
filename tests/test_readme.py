"""Every command the README shows, run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def test_the_readmes_commands_run(tmp_path: Path, demo_inputs: Path) -> None:
    blocks = re.findall(r"<!-- run by .*? -->\n```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 5 and sum(block.count("urban ") for block in blocks) >= 10
    # The same city, but of 100 tiles.
    shutil.copytree(demo_inputs, tmp_path / "inputs/demo")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert re.search("urbanfusion|melt", done.stdout)
    assert (tmp_path / "pois.parquet").exists()


def test_the_example_workflow_runs_the_readmes_commands() -> None:
    steps = re.findall(r"- run: (urban .*)", (ROOT / "examples/benchmark.yml").read_text())
    readme = README.read_text()
    assert len(steps) == 3
    assert all(step in readme for step in steps), steps


def test_every_option_the_readme_names_exists() -> None:
    text = README.read_text()
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--json"}
    help_text = ""
    for command in (
        "fetch",
        "encode",
        "train",
        "embed",
        "bench",
        "list",
        "demo",
        "validate",
        "export",
        "reproduce",
    ):
        done = subprocess.run(
            [sys.executable, "-m", "urbancli", command, "--help"],
            capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        help_text += done.stdout
    missing = {option for option in named if option not in help_text} - {"--workspace", "--version"}
    assert not missing
