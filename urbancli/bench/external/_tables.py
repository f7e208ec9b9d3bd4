"""Embeddings in tables and arrays, read in batches into one array of float32."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from urbancli.bench.external._columns import Columns, choose_columns
from urbancli.bench.external._option import PARQUET
from urbancli.errors import UrbanError
from urbancli.vector import DELIMITERS
from urbancli.workspace import Geometries

BATCH = 8192
"""Rows that are decoded at a time."""

CSV_BYTES = 1 << 23
"""Bytes of text that are parsed at a time."""

NAMED_ROWS = 5
"""So many rows are named in an error; counted from 1, below the header."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Table:
    """What stands in a table.

    Attributes:
        columns: which of its columns are what.
        values: (N, D) float32; (N, 0) of a companion.
        place: N rows of `columns.place`.
        geometry: (N,) EPSG:4326, lon lat; None without.
    """

    columns: Columns
    values: Vectors
    place: pa.Table
    geometry: Geometries | None


def read_table(path: Path, *, key: str | None = None, vectors: bool = True) -> Table:
    """Return what stands in a Parquet file, or in a CSV or TSV.

    Args:
        path: of the table.
        key: the column that the user says holds the units' ids.
        vectors: whether it must hold embeddings; the companion of an array does not.

    Raises:
        UsageError: there is no column `key`.
        UrbanError: it cannot be read, is empty, or holds no embeddings that can be told, or such
            as are ragged or not finite.
    """
    if path.suffix.lower() in PARQUET:
        table = _read_parquet(path, key, vectors)
    else:
        table = _read_csv(path, key, vectors)
    if not len(table.values):
        raise _no_rows(path)
    if vectors:
        check_finite(path, table.values)
    return table


def _no_rows(path: Path) -> UrbanError:
    return UrbanError(f"{path} has no rows: give a table with embeddings in it")


def check_finite(path: Path, values: npt.NDArray[Any]) -> None:
    """Refuse vectors (N, D) with a value that is not a number, or too large for float32."""
    wrong = [
        start + np.flatnonzero(~np.isfinite(values[start : start + BATCH]).all(axis=1))
        for start in range(0, len(values), BATCH)
    ]
    rows = np.concatenate(wrong) + 1
    if len(rows):
        listed = ", ".join(map(str, rows[:NAMED_ROWS].tolist()))
        more = ", …" if len(rows) > NAMED_ROWS else ""
        raise UrbanError(
            f"{len(rows):,} of {len(values):,} embeddings of {path} hold NaN or infinite values "
            f"(rows {listed}{more}): leave these rows out, or mend them"
        )


# --- Parquet ---------------------------------------------------------------------------------


def _read_parquet(path: Path, key: str | None, vectors: bool) -> Table:
    try:
        # Without these two, a row group's compressed bytes would be held whole beside the array.
        file = pq.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False)
    except (OSError, pa.ArrowInvalid) as err:
        raise UrbanError(f"{path} is not a whole Parquet file: write it anew") from err
    with file:
        schema = file.schema_arrow
        _refuse_twins(path, schema.names)
        geo = json.loads((schema.metadata or {}).get(b"geo", b"{}")).get("primary_column", "")
        types = dict(zip(schema.names, schema.types, strict=True))
        columns = choose_columns(path, types, geometry=geo, key=key, vectors=vectors)
        count = file.metadata.num_rows
        try:
            values = np.zeros((count, 0), dtype=np.float32)
            if count and vectors:
                batches = file.iter_batches(BATCH, columns=columns.embedding)
                values = _gather(path, batches, columns, count)
            place = file.read(columns=columns.place)
        except (OSError, pa.ArrowInvalid) as err:
            raise UrbanError(f"cannot read {path}: {first_line(err)}; write it anew") from err
    geometry = _geometry(path, geo) if geo and count and key is None else None
    return Table(columns, values, place, geometry)


def _gather(path: Path, batches: Iterator[Any], columns: Columns, count: int) -> Vectors:
    """Return the vectors (N, D) of all batches."""
    values: Vectors | None = None
    start = 0
    for batch in batches:
        part = _vectors(path, batch, columns, start, None if values is None else values.shape[1])
        if values is None:
            values = np.empty((count, part.shape[1]), dtype=np.float32)
        values[start : start + len(part)] = part
        start += len(part)
    assert values is not None
    return values


def _vectors(path: Path, batch: Any, columns: Columns, start: int, width: int | None) -> Vectors:
    """Return the vectors (n, D) of a batch whose first row is `start` of the table."""
    if columns.vector:
        return _lists(path, batch.column(columns.vector), start, width)
    part = np.empty((batch.num_rows, len(columns.numbers)), dtype=np.float32)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        for number, name in enumerate(columns.numbers):
            part[:, number] = batch.column(name).to_numpy(zero_copy_only=False)
    return part


