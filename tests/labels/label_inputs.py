"""Generated cities and label files for the tests of labels."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from urbancli.grid import Grid, Places
from urbancli.labels.files import parse_label, read_label


def city_tiles(epsg: int = 32643, columns: int = 4, rows: int = 4) -> Places:
    grid = Grid(epsg)
    north = 10_500 if epsg < 32700 else 24_000
    cells = np.array([(2380 + c, north + r) for c in range(columns) for r in range(rows)])
    x, y = ((cells + 0.5) * grid.tile_m).T
    ids = np.array([grid.tile_id(int(c), int(r)) for c, r in cells], dtype=object)
    return Places(grid, ids, "tile", x, y, np.ones(len(x)))


PLACES = city_tiles()


def squares(*boxes: tuple[float, float, float, float], places: Places = PLACES) -> np.ndarray:
    """Return boxes (left, bottom, right, top), metres from the city's corner, in EPSG:4326."""
    x, y = places.x.min() - 150, places.y.min() - 150
    shapes = [shapely.box(x + a, y + b, x + c, y + d) for a, b, c, d in boxes]
    return places.grid.unproject_geometry(np.array(shapes, dtype=object))


def spots(*points: tuple[float, float], places: Places = PLACES) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    return places.grid.unproject(x + places.x.min() - 150, y + places.y.min() - 150)


def polygon_file(path: Path, geometry: np.ndarray | None = None, **columns) -> Path:
    count = len(next(iter(columns.values())))
    if geometry is None:
        geometry = squares(*[(100 * i, 50, 100 * i + 200, 450) for i in range(count)])
    gpd.GeoDataFrame(columns, geometry=list(geometry), crs=4326).to_parquet(path)
    return path


def point_file(path: Path, points: list[tuple[float, float]], **columns) -> Path:
    lon, lat = spots(*points)
    pd.DataFrame({**columns, "lat": lat, "lon": lon}).to_csv(path, index=False)
    return path


def read(text: str, places: Places = PLACES) -> tuple[pa.Table, dict]:
    return read_label(parse_label(text), places)


def values(table: pa.Table) -> dict:
    return dict(
        zip(table.column("unit_id").to_pylist(), table.column("value").to_pylist(), strict=True)
    )
