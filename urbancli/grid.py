"""Tiles, blocks and places: the metric grid that every fetch shares.

The grid is anchored at the origin of the UTM zone, so a tile's id says where it is and two fetches
name the same square the same. Columns grow eastwards and rows northwards; pixel rows, as in every
raster, grow southwards.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.city import split_antimeridian
from urbancli.errors import UrbanError
from urbancli.hilbert import hilbert_index
from urbancli.workspace import Geometries, geo_table, geometries

TILE_M = 300
"""Side of a tile, metres."""

BLOCK_TILES = 8
"""Tiles along a side of a block: the unit of download, resume and reading."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_WITHIN = np.indices((BLOCK_TILES, BLOCK_TILES)).reshape(2, -1)[::-1].T.astype(np.int64)
"""(column, row) of a block's tiles, counted from its own corner, rows from the south."""


_TILE_ID = (
    "(?P<epsg>[0-9]{1,9})_(?P<size>[0-9]{1,9})_(?P<column>-?[0-9]{1,9})_(?P<row>-?[0-9]{1,9})"
)
"""A tile's id, read alike by Python and by Arrow."""


@functools.lru_cache(maxsize=8)
def _transformer(source: int, target: int) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)


@dataclass(frozen=True)
class Block:
    """A square of 8×8 tiles, `column` and `row` counted in blocks from the zone's origin."""

    epsg: int
    tile_m: int
    column: int
    row: int

    @property
    def block_id(self) -> str:
        """EPSG, tile size, column and row: the same in every fetch."""
        return f"{self.epsg}_{self.tile_m}_b{self.column}_{self.row}"

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top), metres in the grid's CRS."""
        side = float(self.tile_m * BLOCK_TILES)
        left, bottom = self.column * side, self.row * side
        return (left, bottom, left + side, bottom + side)

    def tiles(self) -> Integers:
        """Return (column, row) of its 64 tiles, shape (64, 2), rows from the south."""
        corner = np.array([self.column * BLOCK_TILES, self.row * BLOCK_TILES])
        return np.asarray(_WITHIN + corner)


