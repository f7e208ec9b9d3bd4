"""The embedding table, its file, and its alignment to the units a label lives on.

A unit (tract, ward, circle, point) is a weighted set of places; the weights come from geometry
alone, in metres of the places' own grid, and serve every method alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import Floats, Integers, Places
from urbancli.workspace import Geometries, geo_table, read_table, write_table

SAME_SPOT_M = 1.0
"""A point unit is a point place where the two lie at most this far apart, metres."""

SLIVER = 1e-9
"""Overlaps below this share of the smaller of tile and unit are rounding of the projection."""

POINT, AREAS = 0, (3, 6)
"""Shapely's type ids of a point, and of polygons and multipolygons."""


@dataclass(frozen=True)
class Alignment:
    """Units as weighted sets of places.

    Attributes:
        weights: scipy CSR matrix (U, N), float64; a row sums to 1, or is empty where no place
            lies in the unit.
        coverage: (U,) share of the unit's area that places cover, 0 to 1; for points, and where
            the places are points, 1 where there is any place and 0 where there is none.
    """

    weights: Any
    coverage: Floats


@dataclass(frozen=True)
class Embeddings:
    """One vector per place.

    Attributes:
        place_id: (N,) strings.
        values: (N, D) float32; NaN where the place has no embedding.
        present: (N,) bool.
    """

    place_id: npt.NDArray[np.object_]
    values: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]

    def at(self, place_id: Sequence[str] | npt.NDArray[np.object_]) -> "Embeddings":
        """Return the embeddings of the asked places in their order, absent where unknown."""
        row_of = {place: row for row, place in enumerate(self.place_id)}
        rows = np.array([row_of.get(place, -1) for place in place_id], dtype=np.int64)
        values = np.full((len(rows), self.values.shape[1]), np.nan, dtype=np.float32)
        values[rows >= 0] = self.values[rows[rows >= 0]]
        present = np.zeros(len(rows), dtype=bool)
        present[rows >= 0] = self.present[rows[rows >= 0]]
        return Embeddings(np.array(place_id, dtype=object), values, present)


# --- alignment -------------------------------------------------------------------------------


def align(geometry: Geometries, places: Places) -> Alignment:
    """Return which places make up each unit, and with what weight.

    A polygon is the tiles it overlaps, weighted by the area of tile ∩ unit, and a point the tile
    that holds it (a border belongs to the tile east or north of it). Where the places are points,
    a polygon is the plain mean of those inside and a point the place at that very spot. Areas and
    distances are planar, metres, in the CRS of the places' grid.

    Args:
        geometry: (U,) polygons or points, EPSG:4326, lon lat; of a unit too large for the grid's
            UTM zone to hold, nothing is counted as covered.
        places: tiles or points.

    Raises:
        UrbanError: a unit is neither polygon nor point.
    """
    kinds = shapely.get_type_id(geometry)
    if wrong := np.flatnonzero(~np.isin(kinds, (POINT, *AREAS))).tolist():
        raise UrbanError(
            f"unit {wrong[0]} is neither a polygon nor a point: give areas or single spots"
        )
    shapes = np.asarray(places.grid.project_geometry(geometry), dtype=object)
    finite = np.isfinite(shapely.bounds(shapes).reshape(-1, 4)).all(axis=1)
    areal = np.flatnonzero(finite & (kinds != POINT))
    spots = np.flatnonzero(finite & (kinds == POINT))
    # A projection can bend a valid outline into a crossing one, and the antimeridian cuts units.
    broken = areal[~shapely.is_valid(shapes[areal])]
    shapes[broken] = shapely.make_valid(shapes[broken])
    if places.kind == "tile":
        pairs = [_tiles_in(shapes[areal], places), _tiles_at(shapes[spots], places)]
    else:
        pairs = [_points_in(shapes[areal], places), _points_at(shapes[spots], places)]
    (unit, place, amount), (spot, spot_place, spot_amount) = pairs
    rows = np.concatenate([areal[unit], spots[spot]])
    columns = np.concatenate([place, spot_place])
    amounts = np.concatenate([amount, spot_amount])
    total = np.bincount(rows, weights=amounts, minlength=len(geometry))
    coverage = (total > 0).astype(np.float64)
    if places.kind == "tile":
        area = shapely.area(shapes[areal])
        coverage[areal] = np.minimum(total[areal] / np.where(area > 0, area, 1.0), 1.0)
    from scipy.sparse import csr_matrix

    weights = csr_matrix(
        (amounts / total[rows], (rows, columns)), shape=(len(geometry), len(places))
    )
    return Alignment(weights, coverage)


Pairs = tuple[Integers, Integers, Floats]
"""Positions of units and of places that belong together, and how much of it: three of (P,)."""


