"""Embeddings as pixels: the area-weighted mean over each unit, read window by window.

A unit's outline is brought to the raster's own pixels, whose values stay as they are: nothing is
resampled. A pixel counts where all its bands are valid. Pixels of one unit weigh alike by the
share that lies in it; where their size on the ground changes across a unit (in degrees: by 0.5 %
over 20 km at 60° N), that is not followed.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.bench.external._pixels import covered
from urbancli.errors import UrbanError
from urbancli.grid import Floats
from urbancli.workspace import Geometries

WINDOW_BYTES = 1 << 26
"""What is read at a time, all bands together."""

CACHE_BYTES = 256 << 20
"""Of GDAL's own cache: the blocks of a window, whose bands may be stored together."""

SEGMENT_M = 500.0
"""Longest straight piece of an outline, metres: one as long bends by less than 1 cm in degrees."""


@dataclass(frozen=True)
class Raster:
    """A raster of embeddings.

    Attributes:
        path: any GeoTIFF or VRT.
        bands: numbers of the D bands that are the embedding.
        alpha: number of the band that is 0 where a pixel is invalid; None without.
        scale: (D,) of the file's metadata: value = stored · scale + offset.
        offset: (D,).
        pixels: how many there are.
        files: all that it consists of.
        licence: as its tag says; None without.
        notes: what a reader must know.
    """

    path: Path
    bands: tuple[int, ...]
    alpha: int | None
    scale: Floats
    offset: Floats
    pixels: int
    files: tuple[Path, ...]
    licence: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class UnitMeans:
    """What a raster says of U units.

    Attributes:
        values: (U, D) float32, NaN where no valid pixel lies in the unit.
        share: (U,) of the unit's area that valid pixels cover, 0 to 1; 1 for points.
        used: how many pixels count for any unit.
        partial: how many pixels under the units lack some of their bands.
    """

    values: npt.NDArray[np.float32]
    share: Floats
    used: int
    partial: int


def open_raster(path: Path) -> Raster:
    """Return what a raster says about itself.

    Raises:
        UrbanError: it cannot be read, has no CRS, or its bands are no numbers of an embedding.
    """
    with _opened(path) as dataset:
        if dataset.crs is None:
            raise UrbanError(f"{path} has no CRS: write it with one, e.g. gdal_edit.py -a_srs")
        kinds = [kind.name for kind in dataset.colorinterp]
        if "palette" in kinds or any(name.startswith("complex") for name in dataset.dtypes):
            raise UrbanError(
                f"{path} holds classes or complex numbers: give bands that are numbers"
            )
        bands = tuple(b for b, kind in enumerate(kinds, start=1) if kind != "alpha")
        if not bands:
            raise UrbanError(f"{path} has no bands: give a raster of one band per dimension")
        scale, offset = (
            np.array(all_of, dtype=np.float64)[np.array(bands) - 1]
            for all_of in (dataset.scales, dataset.offsets)
        )
        alpha = kinds.index("alpha") + 1 if "alpha" in kinds else None
        notes = [f"band {alpha} is alpha, and no part of the embedding"] if alpha else []
        if "int8" in dataset.dtypes and (scale == 1).all():
            notes.append(
                "its int8 values are taken as they stand; AlphaEarth's own files hold sign(v)·(|v| "
                "/ 127.5)², which the mean of codes is not: de-quantise them first"
            )
        return Raster(
            path, bands, alpha, scale, offset, dataset.width * dataset.height,
            tuple(Path(name) for name in dataset.files), dataset.tags().get("TIFFTAG_COPYRIGHT"),
            tuple(notes),
        )  # fmt: skip


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield an open dataset; what GDAL cannot read is told."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(path) as dataset:
                yield dataset
        except RasterioError as err:
            raise UrbanError(f"cannot read {path}: {err}; is the file whole?") from err


# --- means of units --------------------------------------------------------------------------


def unit_means(raster: Raster, shapes: Geometries, epsg: int) -> UnitMeans:
    """Return the means of the valid pixels of each unit, weighted by area.

    A point takes the pixel that holds it; on a border the one right of it or below. Each window
    of the file is read once, and only where units lie.

    Args:
        raster: from `open_raster`.
        shapes: (U,) polygons or points.
        epsg: of their CRS, metres.

    Raises:
        UrbanError: a pixel under a unit is infinite, or the file breaks off.
    """
    with _opened(raster.path) as dataset:
        outlines = _in_pixels(dataset, shapes, epsg)
        sums = np.zeros((len(shapes), len(raster.bands)))
        weight = np.zeros(len(shapes))
        used = partial = 0
        for column, row, width, height, units in _windows(dataset, raster, outlines):
            values, valid, torn = _read(dataset, raster, column, row, width, height)
            touched = np.zeros(valid.shape, dtype=bool)
            for unit in units:
                place, share = _share(outlines[unit], column, row, valid.shape)
                touched[place] |= share > 0
                share = share * valid[place]
                if share.any():
                    pixels = values[(slice(None), *place)].reshape(len(raster.bands), -1)
                    sums[unit] += pixels.astype(np.float64) @ share.ravel()
                    weight[unit] += share.sum()
            used += int((touched & valid).sum())
            partial += int((touched & torn).sum())
    area = shapely.area(outlines)
    point = shapely.get_type_id(outlines) == 0
    share = np.minimum(weight / np.where(area > 0, area, 1.0), 1.0)
    share[point] = weight[point] > 0
    means = np.full(sums.shape, np.nan, dtype=np.float32)
    some = weight > 0
    means[some] = sums[some] / weight[some, None] * raster.scale + raster.offset
    return UnitMeans(means, share, used, partial)


