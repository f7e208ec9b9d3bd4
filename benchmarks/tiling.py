"""Reading a large COG and cutting it into tiles, against a plain read of the whole file.

    python -m benchmarks.tiling [ROUNDS]      (default 5)

Two files of 10,000 × 10,000 pixels, deflate, blocks of 512, are made in a temporary folder: one as
NAIP (4 bands of bytes, 0.6 m, tiles of 500 px, the fourth band labelled alpha as the agency does),
one as Sentinel-2 (5 bands of uint16, 10 m, tiles of 30 px, 0 is no data). Ours is what a fetch
does with `--imagery`: `plan`, then `read` of every block of a city that covers the file, by two
threads of the engine. The peer is `rasterio.open(path, num_threads=2).read()`, all bands at once,
which is faster than two threads that read a half each. Both run in turn, after one round of each
that does not count; `ratio_500` and `ratio_30` are the medians of ours over the peer's, `ratio` is
the larger of the two. Beside them, once: a whole fetch, which also writes the layer, and the
reading and cutting of a quarter of the blocks from a file in another CRS, which must be warped.
"""

import math
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from benchmarks._result import finish
from urbancli.city import City
from urbancli.fetching import fetch
from urbancli.grid import Grid, Places
from urbancli.planning import Engine
from urbancli.sources.imagery import Source
from urbancli.workers import Threads
from urbancli.workspace import Workspace

SIDE = 10_000
PATCH = 2_500
THREADS = 2
GRID = Grid(32643)
NEXT = Grid(32644)

WARPED_SHARE = 0.25

CORNER = (2448, 10560)
"""Column of the tiles that the files begin with, and row of the tiles they lie south of."""


@dataclass(frozen=True)
class Case:
    """One kind of imagery.

    Attributes:
        name: of the case and its file.
        layer: that it fills.
        pixel_m: side of a pixel, metres.
        bands: how many.
        dtype: of the samples.
        profile: what else its file says.
        bar: ratio wanted at most.
    """

    name: str
    layer: str
    pixel_m: float
    bands: int
    dtype: str
    profile: dict[str, Any]
    bar: float


NAIP = {"photometric": "RGB", "alpha": "YES"}
CASES = (
    Case("500", "naip", 0.6, 4, "uint8", NAIP, bar=1.25),
    Case("30", "sentinel2", 10.0, 5, "uint16", {"nodata": 0}, bar=1.5),
)

# --- the files ---------------------------------------------------------------------------------


