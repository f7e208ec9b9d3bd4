"""Rasters of embeddings: equal to a loop over pixels, whatever their CRS, blocks and holes."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from external_inputs import EAST, GRID, NORTH, odd_shapes, units_of, values_of, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st

from urbancli.bench.external import _rasters, load_external
from urbancli.bench.external._pixels import covered
from urbancli.bench.splits.base import Units
from urbancli.errors import UrbanError

D = 4


def transform_of(left: float, top: float, pixel: float, up: bool = False):
    from rasterio.transform import Affine

    return Affine(pixel, 0, left, 0, pixel if up else -pixel, top)


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 1, (D, height, width)).astype(np.float32)


def naive(path: Path, units: Units, gone=np.isnan) -> tuple[np.ndarray, np.ndarray]:
    """Area-weighted means over pixels whose corners are brought to metres one by one."""
    import rasterio
    from pyproj import Transformer

    with rasterio.open(path) as file:
        bands, affine = file.read().astype(np.float64), file.transform
        back = Transformer.from_crs(file.crs.to_wkt(), GRID.epsg, always_xy=True)
    invalid = gone(bands).any(axis=0)
    rows, columns = np.indices(invalid.shape)
    corners = [affine * (columns + a, rows + b) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
    rings = np.stack([np.stack(back.transform(x, y), -1) for x, y in corners], axis=2)
    quads = shapely.polygons(rings.reshape(-1, 4, 2))
    means, shares = np.full((len(units), len(bands)), np.nan), np.zeros(len(units))
    tree, flat = shapely.STRtree(quads), bands.reshape(len(bands), -1)
    for number, shape in enumerate(units.shape):
        point = shape.geom_type == "Point"
        near = tree.query(shape, predicate="within" if point else "intersects")
        weight = np.ones(len(near)) if point else shapely.area(shape.intersection(quads[near]))
        near, weight = near[~invalid.ravel()[near]], weight[~invalid.ravel()[near]]
        if weight.sum():
            shares[number] = 1 if point else weight.sum() / shape.area
            means[number] = flat[:, near] @ weight / weight.sum()
    return means, np.minimum(shares, 1)


# --- how much of a pixel is covered ----------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(
        st.tuples(st.floats(-3, 9, width=32), st.floats(-3, 9, width=32)), min_size=3, max_size=9
    ),
    whole=st.booleans(),
)
def test_covered_is_the_area_that_shapely_finds(points, whole) -> None:
    """Any polygon, also with corners on borders, outside the window, or with holes."""
    rounded = [(round(x), round(y)) for x, y in points] if whole else points
    hull = shapely.MultiPoint(rounded).buffer(0.7, quad_segs=2)
    shape = hull.difference(shapely.MultiPoint(rounded[:2]).buffer(0.3))
    for polygon in (hull, shape, shapely.make_valid(shapely.Polygon(rounded))):
        found = covered(polygon, -1, 2, (6, 7))
        for row in range(6):
            for column in range(7):
                pixel = shapely.box(column - 1, row + 2, column, row + 3)
                assert found[row, column] == pytest.approx(
                    shapely.area(shapely.intersection(pixel, polygon)), abs=1e-7
                )


def test_covered_does_not_depend_on_which_way_rings_run() -> None:
    square = [(0.5, 0.5), (4.5, 0.5), (4.5, 4.5), (0.5, 4.5)]
    hole = [(1, 1), (3.25, 1), (3.25, 3), (1, 3)]
    expected = covered(shapely.Polygon(square, [hole]), 0, 0, (5, 5))
    assert expected.sum() == pytest.approx(16 - 4.5)
    for outer in (square, square[::-1]):
        for inner in (hole, hole[::-1]):
            np.testing.assert_allclose(
                covered(shapely.Polygon(outer, [inner]), 0, 0, (5, 5)), expected, atol=1e-12
            )


# --- means of units --------------------------------------------------------------------------


@pytest.mark.parametrize("up", [False, True], ids=["north-up", "south-up"])
@pytest.mark.parametrize("pixel", [30.0, 777.0])
def test_a_raster_gives_the_mean_of_its_pixels_by_area(tmp_path, pixel, up) -> None:
    """Of fine and of coarse pixels; AlphaEarth's own files have their first row in the south."""
    units = units_of(odd_shapes())
    side = int(3100 // pixel) + 1
    top = NORTH - 3 if up else NORTH - 3 + side * pixel
    path = write_raster(
        tmp_path / "alpha.tif", pixels(side, side), transform_of(EAST - 7, top, pixel, up)
    )
    values, coverage = values_of(str(path), units)
    expected, share = naive(path, units)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert values.dtype == np.float32 and coverage.embedded == coverage.units == len(units)
    assert coverage.share == pytest.approx(share.mean(), abs=1e-6) and share.min() > 0
    assert (coverage.name, coverage.rows) == ("alpha", side * side)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32617", "ESRI:102008"])
def test_a_raster_of_another_crs_gives_the_same(tmp_path, crs) -> None:
    from rasterio.warp import transform_bounds

    units = units_of(odd_shapes(1))
    box = transform_bounds("EPSG:32618", crs, EAST - 200, NORTH - 200, EAST + 3300, NORTH + 3300)
    pixel = (box[2] - box[0]) / 70
    height = int((box[3] - box[1]) / pixel) + 1
    path = write_raster(
        tmp_path / "x.tif", pixels(height, 70), transform_of(box[0], box[3], pixel), crs
    )
    values, coverage = values_of(str(path), units)
    expected, _ = naive(path, units)
    np.testing.assert_allclose(values, expected, atol=2e-4)
    assert coverage.share == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("how", ["nan", "nodata", "mask", "alpha"])
def test_invalid_pixels_do_not_count(tmp_path, how) -> None:
    """Whatever says that they are invalid, and where only some of their bands are."""
    import rasterio
    from rasterio.enums import ColorInterp

    units = units_of(odd_shapes(2))
    bands = pixels(60, 60)
    hole = np.random.default_rng(3).random((60, 60)) < 0.3
    hole[:, 40:] = True
    marked = bands.copy()
    marked[:, hole] = np.nan
    place = transform_of(EAST, NORTH + 3000, 50)
    truth = write_raster(tmp_path / "truth.tif", marked, place)
    path = tmp_path / "holes.tif"
    if how == "nan":
        marked[1:, hole] = bands[1:, hole]  # one band is enough
        write_raster(path, marked, place)
    elif how == "nodata":
        write_raster(path, np.where(hole, -9999, bands).astype(np.float32), place, nodata=-9999)
    elif how == "mask":
        write_raster(path, bands, place)
        with rasterio.open(path, "r+") as file:
            file.write_mask(~hole)
    else:
        alpha = np.concatenate([bands, np.where(hole, 0, 255).astype(np.float32)[None]])
        write_raster(path, alpha, place)
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp.gray] * D + [ColorInterp.alpha]
    external = load_external(str(path))
    values, coverage = values_of(str(path), units)
    expected, share = naive(truth, units)
    assert external.d == D
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert coverage.missing == int((share == 0).sum()) > 0
    assert coverage.share == pytest.approx(share[share > 0].mean(), abs=1e-6)
    assert coverage.thin > 0 and "covered less than half" in coverage.text
    assert (coverage.torn > 0) == (how == "nan")


