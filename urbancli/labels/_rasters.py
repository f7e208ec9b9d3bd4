"""A raster as a label: the mean of its valid pixels over every tile."""

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from urbancli.errors import UrbanError, UsageError
from urbancli.grid import BLOCK_TILES, Block, Floats, Grid, Places

FEWEST, MOST = 10, 60
"""Samples along a tile's side, fewest and most; finer pixels are averaged into them by area."""


def is_raster(path: Path) -> bool:
    """Return whether GDAL opens a file as a raster with bands."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as dataset:
                return bool(dataset.count)
        except RasterioIOError:
            return False


def tile_means(path: Path, column: str | None, places: Places) -> tuple[str, Floats, Floats]:
    """Return the band, the mean of its valid pixels per tile (N,), and their share of the tile.

    Value × validity and validity alone are brought to samples aligned to the tiles by GDAL's
    `average`, which weighs by area; the mean is the ratio of their sums over the tile, NaN where
    nothing is valid.

    Args:
        path: any raster GDAL opens, with nodata, mask, alpha or NaN where it is invalid.
        column: number or description of the band, default 1.
        places: tiles.

    Raises:
        UsageError: there is no such band, or it holds classes by their colour table.
        UrbanError: the raster has no CRS or cannot be read.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = stack.enter_context(rasterio.open(path))
        band = _check_band(dataset, column, path)
        side = _samples_per_side(dataset, places)
        row_of = {(int(c), int(r)): row for row, (c, r) in enumerate(places.cells)}
        mean, share = np.full(len(places), np.nan), np.zeros(len(places))
        try:
            for block in places.grid.blocks(places.cells):
                sums, valid = _block_samples(dataset, band, block, side)
                for column_, row_ in block.tiles().tolist():
                    if (row := row_of.get((column_, row_))) is not None:
                        tile = _tile(column_, row_, block, side)
                        share[row] = valid[tile].mean().round(9)  # beyond is rounding
                        if share[row]:
                            mean[row] = sums[tile].sum() / valid[tile].sum()
        except RasterioError as err:
            raise UrbanError(f"cannot read {path}: {err}; is the file whole?") from err
    return str(band), mean, share


def _check_band(dataset: Any, column: str | None, path: Path) -> int:
    if dataset.crs is None:
        raise UrbanError(f"{path} has no CRS: write it with one, e.g. gdal_edit.py -a_srs")
    named = {text: band for band, text in enumerate(dataset.descriptions, start=1) if text}
    bands = f"1 to {dataset.count}" if dataset.count > 1 else "1"
    if column in named:
        column = str(named[column])
    if column is not None and not (column.isdecimal() and 1 <= int(column) <= dataset.count):
        known = f"a number, {bands}" + (f", or one of {', '.join(named)}" if named else "")
        raise UsageError(f"'{column}' is no band of {path}: a raster's COLUMN is {known}")
    band = int(column or 1)
    if dataset.dtypes[band - 1].startswith("complex"):
        raise UsageError(f"band {band} of {path} holds complex numbers: give a real one")
    if dataset.colorinterp[band - 1].name == "palette":
        raise UsageError(
            f"band {band} of {path} holds classes (it has a colour table), which have no mean: "
            "give their shares or names in a vector file"
        )
    return band


def _samples_per_side(dataset: Any, places: Places) -> int:
    """Return how many samples along a tile's side suit the pixels: aligned ones are met exactly."""
    grid = places.grid
    x, y = float(np.median(places.x)), float(np.median(places.y))
    columns, rows = _indices(
        dataset, grid, np.array([x, x + grid.tile_m, x]), np.array([y, y, y + grid.tile_m])
    )
    steps = np.hypot(columns[1:] - columns[0], rows[1:] - rows[0])
    across = max(1, round(float(steps.max()))) if np.isfinite(steps).all() else 1
    return min(across * -(-FEWEST // across), MOST)


def _indices(dataset: Any, grid: Grid, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return fractional (column, row) of a raster for points in the grid's CRS, metres."""
    from rasterio.warp import transform

    across, along = transform(f"EPSG:{grid.epsg}", dataset.crs, x.tolist(), y.tolist())
    columns, rows = ~dataset.transform * (np.array(across), np.array(along))
    return np.asarray(columns), np.asarray(rows)


def _block_samples(dataset: Any, band: int, block: Block, side: int) -> tuple[Floats, Floats]:
    """Return value × validity and validity of the samples of a block, first row north."""
    from rasterio.enums import Resampling
    from rasterio.io import MemoryFile
    from rasterio.transform import from_bounds
    from rasterio.vrt import WarpedVRT

    size = BLOCK_TILES * side
    pixels, transform = _block_pixels(dataset, band, block)
    valid = np.isfinite(pixels)
    if not valid.any():
        return np.zeros((size, size)), np.zeros((size, size))
    bands = np.stack([np.where(valid, pixels, 0.0), valid])
    like = {"driver": "GTiff", "dtype": "float64", "crs": dataset.crs, "transform": transform}
    height, width = pixels.shape
    with ExitStack() as stack:
        memory = stack.enter_context(MemoryFile())
        with memory.open(count=2, height=height, width=width, **like) as file:
            file.write(bands)
        warped = stack.enter_context(
            WarpedVRT(
                stack.enter_context(memory.open()),
                crs=f"EPSG:{block.epsg}",
                transform=from_bounds(*block.bounds, size, size),
                width=size,
                height=size,
                resampling=Resampling.average,
                # Pixels of error of the transform. A thousandth of this moves a mean by less than
                # 0.2 % of the spread within a tile, and takes three times as long.
                tolerance=0.01,
            )
        )
        sums, share = warped.read()
    return sums, share


def _block_pixels(dataset: Any, band: int, block: Block) -> tuple[Floats, Any]:
    """Return the pixels under a block, NaN where invalid or off the raster, and their transform."""
    from rasterio.windows import Window
    from rasterio.windows import transform as window_transform

    left, bottom, right, top = block.bounds
    steps = np.linspace(0, 1, 2 * BLOCK_TILES + 1)
    x, y = np.meshgrid(left + steps * (right - left), bottom + steps * (top - bottom))
    columns, rows = _indices(dataset, Grid(block.epsg, block.tile_m), x.ravel(), y.ravel())
    if not (np.isfinite(columns).all() and np.isfinite(rows).all()):
        return np.full((1, 1), np.nan), None
    whole = (dataset.width, dataset.height)
    low = (np.floor([columns.min(), rows.min()]) - 2).astype(int)
    high = (np.ceil([columns.max(), rows.max()]) + 2).astype(int)
    first, last = np.clip(low, 0, whole), np.clip(high, 0, whole)
    if (last <= first).any():
        return np.full((1, 1), np.nan), None
    window = Window(first[0], first[1], last[0] - first[0], last[1] - first[1])
    inside = dataset.read(band, window=window, masked=True).astype(np.float64).filled(np.nan)
    # Pixels off the raster are invalid ones: without them a sample on its edge would seem full.
    pixels = np.pad(
        inside,
        [(first[axis] - low[axis], high[axis] - last[axis]) for axis in (1, 0)],
        constant_values=np.nan,
    )
    return pixels, window_transform(Window(low[0], low[1], 1, 1), dataset.transform)


def _tile(column: int, row: int, block: Block, side: int) -> tuple[slice, slice]:
    left = (column - block.column * BLOCK_TILES) * side
    top = (BLOCK_TILES - 1 - (row - block.row * BLOCK_TILES)) * side
    return slice(top, top + side), slice(left, left + side)
