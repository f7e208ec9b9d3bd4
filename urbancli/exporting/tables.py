"""Entities, labels and tiles as GPKG or CSV, streamed from row groups.

Nested columns (tags, members, places) become JSON text; of entities the usual keys have columns of
their own beside it. Binary columns other than the geometry are left out.
"""

import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import shapely

from urbancli.layers import entity_view
from urbancli.workspace import geometries

KEY_COLUMNS = (
    "name", "building", "highway", "railway", "waterway", "landuse", "natural", "leisure",
    "amenity", "shop", "tourism", "office", "healthcare", "place", "category",
)  # fmt: skip
"""Tags of entities that have a column of their own; all tags are in the column `tags`."""

NO_DATE = "1970-01-01T00:00:00.000Z"
"""What a GPKG says of its last change: no clock, so that the same layer gives the same bytes."""

UNDONE = ("database or disk is full", "no transaction is active")
"""What SQLite says where nothing more could be written: the second as GDAL undoes what it has
undone by itself."""

Progress = Callable[[str, int, int], None]


class Batches:
    """The rows of a file as a GIS wants them, row group by row group.

    Attributes:
        name: of the layer.
        schema: plain columns, `geometry` (WKB, EPSG:4326, lon lat) last.
        rows: how many were given so far.
    """

    def __init__(self, file: pq.ParquetFile, name: str, view: str, progress: Progress) -> None:
        self.name = name
        self._file = file
        self._view = view
        self._progress = progress
        heavy = {f.name for f in file.schema_arrow if pa.types.is_binary(f.type)} - {"geometry"}
        self._columns = [name for name in file.schema_arrow.names if name not in heavy]
        self.schema = _plain(file.schema_arrow.empty_table().select(self._columns)).schema
        self.rows = 0

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield one table a row group."""
        groups = self._file.num_row_groups
        for group in range(groups):
            self._progress(self.name, group, groups)
            table = self._file.read_row_group(group, self._columns)
            table = _plain(entity_view(table, self._view) if self._view else table)
            self.rows += table.num_rows
            yield table
        self._progress(self.name, groups, groups)


def _plain(table: pa.Table) -> pa.Table:
    """Return a table without nested columns."""
    columns: dict[str, Any] = {}
    for field in table.schema:
        column = table.column(field.name)
        if field.name in {"bbox", "geometry"}:
            continue
        if field.name == "tags":
            keys = [key for key in KEY_COLUMNS if key not in table.column_names]
            columns |= {key: pc.map_lookup(column, pa.scalar(key), "first") for key in keys}
        columns[field.name] = _text(column) if pa.types.is_nested(field.type) else column
    return pa.table({**columns, "geometry": table.column("geometry")})


def _text(column: pa.ChunkedArray) -> pa.Array:
    """Return nested values as JSON text, a map as an object."""
    is_map = pa.types.is_map(column.type)
    values = column.to_pylist()
    texts = [
        None if value is None else json.dumps(dict(value) if is_map else value, ensure_ascii=False)
        for value in values
    ]
    return pa.array(texts, pa.string())


def write_gpkg(out: Path, batches: Batches, said: dict[str, str]) -> None:
    """Write a GPKG of one layer, mixed geometries in EPSG:4326.

    Raises:
        OSError: the disk is full.
    """
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError
    from pyogrio.raw import write_arrow

    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": NO_DATE})
    try:
        reader = pa.RecordBatchReader.from_batches(
            batches.schema, (batch for table in batches for batch in table.to_batches())
        )
        write_arrow(
            reader, out, layer=batches.name, driver="GPKG", geometry_name="geometry",
            geometry_type="Unknown", crs="EPSG:4326", layer_metadata=said,
        )  # fmt: skip
    except (DataLayerError, DataSourceError) as err:
        if any(words in str(err) for words in UNDONE):
            limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
            code = errno.EFBIG if limited else errno.ENOSPC
            raise OSError(code, os.strerror(code)) from err
        raise
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def write_csv(out: Path, batches: Batches, *, wkt: bool) -> None:
    """Write a CSV: the columns, `lon` and `lat` of a point inside the geometry, WKT if wanted."""
    names = [field for field in batches.schema if field.name not in {"geometry", "lon", "lat"}]
    more = [pa.field("lon", pa.float64()), pa.field("lat", pa.float64())]
    schema = pa.schema([*names, *more, *([pa.field("wkt", pa.string())] if wkt else [])])
    with pa_csv.CSVWriter(out, schema) as writer:
        for table in batches:
            geometry = geometries(table)
            points = shapely.point_on_surface(geometry)
            columns = {field.name: table.column(field.name) for field in names}
            columns |= {
                "lon": pa.array(shapely.get_x(points)),
                "lat": pa.array(shapely.get_y(points)),
            }
            if wkt:
                texts = shapely.to_wkt(geometry, rounding_precision=7)
                columns["wkt"] = pa.array(np.asarray(texts, dtype=object).tolist(), pa.string())
            writer.write_table(pa.table(columns, schema=schema))
