"""Cities: the table of known ones, boxes, areas of interest, and geocoding as the last resort.

A city has ONE metric CRS, the UTM zone of its centre, also where it straddles a zone. For a city
of the table the centre is the table's, whatever box was asked for, so that a tile keeps its id.
"""

import csv
import functools
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.errors import ServiceError, UrbanError, UsageError, unknown
from urbancli.vector import read_vector

Box = tuple[float, float, float, float]
"""(west, south, east, north) in EPSG:4326 degrees; west > east crosses the antimeridian."""


@dataclass(frozen=True)
class City:
    """A named area with one metric CRS.

    Attributes:
        key: the name in paths and on the command line, e.g. `new-york`.
        area: polygon or multipolygon, EPSG:4326, lon lat, split at the antimeridian.
        epsg: the UTM zone of the centre, 326xx north and 327xx south of the equator; metres.
        origin: where the area comes from: `table`, `bbox`, `aoi` or `geocoder`.
    """

    key: str
    area: BaseGeometry
    epsg: int
    origin: str


@functools.cache
def known_cities() -> dict[str, dict[str, Any]]:
    """Return the city table: key → name, country (ISO 3166-1 alpha-3), lon, lat and box.

    The 56 cities of Place Pulse 2.0 and those of the GeoJEPA and CityRep papers. A box is the
    benchmark's study area, in EPSG:4326 degrees: a square around the centre for most cities.
    """
    with (files("urbancli") / "cities.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = ("lon", "lat", "west", "south", "east", "north")
    return {row["key"]: {**row, **{name: float(row[name]) for name in numbers}} for row in rows}


def slug(name: str) -> str:
    """Return a city's name as a key: ASCII, lower case, words joined by hyphens."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")


def utm_epsg(lon: float, lat: float) -> int:
    """Return the EPSG code of the UTM zone of a point, by the plain six-degree rule.

    The exceptions of Norway and Svalbard are ignored: one rule for all, and the distortion in
    a neighbouring zone stays small at the scale of a city.
    """
    zone = int((lon + 180.0) % 360.0 // 6.0) + 1
    return (32600 if lat >= 0 else 32700) + zone


def box_area(box: Box) -> BaseGeometry:
    """Return a box as a polygon, or as two where it crosses the antimeridian.

    Raises:
        UsageError: latitudes or longitudes out of range or in the wrong order.
    """
    west, south, east, north = box
    if not (-90 <= south < north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise UsageError(
            f"box {west},{south},{east},{north} is not west,south,east,north in degrees: "
            "longitudes in [-180, 180], latitudes in [-90, 90], south < north"
        )
    if west == east:
        raise UsageError(f"box {west},{south},{east},{north} has no width")
    if west < east:
        return shapely.box(west, south, east, north)
    parts = [(west, 180.0), (-180.0, east)]
    boxes = [shapely.box(a, south, b, north) for a, b in parts if a < b]
    return boxes[0] if len(boxes) == 1 else shapely.MultiPolygon(boxes)


def split_antimeridian(geometry: BaseGeometry) -> BaseGeometry:
    """Return a lon/lat polygon cut where it crosses the antimeridian, longitudes in [-180, 180].

    A polygon wider than 180 degrees is read as one that crosses: no city is that wide.
    """
    west, _, east, _ = geometry.bounds
    if east - west <= 180 and east <= 180 and west >= -180:
        return geometry
    unwrapped = shapely.transform(geometry, _unwrap)
    pieces = []
    for shift in (0.0, -360.0):
        window = shapely.box(-180.0 - shift, -90, 180.0 - shift, 90)
        piece = shapely.intersection(unwrapped, window)
        if not piece.is_empty and piece.area > 0:
            pieces.append(shapely.transform(piece, functools.partial(_shift, by=shift)))
    return shapely.union_all(pieces)


def _unwrap(points: Any) -> Any:
    points = points.copy()
    points[points[:, 0] < 0, 0] += 360.0
    return points


def _shift(points: Any, by: float) -> Any:
    points = points.copy()
    points[:, 0] += by
    return points


def centre_lonlat(area: BaseGeometry) -> tuple[float, float]:
    """Return the centroid (lon, lat) of an area, degrees, also across the antimeridian."""
    west, _, east, _ = area.bounds
    if east - west > 180:
        centroid = shapely.transform(area, _unwrap).centroid
        return (float(centroid.x) + 180.0) % 360.0 - 180.0, float(centroid.y)
    return float(area.centroid.x), float(area.centroid.y)


def read_area(path: Path) -> BaseGeometry:
    """Return the union of the polygons in any vector file GDAL or pyarrow opens, EPSG:4326.

    Raises:
        UrbanError: the file cannot be read, has no CRS or holds no polygon.
    """
    frame = read_vector(path)
    polygons = frame.geometry[frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"])]
    if polygons.empty:
        raise UrbanError(f"{path} holds no polygon: --aoi wants the outline of an area")
    area = shapely.union_all(shapely.make_valid(polygons.to_numpy()))
    west, south, east, north = area.bounds
    if west < -360 or east > 360 or south < -90 or north > 90:
        raise UrbanError(f"{path} reaches beyond the globe: check its CRS")
    return split_antimeridian(area)


def find_city(name: str, box: Box | None = None, aoi: Path | None = None) -> City:
    """Return a city from the table, a box, a file with its outline, or the geocoder, in this order.

    Args:
        name: any name; one of the table fixes the UTM zone and, without box or aoi, the area.
        box: (west, south, east, north), EPSG:4326 degrees.
        aoi: a vector file with the outline.

    Raises:
        UsageError: an empty or misspelt name, or both box and aoi.
        UrbanError: the outline cannot be read.
        ServiceError: the geocoder cannot be reached.
    """
    key = slug(name)
    if not key:
        raise UsageError(f"'{name}' names no city: use letters or digits")
    if box is not None and aoi is not None:
        raise UsageError("give --bbox or --aoi, not both")
    row = known_cities().get(key)
    if box is not None:
        area, origin = box_area(box), "bbox"
    elif aoi is not None:
        area, origin = read_area(aoi), "aoi"
    elif row is not None:
        area = box_area((row["west"], row["south"], row["east"], row["north"]))
        origin = "table"
    else:
        area, origin = _geocode(name, key), "geocoder"
    lon, lat = (row["lon"], row["lat"]) if row else centre_lonlat(area)
    epsg = utm_epsg(lon, lat)
    if row and origin in {"bbox", "aoi"}:
        _check_near(name, area, lon)
    return City(key, area, epsg, origin)


def _check_near(name: str, area: BaseGeometry, lon: float) -> None:
    there, lat = centre_lonlat(area)
    if abs((there - lon + 180) % 360 - 180) > 6:
        raise UsageError(
            f"the area's centre {there:.3f},{lat:.3f} is not in {name}: check the order "
            "west,south,east,north, or give the city another name"
        )


def _geocode(name: str, key: str) -> BaseGeometry:
    """Ask Nominatim through osmnx, which takes the first of its results that is a polygon."""
    import difflib

    if difflib.get_close_matches(key, known_cities(), n=1, cutoff=0.75):
        error = unknown("city", key, known_cities())
        raise UsageError(f"{error} For another city give --bbox or --aoi")
    import osmnx
    from platformdirs import user_cache_dir

    cache = os.environ.get("URBAN_CACHE") or user_cache_dir("urban")
    osmnx.settings.cache_folder = str(Path(cache) / "nominatim")
    osmnx.settings.http_user_agent = "urban/0.1 (+https://pypi.org/project/urbancli)"
    if url := os.environ.get("URBAN_NOMINATIM_URL"):
        osmnx.settings.nominatim_url = url
    try:
        frame = osmnx.geocode_to_gdf(name)
    except TypeError as err:  # osmnx: results, but no polygon among them
        raise UrbanError(f"'{name}' has no outline at the geocoder: give --bbox or --aoi") from err
    except Exception as err:
        if type(err).__name__ == "InsufficientResponseError":
            raise UrbanError(f"the geocoder knows no '{name}': give --bbox or --aoi") from err
        raise ServiceError(
            f"'{name}' is not in the city table and the geocoder cannot be reached "
            f"({type(err).__name__}): give --bbox or --aoi"
        ) from err
    return split_antimeridian(frame.geometry.iloc[0])


def parse_box(text: str) -> Box:
    """Return the box written as `west,south,east,north`.

    Raises:
        UsageError: not four finite numbers.
    """
    try:
        numbers: Sequence[float] = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(abs(number) < 1e9 for number in numbers):
        raise UsageError(f"--bbox '{text}' is not four numbers west,south,east,north")
    return (numbers[0], numbers[1], numbers[2], numbers[3])
