"""Imagery from files: exact windows, any CRS, nodata, several files, and errors with a remedy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import from_bounds

from urbancli.city import City, box_area
from urbancli.errors import UrbanError, UsageError
from urbancli.fetching import fetch
from urbancli.grid import BLOCK_TILES, Grid, tiles_of
from urbancli.layers import CityLayers, PixelLayer, open_city, pixel_size
from urbancli.sources.imagery import Source, footprint
from urbancli.workspace import Workspace, read_table

GRID = Grid(32643)
# 20 × 18 tiles around the corner where four blocks meet.
CORNER = (2448 // BLOCK_TILES * BLOCK_TILES, 10552 // BLOCK_TILES * BLOCK_TILES)
LEFT, TOP = (CORNER[0] - 10) * 300, (CORNER[1] + 9) * 300
SHAPE = (18 * 30, 20 * 30)


def _write(path: Path, samples: Any, **profile: Any) -> Path:
    defaults = {
        "driver": "GTiff",
        "count": samples.shape[0],
        "height": samples.shape[1],
        "width": samples.shape[2],
        "dtype": samples.dtype.name,
        "crs": "EPSG:32643",
        "transform": from_origin(LEFT, TOP, 10, 10),
    }
    with rasterio.open(path, "w", **{**defaults, **profile}) as dataset:
        dataset.write(samples)
    return path


def _noise(bands: int = 2, shape: tuple[int, int] = SHAPE, dtype: str = "uint16") -> Any:
    generator = np.random.default_rng(7)
    return generator.integers(1, 200, (bands, *shape)).astype(dtype)


def _city() -> City:
    """The middle of the raster: its halo reaches the raster's own tiles, not beyond them."""
    lon, lat = GRID.unproject([LEFT + 1260, LEFT + 4740], [TOP - 4140, TOP - 1260])
    return City("test", box_area((lon[0], lat[0], lon[1], lat[1])), 32643, "bbox")


def _fetch(folder: Path, *paths: Path, layer: str = "sentinel2") -> PixelLayer:
    workspace = Workspace(folder / "workspace")
    source = Source(layer, paths)
    fetch(workspace, _city(), [source], [])
    return open_city(workspace, "test").pixels(layer)


