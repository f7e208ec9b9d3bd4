"""Random convolutional features of imagery: no download, no training, strictly local.

After Rolf et al. 2021, "A generalizable and accessible approach to machine learning with global
satellite imagery" (MOSAIKS, Nature Communications 12:4392), and Coates & Ng 2012: filters are
random patches of the imagery itself, ZCA-whitened; a feature is the mean over an image of
ReLU(whitened patch · whitened window − 1).

Deviations: 256 filters instead of 8,192, without their negatives; filters scaled to length 1;
whitening from 16,384 patches; bands standardised first and clipped at 50 standard deviations;
features standardised at the end. The threshold is the published code's, not tuned on any label.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from urbancli.encoders import base
from urbancli.encoders.base import State
from urbancli.errors import UrbanError
from urbancli.grid import BLOCK_TILES, Places
from urbancli.hilbert import hilbert_index
from urbancli.layers import CityLayers, PixelLayer
from urbancli.tokens import Tokens, single_tokens

FIT_PLACES = 512
"""Places drawn to fit on; more would not change the statistics, and cost reading."""

WHITENING_PATCHES = 16384
"""Patches that the whitening is estimated from; the filters are drawn among them."""

WHITENING_FLOOR = 1e-2
"""Added to the variances before they are inverted, so that sensor noise is not blown up."""

THRESHOLD = 1.0
"""Taken off every response before the ReLU, about one standard deviation of them."""

BAND_LIMIT = 50.0
"""Standardised samples are clipped here: one broken pixel must not fill a window."""

VALUE_LIMIT = 1000.0
"""Features are clipped here, so that float16 holds them also in a city unlike the fitted one."""

GROUP_PLACES = 64
"""Places convolved together at most: a block of tiles."""

STRIP_BYTES = 16 << 20
"""Responses held at once."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """One token of `filters` float16 features per place, standardised over the fitted places.

    The mean is over the positions in the window of `window_m` around the centre (as
    `PixelLayer.window` snaps it) whose whole patch lies in the window and is valid. A place with
    less than half of its positions valid is absent.
    """

    modalities: ClassVar[tuple[str, ...]] = ("sentinel2", "naip", "sentinel1")
    version: ClassVar[int] = 2  # of more than 4,096 places, in the last digit of some values
    window_m: float = 600.0
    filters: int = 256
    patch_px: int = 3

    def fit(self, city: CityLayers, modality: str, places: Places, seed: int) -> State:
        """Return statistics and filters from the windows of at most FIT_PLACES of the places.

        Returns:
            `mean`, `std` (bands,); `filters` (K, bands, p, p) and `bias` (K,), to be applied to
            standardised bands; `centre`, `scale` (K,) of the features.

        Raises:
            UrbanError: the windows hold no valid patch.
        """
        layer, rng = city.pixels(modality), np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(places), min(len(places), FIT_PLACES), replace=False))
        places = places.take(chosen)
        mean, std, patches = self._draw(layer, places, rng)
        if not len(patches):
            raise UrbanError(
                f"no valid {modality} pixels around the places of '{city.key}': "
                "fetch imagery that covers them"
            )
        shape = (-1, len(mean), self.patch_px, self.patch_px)
        flat = _standardise(patches, mean, std).reshape(len(patches), -1).astype(np.float64)
        filters, bias = _filters(flat, self.filters, rng)
        state: dict[str, npt.NDArray[Any]] = {
            "mean": mean,
            "std": std,
            "filters": filters.reshape(shape).astype(np.float32),
            "bias": bias.astype(np.float32),
        }
        features, present = self.features(layer, places, state)
        if not present.any():
            raise UrbanError(
                f"less than half of every {modality} window of '{city.key}' is valid: "
                "fetch imagery that covers the places"
            )
        spread = features[present].std(axis=0)
        scale = np.where(spread > 1e-6, spread, 1.0)
        return {**state, "centre": features[present].mean(axis=0), "scale": scale}

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return standardised features; see the class."""
        features, present = self.features(city.pixels(modality), places, state)
        values = np.clip((features - state["centre"]) / state["scale"], -VALUE_LIMIT, VALUE_LIMIT)
        return single_tokens(values.astype(np.float16), present)

    def features(
        self, layer: PixelLayer, places: Places, state: State
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the mean responses (N, K), not standardised, and which places are present (N,).

        Raises:
            UrbanError: the layer has other bands than the fitted one, or too coarse pixels.
        """
        if len(layer.bands) != state["filters"].shape[1]:
            raise UrbanError(
                f"the imagery has {len(layer.bands)} bands, the encoder was fitted on "
                f"{state['filters'].shape[1]}: fetch the same bands for every city"
            )
        columns, rows, side = self._windows(layer, places)
        span = side - self.patch_px + 1
        sums = np.zeros((len(places), len(state["filters"]) + 1))
        groups = list(_groups(columns, rows, side, layer))
        jobs = (_window_job(layer, columns[g], rows[g], side, state) for g in groups)
        for group, found in zip(groups, _in_threads(jobs), strict=True):
            sums[group] = found
        valid = sums[:, -1]
        return sums[:, :-1] / np.maximum(valid, 1)[:, None], valid >= span**2 / 2

    def _windows(self, layer: PixelLayer, places: Places) -> tuple[Integers, Integers, int]:
        """Return first column, first row and side of windows in pixels, as `PixelLayer.window`."""
        side = round(self.window_m / layer.pixel_m)
        if side < self.patch_px:
            raise UrbanError(
                f"pixels of {layer.pixel_m:g} m are too coarse for windows of {self.window_m:g} m: "
                f"bring imagery of {self.window_m / self.patch_px:g} m or finer"
            )
        columns = np.round(places.x / layer.pixel_m - side / 2).astype(np.int64)
        rows = np.round(-places.y / layer.pixel_m - side / 2).astype(np.int64)
        return columns, rows, side

    def _draw(
        self, layer: PixelLayer, places: Places, rng: np.random.Generator
    ) -> tuple[Floats, Floats, npt.NDArray[Any]]:
        """Return mean and deviation of bands, and valid patches (n, bands, p, p)."""
        columns, rows, side = self._windows(layer, places)
        each = -(-WHITENING_PATCHES // len(places))
        count, total, squares = 0, np.zeros(len(layer.bands)), np.zeros(len(layer.bands))
        drawn = []
        for column, row in zip(columns.tolist(), rows.tolist(), strict=True):
            samples, valid = _read(layer, column, row, side, side)
            pixels = samples[:, valid].astype(np.float64)
            count += pixels.shape[1]
            total += pixels.sum(axis=1)
            squares += (pixels**2).sum(axis=1)
            usable = np.argwhere(_whole(valid, self.patch_px))
            if not len(usable):
                continue
            window = (len(layer.bands), self.patch_px, self.patch_px)
            views = np.lib.stride_tricks.sliding_window_view(samples, window)[0]
            south, east = usable[rng.integers(len(usable), size=each)].T
            drawn.append(views[south, east])
        mean = total / max(count, 1)
        std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
        return mean, std, np.concatenate(drawn) if drawn else np.zeros(0)


def _in_threads(jobs: Iterable[Callable[[], Floats]]) -> Iterator[Floats]:
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
            waiting: deque[Future[Floats]] = deque()
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)


def _read(
    layer: PixelLayer, column: int, row: int, width: int, height: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return `PixelLayer.read`, samples that are not finite being invalid."""
    samples, valid = layer.read(column, row, width, height)
    if samples.dtype.kind == "f":
        valid &= np.isfinite(samples).all(axis=0)
    return samples, valid


def _whole(valid: npt.NDArray[np.bool_], patch_px: int) -> npt.NDArray[np.bool_]:
    """Return where a patch starts that is valid throughout, (H − p + 1, W − p + 1)."""
    height, width = valid.shape[0] - patch_px + 1, valid.shape[1] - patch_px + 1
    rows = np.logical_and.reduce([valid[k : k + height] for k in range(patch_px)])
    whole: npt.NDArray[np.bool_] = np.logical_and.reduce(
        [rows[:, k : k + width] for k in range(patch_px)]
    )
    return whole


def _standardise(samples: npt.NDArray[Any], mean: Floats, std: Floats) -> npt.NDArray[np.float32]:
    """Return clipped z-scores of samples (..., bands, height, width), float32."""
    scaled = (samples - mean[:, None, None]) / std[:, None, None]
    return np.clip(scaled, -BAND_LIMIT, BAND_LIMIT).astype(np.float32)


def _filters(patches: Floats, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the weights (count, d) and bias (count,) of whitened random patches.

    With m the mean patch and Z = (cov + floor)^(−1/2), a filter is q = Z (p − m) at length 1, its
    response to a patch x is q · Z (x − m) = (Z q) · x − (Z q) · m, less the threshold.
    """
    mean = patches.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov(patches - mean, rowvar=False, bias=True))
    whiten = (axes / np.sqrt(np.maximum(variance, 0) + WHITENING_FLOOR)) @ axes.T
    chosen = rng.choice(len(patches), count, replace=len(patches) < count)
    directions = (patches[chosen] - mean) @ whiten
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-6)
    weights = directions @ whiten
    return weights, -weights @ mean - THRESHOLD


def _groups(columns: Integers, rows: Integers, side: int, layer: PixelLayer) -> Iterator[Integers]:
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


def _window_job(
    layer: PixelLayer, columns: Integers, rows: Integers, side: int, state: State
) -> Callable[[], Floats]:
    """Read the pixels of windows, and return what sums up the responses in them, (n, K + 1).

    Every pixel is convolved once. The sides of all windows cut the positions into cells; responses
    are summed per cell, and a window is the sum of its cells. Unlike the differences of a
    summed-area table this cancels nothing: what lies outside a window never enters it. The last
    column counts the valid positions.
    """
    left, top = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) - left + side, int(rows.max()) - top + side
    samples, valid = _read(layer, left, top, width, height)
    span = side - state["filters"].shape[-1] + 1
    west, north = columns - left, rows - top

    def summed() -> Floats:
        column_cuts = np.unique([west, west + span])
        row_cuts = np.unique([north, north + span])
        bands = [
            np.add.reduceat(_row_sums(samples, valid, cut, state), column_cuts[:-1], axis=1)
            for cut in itertools.pairwise(row_cuts.tolist())
        ]
        cells = np.stack(bands, axis=1)
        first_row, last_row = np.searchsorted(row_cuts, [north, north + span])
        first_column, last_column = np.searchsorted(column_cuts, [west, west + span])
        boxes = zip(first_row, last_row, first_column, last_column, strict=True)
        return np.array([cells[:, a:b, c:d].sum(axis=(1, 2)) for a, b, c, d in boxes])

    return summed


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
            strip = _standardise(samples[:, rows], state["mean"], state["std"])
            strip[:, ~valid[rows]] = 0
            response = torch.conv2d(torch.from_numpy(strip)[None], weight, bias)[0].relu_()
            whole = _whole(valid[rows], patch_px)
            if not whole.all():
                response *= torch.from_numpy(whole)
            total += response.sum(dim=1)
    return total.numpy()
