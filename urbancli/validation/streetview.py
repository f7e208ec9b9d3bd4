"""Checks of street-view photos: where they were taken, and that each is a whole JPEG."""

from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from urbancli import plugins
from urbancli.licences import known_licences
from urbancli.validation.city import City, Unique, check_blocks, check_facts, ids_of
from urbancli.validation.entities import FACTS, MARGIN_M
from urbancli.validation.findings import FileCheck
from urbancli.validation.geoparquet import Geography, open_checked, row_groups
from urbancli.workspace import Geometries

JPEG = (b"\xff\xd8", b"\xff\xd9")
"""How a JPEG begins and ends."""


def check_streetview(city: City, layer: str) -> None:
    """Check a layer of photos and note the tiles without any."""
    check = city.check(city.workspace.layer_file(city.key, layer))
    opened = open_checked(check, plugins.load("sources", "photos").Source.schema)
    if opened is None:
        return
    file, facts = opened
    with file:
        check_facts(check, city, facts, FACTS)
        geography, unique = Geography(file, check), Unique(check)
        met: set[str] = set()
        for table, geometry in row_groups(file):
            ids, places = ids_of(table, "photo_id"), ids_of(table, "place_id")
            geography.add(table, geometry, ids)
            unique.add(ids)
            check_blocks(check, city, places, ids_of(table, "block"))
            _check_spots(check, city, table, geometry)
            _check_photos(check, table)
            met |= set(places)
        geography.close()
        if without := len(city.places) - len(met):
            check.note(f"{without:,} of the city's {len(city.places):,} tiles have no photo")
        check.close(file.metadata.num_rows)


def _check_spots(check: FileCheck, city: City, table: pa.Table, geometry: Geometries) -> None:
    ids, places = ids_of(table, "photo_id"), ids_of(table, "place_id")
    cell_of = dict(zip(city.places.place_id, city.places.cells.tolist(), strict=True))
    known = np.array([place in cell_of for place in places], dtype=bool)
    check.rows("names a tile that is not in places.parquet", ~known, ids)
    cells = np.array([cell_of.get(place, (0, 0)) for place in places], dtype=np.int64)
    shapes = np.asarray(city.grid.project_geometry(geometry), dtype=object)
    near = shapely.dwithin(shapes, city.grid.tile_boxes(cells), MARGIN_M)
    check.rows("was not taken in the tile that it names", known & ~near, ids)
    lonlat = [table.column(name).to_numpy(zero_copy_only=False) for name in ("lon", "lat")]
    same = (shapely.get_x(geometry) == lonlat[0]) & (shapely.get_y(geometry) == lonlat[1])
    check.rows("lon, lat differ from the geometry", ~same, ids)
    heading = table.column("heading").to_numpy(zero_copy_only=False).astype(np.float64)
    known = ~np.array(table.column("heading").is_null())
    check.rows("heading is not in [0, 360)", known & ~((heading >= 0) & (heading < 360)), ids)


def _check_photos(check: FileCheck, table: pa.Table) -> None:
    ids = ids_of(table, "photo_id")
    whole = [_is_jpeg(image.as_buffer()) for image in table.column("image")]
    check.rows("image is not a whole JPEG", ~np.array(whole, dtype=bool), ids)
    known = [known_licences(name or "") is not None for name in ids_of(table, "licence")]
    check.rows("licence is unknown", ~np.array(known, dtype=bool), ids)


def _is_jpeg(image: Any) -> bool:
    return image is not None and (image[:2].to_pybytes(), image[-2:].to_pybytes()) == JPEG
