"""A city of nine tiles with every kind of file, and its manifest made anew."""

from pathlib import Path

from PIL import Image

from urbancli.city import City, box_area
from urbancli.fetching import fetch
from urbancli.labels.files import parse_label
from urbancli.sources.base import Source
from urbancli.sources.naip import Source as Naip
from urbancli.sources.osm import Source as Osm
from urbancli.sources.photos import Source as Photos
from urbancli.sources.pois import Source as Pois
from urbancli.sources.sentinel2 import Source as Sentinel2
from urbancli.workspace import Workspace, write_manifest

KEY = "town"

BOX = (-41.140, 44.962, -41.131, 44.968)

LABELS = (
    "population_density=labels/population.tif",
    "land_use=labels/land_use.geojson:lu_*",
    "house_price=labels/prices.csv:log_price",
)


SPOTS = ((44.9640, -41.1380, 0), (44.9650, -41.1350, 359.5), (44.9660, -41.1330, ""))
"""Latitude, longitude and heading of photos."""


def take_photos(folder: Path) -> list[Path]:
    """Make grey photos, and the table that says where they were taken."""
    folder.mkdir()
    lines = ["file,lat,lon,heading"]
    for number, (lat, lon, heading) in enumerate(SPOTS):
        Image.new("L", (80, 60), 50 * number).save(folder / f"{number}.jpg")
        lines.append(f"{number}.jpg,{lat},{lon},{heading}")
    (folder / "photos.csv").write_text("\n".join(lines))
    return [folder]


def fetch_small_city(folder: Path, inputs: Path, *, osm: bool = True) -> Workspace:
    """Fetch a corner of the demo city as a town of the user's own, with or without its map."""
    catalogue = str(inputs / "catalogue/catalog.json")
    sources: list[Source] = [Sentinel2(catalogue), Naip(catalogue), Pois(inputs / "pois.csv")]
    sources += [Osm(inputs / "map.osm.pbf")] if osm else []
    sources.append(Photos(take_photos(folder / "photos")))
    labels = [parse_label(text.replace("=", f"={inputs}/")) for text in LABELS]
    town = City(KEY, box_area(BOX), 32624, "bbox")
    fetch(Workspace(folder), town, sources, labels)
    return Workspace(folder)


def relist(workspace: Workspace) -> None:
    """Make the manifest anew, so that a changed file is no changed checksum."""
    folder = workspace.city_dir(KEY)
    files = [path for path in folder.rglob("*") if path.is_file()]
    write_manifest(folder, [p for p in files if p.name not in {"manifest.json", ".fetching"}])
