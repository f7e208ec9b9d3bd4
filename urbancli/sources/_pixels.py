"""What every source of imagery does: bring rasters onto the pixel grid of the tiles.

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
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.city import split_antimeridian
from urbancli.grid import BLOCK_TILES, Block
from urbancli.sources._stored import Box, Scratch, StoredBlocks

WHOLE_PIXELS = 1e-6
"""How far a raster may lie beside the tiles' pixel grid, pixels, and count as on it."""


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
        zero: whether what is not valid is zero in all bands.
    """

    def __init__(
        self, samples: npt.NDArray[Any], valid: npt.NDArray[np.bool_], empty: float | None
    ) -> None:
        self.samples = samples
        self.valid = valid
        self.zero = not empty

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
    scratch: Scratch | None = None,
) -> Iterator[Any]:
    """Give a raster as it looks on a block's pixel grid; opened on one thread, used on that one.

    Args:
        dataset: an open raster, any CRS.
        block: the block.
        pixel_m: pixel size, metres, that divides a tile.
        resampling: name of rasterio's resampling.
        nodata: the value that means nothing, where the file itself does not say.
        stored: keeps what is decoded of a raster on that grid for the neighbouring blocks, by the
            raster's name.
        scratch: where what is read of a raster on that grid may lie: until this thread reads again.
    """
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin
    from rasterio.vrt import WarpedVRT

    as_it_is = _on_grid(dataset, block, pixel_m, nodata, (stored, scratch))
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
    dataset: Any,
    block: Block,
    pixel_m: float,
    nodata: float | None,
    kept: tuple[StoredBlocks | None, Scratch | None],
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
    if inside.right <= inside.left or inside.bottom <= inside.top:
        nothing = np.broadcast_to(known.dtype.type(empty or 0), shape)
        return OnGrid(nothing, np.broadcast_to(False, shape[1:]), empty)
    stored, scratch = kept[0] or StoredBlocks(0), kept[1] or Scratch()
    samples, part = scratch.array("samples", shape, known.dtype), inside.part_of(box)
    valid = scratch.array("valid", shape[1:], bool)
    stored.read(dataset.name, dataset, dataset.indexes, inside, samples[part])
    valid[part[1:]] = True
    for beside in _beside(part[1:]):
        samples[:, *beside] = int(empty or 0)
        valid[beside] = False
    zero_is_none = empty == 0 and known.dtype.kind == "u"
    if empty is not None and not (zero_is_none and samples[part].min() > 0):
        valid = (samples != int(empty)).any(axis=0)
    return OnGrid(samples, valid, empty)


def _beside(part: tuple[slice, slice]) -> list[tuple[slice, slice]]:
    """Return what of an array's rows and columns lies above, below, left and right of a part."""
    rows, columns = part
    return [
        (slice(0, rows.start), slice(None)),
        (slice(rows.stop, None), slice(None)),
        (rows, slice(0, columns.start)),
        (rows, slice(columns.stop, None)),
    ]


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