def texture(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return (PATCH, PATCH) of fields, plots and grain: deflate packs it as it packs real scenes.

    With the amplitudes of `samples_of`, 5×uint16 take 0.75 of their size, as Delhi's Sentinel-2
    mosaic in ../shared/data does (0.78).
    """
    total = np.zeros((PATCH, PATCH), dtype=np.float32)
    for step, weight in ((500, 1.0), (100, 0.7), (20, 0.5), (4, 0.35), (1, 0.12)):
        cells = generator.standard_normal((PATCH // step,) * 2, dtype=np.float32)
        total += weight * np.kron(cells, np.ones((step, step), dtype=np.float32))
    return total


def samples_of(case: Case, seed: int) -> npt.NDArray[Any]:
    """Return (bands, SIDE, SIDE): a patch mirrored, all of it valid."""
    generator = np.random.default_rng(seed)
    shared = texture(generator)
    mean, spread, most = (110, 30, 255) if case.dtype == "uint8" else (2500, 900, 10_000)
    patch = np.stack([
        np.clip(mean + spread * (shared + 0.4 * texture(generator)), 1, most).astype(case.dtype)
        for _ in range(case.bands)
    ])  # fmt: skip
    wide = np.concatenate([patch, patch[:, :, ::-1]] * 2, axis=2)
    return np.concatenate([wide, wide[:, ::-1]] * 2, axis=1)


def write_cog(path: Path, case: Case, samples: npt.NDArray[Any]) -> None:
    """Write samples as a COG on the tiles' grid, or, to be warped, on the next zone's."""
    import rasterio
    from rasterio.shutil import copy
    from rasterio.transform import from_origin

    left, top = CORNER[0] * GRID.tile_m, CORNER[1] * GRID.tile_m
    profile = {
        "driver": "GTiff", "count": case.bands, "dtype": case.dtype, "width": SIDE, "height": SIDE,
        "crs": f"EPSG:{GRID.epsg}", "transform": from_origin(left, top, case.pixel_m, case.pixel_m),
        "tiled": True, "blockxsize": 512, "blockysize": 512,
    }  # fmt: skip
    plain = path.with_suffix(".plain.tif")
    with rasterio.open(plain, "w", **profile, **case.profile) as dataset:
        dataset.write(samples)
    copy(
        plain, path, driver="COG", compress="DEFLATE", predictor="YES", blocksize=512,
        overview_compress="DEFLATE", overview_resampling="NEAREST", num_threads=THREADS,
    )  # fmt: skip
    plain.unlink()


def moved(path: Path, case: Case) -> Path:
    """Return a copy of a file that says it lies in the next zone, so that it must be warped."""
    import rasterio
    from rasterio.transform import from_origin

    other = path.with_name(f"{path.stem}-moved.tif")
    shutil.copy(path, other)
    lon, lat = GRID.unproject(CORNER[0] * GRID.tile_m, CORNER[1] * GRID.tile_m)
    left, top = NEXT.project(lon, lat)
    with rasterio.open(other, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.crs = f"EPSG:{NEXT.epsg}"
        dataset.transform = from_origin(float(left), float(top), case.pixel_m, case.pixel_m)
    return other


def covering(case: Case) -> Places:
    """Return the tiles that a file on the tiles' grid covers, the last ones in part."""
    tiles = -(-SIDE // round(GRID.tile_m / case.pixel_m))
    columns, rows = np.meshgrid(
        np.arange(CORNER[0], CORNER[0] + tiles), np.arange(CORNER[1] - tiles, CORNER[1])
    )
    cells = np.column_stack([columns.ravel(), rows.ravel()])
    ids = np.array([GRID.tile_id(column, row) for column, row in cells.tolist()], dtype=object)
    x, y = ((cells + 0.5) * GRID.tile_m).T
    return Places(GRID, ids, "tile", x, y, np.ones(len(cells)))


# --- what is measured --------------------------------------------------------------------------


def ours(path: Path, case: Case, places: Places, share: float = 1.0) -> float:
    """Return the seconds in which the engine's threads read and cut all blocks of the city.

    Args:
        path: of the file.
        case: what it is.
        places: the city.
        share: of the blocks that are read.
    """
    source = Source(case.layer, [path])
    source.plan(places)
    blocks = source.blocks(places)
    blocks = blocks[: math.ceil(share * len(blocks))]
    tiles: list[int] = []
    started = time.perf_counter()
    for _ in Threads(THREADS).run(source, blocks, lambda _, table: tiles.append(table.num_rows)):
        pass
    seconds = time.perf_counter() - started
    return seconds


def plain(path: Path) -> float:
    """Return the seconds of a plain read of all bands with the same threads, decoding in GDAL."""
    import rasterio

    started = time.perf_counter()
    with rasterio.open(path, num_threads=THREADS) as dataset:
        dataset.read()
    return time.perf_counter() - started


def compare(path: Path, case: Case, rounds: int) -> dict[str, Any]:
    """Return the medians of both in turn, after one round of each that does not count."""
    places = covering(case)
    times = [(ours(path, case, places), plain(path)) for _ in range(rounds + 1)][1:]
    mine, theirs = (statistics.median(values) for values in zip(*times, strict=True))
    return {
        "seconds": round(mine, 3),
        "plain_seconds": round(theirs, 3),
        "ratio": round(mine / theirs, 3),
        "tiles": len(places),
    }


def fetch_seconds(path: Path, case: Case, folder: Path) -> float:
    """Return the seconds of a whole fetch of the layer: read, cut, staged, compacted, listed."""
    low, high = (covering(case).cells[[0, -1]] + [[0.1, 0.1], [0.9, 0.9]]) * GRID.tile_m
    corners = GRID.unproject([low[0], high[0]], [low[1], high[1]])
    (west, east), (south, north) = corners
    area = shapely.box(float(west), float(south), float(east), float(north))
    city = City("tiling", area, GRID.epsg, "bbox")
    started = time.perf_counter()
    source = Source(case.layer, [path])
    fetch(Workspace(folder), city, [source], [], Engine(Threads(THREADS)), GRID.tile_m)
    return time.perf_counter() - started


def main(folder: Path, rounds: int) -> None:
    """Make the files, measure, and print a table."""
    measured: dict[str, Any] = {}
    print(
        f"{'pixels a tile':>14} {'tiles':>8} {'ours, s':>9} {'plain, s':>9} {'ratio':>7} {'bar':>6}"
    )
    for seed, case in enumerate(CASES):
        path = folder / f"{case.layer}.tif"
        write_cog(path, case, samples_of(case, seed))
        found = compare(path, case, rounds)
        print(
            f"{case.name:>14} {found['tiles']:8} {found['seconds']:9.2f} "
            f"{found['plain_seconds']:9.2f} {found['ratio']:7.2f} {case.bar:6.2f}", flush=True,
        )  # fmt: skip
        found["fetch_seconds"] = round(fetch_seconds(path, case, folder / case.layer), 2)
        shutil.rmtree(folder / case.layer)
        seconds = ours(moved(path, case), case, covering(case), share=WARPED_SHARE)
        found["warped_seconds_of_a_quarter"] = round(seconds, 2)
        print(
            f"{'':14} with the layer written {found['fetch_seconds']:.2f} s; a quarter of the "
            f"blocks from another CRS {seconds:.2f} s", flush=True,
        )  # fmt: skip
        measured[f"tiles_of_{case.name}_px"] = found
        measured[f"ratio_{case.name}"] = found["ratio"]
        measured[f"bar_{case.name}"] = case.bar
        path.unlink()
    measured["ratio"] = max(measured[f"ratio_{case.name}"] for case in CASES)
    finish("tiling", measured)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 5)
