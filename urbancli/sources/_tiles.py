"""The rows of pixel layers: which of a block's tiles are wanted, and its samples cut into them.

What a row says beside its pixels follows from the grid. It is made for many blocks at once, as a
block of small tiles is read in less time than 64 ids, outlines and boxes take one by one.
"""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli.grid import BLOCK_TILES, Block, Grid, Integers, Places, parse_tile_id
from urbancli.hilbert import hilbert_index
from urbancli.layers import PIXEL_SCHEMA, pack_valid
from urbancli.workspace import geo_table

SATELLITE_WINDOW_M = 2560.0
"""The widest window a published encoder looks at (UrbanFusion's 256 px of 10 m): the halo."""

LARGEST_ARRAY = (1 << 31) - 1
"""Bytes that one Arrow array of binary values may hold."""

CHUNK_BLOCKS = 16
"""Blocks whose rows are made at once."""

KEPT_CHUNKS = 64
"""Chunks kept, so that as many readers as may be (`--workers`) can each be in one of their own."""

_NUMBERS = np.arange(BLOCK_TILES**2)

ROWS_FROM_SOUTH, COLUMNS = np.divmod(
    np.argsort(hilbert_index(_NUMBERS % BLOCK_TILES, _NUMBERS // BLOCK_TILES, bits=3)), BLOCK_TILES
)
"""Row and column of a block's tiles, (64,) each, along a Hilbert curve."""

Part = tuple[slice, slice]
"""Rows and columns of a block's samples that are one tile."""


def halo_cells(places: Places) -> Integers:
    """Return (column, row) of a city's tiles and of the halo around them, sorted, shape (N, 2)."""
    beyond = max(0.0, (SATELLITE_WINDOW_M - places.grid.tile_m) / 2)
    return places.grid.halo(places.cells, beyond)


class WantedTiles:
    """The tiles that a layer has rows of, by block. Shared by threads; can be pickled.

    Args:
        grid: of the tiles.
        cells: their (column, row), shape (N, 2), without repeats.
    """

    def __init__(self, grid: Grid, cells: Integers) -> None:
        self.grid = grid
        self.blocks = grid.blocks(cells)
        self._number = {block: number for number, block in enumerate(self.blocks)}
        self._masks = self._marked(cells)
        self._count = len(cells)
        self._forget()

    def __len__(self) -> int:
        """Return how many tiles there are."""
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: nothing that can be made again."""
        return {k: v for k, v in vars(self).items() if k not in {"_lock", "_made"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take that."""
        vars(self).update(state)
        self._forget()

    def rows(
        self, block: Block, samples: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
    ) -> pa.Table:
        """Return one row per wanted tile of a block that has any valid pixel, in Hilbert order.

        Args:
            block: the block.
            samples: (bands, S, S) of the whole block, first row north.
            valid: (S, S).
        """
        number = self._number[block]
        order = self._order(number)
        shares, bits = _validity(valid, order)
        kept = np.flatnonzero(shares > 0)
        if not len(kept):
            return PIXEL_SCHEMA.empty_table()
        rows = self._rows(number)
        if len(kept) < len(order):
            rows, order = rows.take(pa.array(kept)), order[kept]
        columns = {
            "valid_fraction": pa.array(shares[kept]),
            "pixels": _cut(samples, order, samples.shape[1] // BLOCK_TILES),
            "valid": pa.array([bits[tile] for tile in kept.tolist()], pa.binary()),
        }
        return pa.table(
            [columns[n] if n in columns else rows.column(n) for n in PIXEL_SCHEMA.names],
            schema=PIXEL_SCHEMA,
        )

    def _forget(self) -> None:
        """Forget the rows that were made."""
        self._lock = threading.Lock()
        self._made: OrderedDict[int, tuple[pa.Table, Integers]] = OrderedDict()

    def _marked(self, cells: Integers) -> npt.NDArray[np.uint64]:
        """Return which tiles of each block are wanted, a bit each in Hilbert order, (blocks,)."""
        bit = np.empty((BLOCK_TILES, BLOCK_TILES), dtype=np.uint64)
        bit[ROWS_FROM_SOUTH, COLUMNS] = np.arange(BLOCK_TILES**2)
        # One number a block, far faster to sort than pairs.
        keys = np.array([(b.column << 32) + b.row for b in self.blocks], dtype=np.int64)
        column, row = np.floor_divide(cells, BLOCK_TILES).T
        by_key = np.argsort(keys)
        number = by_key[np.searchsorted(keys, (column << 32) + row, sorter=by_key)]
        masks = np.zeros(len(self.blocks), dtype=np.uint64)
        column, row = np.mod(cells, BLOCK_TILES).T
        np.bitwise_or.at(masks, number, np.uint64(1) << bit[row, column])
        return masks

    def _order(self, number: int) -> Integers:
        """Return (row from the north, column) in a block of its wanted tiles, in Hilbert order."""
        order = np.flatnonzero(_bits(self._masks[number : number + 1])[0])
        return np.column_stack([BLOCK_TILES - 1 - ROWS_FROM_SOUTH[order], COLUMNS[order]])

    def _rows(self, number: int) -> pa.Table:
        """Return id, block, box and outline of a block's wanted tiles."""
        chunk, place = divmod(number, CHUNK_BLOCKS)
        with self._lock:
            if chunk not in self._made:
                self._made[chunk] = self._make(chunk * CHUNK_BLOCKS)
            self._made.move_to_end(chunk)
            while len(self._made) > KEPT_CHUNKS:
                self._made.popitem(last=False)
            table, begin = self._made[chunk]
        return table.slice(begin[place], begin[place + 1] - begin[place])

    def _make(self, first: int) -> tuple[pa.Table, Integers]:
        """Return the rows of a chunk of blocks, and where each block's begin."""
        blocks = self.blocks[first : first + CHUNK_BLOCKS]
        block, tile = np.nonzero(_bits(self._masks[first : first + CHUNK_BLOCKS]))
        corners = np.array([(b.column, b.row) for b in blocks]) * BLOCK_TILES
        cells = corners[block] + np.column_stack([COLUMNS, ROWS_FROM_SOUTH])[tile]
        columns = {"place_id": self.grid.tile_ids(cells), "block": self.grid.block_ids(cells)}
        boxes = self.grid.unproject_geometry(self.grid.tile_boxes(cells))
        begin = np.searchsorted(block, np.arange(len(blocks) + 1))
        return geo_table(columns, boxes), begin


def tile_part(place_id: str, side: int) -> Part:
    """Return where a tile's pixels lie in the samples of its block.

    Args:
        place_id: the tile's.
        side: pixels along a tile.
    """
    _, column, row = parse_tile_id(place_id)
    left = column % BLOCK_TILES * side
    top = (BLOCK_TILES - 1 - row % BLOCK_TILES) * side
    return slice(top, top + side), slice(left, left + side)


def _bits(masks: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return the 64 bits of numbers (N,), the lowest first, shape (N, 64)."""
    return (masks[:, None] >> _NUMBERS.astype(np.uint64) & np.uint64(1)).astype(bool)


def _validity(
    valid: npt.NDArray[np.bool_], places: Integers
) -> tuple[npt.NDArray[np.float64], list[bytes]]:
    """Return the valid share (N,) of tiles of a block, and the packed bits where it is between.

    Args:
        valid: (S, S) of the block.
        places: (N, 2) row from the north and column of the tiles.
    """
    if valid.all():
        return np.ones(len(places)), [b""] * len(places)
    side = len(valid) // BLOCK_TILES
    tiles = valid.reshape(BLOCK_TILES, side, BLOCK_TILES, side).swapaxes(1, 2)
    packed = [pack_valid(tiles[row, column]) for row, column in places.tolist()]
    return np.array([share for share, _ in packed]), [bits for _, bits in packed]


def _cut(samples: npt.NDArray[Any], places: Integers, side: int) -> pa.ChunkedArray:
    """Return tiles of a block as binary values, copied once: C-order, little-endian.

    Args:
        samples: (bands, S, S) of the whole block.
        places: (N, 2) row from the north and column of the tiles.
        side: pixels along a tile.
    """
    bands = len(samples)
    tiles = samples.reshape(bands, BLOCK_TILES, side, BLOCK_TILES, side).transpose(1, 3, 0, 2, 4)
    tile_bytes = bands * side * side * samples.itemsize
    most = max(1, LARGEST_ARRAY // tile_bytes)
    arrays = []
    for start in range(0, len(places), most):
        row, column = places[start : start + most].T
        little = samples.dtype.newbyteorder("<")
        pixels = np.empty((len(row), bands, side, side), dtype=little)
        for tile, (south, east) in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
            pixels[tile] = tiles[south, east]
        offsets = np.arange(len(row) + 1, dtype=np.int64) * tile_bytes
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(pixels)]
        arrays.append(pa.Array.from_buffers(pa.binary(), len(row), buffers))
    return pa.chunked_array(arrays, pa.binary())
