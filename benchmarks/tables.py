"""The full tables of Manhattan and Delhi, on `../shared/data`: what `urban bench` says of them.

    python -m benchmarks.tables [FOLDER]

Both cities are fetched as `benchmarks.cities` does, UrbanFusion (preset `small`) is trained on each
with three seeds, and everything is scored: all probes; spatial, buffered and random splits and both
papers' protocols; every modality and group dropped, every subset, random drop rates and noise; the
information account. Rows and tables go to `benchmarks/results/tables/`: CSV of all rows, markdown,
what the terminal shows. Nothing was tuned on these labels. `ratio` is the share of (city, task)
pairs on which UrbanFusion surely beats the concatenation of its own frozen features.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._result import DATA, RESULTS, finish
from benchmarks.cities import DELHI, NEW_YORK
from urbancli.bench.run import read_result
from urbancli.bench.seeds import JOINT

SEEDS = (0, 1, 2)

BENCH = {
    "default": ["--subsets", "--drop-rate", "0.1", "--drop-rate", "0.3", "--drop-rate", "0.5",
                "--drop-rate", "0.7", "--noise", "1", "--account"],
    "probes": ["--probe", "ridge", "--probe", "logistic", "--probe", "knn", "--probe", "mlp",
               "--probe", "boosting"],
    "splits": ["--split", "spatial", "--split", "buffered", "--split", "random",
               "--split", "urbanfusion", "--split", "cityrep"],
    "coordinates": ["--append-coords"],
}  # fmt: skip

DROPS = {
    "new-york": ["entities", "pois", "coords"],
    "delhi": ["sentinel2", "pois", "coords"],
}


def urban(workspace: Path, *arguments: str) -> tuple[str, float]:
    """Run `urban` in a fresh process; return what it printed, and seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "urbancli", "--workspace", str(workspace), *arguments]
    environment = {**os.environ, "COLUMNS": "110"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode not in {0, 3}:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout, time.perf_counter() - started


def tables_of(workspace: Path, city: str) -> dict[str, Any]:
    """Score a city in every way, keep the tables, and return what is summed up."""
    folder = RESULTS / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {}
    for name, options in BENCH.items():
        before = set((workspace / "results").glob("bench-*.parquet"))
        drops = [part for one in DROPS[city] for part in ("--drop", one)]
        extra = drops if name == "default" else []
        formats = ["--format", "csv", "--format", "markdown"]
        text, seconds = urban(workspace, "bench", "--city", city, *options, *extra, *formats)
        print(f"{city} {name}: {seconds:.0f} s", flush=True)
        (made,) = set((workspace / "results").glob("bench-*.parquet")) - before
        (folder / f"{city}-{name}.txt").write_text(text)
        shutil.copy(made.with_suffix(".md"), folder / f"{city}-{name}.md")
        shutil.copy(made.with_suffix(".csv"), folder / f"{city}-{name}.csv")
        rows = read_result(made)
        summary[name] = {"rows": len(rows), "seconds": round(seconds, 1)}
        if name == "default":
            whole = [row for row in rows if not row["drop"] and JOINT in row["run"]]
            summary["methods"] = {
                row["task"]: {
                    "value": row["value"], "low": row["low"], "high": row["high"],
                    "over_concatenation": row["difference_concatenation"],
                    "over_concatenation_low": row["difference_concatenation_low"],
                    "over_concatenation_high": row["difference_concatenation_high"],
                }
                for row in whole
            }  # fmt: skip
    return summary


def main(workspace: Path) -> None:
    """Fetch and train what is not there, score, and sum up."""
    for city, arguments in (("new-york", NEW_YORK), ("delhi", DELHI)):
        urban(workspace, *arguments)
        for seed in SEEDS:
            urban(
                workspace, "train", "--city", city, "--method", "urbanfusion", "--seed", str(seed)
            )
    found = {city: tables_of(workspace, city) for city in ("new-york", "delhi")}
    gaps = [row for one in found.values() for row in one["methods"].values()]
    better = [row for row in gaps if (row["over_concatenation_low"] or 0.0) > 0]
    worse = [row for row in gaps if (row["over_concatenation_high"] or 0.0) < 0]
    finish("tables", {
        "ratio": round(len(better) / len(gaps), 3),
        "surely_better_than_concatenation": len(better),
        "surely_worse_than_concatenation": len(worse),
        "tasks": len(gaps),
        "cities": found,
    })  # fmt: skip


if __name__ == "__main__":
    if not DATA.is_dir():
        raise SystemExit(f"needs the real data in {DATA}")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
