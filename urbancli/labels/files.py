"""Labels from the user's own files: `--label NAME=FILE[:COLUMN[/km2]][@RADIUSm]`.

A label keeps its own units. A polygon file gives its polygons, a point file its points or circles
around them, a raster the city's tiles with the mean of its pixels. Numbers are regressed, texts
are classes, `PREFIX*` is the class whose column holds the largest share, and `#` counts a file's
points per tile. What is left out or has no value is counted, never dropped in silence.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.grid import Floats, Places
from urbancli.labels._rasters import is_raster, tile_means
from urbancli.labels._units import Units, in_city, read_units, unit_ids
from urbancli.labels._values import Values, read_values
from urbancli.sources.base import pin, places_grid
from urbancli.vector import is_text
from urbancli.workspace import Geometries, Workspace, geo_table, geometries, read_table

FORMAT = "NAME=FILE[:COLUMN[/km2]][@RADIUSm]"

COUNT = "#"
"""In place of a column: how many of the file's points lie in each tile."""

QUADRANT_SEGMENTS = 32
"""A circle is a polygon of 128 corners: its area falls 0.04 % short of πr²."""

LARGEST_RADIUS_M = 50_000

LEAST_VALID = 0.5
"""Share of a tile's area that a raster's valid pixels must cover for the tile to have a value."""

TILE_FACTS = {
    "kind": "regression", "unit": "tile", "without_geometry": 0, "repaired": 0, "ties": 0,
    "id_column": "place_id",
}  # fmt: skip
"""What the labels of tiles have in common."""

LISTED = 20
"""How many units without a value are listed by their ids."""


@dataclass(frozen=True)
class LabelSpec:
    """What `--label` says.

    Attributes:
        name: of the label, `[a-z0-9_]+`.
        path: of the file.
        column: its name, `PREFIX*`, a raster's band by number or description, `#` to count points,
            or None for the only one.
        per_km2: whether values are divided by the unit's area, km².
        radius_m: of the circle around a point, metres.
    """

    name: str
    path: Path
    column: str | None
    per_km2: bool
    radius_m: float | None


@dataclass(frozen=True)
class Label:
    """A label of a fetched city.

    Attributes:
        name: its name.
        kind: `regression` or `classification`.
        unit: `polygon`, `circle`, `point` or `tile`.
        unit_id: (U,) strings.
        value: (U,) float64 with NaN, or object (strings) with None, where a unit has no value.
        geometry: (U,) footprints, EPSG:4326, lon lat.
        facts: what the file says about itself.
    """

    name: str
    kind: str
    unit: str
    unit_id: npt.NDArray[np.object_]
    value: npt.NDArray[Any]
    geometry: Geometries
    facts: dict[str, Any]


# --- what the user wrote ---------------------------------------------------------------------


def parse_label(text: str) -> LabelSpec:
    """Return the label written as `NAME=FILE[:COLUMN[/km2]][@RADIUSm]`.

    The longest path that is a file wins, so that `:`, `@` and `=` may stand in a file's name.

    Raises:
        UsageError: it is not of this form.
    """
    name, _, rest = text.partition("=")
    if not rest:
        raise UsageError(f"--label '{text}' is not {FORMAT}")
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UsageError(f"label name '{name}': use only a-z, 0-9 and _, e.g. population_density")
    path, tail = _split_path(rest)
    before, at, after = tail.rpartition("@")
    radius_m = None
    # `:@version` is a column; what stands right after the path, or begins like a number, is a
    # radius, be it well written or not.
    if at and (not before or not after or re.match(r"[-+.\d]|inf|nan", after)):
        tail, radius_m = before, _parse_radius(after)
    if tail in {":", ":/km2", ":*"}:
        raise UsageError(f"--label '{text}' names no column: {FORMAT}")
    column = tail[1:].removesuffix("/km2") or None
    per_km2 = tail.endswith("/km2")
    if per_km2 and column and column.endswith("*"):
        raise UsageError(f"'{column}' is a class: leave out /km2")
    return LabelSpec(name, Path(path), column, per_km2, radius_m)


def _split_path(rest: str) -> tuple[str, str]:
    cuts = [len(rest), *(i for i in range(len(rest) - 1, 0, -1) if rest[i] in ":@")]
    for cut in cuts:
        if os.path.isfile(rest[:cut]):  # where pathlib's raises on an overlong name
            return rest[:cut], rest[cut:]
    # No such file: the shortest path that leaves a proper tail, for the message to come.
    match = re.fullmatch(r"(.+?)((?::[^:/\\]*(?:/km2)?)?(?:@(?:[-+.\d][^@:/\\]*)?)?)", rest)
    return (match[1], match[2]) if match else (rest, "")


