"""Random convolutional features of imagery: no download, no training, strictly local.

After Rolf et al. 2021, "A generalizable and accessible approach to machine learning with global
satellite imagery" (MOSAIKS, Nature Communications 12:4392), and Coates & Ng 2012: filters are
random patches of the imagery itself, ZCA-whitened; a feature is the mean over an image of
ReLU(whitened patch · whitened window − 1).

Deviations: 256 filters instead of 8,192, without their negatives; filters scaled to length 1;
whitening from 16,384 patches; bands standardised first and clipped at 50 standard deviations;
features standardised at the end. The threshold is the published code's, not tuned on any label.
Tokens of patches are ours: the same mean over each cell of a grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from urbancli.configs import check_range
from urbancli.encoders import _convolution, base
from urbancli.encoders._convolution import Floats, Responses
from urbancli.encoders._images import Images, open_images
from urbancli.encoders._windows import LARGEST_M, SMALLEST_IMAGE_M, check_window
from urbancli.encoders.base import State
from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.layers import NOMINAL_PIXEL_M, CityLayers, PixelLayer
from urbancli.tokens import Tokens, single_tokens

FIT_PLACES = 512
"""Places drawn to fit on; more would not change the statistics, and cost reading."""

WHITENING_PATCHES = 16384
"""Patches that the whitening is estimated from; the filters are drawn among them."""

WHITENING_FLOOR = 1e-2
"""Added to the variances before they are inverted, so that sensor noise is not blown up."""

THRESHOLD = 1.0
"""Taken off every response before the ReLU, about one standard deviation of them."""

VALUE_LIMIT = 1000.0
"""Features are clipped here, so that float16 holds them also in a city unlike the fitted one."""

WINDOW, CELLS = slice(0, 1), slice(1, None)
"""Which responses are of the whole window, and which of the cells of its grid."""


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """Tokens of `filters` float16 features, standardised over the fitted places.

    `tokens=global`: one per place, the mean over the positions in the window around the centre (as
    `PixelLayer.window` snaps it) whose whole patch lies in the window and is valid. A place with
    less than half of its positions valid is absent.

    `tokens=patches`: a bag with one token for each cell of a division of the window in `grid` ×
    `grid`, the mean over the positions whose whole patch lies in the cell: nothing outside a cell
    enters its token. A cell with less than half of its positions valid gives none, so that a window
    at the border of the imagery keeps those within; the same places are absent as of `global`, and
    any without a cell. Cells go from the north-west eastwards, and differ by a pixel where `grid`
    does not divide the window. `tokens=both`: the global token, then those, standardised apart.

    Positions (ΣT, 8): corners of the cell or window, x and y in turn, counter-clockwise from the
    lower left, in tile sides from the south-west corner of the square of one tile around the place.

    Imagery is seen in its own pixels in a window of `window_m`; `basemap` in several windows,
    `basemap_windows_m`, by the same filters, drawn from all of them: global features are
    concatenated, bags joined, window by window.

    A value may differ in its last digit of float16 with the other places that are encoded together,
    of whichever `tokens`: the sums of a group of windows are cut where any of them begins or ends.
    """

    modalities: ClassVar[tuple[str, ...]] = ("sentinel2", "naip", "sentinel1", "basemap")
    version: ClassVar[int] = 2  # of more than 4,096 places, in the last digit of some values
    needs: ClassVar[str] = "any bands, half of the window valid"
    window_m: float = 600.0
    filters: int = 256
    patch_px: int = 3
    tokens: Literal["global", "patches", "both"] = "global"
    grid: int = 4
    basemap_windows_m: tuple[float, ...] = (300.0, 600.0, 1200.0)

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        check_window(self.window_m)
        check_range("filters", self.filters, "from 1 to 65536", 1 <= self.filters <= 65536)
        check_range("patch_px", self.patch_px, "from 1 to 32", 1 <= self.patch_px <= 32)
        check_range("grid", self.grid, "from 1 to 64", 1 <= self.grid <= 64)
        sides = self.basemap_windows_m
        fits = bool(sides) and all(SMALLEST_IMAGE_M <= side <= LARGEST_M for side in sides)
        wanted = f"a list of sides from {SMALLEST_IMAGE_M:.0f} to {LARGEST_M:.0f} metres"
        check_range("basemap_windows_m", ",".join(f"{side:g}" for side in sides), wanted, fits)

    def reach_m(self, modality: str) -> float:
        """Return the side of the largest window."""
        return max(self._sides_m(modality))

    def width(self, modality: str) -> int:
        """Return the number of filters, as often as global features are concatenated."""
        return self.filters * (len(self._sides_m(modality)) if self.tokens == "global" else 1)

    def fit(self, city: CityLayers, modality: str, places: Places, seed: int) -> State:
        """Return statistics and filters from the windows of at most FIT_PLACES of the places.

        Returns:
            `mean`, `std` (bands,); `filters` (K, bands, p, p) and `bias` (K,), to be applied to
            standardised bands; `centre`, `scale` (windows · K,) of the global features, and where
            patches are wanted `patch_centre`, `patch_scale` of theirs.

        Raises:
            UrbanError: the windows hold no valid patch.
        """
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(places), min(len(places), FIT_PLACES), replace=False))
        places = places.take(chosen)
        seen = self._open(city, modality)
        mean, std, patches = self._draw(seen, places, rng)
        if not len(patches):
            raise UrbanError(
                f"no valid {modality} pixels around the places of '{city.key}': "
                "fetch imagery that covers them"
            )
        shape = (-1, len(mean), self.patch_px, self.patch_px)
        scaled = _convolution.standardise(patches, mean, std)
        flat = scaled.reshape(len(patches), -1).astype(np.float64)
        filters, bias = _filters(flat, self.filters, rng)
        state: dict[str, npt.NDArray[Any]] = {
            "mean": mean,
            "std": std,
            "filters": filters.reshape(shape).astype(np.float32),
            "bias": bias.astype(np.float32),
        }
        found: dict[str, list[Floats]] = {}
        for part in self._responses(seen, places, state):
            for kind, boxes in self._kinds():
                values = part.means[:, boxes][part.enough[:, boxes] & part.enough[:, :1]]
                if not len(values):
                    raise UrbanError(
                        f"less than half of every {modality} window of '{city.key}' is valid: "
                        "fetch imagery that covers the places"
                    )
                spread = values.std(axis=0)
                found.setdefault(f"{kind}centre", []).append(values.mean(axis=0))
                found.setdefault(f"{kind}scale", []).append(np.where(spread > 1e-6, spread, 1.0))
        return {**state, **{name: np.concatenate(parts) for name, parts in found.items()}}

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return standardised features; see the class."""
        wanted = CELLS if self.tokens == "patches" else slice(None)
        present = np.ones(len(places), bool)
        values, kept, corners = [], [], []
        for number, seen in enumerate(self._responses(self._open(city, modality), places, state)):
            values.append(self._scaled(seen, number, state)[:, wanted])
            kept.append(seen.enough[:, wanted])
            corners.append(seen.corners[:, wanted].astype(np.float32))
            present &= seen.enough[:, 0]
        if self.tokens == "global":
            return single_tokens(np.concatenate([part[:, 0] for part in values], axis=1), present)
        holds = np.concatenate(kept, axis=1)
        present &= holds.any(axis=1)
        holds &= present[:, None]
        offsets = np.concatenate([[0], np.cumsum(holds.sum(axis=1))]).astype(np.int64)
        positions = np.concatenate(corners, axis=1)[holds]
        return Tokens(np.concatenate(values, axis=1)[holds], offsets, positions, present, bag=True)

    def features(
        self, layer: PixelLayer, places: Places, state: State
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the mean responses (N, K), not standardised, and which places are present (N,).

        Raises:
            UrbanError: the layer has other bands than the fitted one, or too coarse pixels.
        """
        seen = _convolution.layer_responses(layer, places, self.window_m, 0, state)
        return seen.means[:, 0], seen.enough[:, 0]

    def _sides_m(self, modality: str) -> tuple[float, ...]:
        return (self.window_m,) if modality in NOMINAL_PIXEL_M else self.basemap_windows_m

    def _kinds(self) -> list[tuple[str, slice]]:
        """Return the responses that are standardised apart, by how their state is called."""
        return [("", WINDOW)] if self.tokens == "global" else [("", WINDOW), ("patch_", CELLS)]

    def _open(self, city: CityLayers, modality: str) -> PixelLayer | Images:
        return city.pixels(modality) if modality in NOMINAL_PIXEL_M else open_images(city, modality)

    def _responses(
        self, seen: PixelLayer | Images, places: Places, state: State
    ) -> Iterator[Responses]:
        """Yield the responses in each of the windows around the places."""
        grid = 0 if self.tokens == "global" else self.grid
        if isinstance(seen, PixelLayer):
            yield _convolution.layer_responses(seen, places, self.window_m, grid, state)
        else:
            for side_m in self.basemap_windows_m:
                yield _convolution.image_responses(seen, places, side_m, grid, state)

    def _scaled(self, seen: Responses, number: int, state: State) -> npt.NDArray[np.float16]:
        """Return the standardised responses in the window of a number, (N, B, K)."""
        own = slice(number * self.filters, (number + 1) * self.filters)
        scaled = np.empty(seen.means.shape, np.float16)
        for kind, boxes in self._kinds():
            shifted = seen.means[:, boxes] - state[f"{kind}centre"][own]
            values = np.clip(shifted / state[f"{kind}scale"][own], -VALUE_LIMIT, VALUE_LIMIT)
            scaled[:, boxes] = values
        return scaled

    def _draw(
        self, seen: PixelLayer | Images, places: Places, rng: np.random.Generator
    ) -> tuple[Floats, Floats, npt.NDArray[Any]]:
        """Return mean and deviation of bands, and valid patches (n, bands, p, p)."""
        windows = 1 if isinstance(seen, PixelLayer) else len(self.basemap_windows_m)
        each = -(-WHITENING_PATCHES // (len(places) * windows))
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        drawn = []
        for samples, valid in self._windows(seen, places):
            pixels = samples[:, valid].astype(np.float64)
            count += pixels.shape[1]
            total = total + pixels.sum(axis=1)
            squares = squares + (pixels**2).sum(axis=1)
            usable = np.argwhere(_convolution.whole(valid, self.patch_px))
            if not len(usable):
                continue
            window = (len(samples), self.patch_px, self.patch_px)
            views = np.lib.stride_tricks.sliding_window_view(samples, window)[0]
            south, east = usable[rng.integers(len(usable), size=each)].T
            drawn.append(views[south, east])
        mean = total / max(count, 1)
        std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
        return mean, std, np.concatenate(drawn) if drawn else np.zeros(0)

    def _windows(
        self, seen: PixelLayer | Images, places: Places
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]:
        """Yield samples (bands, S, S) and validity of the windows around the places."""
        if isinstance(seen, PixelLayer):
            columns, rows, side = _convolution.windows(seen, places, self.window_m, self.patch_px)
            for column, row in zip(columns.tolist(), rows.tolist(), strict=True):
                yield _convolution.finite(*seen.read(column, row, side, side))
        else:
            for side_m in self.basemap_windows_m:
                for _, samples, valid in seen.windows(places, side_m):
                    yield _convolution.finite(samples, valid)


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
