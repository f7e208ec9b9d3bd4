"""Which bytes of which file a block of tiles needs: what a resumed fetch must not read again.

A COG packs squares of pixels (its own tiles), each at one place in the file. A square belongs to
every block whose pixels are made from it. What an unfinished block needs must be read again after
a crash, also where a finished one had needed it: the memory of the dead process is gone. What
belongs to finished blocks alone must not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import shapely

from tests.world.front import Logged
from urbancli.grid import Block

REACH_PIXELS = 2
"""How far beyond its own box a block's resampling may look."""


@dataclass(frozen=True)
class Square:
    """A COG's tile: first and last byte in the file; its box, metres, in the file's CRS."""

    path: str
    first: int
    last: int
    box: shapely.Polygon


def squares(folder: Path, pattern: str) -> list[Square]:
    """Return the squares at full resolution of all COGs below a folder, paths relative to it."""
    import rasterio
    from rasterio.windows import bounds

    found = []
    for file in sorted(folder.rglob(pattern)):
        with rasterio.open(file) as dataset:
            reach = REACH_PIXELS * dataset.res[0]
            for (row, column), window in dataset.block_windows(1):
                name = f"{column}_{row}"
                start = int(dataset.get_tag_item(f"BLOCK_OFFSET_{name}", "TIFF", 1))
                size = int(dataset.get_tag_item(f"BLOCK_SIZE_{name}", "TIFF", 1))
                left, bottom, right, top = bounds(window, dataset.transform)
                box = shapely.box(left - reach, bottom - reach, right + reach, top + reach)
                path = file.relative_to(folder).as_posix()
                found.append(Square(path, start, start + size - 1, box))
    return found


def read_again(
    squares: Sequence[Square],
    finished: Iterable[Block],
    unfinished: Iterable[Block],
    log: Iterable[Logged],
) -> tuple[int, int]:
    """Return how many bytes of finished blocks were read again, and how many they have.

    Args:
        squares: of the files of a layer.
        finished: blocks that were staged before the crash.
        unfinished: the others of the layer.
        log: of the storage after the crash.
    """
    done, open_ = (
        shapely.union_all([shapely.box(*block.bounds) for block in blocks])
        for blocks in (list(finished), list(unfinished))
    )
    read: dict[str, list[tuple[int, int]]] = {}
    for each in log:
        if each.range and each.sent:
            first = each.range[0]
            read.setdefault(each.path, []).append((first, first + each.sent - 1))
    again = whole = 0
    for square in squares:
        if not shapely.intersects(square.box, done):
            continue
        whole += square.last - square.first + 1
        if shapely.intersects(square.box, open_):
            continue
        for path, ranges in read.items():
            if path.endswith(f"/{square.path}"):
                again += sum(_common(square, first, last) for first, last in ranges)
    return again, whole


def _common(square: Square, first: int, last: int) -> int:
    return max(0, min(square.last, last) - max(square.first, first) + 1)
