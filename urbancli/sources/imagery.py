"""Imagery from raster files that GDAL opens: any CRS, bands, nodata, several files as one mosaic.

Files are warped onto one pixel grid that is aligned to the tiles, block by block. A block's place
in the zone does not depend on what was asked for, so its pixels are the same in every fetch.
"""

import contextlib
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.errors import UrbanError, unknown
from urbancli.grid import Block, Grid, Places
from urbancli.layers import NOMINAL_PIXEL_M, PIXEL_SCHEMA, pixel_size
from urbancli.sources import base
from urbancli.sources._pixels import (
    OnGrid,
    bounds_lonlat,
    pixel_sides_m,
    sample_bands,
    valid_pixels,
    warped,
    with_near_infrared,
)
from urbancli.sources._stored import Scratch, StoredBlocks
from urbancli.sources._tiles import SATELLITE_WINDOW_M, WantedTiles, halo_cells

GDAL_CACHE_BYTES = 128 << 20
"""Of GDAL's own cache, which would grow to a twentieth of the machine's memory."""

OPEN_MOST = 256
"""Files kept open by a thread; the one used longest ago is closed first."""

EDGE_DEGREES = 0.02
"""How far beside its true edge the outline of a file may run."""


class Source(base.Source):
    """Local raster files as one imagery layer.

    Where several files cover a pixel the first valid one wins. An alpha band is the mask, but of
    NAIP's R, G, B, NIR all are samples, whatever the fourth is tagged. Bilinear resampling; a file
    whose grid is already the tiles' grid comes through unchanged.
    """

    schema = PIXEL_SCHEMA
    streamed = True
    apart = True
    licence = "user-supplied"
    attribution = ""

    def __init__(self, layer: str, paths: Sequence[Path]) -> None:
        if layer not in NOMINAL_PIXEL_M:
            raise unknown("imagery layer", layer, NOMINAL_PIXEL_M)
        self.layer = layer
        self.paths = list(paths)
        self._bands: list[str] = []
        self._dtype = np.dtype("uint8")
        self._pixel_m = 0.0
        self._native_m = 0.0
        self._boxes: list[BaseGeometry] = []
        self._mask_band: int | None = None
        self._hidden: list[str] = []
        self._open_anew()

    def plan(self, places: Places) -> dict[str, Any]:
        """Open the files, check that they agree, and choose the pixel size."""
        inputs = [base.pin(path) for path in self.paths]
        grid = base.places_grid(places)
        self._open_anew()
        with contextlib.ExitStack() as stack:
            datasets = [stack.enter_context(_open_layer(p, self.layer)) for p in self.paths]
            self._check_alike(datasets)
            self._native_m = min(
                math.sqrt(math.prod(pixel_sides_m(dataset, grid.epsg))) for dataset in datasets
            )
            self._boxes = [bounds_lonlat(dataset) for dataset in datasets]
        self._pixel_m = pixel_size(self.layer, self._native_m, grid.tile_m)
        self._check_mosaic(self._boxes)
        seen = shapely.union_all(self._boxes)
        if not shapely.intersects(grid.project_geometry(seen), places.boxes()).any():
            west, south, east, north = seen.bounds
            raise UrbanError(
                f"{self.paths[0].name} covers {west:.4f},{south:.4f},{east:.4f},{north:.4f} and "
                "misses the city: check the file, --city or --bbox"
            )
        return {
            "source": "imagery",
            "inputs": inputs,
            "pixel_m": self._pixel_m,
            "resampling": "bilinear",
            "halo_m": SATELLITE_WINDOW_M / 2,
            "version": 3,
        }

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles and of the halo around them."""
        self._tiles = WantedTiles(places.grid, halo_cells(places))
        return self._tiles.blocks

    def read(self, block: Block) -> pa.Table:
        """Return one row per tile of the block that has any valid pixel, in Hilbert order."""
        import rasterio

        ours = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": GDAL_CACHE_BYTES}
        with rasterio.Env(**ours):
            read = self._read_block(block)
        return PIXEL_SCHEMA.empty_table() if read is None else self._tiles.rows(block, *read)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return bands, dtype, pixel size, the band read as mask, and files under earlier ones."""
        return {
            "bands": self._bands,
            "dtype": self._dtype.name,
            "pixel_m": self._pixel_m,
            "native_m": round(self._native_m, 3),
            "mask_band": self._mask_band,
            "hidden_inputs": self._hidden,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to read blocks: nothing that is open."""
        return {k: v for k, v in vars(self).items() if k != "_here"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take that, and open the files anew when they are read."""
        vars(self).update(state)
        self._open_anew()

    def _open_anew(self) -> None:
        """Forget the open files, of which every thread has its own, and what was decoded."""
        self._here = threading.local()
        self._stored, self._scratch = StoredBlocks(), Scratch()

    def _check_mosaic(self, boxes: Sequence[BaseGeometry]) -> None:
        """Note files that lie wholly under earlier ones; refuse bands that came as files.

        Args:
            boxes: what each file covers, EPSG:4326.
        """
        self._hidden = []
        half_pixel = self._native_m / 2 / 111_000  # degrees; edges in other CRS are chords
        wider = shapely.buffer(boxes, half_pixel)
        for index, box in enumerate(boxes):
            same = shapely.covers(wider[index], boxes[:index]) & shapely.covers(wider[:index], box)
            if len(self._bands) == 1 and same.any():
                raise UrbanError(
                    f"{self.paths[index].name} covers the same box as an earlier file of one band: "
                    "several files are one mosaic; stack bands first, with `gdalbuildvrt "
                    "-separate stack.vrt FILES` or `rio stack`"
                )
            if index and shapely.union_all(wider[:index]).covers(box):
                self._hidden.append(self.paths[index].name)

    def _check_alike(self, datasets: Sequence[Any]) -> None:
        first = datasets[0]
        for path, dataset in zip(self.paths, datasets, strict=True):
            alike = sample_bands(dataset) == sample_bands(first) and dataset.dtypes == first.dtypes
            if not alike or len(set(dataset.dtypes)) > 1:
                raise UrbanError(
                    f"{path.name} has {len(sample_bands(dataset))} bands of {dataset.dtypes[0]}, "
                    f"{self.paths[0].name} {len(sample_bands(first))} of {first.dtypes[0]}: one "
                    "layer wants files with the same bands and type"
                )
        self._dtype = np.dtype(first.dtypes[0])
        if self._dtype.kind not in "uif":
            raise UrbanError(
                f"{self.paths[0].name} holds {self._dtype} samples: wants real numbers"
            )
        names = [first.descriptions[band - 1] or f"band{band}" for band in sample_bands(first)]
        self._bands = names
        self._mask_band = min(set(first.indexes) - set(sample_bands(first)), default=None)

    def _near(self, block: Block) -> list[int]:
        """Return the numbers of the files that may show something of a block."""
        if len(self.paths) == 1:
            return [0]
        grid = Grid(block.epsg, block.tile_m)
        area = grid.unproject_geometry(shapely.segmentize(shapely.box(*block.bounds), 1000.0))
        # The outlines are polygons of 32 points a side: of a file as wide as a continent no edge.
        wide = [box.bounds[2] - box.bounds[0] > 10 for box in self._boxes]
        near = shapely.dwithin(self._boxes, area, EDGE_DEGREES) | np.array(wide)
        return [int(number) for number in np.flatnonzero(near)]

    def _dataset(self, number: int) -> Any:
        """Return a file, opened once per thread: GDAL's handles must not cross threads."""
        opened = vars(self._here).setdefault("opened", {})
        if number not in opened:
            opened[number] = _open_layer(self.paths[number], self.layer)
        opened[number] = opened.pop(number)  # now the one used last
        while len(opened) > OPEN_MOST:
            opened.pop(next(iter(opened))).close()
        return opened[number]

    def _read_block(self, block: Block) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]] | None:
        """Return samples (bands, S, S), zero where nothing is known, and where (S, S) it is.

        None where no file shows anything. Arrays as large are not made before they are needed.
        """
        from rasterio.errors import RasterioError

        found: tuple[npt.NDArray[Any], npt.NDArray[np.bool_]] | None = None
        near = self._near(block)
        for number in near:
            dataset = self._dataset(number)
            try:
                with warped(
                    dataset, block, self._pixel_m, stored=self._stored, scratch=self._scratch
                ) as warp:
                    mask = valid_pixels(warp)
                    if found is not None:
                        mask = mask & ~found[1]
                    if not mask.any():
                        continue
                    read = warp.read(sample_bands(dataset))
                    if self._dtype.kind == "f":
                        mask &= np.isfinite(read).all(axis=0)
                    zero = isinstance(warp, OnGrid) and warp.zero
                    if mask.all() or (zero and len(near) == 1):
                        return read, mask
                    found = found or (np.zeros_like(read), np.zeros_like(mask))
                    np.copyto(found[0], read, where=mask)
                    found[1][:] |= mask
            except RasterioError as err:
                raise UrbanError(
                    f"GDAL cannot read {self.paths[number]}: the file is cut off or damaged; "
                    "bring it anew"
                ) from err
            if found is not None and found[1].all():
                break
        return found


def footprint(paths: Sequence[Path]) -> BaseGeometry:
    """Return the union of the boxes that raster files cover, EPSG:4326, lon lat.

    Raises:
        UrbanError: a file is missing, no raster, or has no CRS.
    """
    shapes = []
    for path in paths:
        with _open(path) as dataset:
            shapes.append(bounds_lonlat(dataset))
    return shapely.union_all(shapes)


def _open(path: Path) -> Any:
    import rasterio
    from rasterio.errors import RasterioIOError

    if not path.is_file():
        raise UrbanError(f"no file {path}: check the path")
    try:
        dataset = rasterio.open(path)
    except RasterioIOError as err:
        raise UrbanError(
            f"GDAL cannot open {path} as a raster: give a GeoTIFF or the like"
        ) from err
    if dataset.crs is None:
        dataset.close()
        raise UrbanError(f"{path} has no CRS: write one, e.g. `rio edit-info --crs EPSG:32643`")
    return dataset


def _open_layer(path: Path, layer: str) -> Any:
    """Open a raster; the fourth band of NAIP is near infrared, though its files say alpha."""
    dataset = _open(path)
    return with_near_infrared(dataset) if layer == "naip" else dataset