@dataclass(frozen=True)
class Grid:
    """The tiles of `tile_m` metres of one UTM zone."""

    epsg: int
    tile_m: int = TILE_M

    def project(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return (easting, northing) in metres of lon, lat in EPSG:4326 degrees."""
        x, y = _transformer(4326, self.epsg).transform(np.asarray(lon), np.asarray(lat))
        return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)

    def unproject(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return (lon, lat) in EPSG:4326 degrees of eastings and northings in metres."""
        lon, lat = _transformer(self.epsg, 4326).transform(np.asarray(x), np.asarray(y))
        return np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)

    def project_geometry(self, geometry: Any) -> Any:
        """Return geometries (one, or an array) from EPSG:4326 lon lat in the grid's CRS, metres."""
        return shapely.transform(
            geometry, lambda points: np.column_stack(self.project(points[:, 0], points[:, 1]))
        )

    def unproject_geometry(self, geometry: Any) -> Any:
        """Return geometries from the grid's CRS in EPSG:4326, cut at the antimeridian."""
        lonlat = shapely.transform(
            geometry, lambda points: np.column_stack(self.unproject(points[:, 0], points[:, 1]))
        )
        if isinstance(lonlat, BaseGeometry):
            return split_antimeridian(lonlat)
        bounds = shapely.bounds(lonlat)
        for index in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
            lonlat[index] = split_antimeridian(lonlat[index])
        return lonlat

    def tile_at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Integers:
        """Return (column, row) of the tiles that hold points in metres, shape (N, 2)."""
        cells = np.column_stack([np.atleast_1d(x), np.atleast_1d(y)]) / self.tile_m
        return np.floor(cells).astype(np.int64)

    def tile_id(self, column: int, row: int) -> str:
        """Return `EPSG_size_column_row`."""
        return f"{self.epsg}_{self.tile_m}_{column}_{row}"

    def tile_ids(self, cells: Integers) -> pa.StringArray:
        """Return the ids of tiles (N, 2), as `tile_id`."""
        column, row = (pa.array(axis).cast(pa.string()) for axis in cells.T)
        return pc.binary_join_element_wise(f"{self.epsg}_{self.tile_m}", column, row, "_")

    def block_ids(self, cells: Integers) -> pa.StringArray:
        """Return the ids of the blocks that hold tiles (N, 2)."""
        column, row = (pa.array(axis // BLOCK_TILES).cast(pa.string()) for axis in cells.T)
        column = pc.binary_join_element_wise(f"{self.epsg}_{self.tile_m}_b", column, "")
        return pc.binary_join_element_wise(column, row, "_")

    def tile_boxes(self, cells: Integers) -> Geometries:
        """Return the squares of tiles (N, 2) as polygons in the grid's CRS, metres."""
        left, bottom = (cells * self.tile_m).astype(np.float64).T
        boxes = shapely.box(left, bottom, left + self.tile_m, bottom + self.tile_m)
        return np.asarray(boxes, dtype=object)

    def block_of(self, column: int, row: int) -> Block:
        """Return the block that holds a tile."""
        return Block(self.epsg, self.tile_m, column // BLOCK_TILES, row // BLOCK_TILES)

    def blocks(self, cells: Integers) -> list[Block]:
        """Return the blocks that hold tiles (N, 2), in Hilbert order of the zone's plane."""
        numbers = np.unique(np.floor_divide(cells, BLOCK_TILES), axis=0)
        # Rows south of the equator in a northern zone are negative: shift into the curve's square.
        order = np.argsort(hilbert_index(numbers[:, 0] + (1 << 14), numbers[:, 1] + (1 << 14)))
        return [Block(self.epsg, self.tile_m, int(c), int(r)) for c, r in numbers[order]]

    def halo(self, cells: Integers, halo_m: float) -> Integers:
        """Return tiles (N, 2) and all within `halo_m` metres of them, sorted, without repeats."""
        reach = np.arange(-(n := int(np.ceil(halo_m / self.tile_m))), n + 1)
        # One number a cell, in the order of (column, row): far faster to sort than pairs.
        keys = (cells[:, 0] << 32) + cells[:, 1]
        for step in (1 << 32, 1):
            keys = np.unique(keys[:, None] + reach * step)
        rows = ((keys + (1 << 31)) & ((1 << 32) - 1)) - (1 << 31)
        return np.column_stack([(keys - rows) >> 32, rows])


def parse_tile_id(place_id: str) -> tuple[Grid, int, int]:
    """Return grid, column and row of a tile's id.

    Raises:
        UrbanError: it is no tile id.
    """
    match = re.fullmatch(_TILE_ID, place_id)
    if match is None:
        raise _no_tile_id(place_id)
    epsg, tile_m, column, row = (int(part) for part in match.groups())
    return Grid(epsg, tile_m), column, row


def cells_of_ids(place_ids: pa.Array | Sequence[str]) -> Integers:
    """Return (column, row) of tiles by their ids, shape (N, 2).

    Raises:
        UrbanError: one is no tile id.
    """
    ids = place_ids if isinstance(place_ids, pa.Array) else pa.array(place_ids, pa.string())
    found = pc.extract_regex(ids, f"^{_TILE_ID}$")
    if found.null_count:
        raise _no_tile_id(ids.filter(found.is_null())[0].as_py())
    return np.column_stack(
        [found.field(name).cast(pa.int64()).to_numpy() for name in ("column", "row")]
    )


def _no_tile_id(place_id: str | None) -> UrbanError:
    return UrbanError(f"'{place_id}' is no tile id: expected EPSG_size_column_row")


@dataclass(frozen=True)
class Places:
    """What is embedded: tiles, or points.

    Attributes:
        grid: the grid of the city.
        place_id: (N,) strings; every table is joined on them.
        kind: `tile` or `point`.
        x: (N,) eastings of the centres, metres, grid's CRS.
        y: (N,) northings of the centres, metres.
        share_inside: (N,) share of a tile's area inside the city's area; 1 for points.
    """

    grid: Grid
    place_id: npt.NDArray[np.object_]
    kind: str
    x: Floats
    y: Floats
    share_inside: Floats

    def __len__(self) -> int:
        return len(self.place_id)

    @property
    def cells(self) -> Integers:
        """(N, 2) column and row of the tile that holds each place's centre."""
        return self.grid.tile_at(self.x, self.y)

    def boxes(self, size_m: float | None = None) -> Geometries:
        """Return squares of `size_m` (default: a tile) around the centres, grid's CRS, metres."""
        half = (size_m or self.grid.tile_m) / 2
        boxes = shapely.box(self.x - half, self.y - half, self.x + half, self.y + half)
        return np.asarray(boxes, dtype=object)

    def lonlat(self) -> tuple[Floats, Floats]:
        """Return (lon, lat) of the centres, EPSG:4326 degrees."""
        return self.grid.unproject(self.x, self.y)

    def take(self, index: npt.NDArray[Any]) -> "Places":
        """Return the places at an index or where a mask holds."""
        return Places(
            self.grid, self.place_id[index], self.kind,
            self.x[index], self.y[index], self.share_inside[index],
        )  # fmt: skip

    def to_table(self) -> pa.Table:
        """Return `place_id, kind, lon, lat, share_inside, block, bbox, geometry` (EPSG:4326)."""
        lon, lat = self.lonlat()
        shapes = shapely.points(lon, lat)
        if self.kind == "tile":
            shapes = self.grid.unproject_geometry(self.boxes())
        columns = {
            "place_id": pa.array(self.place_id.tolist(), pa.string()),
            "kind": pa.array([self.kind] * len(self), pa.string()),
            "lon": pa.array(lon),
            "lat": pa.array(lat),
            "share_inside": pa.array(self.share_inside),
            "block": self.grid.block_ids(self.cells),
        }
        return geo_table(columns, np.asarray(shapes, dtype=object))


def places_from_table(table: pa.Table, grid: Grid) -> Places:
    """Return the places of a table written by `Places.to_table`, in the order of its rows."""
    ids = table.column("place_id").to_numpy(zero_copy_only=False).astype(object)
    kind = table.column("kind")[0].as_py() if table.num_rows else "tile"
    if kind == "tile":
        cells = cells_of_ids(ids)
        x, y = ((cells + 0.5) * grid.tile_m).T
    else:
        points = shapely.get_coordinates(geometries(table))
        x, y = grid.project(points[:, 0], points[:, 1])
    share = table.column("share_inside").to_numpy()
    return Places(grid, ids, kind, np.asarray(x), np.asarray(y), np.asarray(share))


def tiles_of(area: BaseGeometry, grid: Grid) -> Places:
    """Return the tiles an area (EPSG:4326, lon lat) touches, edge tiles with their share inside.

    Tiles are in order of column, then row. A tile that shares only a border is left out.

    Raises:
        UrbanError: the area is empty, or so large that it holds more than four million tiles.
    """
    outline = shapely.union_all(
        shapely.get_parts(grid.project_geometry(shapely.segmentize(area, 0.01)))
    )
    left, bottom, right, top = outline.bounds
    first = grid.tile_at(left, bottom)[0]
    last = grid.tile_at(right, top)[0]
    count = int(np.prod(last - first + 1))
    if outline.is_empty or not np.isfinite([left, bottom, right, top]).all():
        raise UrbanError("the area is empty or lies outside its UTM zone: check --bbox or --aoi")
    if count > 4_000_000:
        raise UrbanError(
            f"the area's box holds {count:,} tiles of {grid.tile_m} m: fetch it in parts of at "
            "most 4,000,000"
        )
    columns, rows = np.meshgrid(
        np.arange(first[0], last[0] + 1), np.arange(first[1], last[1] + 1), indexing="ij"
    )
    cells = np.column_stack([columns.ravel(), rows.ravel()]).astype(np.int64)
    boxes = grid.tile_boxes(cells)
    shapely.prepare(outline)
    share = shapely.contains_properly(outline, boxes).astype(np.float64)
    edge = (share == 0) & shapely.intersects(outline, boxes)
    share[edge] = shapely.area(shapely.intersection(boxes[edge], outline)) / grid.tile_m**2
    inside = share > 1e-9
    cells, share = cells[inside], np.minimum(share[inside], 1.0)
    ids = grid.tile_ids(cells).to_numpy(zero_copy_only=False)
    x, y = ((cells + 0.5) * grid.tile_m).T
    return Places(grid, ids, "tile", np.asarray(x), np.asarray(y), share)


def point_places(
    lon: npt.ArrayLike, lat: npt.ArrayLike, grid: Grid, ids: Sequence[str] | None = None
) -> Places:
    """Return points as places; without `ids` an id is the position in units of 1e-7 degree."""
    lon, lat = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    if ids is None:
        units = np.round(np.column_stack([lon, lat]) * 1e7).astype(np.int64)
        ids = [f"p_{a}_{b}" for a, b in units]
    x, y = grid.project(lon, lat)
    return Places(grid, np.array(ids, dtype=object), "point", x, y, np.ones(len(x)))
