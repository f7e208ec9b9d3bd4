"""Rasters averaged per tile: aligned ones equal numpy, any other an exact area weighting."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from urbancli.city import find_city
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.labels.files import parse_label, read_label
from urbancli.workspace import geometries

DATA = Path(__file__).parents[2] / "../shared/data"


def city_tiles(epsg: int, columns: int = 3, rows: int = 2) -> Places:
    grid = Grid(epsg)
    north = 15_003 if epsg < 32700 else 24_003
    cells = np.array([(1945 + c, north + r) for c in range(columns) for r in range(rows)])
    x, y = ((cells + 0.5) * grid.tile_m).T
    ids = np.array([grid.tile_id(int(c), int(r)) for c, r in cells], dtype=object)
    return Places(grid, ids, "tile", x, y, np.ones(len(x)))


def write_raster(path: Path, bands: np.ndarray, left, top, pixel, crs, **options) -> Path:
    import rasterio
    from rasterio.transform import from_origin

    bands = bands if bands.ndim == 3 else bands[None]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
        dtype=bands.dtype, crs=crs, transform=from_origin(left, top, pixel, pixel), **options,
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def read(path: Path, places: Places, tail: str = "") -> tuple[np.ndarray, np.ndarray, dict]:
    table, facts = read_label(parse_label(f"n={path}{tail}"), places)
    assert table.column("unit_id").to_pylist() == places.place_id.tolist()
    value = table.column("value").to_numpy(zero_copy_only=False)
    return value, table.column("valid_share").to_numpy(), facts


def exact(bands: np.ndarray, left, top, pixel, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Area-weighted mean of the finite pixels of each tile, and their share, pixel by pixel."""
    mean, share = [], []
    for x, y in zip(places.x, places.y, strict=True):
        tile = (x - 150, y - 150, x + 150, y + 150)
        total = area = 0.0
        for row in range(bands.shape[0]):
            for column in range(bands.shape[1]):
                if not np.isfinite(bands[row, column]):
                    continue
                x0, y1 = left + column * pixel, top - row * pixel
                width = max(0.0, min(tile[2], x0 + pixel) - max(tile[0], x0))
                height = max(0.0, min(tile[3], y1) - max(tile[1], y1 - pixel))
                area += width * height
                total += width * height * bands[row, column]
        mean.append(total / area if area else np.nan)
        share.append(area / 300**2)
    return np.array(mean), np.array(share)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    epsg=st.sampled_from([32618, 32723]),
    per_tile=st.sampled_from([1, 2, 3, 10, 12, 30]),
    halo=st.integers(0, 2),
    dtype=st.sampled_from(["float64", "float32", "uint8", "int16"]),
    seed=st.integers(0, 1000),
)
def test_an_aligned_raster_gives_numpys_means(tmp_path, epsg, per_tile, halo, dtype, seed) -> None:
    places = city_tiles(epsg)
    pixel = 300 / per_tile
    columns, rows = 3 * per_tile + 2 * halo, 2 * per_tile + 2 * halo
    pixels = np.random.default_rng(seed).integers(0, 200, (rows, columns)).astype(dtype)
    left, top = places.x.min() - 150 - halo * pixel, places.y.max() + 150 + halo * pixel
    path = write_raster(tmp_path / "r.tif", pixels, left, top, pixel, f"EPSG:{epsg}")
    value, share, facts = read(path, places)
    inner = pixels[halo : rows - halo, halo : columns - halo].astype(float)
    means = inner.reshape(2, per_tile, 3, per_tile).mean(axis=(1, 3))
    # Tiles go by column, then row from the south; pixel rows from the north.
    np.testing.assert_allclose(value, means[::-1].T.ravel(), rtol=1e-9)
    assert (share == 1).all()
    assert (facts["kind"], facts["unit"], facts["without_value"]) == ("regression", "tile", 0)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pixel=st.sampled_from([37.0, 70.0, 130.0, 410.0, 1000.0]),
    shift=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 1000),
)
def test_any_other_raster_is_weighted_by_area(tmp_path, pixel, shift, seed) -> None:
    places = city_tiles(32618)
    columns, rows = int(900 / pixel) + 3, int(600 / pixel) + 3
    pixels = np.random.default_rng(seed).normal(10, 3, (rows, columns))
    left = places.x.min() - 150 - (shift[0] + 0.5) * pixel
    top = places.y.max() + 150 + (shift[1] + 0.5) * pixel
    path = write_raster(tmp_path / "r.tif", pixels, left, top, pixel, "EPSG:32618")
    value, share, _ = read(path, places)
    expected, _ = exact(pixels, left, top, pixel, places)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert (share == 1).all()


