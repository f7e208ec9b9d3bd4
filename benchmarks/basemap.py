"""Basemaps of dense real cities: our maps against GDAL's and Pillow's, each map drawn by itself.

    python -m benchmarks.basemap [ROUNDS [PEER_PLACES]]      (default 5 12)

Every tile of Midtown Manhattan and of State College at 300, 600 and 1,200 m, 256 pixels, in
colours; each zoom is a map of its own. `maps_per_second` is what ONE thread gives per second that
the process itself was at work, since the machine is shared, on Manhattan, after the city is opened;
`with_opening` counts the reading and sorting of the entities too. Beside them, by the clock: one
thread, and two with half of the places each. All are medians of the rounds.

The peers draw the same classes in the same order around PEER_PLACES places, each map the plain way:
look up the entities near it, draw them from the lowest to the topmost. They open nothing, are given
projected shapes by class, and leave out the sea.

- `gdal`: `rasterio.features.rasterize` of polygons and of lines buffered to their width.
- `pillow`: `ImageDraw.polygon` and `line`, vertices rounded to pixels; holes by way of a mask.

`ratio` is maps per second over those of the faster peer, measured alike; `same` says which share of
the pixels of a peer has our colour.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw
from rasterio.features import rasterize
from rasterio.transform import from_origin

from benchmarks._result import DATA, finish
from urbancli.encoders import _basemap_style as style
from urbancli.encoders._images import open_images
from urbancli.grid import Places
from urbancli.layers import CityLayers, open_city
from urbancli.workspace import Workspace, geometries

BAR = 200.0
ZOOMS = (300.0, 600.0, 1200.0)
SIDE = 256

CITIES = {
    "manhattan": ("-74.010,40.738,-73.966,40.757", "nyc/manhattan.osm.pbf"),
    "state-college": ("-77.90,40.77,-77.80,40.83", "osm/state_college.osm.pbf"),
}

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shapes:
    """What the peers draw, sorted from the lowest to the topmost, in metres.

    Attributes:
        geometry: (N,).
        number: (N,) class.
        tree: of the boxes.
    """

    geometry: npt.NDArray[Any]
    number: npt.NDArray[np.int64]
    tree: shapely.STRtree

    def near(self, x: float, y: float, window_m: float) -> list[tuple[Any, int]]:
        """Return (shape, class) of what lies around a place, the lowest first."""
        half = window_m / 2 + 15
        index = np.sort(self.tree.query(shapely.box(x - half, y - half, x + half, y + half)))
        fine = style.PIXEL_LIMITS_M[self.number[index]] >= window_m / SIDE
        return list(zip(self.geometry[index[fine]], self.number[index[fine]].tolist(), strict=True))


def read_shapes(city: CityLayers) -> Shapes:
    """Return the entities of a city by class, walls of buildings among them."""
    table = city.entities("entities")
    geometry = city.grid.project_geometry(geometries(table))
    number, bridge = style.classify(table, shapely.get_dimensions(geometry).astype(np.int64))
    rank = number + len(style.CLASSES) * (bridge & (shapely.get_dimensions(geometry) == 1))
    rings, wall = (
        shapely.get_rings(geometry[number == style.NAMES.index("building")]),
        style.NAMES.index("wall"),
    )
    geometry = np.concatenate([geometry[number >= 0], rings])
    rank = np.append(rank[number >= 0], [wall] * len(rings))
    order = np.argsort(rank, kind="stable")
    geometry, number = geometry[order], rank[order] % len(style.CLASSES)
    return Shapes(geometry, number, shapely.STRtree(geometry))


def of_gdal(shapes: Shapes, x: float, y: float, window_m: float) -> Bytes:
    """Return a map (3, 256, 256) by GDAL."""
    pixel_m = window_m / SIDE
    parts = [
        (
            shape
            if shapely.get_dimensions(shape) == 2
            else shape.buffer(max(style.WIDTHS_M[number], pixel_m) / 2),
            number,
        )
        for shape, number in shapes.near(x, y, window_m)
    ]
    transform = from_origin(x - window_m / 2, y + window_m / 2, pixel_m, pixel_m)
    found = np.zeros((SIDE, SIDE), np.uint8)
    if parts:
        found = rasterize(parts, (SIDE, SIDE), transform=transform, dtype="uint8")
    return np.asarray(style.PALETTE[:, found])


def of_pillow(shapes: Shapes, x: float, y: float, window_m: float) -> Bytes:
    """Return a map (3, 256, 256) by Pillow."""
    pixel_m = window_m / SIDE
    image = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)

    def pixels(ring: Any) -> list[tuple[float, float]]:
        points = shapely.get_coordinates(ring) - [x - window_m / 2, y + window_m / 2]
        return [tuple(point) for point in (points * [1 / pixel_m, -1 / pixel_m]).tolist()]

    for shape, number in shapes.near(x, y, window_m):
        width = max(1, round(style.WIDTHS_M[number] / pixel_m))
        for part in shapely.get_parts(shapely.get_parts(shape)):
            if part.geom_type == "Point":
                (east, south), r = pixels(part)[0], width / 2
                pen.ellipse((east - r, south - r, east + r, south + r), fill=number)
            elif part.geom_type != "Polygon":
                pen.line(pixels(part), fill=number, width=width, joint="curve")
            elif not len(part.interiors):
                pen.polygon(pixels(part), fill=number)
            else:
                mask = Image.new("L", image.size)
                cut = ImageDraw.Draw(mask)
                cut.polygon(pixels(part.exterior), fill=255)
                for ring in part.interiors:
                    cut.polygon(pixels(ring), fill=0)
                image.paste(number, mask=mask)
    return np.asarray(style.PALETTE[:, np.asarray(image)])


def draw(images: Any, places: Places) -> None:
    """Draw every map of places and drop it."""
    for window_m in ZOOMS:
        for _ in images.windows(places, window_m):
            pass


def ours(city: CityLayers, rounds: int) -> dict[str, float]:
    """Return maps per second on one thread and on two, and with the opening of the city."""
    places = city.tiles()
    halves = [places.take(half) for half in np.array_split(np.arange(len(places)), 2)]
    count = len(places) * len(ZOOMS)
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        began = time.process_time()
        images = open_images(city, "basemap")
        opened, started = time.process_time(), time.perf_counter()
        draw(images, places)
        ended, alone = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(draw, [images] * 2, halves))
        taken = {
            "one_thread": ended - opened,
            "with_opening": ended - began,
            "one_thread_clock": alone - started,
            "two_threads_clock": time.perf_counter() - alone,
        }
        for name, seconds in taken.items() if number else ():
            times.setdefault(name, []).append(seconds)
    return {name: count / statistics.median(values) for name, values in times.items()}


def peers(city: CityLayers, count: int) -> dict[str, dict[str, float]]:
    """Return maps per second of the peers around some places, and how far they agree with us."""
    places = city.tiles()
    places = places.take(np.linspace(0, len(places) - 1, count).astype(int))
    images, shapes = open_images(city, "basemap"), read_shapes(city)
    found = {}
    forms: dict[str, Callable[..., Bytes]] = {"gdal": of_gdal, "pillow": of_pillow}
    for name, form in forms.items():
        seconds, same = 0.0, []
        for window_m in ZOOMS:
            for number, samples, _ in images.windows(places, window_m):
                started = time.process_time()
                drawn = form(shapes, places.x[number], places.y[number], window_m)
                seconds += time.process_time() - started
                same.append(float((drawn == samples).all(axis=0).mean()))
        rate = count * len(ZOOMS) / seconds
        found[name] = {"maps_per_second": round(rate, 1), "same": round(statistics.mean(same), 4)}
    return found


def fetch(folder: Path, name: str) -> CityLayers:
    """Fetch a city from its extract, as a user would."""
    box, file = CITIES[name]
    command = [sys.executable, "-m", "urbancli", "-w", str(folder), "fetch", "--city", name]
    command += [f"--bbox={box}", "--osm", str(DATA / file)]
    subprocess.run(command, check=True, capture_output=True)
    return open_city(Workspace(folder), name)


def main(rounds: int, peer_places: int) -> None:
    """Measure both cities and print a table."""
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in CITIES:
            city = fetch(Path(folder), name)
            rates = {key: round(rate, 1) for key, rate in ours(city, rounds).items()}
            measured[name] = {
                "tiles": len(city.tiles()),
                "entities": city.entities("entities").num_rows,
                **rates,
                "peers": peers(city, peer_places),
            }
    print(f"maps per second; {'/'.join(f'{zoom:g}' for zoom in ZOOMS)} m, {SIDE} pixels")
    columns = ("one_thread", "with_opening", "one_thread_clock", "two_threads_clock")
    print(" " * 14 + "".join(f"{name:>19}" for name in columns) + "   gdal  same pillow  same")
    for name, of in measured.items():
        line = f"{name:14}" + "".join(f"{of[column]:19.0f}" for column in columns)
        for peer in of["peers"].values():
            line += f"{peer['maps_per_second']:7.1f} {peer['same']:.3f}"
        print(line)
    dense = measured["manhattan"]
    fastest = max(peer["maps_per_second"] for peer in dense["peers"].values())
    finish("basemap", {
        "maps_per_second": dense["one_thread"],
        "bar": BAR,
        "ratio": round(dense["one_thread"] / fastest, 1),
        "cities": measured,
        "rounds": rounds,
        "peer_places": peer_places,
    })  # fmt: skip


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    main(*numbers, *(5, 12)[len(numbers) :])
