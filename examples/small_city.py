"""The whole path on a small SYNTHETIC town: make input files, fetch, train, bench, bench --drop.

    python examples/small_city.py demo

writes inputs and workspace under `demo/`. A smooth field of density and one of greenery are drawn
first; imagery, OSM, POIs and labels are rendered from them. It shows that the path works; it says
nothing about which method is better.
"""

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from urbancli.grid import Grid

GRID = Grid(32643)
ORIGIN_M = (720_000, 3_162_000)
"""South-west corner of the town, easting and northing in EPSG:32643; a corner of a tile."""

Field = Any


def smooth_field(seed: int, side: int, scale: float) -> Field:
    """Return a Gaussian random field (side, side) of unit variance, smooth over `scale` cells."""
    noise = np.random.default_rng(seed).standard_normal((side, side))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2 * (math.pi * scale * frequency) ** 2)).real
    return (smooth - smooth.mean()) / smooth.std()


def write_inputs(folder: Path, tiles: int = 20, seed: int = 0) -> tuple[float, float, float, float]:
    """Write imagery.tif, town.osm, pois.csv, districts.geojson and cover.csv of a square town.

    Args:
        folder: where to.
        tiles: tiles of 300 m along a side.
        seed: of the fields.

    Returns:
        (west, south, east, north) of a box inside the town, EPSG:4326 degrees.
    """
    folder.mkdir(parents=True, exist_ok=True)
    density, green = smooth_field(seed, tiles, 1.5), smooth_field(seed + 1, tiles, 1.5)
    _imagery(folder / "imagery.tif", density, green, seed)
    _osm(folder / "town.osm", density, seed)
    _pois(folder / "pois.csv", density, seed)
    _districts(folder / "districts.geojson", density)
    _cover(folder / "cover.csv", green)
    left, bottom = ORIGIN_M
    side = tiles * 300
    lon, lat = GRID.unproject([left + 30, left + side - 30], [bottom + 30, bottom + side - 30])
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def _imagery(path: Path, density: Field, green: Field, seed: int) -> None:
    generator = np.random.default_rng(seed + 2)
    pixels = [np.kron(field[::-1], np.ones((30, 30))) for field in (density, green)]
    bands = np.stack([1200 + 250 * pixels[0], 1000 + 200 * pixels[1], 1100 - 150 * pixels[0]])
    roofs = generator.random(bands.shape[1:]) < 0.1 + 0.1 / (1 + np.exp(-2 * pixels[0]))
    bands = bands + 900 * roofs + generator.normal(0, 60, bands.shape)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=bands.shape[1], width=bands.shape[2],
        dtype="uint16", crs="EPSG:32643", nodata=0,
        transform=from_origin(ORIGIN_M[0], ORIGIN_M[1] + density.shape[0] * 300, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.clip(bands, 1, 10_000).astype("uint16"))


