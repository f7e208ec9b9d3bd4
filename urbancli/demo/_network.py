"""Which sides of cells carry a street, of which class, and the ways they are joined to.

Segments run from vertex to vertex of the lattice. Where one crosses water, tracks or the motorway
it is either left out or gets a bridge (or an underpass) of its own way.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._courses import Barrier
from urbancli.demo._lattice import PRIMARY, SECONDARY, TERTIARY, Lattice
from urbancli.demo._zones import BUILT, GREEN, Blocks, Zones
from urbancli.workspace import Geometries

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

CLASSES = (
    "", "residential", "tertiary", "secondary", "primary",
    "pedestrian", "service", "footway", "cycleway", "path", "track",
)  # fmt: skip
"""Classes of streets; a segment's class is an index, 0 for no street."""

NO_STREET, HOME, THIRD, SECOND, FIRST, PEDESTRIAN, SERVICE, FOOT, CYCLE, PATH, TRACK = range(11)

SETBACK_M = np.array([0.0, 8.0, 10.0, 12.0, 15.0, 8.0, 5.0, 4.0, 4.5, 3.0, 4.0])
"""From the centre line to where plots begin, metres, per class."""

LONGEST_WAY = 6
"""Segments of a way at most."""

ON_GROUND, BRIDGE, TUNNEL = range(3)


@dataclass(frozen=True)
class Segments:
    """Straight stretches of street between two vertices.

    Attributes:
        ends: (E, 2) vertices, numbered by row.
        line: (E,) number of the lattice line, of its own for a path across a cell.
        step: (E,) place along the line.
        kind: (E,) class; see `CLASSES`.
        crossing: (E, 2) shares of the length at which a bridge or tunnel begins and ends; NaN.
        level: (E,) `ON_GROUND`, `BRIDGE` or `TUNNEL` of that stretch.
        middle: (E,) whether the middle is a node too: something is attached there.
    """

    ends: Integers
    line: Integers
    step: Integers
    kind: Integers
    crossing: Floats
    level: Integers
    middle: Flags

    def __len__(self) -> int:
        return len(self.line)


@dataclass(frozen=True)
class Ways:
    """Streets as the map has them.

    Attributes:
        geometry: (W,) lines, metres from the square's south-west corner.
        kind: (W,) class.
        line: (W,) of the lattice.
        stretch: (W,) number of the stretch between secondaries: streets change names there.
        level: (W,) `ON_GROUND`, `BRIDGE` or `TUNNEL`.
    """

    geometry: Geometries
    kind: Integers
    line: Integers
    stretch: Integers
    level: Integers

    def __len__(self) -> int:
        return len(self.kind)


def draw_segments(
    lattice: Lattice, blocks: Blocks, zones: Zones, barriers: list[Barrier],
    generator: np.random.Generator,
) -> Segments:  # fmt: skip
    """Return all segments that carry a street, in one network."""
    kind = _classes(lattice, blocks, zones, generator)
    size = lattice.size
    number = np.arange((size + 1) ** 2).reshape(size + 1, size + 1)
    numbers = np.stack([number, number.T])
    ends = np.stack([numbers[:, :, :-1], numbers[:, :, 1:]], axis=-1).reshape(-1, 2)
    line, step = (axis.ravel() for axis in np.divmod(np.arange(len(ends)), size))
    across_ends, across_kind = _across_parks(number, zones, generator)
    ends = np.concatenate([ends, across_ends])
    line = np.concatenate([line, line[-1] + 1 + np.arange(len(across_ends))])
    step = np.concatenate([step, np.zeros(len(across_ends), dtype=np.int64)])
    kind = np.concatenate([kind.ravel(), across_kind])
    used = np.flatnonzero(kind)
    ends, line, step, kind = ends[used], line[used], step[used], kind[used]
    crossing, level = _cross(lattice, ends, kind, barriers, generator)
    middle = np.zeros(len(kind), dtype=bool)
    segments = Segments(ends, line, step, kind, crossing, level, middle)
    return _connected(take(segments, kind > NO_STREET), number.size)


def take(segments: Segments, index: npt.NDArray[np.generic]) -> Segments:
    """Return the segments at an index or where a mask holds."""
    return Segments(
        segments.ends[index], segments.line[index], segments.step[index], segments.kind[index],
        segments.crossing[index], segments.level[index], segments.middle[index],
    )  # fmt: skip