def test_scale_and_offset_of_the_file_are_applied(tmp_path) -> None:
    """Codes of int8 with nodata, as quantised embeddings come, give what floats give."""
    import rasterio

    units = units_of(odd_shapes(4))
    codes = np.random.default_rng(0).integers(-127, 127, (D, 30, 30)).astype(np.int8)
    codes[:, 3:9, 3:9] = -128
    place = transform_of(EAST, NORTH + 3000, 100)
    scale, offset = [0.5, 0.1, 2.0, 1.0], [0.0, 3.0, -1.0, 0.0]
    path = write_raster(tmp_path / "codes.tif", codes, place, nodata=-128)
    assert "de-quantise" in load_external(str(path)).notes[0]
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = scale, offset
    assert load_external(str(path)).notes == ()
    real = codes * np.array(scale)[:, None, None] + np.array(offset)[:, None, None]
    real[:, 3:9, 3:9] = np.nan
    other = write_raster(tmp_path / "real.tif", real.astype(np.float32), place)
    np.testing.assert_allclose(
        values_of(str(path), units)[0], values_of(str(other), units)[0], rtol=1e-5
    )


def test_windows_change_nothing(tmp_path, monkeypatch) -> None:
    """Tiled or in strips, read at once or a few pixels at a time, each pixel counts once."""
    units = units_of(odd_shapes(5))
    place, bands = transform_of(EAST, NORTH + 3000, 30), pixels(100, 100)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"}
    paths = [
        write_raster(tmp_path / "strips.tif", bands, place),
        write_raster(tmp_path / "tiles.tif", bands, place, **tiled),
        write_raster(tmp_path / "mixed.tif", bands, place, **tiled, interleave="pixel"),
    ]
    expected, coverage = values_of(str(paths[0]), units)
    for budget in (2_000, 20_000, 100_000):
        monkeypatch.setattr(_rasters, "WINDOW_BYTES", budget)
        for path in paths:
            values, again = values_of(f"strips={path}", units)
            np.testing.assert_allclose(values, expected, rtol=1e-6)
            assert again.used == coverage.used and again.share == pytest.approx(coverage.share)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), pixel=st.sampled_from([13.0, 60.0, 410.0, 5000.0]))