def _lists(path: Path, column: Any, start: int, width: int | None) -> Vectors:
    """Return lists of equal lengths as (n, D); NaN where a list or a number is missing."""
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    known = np.flatnonzero(~np.isnan(lengths.astype(np.float64)))
    if width is None:
        width = int(lengths[known[0]]) if len(known) else 1
    odd = known[lengths[known] != width]
    if len(odd):
        raise UrbanError(
            f"the embeddings of {path} are not of one length: {width} numbers in row 1, "
            f"{int(lengths[odd[0]])} in row {start + int(odd[0]) + 1}"
        )
    if width == 0:
        raise UrbanError(f"the embeddings of {path} are empty lists: write vectors of numbers")
    part = np.full((len(column), width), np.nan, dtype=np.float32)
    with np.errstate(over="ignore"):
        flat = column.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    part[known] = flat.reshape(-1, width)
    return part


def _geometry(path: Path, name: str) -> Geometries:
    """Return the geometries of a GeoParquet file, EPSG:4326, lon lat."""
    import geopandas as gpd

    try:
        series = gpd.read_parquet(path, columns=[name]).geometry
    except Exception as err:
        raise UrbanError(f"cannot read the geometry of {path}: {first_line(err)}") from err
    if series.crs is None:
        raise UrbanError(f"{path} has no CRS: write it with one, e.g. EPSG:4326")
    return np.asarray(series.to_crs(4326).to_numpy(), dtype=object)


# --- text ------------------------------------------------------------------------------------


def _read_csv(path: Path, key: str | None, vectors: bool) -> Table:
    try:
        with path.open(encoding="utf-8-sig") as file:
            header, first = file.readline(), file.readline()
    except UnicodeDecodeError as err:
        raise UrbanError(f"cannot read {path} as a table: save it as UTF-8") from err
    if not header.strip():
        raise UrbanError(f"{path} is empty: give a table with a header and embeddings in it")
    if not first.strip():
        raise _no_rows(path)
    parse = pa_csv.ParseOptions(delimiter=max(DELIMITERS, key=header.count))
    schema = _guess(path, parse)
    _refuse_twins(path, schema.names)
    types = dict(zip(schema.names, schema.types, strict=True))
    columns = choose_columns(path, types, key=key, vectors=vectors)
    wanted = {name: pa.float32() for name in columns.embedding}
    wanted |= {name: pa.string() for name in columns.place}  # an id keeps its leading zeros
    wanted |= {name: pa.float64() for name in (columns.lat, columns.lon) if name}
    places, parts = [], []
    with _readable(path):
        reader = _open(path, parse, wanted)
        for batch in reader:
            places.append(batch.select(columns.place))
            if vectors:
                parts.append(_vectors(path, batch, columns, 0, None))
    empty = pa.schema([(name, wanted[name]) for name in columns.place])
    place = pa.Table.from_batches(places, schema=empty)
    rows = sum(batch.num_rows for batch in places)
    values = np.empty((rows, len(columns.embedding)), dtype=np.float32)
    end = rows
    while parts:  # from the last, each freed once it is copied
        part = parts.pop()
        values[end - len(part) : end] = part
        end -= len(part)
    return Table(columns, values, place, None)


def _guess(path: Path, parse: Any) -> Any:
    """Return the schema that the first rows suggest."""
    with _readable(path):
        return _open(path, parse, None).schema


def _open(path: Path, parse: Any, types: dict[str, Any] | None) -> Any:
    convert = pa_csv.ConvertOptions(
        column_types=types, include_columns=None if types is None else list(types)
    )
    read = pa_csv.ReadOptions(block_size=CSV_BYTES)
    return pa_csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as err:
        raise UrbanError(f"cannot read {path} as a table: {first_line(err)}") from err


def _refuse_twins(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UrbanError(f"{path} has two columns '{twice[0]}': give every column its own name")


# --- arrays ----------------------------------------------------------------------------------


def read_array(path: Path) -> Vectors:
    """Return a NumPy file of plain numbers (N, D); float32 stays on disk and is read as needed.

    Raises:
        UrbanError: it is not that, holds Python objects, or a value that is not finite.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        if "object" in str(err).lower() or "pickle" in str(err).lower():
            raise UrbanError(
                f"{path} holds Python objects, which could run code when read: save plain "
                "numbers, `numpy.save(file, array.astype('float32'))`"
            ) from err
        raise UrbanError(
            f"cannot read {path}: {first_line(err)}; write it with numpy.save"
        ) from err
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        shape = " × ".join(map(str, array.shape)) or "a single number"
        raise UrbanError(
            f"{path} holds {array.dtype} of {shape}, not numbers of rows × dimensions: reshape it"
            + (", or write a GeoTIFF if these are pixels" if array.ndim == 3 else "")
        )
    if 0 in array.shape:
        raise UrbanError(f"{path} is empty ({array.shape[0]} × {array.shape[1]}): save it again")
    values = np.asarray(array)
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
    check_finite(path, values)
    return values


def first_line(err: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(err).splitlines() or [type(err).__name__])[0]