@pytest.mark.parametrize("how", ["nodata", "nan", "undeclared nan", "mask", "alpha"])
def test_invalid_pixels_do_not_count(tmp_path, how) -> None:
    import rasterio
    from rasterio.enums import ColorInterp

    places = city_tiles(32618)
    rng = np.random.default_rng(3)
    pixels = rng.integers(1, 100, (20, 30)).astype("float32" if "nan" in how else "int16")
    hidden = rng.random((20, 30)) < 0.3
    hidden[:10, :10] = True  # the north-western tile, but for four rows of ten
    hidden[:4, :10] = False
    hidden[10:, :10] = False  # the south-western tile, but for four rows of ten
    hidden[16:, :10] = True
    hidden[:10, 20:] = True  # all of the north-eastern one
    left, top = places.x.min() - 150, places.y.max() + 150
    path = tmp_path / "r.tif"
    marked = pixels.copy()
    if how == "mask":
        marked[hidden] = 9999
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write_raster(path, marked, left, top, 30, "EPSG:32618")
            with rasterio.open(path, "r+") as file:
                file.write_mask(~hidden)
    elif how == "alpha":
        marked[hidden] = 200
        both = np.stack([marked, np.where(hidden, 0, 255)]).astype("uint8")
        write_raster(path, both, left, top, 30, "EPSG:32618", alpha="yes")
        with rasterio.open(path) as file:
            assert file.colorinterp[1] == ColorInterp.alpha
    else:
        marked[hidden] = -7 if how == "nodata" else np.nan
        nodata = {"nodata": -7, "nan": np.nan, "undeclared nan": None}[how]
        write_raster(path, marked, left, top, 30, "EPSG:32618", nodata=nodata)
    value, share, facts = read(path, places)
    mean, valid = exact(np.where(hidden, np.nan, pixels.astype(float)), left, top, 30, places)
    np.testing.assert_allclose(share, valid, atol=1e-9)
    assert share[1] == pytest.approx(0.4) and share[0] == pytest.approx(0.6) and share[5] == 0
    assert facts["without_value"] == 2
    assert facts["without_value_ids"] == [places.place_id[1], places.place_id[5]]
    mean[valid < 0.5] = np.nan
    np.testing.assert_allclose(value, mean, rtol=1e-6)


def test_a_raster_that_ends_inside_a_tile_covers_only_its_share(tmp_path) -> None:
    places = city_tiles(32618)
    left, top = places.x.min() - 150, places.y.max() + 150
    pixels = np.full((1, 1), 5.0)  # one pixel of 780 m: coarser than a tile
    path = write_raster(tmp_path / "r.tif", pixels, left, top, 780, "EPSG:32618")
    value, share, _ = read(path, places)
    np.testing.assert_allclose(share, [1, 1, 1, 1, 0.6, 0.6], atol=1e-9)
    np.testing.assert_allclose(value, 5.0)


def test_very_fine_pixels_are_averaged_by_area(tmp_path) -> None:
    places = city_tiles(32618, 1, 1)
    pixels = np.random.default_rng(0).random((500, 500))
    left, top = places.x.min() - 150, places.y.max() + 150
    path = write_raster(tmp_path / "r.tif", pixels, left, top, 0.6, "EPSG:32618")
    value, share, _ = read(path, places)
    assert value[0] == pytest.approx(pixels.mean(), rel=1e-6)
    assert share[0] == 1


@pytest.mark.parametrize("epsg", [32618, 32723])
def test_a_raster_in_degrees_gives_the_mean_of_a_plane(tmp_path, epsg) -> None:
    """Of a field that is linear in metres the mean over a square is its value at the centre."""
    places = city_tiles(epsg, 10, 9)  # more than one block
    lon, lat = places.lonlat()
    degree = 2.5e-4
    columns = np.arange(int((np.ptp(lon) + 0.02) / degree))
    rows = np.arange(int((np.ptp(lat) + 0.02) / degree))
    left, top = lon.min() - 0.01, lat.max() + 0.01
    x, y = places.grid.project(
        *np.meshgrid(left + (columns + 0.5) * degree, top - (rows + 0.5) * degree)
    )
    field = (x - places.x.min()) / 300 + 3 * (y - places.y.min()) / 300
    path = write_raster(tmp_path / "r.tif", field, left, top, degree, "EPSG:4326")
    value, share, _ = read(path, places)
    expected = (places.x - places.x.min()) / 300 + 3 * (places.y - places.y.min()) / 300
    np.testing.assert_allclose(value, expected, atol=0.01)
    assert (share == 1).all()


def test_the_band_is_chosen_by_its_number(tmp_path) -> None:
    places = city_tiles(32618)
    pixels = np.stack([np.full((4, 6), band) for band in (1.0, 2.0, 3.0)])
    left, top = places.x.min() - 150, places.y.max() + 150
    path = write_raster(tmp_path / "r.tif", pixels, left, top, 150, "EPSG:32618")
    for tail, expected in {"": 1.0, ":1": 1.0, ":3": 3.0}.items():
        value, _, facts = read(path, places, tail)
        assert (value == expected).all()
        assert facts["source"]["column"] == str(int(expected))
    for tail, says in {
        ":4": "'4' is no band of .* 1 to 3",
        ":0": "is no band",
        ":red": "is no band",
        ":1/km2": "averaged per tile",
        "@50m": "averaged per tile",
    }.items():
        with pytest.raises(UsageError, match=says):
            read(path, places, tail)


