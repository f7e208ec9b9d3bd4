"""Closed-form transforms against rasters, quadrature and the laws of Fourier transforms."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.encoders import _fourier

COURTYARD = shapely.Polygon(
    [(0, 0), (10, 0), (10, 3), (4, 3), (4, 8), (0, 8)],
    [[(1, 1), (1, 2), (3, 2), (3, 1)], [(1, 4), (3, 4), (2, 7)]],
)


def transform(*shapes: Any) -> npt.NDArray[np.complex128]:
    geometry = np.array(shapes, dtype=object)
    return _fourier.transform(_fourier.shapes_of(geometry, *_fourier.box_frames(geometry)))


def sampled(shape: Any, points: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    """The definition: the mean of exp(−i k·x) over points spread evenly over a shape."""
    left, bottom, right, top = shape.bounds
    centred = (points - [(left + right) / 2, (bottom + top) / 2]) / max(right - left, top - bottom)
    waves: npt.NDArray[np.complex128] = np.exp(-1j * centred @ _fourier.frequencies().T).mean(0)
    return waves


def raster(shape: Any, pixels: int = 300) -> npt.NDArray[np.float64]:
    left, bottom, right, top = shape.bounds
    steps = (np.arange(pixels) + 0.5) / pixels
    x, y = np.meshgrid(left + steps * (right - left), bottom + steps * (top - bottom))
    shapely.prepare(shape)
    inside = shapely.contains_xy(shape, x, y)
    return np.column_stack([x[inside], y[inside]])


@pytest.mark.parametrize(
    "shape",
    [
        COURTYARD,
        shapely.MultiPolygon([COURTYARD, shapely.box(12, 1, 20, 7)]),
        shapely.Polygon([(0, 0), (8, 1), (3, 5)]),
    ],
)
def test_polygons_equal_a_dense_raster(shape: Any) -> None:
    np.testing.assert_allclose(transform(shape)[0], sampled(shape, raster(shape)), atol=4e-3)


def test_a_box_is_a_product_of_sincs() -> None:
    found = transform(shapely.box(5e5, 3e6, 5e5 + 20, 3e6 + 5))[0]
    cycles = _fourier.frequencies() / (2 * np.pi)
    np.testing.assert_allclose(
        found, np.sinc(cycles[:, 0]) * np.sinc(cycles[:, 1] / 4), rtol=0, atol=1e-9
    )


def test_polygons_equal_the_fft_of_their_raster() -> None:
    # A box of side 16 in the middle of a period of 32: bins of the FFT are multiples of half a
    # cycle per box side, which the frequencies along x and y are.
    shape, pixels = shapely.union_all([shapely.box(8, 8, 24, 14), shapely.box(8, 8, 13, 24)]), 1024
    steps = (np.arange(pixels) + 0.5) * 32 / pixels
    image = shapely.contains_xy(shape, *np.meshgrid(steps, steps)).astype(np.float64)
    spectrum = np.fft.fft2(image) / image.sum()
    for axis, direction in ((1, 0), (0, _fourier.ORIENTATIONS // 2)):
        for radius, cycles in enumerate(_fourier.radii()):
            number = round(cycles * 2)
            found = transform(shape)[0, radius * _fourier.ORIENTATIONS + direction]
            bin_of = (0, number) if axis == 1 else (number, 0)
            # The FFT's origin is the first pixel's centre, ours the box centre, at 16.
            shift = np.exp(1j * 2 * np.pi * number * (16 - steps[0]) / 32)
            np.testing.assert_allclose(found, spectrum[bin_of] * shift, atol=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        shapely.LineString([(0, 0), (7, 2)]),
        shapely.LineString([(0, 0), (5, 1), (5, 6), (-2, 3)]),
        shapely.MultiLineString([[(0, 0), (5, 1)], [(3, 3), (3, 4), (9, 9)]]),
    ],
)
def test_lines_equal_points_along_them(shape: Any) -> None:
    along = (np.arange(20_000) + 0.5) / 20_000 * shape.length
    parts = shapely.get_parts(shape)
    ends = np.cumsum([0.0, *(part.length for part in parts)])
    which = np.searchsorted(ends, along) - 1
    points = shapely.line_interpolate_point(parts[which], along - ends[which])
    np.testing.assert_allclose(
        transform(shape)[0], sampled(shape, shapely.get_coordinates(points)), atol=1e-4
    )


def test_points_are_sums_of_exponentials() -> None:
    shape = shapely.MultiPoint([(0, 0), (3, 1), (1, 5)])
    np.testing.assert_allclose(
        transform(shape)[0], sampled(shape, shapely.get_coordinates(shape)), atol=1e-12
    )
    np.testing.assert_allclose(transform(shapely.Point(5e5, 3e6))[0], 1, atol=1e-12)


def test_a_collection_counts_by_its_highest_dimension() -> None:
    line = shapely.LineString([(0, 0), (10, 8)])
    nested = shapely.GeometryCollection(
        [shapely.Point(3, 3), shapely.GeometryCollection([line, shapely.MultiPolygon([COURTYARD])])]
    )
    found, plain = transform(nested, COURTYARD)
    np.testing.assert_allclose(found, plain, atol=1e-12)


def test_rings_may_run_either_way() -> None:
    turned = shapely.Polygon(
        COURTYARD.exterior.coords[::-1], [ring.coords[::-1] for ring in COURTYARD.interiors]
    )
    half = shapely.Polygon(COURTYARD.exterior, [ring.coords[::-1] for ring in COURTYARD.interiors])
    for found in transform(turned, half):
        np.testing.assert_allclose(found, transform(COURTYARD)[0], atol=1e-12)


def test_what_has_no_area_or_length_is_what_is_left_of_it() -> None:
    flat = shapely.Polygon([(0, 0), (4, 4), (2, 2)])
    line = shapely.LineString([(0, 0), (4, 4)])
    still = shapely.LineString([(7, 7), (7, 7)])
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    geometry = np.array([flat, line, still, bow, shapely.Polygon(), None], dtype=object)
    shapes = _fourier.shapes_of(geometry, *_fourier.box_frames(geometry))
    assert shapes.dimension.tolist() == [1, 1, 0, 1, -1, -1]
    found = _fourier.transform(shapes)
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)
    np.testing.assert_allclose(found[2], 1)
    assert np.isfinite(found).all()
    assert (found[4:] == 0).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shapes = [
        shapely.LineString(rng.normal(size=(n, 2))) if n % 2 else shapely.Point(n, n).buffer(n)
        for n in range(2, 40)
    ]
    whole = transform(*shapes)
    monkeypatch.setattr(_fourier, "CHUNK_EDGES", 7)
    np.testing.assert_allclose(transform(*shapes), whole, atol=1e-13)
    alone = np.concatenate([transform(shape) for shape in shapes])
    np.testing.assert_allclose(alone, whole, atol=1e-12)


def plain(shape: Any, centre: Any, unit: float) -> npt.NDArray[np.complex128]:
    """The formula of the module for one polygon or line, every frequency for itself."""
    k = _fourier.frequencies()
    rings = [shape] if shape.area == 0 else [shape.exterior, *shape.interiors]
    total, measure = np.zeros(len(k), np.complex128), 0.0
    for number, ring in enumerate(rings):
        points = (np.asarray(ring.coords) - centre) / unit
        if shape.area and shapely.is_ccw(ring) != (number == 0):
            points = points[::-1]
        for first, last in itertools.pairwise(points):
            middle, step = (first + last) / 2, last - first
            wave = np.exp(-1j * k @ middle) * np.sinc(k @ step / (2 * np.pi))
            if shape.area:
                total += 1j / (k**2).sum(axis=1) * (k[:, 0] * step[1] - k[:, 1] * step[0]) * wave
                measure += (middle[0] * step[1] - middle[1] * step[0]) / 2
            else:
                total += np.hypot(*step) * wave
                measure += np.hypot(*step)
    return total / measure


@pytest.mark.parametrize("size", [1e-3, 0.03, 1.0, 30.0, 1000.0])
def test_a_frame_can_be_rescaled_and_moved(size: float) -> None:
    # From a thousandth of a frame's unit to a thousand units, about a place 40 units away.
    shapes = [
        shapely.transform(shape, lambda xy: xy / 10 * size + [5e5, 3e6])
        for shape in (COURTYARD, shapely.LineString([(0, 0), (5, 1), (5, 6)]))
    ]
    geometry = np.array(shapes, dtype=object)
    centre, side = _fourier.box_frames(geometry)
    own = _fourier.shapes_of(geometry, centre, side)
    found = _fourier.transform(_fourier.rescaled(own, 1 / side))
    for shape, values, middle in zip(shapes, found, centre, strict=True):
        np.testing.assert_allclose(values, plain(shape, middle, 1.0), atol=1e-8)
    place = centre + np.array([32.1, -24.7])
    moved = found * _fourier.phases(centre - place)
    for shape, values, middle in zip(shapes, moved, place, strict=True):
        np.testing.assert_allclose(values, plain(shape, middle, 1.0), atol=1e-7)


def test_fewer_frequencies_are_some_of_the_many() -> None:
    geometry = np.array([COURTYARD], dtype=object)
    shapes = _fourier.shapes_of(geometry, *_fourier.box_frames(geometry))
    many = _fourier.transform(shapes, 5, 12).reshape(5, 12)
    few = _fourier.transform(shapes, 3, 4).reshape(3, 4)
    np.testing.assert_allclose(few, many[:3, ::3], atol=1e-12)
    np.testing.assert_allclose(_fourier.transform(shapes), many[:4, ::2].reshape(1, -1), atol=1e-12)


coordinate = st.floats(-1000, 1000, allow_nan=False).map(lambda value: round(value, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9), st.booleans())
def test_any_shape_has_a_bounded_vector_that_ignores_where_it_lies(
    corners: list[tuple[float, float]], areal: bool
) -> None:
    shape = shapely.Polygon(corners).buffer(0) if areal else shapely.LineString(corners)
    if shape.is_empty:
        return
    found = transform(shape)[0]
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1 + 1e-6
    assert np.abs(found).max() > 1e-3
    moved, grown, turned = transform(
        shapely.transform(shape, lambda xy: xy + np.array([3000, -500])),
        shapely.transform(shape, lambda xy: xy * 3),
        shapely.transform(shape, lambda xy: -xy),
    )
    np.testing.assert_allclose(moved, found, atol=1e-4)
    np.testing.assert_allclose(grown, found, atol=1e-4)
    np.testing.assert_allclose(turned, found.conj(), atol=1e-4)
