"""Overture's GeoParquet: which row groups of a file touch a box, and their rows in our columns.

A file says in its footer, for every row group, the range of the columns `bbox.xmin` … `bbox.ymax`.
Its columns are nested and change from release to release, so each is looked up by the path to its
leaf, and one that is not there is null.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from urbancli.workspace import geometries

Box = tuple[float, float, float, float]
"""(west, south, east, north), EPSG:4326 degrees; west ≤ east."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
TEXTS = pa.list_(pa.string())


@dataclass(frozen=True)
class Kind:
    """One type of features of a release.

    Attributes:
        theme: Overture's theme.
        type: its type within the theme.
        columns: what we keep beside id and geometry: our name, Overture's path to the leaf (lists
            are passed through), and the type it is brought to.
    """

    theme: str
    type: str
    columns: tuple[tuple[str, str, pa.DataType], ...]

    @property
    def folder(self) -> str:
        """The folder below a release."""
        return f"theme={self.theme}/type={self.type}"


def touching(footer: pq.FileMetaData, boxes: Sequence[Box]) -> list[int]:
    """Return the row groups whose `bbox` statistics meet a box; those without any count."""
    leaves = leaves_of(footer)
    position = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    found = []
    for group in range(footer.num_row_groups):
        rows = footer.row_group(group)
        ranges = []
        for side in SIDES:
            index = position.get(leaves.get(f"bbox.{side}", ""))
            told = rows.column(index).statistics if index is not None else None
            ranges.append((told.min, told.max) if told is not None and told.has_min_max else None)
        if None in ranges:
            found.append(group)
            continue
        (west, _), (south, _), (_, east), (_, north) = ((r[0], r[1]) for r in ranges if r)
        if any(meet((west, south, east, north), box) for box in boxes):
            found.append(group)
    return found


def raw_schema(kind: Kind) -> pa.Schema:
    """Return the schema of the rows that are saved, but for `bbox`."""
    columns = [(name, type_) for name, _, type_ in kind.columns]
    return pa.schema([("id", pa.string()), *columns, ("geometry", pa.binary())])


def datasets(table: pa.Table) -> dict[str, int]:
    """Return how many features each dataset gave, of the column `datasets`."""
    counted = pc.value_counts(pc.list_flatten(table.column("datasets"))).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counted, key=lambda r: str(r["values"]))}


def meet(one: Box, other: Box) -> bool:
    return one[0] <= other[2] and one[2] >= other[0] and one[1] <= other[3] and one[3] >= other[1]


def leaves_of(footer: pq.FileMetaData) -> dict[str, str]:
    """Return the path of every leaf column by its path without what lists put into it."""
    paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
    between = {"list", "element", "array", "item", "bag", "array_element"}
    return {".".join(p for p in path.split(".") if p not in between): path for path in paths}


def flat_rows(table: pa.Table, kind: Kind, boxes: Sequence[Box]) -> pa.Table:
    """Return the rows that touch the boxes in the schema that is saved."""
    if "bbox" in table.column_names:
        bbox = table.column("bbox").combine_chunks()
        sides = [pc.struct_field(bbox, side).to_numpy(zero_copy_only=False) for side in SIDES]
        west, south, east, north = (side.astype(np.float64) for side in sides)
    else:
        west, south, east, north = shapely.bounds(geometries(table)).T
    near: npt.NDArray[np.bool_] = np.zeros(table.num_rows, dtype=bool)
    for box in boxes:
        near |= (west <= box[2]) & (east >= box[0]) & (south <= box[3]) & (north >= box[1])
    table = table.filter(pa.array(near))
    schema = raw_schema(kind)
    paths = {"id": "id", "geometry": "geometry", **{name: path for name, path, _ in kind.columns}}
    columns = [_leaf(table, paths[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _leaf(table: pa.Table, path: str, type_: pa.DataType) -> pa.Array:
    """Return a leaf of nested columns, lists passed through; nulls where it is not there."""
    name, *inner = path.split(".")
    if name not in table.column_names:
        return pa.nulls(table.num_rows, type_)
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    for step in inner:
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        of = column.type.value_type if is_list else column.type
        if not pa.types.is_struct(of) or of.get_field_index(step) < 0:
            return pa.nulls(table.num_rows, type_)
        if is_list:
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            values = pc.struct_field(pc.list_flatten(column), step)
            offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
            column = pa.ListArray.from_arrays(offsets, values)
        else:
            column = pc.struct_field(column, step)
    return column.cast(type_)


def is_parquet(body: bytes) -> None:
    if body[:4] != b"PAR1" or body[-4:] != b"PAR1":
        raise ValueError("no Parquet file")


def index_boxes(body: bytes, below: str) -> dict[str, Box]:
    """Return the box of every file of a kind that the index names, by its key.

    The index is a stac-geoparquet file: a row is an item with `bbox` and, within `assets`, the
    addresses of its file in each cloud. Older ones also name the type in `collection`; the address
    always does.
    """
    try:
        table = pq.read_table(io.BytesIO(body), columns=["assets", "bbox"])
    except (pa.ArrowException, OSError, KeyError):
        return {}
    found: dict[str, Box] = {}
    for row in table.to_pylist():
        for address in _texts(row["assets"]):
            start = address.find(below)
            if start >= 0 and row["bbox"] and address.endswith(".parquet"):
                box = row["bbox"]
                sides = [box[side] for side in SIDES] if isinstance(box, dict) else box
                found[address[start:]] = (sides[0], sides[1], sides[2], sides[3])
    return found


def _texts(value: Any) -> Iterator[str]:
    """Yield every text within nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
