"""From an OSM file to GeoParquet of its tagged entities: ours, quackosm, pyrosm and GDAL.

    python -m benchmarks.osm [ROUNDS]      (default 3)

On Monaco (0.5 MB) and on 20 shifted copies of it (10 MB, ids and places shifted, made here). Every
reader runs in a fresh process, which imports what it needs before the clock starts, and all run in
turn, after one round that does not count; times are medians. Ours is `fetch` as `urban fetch --osm`
calls it: it reads the file, joins the entities to the tiles of a city that holds all of them,
writes the layer `entities` in Hilbert order, and checksums it. The others convert the file with
their defaults: quackosm to GeoParquet with all tags, pyrosm by 22 keys with GeoPandas writing it,
GDAL's OSM driver through pyogrio likewise. `ratio` is quackosm's time over ours on the 20 copies,
`ratio_monaco` on Monaco. The content is compared too: entities by kind, and the geometries of a
sample that ours and quackosm both have.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from benchmarks._peers import duckdb_home
from benchmarks._result import DATA, finish

MONACO = DATA / "osm/monaco.osm.pbf"
COPIES = 20
NEXT_COPY = 20_000_000_000
"""What ids of the next copy are larger by: more than any id of OpenStreetMap."""

SAMPLE = 500

KEYS = (
    "amenity", "building", "shop", "highway", "landuse", "leisure", "natural", "tourism", "office",
    "historic", "craft", "railway", "waterway", "barrier", "man_made", "power", "place", "boundary",
    "aeroway", "public_transport", "emergency", "healthcare",
)  # fmt: skip
"""What pyrosm reads: it wants keys."""


# --- the readers: each imports, then yields, then works -----------------------------------------


def ours(path: Path, folder: Path) -> Iterator[Path]:
    """Fetch the layer `entities`."""
    # Not used here: our reader imports them inside functions, which would fall into its time as
    # the others' imports do not. (pandas: Arrow imports it where it is installed.)
    import osmium  # noqa: F401
    import pandas as pd  # noqa: F401
    import pyarrow.csv  # noqa: F401
    import pyproj  # noqa: F401

    from urbancli.city import City, utm_epsg
    from urbancli.fetching import fetch
    from urbancli.sources.osm import Source
    from urbancli.workspace import Workspace

    box = json.loads((path.parent / f"{path.name}.box").read_text())
    epsg = utm_epsg((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    city = City("osm", shapely.box(*box), epsg, "bbox")
    workspace = Workspace(folder)
    yield folder
    fetch(workspace, city, [Source(path)], [])
    yield workspace.layer_file("osm", "entities")


def quackosm(path: Path, folder: Path) -> Iterator[Path]:
    """Convert with quackosm's defaults."""
    from quackosm import convert_pbf_to_parquet

    yield folder
    yield convert_pbf_to_parquet(
        path,
        result_file_path=folder / "quackosm.parquet",
        working_directory=folder,
        ignore_cache=True,
        verbosity_mode="silent",
    )


def pyrosm(path: Path, folder: Path) -> Iterator[Path]:
    """Read 22 keys with pyrosm and write them with GeoPandas."""
    from pyrosm import OSM

    yield folder
    frame = OSM(str(path)).get_data_by_custom_criteria(
        custom_filter=dict.fromkeys(KEYS, True), extra_attributes=[]
    )
    frame.to_parquet(folder / "pyrosm.parquet", compression="zstd")
    yield folder / "pyrosm.parquet"


def gdal(path: Path, folder: Path) -> Iterator[Path]:
    """Read the five layers of GDAL's driver with pyogrio and write them with GeoPandas."""
    import geopandas as gpd
    import pandas as pd
    import pyogrio

    yield folder
    layers = ("points", "lines", "multilinestrings", "multipolygons", "other_relations")
    frames = [pyogrio.read_dataframe(path, layer=layer, use_arrow=True) for layer in layers]
    whole = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=4326)
    whole.to_parquet(folder / "gdal.parquet", compression="zstd")
    yield folder / "gdal.parquet"


READERS: dict[str, Callable[[Path, Path], Iterator[Path]]] = {
    "ours": ours,
    "quackosm": quackosm,
    "pyrosm": pyrosm,
    "gdal": gdal,
}


