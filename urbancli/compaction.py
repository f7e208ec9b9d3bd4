"""One file a layer of pixels, from its staged blocks, never more than one of them in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely

from urbancli.errors import UrbanError
from urbancli.sources.base import Source
from urbancli.workspace import (
    GEOMETRY_TYPES,
    geometries,
    read_table,
    write_tables,
)

ROW_GROUP_BYTES = 32 << 20

HEAVY = ("pixels", "valid", "image", "geometry")
"""Columns that are not read where only counts are wanted."""


def without_pixels(staged: Sequence[Path], source: Source) -> pa.Table:
    """Return all rows of a layer's staged blocks, the columns that weigh left out."""
    names = [name for name in source.schema.names if name not in HEAVY]
    return pa.concat_tables(
        [read_table(file, names)[0].replace_schema_metadata() for file in staged]
    )


def plain(schema: pa.Schema) -> pa.Schema:
    """Return a schema as a file's own metadata will stand beside it."""
    return schema.remove_metadata()


def compact(
    path: Path,
    staged: Sequence[Path],
    source: Source,
    facts: dict[str, Any],
    replaced: Callable[[], None],
) -> None:
    """Write a layer's file from its blocks; `replaced` is called once they are known to be good."""
    boxes = [geometries(read_table(file, ["geometry"])[0]) for file in staged]
    shapes = [box for group in boxes for box in group]
    if not shapes:
        raise UrbanError(f"the layer '{source.layer}' has no valid pixel in the city")
    types = sorted({GEOMETRY_TYPES[t] for t in shapely.get_type_id(shapes)})
    groups = (part for file in staged for part in _row_groups(read_table(file)[0]))
    bounds = shapely.total_bounds(shapes).tolist()
    schema = plain(source.schema)
    replaced()
    write_tables(path, groups, schema=schema, metadata=facts, types=types, bounds=bounds)


def _row_groups(table: pa.Table) -> list[pa.Table]:
    """Cut a block's rows so that a row group stays small enough for random access."""
    if not table.num_rows:
        return []
    rows = max(1, int(table.num_rows * ROW_GROUP_BYTES / max(table.nbytes, 1)))
    return [table.slice(start, rows) for start in range(0, table.num_rows, rows)]