def test_the_band_is_chosen_by_its_description(tmp_path) -> None:
    import rasterio

    places = city_tiles(32618)
    pixels = np.stack([np.full((4, 6), band) for band in (1.0, 2.0)])
    left, top = places.x.min() - 150, places.y.max() + 150
    path = write_raster(tmp_path / "r.tif", pixels, left, top, 150, "EPSG:32618")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("density", "age")
    value, _, facts = read(path, places, ":age")
    assert (value == 2).all()
    assert facts["source"]["column"] == "2"
    with pytest.raises(UsageError, match="1 to 2, or one of density, age"):
        read(path, places, ":aeg")


def test_a_raster_that_cannot_be_a_label_says_why(tmp_path) -> None:
    import rasterio

    places = city_tiles(32618)
    left, top = places.x.min() - 150, places.y.max() + 150
    pixels = np.ones((4, 6), dtype="uint8")
    bare = write_raster(tmp_path / "bare.tif", pixels, left, top, 150, None)
    with pytest.raises(UrbanError, match="has no CRS"):
        read(bare, places)
    far = write_raster(tmp_path / "far.tif", pixels, left + 1e5, top, 150, "EPSG:32618")
    with pytest.raises(UrbanError, match="misses the city"):
        read(far, places)
    other = write_raster(tmp_path / "other.tif", pixels, 174.0, -36.0, 0.01, "EPSG:4326")
    with pytest.raises(UrbanError, match="misses the city"):
        read(other, places)
    sparse = np.zeros((4, 6), dtype="uint8")
    sparse[0, 0] = 1
    path = write_raster(tmp_path / "s.tif", sparse, left, top, 150, "EPSG:32618", nodata=0)
    with pytest.raises(UrbanError, match="has no value in any of the city's 6 units"):
        read(path, places)
    classes = write_raster(tmp_path / "classes.tif", pixels, left, top, 150, "EPSG:32618")
    with rasterio.open(classes, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})
    with pytest.raises(UsageError, match="holds classes"):
        read(classes, places)
    cut = tmp_path / "cut.tif"
    wide = np.random.default_rng(0).random((400, 600))
    write_raster(cut, wide, left, top, 1.5, "EPSG:32618")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(UrbanError, match="is the file whole"):
        read(cut, places)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_the_surface_temperature_of_new_york() -> None:
    """By the areas of the projected pixels in each tile, cut with shapely."""
    import rasterio

    city = find_city("new-york", box=(-74.014, 40.736, -73.963, 40.759))
    places = tiles_of(city.area, Grid(city.epsg))
    path = DATA / "nyc/landsat_lst.tif"
    value, share, facts = read(path, places)
    with rasterio.open(path) as file:
        pixels, affine = file.read(1), file.transform
    rows, columns = (index.ravel() for index in np.indices(pixels.shape))
    squares = shapely.box(*(affine * (columns, rows + 1)), *(affine * (columns + 1, rows)))
    near = shapely.STRtree(squares).query(shapely.box(-74.02, 40.73, -73.95, 40.77))
    footprints = places.grid.project_geometry(squares[near])
    tree = shapely.STRtree(footprints)
    for index, tile in enumerate(places.boxes()):
        held = tree.query(tile, predicate="intersects")
        areas = shapely.area(shapely.intersection(footprints[held], tile))
        assert share[index] == pytest.approx(areas.sum() / 300**2, abs=2e-3)
        if share[index] >= 0.5:
            mean = (areas * pixels.ravel()[near[held]]).sum() / areas.sum()
            assert value[index] == pytest.approx(mean, abs=0.01)
    full = share == 1
    assert 30 < full.sum() < len(places)
    assert facts["without_value"] == int((share < 0.5).sum()) == int(np.isnan(value).sum())
    # South of the raster's edge there is nothing, and the edge cuts one row of tiles.
    south = places.lonlat()[1] < 40.748
    assert (share[south] == 0).all()


def test_the_footprint_is_the_tile(tmp_path) -> None:
    places = city_tiles(32618)
    left, top = places.x.min() - 150, places.y.max() + 150
    path = write_raster(tmp_path / "r.tif", np.ones((4, 6)), left, top, 150, "EPSG:32618")
    table, _ = read_label(parse_label(f"n={path}"), places)
    shapes = places.grid.project_geometry(geometries(table))
    gap = shapely.area(shapely.symmetric_difference(shapes, places.boxes()))
    assert gap.max() < 1e-3