def _in_pixels(dataset: Any, shapes: Geometries, epsg: int) -> Geometries:
    """Return shapes in units of the raster's pixels; empty where its CRS does not reach them."""
    from pyproj import CRS, Transformer

    crs = CRS.from_wkt(dataset.crs.to_wkt())
    transformer = Transformer.from_crs(epsg, crs, always_xy=True)
    into = ~dataset.transform

    def project(points: Floats) -> Floats:
        x, y = transformer.transform(points[:, 0], points[:, 1])
        return np.column_stack([
            into.a * x + into.b * y + into.c, into.d * x + into.e * y + into.f,
        ])  # fmt: skip

    outlines = np.asarray(
        shapely.transform(shapely.segmentize(shapes, SEGMENT_M), project), dtype=object
    )
    far = ~np.isfinite(shapely.bounds(outlines).reshape(-1, 4)).all(axis=1)
    outlines[far] = shapely.Point()
    return outlines


def _windows(
    dataset: Any, raster: Raster, outlines: Geometries
) -> Iterator[tuple[int, int, int, int, list[int]]]:
    """Yield (column, row, width, height, units in it) of each window that a unit reaches into."""
    across, along = _window_size(dataset, len(raster.bands))
    bounds = shapely.bounds(outlines).reshape(-1, 4)
    units_of: dict[tuple[int, int], list[int]] = {}
    for unit in np.flatnonzero(np.isfinite(bounds).all(axis=1)).tolist():
        left, top, right, bottom = np.floor(bounds[unit]).astype(np.int64).tolist()
        if right < 0 or bottom < 0 or left >= dataset.width or top >= dataset.height:
            continue
        first, last = max(left, 0) // across, min(right, dataset.width - 1) // across
        rows = range(max(top, 0) // along, min(bottom, dataset.height - 1) // along + 1)
        for row in rows:
            for column in range(first, last + 1):
                units_of.setdefault((row, column), []).append(unit)
    # Windows smaller than a block come one after the other, while the block is in GDAL's cache.
    high = dataset.block_shapes[0][0]
    for row, column in sorted(units_of, key=lambda one: (one[0] * along // high, one[1], one[0])):
        width = min(across, dataset.width - column * across)
        height = min(along, dataset.height - row * along)
        yield column * across, row * along, width, height, units_of[row, column]


def _window_size(dataset: Any, bands: int) -> tuple[int, int]:
    """Return width and height of a window: whole blocks of the file, as many as memory allows."""
    stored = np.dtype(dataset.dtypes[0]).itemsize
    budget = max(WINDOW_BYTES // (bands * (stored + 5)), 1)  # beside a mask, and float32
    high, wide = dataset.block_shapes[0]
    if high * wide > budget:
        wide = min(wide, budget)
        return wide, max(1, min(high, budget // wide))
    side = int(np.sqrt(budget / (high * wide)))
    wide *= min(side, -(-dataset.width // wide))
    return wide, high * max(1, budget // (high * wide))


def _read(
    dataset: Any, raster: Raster, column: int, row: int, width: int, height: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return a window's values (D, h, w), 0 where invalid; where all, and where only some, are."""
    from rasterio.windows import Window

    window = Window(column, row, width, height)
    stored = dataset.read(list(raster.bands), window=window, masked=True)
    gone = np.ma.getmaskarray(stored)
    if raster.alpha is not None:  # GDAL heeds it in integers only
        gone |= dataset.read(raster.alpha, window=window) == 0
    with np.errstate(over="ignore"):
        values = stored.data.astype(np.float32)
    if stored.dtype.kind == "f":
        endless = (np.isinf(values) & ~gone).any(axis=0)
        if endless.any():
            down, along = np.argwhere(endless)[0].tolist()
            raise UrbanError(
                f"{raster.path} has infinite values (first at column {column + along}, row "
                f"{row + down}): write them as nodata"
            )
        gone |= np.isnan(values)
    valid = np.asarray(~gone.any(axis=0))
    torn = np.asarray(~valid & ~gone.all(axis=0))
    values[:, ~valid] = 0.0
    return values, valid, torn


def _share(
    outline: shapely.Geometry, column: int, row: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], Floats]:
    """Return the part of a window under a unit, and the share of each of its pixels in it."""
    left, top, right, bottom = (int(one) for one in np.floor(shapely.bounds(outline)))
    first = np.maximum([top - row, left - column], 0)
    last = np.minimum([bottom - row + 1, right - column + 1], shape[:2])
    rows, columns = slice(first[0], last[0]), slice(first[1], last[1])
    size = (int(last[0] - first[0]), int(last[1] - first[1]))
    if shapely.get_type_id(outline) == 0:
        return (rows, columns), np.ones(size)
    return (rows, columns), covered(outline, column + int(first[1]), row + int(first[0]), size)
