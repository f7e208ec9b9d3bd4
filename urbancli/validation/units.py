"""Checks of a city's tiles and of its labels."""

from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from urbancli.grid import Floats
from urbancli.lock import area_fingerprint
from urbancli.validation.city import (
    TOLERANCE,
    City,
    Unique,
    check_blocks,
    check_facts,
    check_tiles,
    ids_of,
)
from urbancli.validation.geoparquet import Geography, open_checked, row_groups
from urbancli.workspace import BBOX_TYPE

PLACES = pa.schema(
    [
        ("place_id", pa.string()),
        ("kind", pa.string()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("share_inside", pa.float64()),
        ("block", pa.string()),
        ("bbox", BBOX_TYPE),
        ("geometry", pa.binary()),
    ]
)

LABEL = pa.schema([("unit_id", pa.string()), ("bbox", BBOX_TYPE), ("geometry", pa.binary())])

FACTS = ("label", "source", "licence", "kind", "unit", "without_value")

VALUES = {"regression": pa.float64(), "classification": pa.string()}

SHARE_TOLERANCE = 1e-4
"""Of a tile's area: the lock keeps outlines to a centimetre."""

SHAPES = {
    "polygon": {"Polygon", "MultiPolygon"},
    "circle": {"Polygon", "MultiPolygon"},
    "tile": {"Polygon", "MultiPolygon"},
    "point": {"Point"},
}


def check_places(city: City) -> None:
    """Check `places.parquet` against the area and grid of the lock."""
    check = city.check(city.workspace.places_file(city.key))
    opened = open_checked(check, PLACES)
    if opened is None:
        return
    file, facts = opened
    with file:
        check_facts(check, city, facts, ("city", "epsg", "tile_m", "origin", "area_fingerprint"))
        if facts.get("area_fingerprint") != area_fingerprint(city.lock["city"]):
            check.fault("it was made for another area than the lock's")
        share_of = dict(zip(city.places.place_id, city.places.share_inside, strict=True))
        geography, unique = Geography(file, check), Unique(check)
        for table, geometry in row_groups(file):
            ids = ids_of(table, "place_id")
            geography.add(table, geometry, ids)
            unique.add(ids)
            check_tiles(check, city, ids, geometry)
            check_blocks(check, city, ids, ids_of(table, "block"))
            check.rows("kind is not 'tile'", [k != "tile" for k in ids_of(table, "kind")], ids)
            own = table.column("share_inside").to_numpy(zero_copy_only=False)
            right = np.array([share_of.get(place, np.nan) for place in ids])
            check.rows("no tile of the lock's area", np.isnan(right), ids)
            differs = ~np.isnan(right) & ~(np.abs(own - right) <= SHARE_TOLERANCE)
            check.rows("share_inside differs from the lock's area", differs, ids)
            check.rows("lon, lat is not the tile's centre", _off_centre(city, table, ids), ids)
        geography.close()
        if lacking := len(share_of.keys() - unique.seen):
            check.fault(
                f"{lacking:,} of the {len(share_of):,} tiles of the lock's area are missing"
            )
        check.close(file.metadata.num_rows)


def _off_centre(city: City, table: pa.Table, ids: list[Any]) -> Any:
    row_of = {place: row for row, place in enumerate(city.places.place_id)}
    rows = [row_of.get(place, -1) for place in ids]
    centres = np.column_stack(city.places.lonlat())[rows]
    own: Floats = np.column_stack(
        [table.column(name).to_numpy(zero_copy_only=False) for name in ("lon", "lat")]
    )
    known = np.array(rows) >= 0
    return known & ~(np.abs(own - centres) <= TOLERANCE).all(axis=1)


def check_label(city: City, name: str) -> None:
    """Check a label: unique units that lie in the city, values of its kind."""
    check = city.check(city.workspace.label_file(city.key, name))
    opened = open_checked(check, LABEL)
    if opened is None:
        return
    file, facts = opened
    with file:
        if not check_facts(check, city, facts, FACTS):
            check.close(file.metadata.num_rows)
            return
        value = file.schema_arrow.field("value") if "value" in file.schema_arrow.names else None
        if value is None or value.type != VALUES.get(facts["kind"]):
            check.fault(f"value is {value and value.type}, not that of a {facts['kind']}")
        geography, unique = Geography(file, check), Unique(check)
        boxes = shapely.STRtree(city.places.boxes())
        absent = 0
        for table, geometry in row_groups(file):
            ids = ids_of(table, "unit_id")
            geography.add(table, geometry, ids)
            unique.add(ids)
            types = np.array([each is not None and each.geom_type for each in geometry])
            odd = ~np.isin(types, list(SHAPES.get(facts["unit"], ())))
            check.rows(f"geometry is not that of a {facts['unit']}", odd, ids)
            check.rows("geometry is not valid", ~shapely.is_valid(geometry), ids)
            shapes = np.asarray(city.grid.project_geometry(geometry), dtype=object)
            inside = np.zeros(len(ids), dtype=bool)
            inside[np.unique(boxes.query(shapes, predicate="intersects")[0])] = True
            check.rows("lies outside the city's tiles", ~inside, ids)
            if facts["unit"] == "tile":
                check_tiles(check, city, ids, geometry)
            if value is not None:
                absent += table.column("value").null_count
                check.rows("value is not finite", _not_finite(table), ids)
        geography.close()
        if absent != facts["without_value"]:
            check.fault(f"{absent} units have no value, its metadata say {facts['without_value']}")
        if absent:
            check.note(f"{absent:,} of {file.metadata.num_rows:,} units have no value")
        check.close(file.metadata.num_rows)


def _not_finite(table: pa.Table) -> Any:
    column = table.column("value")
    if column.type != pa.float64():
        return np.zeros(table.num_rows, dtype=bool)
    known = ~np.array(column.is_null())
    return known & ~np.isfinite(column.to_numpy(zero_copy_only=False))
