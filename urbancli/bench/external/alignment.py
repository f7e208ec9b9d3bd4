"""Embeddings of a file brought to the units of a label, with a report of how far they reach.

A polygon unit is the mean of the polygons, tiles or pixels under it, weighted by area, or the plain
mean of the points in it. A point unit takes the point at its very spot (`SAME_SPOT_M`), else the
tile, pixel or polygon that holds it; of several, their mean. Tiles follow `embeddings.align`, as a
run's do: a run and the file that `urban embed` wrote of it have the same features.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.bench.external._rasters import unit_means
from urbancli.bench.external._whereabouts import POINT, Strings, Whereabouts, check_unique
from urbancli.bench.external.files import External
from urbancli.bench.splits.base import Units
from urbancli.embeddings import SAME_SPOT_M, SLIVER, Alignment, align
from urbancli.errors import UrbanError
from urbancli.grid import Floats, Integers
from urbancli.labels.files import Label
from urbancli.workspace import Geometries

THIN = 0.5
"""Units covered by less than this share are counted apart."""

SHOWN = 3
"""So many ids of each side are shown where they do not match."""

UNITS_AT_ONCE, NUMBERS_AT_ONCE = 4096, 1 << 23
"""Units whose means are taken together, and numbers of the file (64 MiB in float64)."""

Vectors = npt.NDArray[np.float32]


class NoOverlap(UrbanError):
    """A file of embeddings says nothing of any unit of a label."""


@dataclass(frozen=True)
class Coverage:
    """How far a file of embeddings reaches over the units of a label.

    Attributes:
        name: of the embeddings.
        units: how many there are.
        embedded: how many of them have an embedding; the others are NaN, and nothing is imputed.
        share: mean share of an embedded unit's area that is covered, 0 to 1.
        thin: embedded units of which less than half is covered.
        rows: of the file; of a raster its pixels.
        used: rows that count for any unit.
        duplicates: rows at the very place of an earlier one: their mean counts.
        torn: pixels under the units that lack some of their bands, and are not used.
        notes: of the file.
    """

    name: str
    units: int
    embedded: int
    share: float
    thin: int
    rows: int
    used: int
    duplicates: int = 0
    torn: int = 0
    notes: tuple[str, ...] = ()

    @property
    def outside(self) -> int:
        """Rows that count for no unit."""
        return self.rows - self.used

    @property
    def missing(self) -> int:
        """Units without an embedding."""
        return self.units - self.embedded

    @property
    def text(self) -> str:
        """All of it in one line."""
        parts = [
            f"{self.name} has embeddings of {self.embedded:,} of {self.units:,} units "
            f"({self.share:.1%} of the area of these), from {self.used:,} of {self.rows:,} rows or "
            "pixels",
            *([f"{self.thin:,} units are covered less than half"] if self.thin else []),
            *([f"{self.duplicates:,} rows lie where others do"] if self.duplicates else []),
            *([f"{self.torn:,} pixels lack bands and are not used"] if self.torn else []),
            "what else its makers saw of a unit's surroundings is not known",
            *self.notes,
        ]
        return "; ".join(parts)


def common_support(features: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Return the units (U,) of which every compared file has an embedding.

    Args:
        features: of each file, (U, D) of its own D, NaN where missing.
    """
    known = [np.isfinite(one).all(axis=1) for one in features]
    return np.asarray(np.logical_and.reduce(known))


def unit_values(external: External, units: Units, label: Label) -> tuple[Vectors, Coverage]:
    """Return a file's embeddings of units, and how far they reach.

    Args:
        external: from `load_external`.
        units: U units of the label, all or some.
        label: whose they are.

    Returns:
        (U, D) float32, NaN where a unit has none; and the report.

    Raises:
        NoOverlap: no unit has an embedding: the file is of another place, of units with other
            ids, or its lat and lon are swapped.
        UrbanError: its ids are not unique, or an array's rows are not as many as the label's units.
    """
    if external.raster is not None:
        return _from_raster(external, units)
    assert external.values is not None
    alignment, duplicates = _align(external, units, label)
    values = weighted_means(alignment.weights, external.values)
    used = len(np.unique(alignment.weights.indices))
    if not used:
        raise _no_overlap(external, units, label)
    return values, _report(external, alignment.coverage, used, duplicates=duplicates)


