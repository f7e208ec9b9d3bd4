"""Generated STAC catalogues: small rasters around a corner of four blocks, and their items."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from rasterio.transform import from_origin

from urbancli.city import City, box_area
from urbancli.fetching import fetch
from urbancli.grid import BLOCK_TILES, Grid, Places, tiles_of
from urbancli.layers import PixelLayer, open_city
from urbancli.sources.base import Source
from urbancli.workspace import Workspace, read_table

GRID = Grid(32643)
CORNER = (2448 // BLOCK_TILES * BLOCK_TILES, 10552 // BLOCK_TILES * BLOCK_TILES)
"""South-west tile of a block: where four blocks meet."""

TILES = 12
"""Tiles along a side of the rasters; the city is the 2 × 2 in their middle, its halo 10 × 10."""

LEFT, TOP = (CORNER[0] - TILES // 2) * 300, (CORNER[1] + TILES // 2) * 300
SIDE_M = TILES * 300
PX = SIDE_M // 10
HALO = slice(PX // 2 - 150, PX // 2 + 150)
"""The city and its halo in the rasters' rows and columns, pixels of 10 m."""

ESA = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
EARTH_SEARCH = (
    "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09",
    "swir16", "swir22",
)  # fmt: skip


def city() -> City:
    """Return the 2 × 2 tiles around the corner."""
    x, y = CORNER[0] * 300, CORNER[1] * 300
    lon, lat = GRID.unproject([x - 250, x + 250], [y - 250, y + 250])
    return City("test", box_area((lon[0], lat[0], lon[1], lat[1])), GRID.epsg, "bbox")


def places() -> Places:
    return tiles_of(city().area, GRID)


def noise(count: int, seed: int = 7, low: int = 1100, high: int = 9000) -> Any:
    """Return (count, PX, PX) uint16 without zeros."""
    generator = np.random.default_rng(seed)
    return generator.integers(low, high, (count, PX, PX)).astype(np.uint16)


def write_raster(path: Path, samples: Any, **profile: Any) -> Path:
    """Write (bands, rows, columns), by default over the whole square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixel = SIDE_M / samples.shape[2]
    defaults = {
        "driver": "GTiff",
        "count": samples.shape[0],
        "height": samples.shape[1],
        "width": samples.shape[2],
        "dtype": samples.dtype.name,
        "crs": f"EPSG:{GRID.epsg}",
        "transform": from_origin(LEFT, TOP, pixel, pixel),
    }
    with rasterio.open(path, "w", **{**defaults, **profile}) as dataset:
        dataset.write(samples)
    return path


def outline(path: Path) -> shapely.Polygon:
    """Return the box of a raster, EPSG:4326."""
    with rasterio.open(path) as dataset:
        grid = Grid(dataset.crs.to_epsg())
        box = shapely.segmentize(shapely.box(*dataset.bounds), 500.0)
    return grid.unproject_geometry(box)


def item(
    item_id: str, when: str, assets: dict[str, Path], collection: str, **properties: Any
) -> pystac.Item:
    """Return an item over what its first asset covers; `__` in a property's name stands for `:`."""
    shape = outline(next(iter(assets.values())))
    found = pystac.Item(
        item_id,
        shapely.geometry.mapping(shape),
        list(shape.bounds),
        datetime.fromisoformat(when),
        {name.replace("__", ":"): value for name, value in properties.items()},
        collection=collection,
    )
    for key, path in assets.items():
        found.add_asset(key, pystac.Asset(str(path)))
    return found


def scene(
    folder: Path,
    item_id: str,
    when: str,
    bands: Any,
    classes: Any,
    *,
    names: Sequence[str] = ESA,
    profile: dict[str, Any] | None = None,
    **properties: Any,
) -> pystac.Item:
    """Write a Sentinel-2 scene and return its item.

    Args:
        folder: of the files.
        item_id: its id, also the folder's name.
        when: ISO time with zone.
        bands: (12, rows, columns), or 12 arrays (rows, columns) of any size over the square.
        classes: (rows, columns) of the scene classification, or one class for all.
        names: of the assets.
        profile: of the rasters, for rasterio.
        properties: of the item, added to baseline 05.09 and a cloud cover of 10.
    """
    here = folder / "scenes" / item_id
    if np.isscalar(classes):
        classes = np.full((PX // 2, PX // 2), classes)
    mask = "SCL" if names[0] == "B01" else "scl"
    assets = {
        name: write_raster(here / f"{name}.tif", np.asarray(band)[None], **(profile or {}))
        for name, band in zip(names, bands, strict=True)
    }
    assets[mask] = write_raster(here / f"{mask}.tif", classes.astype(np.uint8)[None])
    said = {"s2__processing_baseline": "05.09", "eo__cloud_cover": 10.0, **properties}
    said = {name: value for name, value in said.items() if value is not None}
    return item(item_id, when, assets, "sentinel-2-l2a", **said)


def write_catalogue(folder: Path, *items: pystac.Item) -> Path:
    """Write items as a static catalogue with relative links; return its `catalog.json`."""
    catalogue = pystac.Catalog("generated", "for tests")
    extent = pystac.Extent(
        pystac.SpatialExtent([[-180.0, -90.0, 180.0, 90.0]]),
        pystac.TemporalExtent([[datetime.fromisoformat("2000-01-01T00:00:00Z"), None]]),
    )
    for name in sorted({str(each.collection_id) for each in items}):
        collection = pystac.Collection(name, name, extent)
        collection.add_items(each for each in items if each.collection_id == name)
        catalogue.add_child(collection)
    catalogue.normalize_hrefs(str(folder))
    catalogue.make_all_asset_hrefs_relative()
    catalogue.save(pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def fetched(folder: Path, source: Source) -> tuple[PixelLayer, dict[str, Any]]:
    """Fetch the city; return the layer and its facts."""
    workspace = Workspace(folder / "workspace")
    fetch(workspace, city(), [source], [])
    facts = read_table(workspace.layer_file("test", source.layer))[1]
    return open_city(workspace, "test").pixels(source.layer), facts


def halo_pixels(layer: PixelLayer) -> tuple[Any, Any]:
    """Return samples and validity of the city and its halo: `[HALO, HALO]` of the rasters."""
    return layer.window(CORNER[0] * 300, CORNER[1] * 300, 3000)
