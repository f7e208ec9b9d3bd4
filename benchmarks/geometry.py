"""Shapes to Fourier features: ours on two threads against a plain loop and against rasters.

    python -m benchmarks.geometry [ROUNDS [WORKSPACE]]      (default 5, a temporary one)

The entities of three OSM files (Monaco, Liechtenstein, State College) and of the demo city of
40 × 40 tiles, as geometries in metres; each is in the tile that holds the middle of its box. What
is made of them is what the encoder `geometry` makes by default: transforms at 24 frequencies in
both frames, sizes, dimension. In turn, after one round that does not count:

- `two threads`: `Encoder.features` on pieces of 2,048 entities, two at a time;
- `one thread`: the same pieces, one after the other;
- `loop`: the formula written out for one geometry after the other in plain numpy, its edges as an
  array, every frequency for itself, on a sample;
- `raster`: every geometry drawn by GDAL on 64 × 64 pixels of two units a side around each frame's
  origin, numpy's FFT of both, and of it the bins nearest to the frequencies, on a sample.

Seconds are of the clock, figures medians. `entities_per_s` is that of `two threads` on the set
where it is lowest, `ratio` that of `two threads` over that of `loop`, where it is lowest.
`per_core_s` are entities per second that one thread was at work, whatever else the machine did.
`error_loop` is the largest difference of ours from the loop. `encode_tokens_per_s` is the encoder's
whole `encode` on the demo city, from the file on disk to tokens with positions, on one thread.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from benchmarks._demo import demo_layers
from benchmarks._result import DATA, finish
from urbancli.city import utm_epsg
from urbancli.encoders import _fourier
from urbancli.encoders._touching import Touching
from urbancli.encoders.geometry import Encoder
from urbancli.grid import Grid, Places
from urbancli.workspace import Geometries, geometries

FILES = {
    "monaco": "monaco.osm.pbf",
    "liechtenstein": "liechtenstein.osm.bz2",
    "state college": "state_college.osm.pbf",
}
PIECE = 2048
SAMPLE = 1000
PIXELS = 64
WANTED = 50_000
"""Entities/s."""

Floats = npt.NDArray[np.float64]
Work = tuple[Touching, Places]


# --- what is encoded -------------------------------------------------------------------------


def sets(city_of: Any) -> dict[str, tuple[Geometries, Grid]]:
    """Return name → geometries in metres and their grid."""
    from urbancli.sources._osm_file import read_entities

    found = {}
    for name, file in FILES.items():
        entities, _ = read_entities(DATA / "osm" / file)
        lonlat = np.asarray(entities.geometry, dtype=object)
        grid = Grid(utm_epsg(*shapely.get_coordinates(lonlat).mean(axis=0).tolist()))
        found[name] = (grid.project_geometry(lonlat), grid)
    demo = geometries(city_of.entities("entities"))
    found["demo"] = (city_of.grid.project_geometry(demo), city_of.grid)
    return found


def pieces(geometry: Geometries, grid: Grid) -> list[Work]:
    """Return geometries and the tiles that hold the middles of their boxes, piece by piece."""
    work = []
    for start in range(0, len(geometry), PIECE):
        some = geometry[start : start + PIECE]
        cells = grid.tile_at(*_fourier.box_frames(some)[0].T)
        cells, place = np.unique(cells, axis=0, return_inverse=True)
        x, y = ((cells + 0.5) * grid.tile_m).T
        ids = grid.tile_ids(cells).to_numpy(zero_copy_only=False)
        places = Places(grid, ids, "tile", x, y, np.ones(len(x)))
        nothing = pa.table({})
        present = np.ones(len(x), dtype=bool)
        work.append((Touching(nothing, some, np.arange(len(some)), place, present), places))
    return work


def sampled(work: Sequence[Work], count: int) -> list[tuple[Any, Floats]]:
    """Return (geometry, centre of its tile) of entities drawn at random."""
    rng = np.random.default_rng(0)
    rows = [(p, e) for p, (found, _) in enumerate(work) for e in range(len(found.entity))]
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
    drawn = []
    for piece, entity in (rows[index] for index in chosen):
        found, places = work[piece]
        place = found.place[entity]
        drawn.append((found.geometry[entity], np.array([places.x[place], places.y[place]])))
    return drawn


# --- the competitors -------------------------------------------------------------------------


def ours(work: Work) -> npt.NDArray[np.float32]:
    """Return the values of a piece."""
    return Encoder().features(*work)


def on_two_threads(work: Sequence[Work]) -> None:
    """Encode pieces, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ours, work))


