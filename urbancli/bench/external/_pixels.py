"""How much of each pixel a polygon covers, exactly: no sampling, whatever the size of either."""

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.grid import Floats, Integers

ROUNDING = 1e-9
"""Shares below this are rounding."""


def covered(polygon: shapely.Geometry, column: int, row: int, shape: tuple[int, int]) -> Floats:
    """Return the share of each pixel inside a polygon, (height, width), 0 to 1.

    By Green's theorem: an edge that climbs by dy within a pixel adds dy to the cover of all pixels
    of its row right of it, and dy·(1 − x) to its own, x being its mean distance from the pixel's
    left side. Summed over the edges of rings, outlines one way round and holes the other, that is
    the covered area. Edges are cut at the pixels' borders first.

    Args:
        polygon: valid, in units of pixels: x columns, y rows.
        column: of the window's first pixel.
        row: likewise.
        shape: (height, width) of the window.
    """
    height, width = shape
    start, end = _edges(polygon, column, row)
    start, end = _cut(start, end)
    middle, climb = (start + end) / 2, end[:, 1] - start[:, 1]
    cell = np.floor(middle).astype(np.int64)
    inside = (cell[:, 1] >= 0) & (cell[:, 1] < height) & (cell[:, 0] < width) & (climb != 0)
    cell, climb, across = cell[inside], climb[inside], (middle[:, 0] - cell[:, 0])[inside]
    left = cell[:, 0] < 0  # left of the window: it covers the whole row
    across[left], cell[left, 0] = 0.0, 0
    # One column more than the window, for what an edge in the last pixel adds right of it.
    place = cell[:, 1] * (width + 1) + cell[:, 0]
    size = height * (width + 1)
    steps = np.bincount(place, climb * (1 - across), size)
    steps += np.bincount(place + 1, climb * across, size)
    share = np.cumsum(steps.reshape(height, width + 1), axis=1)[:, :width]
    share[share < ROUNDING] = 0.0
    return np.minimum(share, 1.0)


def _edges(polygon: shapely.Geometry, column: int, row: int) -> tuple[Floats, Floats]:
    """Return start and end (E, 2) of the edges of all rings, turned so that their cover adds up."""
    parts = shapely.get_parts(shapely.get_parts(np.array([polygon], dtype=object)))
    parts = parts[shapely.get_dimensions(parts) == 2]
    outlines = shapely.get_exterior_ring(parts)
    rings = [outlines, *(_holes(part) for part in parts[shapely.get_num_interior_rings(parts) > 0])]
    wanted = np.concatenate([np.full(len(r), 1 if i == 0 else -1) for i, r in enumerate(rings)])
    points, ring = shapely.get_coordinates(np.concatenate(rings), return_index=True)
    points = points - (column, row)
    same = ring[1:] == ring[:-1]
    start, end, ring = points[:-1][same], points[1:][same], ring[1:][same]
    area = np.bincount(ring, start[:, 0] * end[:, 1] - end[:, 0] * start[:, 1], len(wanted))
    turned = (np.sign(area) * wanted > 0)[ring]
    start[turned], end[turned] = end[turned].copy(), start[turned].copy()
    return start, end


def _holes(part: shapely.Geometry) -> npt.NDArray[np.object_]:
    count = shapely.get_num_interior_rings(part)
    return np.asarray(shapely.get_interior_ring(part, np.arange(count)), dtype=object)


def _cut(start: Floats, end: Floats) -> tuple[Floats, Floats]:
    """Return the same edges in pieces none of which crosses a border between pixels."""
    edges, times = [np.arange(len(start))] * 2, [np.zeros(len(start)), np.ones(len(start))]
    for axis in (0, 1):
        first, last = start[:, axis], end[:, axis]
        low = np.floor(np.minimum(first, last)).astype(np.int64) + 1
        count = np.maximum(np.ceil(np.maximum(first, last)).astype(np.int64) - low, 0)
        edge = np.repeat(np.arange(len(start)), count)
        border = low[edge] + _counted(count)
        edges.append(edge)
        times.append((border - first[edge]) / (last - first)[edge])
    edge, time = np.concatenate(edges), np.concatenate(times)
    order = np.lexsort([time, edge])
    edge, time = edge[order], time[order]
    points = start[edge] + time[:, None] * (end - start)[edge]
    same = edge[1:] == edge[:-1]
    return points[:-1][same], points[1:][same]


def _counted(counts: Integers) -> Integers:
    """Return 0, 1, … up to each count, one after the other."""
    begin = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(begin, counts)
