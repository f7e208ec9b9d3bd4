"""What workers are for: with 100 ms before every answer, 16 of them against one.

    python -m benchmarks.latency [tiles]      (default 90: a city of Delhi's size)

A SYNTHETIC city of `tiles` × `tiles` is fetched by the command line from the test world on loopback
(a real STAC API, signed COGs over HTTP ranges), every answer 100 ms late. Timed is the reading of
blocks, from the first request for a file to the last; the whole command, with start, search and
writing the layer, stands beside it. All must bring the same files.

One worker waits most of its time, and runs once: its time hardly varies. Of 16, who keep all cores
of client and server busy, the median of three runs counts; every run is in the result.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._result import finish
from tests.world.content import files_of
from tests.world.world import STORAGE, World
from urbancli.demo.files import make_inputs
from urbancli.demo.recipe import Recipe

LATENCY_S = 0.1
RUNS = {1: 1, 16: 3}
"""How often the fetch runs, by the number of workers."""

LAYERS = ("naip", "sentinel2")
WANTED = 8.0


def measure(world: World, workspace: Path, layer: str, workers: int) -> dict[str, Any]:
    """Fetch one layer; return seconds, requests and how many were under way at once."""
    world.door.log.clear()
    world.door.most_at_once.clear()
    began = time.monotonic()
    done = world.urban(
        workspace, *world.fetch("--layer", layer, "--workers", workers), timeout_s=3600
    )
    command_s = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(done.stderr)
    reads = world.door.of(STORAGE)
    reading_s = max(each.ended for each in reads) - min(each.began for each in reads)
    return {
        "layer": layer,
        "workers": workers,
        "reading_s": round(reading_s, 1),
        "command_s": round(command_s, 1),
        "requests": len(reads),
        "megabytes": round(sum(each.sent for each in reads) / 1e6, 1),
        "most_at_once": world.door.most_at_once[STORAGE],
    }


def compare(tiles: int) -> dict[str, Any]:
    """Return the measurements of each layer and number of workers, and the worst ratio."""
    rows = []
    ratios = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder / "inputs", Recipe(tiles=tiles), lambda *_: None)
        with World(folder / "inputs") as world:
            world.door.latency_s = LATENCY_S
            for layer in LAYERS:
                runs: list[dict[str, Any]] = []
                brought = set()
                for workers, run in ((w, n) for w, count in RUNS.items() for n in range(count)):
                    workspace = folder / f"{layer}-{workers}-{run}"
                    runs.append(measure(world, workspace, layer, workers))
                    brought.add(str(files_of(workspace)))
                    shutil.rmtree(workspace)
                if len(brought) != 1:
                    raise RuntimeError(f"{layer}: 1 and 16 workers bring different files")
                ratios[layer] = _ratio(runs, "reading_s")
                ratios[f"{layer}_command"] = _ratio(runs, "command_s")
                rows += runs
    worst = min(ratios[layer] for layer in LAYERS)
    return {"latency_s": LATENCY_S, "tiles": tiles, "ratio": worst, "ratios": ratios,
            "met": worst >= WANTED, "runs": rows}  # fmt: skip


def _ratio(runs: list[dict[str, Any]], seconds: str) -> float:
    """Return the median of one worker's runs over that of 16 workers'."""
    few, many = (median(float(r[seconds]) for r in runs if r["workers"] == w) for w in RUNS)
    return round(few / many, 2)


def show(found: dict[str, Any]) -> None:
    """Print the measurements as a table."""
    columns = list(found["runs"][0])
    print("".join(f"{name:>14}" for name in columns))
    for row in found["runs"]:
        print("".join(f"{row[name]:>14}" for name in columns))
    print(f"one worker against 16: {found['ratios']}; wanted {WANTED}")


if __name__ == "__main__":
    result = compare(int(sys.argv[1]) if len(sys.argv) > 1 else 90)
    show(result)
    finish("latency", result)
