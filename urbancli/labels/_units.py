"""The units of a label file: its rows, their footprints and their ids."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.vector import is_text, read_vector
from urbancli.workspace import Geometries

POINT, MULTIPOINT, AREAS = 0, 4, (3, 6)
"""Shapely's type ids of a point, a multipoint, and of polygons and multipolygons."""

MARGIN_M = 1e-3
"""A unit that only touches the tiles is outside; projecting there and back moves it far less."""

_ID = re.compile(
    r"(.*_)?(id|fid|gid|uid|uuid|objectid|geo_?id|code)\d*|(mod)?zcta\d*(ce\d*)?|zip(_?code)?\d*"
    r"|boro_?ct\d*|tract(ce|_?code)?\d*|[lm]soa\d*(cd)?"
)


@dataclass(frozen=True)
class Units:
    """The rows of a label file.

    Attributes:
        columns: a pandas frame of the attributes, without geometry, rows in file order.
        geometry: (R,) points or polygons, EPSG:4326, lon lat; None where a row has none.
        areal: whether they are polygons.
        repaired: how many invalid polygons were made valid.
        typed: whether the file itself says which columns are numbers.
    """

    columns: Any
    geometry: Geometries
    areal: bool
    repaired: int
    typed: bool


def read_units(path: Path) -> Units:
    """Return the rows of a vector file, or of a CSV or TSV with lat and lon columns.

    Raises:
        UrbanError: the file cannot be read, has no CRS or coordinates, or holds neither points
            nor polygons alone.
    """
    frame = read_vector(path)
    columns = frame.drop(columns=frame.geometry.name)
    geometry = np.asarray(shapely.force_2d(frame.geometry.to_numpy()), dtype=object)
    single = (shapely.get_type_id(geometry) == MULTIPOINT) & (
        shapely.get_num_geometries(geometry) == 1
    )
    geometry[single] = shapely.get_geometry(geometry[single], 0)
    geometry[~np.isfinite(shapely.bounds(geometry)).all(axis=1)] = None
    kinds = set(shapely.get_type_id(geometry).tolist()) - {-1}
    areal = bool(kinds) and kinds <= set(AREAS)
    if kinds and not areal and kinds != {POINT}:
        found = ", ".join(sorted(set(frame.geometry.geom_type.dropna())))
        raise UrbanError(f"{path} holds {found}: a label file wants only polygons or only points")
    repaired = _repair(geometry) if areal else 0
    return Units(columns, geometry, areal, repaired, typed=not is_text(path))


def _repair(geometry: Geometries) -> int:
    """Make polygons valid in place, keep their areas only, and return how many were not."""
    broken = np.flatnonzero(~shapely.is_valid(geometry) & ~shapely.is_missing(geometry))
    for index in broken:
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(geometry[index])))
        areas = parts[shapely.get_dimensions(parts) == 2]
        geometry[index] = shapely.union_all(areas) if len(areas) else None
    return len(broken)


def looks_like_id(name: str) -> bool:
    """Return whether a column's name says that it identifies rows."""
    return _ID.fullmatch(name.lower()) is not None


def unit_ids(columns: Any, target: str) -> tuple[npt.NDArray[np.object_], str | None]:
    """Return one id per row (R,), and the column they come from.

    The first column of text or integers, other than the target, that is named like an id and
    unique; without one, `row-N`, counted from zero.
    """
    from pandas.api.types import is_integer_dtype, is_object_dtype, is_string_dtype

    for name in columns.columns:
        column = columns[name]
        whole = is_integer_dtype(column) or is_string_dtype(column) or is_object_dtype(column)
        if name != target and whole and looks_like_id(name) and column.notna().all():
            ids = column.astype(str)
            if ids.is_unique:
                return ids.to_numpy(dtype=object), str(name)
    return np.array([f"row-{row}" for row in range(len(columns))], dtype=object), None


def in_city(shapes: Geometries, places: Places) -> npt.NDArray[np.bool_]:
    """Return which units (R,) reach into the tiles.

    Args:
        shapes: points or polygons in the grid's CRS, metres; None and those too far away for the
            zone's projection are outside.
        places: the city's tiles.
    """
    inside = np.zeros(len(shapes), dtype=bool)
    finite = np.flatnonzero(np.isfinite(shapely.bounds(shapes).reshape(-1, 4)).all(axis=1))
    points = finite[shapely.get_type_id(shapes[finite]) == POINT]
    areas = np.setdiff1d(finite, points)
    cells = places.grid.tile_at(shapely.get_x(shapes[points]), shapely.get_y(shapes[points]))
    tiles = set(map(tuple, places.cells.tolist()))
    inside[points] = [tuple(cell) in tiles for cell in cells.tolist()]
    tree = shapely.STRtree(places.boxes(places.grid.tile_m - 2 * MARGIN_M))
    inside[areas[np.unique(tree.query(shapes[areas], predicate="intersects")[0])]] = True
    return inside