def _parse_radius(text: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)m", text)
    if match is None or not 0 < float(match[1]) < np.inf:
        raise UsageError(f"radius '@{text}' is not a length above 0 in metres, e.g. @640m")
    if float(match[1]) > LARGEST_RADIUS_M:
        raise UsageError(
            f"radius '@{text}' is larger than a city: give at most {LARGEST_RADIUS_M:,}, in metres"
        )
    return float(match[1])


# --- from the file to the table --------------------------------------------------------------


def read_label(spec: LabelSpec, places: Places) -> tuple[pa.Table, dict[str, Any]]:
    """Return a label's table and facts, ready for `write_table`.

    Columns: `unit_id, value` (double, or string for classes; null = no value), for rasters
    `valid_share`, and the footprint `geometry` (EPSG:4326) with its `bbox`; rows as in the file.

    Args:
        spec: what the user asked for.
        places: the city's tiles.

    Raises:
        UsageError: the column, `/km2` or the radius does not suit the file.
        UrbanError: the file cannot be read, misses the city, or has no value in it.
    """
    places_grid(places)
    pinned = pin(spec.path)
    if not is_text(spec.path) and is_raster(spec.path):
        table, column, facts = _raster_table(spec, places)
    elif spec.column == COUNT:
        table, column, facts = _count_table(spec, places)
    else:
        table, column, facts = _unit_table(spec, places)
    absent = np.flatnonzero(table.column("value").is_null().to_numpy(zero_copy_only=False))
    if len(absent) == table.num_rows:
        raise UrbanError(
            f"'{column}' of {spec.path} has no value in any of the city's {len(absent):,} units: "
            "name another column or fetch a larger area"
        )
    asked = {"column": column, "per_km2": spec.per_km2, "radius_m": spec.radius_m}
    listed = table.column("unit_id").take(pa.array(absent[:LISTED])).to_pylist()
    return table, {
        "label": spec.name,
        "source": {**pinned, **asked},
        "licence": "user-supplied",
        "without_value": len(absent),
        "without_value_ids": listed,
        **facts,
    }


def _unit_table(spec: LabelSpec, places: Places) -> tuple[pa.Table, str, dict[str, Any]]:
    units = read_units(spec.path)
    _check_units(spec, units)
    values = read_values(units, spec.column)
    if spec.per_km2 and values.kind == "classification":
        raise UsageError(f"column '{values.column}' holds classes: leave out /km2")
    ids, id_column = unit_ids(units.columns, values.column)
    geometry, shapes = _footprints(units, spec.radius_m, places)
    has_geometry = ~shapely.is_missing(units.geometry)
    inside = in_city(shapes, places)
    if not inside.any():
        raise UrbanError(
            f"{spec.path} misses the city: none of its {len(ids):,} units lies in a tile; check "
            "--bbox, the file's CRS and the order of lon and lat"
        )
    kept = np.flatnonzero(inside)
    facts = {
        "kind": values.kind,
        "unit": "polygon" if units.areal else "point" if spec.radius_m is None else "circle",
        "rows": len(ids),
        "outside": int((has_geometry & ~inside).sum()),
        "without_geometry": int((~has_geometry).sum()),
        "repaired": units.repaired,
        "ties": int(values.tied[kept].sum()),
        "id_column": id_column,
    }
    columns = {
        "unit_id": pa.array(ids[kept].tolist(), pa.string()),
        "value": _value_array(values, kept, shapes if spec.per_km2 else None),
    }
    return geo_table(columns, geometry[kept]), values.column, facts


def _check_units(spec: LabelSpec, units: Units) -> None:
    if units.areal and spec.radius_m is not None:
        raise UsageError(f"{spec.path} holds polygons: @RADIUSm is for points, leave it out")
    if not units.areal and spec.per_km2 and spec.radius_m is None:
        raise UsageError(f"{spec.path} holds points, which have no area: add @RADIUSm for /km2")


