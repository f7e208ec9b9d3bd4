"""The Hilbert curve: rows of files, and blocks, in an order in which neighbours lie together."""

import functools

import numpy as np
import numpy.typing as npt
import shapely


def hilbert_index(x: npt.ArrayLike, y: npt.ArrayLike, bits: int = 16) -> npt.NDArray[np.int64]:
    """Return the position of integer cells along a Hilbert curve of `2**bits` cells a side.

    Args:
        x: columns in [0, 2**bits), shape (N,).
        y: rows in [0, 2**bits), shape (N,).
        bits: order of the curve, at most 31.
    """
    x, y = (np.array(each, dtype=np.int64) & ((1 << bits) - 1) for each in (x, y))
    position, turned = _hilbert_levels()
    padding = -bits % 4  # levels of zeros put first only swap x and y
    index = np.zeros_like(x)
    state = index + padding % 2
    for shift in range(bits + padding - 4, -1, -4):
        cell = state << 8 | ((x >> shift) & 15) << 4 | (y >> shift) & 15
        index = index << 8 | position[cell]
        state = turned[cell]
    return index


@functools.cache
def _hilbert_levels() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return what four levels of the curve add to an index, and the state after them, (1024,) each.

    A state says whether x and y are swapped (1) and counted from the other end (2), so that the
    curve enters and leaves a quadrant at the proper corners.
    """
    state, x, y = np.indices((4, 16, 16)).reshape(3, -1)
    position = np.zeros_like(state)
    for bit in (3, 2, 1, 0):
        columns, rows = (x >> bit) & 1, (y >> bit) & 1
        right = np.where(state & 1, rows, columns) ^ (state >> 1)
        upper = np.where(state & 1, columns, rows) ^ (state >> 1)
        position = position << 2 | (3 * right) ^ upper
        state = np.where(upper, state, state ^ 1 ^ right << 1)
    return position, state


def hilbert_order(geometry: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Return the stable order of geometries along a Hilbert curve over their common bounds."""
    return hilbert_order_of_boxes(shapely.bounds(geometry).reshape(-1, 4))


def hilbert_order_of_boxes(bounds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the stable order of boxes (N, 4) along a Hilbert curve over their common bounds."""
    if not len(bounds):
        return np.zeros(0, dtype=np.int64)
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2
    bounded = np.fmin.reduce(centres), np.fmax.reduce(centres)
    return np.argsort(hilbert_within(centres, *bounded), kind="stable")


def hilbert_within(
    points: npt.NDArray[np.float64], low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return where points (N, 2) lie along a Hilbert curve over a box, (N,).

    Args:
        points: in the box; what is NaN counts as its lower corner.
        low: lower corner of the box, (2,).
        high: upper corner, (2,).
    """
    span = np.where(high > low, high - low, 1.0)
    cells = np.floor(np.nan_to_num((points - low) / span) * 65535).astype(np.int64)
    return hilbert_index(cells[:, 0], cells[:, 1])
