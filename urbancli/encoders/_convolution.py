"""Responses of random filters to imagery, summed over boxes of windows: every pixel once.

A box is a range of positions of a patch within a window: of those whose whole patch lies in the
window, or in one cell of it. What lies outside never enters its sum.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from urbancli.encoders._images import Images, Window
from urbancli.encoders._windows import check_pixels
from urbancli.encoders.base import State
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import BLOCK_TILES, Places
from urbancli.hilbert import hilbert_index
from urbancli.layers import PixelLayer

BAND_LIMIT = 50.0
"""Standardised samples are clipped here: one broken pixel must not fill a window."""

GROUP_PLACES = 64
"""Places convolved together at most: a block of tiles."""

STRIP_BYTES = 16 << 20
"""Responses held at once."""

CELL_BYTES = 64 << 20
"""Sums between the cuts of a group's cells held at once."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Result = TypeVar("Result")


def in_threads(jobs: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """Yield what jobs return, in their order, each on one thread, as many at once as torch has.

    Strips are small, and OpenMP threads spin at every barrier: beside another busy process on two
    cores, two threads in one convolution took 14 times as long as one. So whole groups run side by
    side instead, which also makes the sums the same on any number of cores. Jobs are drawn from the
    iterator, which reads the pixels, by the calling thread alone.
    """
    import torch

    threads = torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)

    try:
        with ThreadPoolExecutor(threads, initializer=alone) as pool:
            waiting: deque[Future[Result]] = deque()
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)


