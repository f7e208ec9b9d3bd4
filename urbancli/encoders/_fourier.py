"""Closed-form 2-D Fourier transforms of points, lines and polygons: a shape as a short vector.

The transform of a geometry G is F(k) = ∫_G exp(−i k·x) dμ(x), μ counting points, measuring length
along lines or area of polygons. All three are sums over edges with midpoint m and direction d:

    points     Σ exp(−i k·m)                                              (d = 0)
    lines      Σ |d| exp(−i k·m) sinc(k·d / 2)                            sinc t = sin t / t
    polygons   (i / |k|²) Σ (k × d) exp(−i k·m) sinc(k·d / 2),            k × d = k_x d_y − k_y d_x

The last is the divergence theorem on k exp(−i k·x) over rings run counter-clockwise (holes
clockwise). Divided by F(0), the count, length or area, it says what the shape is and not how big.

In a frame moved by c the transform is that of the old frame times exp(−i k·c), so one transform
about its own centre serves an entity in the frame of every place it touches.

Frequencies are polar, and radii double: exp and sinc at 2k follow from those at k by squaring and
by sinc 2t = sinc t cos t, so that trigonometry is paid once per orientation, not per frequency.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.workspace import Geometries

Floats = npt.NDArray[np.float64]

LOWEST_CYCLES = 0.5
"""Smallest radius of the frequencies, cycles per unit of the frame: the longer side of the box, or
a tile's side."""

OCTAVES = 4
"""How many radii; each doubles the one before."""

ORIENTATIONS = 6
"""Directions of the frequencies over half a circle; the other half is its complex conjugate."""

WIDTH = 2 * ORIENTATIONS * OCTAVES
"""Real and imaginary parts of all frequencies."""

CHUNK_EDGES = 1 << 14
"""Edges transformed at once: small enough for the temporaries to stay in cache."""

FLAT = 1e-9
"""Relative to its box, an area (length) below this is none: the shape is its outline (a point)."""


@dataclass(frozen=True)
class Shapes:
    """Edges of N geometries, each in a frame of its own.

    Attributes:
        owner: (E,) index of the geometry an edge belongs to, sorted.
        middle: (E, 2) midpoints.
        step: (E, 2) directions; polygons are to the left of their edges, whichever way the rings
            were drawn.
        dimension: (N,) 0 points, 1 lines, 2 polygons; −1 empty.
        measure: (N,) count, length or area.
        length: (N,) summed length of all edges.
    """

    owner: npt.NDArray[np.int64]
    middle: Floats
    step: Floats
    dimension: npt.NDArray[np.int64]
    measure: Floats
    length: Floats


def radii(octaves: int = OCTAVES) -> Floats:
    """Return the radii of the frequencies, (octaves,), cycles per unit of the frame."""
    return np.ldexp(LOWEST_CYCLES, np.arange(octaves))


def directions(orientations: int = ORIENTATIONS) -> Floats:
    """Return the unit vectors of the orientations, (orientations, 2)."""
    angle = np.pi * np.arange(orientations) / orientations
    return np.column_stack([np.cos(angle), np.sin(angle)])


def frequencies(octaves: int = OCTAVES, orientations: int = ORIENTATIONS) -> Floats:
    """Return the frequency vectors k, (octaves * orientations, 2), radians per unit of the frame.

    Radius after radius, the orientations of each in turn.
    """
    around = directions(orientations)
    return np.concatenate([2 * np.pi * radius * around for radius in radii(octaves)])


def box_frames(geometry: Geometries) -> tuple[Floats, Floats]:
    """Return (centre (N, 2), longer side (N,)) of upright boxes; side 1 where there is none."""
    bounds = np.nan_to_num(shapely.bounds(geometry).reshape(-1, 4))
    side = (bounds[:, 2:] - bounds[:, :2]).max(axis=1, initial=0.0)
    return (bounds[:, :2] + bounds[:, 2:]) / 2, np.where(side > 0, side, 1.0)


def shapes_of(geometry: Geometries, centre: Floats, side: Floats) -> Shapes:
    """Return the edges of geometries in the frames (x − centre) / side.

    A collection counts by its parts of the highest dimension. A polygon without area is taken for
    its outline and a line without length for a point: nothing has a transform of zero.

    Args:
        geometry: (N,) in metres.
        centre: (N, 2) origin of each frame, metres.
        side: (N,) unit of each frame, metres.
    """
    count = len(geometry)
    lines, owner, hole, dimension = _lines(geometry)
    points, line = shapely.get_coordinates(lines, return_index=True)
    points = (points - centre[owner[line]]) / side[owner[line], None]
    joined = np.append(line[1:] == line[:-1], False)[: len(line)]
    single = np.bincount(line, minlength=len(lines)) == 1
    first = np.flatnonzero(joined | single[line])
    last = first + joined[first]
    line = line[first]
    middle, step = (points[first] + points[last]) / 2, points[last] - points[first]
    signed = np.bincount(line, weights=_cross(middle, step) / 2, minlength=len(lines))
    turn = np.where((signed < 0) == hole, 1.0, -1.0)
    owner = owner[line]
    step = np.where((dimension[owner] == 2)[:, None], turn[line, None] * step, step)

    area = np.bincount(owner, weights=_cross(middle, step) / 2, minlength=count)
    length = np.bincount(owner, weights=np.hypot(*step.T), minlength=count).astype(np.float64)
    edges = np.bincount(owner, minlength=count).astype(np.float64)
    dimension = np.where((dimension == 2) & (area <= FLAT), 1, dimension)
    dimension = np.where((dimension == 1) & (length <= FLAT), 0, dimension)
    measure = np.choose(np.maximum(dimension, 0), [edges, length, area])
    return Shapes(owner, middle, step, dimension, np.where(edges > 0, measure, 1.0), length)


