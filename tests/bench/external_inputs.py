"""Units of every shape, and files of embeddings of every form, written by the usual writers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from urbancli.bench.external import Coverage, load_external, unit_values
from urbancli.bench.splits.base import Units, make_units
from urbancli.grid import Grid
from urbancli.labels.files import Label

GRID = Grid(32618)
EAST, NORTH = 585_000.0, 4_509_000.0
CORNER = np.array([EAST, NORTH])
"""A corner of the tests' city: tiles (1950, 15030) and on, in New York."""


def units_of(shapes: Sequence[shapely.Geometry], ids: Sequence[str] | None = None) -> Units:
    """Units of shapes given in metres from the corner."""
    moved = shapely.transform(np.array(shapes, dtype=object), lambda xy: xy + CORNER)
    names = ids or [f"u{number}" for number in range(len(shapes))]
    lonlat = np.asarray(GRID.unproject_geometry(moved), dtype=object)
    return make_units(GRID, np.array(names, dtype=object), lonlat, "test")


def label_of(units: Units, name: str = "test") -> Label:
    ids, values = units.unit_id, np.arange(len(units), dtype=np.float64)
    return Label(name, "regression", "polygon", ids, values, units.footprint, {})


def odd_shapes(seed: int = 0) -> list[shapely.Geometry]:
    """Boxes, circles, a ring, two islands, a sliver, a speck, and points; within 3 km."""
    rng = np.random.default_rng(seed)
    boxes = [shapely.box(x, y, x + 410, y + 290) for x, y in rng.uniform(0, 2500, (6, 2))]
    circles = [
        shapely.Point(*xy).buffer(r) for *xy, r in rng.uniform(200, 2400, (4, 3)) * (1, 1, 0.2)
    ]
    ring = shapely.Point(1500, 1500).buffer(400).difference(shapely.Point(1450, 1500).buffer(250))
    islands = shapely.MultiPolygon([shapely.box(0, 0, 150, 90), shapely.box(2000, 0, 2100, 333)])
    sliver = shapely.Polygon([(100, 2000), (2800, 2010), (2800, 2011)])
    speck = shapely.box(777.1, 777.2, 777.9, 777.8)
    points = [shapely.Point(*xy) for xy in rng.uniform(0, 2900, (5, 2))]
    return [*boxes, *circles, ring, islands, sliver, speck, *points]


def values_of(text: str, units: Units) -> tuple[np.ndarray, Coverage]:
    """What a file says of units, through the real path."""
    return unit_values(load_external(text), units, label_of(units))


def vectors(rows: int, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)


def scattered(rows: int, seed: int = 0) -> np.ndarray:
    """Positions (rows, 2) in metres from the corner, some of them outside all units."""
    return np.random.default_rng(seed).uniform(-500, 3500, (rows, 2))


def lonlat_of(metres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return GRID.unproject(metres[:, 0] + EAST, metres[:, 1] + NORTH)


def write_csv(path: Path, columns: dict[str, Sequence], sep: str = ",") -> Path:
    import pandas as pd

    pd.DataFrame(columns).to_csv(path, index=False, sep=sep)
    return path


def write_parquet(path: Path, columns: dict[str, object], **options) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def numbered(values: np.ndarray, prefix: str = "e") -> dict[str, np.ndarray]:
    return {f"{prefix}{number}": values[:, number] for number in range(values.shape[1])}


def write_geo(
    path: Path, metres: Sequence[shapely.Geometry], columns: dict, crs: int | None = 4326, **options
) -> Path:
    """A GeoParquet of shapes given in metres from the corner, in any CRS, by geopandas."""
    import geopandas as gpd

    moved = shapely.transform(np.array(metres, dtype=object), lambda xy: xy + CORNER)
    frame = gpd.GeoDataFrame(columns, geometry=moved, crs=GRID.epsg)
    frame = frame.set_crs(None, allow_override=True) if crs is None else frame.to_crs(crs)
    frame.to_parquet(path, **options)
    return path


def write_raster(path: Path, bands: np.ndarray, transform, crs="EPSG:32618", **options) -> Path:
    """A GeoTIFF of (D, height, width)."""
    import rasterio

    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
        dtype=bands.dtype, crs=crs, transform=transform, **options,
    ) as file:  # fmt: skip
        file.write(bands)
    return path