def _from_raster(external: External, units: Units) -> tuple[Vectors, Coverage]:
    assert external.raster is not None
    means = unit_means(external.raster, units.shape, units.grid.epsg)
    if not means.used:
        raise NoOverlap(
            f"{external.path} misses the city: no pixel with all its bands lies in any of "
            f"{len(units):,} units; check its CRS and nodata"
        )
    return means.values, _report(external, means.share, means.used, torn=means.partial)


def _report(
    external: External, share: Floats, used: int, *, duplicates: int = 0, torn: int = 0
) -> Coverage:
    some = share > 0
    return Coverage(
        external.name, len(share), int(some.sum()), float(share[some].mean()),
        int((some & (share < THIN)).sum()), external.rows, used, duplicates, torn, external.notes,
    )  # fmt: skip


def weighted_means(weights: Any, values: Vectors) -> Vectors:
    """Return (U, D) float32 of (N, D), summed in float64 a part at a time; NaN where no weight is.

    Args:
        weights: (U, N) CSR, rows that sum to 1 or are empty.
        values: (N, D), perhaps still on disk.
    """
    means = np.full((weights.shape[0], values.shape[1]), np.nan, dtype=np.float32)
    at_once = max(1, NUMBERS_AT_ONCE // values.shape[1])
    for start in range(0, len(means), UNITS_AT_ONCE):
        part = weights[start : start + UNITS_AT_ONCE]
        rows = np.unique(part.indices)
        sums = np.zeros((part.shape[0], values.shape[1]))
        columns = part.tocsc()[:, rows]
        for first in range(0, len(rows), at_once):
            some = slice(first, first + at_once)
            sums += columns[:, some] @ values[rows[some]].astype(np.float64)
        known = np.diff(part.indptr) > 0
        means[start : start + UNITS_AT_ONCE][known] = sums[known]
    return means


# --- who belongs to whom ---------------------------------------------------------------------


def _align(external: External, units: Units, label: Label) -> tuple[Alignment, int]:
    """Return units as weighted sets of rows, and how many rows lie where an earlier one does."""
    where = external.where
    if where is None:
        return _in_order(external, units, label), 0
    if where.tiles is not None:
        return align(units.footprint, where.tiles), 0
    if where.geometry is not None:
        return _by_geometry(where.geometry, units), _duplicates(where.geometry)
    column = _best_key(where, units)
    check_unique(external.path, column, where.keys[column])
    return _by_id(where.keys[column], units), 0


def _in_order(external: External, units: Units, label: Label) -> Alignment:
    if external.units != label.name:
        raise NoOverlap(
            f"the rows of {external.path} follow the units of '{external.units}': they say nothing "
            f"of '{label.name}'"
        )
    if external.rows != len(label.unit_id):
        raise UrbanError(
            f"{external.path} has {external.rows:,} rows and '{label.name}' {len(label.unit_id):,} "
            "units: give one row per unit, in the order of its file in data/"
        )
    return _by_id(label.unit_id, units)


def _best_key(where: Whereabouts, units: Units) -> str:
    """Return the column with the ids of most units; of equal ones the first."""
    ids = set(units.unit_id.tolist())
    return max(where.keys, key=lambda name: len(ids.intersection(where.keys[name].tolist())))


def _by_id(ids: Strings, units: Units) -> Alignment:
    row_of = {key: row for row, key in enumerate(ids.tolist())}
    rows = np.array([row_of.get(key, -1) for key in units.unit_id.tolist()], dtype=np.int64)
    unit = np.flatnonzero(rows >= 0)
    ones = np.ones(len(unit))
    return Alignment(
        _matrix(unit, rows[unit], ones, (len(units), len(ids))), (rows >= 0).astype(np.float64)
    )


def _by_geometry(geometry: Geometries, units: Units) -> Alignment:
    """Return polygons or points (N,), EPSG:4326, as parts of units."""
    shapes = np.asarray(units.grid.project_geometry(geometry), dtype=object)
    # Beyond the reach of the zone's projection nothing belongs to a city.
    near = np.flatnonzero(np.isfinite(shapely.bounds(shapes).reshape(-1, 4)).all(axis=1))
    shapes = shapes[near]
    kinds = shapely.get_type_id(units.shape)
    spots, areal = np.flatnonzero(kinds == POINT), np.flatnonzero(kinds != POINT)
    points = len(near) == 0 or shapely.get_type_id(shapes[0]) == POINT
    if not points:
        broken = np.flatnonzero(~shapely.is_valid(shapes))
        shapes[broken] = shapely.make_valid(shapes[broken])
    tree = shapely.STRtree(shapes)
    if points:
        at, row = tree.query_nearest(units.shape[spots], max_distance=SAME_SPOT_M)
    else:
        at, row = tree.query(units.shape[spots], predicate="intersects")
    unit, part = tree.query(units.shape[areal], predicate="intersects")
    amount = np.ones(len(unit))
    if not points:
        unit, part, amount = _overlaps(units.shape[areal], shapes, unit, part)
    rows = np.concatenate([areal[unit], spots[at]])
    amounts = np.concatenate([amount, np.ones(len(at))])
    total = np.bincount(rows, weights=amounts, minlength=len(units))
    coverage = (total > 0).astype(np.float64)
    if not points:
        area = shapely.area(units.shape[areal])
        coverage[areal] = np.minimum(total[areal] / np.where(area > 0, area, 1.0), 1.0)
    columns = near[np.concatenate([part, row])]
    return Alignment(
        _matrix(rows, columns, amounts / total[rows], (len(units), len(geometry))), coverage
    )


def _overlaps(
    units: Geometries, shapes: Geometries, unit: Integers, part: Integers
) -> tuple[Integers, Integers, Floats]:
    """Return the pairs that share an area, and how large it is, m²."""
    size = shapely.area(shapes)
    shapely.prepare(units)
    amount = size[part]
    edge = ~shapely.contains_properly(units[unit], shapes[part])
    amount[edge] = shapely.area(shapely.intersection(units[unit[edge]], shapes[part[edge]]))
    real = amount > SLIVER * np.minimum(size[part], shapely.area(units)[unit])
    return unit[real], part[real], amount[real]


def _matrix(rows: Integers, columns: Integers, amounts: Floats, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((amounts, (rows, columns)), shape=shape)


def _duplicates(geometry: Geometries) -> int:
    import pandas as pd

    return int(pd.Series(shapely.to_wkb(shapely.normalize(geometry))).duplicated().sum())


# --- where nothing matches -------------------------------------------------------------------


def _no_overlap(external: External, units: Units, label: Label) -> NoOverlap:
    where = external.where
    if where is not None and where.keys:
        return _mismatch(external, where, units, label)
    if where is not None and where.geometry is not None:
        turned = shapely.transform(where.geometry, lambda points: points[:, ::-1])
        if _by_geometry(np.asarray(turned, dtype=object), units).coverage.any():
            return NoOverlap(
                f"{external.path} misses the city, but lies in it with lat and lon swapped: swap "
                "them"
            )
    return NoOverlap(
        f"{external.path} misses the city: none of its {external.rows:,} rows lies in any of the "
        f"{len(units):,} units of '{label.name}'; check that it is of this city, and its CRS"
    )


def _mismatch(external: External, where: Whereabouts, units: Units, label: Label) -> NoOverlap:
    """Return the error for ids of which none is a unit's, with examples and a guess at why."""
    column = _best_key(where, units)
    ids, keys = units.unit_id.tolist(), where.keys[column].tolist()
    remedy = "give the ids as the label has them, or coordinates"
    padded = {key.lstrip("0") for key in ids}
    if padded.intersection(str(key).lstrip("0") for key in keys):
        remedy = "leading zeros were lost: write the ids as text"
    elif near := difflib.get_close_matches(str(keys[0]), ids, n=1, cutoff=0.8):
        remedy = f"'{keys[0]}' is near '{near[0]}': write them alike"
    return NoOverlap(
        f"none of {len(keys):,} ids in '{column}' of {external.path} ({_few(keys)}) is that of one "
        f"of the {len(ids):,} units of '{label.name}' ({_few(ids)}): {remedy}"
    )


def _few(ids: Sequence[Any]) -> str:
    return ", ".join(map(str, ids[:SHOWN])) + (", …" if len(ids) > SHOWN else "")
