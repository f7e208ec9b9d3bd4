"""Checks of an entity layer: geometries, ids, and the tiles that they are joined to."""

from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from urbancli.grid import BLOCK_TILES
from urbancli.layers import ENTITY_SCHEMA
from urbancli.validation.city import City, Unique, check_facts, ids_of
from urbancli.validation.findings import FileCheck
from urbancli.validation.geoparquet import Geography, open_checked, row_groups
from urbancli.workspace import Geometries

FACTS = ("layer", "licence", "attribution", "epsg", "tile_m", "provenance", "plan_fingerprint")

MARGIN_M = 1e-3
"""How far an entity may lie from its tile: what a projection there and back moves it, far less."""


def check_entities(city: City, layer: str) -> None:
    """Check an entity layer and note the tiles without any of its entities."""
    check = city.check(city.workspace.layer_file(city.key, layer))
    opened = open_checked(check, ENTITY_SCHEMA)
    if opened is None:
        return
    file, facts = opened
    with file:
        check_facts(check, city, facts, FACTS)
        halo_m = float(facts.get("provenance", {}).get("halo_m", 0.0))
        geography, unique = Geography(file, check), Unique(check)
        joins = _Joins(check, city, halo_m)
        for table, geometry in row_groups(file):
            ids = ids_of(table, "entity_id")
            geography.add(table, geometry, ids)
            unique.add(ids)
            areal = shapely.get_dimensions(geometry) == 2
            check.rows("geometry is not valid", areal & ~shapely.is_valid(geometry), ids)
            check.rows("no tags", np.array(table.column("tags").is_null()), ids)
            joins.add(table, geometry, ids)
        geography.close()
        if without := len(city.places) - len(joins.met):
            check.note(f"{without:,} of the city's {len(city.places):,} tiles hold no entity")
        check.close(file.metadata.num_rows)


class _Joins:
    """Compares entities with the tiles that they say they touch.

    Attributes:
        met: ids of the tiles that any touches.
    """

    def __init__(self, check: FileCheck, city: City, halo_m: float) -> None:
        self._check = check
        self._grid = city.grid
        self._cell_of = dict(zip(city.places.place_id, city.places.cells.tolist(), strict=True))
        wide = city.grid.halo(city.places.cells, halo_m)
        boxes = shapely.union_all(city.grid.tile_boxes(wide))
        self._halo = shapely.buffer(boxes, MARGIN_M, join_style="mitre")
        shapely.prepare(self._halo)
        self._blocks = {block.block_id for block in city.grid.blocks(wide)}
        self._block_of = {
            place: city.grid.block_of(*cell).block_id for place, cell in self._cell_of.items()
        }
        self.met: set[str] = set()

    def add(self, table: pa.Table, geometry: Geometries, ids: list[Any]) -> None:
        """Look at the entities of a row group."""
        shapes = np.asarray(self._grid.project_geometry(geometry), dtype=object)
        check, places = self._check, ids_of(table, "places")
        unknown = [any(p not in self._cell_of for p in own or ()) for own in places]
        check.rows("names a tile that is not in places.parquet", unknown, ids)
        pairs = [
            (row, *self._cell_of[place])
            for row, own in enumerate(places)
            for place in own or ()
            if place in self._cell_of
        ]
        self.met |= {p for own in places for p in own or () if p in self._cell_of}
        apart = np.zeros(len(ids), dtype=bool)
        if pairs:
            row, *cell = np.array(pairs, dtype=np.int64).T
            boxes = self._grid.tile_boxes(np.column_stack(cell))
            apart[row[~shapely.dwithin(shapes[row], boxes, MARGIN_M)]] = True
        check.rows("does not touch a tile that it names", apart, ids)
        outside = ~shapely.intersects(self._halo, shapes)
        check.rows("lies beyond the halo of the city's tiles", outside, ids)
        self._check_blocks(table, places, ids)

    def _check_blocks(self, table: pa.Table, places: list[Any], ids: list[Any]) -> None:
        blocks = ids_of(table, "block")
        wrong = [
            block not in ({self._block_of[p] for p in own if p in self._block_of} or self._blocks)
            for own, block in zip(places, blocks, strict=True)
        ]
        self._check.rows(f"block of {BLOCK_TILES}×{BLOCK_TILES} is none of its tiles'", wrong, ids)