def on_one_thread(work: Sequence[Work]) -> None:
    """Encode pieces, one after the other."""
    for piece in work:
        ours(piece)


def edges(shape: Any) -> tuple[Floats, Floats, int]:
    """Return midpoints and directions of a geometry's edges, and its dimension."""
    dimension = int(shapely.get_dimensions(shape))
    parts: list[Any] = shapely.get_parts(shape).tolist()
    while any(shapely.get_type_id(part) >= 4 for part in parts):
        parts = [inner for part in parts for inner in shapely.get_parts(part).tolist()]
    middle, step = [], []
    for part in parts:
        if shapely.get_dimensions(part) != dimension:
            continue
        rings = [part] if dimension < 2 else [part.exterior, *part.interiors]
        for number, ring in enumerate(rings):
            points = np.asarray(ring.coords)[:, :2]
            if dimension == 2 and shapely.is_ccw(ring) != (number == 0):
                points = points[::-1]
            first, last = (points, points) if dimension == 0 else (points[:-1], points[1:])
            middle.append((first + last) / 2)
            step.append(last - first)
    return np.concatenate(middle), np.concatenate(step), dimension


def loop_one(shape: Any, tile: Floats, tile_m: float) -> npt.NDArray[np.complex128]:
    """Return the transform of one geometry in both frames, (2, 24), by the plain formula."""
    bounds = np.array(shape.bounds).reshape(2, 2)
    side = float((bounds[1] - bounds[0]).max()) or 1.0
    middle, step, dimension = edges(shape)
    k = _fourier.frequencies()
    out = []
    for origin, unit in ((bounds.mean(axis=0), side), (tile, tile_m)):
        m, d = (middle - origin) / unit, step / unit
        wave = np.exp(-1j * (m @ k.T)) * np.sinc(d @ k.T / 2 / np.pi)
        if dimension == 2:
            turned = k[:, 0] * d[:, 1:] - k[:, 1] * d[:, :1]
            local = (middle - bounds.mean(axis=0)) / unit
            area = (local[:, 0] * d[:, 1] - local[:, 1] * d[:, 0]).sum() / 2
            out.append(1j / (k**2).sum(axis=1) * (turned * wave).sum(axis=0) / area)
        elif dimension == 1:
            length = np.hypot(*d.T)
            out.append(length @ wave / length.sum())
        else:
            out.append(wave.mean(axis=0))
    return np.array(out)


def raster_one(shape: Any, tile: Floats, tile_m: float) -> npt.NDArray[np.complex128]:
    """Return the bins of the FFTs of rasters of one geometry in both frames, (2, 24)."""
    from rasterio.features import rasterize
    from rasterio.transform import from_origin

    bounds = np.array(shape.bounds).reshape(2, 2)
    side = float((bounds[1] - bounds[0]).max()) or 1.0
    bins = np.round(_fourier.frequencies() / np.pi).astype(int)
    out = []
    for origin, unit in ((bounds.mean(axis=0), side), (tile, tile_m)):
        frame = from_origin(origin[0] - unit, origin[1] + unit, *(2 * unit / PIXELS,) * 2)
        image = rasterize([shape], (PIXELS, PIXELS), transform=frame, all_touched=True)
        spectrum = np.fft.fft2(image[::-1]) / max(int(image.sum()), 1)
        out.append(spectrum[bins[:, 1], bins[:, 0]])
    return np.array(out)


# --- measuring -------------------------------------------------------------------------------


