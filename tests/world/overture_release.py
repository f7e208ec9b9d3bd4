"""Overture-like releases: files of several row groups in the schema of 2026, on a grid."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from urbancli.grid import Grid, Places, tiles_of
from urbancli.sources._overture import search_boxes

RELEASE = "2026-10-21.10"
WEST, SOUTH = 8.90, 49.96

BOX = pa.struct([(name, pa.float32()) for name in ("xmin", "xmax", "ymin", "ymax")])
SOURCES = pa.list_(
    pa.struct([("property", pa.string()), ("dataset", pa.string()), ("confidence", pa.float64())])
)
NAMES = pa.struct([("primary", pa.string()), ("common", pa.map_(pa.string(), pa.string()))])

PLACE = pa.schema(
    [
        ("id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BOX),
        ("version", pa.int32()),
        ("sources", SOURCES),
        ("operating_status", pa.string()),
        ("names", NAMES),
        ("confidence", pa.float64()),
        ("basic_category", pa.string()),
        (
            "taxonomy",
            pa.struct([("primary", pa.string()), ("hierarchy", pa.list_(pa.string()))]),
        ),
        ("websites", pa.list_(pa.string())),
        ("brand", pa.struct([("wikidata", pa.string()), ("names", NAMES)])),
        ("phones", pa.list_(pa.string())),
    ]
)

BUILDING = pa.schema(
    [
        ("id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BOX),
        ("sources", SOURCES),
        ("names", NAMES),
        ("subtype", pa.string()),
        ("class", pa.string()),
        ("height", pa.float64()),
        ("num_floors", pa.int32()),
        ("is_underground", pa.bool_()),
        ("roof_shape", pa.string()),
        ("facade_material", pa.string()),
        ("facade_color", pa.string()),
    ]
)

KINDS = (
    ("food_and_drink restaurant italian_restaurant", "restaurant"),
    ("food_and_drink restaurant tatar_restaurant", "restaurant"),
    ("shopping specialty_store florist", "flowers_and_gifts_store"),
    ("services_and_business quantum_bureau", "quantum_bureau"),
    ("geographic_entities water_feature lake", "lake"),
)
"""Hierarchies and basic categories, in turn: one mapped itself, one by its parent, one unknown to
the table, and one that is no point of interest."""


UNWANTED = {"place": "phones.list.element", "building": "facade_color"}
"""Columns that nobody wants, and that weigh more than all others."""


def _bulk(number: int) -> str:
    return hashlib.shake_256(str(number).encode()).hexdigest(3000)


def bounds(shape: Any) -> dict[str, float]:
    """Return the box of a shape in float32, rounded outwards as Overture's is."""
    low = np.nextafter(np.float32(shape.bounds[:2]), np.float32(-np.inf))
    high = np.nextafter(np.float32(shape.bounds[2:]), np.float32(np.inf))
    return {"xmin": low[0], "ymin": low[1], "xmax": high[0], "ymax": high[1]}


def place(number: int, lon: float, lat: float) -> dict[str, Any]:
    """Return a row."""
    point = shapely.Point(lon, lat)
    hierarchy, basic = KINDS[number % len(KINDS)]
    return {
        "id": f"{number * 7919 % 100003:06x}-place",
        "geometry": point.wkb,
        "bbox": bounds(point),
        "version": 1,
        "sources": [
            {"property": "", "dataset": "meta", "confidence": 0.9},
            *([{"property": "/brand", "dataset": "Foursquare"}] * (number % 2)),
        ],
        "operating_status": "permanently_closed" if number % 10 == 0 else "open",
        "names": {"primary": f"Place {number}", "common": None} if number % 3 else None,
        "confidence": (number % 10) / 10,
        "basic_category": basic,
        "taxonomy": {"primary": hierarchy.split()[-1], "hierarchy": hierarchy.split()},
        "websites": [f"https://example.org/{number}"] if number % 4 == 0 else None,
        "brand": {"wikidata": "Q1", "names": {"primary": "Brand"}} if number % 6 == 0 else None,
        "phones": [_bulk(number)],
    }


def building(number: int, lon: float, lat: float) -> dict[str, Any]:
    """Return a row."""
    shape = shapely.box(lon, lat, lon + 2e-4, lat + 1e-4)
    return {
        "id": f"{number * 7919 % 100003:06x}-building",
        "geometry": shape.wkb,
        "bbox": bounds(shape),
        "sources": [{"dataset": "OpenStreetMap" if number % 2 else "Microsoft ML Buildings"}],
        "names": {"primary": "Hall"} if number % 5 == 0 else None,
        "subtype": ("residential", None, "agricultural")[number % 3],
        "class": ("house", None, None, "library")[number % 4],
        "height": 3.5 * (number % 4) if number % 4 else None,
        "num_floors": number % 4 or None,
        "is_underground": number % 7 == 0,
        "roof_shape": "gabled",
        "facade_material": None,
        "facade_color": _bulk(number),
    }


def write_release(
    root: Path, release: str, west: float, south: float, cells: int = 4, rows: int = 30
) -> list[dict[str, Any]]:
    """Write places and buildings; return the rows of both.

    The area is `cells`² squares of 0.02 degrees; a column of squares is a file, a square a row
    group.
    """
    generator = np.random.default_rng(5)
    found: list[dict[str, Any]] = []
    kinds = (("places", "place", PLACE, place), ("buildings", "building", BUILDING, building))
    for theme, kind, schema, make in kinds:
        number = 0
        for column in range(cells):
            folder = root / release / f"theme={theme}" / f"type={kind}"
            folder.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(folder / f"part-{column:05d}-c000.zstd.parquet", schema) as file:
                for row in range(cells):
                    corner = np.array([west + column * 0.02, south + row * 0.02])
                    spots = generator.uniform(0, 0.0195, (rows, 2)) + corner
                    made = [make(number + i, *spot) for i, spot in enumerate(spots.tolist())]
                    number += rows
                    file.write_table(pa.Table.from_pylist(made, schema))
                    found += [{**each, "type": kind} for each in made]
    return found


def write_index(path: Path, cells: dict[str, list[float]]) -> None:
    """Write the index of a release: an item a file, with its box and its addresses, by key."""
    rows = []
    for key, box in cells.items():
        sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        address = f"s3://overturemaps/release/{key}"
        asset = {"alternate": {"s3": {"href": address}}, "href": f"https://x.example/{key}"}
        rows.append({"type": "Feature", "bbox": sides, "assets": {"aws": asset}})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def city(west: float = 8.925, south: float = 49.985) -> Places:
    """Of one square of the release, and its halo reaches into the next ones."""
    return tiles_of(shapely.box(west, south, west + 0.01, south + 0.01), Grid(32632))


def table_of(source: Any, places: Places) -> pa.Table:
    tables = [source.read(block) for block in source.blocks(places)]
    return pa.concat_tables(tables)


def near(rows: list[dict[str, Any]], kind: str, places: Places) -> set[str]:
    """The ids whose shapes touch the search boxes, by brute force over all rows."""
    boxes = shapely.union_all([shapely.box(*box) for box in search_boxes(places)])
    shapes = shapely.from_wkb([row["geometry"] for row in rows])
    touches = shapely.intersects(shapes, boxes)
    return {r["id"] for r, t in zip(rows, touches, strict=True) if t and r["type"] == kind}