def _osm(path: Path, density: Field, seed: int) -> None:
    generator = np.random.default_rng(seed + 3)
    root = ElementTree.Element("osm", version="0.6", generator="urban examples (SYNTHETIC)")
    nodes: list[tuple[float, float]] = []
    ways: list[tuple[list[int], dict[str, str]]] = []

    def node(x: float, y: float) -> int:
        nodes.append((x, y))
        return len(nodes)

    for row, column in np.ndindex(density.shape):
        left, bottom = ORIGIN_M[0] + column * 300, ORIGIN_M[1] + row * 300
        street = [node(left, bottom + 150), node(left + 300, bottom + 150)]
        ways.append((street, {"highway": "residential"}))
        for _ in range(generator.poisson(math.exp(1.5 + 0.7 * density[row, column]))):
            x, y = left + generator.uniform(10, 260), bottom + generator.uniform(10, 260)
            wide, deep = generator.uniform(8, 30, 2)
            ring = [node(x, y), node(x + wide, y), node(x + wide, y + deep), node(x, y + deep)]
            levels = str(1 + generator.poisson(math.exp(0.8 * density[row, column])))
            ways.append(([*ring, ring[0]], {"building": "yes", "building:levels": levels}))
    points = np.array(nodes)
    lon, lat = GRID.unproject(points[:, 0], points[:, 1])
    for number, (a, b) in enumerate(zip(lon, lat, strict=True), start=1):
        ElementTree.SubElement(root, "node", id=str(number), lon=f"{a:.7f}", lat=f"{b:.7f}")
    for number, (refs, tags) in enumerate(ways, start=1):
        way = ElementTree.SubElement(root, "way", id=str(number))
        for ref in refs:
            ElementTree.SubElement(way, "nd", ref=str(ref))
        for key, value in tags.items():
            ElementTree.SubElement(way, "tag", k=key, v=value)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _pois(path: Path, density: Field, seed: int) -> None:
    generator = np.random.default_rng(seed + 4)
    rows: list[list[str]] = []
    for row, column in np.ndindex(density.shape):
        for _ in range(generator.poisson(math.exp(0.6 * density[row, column]))):
            kind = str(generator.choice(["cafe", "restaurant", "school", "bank"]))
            x = ORIGIN_M[0] + column * 300 + generator.uniform(0, 300)
            y = ORIGIN_M[1] + row * 300 + generator.uniform(0, 300)
            lon, lat = GRID.unproject(x, y)
            rows.append([f"{kind.title()} {len(rows)}", kind, f"{lon:.7f}", f"{lat:.7f}"])
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["name", "category", "lon", "lat"], *rows])


def _districts(path: Path, density: Field) -> None:
    """Squares of 2 × 2 tiles with a population that follows the density."""
    squares, people = [], []
    for row in range(0, density.shape[0] - 1, 2):
        for column in range(0, density.shape[1] - 1, 2):
            left, bottom = ORIGIN_M[0] + column * 300, ORIGIN_M[1] + row * 300
            squares.append(shapely.box(left, bottom, left + 600, bottom + 600))
            mean = density[row : row + 2, column : column + 2].mean()
            people.append(round(400 * math.exp(mean)))
    frame = gpd.GeoDataFrame({"district_id": range(len(people)), "people": people},
                             geometry=squares, crs=32643)  # fmt: skip
    frame.to_crs(4326).to_file(path)


def _cover(path: Path, green: Field) -> None:
    """The centre of every tile with a class that follows the greenery."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["lat", "lon", "cover"])
        for row, column in np.ndindex(green.shape):
            x, y = ORIGIN_M[0] + column * 300 + 150, ORIGIN_M[1] + row * 300 + 150
            lon, lat = GRID.unproject(x, y)
            kind = "park" if green[row, column] > 0.5 else "built"
            writer.writerow([f"{lat:.7f}", f"{lon:.7f}", kind])


def commands(inputs: Path, box: tuple[float, float, float, float]) -> list[list[str]]:
    """Return the command lines of the path, without `urban --workspace W` before them."""
    bbox = ",".join(f"{number:.6f}" for number in box)
    fetch = ["fetch", "--city", "synthetic-town", "--bbox", bbox]
    fetch += ["--imagery", f"sentinel2={inputs / 'imagery.tif'}", "--osm", f"{inputs / 'town.osm'}"]
    fetch += ["--pois", f"{inputs / 'pois.csv'}"]
    fetch += ["--label", f"population_density={inputs / 'districts.geojson'}:people/km2"]
    fetch += ["--label", f"cover={inputs / 'cover.csv'}:cover"]
    train = ["train", "--method", "urbanfusion", "--set", "epochs=10"]
    return [fetch, train, ["bench"], ["bench", "--drop", "satellite"]]


def main(folder: Path) -> None:
    """Run the path under a folder; every command is printed before it runs."""
    box = write_inputs(folder / "inputs")
    for arguments in commands(folder / "inputs", box):
        print(f"\n$ urban --workspace {folder} {' '.join(arguments)}", flush=True)
        subprocess.run(
            [sys.executable, "-m", "urbancli", "--workspace", str(folder), *arguments], check=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