def _sides(cells: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what a grid of cells holds on both sides of each segment, (2, lines, steps) each."""
    both = np.stack([cells, cells.T])
    wide = np.pad(both, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return wide[:, :-1], wide[:, 1:]


def _classes(
    lattice: Lattice, blocks: Blocks, zones: Zones, generator: np.random.Generator
) -> Integers:
    """Return the class of every side of a cell, (2, lines, steps)."""
    size = lattice.size
    shape = (2, size + 1, size)
    kind = np.repeat((lattice.rank + 1)[:, :, None], size, axis=2)
    centrality = np.mean(_sides(blocks.factor["centrality"][blocks.of_cell]), axis=0)
    density = np.mean(_sides(blocks.factor["density"][blocks.of_cell]), axis=0)
    first, second = _sides(zones)
    chance = generator.random((3, *shape))
    minor = kind == HOME
    built = np.isin(first, BUILT) | np.isin(second, BUILT)
    gone = minor & (chance[0] < 0.5 / (1 + np.exp(0.9 * (centrality + density))))
    kind[gone] = np.select(
        [chance[1][gone] < 0.34, chance[1][gone] < 0.55], [SERVICE, FOOT], NO_STREET
    )
    green = np.isin(first, GREEN) & np.isin(second, GREEN)
    on_foot = np.select([chance[1] < 0.5, chance[1] < 0.72, chance[1] < 0.92], [FOOT, CYCLE, PATH])
    kind[minor & green] = on_foot[minor & green]
    wild = ~built & ~green
    kind[minor & wild] = np.where(chance[1] < 0.4, TRACK, NO_STREET)[minor & wild]
    edge = np.isin(first, ("water", "railway")) | np.isin(second, ("water", "railway"))
    kind[minor & wild & edge] = np.where(chance[1] < 0.5, FOOT, NO_STREET)[minor & wild & edge]
    wilder = ~built & (kind == THIRD) & ~edge
    kind[wilder] = np.where(chance[2] < 0.5, THIRD, TRACK)[wilder]
    kind[(kind == HOME) & _strolling(lattice)] = PEDESTRIAN
    kind[:, [0, -1]] = NO_STREET
    return kind


def _strolling(lattice: Lattice) -> Flags:
    """Return which sides of cells lie in the very centre, (2, lines, steps)."""
    lines = lattice.lines()
    middle = (lines[:, :, :-1] + lines[:, :, 1:]) / 2
    away = np.hypot(*np.moveaxis(middle - lattice.centre, -1, 0))
    return np.asarray(away < min(430.0, 0.07 * lattice.side_m))


def _across_parks(
    number: Integers, zones: Zones, generator: np.random.Generator
) -> tuple[Integers, Integers]:
    """Return ends (K, 2) and classes (K,) of paths from corner to corner of cells in parks."""
    row, column = np.nonzero(np.isin(zones, ("park", "cemetery")))
    chosen = generator.random(len(row)) < 0.5
    row, column = row[chosen], column[chosen]
    up = generator.random(len(row)) < 0.5
    start = number[row + ~up, column]
    end = number[row + up, column + 1]
    kind = generator.choice([FOOT, PATH, CYCLE], len(row), p=[0.7, 0.2, 0.1])
    return np.column_stack([start, end]), kind.astype(np.int64)


def _cross(
    lattice: Lattice, ends: Integers, kind: Integers, barriers: list[Barrier],
    generator: np.random.Generator,
) -> tuple[Floats, Integers]:  # fmt: skip
    """Bridge what crosses barriers, and take what may not cross out of `kind`.

    Returns:
        (E, 2) where each bridge begins and ends, and its level (E,).
    """
    points = lattice.vertices.reshape(-1, 2)
    lines = np.asarray(shapely.linestrings(points[ends]), dtype=object)
    tree = shapely.STRtree(lines)
    crossing = np.full((len(ends), 2), np.nan)
    level = np.zeros(len(ends), dtype=np.int64)
    chance = generator.random((len(barriers), len(ends)))
    for barrier, draw in zip(barriers, chance, strict=True):
        hit = np.sort(tree.query(barrier.area, predicate="intersects"))
        over = shapely.buffer(barrier.area, 6.0, quad_segs=4)
        shapely.prepare(over)
        inside = shapely.intersection(lines[hit], over)
        spots, owner = shapely.get_coordinates(inside, return_index=True)
        share = shapely.line_locate_point(lines[hit][owner], shapely.points(spots), normalized=True)
        low, high = np.full(len(hit), 1.0), np.full(len(hit), 0.0)
        np.minimum.at(low, owner, share)
        np.maximum.at(high, owner, share)
        crossing[hit, 0] = np.fmin(crossing[hit, 0], low)
        crossing[hit, 1] = np.fmax(crossing[hit, 1], high)
        kind[hit], made = _crossed(barrier.kind, kind[hit], draw[hit])
        level[hit] = np.where(level[hit] == BRIDGE, BRIDGE, made)
    crossing[level == ON_GROUND] = np.nan
    return crossing, level


def _crossed(barrier: str, kind: Integers, draw: Floats) -> tuple[Integers, Integers]:
    """Return what becomes of streets that cross a barrier: class, and level of the crossing."""
    main = np.isin(kind, (THIRD, SECOND, FIRST))
    level = np.full(len(kind), BRIDGE)
    walk = np.where(np.isin(kind, (CYCLE, PATH)), kind, FOOT)
    if barrier == "stream":
        lesser = np.select(
            [draw < 0.1, draw < 0.75], [np.where(kind == HOME, HOME, walk), walk], NO_STREET
        )
    elif barrier in ("river", "lake"):
        lesser = np.full(len(kind), NO_STREET)
    elif barrier == "canal":
        lesser = np.where(draw < 0.45, walk, NO_STREET)
    else:
        lesser = np.select([draw < 0.08, draw < 0.45], [HOME, walk], NO_STREET)
        level[~main & (draw < 0.08)] = TUNNEL
    return np.where(main | (kind == NO_STREET), kind, lesser), level


def _connected(segments: Segments, vertices: int) -> Segments:
    """Return the largest network of segments that hang together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(segments)), segments.ends.T), shape=(vertices, vertices))
    _, part = connected_components(links, directed=False)
    belongs = part[segments.ends[:, 0]]
    return take(segments, belongs == np.argmax(np.bincount(belongs)))


