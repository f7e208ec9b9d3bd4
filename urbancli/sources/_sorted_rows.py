"""Rows that come in any order and leave in that of a layer's file; if many, they wait on disk.

What lies there are two files without a name, which go with the process whatever ends it: the rows
as they came, and the rows by the row group that they will be in. In memory are then some row groups
and, of every row, 25 bytes that sort it.
"""

import contextlib
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from urbancli.errors import UrbanError
from urbancli.grid import Floats, Integers
from urbancli.hilbert import hilbert_within
from urbancli.workspace import boxes_of, geometry_types

GROUP_ROWS = 65536
"""Rows of a row group."""

HELD_BYTES = 96 << 20
"""Of rows that are held in memory; when there are more, all go to disk."""

BATCH_BYTES = 16 << 20
"""Of rows that are put on disk at a time."""


class SortedRows:
    """Rows in Hilbert order of the centres of their boxes; in a tie by block, halo and rank.

    Attributes:
        blocks: ids of the blocks that hold any row, as they came.
        types: of the geometries.
        bounds: (west, south, east, north) of all geometries, EPSG:4326 degrees.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Begin with none."""
        self.blocks: list[str] = []
        self.types: list[str] = []
        self.bounds: list[float] = [0.0] * 4
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._came: _Batches | None = None
        self._schema = schema
        self._numbers: dict[str, int] = {}
        self._keys: list[tuple[npt.NDArray[Any], ...]] = []
        self._order = np.zeros(0, dtype=np.uint32)
        self._batches_of: list[list[tuple[int, npt.NDArray[np.uint32]]]] = []

    def add(self, table: pa.Table, rank: Integers, halo: bool) -> None:
        """Take rows.

        Args:
            table: of the schema, with `block`, `bbox` and `geometry`.
            rank: (N,) what sorts them beside others of the same block.
            halo: whether they come after all others of their block.
        """
        if not table.num_rows:
            return
        encoded = table.column("block").combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        numbers = np.array([self._numbers.setdefault(n, len(self._numbers)) for n in names])
        block = numbers[encoded.indices.to_numpy()].astype(np.int32)
        boxes = boxes_of(table)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        self._keys.append((rank, np.full(len(rank), halo), block, centres))
        low, high = np.fmin.reduce(boxes[:, :2]), np.fmax.reduce(boxes[:, 2:])
        if self.blocks:
            low, high = np.fmin(low, self.bounds[:2]), np.fmax(high, self.bounds[2:])
        self.bounds = [*low.tolist(), *high.tolist()]
        self.types = sorted({*self.types, *geometry_types(table.column("geometry"))})
        self.blocks = list(self._numbers)
        self._bytes += table.nbytes
        self._held.append(table)
        if self._came is None and self._bytes > HELD_BYTES:
            self._came = _Batches(self._schema)
        if self._came is not None:
            for each in self._held:
                self._came.add(each)
            self._held = []

    def sort(self, blocks: Sequence[str]) -> None:
        """Put the rows in order, all of which have been added.

        Args:
            blocks: ids of all blocks, in the order that decides between rows at one place.
        """
        ranks, halos, numbers, centres = zip(*self._keys, strict=True)
        self._keys = []
        place = {name: position for position, name in enumerate(blocks)}
        blocks_at = np.array([place[name] for name in self.blocks], dtype=np.int32)
        self._rank, self._halo = np.concatenate(ranks), np.concatenate(halos)
        self._block = np.concatenate(numbers)
        keys = (self._rank, self._halo, blocks_at[self._block], _hilbert(centres))
        del ranks, halos, numbers, centres
        self._order = np.lexsort(keys).astype(np.uint32)
        if self._came is not None:
            self._by_group(self._came)

    def _by_group(self, came: "_Batches") -> None:
        """Put rows that lie on disk there once more, by row group."""
        came.finish()
        position = np.empty_like(self._order)
        position[self._order] = np.arange(len(position), dtype=np.uint32)
        self._grouped = _Batches(self._schema)
        self._batches_of = [[] for _ in range(0, len(position), GROUP_ROWS)]
        begin = 0
        for table in came:
            here = position[begin : begin + table.num_rows]
            begin += len(here)
            self._scatter(table, here)
        self._grouped.finish()

    def _scatter(self, table: pa.Table, position: npt.NDArray[np.uint32]) -> None:
        """Put rows on disk by row group; `position` (N,) is where they will stand in the file."""
        order = np.argsort(position)
        table, position = table.take(pa.array(order)), position[order]
        starts = np.flatnonzero(np.diff(position // GROUP_ROWS, prepend=np.uint32(0xFFFFFFFF)))
        for start, end in zip(starts, np.append(starts[1:], len(position)), strict=True):
            group = int(position[start]) // GROUP_ROWS
            number = self._grouped.put(table.slice(start, end - start))
            self._batches_of[group].append((number, position[start:end]))

    def groups(self) -> Iterator[pa.Table]:
        """Yield the row groups, in order."""
        if self._came is None:
            whole = pa.concat_tables(self._held).combine_chunks()
            for start in range(0, len(self._order), GROUP_ROWS):
                yield whole.take(pa.array(self._order[start : start + GROUP_ROWS]))
            return
        for batches in self._batches_of:
            table = pa.concat_tables([self._grouped.get(number) for number, _ in batches])
            yield table.take(pa.array(np.argsort(np.concatenate([each for _, each in batches]))))

    def of_block(self, block: str) -> pa.Table:
        """Return the rows of one block, those of the halo last, each by rank."""
        number, begin = self._numbers.get(block, -1), 0
        found, rows = [self._schema.empty_table()], [np.zeros(0, dtype=np.int64)]
        for table in self._held if self._came is None else self._came:
            here = np.flatnonzero(self._block[begin : begin + table.num_rows] == number)
            found.append(table.take(pa.array(here)))
            rows.append(here + begin)
            begin += table.num_rows
        row = np.concatenate(rows)
        return pa.concat_tables(found).take(
            pa.array(np.lexsort((self._rank[row], self._halo[row])))
        )


def _hilbert(centres: Sequence[Floats]) -> npt.NDArray[np.uint32]:
    """Return where points lie along the curve of `hilbert_order_of_boxes`, some at a time.

    Args:
        centres: arrays (N, 2).
    """
    low = np.fmin.reduce([np.fmin.reduce(each) for each in centres])
    high = np.fmax.reduce([np.fmax.reduce(each) for each in centres])
    return np.concatenate([hilbert_within(each, low, high).astype(np.uint32) for each in centres])


class _Batches:
    """Tables on disk, one after the other; read when all are there."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._bytes = 0
        self._count = 0
        with _room():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with these batches)
            options = ipc.IpcWriteOptions(compression="lz4")
            self._writer = ipc.new_file(self._file, schema, options=options)
        self._reader: Any = None
        weakref.finalize(self, self._file.close)

    def add(self, table: pa.Table) -> None:
        """Add rows; few of them wait for more."""
        self._waiting.append(table)
        self._bytes += table.nbytes
        if self._bytes >= BATCH_BYTES:
            self._flush()

    def put(self, table: pa.Table) -> int:
        """Write a table, and return its number."""
        with _room():
            self._writer.write_batch(table.combine_chunks().to_batches()[0])
        self._count += 1
        return self._count - 1

    def _flush(self) -> None:
        if self._waiting:
            self.put(pa.concat_tables(self._waiting))
        self._waiting, self._bytes = [], 0

    def finish(self) -> None:
        """Read from now on."""
        self._flush()
        with _room():
            self._writer.close()
            self._file.flush()
        self._file.seek(0)
        self._reader = ipc.open_file(self._file)

    def get(self, number: int) -> pa.Table:
        """Return a table by its number."""
        return pa.Table.from_batches([self._reader.get_batch(number)], self._schema)

    def __iter__(self) -> Iterator[pa.Table]:
        return map(self.get, range(self._count))


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Say where room is wanted where a disk is full."""
    try:
        yield
    except OSError as err:
        raise UrbanError(
            f"cannot put entities on disk in {tempfile.gettempdir()} ({err}): free space there, or "
            "set TMPDIR"
        ) from err