def test_a_window_across_four_blocks_is_a_crop_of_the_source(tmp_path: Path) -> None:
    samples = _noise()
    layer = _fetch(tmp_path, _write(tmp_path / "a.tif", samples))
    x, y = CORNER[0] * 300, CORNER[1] * 300
    column, row = (x - LEFT) // 10, (TOP - y) // 10
    for size in (300, 600, 1500):
        half = size // 20
        window, valid = layer.window(x, y, size)
        crop = samples[:, row - half : row + half, column - half : column + half]
        np.testing.assert_array_equal(window, crop)
        assert valid.all()
    cells = {
        (c // 8, r // 8) for c in (CORNER[0] - 1, CORNER[0]) for r in (CORNER[1] - 1, CORNER[1])
    }
    assert len(cells) == 4


def test_a_window_at_any_place_is_a_crop_and_zero_beyond_the_file(tmp_path: Path) -> None:
    samples = _noise()
    layer = _fetch(tmp_path, _write(tmp_path / "a.tif", samples))
    padded = np.pad(samples, ((0, 0), (100, 100), (100, 100)))
    known = np.pad(np.ones(SHAPE, bool), 100)
    generator = np.random.default_rng(1)
    for _ in range(25):
        column, row = (
            generator.integers(150, SHAPE[1] - 150),
            generator.integers(150, SHAPE[0] - 150),
        )
        half = int(generator.integers(1, 128))
        window, valid = layer.window(LEFT + column * 10, TOP - row * 10, half * 20)
        part = (
            slice(row + 100 - half, row + 100 + half),
            slice(column + 100 - half, column + 100 + half),
        )
        np.testing.assert_array_equal(window, padded[(slice(None), *part)])
        np.testing.assert_array_equal(valid, known[part])


def test_a_warped_file_does_not_depend_on_the_blocks(tmp_path: Path) -> None:
    lon, lat = GRID.unproject([LEFT, LEFT + 6000], [TOP - 5400, TOP])
    step = 9e-5
    shape = (int((lat[1] - lat[0]) / step) + 8, int((lon[1] - lon[0]) / step) + 8)
    transform = from_origin(lon[0] - 4 * step, lat[1] + 4 * step, step, step)
    path = _write(
        tmp_path / "a.tif", _noise(3, shape), crs="EPSG:4326", transform=transform, nodata=0
    )
    layer = _fetch(tmp_path, path)
    x, y, half = CORNER[0] * 300, CORNER[1] * 300, 900
    column, row = lon[0] + (shape[1] // 2 - 4) * step, lat[1] - (shape[0] // 2 - 4) * step
    east, north = GRID.project([column, column + step, column], [row, row, row - step])
    xscale, yscale = (math.dist((east[0], north[0]), (east[i], north[i])) / 10 for i in (1, 2))
    window, _ = layer.window(x, y, 2 * half)
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(
            dataset,
            crs="EPSG:32643",
            transform=from_origin(LEFT, TOP, 10, 10),
            width=SHAPE[1],
            height=SHAPE[0],
            resampling=rasterio.enums.Resampling.bilinear,
            tolerance=1e-6,
            XSCALE=str(xscale),
            YSCALE=str(yscale),
        ) as whole,
    ):
        bounds = (x - half, y - half, x + half, y + half)
        np.testing.assert_array_equal(
            window, whole.read(window=from_bounds(*bounds, whole.transform))
        )


def test_nodata_and_edges_are_invalid_and_counted(tmp_path: Path) -> None:
    samples = _noise()
    samples[:, 200:260, 300:330] = 0
    samples[0, 10, 10] = 0  # one band only: still a valid pixel
    layer = _fetch(tmp_path, _write(tmp_path / "a.tif", samples, nodata=0))
    column, row = CORNER[0] * 30, -CORNER[1] * 30
    _, valid = layer.read(column - 300, row - 270, 600, 540)
    np.testing.assert_array_equal(valid, (samples != 0).any(axis=0))
    table, facts = read_table(tmp_path / "workspace/data/test/layers/sentinel2.parquet")
    shares = table.column("valid_fraction").to_numpy()
    assert ((shares > 0) & (shares <= 1)).all()
    assert facts["pixel_m"] == 10.0


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_what_a_file_without_nodata_does_not_reach_is_invalid(tmp_path: Path, bands: int) -> None:
    """Of naip too: its fourth band is near infrared, so that the mask becomes a fifth one."""
    samples = _noise(bands, (SHAPE[0], 300), "uint8")
    layer = "naip" if bands == 4 else "sentinel2"
    path = _write(tmp_path / "a.tif", samples)
    read, valid = _fetch(tmp_path, path, layer=layer).read(LEFT // 10, -TOP // 10, 600, SHAPE[0])
    known = np.arange(600) < 300
    np.testing.assert_array_equal(valid, np.broadcast_to(known, valid.shape))
    np.testing.assert_array_equal(read[:, :, :300], samples)
    assert not read[:, :, 300:].any()


def test_of_several_files_the_first_valid_wins(tmp_path: Path) -> None:
    first, second = _noise(), _noise()[:, ::-1] + 1000
    first[:, :, 250:] = 0
    paths = [
        _write(tmp_path / "a.tif", first, nodata=0),
        _write(tmp_path / "b.tif", np.ascontiguousarray(second), nodata=0),
    ]
    layer = _fetch(tmp_path, *paths)
    samples, valid = layer.read(LEFT // 10, -TOP // 10, SHAPE[1], SHAPE[0])
    expected = np.where((first == 0).all(axis=0), second, first)
    np.testing.assert_array_equal(samples, expected)
    assert valid.all()


def test_an_alpha_band_masks_and_is_no_band(tmp_path: Path) -> None:
    samples = _noise(4, dtype="uint8")
    samples[3] = 255
    samples[3, :300] = 0
    path = _write(tmp_path / "a.tif", samples, photometric="RGB", alpha="yes")
    layer = _fetch(tmp_path, path)
    read, valid = layer.read(LEFT // 10, -TOP // 10, SHAPE[1], SHAPE[0])
    assert len(layer.bands) == 3
    np.testing.assert_array_equal(valid, samples[3] > 0)
    np.testing.assert_array_equal(read[:, valid], samples[:3][:, valid])


def test_an_alpha_band_is_said(tmp_path: Path) -> None:
    samples = _noise(4, dtype="uint8")
    path = _write(tmp_path / "a.tif", samples, photometric="RGB", alpha="yes")
    _fetch(tmp_path, path)
    facts = read_table(tmp_path / "workspace/data/test/layers/sentinel2.parquet")[1]
    assert facts["mask_band"] == 4


def test_the_fourth_band_of_naip_is_near_infrared(tmp_path: Path) -> None:
    samples = _noise(4, dtype="uint8")
    samples[3, :300] = 0
    path = _write(tmp_path / "a.tif", samples, photometric="RGB", alpha="yes")
    layer = _fetch(tmp_path, path, layer="naip")
    read, valid = layer.read(LEFT // 10, -TOP // 10, SHAPE[1], SHAPE[0])
    np.testing.assert_array_equal(read, samples)
    assert valid.all() and len(layer.bands) == 4
    facts = read_table(tmp_path / "workspace/data/test/layers/naip.parquet")[1]
    assert facts["mask_band"] is None


def test_bands_that_came_as_files_are_refused(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"B0{n}.tif", _noise(1)) for n in (2, 3)]
    with pytest.raises(UrbanError, match=r"B03\.tif covers the same box.*gdalbuildvrt -separate"):
        Source("sentinel2", paths).plan(tiles_of(_city().area, GRID))
    aside = _write(tmp_path / "c.tif", _noise(1), transform=from_origin(LEFT + 600, TOP, 10, 10))
    Source("sentinel2", [paths[0], aside]).plan(tiles_of(_city().area, GRID))


def test_files_under_earlier_ones_are_named(tmp_path: Path) -> None:
    small = _noise(2, (90, 90))
    paths = [_write(tmp_path / "a.tif", _noise()), _write(tmp_path / "b.tif", small)]
    for order, hidden in ((paths, ["b.tif"]), (paths[::-1], [])):
        source = Source("sentinel2", order)
        source.plan(tiles_of(_city().area, GRID))
        assert source.facts(source.schema.empty_table())["hidden_inputs"] == hidden


def test_a_coarse_file_keeps_its_own_resolution(tmp_path: Path) -> None:
    coarse = _noise(1, (54, 60))
    path = _write(tmp_path / "a.tif", coarse, transform=from_origin(LEFT, TOP, 100, 100))
    assert _fetch(tmp_path, path).pixel_m == 100.0
    assert pixel_size("sentinel2", 9.37, 300) == 10.0
    assert pixel_size("naip", 0.6, 300) == 0.6
    assert pixel_size("naip", 5.0, 300) == 5.0


def test_the_southern_hemisphere(tmp_path: Path) -> None:
    samples = _noise(1, (120, 120))
    left, top = 333_000, 6_249_000
    path = _write(
        tmp_path / "a.tif", samples, crs="EPSG:32756", transform=from_origin(left, top, 10, 10)
    )
    grid = Grid(32756)
    lon, lat = grid.unproject([left + 301, left + 899], [top - 899, top - 301])
    city = City("sydney", box_area((lon[0], lat[0], lon[1], lat[1])), 32756, "bbox")
    workspace = Workspace(tmp_path / "w")
    fetch(workspace, city, [Source("sentinel2", [path])], [])
    layer = CityLayers(workspace, "sydney", grid).pixels("sentinel2")
    window, valid = layer.window(left + 600, top - 600, 800)
    np.testing.assert_array_equal(window, samples[:, 20:100, 20:100])
    assert valid.all()


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    good = _write(tmp_path / "good.tif", _noise())
    other = _write(tmp_path / "other.tif", _noise(3))
    far = _write(tmp_path / "far.tif", _noise(), transform=from_origin(LEFT + 1e5, TOP, 10, 10))
    bare = _write(tmp_path / "bare.tif", _noise(), crs=None)
    (tmp_path / "text.tif").write_text("no raster")
    places = tiles_of(_city().area, GRID)
    for paths, message in [
        ([good, other], "same bands"),
        ([far], "misses the city"),
        ([bare], "no CRS"),
        ([tmp_path / "text.tif"], "cannot open"),
        ([tmp_path / "absent.tif"], "no file"),
    ]:
        with pytest.raises(UrbanError, match=message) as error:
            Source("sentinel2", paths).plan(places)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="did you mean sentinel2"):
        Source("sentinel-2", [good])


def test_a_footprint_is_the_box_of_the_files(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", _noise())
    corners = GRID.unproject(
        [LEFT, LEFT + 6000, LEFT, LEFT + 6000], [TOP - 5400, TOP - 5400, TOP, TOP]
    )
    west, south, east, north = footprint([path]).bounds
    assert (west, east) == pytest.approx((corners[0].min(), corners[0].max()), abs=1e-6)
    assert (south, north) == pytest.approx((corners[1].min(), corners[1].max()), abs=1e-6)
