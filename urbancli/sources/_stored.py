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


class Scratch(threading.local):
    """Arrays that a thread fills anew for every block of tiles.

    Fresh memory for each would cost about as much as a copy of the pixels, and far more where many
    threads ask for it.
    """

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Pixels:
        """Return an array of any content, this thread's own until it asks again.

        Args:
            name: what it is for.
            shape: of the array.
            dtype: of the array.
        """
        array: Pixels | None = vars(self).get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            array = vars(self)[name] = np.empty(shape, dtype)
        return array

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        """Give another process one of its own."""
        return Scratch, ()


class StoredBlocks:
    """Reads rasters in the blocks they are stored in, each decoded once; shared by threads."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Future[Pixels]] = OrderedDict()
        self._left: dict[Key, int] = {}

    def __reduce__(self) -> tuple[type["StoredBlocks"], tuple[int]]:
        """Give another process one that has kept nothing."""
        return StoredBlocks, (self._most,)

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
        stored = {key: part.within(whole) for key, part in _stored_boxes(name, dataset, box)}
        own = [part for part in stored.values() if part.within(box) == part]  # no neighbour's
        for large in joined(own):
            _decode(dataset, bands, large, into[large.part_of(box)])
        shared = {key: part for key, part in stored.items() if part.within(box) != part}
        futures = self._claim(list(shared))
        mine = {shared[key]: key for key, (_, first) in futures.items() if first}
        try:
            # What nobody has begun comes first: so no two threads wait for each other.
            for large in joined(list(mine)):
                pixels = np.empty(large.shape(len(bands)), dtype=dataset.dtypes[0])
                _decode(dataset, bands, large, pixels)
                for part in [part for part in mine if part.within(large) == part]:
                    key = mine.pop(part)
                    kept = pixels if part == large else pixels[part.part_of(large)].copy()
                    futures[key][0].set_result(kept)
                    self._keep(kept.nbytes)
        except BaseException as err:
            self._abandon(list(mine.values()), err)
            raise
        for key, part in shared.items():
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


def joined(parts: Sequence[Box]) -> list[Box]:
    """Return parts of a lattice, none twice, as fewer boxes: of a remote raster one request each.

    Runs of a row are joined, and then runs of equal width that follow each other downwards.
    """
    runs: list[Box] = []
    for part in sorted(parts, key=lambda box: (box.top, box.left)):
        last = runs[-1] if runs else None
        if last and (last.top, last.bottom, last.right) == (part.top, part.bottom, part.left):
            runs[-1] = last._replace(right=part.right)
        else:
            runs.append(part)
    boxes: dict[tuple[int, int, int], Box] = {}  # by left, right, and where the next one begins
    for run in runs:
        above = boxes.pop((run.left, run.right, run.top), run)
        boxes[run.left, run.right, run.bottom] = above._replace(bottom=run.bottom)
    return list(boxes.values())


def _decode(dataset: Any, bands: Sequence[int], box: Box, into: Pixels) -> None:
    from rasterio.windows import Window

    window = Window(box.left, box.top, box.right - box.left, box.bottom - box.top)
    dataset.read(bands, window=window, out=into)
