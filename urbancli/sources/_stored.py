"""Pixels of a raster that lies on the tiles' own pixel grid: read as they are stored, not warped.

A warp of a raster onto the grid it is on changes nothing and costs several times the reading.
Blocks of tiles and the blocks that a file stores do not coincide: what was decoded for one block
of tiles is kept for its neighbours, on whichever thread they are read.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

KEPT_BYTES = 128 << 20
"""Of decoded pixels that neighbouring blocks of tiles may want."""

LEAST_SIDE = 512
"""Pixels decoded at a time, at least, in either direction: what most COGs store as a block."""

Pixels = npt.NDArray[Any]
Key = tuple[Hashable, int, int]


class Box(NamedTuple):
    """Columns and rows of a raster, from the north-west, `right` and `bottom` not included."""

    left: int
    top: int
    right: int
    bottom: int

    def within(self, other: "Box") -> "Box":
        """Return what of this box lies in another; empty where right ≤ left or bottom ≤ top."""
        return Box(
            max(self.left, other.left), max(self.top, other.top),
            min(self.right, other.right), min(self.bottom, other.bottom),
        )  # fmt: skip

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def shape(self, bands: int) -> tuple[int, int, int]:
        """Return (bands, height, width)."""
        return bands, self.bottom - self.top, self.right - self.left

    def part_of(self, other: "Box") -> tuple[slice, slice, slice]:
        """Return where this box lies in (bands, height, width) of a box that holds it."""
        rows = slice(self.top - other.top, self.bottom - other.top)
        return slice(None), rows, slice(self.left - other.left, self.right - other.left)


class StoredBlocks:
    """Reads rasters in the blocks they are stored in, each decoded once; shared by threads."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Future[Pixels]] = OrderedDict()
        self._left: dict[Key, int] = {}
        self._own = threading.local()

    def scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pixels:
        """Return an array of this thread's, of any content, that is its own until it asks again.

        Fresh memory for every block of tiles would cost about as much as a copy of the pixels.

        Args:
            name: what it is for.
            shape: of the array.
            dtype: of the array.
        """
        array = vars(self._own).get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            array = vars(self._own)[name] = np.empty(shape, dtype)
        return array

    def read(
        self, name: Hashable, dataset: Any, bands: Sequence[int], box: Box, into: Pixels
    ) -> None:
        """Read the pixels of a box that lies within a raster.

        Args:
            name: of the raster, the same on every thread.
            dataset: the raster, opened on this thread.
            bands: their numbers, from 1; for one name always the same.
            box: which pixels.
            into: (bands, height, width) of the box, which is filled.
        """
        whole = Box(0, 0, dataset.width, dataset.height)
        shared: list[tuple[Key, Box]] = []
        for key, stored in _stored_boxes(name, dataset, box):
            inside = stored.within(whole)
            if inside.within(box) == inside:  # no neighbour wants any of it
                _decode(dataset, bands, inside, into[inside.part_of(box)])
            else:
                shared.append((key, inside))
        futures = self._claim([key for key, _ in shared])
        mine = [(key, part) for key, part in shared if futures[key][1]]
        try:
            # What nobody has begun comes first: so no two threads wait for each other.
            while mine:
                key, part = mine[0]
                pixels = np.empty(part.shape(len(bands)), dtype=dataset.dtypes[0])
                _decode(dataset, bands, part, pixels)
                futures[key][0].set_result(pixels)
                self._keep(pixels.nbytes)
                mine.pop(0)
        except BaseException as err:
            self._abandon([key for key, _ in mine], err)
            raise
        for key, part in shared:
            pixels = futures[key][0].result()
            wanted = part.within(box)
            into[wanted.part_of(box)] = pixels[wanted.part_of(part)]
            self._give(key, part.area, wanted.area, pixels.nbytes)

    def _claim(self, keys: Sequence[Key]) -> dict[Key, tuple["Future[Pixels]", bool]]:
        """Return for each block its future, and whether the caller is to decode it."""
        claimed = {}
        with self._lock:
            for key in keys:
                mine = key not in self._kept
                if mine:
                    self._kept[key] = Future()
                self._kept.move_to_end(key)
                claimed[key] = (self._kept[key], mine)
        return claimed

    def _keep(self, more: int) -> None:
        """Count bytes, and let go the blocks used longest ago."""
        with self._lock:
            self._bytes += more
            while self._bytes > self._most:
                oldest = next((k for k, future in self._kept.items() if future.done()), None)
                if oldest is None:
                    break
                self._bytes -= self._kept.pop(oldest).result().nbytes
                self._left.pop(oldest, None)

    def _give(self, key: Key, area: int, given: int, size: int) -> None:
        """Note how many of a block's pixels were given out, and let it go once all were.

        Args:
            key: of the block.
            area: its pixels.
            given: of them.
            size: of the block, bytes.
        """
        with self._lock:
            if key in self._kept:
                self._left[key] = self._left.get(key, area) - given
                if not self._left[key]:
                    del self._left[key], self._kept[key]
                    self._bytes -= size

    def _abandon(self, keys: Sequence[Key], why: BaseException) -> None:
        """Tell those who wait for blocks why there are none; the next to ask reads again."""
        with self._lock:
            for key in keys:
                self._kept.pop(key).set_exception(why)


def _stored_boxes(name: Hashable, dataset: Any, box: Box) -> list[tuple[Key, Box]]:
    """Return the blocks, as decoded at a time, that a box meets; they may pass the raster's end."""
    high, wide = (-(-LEAST_SIDE // side) * side for side in dataset.block_shapes[0])
    return [
        ((name, row, column), Box(column * wide, row * high, (column + 1) * wide, (row + 1) * high))
        for row in range(box.top // high, -(-box.bottom // high))
        for column in range(box.left // wide, -(-box.right // wide))
    ]


def _decode(dataset: Any, bands: Sequence[int], box: Box, into: Pixels) -> None:
    from rasterio.windows import Window

    window = Window(box.left, box.top, box.right - box.left, box.bottom - box.top)
    dataset.read(bands, window=window, out=into)