def _tiles_in(units: Geometries, places: Places) -> Pairs:
    boxes = places.boxes()
    unit, place = shapely.STRtree(boxes).query(units, predicate="intersects")
    tile_area = float(places.grid.tile_m) ** 2
    shapely.prepare(units)
    amount = np.full(len(unit), tile_area)
    edge = ~shapely.contains_properly(units[unit], boxes[place])
    amount[edge] = shapely.area(shapely.intersection(units[unit[edge]], boxes[place[edge]]))
    real = amount > SLIVER * np.minimum(tile_area, shapely.area(units))[unit]
    return unit[real], place[real], amount[real]


def _tiles_at(points: Geometries, places: Places) -> Pairs:
    tile_of = {(int(c), int(r)): index for index, (c, r) in enumerate(places.cells)}
    cells = places.grid.tile_at(shapely.get_x(points), shapely.get_y(points))
    found = np.array([tile_of.get((int(c), int(r)), -1) for c, r in cells], dtype=np.int64)
    unit = np.flatnonzero(found >= 0)
    return unit, found[unit], np.ones(len(unit))


def _spots(places: Places) -> Geometries:
    return np.asarray(shapely.points(places.x, places.y), dtype=object)


def _points_in(units: Geometries, places: Places) -> Pairs:
    tree = shapely.STRtree(_spots(places))
    unit, place = tree.query(units, predicate="intersects")
    return unit, place, np.ones(len(unit))


def _points_at(points: Geometries, places: Places) -> Pairs:
    tree = shapely.STRtree(_spots(places))
    unit, place = tree.query_nearest(points, max_distance=SAME_SPOT_M)
    order = np.lexsort([place, unit])  # of places equally near, the first
    unit, first = np.unique(unit[order], return_index=True)
    return unit, place[order][first], np.ones(len(unit))


def aggregate(
    alignment: Alignment, values: npt.NDArray[Any], present: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Return the mean vector of each unit over its present places, and how much of it they cover.

    X_u = Σ_p w_up v_p / Σ_p w_up over the present places p of unit u, summed in float64.

    Args:
        alignment: of U units to N places.
        values: (N, D); what stands at absent places is never read.
        present: (N,) bool.

    Returns:
        X (U, D) float32, NaN where a unit has no present place; and coverage (U,), the
        alignment's, counting present places only.
    """
    used = alignment.weights[:, np.flatnonzero(present)]
    total = np.asarray(used.sum(axis=1)).ravel()
    sums = np.asarray(used @ values[present].astype(np.float64))
    mean = np.full(sums.shape, np.nan, dtype=np.float32)
    some = total > 0
    mean[some] = sums[some] / total[some, None]
    return mean, alignment.coverage * np.minimum(total, 1.0)


# --- the file --------------------------------------------------------------------------------


def write_embeddings(
    path: Path,
    places: Places,
    values: npt.NDArray[Any],
    present: npt.NDArray[np.bool_],
    facts: dict[str, Any],
) -> None:
    """Write GeoParquet: `place_id, embedding, lon, lat, bbox, geometry` (the centre, EPSG:4326).

    Absent places are left out and counted in the facts as `absent`.

    Args:
        path: the file.
        places: N tiles or points.
        values: (N, D), written as a fixed-size list of float32.
        present: (N,) bool.
        facts: JSON-able, kept with the file.

    Raises:
        UrbanError: a present place has a value that is not finite.
    """
    kept = places.take(present)
    vectors = np.ascontiguousarray(values[present], dtype=np.float32)
    if wrong := int((~np.isfinite(vectors)).any(axis=1).sum()):
        raise UrbanError(
            f"{wrong} of {len(kept)} embeddings are not finite: the training diverged, "
            "train again with a lower learning rate"
        )
    lon, lat = kept.lonlat()
    columns = {
        "place_id": pa.array(kept.place_id.tolist(), pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), values.shape[1]),
        "lon": pa.array(lon),
        "lat": pa.array(lat),
    }
    table = geo_table(columns, np.asarray(shapely.points(lon, lat), dtype=object))
    absent = len(places) - len(kept)
    write_table(path, table, {**facts, "absent": absent, "kind": places.kind})


def read_embeddings(path: Path) -> tuple[Embeddings, dict[str, Any]]:
    """Return the embeddings in a file of `write_embeddings`, in its order, and its facts.

    Raises:
        UrbanError: it is missing, broken, of another schema version, or holds no embeddings.
    """
    table, facts = read_table(path)
    if not {"place_id", "embedding"} <= set(table.column_names):
        raise UrbanError(f"{path} holds no embeddings: give a file that `urban embed` wrote")
    column = table.column("embedding").combine_chunks()
    values = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    ids = table.column("place_id").to_numpy(zero_copy_only=False).astype(object)
    return Embeddings(ids, values, np.ones(len(ids), dtype=bool)), facts