def clocked(work: Callable[[], Any]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(geometry: Geometries, grid: Grid, rounds: int) -> dict[str, float]:
    """Return entities/s of every competitor, and how far ours is from the loop."""
    work = pieces(geometry, grid)
    sample = sampled(work, SAMPLE)
    side = float(grid.tile_m)
    entrants: dict[str, tuple[Callable[[], Any], int]] = {
        "two threads": (lambda: on_two_threads(work), len(geometry)),
        "one thread": (lambda: on_one_thread(work), len(geometry)),
        "loop": (lambda: [loop_one(*one, side) for one in sample], len(sample)),
        "raster": (lambda: [raster_one(*one, side) for one in sample], len(sample)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in entrants}
    for number in range(rounds + 1):
        for name, (entrant, _) in entrants.items():
            taken = clocked(entrant)
            if number:
                seconds[name].append(taken)
    started = time.process_time()
    on_one_thread(work)
    busy = time.process_time() - started
    rates = {n: count / statistics.median(seconds[n]) for n, (_, count) in entrants.items()}
    return {
        **{name: round(rate) for name, rate in rates.items()},
        "per_core_s": round(len(geometry) / busy),
        "ratio": round(rates["two threads"] / rates["loop"], 1),
        "ratio_raster": round(rates["two threads"] / rates["raster"], 1),
        "error_loop": error(sample, grid),
        "entities": len(geometry),
        "vertices_each": round(shapely.get_num_coordinates(geometry).mean(), 1),
    }


def error(sample: Sequence[tuple[Any, Floats]], grid: Grid) -> float:
    """Return the largest difference of ours from the loop; shapes without area or length, which
    we take for what is left of them, are not compared."""
    shapes = np.array([shape for shape, _ in sample], dtype=object)
    x, y = np.array([tile for _, tile in sample]).T
    each = np.arange(len(x))
    places = Places(grid, each.astype(object), "point", x, y, np.ones(len(x)))
    found = Touching(pa.table({}), shapes, each, each, np.ones(len(x), dtype=bool))
    values = ours((found, places))[:, :96].reshape(len(x), 2, 2, 24)
    box = _fourier.box_frames(shapes)
    solid = _fourier.shapes_of(shapes, *box).dimension == shapely.get_dimensions(shapes)
    worst = 0.0
    for index in np.flatnonzero(solid).tolist():
        wanted = loop_one(*sample[index], float(grid.tile_m))
        gap = np.abs(values[index, :, 0] + 1j * values[index, :, 1] - wanted)
        worst = max(worst, float(gap.max()))
    return worst


def main(rounds: int, folder: Path) -> None:
    """Measure all sets and print a table."""
    city = demo_layers(folder)
    places = city.tiles()
    encoder = Encoder()
    taken = [clocked(lambda: encoder.encode(city, "entities", places, {})) for _ in range(rounds)]
    tokens = len(encoder.encode(city, "entities", places, {}).values)
    found = {name: measure(*one, rounds) for name, one in sets(city).items()}
    columns = ("two threads", "one thread", "loop", "raster", "ratio", "ratio_raster")
    print(f"entities/s, medians of {rounds}")
    print(f"{'':15}{'entities':>9}" + "".join(f"{name:>14}" for name in columns))
    for name, row in found.items():
        cells = "".join(f"{row[column]:>14,}" for column in columns)
        print(f"{name:15}{row['entities']:>9,}{cells}")
    finish("geometry", {
        "ratio": min(row["ratio"] for row in found.values()),
        "ratio_raster": min(row["ratio_raster"] for row in found.values()),
        "entities_per_s": min(row["two threads"] for row in found.values()),
        "bar_entities_per_s": WANTED,
        "encode_tokens_per_s": round(tokens / statistics.median(taken)),
        "error_loop": max(row["error_loop"] for row in found.values()),
        "sets": found,
        "rounds": rounds,
        "threads": 2,
    })  # fmt: skip


if __name__ == "__main__":
    arguments = sys.argv[1:]
    wanted = int(arguments[0]) if arguments else 5
    if len(arguments) > 1:
        main(wanted, Path(arguments[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(wanted, Path(temporary))
