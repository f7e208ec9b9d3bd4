"""What every source of imagery does: warp rasters onto the tiles' pixel grid, cut blocks into rows.

A block's place in the zone does not depend on what was asked for, so its pixels are the same in
every fetch.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.city import split_antimeridian
from urbancli.grid import BLOCK_TILES, Block, Grid, Integers, Places
from urbancli.hilbert import hilbert_order
from urbancli.layers import PIXEL_SCHEMA, pack_valid
from urbancli.sources._stored import Box, StoredBlocks
from urbancli.workspace import geo_table

SATELLITE_WINDOW_M = 2560.0
"""The widest window a published encoder looks at (UrbanFusion's 256 px of 10 m): the halo."""

LARGEST_ARRAY = (1 << 31) - 1
"""Bytes that one Arrow array of binary values may hold."""

WHOLE_PIXELS = 1e-6
"""How far a raster may lie beside the tiles' pixel grid, pixels, and count as on it."""

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
    side = samples.shape[1] // BLOCK_TILES
    cells = block.tiles()
    cells = cells[[tuple(cell) in wanted for cell in cells.tolist()]]
    places = _places_in_block(block, cells)
    shares, bits = _validity(valid, places)
    cells, places = cells[shares > 0], places[shares > 0]
    if not len(cells):
        return PIXEL_SCHEMA.empty_table()
    boxes = grid.unproject_geometry(grid.tile_boxes(cells))
    order = hilbert_order(boxes)
    kept = np.flatnonzero(shares > 0)[order]
    ids = [grid.tile_id(column, row) for column, row in cells[order].tolist()]
    columns = {
        "place_id": pa.array(ids, pa.string()),
        "block": pa.array([block.block_id] * len(ids), pa.string()),
        "valid_fraction": pa.array(shares[kept]),
        "pixels": _cut(samples, places[order], side),
        "valid": pa.array([bits[tile] for tile in kept.tolist()], pa.binary()),
    }
    return geo_table(columns, boxes[order]).select(PIXEL_SCHEMA.names)


def _places_in_block(block: Block, cells: Integers) -> Integers:
    """Return (row from the north, column) in the block, in tiles, of cells (N, 2) of the zone."""
    column, row = (cells - np.array([block.column, block.row]) * BLOCK_TILES).T
    return np.column_stack([BLOCK_TILES - 1 - row, column])


def _validity(
    valid: npt.NDArray[np.bool_], places: Integers
) -> tuple[npt.NDArray[np.float64], list[bytes]]:
    """Return the valid share (N,) of tiles of a block, and the packed bits where it is between."""
    if valid.all():
        return np.ones(len(places)), [b""] * len(places)
    side = len(valid) // BLOCK_TILES
    tiles = valid.reshape(BLOCK_TILES, side, BLOCK_TILES, side).swapaxes(1, 2)
    packed = [pack_valid(tiles[row, column]) for row, column in places.tolist()]
    return np.array([share for share, _ in packed]), [bits for _, bits in packed]


def _cut(samples: npt.NDArray[Any], places: Integers, side: int) -> pa.ChunkedArray:
    """Return tiles of a block as binary values, copied once: C-order, little-endian.

    Args:
        samples: (bands, S, S) of the whole block.
        places: (N, 2) row and column of the tiles, in tiles.
        side: pixels along a tile.
    """
    bands = len(samples)
    tiles = samples.reshape(bands, BLOCK_TILES, side, BLOCK_TILES, side).transpose(1, 3, 0, 2, 4)
    tile_bytes = bands * side * side * samples.itemsize
    most = max(1, LARGEST_ARRAY // tile_bytes)
    arrays = []
    for start in range(0, len(places), most):
        row, column = places[start : start + most].T
        little = samples.dtype.newbyteorder("<")
        pixels = np.empty((len(row), bands, side, side), dtype=little)
        for tile, (south, east) in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
            pixels[tile] = tiles[south, east]
        offsets = np.arange(len(row) + 1, dtype=np.int64) * tile_bytes
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(pixels)]
        arrays.append(pa.Array.from_buffers(pa.binary(), len(row), buffers))
    return pa.chunked_array(arrays, pa.binary())


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


class OnGrid:
    """A raster that lies on a block's pixel grid, in place of a warp of it: the same pixels.

    Attributes:
        samples: (bands, S, S) of all its bands, zero (or no data) beyond the raster.
        valid: (S, S).
    """

    def __init__(self, samples: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
        self.samples = samples
        self.valid = valid

    def read(self, bands: int | Sequence[int]) -> npt.NDArray[Any]:
        """Return (S, S) of a band, or (bands, S, S) of several, numbered from 1."""
        if isinstance(bands, int):
            return np.asarray(self.samples[bands - 1])
        if list(bands) == list(range(1, len(self.samples) + 1)):
            return self.samples
        return np.asarray(self.samples[np.array(bands) - 1])


@contextlib.contextmanager
def warped(
    dataset: Any,
    block: Block,
    pixel_m: float,
    resampling: str = "bilinear",
    nodata: float | None = None,
    stored: StoredBlocks | None = None,
) -> Iterator[Any]:
    """Give a raster as it looks on a block's pixel grid; opened on one thread, used on that one.

    Args:
        dataset: an open raster, any CRS.
        block: the block.
        pixel_m: pixel size, metres, that divides a tile.
        resampling: name of rasterio's resampling.
        nodata: the value that means nothing, where the file itself does not say.
        stored: keeps what is decoded of a raster on that grid for the neighbouring blocks; local
            files only, by their names. What is read then lasts until this thread reads again.
    """
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin
    from rasterio.vrt import WarpedVRT

    as_it_is = _on_grid(dataset, block, pixel_m, nodata, stored)
    if as_it_is is not None:
        yield as_it_is
        return
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

    if isinstance(warp, OnGrid):
        return warp.valid
    if ColorInterp.alpha in warp.colorinterp:
        return np.asarray(warp.read(warp.colorinterp.index(ColorInterp.alpha) + 1) > 0)
    return np.asarray(warp.dataset_mask() > 0)


def _on_grid(
    dataset: Any, block: Block, pixel_m: float, nodata: float | None, stored: StoredBlocks | None
) -> OnGrid | None:
    """Return a block of a raster that needs no warp; None where one is needed.

    A warp leaves the integers of a raster on its grid as they are, unless a mask weighs them; of
    numbers with a fraction it may change the last digit.
    """
    known = _KNOWN.get(dataset)
    if known is None:
        known = _KNOWN.setdefault(dataset, _about(dataset))
    box = stored_box(known, block, pixel_m) if known.plain else None
    empty = known.nodata if nodata is None else nodata
    if box is None or not _fits(empty, known.dtype):
        return None
    inside = box.within(Box(0, 0, known.width, known.height))
    shape = box.shape(known.bands)
    stored = stored or StoredBlocks(0)
    if inside == box:
        samples, valid = stored.scratch(shape, known.dtype), np.ones(shape[1:], dtype=bool)
    else:
        samples = np.full(shape, int(empty or 0), dtype=known.dtype)
        valid = np.zeros(shape[1:], dtype=bool)
    if inside.right > inside.left and inside.bottom > inside.top:
        part = inside.part_of(box)
        stored.read(dataset.name, dataset, dataset.indexes, inside, samples[part])
        valid[part[1:]] = True
        zero_is_none = empty == 0 and known.dtype.kind == "u"
        if empty is not None and not (zero_is_none and samples[part].min() > 0):
            valid = (samples != int(empty)).any(axis=0)
    return OnGrid(samples, valid)


class About(NamedTuple):
    """What decides whether a raster can be read as it is stored; asked for once.

    Attributes:
        epsg: code of its CRS, None of one without.
        transform: (left, width of a pixel, top, height of a pixel) in its CRS, y downwards.
        width: in pixels.
        height: in pixels.
        bands: how many.
        dtype: of the first band.
        nodata: as the file says.
        plain: whether it is upright, of one type of integers of at most 16 bits, without a mask of
            its own or an alpha band.
    """

    epsg: int | None
    transform: tuple[float, float, float, float]
    width: int
    height: int
    bands: int
    dtype: np.dtype[Any]
    nodata: float | None
    plain: bool


_KNOWN: WeakKeyDictionary[Any, About] = WeakKeyDictionary()


def _about(dataset: Any) -> About:
    from rasterio.enums import MaskFlags

    t, dtype = dataset.transform, np.dtype(dataset.dtypes[0])
    flags = {flag for band in dataset.mask_flag_enums for flag in band}
    plain = (
        not (t.b or t.d or t.a <= 0 or t.e >= 0)
        and len(set(dataset.dtypes)) == 1
        and dtype.kind in "ui"
        and dtype.itemsize <= 2
        and not flags - {MaskFlags.all_valid, MaskFlags.nodata}
        and len(sample_bands(dataset)) == dataset.count
    )
    return About(
        dataset.crs.to_epsg(), (t.c, t.a, t.f, -t.e), dataset.width, dataset.height, dataset.count,
        dtype, dataset.nodata, plain,
    )  # fmt: skip


def _fits(nodata: float | None, dtype: np.dtype[Any]) -> bool:
    """Return whether integers of a type can hold the no-data value."""
    if nodata is None:
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= nodata <= limits.max and nodata == int(nodata))


def stored_box(about: About, block: Block, pixel_m: float) -> Box | None:
    """Return which pixels of a raster are a block's; None where it is not on the block's grid."""
    if about.epsg != block.epsg:
        return None
    left, _, _, top = block.bounds
    begin, wide, upper, high = about.transform
    side = round(block.tile_m / pixel_m) * BLOCK_TILES
    column, row = round((left - begin) / pixel_m), round((upper - top) / pixel_m)
    # Both ends of the raster: pixels of another size drift away from the grid.
    beside = (
        (begin - left) / pixel_m + column,
        (begin + wide * about.width - left) / pixel_m - (about.width - column),
        (top - upper) / pixel_m + row,
        (top - upper + high * about.height) / pixel_m - (about.height - row),
    )
    if max(map(abs, beside)) > WHOLE_PIXELS:
        return None
    return Box(column, row, column + side, row + side)
