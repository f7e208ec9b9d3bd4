"""Where the rows of a table belong: points, polygons, tiles of ours, or the units' own keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.bench.external._columns import TILE
from urbancli.bench.external._h3 import are_cells, cell_polygons
from urbancli.bench.external._tables import NAMED_ROWS, Table
from urbancli.errors import UrbanError
from urbancli.grid import Places, cells_of_ids, parse_tile_id
from urbancli.workspace import Geometries

POINT, AREAS = 0, (3, 6)
"""Shapely's type ids of a point, and of polygons and multipolygons."""

Strings = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Whereabouts:
    """Where N rows belong.

    Attributes:
        kind: `tiles`, `points`, `polygons` or `keys`.
        geometry: (N,) of points and polygons, EPSG:4326, lon lat.
        tiles: of tiles, N places.
        keys: of keys, column → (N,) strings, None where a row has none.
        notes: what was mended.
    """

    kind: str
    geometry: Geometries | None = None
    tiles: Places | None = None
    keys: Mapping[str, Strings] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def whereabouts(path: Path, table: Table, *, keyed: bool = False) -> Whereabouts:
    """Return where the rows of a table belong; see the rule in `_columns`.

    Args:
        path: of the table, for errors.
        table: what was read from it.
        keyed: whether the user says that it goes by the units' ids.

    Raises:
        UrbanError: it does not say, or coordinates or geometries are missing or no such thing.
    """
    columns = table.columns
    texts = {
        name: _strings(table.place.column(name))
        for name in columns.keys
        if name in table.place.column_names
    }
    if keyed:
        return Whereabouts("keys", keys=texts)
    if TILE in texts and (tiles := _tiles(path, texts[TILE])):
        return Whereabouts("tiles", tiles=tiles)
    if table.geometry is not None:
        return _shapes(path, table.geometry)
    if columns.lat:
        return Whereabouts("points", _points(path, table))
    for ids in texts.values():
        if are_cells(ids):
            return Whereabouts("polygons", cell_polygons(path, ids))
    if not texts:
        raise UrbanError(
            f"{path} does not say where its rows belong: add lat and lon, a geometry, or a column "
            "of the units' ids, e.g. unit_id"
        )
    return Whereabouts("keys", keys=texts)


def _strings(column: pa.ChunkedArray) -> Strings:
    return np.array(column.cast(pa.string()).to_pylist(), dtype=object)


def _tiles(path: Path, ids: Strings) -> Places | None:
    """Return the tiles that rows are named by; None where they are no tile ids."""
    try:
        cells = cells_of_ids(pa.array(ids, pa.string()))
        grids = {parse_tile_id(place)[0] for place in ids.tolist()}
    except (UrbanError, TypeError):
        return None
    if len(grids) > 1:
        raise UrbanError(
            f"'{TILE}' of {path} names tiles of {len(grids)} grids: one file of embeddings for each"
        )
    check_unique(path, TILE, ids)
    grid = grids.pop()
    x, y = ((cells + 0.5) * grid.tile_m).T
    return Places(grid, ids, "tile", x, y, np.ones(len(ids)))


def _shapes(path: Path, geometry: Geometries) -> Whereabouts:
    known = np.isfinite(shapely.bounds(geometry).reshape(-1, 4)).all(axis=1)
    _refuse_missing(path, np.asarray(~known), "geometry")
    kinds = set(shapely.get_type_id(geometry).tolist())
    if kinds == {POINT}:
        return Whereabouts("points", np.asarray(shapely.force_2d(geometry), dtype=object))
    if not kinds <= set(AREAS):
        found = ", ".join(sorted({one.geom_type for one in geometry}))
        raise UrbanError(f"{path} holds {found}: give points only, or polygons only")
    flat = np.asarray(shapely.force_2d(geometry), dtype=object)
    broken = np.flatnonzero(~shapely.is_valid(flat))
    flat[broken] = shapely.make_valid(flat[broken])
    notes = [f"{len(broken):,} invalid polygons were made valid"] if len(broken) else []
    return Whereabouts("polygons", flat, notes=tuple(notes))


def _points(path: Path, table: Table) -> Geometries:
    columns = table.columns
    try:
        lat, lon = (
            table.place.column(name).cast(pa.float64()).to_numpy().copy()
            for name in (columns.lat, columns.lon)
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
        raise UrbanError(
            f"'{columns.lat}' and '{columns.lon}' of {path} are not all numbers: give degrees"
        ) from err
    _refuse_missing(path, ~np.isfinite(lat + lon), "coordinates")
    beyond = (np.abs(lat) > 90) | (np.abs(lon) > 180)
    if beyond.any():
        row = int(np.argmax(beyond))
        swapped = (np.abs(lon) <= 90).all() and (np.abs(lat) <= 180).all()
        remedy = "lat and lon are swapped" if swapped else "give degrees, EPSG:4326"
        raise UrbanError(
            f"'{columns.lat}' and '{columns.lon}' of {path} are out of range (row {row + 1}: "
            f"{lat[row]:g}, {lon[row]:g}): {remedy}"
        )
    return np.asarray(shapely.points(lon, lat), dtype=object)


def _refuse_missing(path: Path, missing: npt.NDArray[np.bool_], what: str) -> None:
    rows = np.flatnonzero(missing) + 1
    if len(rows):
        listed = ", ".join(map(str, rows[:NAMED_ROWS].tolist()))
        more = ", …" if len(rows) > NAMED_ROWS else ""
        raise UrbanError(
            f"{len(rows):,} of {len(missing):,} rows of {path} have no {what} (rows "
            f"{listed}{more}): leave them out"
        )


def check_unique(path: Path, column: str, keys: Strings) -> None:
    """Refuse a column of ids in which a row has none, or two rows the same.

    Raises:
        UrbanError: with how many, and the first.
    """
    _refuse_missing(path, np.array([key is None or key == "" for key in keys]), f"'{column}'")
    seen: set[str] = set()
    twice: set[str] = set()
    for key in keys.tolist():
        (twice if key in seen else seen).add(key)
    if twice:
        listed = ", ".join(sorted(twice)[:NAMED_ROWS])
        more = ", …" if len(twice) > NAMED_ROWS else ""
        raise UrbanError(
            f"'{column}' of {path} has {len(twice):,} ids more than once ({listed}{more}): give "
            "one row per id"
        )