def finite(
    samples: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return samples (bands, H, W) and their validity: what is no finite number is invalid."""
    if samples.dtype.kind == "f":
        valid = valid & np.isfinite(samples).all(axis=0)
    return samples, valid


def whole(valid: npt.NDArray[np.bool_], patch_px: int) -> npt.NDArray[np.bool_]:
    """Return where a patch starts that is valid throughout, (H − p + 1, W − p + 1)."""
    height, width = valid.shape[0] - patch_px + 1, valid.shape[1] - patch_px + 1
    rows = np.logical_and.reduce([valid[k : k + height] for k in range(patch_px)])
    found: npt.NDArray[np.bool_] = np.logical_and.reduce(
        [rows[:, k : k + width] for k in range(patch_px)]
    )
    return found


def standardise(samples: npt.NDArray[Any], mean: Floats, std: Floats) -> npt.NDArray[np.float32]:
    """Return clipped z-scores of samples (..., bands, height, width), float32."""
    scaled = (samples - mean[:, None, None]) / std[:, None, None]
    return np.clip(scaled, -BAND_LIMIT, BAND_LIMIT).astype(np.float32)


# --- responses of places ---------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """Mean responses in the boxes of the windows of N places: the window, then its cells.

    Attributes:
        means: (N, B, K).
        enough: (N, B), whether at least half of the positions in a box are valid.
        corners: (N, B, 8) of the window and its cells, x and y in turn, counter-clockwise from the
            lower left, in tile sides from the south-west corner of the tile around the place.
    """

    means: Floats
    enough: npt.NDArray[np.bool_]
    corners: Floats


def layer_responses(
    layer: PixelLayer, places: Places, window_m: float, grid: int, state: State
) -> Responses:
    """Return the responses around places, every pixel of a layer convolved once.

    Args:
        layer: what is seen.
        places: N places.
        window_m: side of their windows, metres.
        grid: cells along a side, 0 for none.
        state: `mean`, `std`, `filters`, `bias` of the encoder.

    Raises:
        UrbanError: the layer has other bands than the fitted one, or too coarse pixels.
    """
    _check_bands(len(layer.bands), state)
    count, patch_px = len(state["filters"]), state["filters"].shape[-1]
    columns, rows, side = windows(layer, places, window_m, patch_px)
    boxes = boxes_of(side, patch_px, grid)
    parts = list(groups(columns, rows, side, layer))
    if grid:
        parts = [
            part for group in parts for part in within_memory(group, columns, rows, boxes, count)
        ]

    def job(part: Integers) -> Callable[[], Floats]:
        left, top = int(columns[part].min()), int(rows[part].min())
        width, height = np.ptp(columns[part]) + side, np.ptp(rows[part]) + side
        samples, valid = finite(*layer.read(left, top, int(width), int(height)))
        west, north = columns[part] - left, rows[part] - top
        return lambda: box_sums(samples, valid, west, north, boxes, state)

    sums = np.zeros((len(places), len(boxes), count + 1))
    for part, found in zip(parts, in_threads(map(job, parts)), strict=True):
        sums[part] = found
    left_m, top_m = columns * layer.pixel_m, -rows * layer.pixel_m
    corners = _corners(left_m, top_m, layer.pixel_m * cell_edges(side, grid), places)
    return _responses(sums, boxes, corners)


def image_responses(
    images: Images, places: Places, window_m: float, grid: int, state: State
) -> Responses:
    """Return the responses in an image for each of the places; as `layer_responses`."""
    _check_bands(len(images.bands), state)
    count, patch_px = len(state["filters"]), state["filters"].shape[-1]
    start = np.zeros(1, np.int64)

    def job(window: Window) -> Callable[[], tuple[int, int, Floats]]:
        number, samples, valid = window[0], *finite(*window[1:])
        side = len(valid)
        check_pixels(window_m, window_m / side, patch_px)
        boxes = boxes_of(side, patch_px, grid)
        return lambda: (number, side, box_sums(samples, valid, start, start, boxes, state)[0])

    side, sums = patch_px * max(grid, 1), None
    for number, width, found in in_threads(map(job, images.windows(places, window_m))):
        if sums is None:
            side, sums = width, np.zeros((len(places), *found.shape))
        sums[number] = found
    boxes = boxes_of(side, patch_px, grid)
    if sums is None:
        sums = np.zeros((len(places), len(boxes), count + 1))
    left_m, top_m = places.x - window_m / 2, places.y + window_m / 2
    corners = _corners(left_m, top_m, window_m / side * cell_edges(side, grid), places)
    return _responses(sums, boxes, corners)


def windows(
    layer: PixelLayer, places: Places, window_m: float, patch_px: int
) -> tuple[Integers, Integers, int]:
    """Return first column, first row and side of windows in pixels, as `PixelLayer.window`."""
    side = round(window_m / layer.pixel_m)
    check_pixels(window_m, layer.pixel_m, patch_px)
    columns = np.round(places.x / layer.pixel_m - side / 2).astype(np.int64)
    rows = np.round(-places.y / layer.pixel_m - side / 2).astype(np.int64)
    return columns, rows, side


def _check_bands(bands: int, state: State) -> None:
    if bands != state["filters"].shape[1]:
        raise UrbanError(
            f"the imagery has {bands} bands, the encoder was fitted on "
            f"{state['filters'].shape[1]}: fetch the same bands for every city"
        )


def _responses(sums: Floats, boxes: Integers, corners: Floats) -> Responses:
    """Return means of the sums (N, B, K + 1), in place; their last column counts positions."""
    means, counts = sums[..., :-1], sums[..., -1]
    means /= np.maximum(counts, 1)[..., None]
    positions = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    return Responses(means, counts >= positions / 2, corners[:, : len(boxes)])


def _corners(
    left_m: npt.NDArray[Any], top_m: npt.NDArray[Any], edges_m: npt.NDArray[Any], places: Places
) -> Floats:
    """Return the corners (N, B, 8) of windows and their cells; see `Responses`.

    Args:
        left_m: easting of the windows' west sides, (N,).
        top_m: northing of their north sides, (N,).
        edges_m: where cells begin and end, from the west or north side, (grid + 1,).
        places: N places.
    """
    tile_m = places.grid.tile_m
    east = (left_m - places.x)[:, None] / tile_m + 0.5 + edges_m / tile_m
    north = (top_m - places.y)[:, None] / tile_m + 0.5 - edges_m / tile_m
    cells = range(len(edges_m) - 1)
    ends = [(0, -1, 0, -1), *((a, a + 1, b, b + 1) for a in cells for b in cells)]
    top, bottom, west, right = np.array(ends).T
    x, y = (east[:, west], east[:, right]), (north[:, top], north[:, bottom])
    return np.stack([x[0], y[1], x[1], y[1], x[1], y[0], x[0], y[0]], axis=2)


# --- boxes of positions ----------------------------------------------------------------------


def cell_edges(side: int, grid: int) -> Integers:
    """Return where the cells of a window of `side` pixels begin and end, (grid + 1,) pixels.

    Of the window itself where `grid` is 0.
    """
    grid = max(grid, 1)
    return np.round(np.arange(grid + 1) * side / grid).astype(np.int64)


def boxes_of(side: int, patch_px: int, grid: int) -> Integers:
    """Return the boxes of a window, (1 + grid², 4): first and last row, first and last column.

    The last ones are excluded. First comes the whole window, then its cells from the north-west
    eastwards; no cells where `grid` is 0.

    Raises:
        UsageError: a cell is smaller than a patch.
    """
    ends = [(0, side - patch_px + 1)]
    if grid:
        edges = cell_edges(side, grid)
        if np.diff(edges).min() < patch_px:
            raise UsageError(
                f"grid={grid} does not fit: a window of {side} pixels has room for "
                f"{side // patch_px} patches of {patch_px} a side at most"
            )
        ends += zip(edges[:-1].tolist(), (edges[1:] - patch_px + 1).tolist(), strict=True)
    cells = itertools.product(ends[1:], ends[1:])
    return np.array([(*ends[0], *ends[0]), *((*row, *column) for row, column in cells)])


# --- groups of windows -----------------------------------------------------------------------


def groups(columns: Integers, rows: Integers, side: int, layer: PixelLayer) -> Iterator[Integers]:
    """Yield the indices of windows to convolve together: of one block, near to each other.

    Windows that leave most of their common box unread go alone.
    """
    block_px = round(BLOCK_TILES * layer.grid.tile_m / layer.pixel_m)
    centres = np.column_stack([columns, rows]) + side // 2
    _, block = np.unique(centres // block_px, axis=0, return_inverse=True)
    along = hilbert_index(*(centres % block_px).T)
    order = np.lexsort([along, block.ravel()])
    for run in np.split(order, np.flatnonzero(np.diff(block.ravel()[order])) + 1):
        for start in range(0, len(run), GROUP_PLACES):
            group = run[start : start + GROUP_PLACES]
            box = (np.ptp(columns[group]) + side) * (np.ptp(rows[group]) + side)
            if box <= len(group) * side**2:
                yield group
            else:
                yield from group[:, None]


def within_memory(
    group: Integers, columns: Integers, rows: Integers, boxes: Integers, filters: int
) -> Iterator[Integers]:
    """Yield a group, in parts where its windows are cut at too many places to sum them at once."""
    cuts = len(_cuts(columns[group], boxes[:, 2:])) * len(_cuts(rows[group], boxes[:, :2]))
    if len(group) == 1 or 8 * cuts * (filters + 1) <= CELL_BYTES:
        yield group
        return
    for half in np.array_split(group, 2):
        yield from within_memory(half, columns, rows, boxes, filters)


def box_sums(
    samples: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    west: Integers,
    north: Integers,
    boxes: Integers,
    state: State,
) -> Floats:
    """Return responses summed over the boxes of windows, (n, B, K + 1).

    Every pixel is convolved once. The sides of all boxes cut the positions into cells; responses
    are summed per cell, and a box is the sum of its cells. Unlike the differences of a summed-area
    table this cancels nothing: what lies outside a box never enters it. The last column counts the
    valid positions.

    Args:
        samples: (bands, H, W), of all windows together.
        valid: (H, W).
        west: first column of each window, (n,).
        north: first row of each, (n,).
        boxes: of a window, `boxes_of`; the first holds all others.
        state: `mean`, `std`, `filters`, `bias` of the encoder.
    """
    column_cuts, row_cuts = _cuts(west, boxes[:, 2:]), _cuts(north, boxes[:, :2])
    bands = [
        np.add.reduceat(_row_sums(samples, valid, cut, state), column_cuts[:-1], axis=1)
        for cut in itertools.pairwise(row_cuts.tolist())
    ]
    cells = np.stack(bands, axis=1)
    first_row, last_row = np.searchsorted(row_cuts, north[:, None, None] + boxes[:, :2]).T
    first_column, last_column = np.searchsorted(column_cuts, west[:, None, None] + boxes[:, 2:]).T
    out = np.empty((len(west), len(boxes), len(cells)))
    for box, window in np.ndindex(first_row.shape):
        rows = slice(first_row[box, window], last_row[box, window])
        columns = slice(first_column[box, window], last_column[box, window])
        out[window, box] = cells[:, rows, columns].sum(axis=(1, 2))
    return out


def _cuts(starts: Integers, ends: Integers) -> Integers:
    """Return where the sides of the boxes of windows lie along an axis, sorted."""
    return np.unique(starts[:, None, None] + ends)


def _row_sums(
    samples: npt.NDArray[Any], valid: npt.NDArray[np.bool_], span: tuple[int, int], state: State
) -> Floats:
    """Return responses summed over the positions of rows [first, last), (K + 1, columns).

    The last row counts valid positions: a filter of zeros with bias 1 responds 1 everywhere.
    """
    import torch

    filters, patch_px = state["filters"], state["filters"].shape[-1]
    weight = torch.from_numpy(np.concatenate([filters, np.zeros_like(filters[:1])]))
    bias = torch.from_numpy(np.append(state["bias"], np.float32(1)))
    columns = samples.shape[2] - patch_px + 1
    step = max(1, STRIP_BYTES // (4 * len(bias) * columns))
    total = torch.zeros((len(bias), columns), dtype=torch.float64)
    with torch.inference_mode():
        for start in range(*span, step):
            rows = slice(start, min(start + step, span[1]) + patch_px - 1)
            strip = standardise(samples[:, rows], state["mean"], state["std"])
            strip[:, ~valid[rows]] = 0
            response = torch.conv2d(torch.from_numpy(strip)[None], weight, bias)[0].relu_()
            usable = whole(valid[rows], patch_px)
            if not usable.all():
                response *= torch.from_numpy(usable)
            total += response.sum(dim=1)
    return total.numpy()