def test_a_constant_field_gives_the_constant(tmp_path_factory, seed, pixel) -> None:
    units = units_of(odd_shapes(seed))
    side = int(3200 // pixel) + 1
    bands = np.full((D, side, side), [[[7.25]], [[-1.5]], [[0]], [[1e6]]], dtype=np.float32)
    path = tmp_path_factory.mktemp("flat") / "flat.tif"
    write_raster(path, bands, transform_of(EAST, NORTH + side * pixel, pixel))
    values, _ = values_of(str(path), units)
    np.testing.assert_allclose(values, np.tile(bands[:, 0, 0], (len(units), 1)), rtol=1e-6)


def test_a_vrt_of_tiles_is_one_raster_and_changes_with_them(tmp_path) -> None:
    from rasterio.shutil import copy

    units = units_of(odd_shapes(6))
    whole = write_raster(
        tmp_path / "whole.tif", pixels(60, 60), transform_of(EAST, NORTH + 3000, 50)
    )
    vrt = tmp_path / "all.vrt"
    copy(str(whole), str(vrt), driver="VRT")
    np.testing.assert_array_equal(values_of(str(vrt), units)[0], values_of(str(whole), units)[0])
    before = load_external(str(vrt)).sha256
    write_raster(whole, pixels(60, 60, seed=1), transform_of(EAST, NORTH + 3000, 50))
    assert load_external(str(vrt)).sha256 != before


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no crs", "has no CRS: write it with one"),
        ("elsewhere", "misses the city: no pixel with all its bands lies in any of 19 units"),
        ("invalid", "misses the city"),
        ("infinite", r"infinite values \(first at column 31, row 12\): write them as nodata"),
        ("classes", "holds classes or complex numbers"),
        ("complex", "holds classes or complex numbers"),
        ("broken", "is the file whole"),
        ("no raster", "cannot read .*x.tif"),
    ],
)
def test_a_raster_that_does_not_serve_is_refused(tmp_path, what, message) -> None:
    import rasterio

    units = units_of(odd_shapes())
    bands, place, crs = pixels(60, 60), transform_of(EAST, NORTH + 3000, 50), "EPSG:32618"
    path = tmp_path / "x.tif"
    options = {}
    if what == "no crs":
        crs = None
    elif what == "elsewhere":
        place = transform_of(EAST + 90_000, NORTH + 3000, 50)
    elif what == "invalid":
        bands[2] = np.nan
    elif what == "infinite":
        bands[1, 12, 31] = np.inf
    elif what == "classes":
        bands = np.ones((1, 60, 60), dtype=np.uint8)
    elif what == "complex":
        bands = bands.astype(np.complex64)
    elif what == "broken":
        options = {"compress": "deflate"}
    write_raster(path, bands, place, crs, **options)
    if what == "classes":
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {1: (255, 0, 0, 255)})
    elif what == "broken":
        path.write_bytes(path.read_bytes()[:20_000])
    elif what == "no raster":
        path.write_text("not a raster")
    with pytest.raises(UrbanError, match=message) as caught:
        values_of(str(path), units)
    assert "\n" not in str(caught.value)
