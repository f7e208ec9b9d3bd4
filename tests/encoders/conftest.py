"""A tiny city written through the package's own writers: what an encoder reads, without a fetch."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import shapely

from urbancli.grid import BLOCK_TILES, Grid, Places, point_places, tiles_of
from urbancli.layers import (
    ENTITY_SCHEMA,
    PIXEL_SCHEMA,
    CityLayers,
    open_city,
    pack_valid,
)
from urbancli.workspace import (
    BBOX_TYPE,
    Workspace,
    geo_table,
    write_json,
    write_manifest,
    write_table,
    write_tables,
)

GRID = Grid(32643)
WEST, SOUTH = 2404, 10500
"""Column and row of the city's south-west tile: not the first of its block."""

SOUTH_WEST = np.array([WEST, SOUTH])


@dataclass(frozen=True)
class Builder:
    """Writes a city of `columns` × `rows` tiles and its layers, then opens it."""

    workspace: Workspace
    columns: int
    rows: int
    key: str = "tiny"
    grid: Grid = GRID

    def corner(self) -> tuple[float, float]:
        """South-west corner of the city, metres."""
        return WEST * 300.0, SOUTH * 300.0

    def pixels(
        self,
        layer: str,
        samples: npt.NDArray[Any],
        valid: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Write a mosaic (bands, rows, columns), north first, as a pixel layer."""
        side = samples.shape[1] // self.rows
        valid = np.ones(samples.shape[1:], bool) if valid is None else valid
        cells = np.array([(c, r) for c in range(self.columns) for r in range(self.rows)])
        tables = []
        for block in GRID.blocks(cells + SOUTH_WEST):
            inside = cells[
                ((cells + SOUTH_WEST) // BLOCK_TILES == [block.column, block.row]).all(axis=1)
            ]
            boxes = GRID.unproject_geometry(GRID.tile_boxes(inside + SOUTH_WEST))
            rows = []
            for column, row in inside:
                south = self.rows - 1 - row
                part = (
                    slice(south * side, south * side + side),
                    slice(column * side, column * side + side),
                )
                share, bits = pack_valid(valid[part])
                data = np.ascontiguousarray(samples[(slice(None), *part)])
                rows.append((GRID.tile_id(column + WEST, row + SOUTH), share, data.tobytes(), bits))
            ids, shares, data, bits = zip(*rows, strict=True)
            columns = {
                "place_id": pa.array(ids),
                "block": pa.array([block.block_id] * len(ids)),
                "valid_fraction": pa.array(shares),
                "pixels": pa.array(data, pa.binary()),
                "valid": pa.array(bits, pa.binary()),
            }
            tables.append(geo_table(columns, boxes))
        facts = {
            "bands": [f"b{n}" for n in range(len(samples))],
            "dtype": samples.dtype.name,
            "pixel_m": 300 / side,
        }
        path = self.workspace.layer_file(self.key, layer)
        bounds = shapely.total_bounds(boxes).tolist()
        write_tables(
            path, tables, schema=PIXEL_SCHEMA, metadata=facts, types=("Polygon",), bounds=bounds
        )

    def offsets(self, places: Places) -> npt.NDArray[np.int64]:
        """Return (column, row) of places, counted from the city's south-west tile."""
        return places.cells - SOUTH_WEST

    def points(self, xy: npt.ArrayLike) -> Places:
        """Return point places (N, 2), metres from the city's south-west corner."""
        lon, lat = GRID.unproject(*(np.asarray(xy) + self.corner()).T)
        return point_places(lon, lat, GRID)

    def entities(
        self, layer: str, geometry: list[shapely.Geometry], tags: list[dict[str, str]]
    ) -> None:
        """Write entities; geometries in metres from the city's south-west corner."""
        metres = shapely.transform(np.array(geometry, object), lambda xy: xy + self.corner())
        lonlat = GRID.unproject_geometry(metres)
        boxes = GRID.tile_boxes(cells := self.cells())
        rows = [
            {
                "entity_id": f"way/{number}",
                "tags": list(tag.items()),
                "members": [],
                "places": [GRID.tile_id(*cells[n]) for n in touched],
                "bbox": dict(
                    zip(
                        [field.name for field in BBOX_TYPE],
                        shapely.bounds(shape).tolist(),
                        strict=True,
                    )
                ),
                "geometry": shapely.to_wkb(shape),
            }
            for number, (shape, tag, touched) in enumerate(
                zip(
                    lonlat,
                    tags,
                    [np.flatnonzero(shapely.intersects(boxes, m)) for m in metres],
                    strict=True,
                )
            )
        ]
        block = GRID.block_of(WEST, SOUTH).block_id
        table = pa.Table.from_pylist([{**row, "block": block} for row in rows], ENTITY_SCHEMA)
        write_table(self.workspace.layer_file(self.key, layer), table, {})

    def cells(self) -> npt.NDArray[np.int64]:
        """Column and row of every tile."""
        return np.array(
            [(WEST + c, SOUTH + r) for c in range(self.columns) for r in range(self.rows)]
        )

    def open(self) -> tuple[CityLayers, Places]:
        """Write places, lock and manifest; return the city and its tiles."""
        x, y = self.corner()
        outline = shapely.box(x, y, x + self.columns * 300, y + self.rows * 300).buffer(-30)
        places = tiles_of(GRID.unproject_geometry(outline), GRID)
        folder = self.workspace.city_dir(self.key)
        write_table(self.workspace.places_file(self.key), places.to_table(), {})
        write_json(self.workspace.lock_file(self.key), {"city": {"epsg": GRID.epsg, "tile_m": 300}})
        files = sorted(folder.rglob("*.parquet"))
        write_manifest(folder, files)
        city = open_city(self.workspace, self.key)
        return city, city.tiles()


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Builder]:
    """Return `tiny(columns, rows, key="tiny")`: builders of cities in one workspace."""
    return functools.partial(Builder, Workspace(tmp_path))