def setbacks(lattice: Lattice, segments: Segments) -> Floats:
    """Return where plots begin along the four sides of every cell, (rows · columns, 4) metres."""
    size = lattice.size
    along = np.zeros((2 * (size + 1), size))
    straight = segments.line < len(along)
    along[segments.line[straight], segments.step[straight]] = SETBACK_M[segments.kind[straight]]
    level, upright = along.reshape(2, size + 1, size)
    sides = [level[:-1], upright[1:].T, level[1:], upright[:-1].T]
    return np.stack(sides, axis=-1).reshape(-1, 4)


def join_ways(lattice: Lattice, segments: Segments) -> Ways:
    """Return the ways: runs of segments of one class between crossings of main streets."""
    order = np.lexsort([segments.step, segments.line])
    segments = take(segments, order)
    size = lattice.size
    rank = lattice.rank
    # A line of constant row is cut by lines of constant column, and the other way round.
    axis = np.minimum(segments.line // (size + 1), 1)
    cut = (rank >= TERTIARY)[1 - axis, segments.step]
    name_cut = np.cumsum(rank >= SECONDARY, axis=1)[1 - axis, segments.step]
    fresh = np.ones(len(segments), dtype=bool)
    fresh[1:] = (
        (np.diff(segments.line) != 0) | (np.diff(segments.step) != 1)
        | (np.diff(segments.kind) != 0) | cut[1:]
    )  # fmt: skip
    start = np.maximum.accumulate(np.where(fresh, np.arange(len(segments)), 0))
    fresh |= (np.arange(len(segments)) - start) % LONGEST_WAY == 0
    primary = segments.kind == FIRST
    longer = np.cumsum(rank >= PRIMARY, axis=1)[1 - axis, segments.step]
    stretch = np.where(primary, longer, name_cut)
    return _pieces(lattice, segments, fresh, stretch)


def _pieces(lattice: Lattice, segments: Segments, fresh: Flags, stretch: Integers) -> Ways:
    """Cut segments at bridges and middles, and join the pieces to ways."""
    points = lattice.vertices.reshape(-1, 2)[segments.ends]
    raised = segments.level > ON_GROUND
    cuts = np.full((len(segments), 4), np.nan)
    cuts[:, 0], cuts[:, 3] = 0.0, 1.0
    cuts[raised, 1:3] = segments.crossing[raised]
    cuts[segments.middle & ~raised, 1] = 0.5
    low, high = cuts[:, :-1], np.where(np.isnan(cuts[:, 1:]), 1.0, cuts[:, 1:])
    owner, place = np.nonzero(~np.isnan(low) & (high - np.nan_to_num(low) > 1e-3))
    level = np.where((place == 1) & raised[owner], segments.level[owner], ON_GROUND)
    head = np.ones(len(owner), dtype=bool)
    new_segment = np.diff(owner, prepend=-1) != 0
    head[1:] = (new_segment[1:] & fresh[owner[1:]]) | (np.diff(level) != 0)
    way = np.cumsum(head) - 1
    begin = _along(points[owner], low[owner, place])
    end = _along(points[owner], high[owner, place])
    last = np.flatnonzero(np.append(head[1:], True))
    coordinates = np.concatenate([begin, end[last]])
    index = np.concatenate([way, way[last]])
    order = np.argsort(index, kind="stable")
    geometry = shapely.linestrings(coordinates[order], indices=index[order])
    of = owner[head]
    return Ways(
        np.asarray(geometry, dtype=object), segments.kind[of], segments.line[of], stretch[of],
        level[head],
    )  # fmt: skip


def _along(points: Floats, share: Floats) -> Floats:
    """Return places on segments (N, 2, 2): 0 and 1 give the very ends, to the last bit."""
    between = points[:, 0] + (points[:, 1] - points[:, 0]) * share[:, None]
    exact = np.where(share[:, None] >= 1, points[:, 1], between)
    return np.asarray(np.where(share[:, None] <= 0, points[:, 0], exact))
