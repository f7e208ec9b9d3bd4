"""Vector data of any user: GDAL formats, GeoParquet, and text tables with lat and lon columns."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from urbancli.errors import UrbanError

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
"""Suffixes of delimited text; anything else is for pyarrow or GDAL."""

LATITUDES = ("lat", "latitude", "y")
LONGITUDES = ("lon", "lng", "long", "longitude", "x")
DELIMITERS = ",;\t|"


def is_text(path: Path) -> bool:
    """Return whether a file is read as delimited text: its cells are strings, without types."""
    return path.suffix.lower() in TEXT_SUFFIXES


def read_vector(path: Path) -> Any:
    """Return a GeoDataFrame in EPSG:4326 (lon lat) from a vector file or a table with coordinates.

    Cells of a text table stay text, so that an id keeps its leading zeros, and empty cells are
    missing; its latitude and longitude columns become points, None where they are no degrees.

    Raises:
        UrbanError: the file is missing, empty, cannot be read, has no CRS, or no coordinates.
    """
    if not path.is_file():
        raise UrbanError(f"no file {path}: check the path")
    return _read_text(path) if is_text(path) else _read_geometry(path)


def _read_geometry(path: Path) -> Any:
    import geopandas as gpd

    try:
        if path.suffix in {".parquet", ".geoparquet"}:
            frame = gpd.read_parquet(path)
        else:
            frame = gpd.read_file(path, layer=_only_layer(path))
    except UrbanError:
        raise
    except Exception as err:
        raise UrbanError(f"cannot read {path} as vector data: {_first_line(err)}") from err
    if not isinstance(frame, gpd.GeoDataFrame) or frame._geometry_column_name is None:
        raise UrbanError(f"{path} has no geometry column: give polygons or points")
    if frame.crs is None:
        raise UrbanError(f"{path} has no CRS: write it with one, e.g. EPSG:4326")
    frame.columns = [str(name) for name in frame.columns]
    return frame.to_crs(4326)


def _only_layer(path: Path) -> str | None:
    """Return the layer of a file that has a geometry, if there is but one; None without any."""
    import geopandas as gpd

    layers = gpd.list_layers(path)
    names = [str(name) for name in layers.name[layers.geometry_type.notna()]]
    if len(names) > 1:
        raise UrbanError(
            f"{path} has {len(names)} layers ({', '.join(names[:12])}): write the one you mean to "
            f"a file of its own, e.g. `ogr2ogr one.gpkg {path.name} {names[0]}`"
        )
    return names[0] if names else None


def _read_text(path: Path) -> Any:
    import geopandas as gpd
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        with warnings.catch_warnings():
            # A row longer than the header is no warning: its cells would be lost.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, sep=max(DELIMITERS, key=header.count), dtype=str, encoding="utf-8-sig",
                skipinitialspace=True, index_col=False, keep_default_na=False, na_values=[""],
            )  # fmt: skip
    except UnicodeDecodeError as err:
        raise UrbanError(f"cannot read {path} as a table: save it as UTF-8") from err
    except pd.errors.EmptyDataError as err:
        raise UrbanError(f"{path} is empty: give a table with lat and lon columns") from err
    except (OSError, ValueError, pd.errors.ParserWarning) as err:
        raise UrbanError(f"cannot read {path} as a table: {_first_line(err)}") from err
    table.columns = [str(name).strip() for name in table.columns]
    named = {name.lower(): name for name in reversed(table.columns)}
    lat = next((named[name] for name in LATITUDES if name in named), None)
    lon = next((named[name] for name in LONGITUDES if name in named), None)
    if lat is None or lon is None:
        raise UrbanError(
            f"{path} has no lat and lon columns (found {', '.join(table.columns[:12])}): name "
            "them lat and lon, in degrees"
        )
    if table.empty:
        raise UrbanError(f"{path} has no rows below its header: give a table with places in it")
    points = _points(path, table[lon], table[lat])
    return gpd.GeoDataFrame(table.drop(columns=[lat, lon]), geometry=points, crs=4326)


def _points(path: Path, lon: Any, lat: Any) -> Any:
    """Return points (N,) of two columns of text, None where they are no degrees; any must be."""
    import pandas as pd

    for column in (lon, lat):
        commas = column.dropna()[lambda cells: cells.str.fullmatch(r"\s*[-+]?\d+,\d+\s*")]
        if len(commas):
            raise UrbanError(
                f"'{column.name}' of {path} has decimal commas ('{commas.iloc[0]}' in row "
                f"{commas.index[0] + 1}): write decimal points"
            )
    x, y = (pd.to_numeric(column, errors="coerce").to_numpy(float) for column in (lon, lat))
    placed = (np.abs(x) <= 180) & (np.abs(y) <= 90)
    if not placed.any():
        what = "are out of range" if np.isfinite(x + y).any() else "hold no numbers"
        raise UrbanError(f"'{lat.name}' and '{lon.name}' of {path} {what}: give degrees, EPSG:4326")
    points = np.full(len(lon), None, dtype=object)
    points[placed] = shapely.points(x[placed], y[placed])
    return points


def _first_line(err: BaseException) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]
