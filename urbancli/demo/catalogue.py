"""The static STAC catalogue of a synthetic city's scenes: relative, fixed, and plainly marked.

Keys of assets, names of collections and fields are those of Microsoft's Planetary Computer, so that
a reader of its Sentinel-2 and NAIP items reads these. STAC 1.1; links and hrefs are relative: the
folder can be moved.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from urbancli.city import SYNTHETIC
from urbancli.demo.recipe import GRID, Recipe

CATALOGUE = "catalog.json"

_EXTENSIONS = "https://stac-extensions.github.io"

EO = f"{_EXTENSIONS}/eo/v2.0.0/schema.json"
PROJECTION = f"{_EXTENSIONS}/projection/v2.0.0/schema.json"
RASTER = f"{_EXTENSIONS}/raster/v2.0.0/schema.json"
SENTINEL_2 = f"{_EXTENSIONS}/sentinel-2/v1.0.0/schema.json"

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"

DIGITS = 7
"""Decimals of longitudes and latitudes: a centimetre."""

Values = Mapping[str, float | str]


@dataclass(frozen=True)
class Sensor:
    """What one collection's scenes have in common.

    Attributes:
        name: of the collection.
        title: for people.
        bands: name of each band → (common name, centre of its wavelengths in µm).
        stacked: whether one asset, `image`, holds all bands, and not each its own.
        scale: reflectance = sample · scale + offset; None where samples are no reflectance.
        offset: see scale.
        extensions: STAC extensions of its items.
    """

    name: str
    title: str
    bands: Mapping[str, tuple[str, float]]
    stacked: bool
    scale: float | None
    offset: float
    extensions: tuple[str, ...]


SENTINEL = Sensor(
    "sentinel-2-l2a",
    "SYNTHETIC Sentinel-2-like surface reflectance",
    {
        "B01": ("coastal", 0.443),
        "B02": ("blue", 0.490),
        "B03": ("green", 0.560),
        "B04": ("red", 0.665),
        "B05": ("rededge071", 0.704),
        "B06": ("rededge075", 0.740),
        "B07": ("rededge078", 0.783),
        "B08": ("nir", 0.842),
        "B8A": ("nir08", 0.865),
        "B09": ("nir09", 0.945),
        "B11": ("swir16", 1.610),
        "B12": ("swir22", 2.190),
    },
    False,
    0.0001,
    -0.1,
    (EO, PROJECTION, RASTER, SENTINEL_2),
)

NAIP = Sensor(
    "naip",
    "SYNTHETIC NAIP-like aerial imagery",
    {
        "Red": ("red", 0.665),
        "Green": ("green", 0.560),
        "Blue": ("blue", 0.490),
        "NIR": ("nir", 0.842),
    },
    True,
    None,
    0.0,
    (EO, PROJECTION, RASTER),
)


@dataclass(frozen=True)
class Scene:
    """One item.

    Attributes:
        sensor: whose collection it is in.
        name: its id.
        when: when it says it was taken.
        box_m: (left, bottom, right, top), metres in `recipe.GRID`'s CRS.
        assets: key → raster file.
        facts: further properties.
    """

    sensor: Sensor
    name: str
    when: datetime
    box_m: tuple[float, float, float, float]
    assets: Mapping[str, Path]
    facts: Values


def write_catalogue(folder: Path, recipe: Recipe, scenes: Sequence[Scene]) -> None:
    """Write `catalog.json`, a collection per sensor and an item per scene below a folder.

    Shapes, transforms and types are read from the files of the scenes, which must exist. An item
    stands in `<collection>/<id>/<id>.json`.

    Args:
        folder: of the catalogue.
        recipe: of the city.
        scenes: in the order in which they shall be listed.
    """
    import pystac

    catalogue = pystac.Catalog(recipe.key, SYNTHETIC, f"SYNTHETIC imagery of '{recipe.key}'")
    catalogue.extra_fields["synthetic"] = True
    sensors = {scene.sensor.name: scene.sensor for scene in scenes}
    for name, sensor in sensors.items():
        own = [scene for scene in scenes if scene.sensor.name == name]
        collection = _collection(sensor, own)
        for scene in own:
            collection.add_item(_item(folder, scene))
        catalogue.add_child(collection)
    catalogue.normalize_hrefs(str(folder))
    catalogue.save(pystac.CatalogType.SELF_CONTAINED)


def _collection(sensor: Sensor, scenes: Sequence[Scene]) -> Any:
    import pystac

    boxes = np.array([_outline(scene).bounds for scene in scenes])
    days = sorted(scene.when for scene in scenes)
    whole = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    extent = pystac.Extent(
        pystac.SpatialExtent([whole]), pystac.TemporalExtent([[days[0], days[-1]]])
    )
    return pystac.Collection(
        id=sensor.name,
        title=sensor.title,
        description=f"{SYNTHETIC}. {sensor.title}.",
        extent=extent,
        license="CC0-1.0",
        keywords=["synthetic"],
        extra_fields={"synthetic": True},
    )


def _item(folder: Path, scene: Scene) -> Any:
    import pystac

    outline = _outline(scene)
    proj = {"proj:code": f"EPSG:{GRID.epsg}", "proj:bbox": list(scene.box_m)}
    item = pystac.Item(
        id=scene.name,
        geometry=shapely.geometry.mapping(outline),
        bbox=list(outline.bounds),
        datetime=scene.when,
        stac_extensions=list(scene.sensor.extensions),
        properties={
            "title": f"{scene.sensor.title}, {scene.when:%Y-%m-%d}",
            "description": SYNTHETIC,
            "synthetic": True,
            "platform": "synthetic",
            **proj,
            **scene.facts,
        },
    )
    home = folder / scene.sensor.name / scene.name
    for key, path in scene.assets.items():
        item.add_asset(key, _asset(scene.sensor, key, path, os.path.relpath(path, home)))
    first = next(iter(item.assets.values())).extra_fields
    item.properties["gsd"] = first["gsd"]
    if scene.sensor.stacked:
        item.properties |= {key: first[key] for key in ("proj:shape", "proj:transform")}
    return item


def _asset(sensor: Sensor, key: str, path: Path, href: str) -> Any:
    """Return an asset, told from its file."""
    import pystac
    import rasterio

    with rasterio.open(path) as dataset:
        facts: dict[str, Any] = {
            "gsd": float(dataset.res[0]),
            "proj:shape": list(dataset.shape),
            "proj:transform": [float(value) for value in dataset.transform[:6]],
            "data_type": dataset.dtypes[0],
        }
        if dataset.nodata is not None:
            facts["nodata"] = int(dataset.nodata)
    names = list(sensor.bands) if sensor.stacked else [key] if key in sensor.bands else []
    if names:
        facts["bands"] = [_band(sensor, name) for name in names]
        title = f"SYNTHETIC {', '.join(names)}"
    else:
        title = "SYNTHETIC scene classification"
    roles = ["data", "reflectance"] if sensor.scale is not None and names else ["data"]
    return pystac.Asset(f"./{href}", title, None, COG_TYPE, roles, facts)


def _band(sensor: Sensor, name: str) -> dict[str, Any]:
    common, centre = sensor.bands[name]
    band = {"name": name, "eo:common_name": common, "eo:center_wavelength": centre}
    if sensor.scale is None:
        return band
    return {**band, "raster:scale": sensor.scale, "raster:offset": sensor.offset}


def _outline(scene: Scene) -> shapely.Polygon:
    """Return the box of a scene as a polygon, EPSG:4326 lon lat."""
    left, bottom, right, top = scene.box_m
    lon, lat = GRID.unproject([left, right, right, left], [bottom, bottom, top, top])
    return shapely.Polygon(np.round(np.column_stack([lon, lat]), DIGITS))
