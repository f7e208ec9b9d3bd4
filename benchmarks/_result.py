"""How every benchmark ends: one JSON line, and a file that says on what it was measured."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DATA = (Path(__file__).parents[1] / "../shared/data").resolve()
PACKAGES = ("numpy", "torch", "pyarrow", "geopandas", "shapely", "osmium", "osmnx", "rasterio",
            "scikit-learn")  # fmt: skip


def finish(name: str, measured: dict[str, Any]) -> None:
    """Write `results/NAME.json` and print the closing JSON line."""
    machine = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "commit": _commit(),
    }
    RESULTS.mkdir(exist_ok=True)
    document = {"benchmark": name, **measured, "machine": machine}
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    (RESULTS / f"{name}.json").write_text(text)
    print(json.dumps({"benchmark": name, **measured}, sort_keys=True))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    arguments = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=RESULTS.parent)
    return done.stdout.strip()