def _footprints(
    units: Units, radius_m: float | None, places: Places
) -> tuple[Geometries, Geometries]:
    """Return the footprints (R,) in EPSG:4326, and in the grid's CRS, metres.

    Points too far from the tiles for their circle to reach one stay points.
    """
    grid = places.grid
    shapes = np.asarray(grid.project_geometry(units.geometry), dtype=object)
    if radius_m is None:
        return units.geometry, shapes
    x, y = places.x, places.y
    centres = shapely.box(x.min(), y.min(), x.max(), y.max())
    near = shapely.dwithin(shapes, centres, radius_m + grid.tile_m)
    circles = shapely.buffer(shapes[near], radius_m, quad_segs=QUADRANT_SEGMENTS)
    geometry = units.geometry.copy()
    shapes[near] = circles
    geometry[near] = grid.unproject_geometry(circles)
    return geometry, shapes


def _value_array(values: Values, kept: npt.NDArray[np.int64], shapes: Geometries | None) -> Any:
    value = values.value[kept]
    if values.kind == "classification":
        return pa.array(value.tolist(), pa.string())
    if shapes is not None:
        area_km2 = shapely.area(shapes[kept]) / 1e6
        value = np.divide(value, area_km2, out=np.full(len(kept), np.nan), where=area_km2 > 0)
    return _doubles(value)


def _doubles(value: Floats) -> Any:
    return pa.array(value, pa.float64(), mask=~np.isfinite(value))


def _raster_table(spec: LabelSpec, places: Places) -> tuple[pa.Table, str, dict[str, Any]]:
    if spec.radius_m is not None or spec.per_km2:
        raise UsageError(f"{spec.path} is a raster, averaged per tile: leave out /km2 and @RADIUSm")
    band, mean, share = tile_means(spec.path, spec.column, places)
    if not share.any():
        raise UrbanError(
            f"{spec.path} misses the city: no valid pixel in its {len(places):,} tiles; check "
            "--bbox and the raster's CRS"
        )
    values = {
        "value": _doubles(np.where(share >= LEAST_VALID, mean, np.nan)),
        "valid_share": pa.array(share),
    }
    return _tile_table(places, values), band, {"rows": len(places), "outside": 0, **TILE_FACTS}


def _count_table(spec: LabelSpec, places: Places) -> tuple[pa.Table, str, dict[str, Any]]:
    """Return how many points of a file lie in each tile, per km² of the tile if asked."""
    units = read_units(spec.path)
    if units.areal or spec.radius_m is not None:
        instead = "holds polygons, name a column" if units.areal else "takes no @RADIUSm, leave it"
        raise UsageError(f"'{COUNT}' counts points per tile: {spec.path} {instead}")
    missing = shapely.is_missing(units.geometry)
    shapes = np.asarray(places.grid.project_geometry(units.geometry), dtype=object)
    inside = in_city(shapes, places)
    cells = places.grid.tile_at(shapely.get_x(shapes[inside]), shapely.get_y(shapes[inside]))
    row_of = {cell: row for row, cell in enumerate(map(tuple, places.cells.tolist()))}
    rows = [row_of[cell] for cell in map(tuple, cells.tolist())]
    counts = np.bincount(np.array(rows, dtype=np.int64), minlength=len(places)).astype(np.float64)
    if not rows:
        raise UrbanError(
            f"{spec.path} misses the city: none of its {len(units.geometry):,} points lies in a "
            "tile; check --bbox, the file's CRS and the order of lon and lat"
        )
    values = {"value": _doubles(counts / (places.grid.tile_m**2 / 1e6 if spec.per_km2 else 1))}
    facts = {**TILE_FACTS, "rows": len(inside), "outside": int((~missing & ~inside).sum())}
    facts["without_geometry"] = int(missing.sum())
    return _tile_table(places, values), COUNT, facts


def _tile_table(places: Places, values: dict[str, Any]) -> pa.Table:
    ids = pa.array(places.place_id.tolist(), pa.string())
    footprints = np.asarray(places.grid.unproject_geometry(places.boxes()), dtype=object)
    return geo_table({"unit_id": ids, **values}, footprints)


# --- from the workspace ----------------------------------------------------------------------


def load_label(workspace: Workspace, city: str, name: str) -> Label:
    """Return a label of a fetched city, units in file order.

    Raises:
        UsageError: the city has no label of that name.
    """
    if name not in workspace.labels(city):
        raise unknown("label", name, workspace.labels(city))
    table, facts = read_table(workspace.label_file(city, name))
    column = table.column("value")
    if facts["kind"] == "regression":
        value: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    else:
        value = np.array(column.to_pylist(), dtype=object)
    ids = table.column("unit_id").to_numpy(zero_copy_only=False).astype(object)
    return Label(name, facts["kind"], facts["unit"], ids, value, geometries(table), facts)
