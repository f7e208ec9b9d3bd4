"""What every source of imagery does: warp rasters onto the tiles' pixel grid, cut blocks into rows.

A block's place in the zone does not depend on what was asked for, so its pixels are the same in
every fetch.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.city import split_antimeridian
from urbancli.grid import BLOCK_TILES, Block, Grid, Integers, Places
from urbancli.layers import PIXEL_SCHEMA, pack_valid
from urbancli.workspace import geo_table, hilbert_order

SATELLITE_WINDOW_M = 2560.0
"""The widest window a published encoder looks at (UrbanFusion's 256 px of 10 m): the halo."""

Part = tuple[slice, slice]
"""Rows and columns of a block's samples that are one tile."""


# --- tiles of a block --------------------------------------------------------------------------


def halo_cells(places: Places) -> Integers:
    """Return (column, row) of a city's tiles and of the halo around them, sorted, shape (N, 2)."""
    beyond = max(0.0, (SATELLITE_WINDOW_M - places.grid.tile_m) / 2)
    return places.grid.halo(places.cells, beyond)


def tile_parts(
    block: Block, wanted: set[tuple[int, int]], side: int
) -> list[tuple[int, int, Part]]:
    """Return (column, row, where its pixels lie in the block) of the wanted tiles of a block.

    Args:
        block: the block.
        wanted: (column, row) of the tiles wanted of the zone.
        side: pixels along a tile.
    """
    parts = []
    for column, row in block.tiles().tolist():
        if (column, row) in wanted:
            left = (column - block.column * BLOCK_TILES) * side
            top = (BLOCK_TILES - 1 - (row - block.row * BLOCK_TILES)) * side
            parts.append((column, row, (slice(top, top + side), slice(left, left + side))))
    return parts


def tile_rows(
    block: Block,
    samples: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    wanted: set[tuple[int, int]],
) -> pa.Table:
    """Return one row per wanted tile of a block that has any valid pixel, in Hilbert order.

    Args:
        block: the block.
        samples: (bands, S, S) of the whole block, first row north.
        valid: (S, S).
        wanted: (column, row) of the tiles wanted of the zone.
    """
    grid = Grid(block.epsg, block.tile_m)
    cells, rows = [], []
    for column, row, part in tile_parts(block, wanted, samples.shape[1] // BLOCK_TILES):
        share, bits = pack_valid(valid[part])
        if share > 0:
            tile = np.ascontiguousarray(samples[(slice(None), *part)])
            little = tile.astype(tile.dtype.newbyteorder("<"), copy=False)
            cells.append((column, row))
            rows.append((grid.tile_id(column, row), share, little.tobytes(), bits))
    if not rows:
        return PIXEL_SCHEMA.empty_table()
    boxes = grid.unproject_geometry(grid.tile_boxes(np.array(cells)))
    ids, shares, pixels, bits_of = zip(*rows, strict=True)
    columns = {
        "place_id": pa.array(ids, pa.string()),
        "block": pa.array([block.block_id] * len(rows), pa.string()),
        "valid_fraction": pa.array(shares),
        "pixels": pa.array(pixels, pa.binary()),
        "valid": pa.array(bits_of, pa.binary()),
    }
    table = geo_table(columns, boxes).select(PIXEL_SCHEMA.names)
    return table.take(pa.array(hilbert_order(boxes)))


# --- rasters -----------------------------------------------------------------------------------


def sample_bands(dataset: Any) -> list[int]:
    """Return the numbers (from 1) of the bands that hold samples: all but alpha."""
    from rasterio.enums import ColorInterp

    return [n for n, kind in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if kind != ColorInterp.alpha]  # fmt: skip


def with_near_infrared(dataset: Any) -> Any:
    """Return a raster of NAIP whose fourth band is a sample, near infrared.

    Its files say that it is alpha. Where they do, the raster given is closed.
    """
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.io import MemoryFile
    from rasterio.shutil import copy

    if dataset.count != 4 or dataset.colorinterp[3] != ColorInterp.alpha:
        return dataset
    with dataset, MemoryFile(ext=".vrt") as memory:
        copy(dataset, memory.name, driver="VRT")
        document = memory.read().decode()
    return rasterio.open(document.replace("<ColorInterp>Alpha<", "<ColorInterp>Undefined<"))


def bounds_lonlat(dataset: Any) -> BaseGeometry:
    """Return the outline of a raster in EPSG:4326, lon lat, cut at the antimeridian."""
    from pyproj import Transformer

    outline = shapely.segmentize(
        shapely.box(*dataset.bounds), max(dataset.width * dataset.res[0] / 32, 1e-9)
    )
    transformer = Transformer.from_crs(dataset.crs, 4326, always_xy=True)
    lonlat = shapely.transform(
        outline, lambda p: np.column_stack(transformer.transform(p[:, 0], p[:, 1]))
    )
    return split_antimeridian(lonlat)


def pixel_sides_m(dataset: Any, epsg: int) -> tuple[float, float]:
    """Return width and height, metres in a UTM zone, of the dataset's central pixel."""
    from pyproj import Transformer

    t = dataset.transform
    column, row = dataset.width // 2, dataset.height // 2
    x, y = t.c + t.a * column + t.b * row, t.f + t.d * column + t.e * row
    transformer = Transformer.from_crs(dataset.crs, epsg, always_xy=True)
    corner = transformer.transform(x, y)
    right = transformer.transform(x + t.a, y + t.d)
    below = transformer.transform(x + t.b, y + t.e)
    return math.dist(corner, right), math.dist(corner, below)


@contextlib.contextmanager
def warped(
    dataset: Any,
    block: Block,
    pixel_m: float,
    resampling: str = "bilinear",
    nodata: float | None = None,
) -> Iterator[Any]:
    """Give a raster as it looks on a block's pixel grid; opened on one thread, used on that one.

    Args:
        dataset: an open raster, any CRS.
        block: the block.
        pixel_m: pixel size, metres, that divides a tile.
        resampling: name of rasterio's resampling.
        nodata: the value that means nothing, where the file itself does not say.
    """
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin
    from rasterio.vrt import WarpedVRT

    left, _, _, top = block.bounds
    side = round(block.tile_m / pixel_m) * BLOCK_TILES
    width_m, height_m = pixel_sides_m(dataset, block.epsg)
    known = {} if nodata is None else {"src_nodata": nodata, "nodata": nodata}
    has_alpha = len(sample_bands(dataset)) < dataset.count
    with WarpedVRT(
        dataset,
        crs=f"EPSG:{block.epsg}",
        transform=from_origin(left, top, pixel_m, pixel_m),
        width=side,
        height=side,
        resampling=Resampling[resampling],
        # Pixels of error of the transform; 0 itself makes rasterio 1.4 build no transformer.
        tolerance=1e-6,
        # GDAL would estimate these per block from its corners, and seams would show.
        XSCALE=str(width_m / pixel_m),
        YSCALE=str(height_m / pixel_m),
        # Without nodata or a mask of its own, what lies outside the file must not read as zeros.
        add_alpha=nodata is None and dataset.nodata is None and not has_alpha,
        **known,
    ) as warp:
        yield warp


def valid_pixels(warp: Any) -> npt.NDArray[np.bool_]:
    """Return where (S, S) a warped raster is valid.

    GDAL takes an alpha band for the mask only as the second or fourth band; here any is.
    """
    from rasterio.enums import ColorInterp

    if ColorInterp.alpha in warp.colorinterp:
        return np.asarray(warp.read(warp.colorinterp.index(ColorInterp.alpha) + 1) > 0)
    return np.asarray(warp.dataset_mask() > 0)
