"""How long the whole benchmark of the demo city takes: every subset, four probes.

    python -m benchmarks.demo_bench [WORKSPACE]      (default a temporary one)

In a workspace where the demo city is made, fetched and trained (`urban demo` does so): all runs and
controls on the suite `demo`, ridge and logistic regression on every non-empty subset of the
modalities, MLP and k nearest neighbours on all of them and without each modality or group, from an
empty book of answers. `ratio` is the 300 seconds wanted on two cores over the seconds taken.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._result import finish

WANTED_S = 300.0

DROPS = ("coords", "sentinel2", "naip", "entities", "pois")

PROBES = ("ridge", "logistic", "mlp", "knn")


def arguments(workspace: Path) -> list[str]:
    """Return the command that is measured."""
    command = [sys.executable, "-m", "urbancli", "--workspace", str(workspace), "bench"]
    command += ["--city", "demo", "--suite", "demo", "--subsets"]
    for name in DROPS:
        command += ["--drop", name]
    for name in PROBES:
        command += ["--probe", name]
    return command


def main(workspace: Path) -> None:
    """Train where it is not done, measure, and print what the command printed."""
    runs = sorted(path.parent.name for path in workspace.glob("runs/*/run.json"))
    if not runs:
        made = [sys.executable, "-m", "urbancli", "--workspace", str(workspace), "demo"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        runs = sorted(path.parent.name for path in workspace.glob("runs/*/run.json"))
    shutil.rmtree(workspace / "results/answers", ignore_errors=True)
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        command = arguments(workspace)
        process = subprocess.Popen(command, stdout=printed, env={**os.environ, "COLUMNS": "110"})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        printed.seek(0)
        print(printed.read())
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"urban bench ended with {code}")
    answers = len(list((workspace / "results/answers").glob("*.parquet")))
    print(f"{seconds:.0f} s, {usage.ru_maxrss / 1024:,.0f} MB, {answers} files of answers")
    finish("demo_bench", {
        "ratio": round(WANTED_S / seconds, 3),
        "seconds": round(seconds, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "runs": len(runs),
        "answers": answers,
    })  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
