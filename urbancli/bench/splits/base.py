"""Splits: a label's units in spatial groups and folds, as a file with a checksum.

Groups are squares of the zone's own grid, of a size chosen for the label; folds are runs of
neighbouring groups along a Hilbert curve, so that few training units touch a test unit. Those that
do leave the fold: `touching` says which.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places
from urbancli.hilbert import hilbert_index
from urbancli.workspace import Geometries

GROUP_SIZES_M = (600, 1200, 2400)
"""Sides of the squares that a split may use, metres."""

MIN_GROUPS = 10
"""Below this many groups a score gets no interval, so a smaller size is preferred."""

ALGORITHM = 2
"""Raised whenever the same units would be split otherwise."""

MIN_CLASS_UNITS = 20
MIN_CLASS_GROUPS = 5
"""A class with fewer units, or in fewer groups, is not told apart (see `tasks.base`)."""

CONTACT_M = 0.01
"""Squares are grown by this much: sharing a border counts as touching, whatever the rounding of
coordinates that went through EPSG:4326 and back."""

_BIN_M = 300.0
_REACH_M = 2.0 * GROUP_SIZES_M[-1]
_LOW_CORRELATION = 0.2
_MIN_PAIRS = 30
_MAX_UNITS = 10_000

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class NotScored(UrbanError):
    """A label cannot be scored here; the benchmark says why in its rows and goes on."""


@dataclass(frozen=True)
class Units:
    """What a label's values belong to.

    Attributes:
        grid: the city's grid.
        unit_id: (U,) strings, unique.
        footprint: (U,) polygons or points, EPSG:4326, lon lat.
        shape: (U,) the same in the grid's CRS, metres.
    """

    grid: Grid
    unit_id: npt.NDArray[np.object_]
    footprint: Geometries
    shape: Geometries

    def __len__(self) -> int:
        return len(self.unit_id)


def make_units(
    grid: Grid, unit_id: npt.NDArray[np.object_], footprint: Geometries, label: str
) -> Units:
    """Return units with their footprints (EPSG:4326) also in metres.

    Raises:
        UrbanError: an id stands twice.
    """
    ids, counts = np.unique(unit_id.astype(str), return_counts=True)
    if (counts > 1).any():
        raise UrbanError(
            f"label '{label}' has the unit '{ids[counts > 1][0]}' twice: give every unit its own "
            "id and fetch the label again"
        )
    # A projection can bend a valid outline into a crossing one.
    shape = shapely.make_valid(np.asarray(grid.project_geometry(footprint), dtype=object))
    return Units(grid, unit_id, footprint, shape)


@dataclass(frozen=True)
class Split:
    """Spatial groups and folds of a label's units.

    Attributes:
        kind: name of the split's module.
        group: (U,) ids of the groups: `EPSG_size_column_row`.
        order: (U,) rank of a unit's group along the Hilbert curve: near ranks are near groups.
        fold: (U,) 0 … folds − 1, the fold in which a unit is tested; −1 where it never is.
        validation: (U,) units that choose settings, where a protocol names them; None: nested.
        apart: whether training units that touch a test unit leave the fold.
        buffer_m: training units within this distance of a test unit leave too, metres; 0: none.
        group_m: side of the squares, metres.
        range_m: the label's estimated correlation range, metres.
        seed: of the starting shift.
        warnings: what a reader of a score must know about the groups.
        sha256: of the split file; empty until written.
    """

    kind: str
    group: npt.NDArray[np.object_]
    order: Integers
    fold: Integers
    validation: npt.NDArray[np.bool_] | None
    apart: bool
    buffer_m: float
    group_m: int
    range_m: float
    seed: int
    warnings: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1

    @property
    def range_in_groups(self) -> float:
        """The correlation range in sides of a group; 0 where either is not known."""
        return self.range_m / self.group_m if self.group_m else 0.0


# --- the size of a group ---------------------------------------------------------------------


def correlation_range(x: Floats, y: Floats, target: Floats, seed: int = 0) -> tuple[float, bool]:
    """Return (distance, found) at which a label's values stop resembling their neighbours'.

    The isotropic correlogram in bins of 300 m up to 4.8 km: the mean product of centred values of
    pairs at a distance, over the variance (Moran's I per distance class). Of several columns
    (class indicators) products and variances are added up, so that a class weighs as much as it
    varies. The range is the centre of the first bin that falls below 0.2, or below the noise of
    that bin, 2 / √pairs. Bins with fewer than 30 pairs say nothing. Of more than 10,000 units
    a random 10,000 are used.

    Args:
        x: (U,) eastings, metres.
        y: (U,) northings, metres.
        target: (U, K) values as the probe sees them, or indicators of K classes.
        seed: of the random choice of units.

    Returns:
        The range in metres, and False where the correlogram stays high to its end (then the range
        is that end) or no bin holds enough pairs (then it is 0).
    """
    from scipy.spatial import cKDTree

    if len(x) > _MAX_UNITS:
        chosen = np.random.default_rng(seed).choice(len(x), _MAX_UNITS, replace=False)
        x, y, target = x[chosen], y[chosen], target[chosen]
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(_REACH_M, output_type="ndarray")
    first, second = pairs.T
    distance = np.hypot(x[first] - x[second], y[first] - y[second])
    bins = np.minimum(distance // _BIN_M, _REACH_M // _BIN_M - 1).astype(np.int64)
    centred = target - target.mean(axis=0)
    products = np.zeros(len(pairs))
    for column in centred.T:
        products += column[first] * column[second]
    counts = np.bincount(bins, minlength=int(_REACH_M // _BIN_M))
    sums = np.bincount(bins, weights=products, minlength=len(counts))
    variance = float((centred**2).sum(axis=1).mean())
    for index in np.flatnonzero(counts >= _MIN_PAIRS):
        noise = 2.0 / np.sqrt(counts[index])
        if sums[index] / counts[index] / variance < max(_LOW_CORRELATION, noise):
            return float((index + 0.5) * _BIN_M), True
    return (_REACH_M if (counts >= _MIN_PAIRS).any() else 0.0), False


def choose_group_m(
    range_m: float, found: bool, diameter_m: float, groups: dict[int, int]
) -> tuple[int, tuple[str, ...]]:
    """Return the side of the groups, metres, and what must be said about it.

    The smallest size not below the correlation range and the units' own diameter, else the
    largest; but as long as that gives fewer than 10 groups, the next smaller one.

    Args:
        range_m: from `correlation_range`.
        found: likewise.
        diameter_m: median diameter of the units, metres.
        groups: size → number of groups it would give.
    """
    sizes = sorted(groups)
    wanted = max(range_m, diameter_m)
    chosen = next((size for size in sizes if size >= wanted), sizes[-1])
    while groups[chosen] < MIN_GROUPS and chosen > sizes[0]:
        chosen = sizes[sizes.index(chosen) - 1]
    reach = f"{'' if found else 'at least '}{range_m:,.0f} m"
    reasons = [
        *([f"the label's correlation range ({reach})"] if chosen < range_m else []),
        *([f"its units ({diameter_m:,.0f} m)"] if chosen < diameter_m else []),
    ]
    warnings = []
    if reasons:
        warnings.append(
            f"groups of {chosen:,} m are smaller than {' and '.join(reasons)}: scores may flatter, "
            "intervals may be too narrow"
        )
    elif range_m == 0 and not found:
        warnings.append("too few units near each other to estimate a correlation range")
    return chosen, tuple(warnings)


# --- groups and folds ------------------------------------------------------------------------


def equal_runs(counts: Integers, folds: int) -> Integers:
    """Return the run of each group when groups in order are cut into runs of like sizes.

    Args:
        counts: (G,) units of each group, in order.
        folds: how many runs; fewer come out where groups are few or very unequal.

    Returns:
        (G,) run numbers 0, 1, …, non-decreasing.
    """
    middle = np.cumsum(counts) - counts / 2
    runs = np.floor(middle * min(folds, len(counts)) / counts.sum()).astype(np.int64)
    return np.unique(runs, return_inverse=True)[1].astype(np.int64)


def hilbert_ranks(cells: Integers) -> Integers:
    """Return the rank (N,) along a Hilbert curve of each cell's column and row, (N, 2)."""
    shifted = cells - cells.min(axis=0)
    index = hilbert_index(shifted[:, 0], shifted[:, 1])
    return np.unique(index, return_inverse=True)[1].astype(np.int64)


# --- classes ---------------------------------------------------------------------------------


def classes_of(target: Floats, group: npt.NDArray[Any]) -> Integers | None:
    """Return the class (U,) of each unit where a target (U, K) is indicators of K classes.

    −1 where the class is too rare to be scored; None where the target is no indicators.

    Args:
        target: see `correlation_range`.
        group: (U,) of the units.
    """
    if target.shape[1] < 2 or not np.isin(target, (0.0, 1.0)).all():
        return None
    classes: Integers = target.argmax(axis=1).astype(np.int64)
    for number in range(target.shape[1]):
        mine = classes == number
        if mine.sum() < MIN_CLASS_UNITS or len(set(group[mine].tolist())) < MIN_CLASS_GROUPS:
            classes[mine] = -1
    return classes


def vanishing(classes: Integers, fold: Integers) -> int:
    """Return for how many pairs of class and fold no other fold has a unit of the class.

    Args:
        classes: (U,) from `classes_of`.
        fold: (U,).
    """
    kept = classes >= 0
    if not kept.any():
        return 0
    table = np.zeros((classes.max() + 1, fold.max() + 1), dtype=np.int64)
    np.add.at(table, (classes[kept], fold[kept]), 1)
    there = table[table.sum(axis=1) > 0] > 0
    return int((there.sum(axis=1) == 1).sum())


# --- who touches whom ------------------------------------------------------------------------


def touching(units: Units, places: Places, weights: Any, window_m: float) -> Any:
    """Return which units touch: (U, U) symmetric boolean sparse matrix (scipy CSR).

    Units u and v touch where the footprint of one meets the footprint of the other, or a window
    that the other's embedding may have looked into: the square of `window_m` around the centre
    of any place with a part in it. A shared border is a touch.

    Args:
        units: the label's units.
        places: what is embedded.
        weights: (U, N) sparse, the places' parts in the units.
        window_m: side of the largest window of the compared methods, metres, at least a tile.
    """
    from scipy import sparse

    boxes = places.boxes(max(window_m, places.grid.tile_m) + 2 * CONTACT_M)
    unit, place = shapely.STRtree(boxes).query(units.shape, predicate="intersects")
    shape = (len(units), len(places))
    ones = np.ones(len(unit), dtype=np.int32)
    meets = sparse.csr_array((ones, (unit, place)), shape=shape)
    parts = sparse.csr_array((weights > 0).astype(np.int32))
    seen = meets @ parts.T
    first, second = shapely.STRtree(units.shape).query(
        units.shape, predicate="dwithin", distance=CONTACT_M
    )
    ones = np.ones(len(first), dtype=np.int32)
    near = sparse.csr_array((ones, (first, second)), shape=(len(units), len(units)))
    return (seen + seen.T + near) > 0


def near(units: Units, distance_m: float) -> Any:
    """Return which units lie within a distance of each other: (U, U) boolean sparse (scipy CSR).

    A point of each footprint tells most pairs apart: near where the points are, far where they are
    farther than the distance and both footprints reach. Only the pairs between are measured.

    Args:
        units: the label's units.
        distance_m: between footprints, metres.
    """
    from scipy import sparse

    low, high = np.split(shapely.bounds(units.shape), 2, axis=1)
    boxes = shapely.box(*(low - distance_m).T, *(high + distance_m).T)
    first, second = shapely.STRtree(units.shape).query(boxes)
    first, second = first[first < second], second[first < second]
    point = shapely.get_coordinates(shapely.point_on_surface(units.shape))
    reach = np.hypot(*np.maximum(point - low, high - point).T)
    apart = np.hypot(*(point[first] - point[second]).T)
    found = apart <= distance_m
    unsure = ~found & (apart <= distance_m + reach[first] + reach[second])
    found[unsure] = shapely.dwithin(
        units.shape[first[unsure]], units.shape[second[unsure]], distance_m
    )
    pairs = np.column_stack([first[found], second[found]])
    own = np.column_stack([np.arange(len(units))] * 2)
    rows, columns = np.concatenate([pairs, pairs[:, ::-1], own]).T
    ones = np.ones(len(rows), dtype=bool)
    return sparse.csr_array((ones, (rows, columns)), shape=(len(units), len(units)))
