"""Filling polygons and broad lines on a pixel grid: many at once, exact at pixel centres.

An outline counts +1 where a row of pixel centres enters it and −1 where it leaves it; the running
sum along the row is the winding number, positive inside the union of all that is drawn together.
Nothing is clipped; holes are outlines that count the other way. The crossing of an edge with a row
is computed in coordinates of the whole zone and from north to south, so that it depends neither on
the box that is drawn nor on which of two neighbours the edge belongs to.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.grid import Floats, Integers
from urbancli.workspace import Geometries

Crossings = tuple[Integers, Integers, Integers, Integers]
"""Level, row, first column at or right of the crossing, +1 or −1."""


@dataclass(frozen=True)
class Outlines:
    """Rings, lines and points of what is drawn.

    Attributes:
        points: (V, 2) x, y, metres; those of an outline follow each other.
        starts: (P,) first point of each outline.
        sizes: (P,) how many points each has.
        level: (P,) rank in which it is painted.
        sign: (P,) of rings, +1 where walking along it adds to the winding number; 0 of strokes.
        width_m: (P,) of strokes.
        pixel_limit_m: (P,) size of the largest pixels on which each is drawn.
        tree: of the boxes of the outlines.
    """

    points: Floats
    starts: Integers
    sizes: Integers
    level: Integers
    sign: Integers
    width_m: Floats
    pixel_limit_m: Floats
    tree: shapely.STRtree


def outlines(
    shapes: Geometries, level: Integers, width_m: Floats, pixel_limit_m: Floats
) -> Outlines:
    """Return the outlines of polygons, lines and points (N,), in metres.

    Args:
        shapes: valid, not empty, of one part each.
        level: (N,) rank in which each is painted.
        width_m: (N,) of lines and points.
        pixel_limit_m: (N,) size of the largest pixels on which each is drawn.
    """
    areal = np.flatnonzero(shapely.get_type_id(shapes) == 3)
    others = np.setdiff1d(np.arange(len(shapes)), areal)
    rings, of = shapely.get_rings(shapes[areal], return_index=True)
    inner = np.append(False, np.diff(of) == 0)[: len(of)]
    turn = np.where(shapely.is_ccw(rings), 1, -1) * np.where(inner, -1, 1)
    parts = np.concatenate([rings, shapes[others]])
    owner = np.concatenate([areal[of], others])
    sign = np.concatenate([turn, np.zeros(len(others), np.int64)])
    points, index = shapely.get_coordinates(parts, return_index=True)
    sizes = np.bincount(index, minlength=len(parts))
    bounds = shapely.bounds(parts).reshape(-1, 4)
    return Outlines(
        points,
        np.cumsum(sizes) - sizes,
        sizes,
        level[owner],
        sign,
        width_m[owner],
        pixel_limit_m[owner],
        shapely.STRtree(np.asarray(shapely.box(*bounds.T), dtype=object)),
    )


def paint(
    drawn: Outlines, pixel_m: float, box: tuple[int, int, int, int], classes: int
) -> npt.NDArray[np.uint8]:
    """Return the class of each pixel of a box of the zone's raster, 0 where nothing is.

    Args:
        drawn: what is drawn; the class of a level is its remainder by `classes`.
        pixel_m: size of a pixel, metres.
        box: first column, first row (southwards from the zone's origin), width, height.
        classes: how many there are.
    """
    _, _, width, height = box
    chosen = _near(drawn, pixel_m, box)
    found = [_of_rings(drawn, chosen[drawn.sign[chosen] != 0], pixel_m, box)]
    found += _of_strokes(drawn, chosen[drawn.sign[chosen] == 0], pixel_m, box)
    level, row, column, step = (np.concatenate(each) for each in zip(*found, strict=True))
    # One number a crossing, in the order of (level, row, column), and its sign in the last bit. The
    # column right of the box takes what ends there.
    size = height * (width + 1)
    keys = np.sort(2 * (level * size + row * (width + 1) + column) + (step > 0))
    inside = np.cumsum(2 * (keys & 1) - 1) > 0
    before = np.append(False, inside)[: len(inside)]
    first, last = keys[inside & ~before] >> 1, keys[before & ~inside] >> 1
    canvas = np.zeros(size, np.uint8)
    levels = np.unique(drawn.level[chosen])
    cuts = np.searchsorted(first, np.append(levels, levels.max(initial=0) + 1) * size)
    for number, (start, end) in zip(
        levels.tolist(), itertools.pairwise(cuts.tolist()), strict=True
    ):
        run = first[start:end]
        canvas[_ranges(run - number * size, last[start:end] - run)] = number % classes
    return canvas.reshape(height, width + 1)[:, :-1]


def _near(drawn: Outlines, pixel_m: float, box: tuple[int, int, int, int]) -> Integers:
    """Return the outlines that may reach into a box, sorted."""
    left, top, width, height = box
    reach = max(drawn.width_m.max(initial=0), pixel_m) / 2 + pixel_m
    window = shapely.box(
        left * pixel_m - reach,
        -(top + height) * pixel_m - reach,
        (left + width) * pixel_m + reach,
        -top * pixel_m + reach,
    )
    found = np.sort(drawn.tree.query(window))
    return np.asarray(found[drawn.pixel_limit_m[found] >= pixel_m])


def _ranges(starts: Integers, sizes: Integers) -> Integers:
    """Return start, start + 1, … start + size − 1 of each range, one after another."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)


def _of_rings(
    drawn: Outlines, chosen: Integers, pixel_m: float, box: tuple[int, int, int, int]
) -> Crossings:
    """Return the crossings of rings."""
    edges = drawn.sizes[chosen] - 1
    first = _ranges(drawn.starts[chosen], edges)
    scale = np.array([1 / pixel_m, -1 / pixel_m])
    start, end = drawn.points[first] * scale, drawn.points[first + 1] * scale
    sign, level = (np.repeat(each[chosen], edges) for each in (drawn.sign, drawn.level))
    return _of_edges(start, end, sign, level, box)


def _of_strokes(
    drawn: Outlines, chosen: Integers, pixel_m: float, box: tuple[int, int, int, int]
) -> tuple[Crossings, Crossings]:
    """Return the crossings of the rectangles along lines, and of the discs at their points."""
    scale = np.array([1 / pixel_m, -1 / pixel_m])
    sizes = drawn.sizes[chosen]
    radius = np.maximum(drawn.width_m[chosen] / pixel_m, 1.0) / 2
    level = drawn.level[chosen]
    nodes = _ranges(drawn.starts[chosen], sizes)
    discs = _of_discs(
        drawn.points[nodes] * scale, np.repeat(radius, sizes), np.repeat(level, sizes), box
    )
    first = _ranges(drawn.starts[chosen], sizes - 1)
    a, b = drawn.points[first] * scale, drawn.points[first + 1] * scale
    radius, level = np.repeat(radius, sizes - 1), np.repeat(level, sizes - 1)
    along = b - a
    length = np.hypot(*along.T)
    some = length > 0
    a, b, level = a[some], b[some], level[some]
    side = along[some][:, ::-1] * [-1, 1] * (radius[some] / length[some])[:, None]
    corners = np.stack([a + side, b + side, b - side, a - side, a + side])
    one = np.ones(4 * len(a), np.int64)
    start, end = corners[:-1].reshape(-1, 2), corners[1:].reshape(-1, 2)
    return _of_edges(start, end, one, np.tile(level, 4), box), discs


def _of_edges(
    start: Floats, end: Floats, sign: Integers, level: Integers, box: tuple[int, int, int, int]
) -> Crossings:
    """Return the crossings of edges (E, 2) in pixels, x eastwards and y southwards."""
    left, top, width, height = box
    up = start[:, 1] > end[:, 1]
    high, low = np.where(up[:, None], end, start), np.where(up[:, None], start, end)
    first = np.maximum(np.ceil(high[:, 1] - 0.5).astype(np.int64), top)
    last = np.minimum(np.ceil(low[:, 1] - 0.5).astype(np.int64), top + height)
    kept = np.flatnonzero(last > first)
    rows = (last - first)[kept]
    row = _ranges(first[kept], rows)
    slope = (low[kept, 0] - high[kept, 0]) / (low[kept, 1] - high[kept, 1])
    offset = high[kept, 0] + (0.5 - high[kept, 1]) * slope
    x = np.repeat(offset, rows) + row * np.repeat(slope, rows)
    column = np.clip(np.ceil(x - 0.5).astype(np.int64) - left, 0, width)
    step = np.where(up, -sign, sign)[kept]
    return np.repeat(level[kept], rows), row - top, column, np.repeat(step, rows)


def _of_discs(
    centre: Floats, radius: Floats, level: Integers, box: tuple[int, int, int, int]
) -> Crossings:
    """Return the crossings of discs, in pixels, x eastwards and y southwards."""
    left, top, width, height = box
    first = np.maximum(np.ceil(centre[:, 1] - radius - 0.5).astype(np.int64), top)
    last = np.minimum(np.ceil(centre[:, 1] + radius - 0.5).astype(np.int64), top + height)
    kept = np.flatnonzero(last > first)
    rows = (last - first)[kept]
    row = _ranges(first[kept], rows)
    x, y, r = (np.repeat(each[kept], rows) for each in (*centre.T, radius))
    half = np.sqrt(np.maximum(r**2 - (row + 0.5 - y) ** 2, 0.0))
    columns = [
        np.clip(np.ceil(x + s * half - 0.5).astype(np.int64) - left, 0, width) for s in (-1, 1)
    ]
    step = np.ones(2 * len(row), np.int64)
    step[len(row) :] = -1
    return (
        np.tile(np.repeat(level[kept], rows), 2),
        np.tile(row - top, 2),
        np.concatenate(columns),
        step,
    )
