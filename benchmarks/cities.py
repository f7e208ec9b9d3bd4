"""The two real cities from fetch to table, each command in a fresh process, on `../shared/data`.

    python -m benchmarks.cities [FOLDER]

Prints seconds and peak memory of every command, what `gpio check all` says of every file of ours,
and the tables of both cities, with a run that held fold 0 of Delhi's split out of pre-training.
`ratio` is the time osmnx needs to read the Manhattan extract over that of the whole fetch of it.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._peers import duckdb_home, gpio_check
from benchmarks._result import DATA, finish

NEW_YORK = [
    "fetch", "--city", "new-york", "--bbox", "-74.014,40.736,-73.963,40.759",
    "--osm", f"{DATA}/nyc/manhattan.osm.pbf",
    "--label", f"crime={DATA}/nyc/tracts.parquet:crime_count/km2",
    "--label", f"population_density={DATA}/nyc/tracts.parquet:pop_density_km2",
    "--label", f"land_use={DATA}/nyc/tracts.parquet:lu5_*",
]  # fmt: skip

DELHI = [
    "fetch", "--city", "delhi",
    "--imagery", f"sentinel2={DATA}/delhi/sentinel2_rgb.tif",
    "--pois", f"{DATA}/delhi/osm_places.csv",
    "--label", f"land_cover={DATA}/delhi/landcover_patches.csv:class_name@640m",
]  # fmt: skip

STEPS = {
    "fetch new-york": NEW_YORK,
    "fetch delhi": DELHI,
    "train new-york": ["train", "--method", "urbanfusion", "--city", "new-york"],
    "train delhi": ["train", "--method", "urbanfusion", "--city", "delhi"],
    "bench --splits": ["bench", "--splits"],
    "train delhi, fold 0 held out": [
        "train", "--method", "urbanfusion", "--city", "delhi",
        "--hold-out-split", "WORKSPACE/splits/delhi-land_cover-s0.parquet:0",
    ],
    "bench": ["bench"],
    "bench --drop satellite": ["bench", "--drop", "satellite"],
}  # fmt: skip

OSMNX = """
import sys, osmium, osmnx
with osmium.SimpleWriter(sys.argv[2], overwrite=True) as writer:
    for element in osmium.FileProcessor(sys.argv[1]):
        if not (element.is_way() and len(element.nodes) < 2):  # osmnx fails on them
            writer.add(element)
import time
started = time.perf_counter()
keys = ("building", "amenity", "shop", "highway", "landuse", "leisure", "natural")
frame = osmnx.features.features_from_xml(sys.argv[2], tags=dict.fromkeys(keys, True))
print(time.perf_counter() - started)
"""


def run(workspace: Path, arguments: list[str]) -> tuple[dict[str, float], str]:
    """Run `urban` in a fresh process; return its seconds and peak MB, and what it printed."""
    command = [sys.executable, "-m", "urbancli", "--workspace", str(workspace)]
    command += [part.replace("WORKSPACE", str(workspace)) for part in arguments]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, env={**os.environ, "COLUMNS": "110"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        printed.seek(0)
        text = printed.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return {"seconds": round(seconds, 2), "peak_mb": round(usage.ru_maxrss / 1024)}, text


def osmnx_seconds(folder: Path) -> float:
    """Return the time osmnx needs to read the Manhattan extract as XML, imports not counted."""
    arguments = [f"{DATA}/nyc/manhattan.osm.pbf", str(folder / "manhattan.osm")]
    done = subprocess.run(
        [sys.executable, "-c", OSMNX, *arguments], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main(folder: Path) -> None:
    """Run every step once, in order, and print what it cost and what it printed."""
    costs: dict[str, Any] = {}
    outputs = {}
    for name, arguments in STEPS.items():
        costs[name], outputs[name] = run(folder / "workspace", arguments)
        print(
            f"{name:30} {costs[name]['seconds']:8.1f} s {costs[name]['peak_mb']:8} MB", flush=True
        )
    print(outputs["bench --drop satellite"])
    home = duckdb_home(folder / "home")
    files = [p for part in ("data", "splits", "runs") for p in sorted((folder / "workspace" / part)
             .rglob("*.parquet")) if p.name != "curves.parquet"]  # fmt: skip
    refused = [path.name for path in files if gpio_check(path, home)]
    print(f"gpio check all: {len(files) - len(refused)} of {len(files)} GeoParquet files pass")
    helps = sorted(run(folder, ["--help"])[0]["seconds"] for _ in range(5))
    peer = osmnx_seconds(folder)
    measured = {
        "ratio": round(peer / costs["fetch new-york"]["seconds"], 2),
        "osmnx_seconds": round(peer, 1),
        "help_seconds": helps[2],
        "geoparquet_files": len(files),
        "geoparquet_refused": refused,
        "steps": costs,
    }
    finish("cities", measured)


if __name__ == "__main__":
    if not DATA.is_dir():
        raise SystemExit(f"needs the real data in {DATA}")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
