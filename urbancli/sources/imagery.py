"""Imagery from raster files that GDAL opens: any CRS, bands, nodata, several files as one mosaic.

Files are warped onto one pixel grid that is aligned to the tiles, block by block. A block's place
in the zone does not depend on what was asked for, so its pixels are the same in every fetch.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.errors import UrbanError, unknown
from urbancli.grid import BLOCK_TILES, Block, Places
from urbancli.layers import NOMINAL_PIXEL_M, PIXEL_SCHEMA, pixel_size
from urbancli.sources import base
from urbancli.sources._pixels import (
    SATELLITE_WINDOW_M,
    bounds_lonlat,
    halo_cells,
    pixel_sides_m,
    sample_bands,
    tile_rows,
    valid_pixels,
    warped,
    with_near_infrared,
)


class Source(base.Source):
    """Local raster files as one imagery layer.

    Where several files cover a pixel the first valid one wins. An alpha band is the mask, but of
    NAIP's R, G, B, NIR all are samples, whatever the fourth is tagged. Bilinear resampling; a file
    whose grid is already the tiles' grid comes through unchanged.
    """

    schema = PIXEL_SCHEMA
    streamed = True
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
        self._datasets: list[Any] = []
        self._hidden: list[str] = []

    def plan(self, places: Places) -> dict[str, Any]:
        """Open the files, check that they agree, and choose the pixel size."""
        inputs = [base.pin(path) for path in self.paths]
        self._datasets = [_open_layer(path, self.layer) for path in self.paths]
        self._check_alike()
        grid = base.places_grid(places)
        self._native_m = min(
            math.sqrt(math.prod(pixel_sides_m(dataset, grid.epsg))) for dataset in self._datasets
        )
        self._pixel_m = pixel_size(self.layer, self._native_m, grid.tile_m)
        boxes = [bounds_lonlat(dataset) for dataset in self._datasets]
        self._check_mosaic(boxes)
        seen = shapely.union_all(boxes)
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
        cells = halo_cells(places)
        self._wanted = set(map(tuple, cells.tolist()))
        return places.grid.blocks(cells)

    def read(self, block: Block) -> pa.Table:
        """Return one row per tile of the block that has any valid pixel, in Hilbert order."""
        samples, valid = self._read_block(block)
        return tile_rows(block, samples, valid, self._wanted)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return bands, dtype, pixel size, the band read as mask, and files under earlier ones."""
        masks = set(self._datasets[0].indexes) - set(sample_bands(self._datasets[0]))
        return {
            "bands": self._bands,
            "dtype": self._dtype.name,
            "pixel_m": self._pixel_m,
            "native_m": round(self._native_m, 3),
            "mask_band": min(masks, default=None),
            "hidden_inputs": self._hidden,
        }

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

    def _check_alike(self) -> None:
        first = self._datasets[0]
        for path, dataset in zip(self.paths, self._datasets, strict=True):
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

    def _read_block(self, block: Block) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        side = round(block.tile_m / self._pixel_m) * BLOCK_TILES
        samples = np.zeros((len(self._bands), side, side), dtype=self._dtype)
        valid = np.zeros((side, side), dtype=bool)
        for dataset in self._datasets:
            if valid.all():
                break
            with warped(dataset, block, self._pixel_m) as warp:
                mask = valid_pixels(warp) & ~valid
                if mask.any():
                    read = warp.read(sample_bands(dataset))
                    if self._dtype.kind == "f":
                        mask &= np.isfinite(read).all(axis=0)
                    samples[:, mask] = read[:, mask]
                    valid |= mask
        return samples, valid


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