def work(reader: str, path: Path, folder: Path) -> None:
    """Run one reader in this process and print seconds, peak memory and the file it made."""
    steps = READERS[reader](path, folder)
    next(steps)
    started = time.perf_counter()
    made = next(steps)
    seconds = time.perf_counter() - started
    peak = max(resource.getrusage(who).ru_maxrss
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # fmt: skip
    print(json.dumps({"seconds": seconds, "peak_mb": round(peak / 1024), "path": str(made)}))


def measure(reader: str, path: Path, folder: Path, home: Path) -> dict[str, Any]:
    """Run one reader in a fresh process."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-m", "benchmarks.osm", "--one", reader, str(path), str(folder)]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env={**os.environ, "HOME": str(home)}
    )
    if done.returncode:
        raise SystemExit(f"{reader} failed on {path.name}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- the files -----------------------------------------------------------------------------------


def shifted_copies(path: Path) -> None:
    """Write copies of Monaco beside one another, in the order that OSM files are in."""
    import osmium

    monaco = str(MONACO)
    with osmium.SimpleWriter(str(path)) as writer:
        for kind in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION):
            for copy in range(COPIES):
                first, east, north = copy * NEXT_COPY, 0.06 * (copy % 5), 0.04 * (copy // 5)
                elements: Any = osmium.FileProcessor(monaco, kind)
                for element in elements:
                    changed: dict[str, Any] = {"id": element.id + first}
                    if element.is_node():
                        place = element.location
                        changed["location"] = (place.lon + east, place.lat + north)
                    elif element.is_way():
                        changed["nodes"] = [node.ref + first for node in element.nodes]
                    else:
                        changed["members"] = [
                            (member.type, member.ref + first, member.role)
                            for member in element.members
                        ]
                    writer.add(element.replace(**changed))


def write_box(path: Path) -> None:
    """Write the box of a file's entities beside it: the city that holds all of them."""
    from urbancli.sources._osm_file import read_entities

    entities, _ = read_entities(path)
    box = shapely.total_bounds(entities.geometry).tolist()
    path.with_name(f"{path.name}.box").write_text(json.dumps(box))


# --- the comparison ------------------------------------------------------------------------------


def content(path: Path) -> dict[str, bytes]:
    """Return the entities of a file of ours or quackosm's: WKB by id."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    name = "entity_id" if "entity_id" in table.column_names else "feature_id"
    ids, shapes = (table.column(column).to_pylist() for column in (name, "geometry"))
    return dict(zip(ids, shapes, strict=True))


def compare_content(mine: Path, theirs: Path) -> dict[str, Any]:
    """Return entities by kind of both files, and how a sample that both have agrees."""
    first, second = content(mine), content(theirs)
    counts = {
        kind: [sum(key.startswith(kind) for key in each) for each in (first, second)]
        for kind in ("node", "way", "relation")
    }
    both = sorted(first.keys() & second.keys())
    sample = [both[i] for i in np.random.default_rng(0).choice(len(both), SAMPLE, replace=False)]
    shapes = [shapely.from_wkb([each[key] for key in sample]) for each in (first, second)]
    same = shapely.equals(*(shapely.normalize(shape) for shape in shapes))
    return {"entities": counts, "in_both": len(both), "sample": SAMPLE, "equal": int(same.sum())}


def main(folder: Path, rounds: int) -> None:
    """Measure all readers on both files and print tables."""
    home = duckdb_home(folder / "home")
    (folder / "monaco.osm.pbf").symlink_to(MONACO)
    shifted_copies(folder / "copies.osm.pbf")
    measured: dict[str, Any] = {}
    for name in ("monaco", "copies"):
        path = folder / f"{name}.osm.pbf"
        write_box(path)
        times: dict[str, list[dict[str, Any]]] = {reader: [] for reader in READERS}
        for turn in range(rounds + 1):
            for reader in READERS:
                place = folder / f"{name}-{reader}-{turn}"
                times[reader].append(measure(reader, path, place, home))
        print(f"{name}, {path.stat().st_size / 1e6:.1f} MB")
        found: dict[str, Any] = {}
        for reader, each in times.items():
            seconds = statistics.median(one["seconds"] for one in each[1:])
            found[reader] = {"seconds": round(seconds, 3), "peak_mb": each[-1]["peak_mb"]}
            print(f"  {reader:10} {seconds:8.2f} s {found[reader]['peak_mb']:7} MB", flush=True)
        files = [Path(times[reader][-1]["path"]) for reader in ("ours", "quackosm")]
        found["content"] = compare_content(*files)
        print(f"  content, ours and quackosm's: {found['content']}", flush=True)
        found["ratio"] = round(found["quackosm"]["seconds"] / found["ours"]["seconds"], 2)
        measured[name] = found
    measured["ratio"] = measured["copies"]["ratio"]
    measured["ratio_monaco"] = measured["monaco"]["ratio"]
    finish("osm", measured)


if __name__ == "__main__":
    if not DATA.is_dir():
        raise SystemExit(f"needs the real data in {DATA}")
    if sys.argv[1:2] == ["--one"]:
        work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 3)