def rescaled(shapes: Shapes, unit: Floats) -> Shapes:
    """Return the same edges in frames with the same origins and other units.

    Args:
        shapes: N geometries.
        unit: (N,) of the new frames, in units of the old.
    """
    edges = unit[shapes.owner, None]
    return Shapes(
        shapes.owner,
        shapes.middle / edges,
        shapes.step / edges,
        shapes.dimension,
        shapes.measure / unit ** np.maximum(shapes.dimension, 0),
        shapes.length / unit,
    )


def transform(
    shapes: Shapes, octaves: int = OCTAVES, orientations: int = ORIENTATIONS
) -> npt.NDArray[np.complex128]:
    """Return F(k) / F(0) at `frequencies()`, shape (N, K); zero for empty geometries."""
    count, radians = len(shapes.dimension), 2 * np.pi * radii(octaves)
    out = np.zeros((count, octaves, orientations), dtype=np.complex128)
    starts = np.flatnonzero(np.diff(shapes.owner, prepend=-1))
    cuts = np.unique(np.searchsorted(starts, np.arange(0, len(shapes.owner), CHUNK_EDGES)))
    around = directions(orientations)
    for run in np.split(starts, cuts):
        if len(run):
            end = np.searchsorted(shapes.owner, shapes.owner[run[-1]], side="right")
            sums = _edge_sums(shapes, slice(run[0], end), run - run[0], octaves, around)
            owner = shapes.owner[run]
            solid = (shapes.dimension[owner] == 2)[:, None, None]
            scale = np.where(solid, 1j / radians[:, None], 1.0)
            out[owner] = sums * (scale / shapes.measure[owner, None, None])
    return out.reshape(count, octaves * orientations)


def phases(
    shift: Floats, octaves: int = OCTAVES, orientations: int = ORIENTATIONS
) -> npt.NDArray[np.complex128]:
    """Return exp(−i k·shift) at `frequencies()`, (N, K): the transform of what was moved by a
    shift (N, 2) is this times its transform."""
    out = np.empty((len(shift), octaves, orientations), dtype=np.complex128)
    angle = -2 * np.pi * LOWEST_CYCLES * (shift @ directions(orientations).T)
    # Real sines are several times faster than a complex exponential.
    out[:, 0].real, out[:, 0].imag = np.cos(angle), np.sin(angle)
    for octave in range(1, octaves):
        out[:, octave] = out[:, octave - 1] ** 2
    return out.reshape(len(shift), octaves * orientations)


def _edge_sums(
    shapes: Shapes,
    edges: slice,
    starts: npt.NDArray[np.int64],
    octaves: int,
    around: Floats,
) -> npt.NDArray[np.complex128]:
    """Return Σ weight exp(−i k·m) sinc(k·d / 2) of runs of edges, (runs, octaves, orientations).

    The weight is 1, |d| or k × d / |k|; the factor i / |k| of polygons is left to the caller.
    """
    middle, step = shapes.middle[edges], shapes.step[edges]
    dimension = shapes.dimension[shapes.owner[edges]][:, None]
    length = np.hypot(*step.T)[:, None]
    turned = np.outer(step[:, 1], around[:, 0]) - np.outer(step[:, 0], around[:, 1])
    weight = np.where(dimension == 2, turned, np.where(dimension == 1, length, 1.0))
    wave = np.exp(-2j * np.pi * LOWEST_CYCLES * (middle @ around.T))
    half = np.pi * LOWEST_CYCLES * (step @ around.T)
    cosine, weight = np.cos(half), weight * np.sinc(half / np.pi)
    sums = []
    for _ in range(octaves):
        sums.append(np.add.reduceat(weight * wave, starts, axis=0))
        wave, weight, cosine = wave * wave, weight * cosine, 2 * cosine * cosine - 1
    return np.stack(sums, axis=1)


def _lines(
    geometry: Geometries,
) -> tuple[Geometries, npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return the points, lines and rings of geometries, their owners, which are holes, and the
    dimension (N,) of each geometry."""
    parts, owner = geometry, np.arange(len(geometry))
    while (nested := shapely.get_type_id(parts) >= 4).any():
        inner, index = shapely.get_parts(parts[nested], return_index=True)
        parts = np.concatenate([parts[~nested], inner])
        owner = np.concatenate([owner[~nested], owner[nested][index]])
    there = ~(shapely.is_missing(parts) | shapely.is_empty(parts))
    parts, owner = parts[there], owner[there]
    own = shapely.get_dimensions(parts).astype(np.int64)
    dimension = np.full(len(geometry), -1, dtype=np.int64)
    np.maximum.at(dimension, owner, own)
    parts, owner, own = (a[own == dimension[owner]] for a in (parts, owner, own))
    rings, index = shapely.get_rings(parts[own == 2], return_index=True)
    hole = np.diff(index, prepend=-1) == 0
    lines = np.concatenate([rings, parts[own < 2]])
    owner = np.concatenate([owner[own == 2][index], owner[own < 2]])
    hole = np.concatenate([hole, np.zeros(int((own < 2).sum()), dtype=bool)])
    order = np.argsort(owner, kind="stable")
    return lines[order], owner[order], hole[order], dimension


def _cross(a: Floats, b: Floats) -> Floats:
    product: Floats = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product
