"""Imagery from raster files that GDAL opens: any CRS, bands, nodata, several files as one mosaic.

Files are warped onto one pixel grid that is aligned to the tiles, block by block. A block's place
in the zone does not depend on what was asked for, so its pixels are the same in every fetch.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.city import split_antimeridian
from urbancli.errors import UrbanError, unknown
from urbancli.grid import BLOCK_TILES, Block, Grid, Places
from urbancli.layers import NOMINAL_PIXEL_M, PIXEL_SCHEMA, pack_valid, pixel_size
from urbancli.sources import base
from urbancli.workspace import geo_table, hilbert_order

SATELLITE_WINDOW_M = 2560.0
"""The widest window a published encoder looks at (UrbanFusion's 256 px of 10 m): the halo."""


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
            math.sqrt(math.prod(_pixel_sides_m(dataset, grid.epsg))) for dataset in self._datasets
        )
        self._pixel_m = pixel_size(self.layer, self._native_m, grid.tile_m)
        boxes = [_bounds_lonlat(dataset) for dataset in self._datasets]
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
            "version": 2,
        }

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles and of the halo around them."""
        beyond = max(0.0, (SATELLITE_WINDOW_M - places.grid.tile_m) / 2)
        self._wanted = {tuple(cell) for cell in places.grid.halo(places.cells, beyond).tolist()}
        return places.grid.blocks(np.array(sorted(self._wanted)))

    def read(self, block: Block) -> pa.Table:
        """Return one row per tile of the block that has any valid pixel, in Hilbert order."""
        samples, valid = self._read_block(block)
        grid = Grid(block.epsg, block.tile_m)
        side = samples.shape[1] // BLOCK_TILES
        cells = np.array([c for c in block.tiles().tolist() if tuple(c) in self._wanted])
        rows = []
        for column, row in cells:
            left = (column - block.column * BLOCK_TILES) * side
            top = (BLOCK_TILES - 1 - (row - block.row * BLOCK_TILES)) * side
            part = (slice(top, top + side), slice(left, left + side))
            share, bits = pack_valid(valid[part])
            tile = np.ascontiguousarray(samples[(slice(None), *part)])
            little = tile.astype(tile.dtype.newbyteorder("<"), copy=False)
            rows.append((grid.tile_id(column, row), share, little.tobytes(), bits))
        keep = [index for index, row in enumerate(rows) if row[1] > 0]
        if not keep:
            return PIXEL_SCHEMA.empty_table()
        boxes = grid.unproject_geometry(grid.tile_boxes(cells[keep]))
        ids, shares, pixels, bits_of = zip(*(rows[index] for index in keep), strict=True)
        columns = {
            "place_id": pa.array(ids, pa.string()),
            "block": pa.array([block.block_id] * len(keep), pa.string()),
            "valid_fraction": pa.array(shares),
            "pixels": pa.array(pixels, pa.binary()),
            "valid": pa.array(bits_of, pa.binary()),
        }
        table = geo_table(columns, boxes).select(PIXEL_SCHEMA.names)
        return table.take(pa.array(hilbert_order(boxes)))

    def facts(self) -> dict[str, Any]:
        """Return bands, dtype, pixel size, the band read as mask, and files under earlier ones."""
        masks = set(self._datasets[0].indexes) - set(_samples(self._datasets[0]))
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
            alike = _samples(dataset) == _samples(first) and dataset.dtypes == first.dtypes
            if not alike or len(set(dataset.dtypes)) > 1:
                raise UrbanError(
                    f"{path.name} has {len(_samples(dataset))} bands of {dataset.dtypes[0]}, "
                    f"{self.paths[0].name} {len(_samples(first))} of {first.dtypes[0]}: one layer "
                    "wants files with the same bands and type"
                )
        self._dtype = np.dtype(first.dtypes[0])
        if self._dtype.kind not in "uif":
            raise UrbanError(
                f"{self.paths[0].name} holds {self._dtype} samples: wants real numbers"
            )
        names = [first.descriptions[band - 1] or f"band{band}" for band in _samples(first)]
        self._bands = names

    def _read_block(self, block: Block) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        side = round(block.tile_m / self._pixel_m) * BLOCK_TILES
        samples = np.zeros((len(self._bands), side, side), dtype=self._dtype)
        valid = np.zeros((side, side), dtype=bool)
        for dataset in self._datasets:
            if valid.all():
                break
            with _warped(dataset, block, self._pixel_m) as warped:
                mask = (warped.dataset_mask() > 0) & ~valid
                if mask.any():
                    read = warped.read(_samples(dataset))
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
            shapes.append(_bounds_lonlat(dataset))
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
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.io import MemoryFile
    from rasterio.shutil import copy

    dataset = _open(path)
    if layer != "naip" or dataset.count != 4 or dataset.colorinterp[3] != ColorInterp.alpha:
        return dataset
    with dataset, MemoryFile(ext=".vrt") as memory:
        copy(dataset, memory.name, driver="VRT")
        document = memory.read().decode()
    return rasterio.open(document.replace("<ColorInterp>Alpha<", "<ColorInterp>Undefined<"))


def _samples(dataset: Any) -> list[int]:
    """Return the numbers (from 1) of the bands that hold samples: all but alpha."""
    from rasterio.enums import ColorInterp

    return [n for n, kind in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if kind != ColorInterp.alpha]  # fmt: skip


def _bounds_lonlat(dataset: Any) -> BaseGeometry:
    from pyproj import Transformer

    outline = shapely.segmentize(
        shapely.box(*dataset.bounds), max(dataset.width * dataset.res[0] / 32, 1e-9)
    )
    transformer = Transformer.from_crs(dataset.crs, 4326, always_xy=True)
    lonlat = shapely.transform(
        outline, lambda p: np.column_stack(transformer.transform(p[:, 0], p[:, 1]))
    )
    return split_antimeridian(lonlat)


def _pixel_sides_m(dataset: Any, epsg: int) -> tuple[float, float]:
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
def _warped(dataset: Any, block: Block, pixel_m: float) -> Iterator[Any]:
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin
    from rasterio.vrt import WarpedVRT

    left, _, _, top = block.bounds
    side = round(block.tile_m / pixel_m) * BLOCK_TILES
    with WarpedVRT(
        dataset,
        crs=f"EPSG:{block.epsg}",
        transform=from_origin(left, top, pixel_m, pixel_m),
        width=side,
        height=side,
        resampling=Resampling.bilinear,
        # Pixels of error of the transform; 0 itself makes rasterio 1.4 build no transformer.
        tolerance=1e-6,
        # GDAL would estimate these per block from its corners, and seams would show.
        XSCALE=str(_pixel_sides_m(dataset, block.epsg)[0] / pixel_m),
        YSCALE=str(_pixel_sides_m(dataset, block.epsg)[1] / pixel_m),
        # Without nodata or a mask of its own, what lies outside the file must not read as zeros.
        add_alpha=dataset.nodata is None and not _has_alpha(dataset),
    ) as warped:
        yield warped


def _has_alpha(dataset: Any) -> bool:
    return bool(len(_samples(dataset)) < dataset.count)
