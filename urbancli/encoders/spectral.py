"""Spectral statistics, indices and texture of imagery: no download, no training, all closed forms.

- Of each band, mean, standard deviation and quantiles of its valid pixels.
- Of each index the same, where the layer has its bands; else it is left out. NDVI (nir − red) /
  (nir + red): Tucker 1979, "Red and photographic infrared linear combinations for monitoring
  vegetation", Remote Sensing of Environment 8. NDWI (green − nir) / (green + nir): McFeeters 1996,
  "The use of the Normalized Difference Water Index", International Journal of Remote Sensing 17.
  NDBI (swir − nir) / (swir + nir): Zha, Gao & Ni 2003, "Use of normalized difference built-up index
  in automatically mapping urban areas from TM imagery", the same journal, 24.
- Of grey levels, five of the features of their co-occurrence: Haralick, Shanmugam & Dinstein 1973,
  "Textural features for image classification", IEEE Transactions on Systems, Man, and Cybernetics
  3: angular second moment (f1), contrast (f2), correlation (f3), inverse difference moment (f5) and
  entropy (f9, natural logarithm), at several distances. Grey levels are equally probable over the
  fitted windows, as there. Deviations: pairs of all four directions are counted in one matrix,
  where the paper gives mean and range over four; the correlation of a single level is 1.

An index is a ratio of bands of one scale. Sentinel-2's samples are reflectance times 10,000, from
which the source took the offset of later processing baselines; so no scale enters here. NAIP's are
digital numbers of cameras set by the contractor: its indices compare places of one year and state.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from urbancli.configs import check_range
from urbancli.encoders import _convolution, base
from urbancli.encoders._images import Images, Window, colour_names, open_images
from urbancli.encoders._windows import check_window
from urbancli.encoders.base import State
from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens, single_tokens

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

STATISTICS = 2 + len(QUANTILES)
"""Of each band and index: mean, standard deviation, quantiles."""

COLOURS = {
    "green": ("green", "b03", "b3"),
    "red": ("red", "b04", "b4"),
    "nir": ("nir", "b08", "b8"),
    "swir": ("swir", "swir16", "swir1", "b11"),
}
"""What the bands of the indices are called, in layers from services and in files, in small letters;
those of NAIP also where a file names none, see `colour_names`."""

INDICES = {"ndvi": ("nir", "red"), "ndwi": ("green", "nir"), "ndbi": ("swir", "nir")}
"""(a − b) / (a + b), 0 where a + b is."""

INDEX_STEPS = 32767
"""Steps from −1 to 0 that the quantiles of an index are rounded to: 16 bits sort far faster."""

DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns to a pixel's neighbour at distance 1: 0°, 90°, 135° and 45°."""

TEXTURES = 5

FIT_PLACES = 512
"""Places drawn to fit on."""

FIT_PIXELS = 256
"""Valid pixels drawn from each of their windows, for the grey levels."""

EDGE_MARGIN = 1e-6
"""Grey levels begin so far above a quantile: rounding must not part pixels that are equal to it."""

CHUNK_BYTES = 1 << 19
"""Samples of windows described together: they stay in a core's own cache."""

VALUE_LIMIT = 1000.0
"""Features are clipped here, so that float16 holds them also in a city unlike the fitted one."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """One float16 token per place, standardised over the fitted places.

    Of the valid pixels of the window of `window_m` around the place, in this order: for each band,
    then for each of NDVI, NDWI, NDBI that the bands allow, mean, standard deviation and the
    quantiles 5, 25, 50, 75 and 95 % (linear between pixels); for each distance the five textures.
    The width is 7 · (bands + indices) + 5 · distances. A place with less than half of its pixels
    valid is absent. Pixels that are not finite are invalid.
    """

    modalities: ClassVar[tuple[str, ...]] = ("sentinel2", "naip", "sentinel1")
    version: ClassVar[int] = 1
    needs: ClassVar[str] = "any bands; red, green, nir, swir for indices"
    window_m: float = 600.0
    levels: int = 16
    distances_px: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        check_window(self.window_m)
        check_range("levels", self.levels, "from 2 to 16", 2 <= self.levels <= 16)
        fits = bool(self.distances_px) and min(self.distances_px) >= 1
        check_range("distances_px", self.distances_px, "a list of pixels, at least 1", fits)

    def fit(self, city: CityLayers, modality: str, places: Places, seed: int) -> State:
        """Return what grey levels and the features of at most FIT_PLACES places need.

        Returns:
            `bands` (1,), how many; `index_bands` (I, 2), the numbers of the bands of each index;
            `grey` (bands,) and `edges` (levels − 1,): a pixel's level is the number of edges below
            the sum of its samples times `grey`; `centre`, `scale` of the features.

        Raises:
            UrbanError: no window is at least half valid.
        """
        images, rng = open_images(city, modality), np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(places), min(len(places), FIT_PLACES), replace=False))
        places = places.take(chosen)
        drawn = []
        for _, samples, valid in images.windows(places, self.window_m):
            samples, valid = _convolution.finite(samples, valid)
            if 2 * np.count_nonzero(valid) >= valid.size > 0:
                pixels = samples[:, valid]
                drawn.append(pixels[:, rng.integers(pixels.shape[1], size=FIT_PIXELS)])
        if not drawn:
            raise UrbanError(
                f"less than half of every {modality} window of '{city.key}' is valid: "
                "fetch imagery that covers the places"
            )
        pixels = np.concatenate(drawn, axis=1).astype(np.float64)
        grey = 1 / (_spread(pixels) * len(pixels))
        shares = np.arange(1, self.levels) / self.levels
        state = {
            "bands": np.array([len(images.bands)]),
            "index_bands": index_bands(images.bands, modality),
            "grey": grey,
            "edges": np.quantile(grey @ pixels, shares) + EDGE_MARGIN,
        }
        features, present = self.features(images, modality, places, state)
        centre, scale = features[present].mean(axis=0), features[present].std(axis=0)
        varies = scale > np.maximum(1e-9, 1e-6 * np.abs(centre))
        return {**state, "centre": centre, "scale": np.where(varies, scale, 1.0)}

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return standardised features; see the class."""
        features, present = self.features(open_images(city, modality), modality, places, state)
        values = np.clip((features - state["centre"]) / state["scale"], -VALUE_LIMIT, VALUE_LIMIT)
        return single_tokens(values.astype(np.float16), present)

    def features(
        self, images: Images, modality: str, places: Places, state: State
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the features (N, D), not standardised, and which places are present (N,).

        Raises:
            UrbanError: the imagery has other bands than the fitted one, or too coarse pixels.
        """
        indices = index_bands(images.bands, modality)
        if len(images.bands) != state["bands"][0] or not np.array_equal(
            indices, state["index_bands"]
        ):
            raise UrbanError(
                f"the imagery has the bands {', '.join(images.bands)}, the encoder was fitted on "
                "others: fetch the same bands for every city"
            )
        width = STATISTICS * (len(images.bands) + len(indices)) + TEXTURES * len(self.distances_px)
        features, present = np.zeros((len(places), width)), np.zeros(len(places), bool)
        jobs = (
            partial(self._described, chunk, state)
            for chunk in _chunks(images.windows(places, self.window_m))
        )
        for numbers, found in _convolution.in_threads(jobs):
            features[numbers], present[numbers] = found, True
        return features, present

    def _described(self, chunk: Sequence[Window], state: State) -> tuple[list[int], Floats]:
        """Return the numbers of some windows and their features (n, D).

        All are wholly valid, or there is only one.
        """
        numbers = [number for number, _, _ in chunk]
        samples, valid = np.stack([part for _, part, _ in chunk]), chunk[0][2]
        side = valid.shape[0]
        if side <= max(self.distances_px):
            raise UrbanError(
                f"the window of {self.window_m:g} m has only {side} pixels a side: bring finer "
                "imagery, a larger window_m or smaller distances_px"
            )
        known = samples.reshape(*samples.shape[:2], -1)
        if not valid.all():
            known = known[:, :, valid.ravel()]
        wide = known.astype(np.float64)
        parts = [statistics(known, wide)]
        parts += [index_statistics(wide[:, a], wide[:, b]) for a, b in state["index_bands"]]
        grey = np.zeros((len(samples), side * side), np.uint8)
        brightness = state["grey"] @ wide
        levels = np.zeros(brightness.shape, np.uint8)
        for edge in state["edges"]:  # far faster than a search for each pixel
            levels += brightness > edge
        grey[:, valid.ravel()] = levels
        grey = grey.reshape(-1, side, side)
        counts = (co_occurrences(grey, valid, distance) for distance in self.distances_px)
        parts += [textures(count[:, : self.levels, : self.levels]) for count in counts]
        return numbers, np.concatenate([part.reshape(len(chunk), -1) for part in parts], axis=1)


def index_bands(bands: Sequence[str], modality: str) -> npt.NDArray[np.int64]:
    """Return the numbers of the two bands (I, 2) of each index that bands allow."""
    names = [name.lower() for name in colour_names(bands, modality)]
    found = {
        colour: names.index(name)
        for colour, known in COLOURS.items()
        for name in known[::-1]
        if name in names
    }
    pairs = [(found[a], found[b]) for a, b in INDICES.values() if a in found and b in found]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _chunks(windows: Iterator[Window]) -> Iterator[list[Window]]:
    """Yield the windows that are at least half valid: wholly valid ones together, others alone."""
    waiting: list[Window] = []
    for number, *both in windows:
        samples, valid = _convolution.finite(*both)
        if valid.all() and valid.size:
            waiting.append((number, samples, valid))
            if sum(part.nbytes for _, part, _ in waiting) >= CHUNK_BYTES:
                yield waiting
                waiting = []
        elif 2 * np.count_nonzero(valid) >= valid.size > 0:
            yield [(number, samples, valid)]
    if waiting:
        yield waiting


def _spread(pixels: Floats) -> Floats:
    """Return how far samples (bands, n) spread: a broken pixel changes little, none is 0."""
    low, middle, high = np.quantile(pixels, [0.25, 0.5, 0.75], axis=1)
    spread = (high - low) / 1.349  # of a normal distribution, its standard deviation
    deviation = pixels.std(axis=1)
    spread = np.where(spread > 0, spread, deviation)
    return np.where(spread > np.maximum(1e-9, 1e-6 * np.abs(middle)), spread, 1.0)


# --- statistics ------------------------------------------------------------------------------


def statistics(samples: npt.NDArray[Any], wide: Floats) -> Floats:
    """Return mean, standard deviation and quantiles of samples (..., P), (..., STATISTICS).

    Args:
        samples: to take the quantiles of; fast where they are integers of 8 or 16 bits.
        wide: to take the others of, (..., P).
    """
    mean = wide.mean(axis=-1, keepdims=True)
    apart = wide - mean
    variance = np.einsum("...p,...p->...", apart, apart) / wide.shape[-1]
    ordered = np.sort(samples, axis=-1, kind="stable" if samples.itemsize == 1 else None)
    place = np.array(QUANTILES) * (samples.shape[-1] - 1)
    below = np.floor(place).astype(np.int64)
    low = ordered[..., below].astype(np.float64)
    high = ordered[..., np.ceil(place).astype(np.int64)].astype(np.float64)
    quantiles = low + (high - low) * (place - below)
    return np.concatenate([mean, np.sqrt(variance)[..., None], quantiles], axis=-1)


def index_statistics(a: Floats, b: Floats) -> Floats:
    """Return the statistics of (a − b) / (a + b) of samples (n, P), (n, STATISTICS)."""
    total = a + b
    index = np.divide(a - b, total, out=np.zeros_like(total), where=total != 0)
    np.clip(index, -1, 1, out=index)
    steps = np.rint((index + 1) * INDEX_STEPS).astype(np.uint16)
    found = statistics(steps, index)
    found[..., 2:] = found[..., 2:] / INDEX_STEPS - 1
    return found


# --- texture ---------------------------------------------------------------------------------


def co_occurrences(
    grey: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_], distance_px: int
) -> npt.NDArray[np.int64]:
    """Return how often levels are neighbours, both ways, in all four directions, (n, 16, 16).

    Args:
        grey: levels below 16, (n, S, S).
        valid: (S, S); a pair counts where both are.
        distance_px: to the neighbour, along rows and columns; diagonals are as many steps.
    """
    side, pairs = grey.shape[1], []
    for rows, columns in DIRECTIONS:
        down, right = rows * distance_px, columns * distance_px
        first = (slice(0, side - down), slice(max(-right, 0), side - max(right, 0)))
        second = (slice(down, side), slice(max(right, 0), side - max(-right, 0)))
        both = valid[first] & valid[second]
        code = (grey[:, *first] << 4) | grey[:, *second]
        pairs.append(code.reshape(len(grey), -1) if both.all() else code[:, both])
    # Bytes are sorted by counting them: faster than bincount, which would widen each to 8 bytes.
    ordered = np.sort(np.concatenate(pairs, axis=1), axis=1, kind="stable")
    ends = np.array(
        [np.searchsorted(row, np.arange(256, dtype=np.uint8), "right") for row in ordered]
    )
    counts = np.diff(ends, axis=1, prepend=0).reshape(-1, 16, 16)
    return counts + counts.transpose(0, 2, 1)


def textures(counts: npt.NDArray[np.int64]) -> Floats:
    """Return f1, f2, f3, f5 and f9 of symmetric co-occurrences (n, L, L), (n, TEXTURES).

    Without any pair all are 0, but the correlation 1.
    """
    share = counts / np.maximum(counts.sum(axis=(1, 2), keepdims=True), 1)
    level = np.arange(counts.shape[1])
    apart = (level[:, None] - level) ** 2
    one = share.sum(axis=2)
    mean = one @ level
    variance = one @ level**2 - mean**2
    covariance = np.einsum("nij,i,j->n", share, level, level) - mean**2
    varies = variance > 1e-9
    found = [
        (share**2).sum(axis=(1, 2)),
        (share * apart).sum(axis=(1, 2)),
        np.where(varies, covariance / np.where(varies, variance, 1), 1.0),
        (share / (1 + apart)).sum(axis=(1, 2)),
        -(share * np.log(np.where(share > 0, share, 1))).sum(axis=(1, 2)),
    ]
    return np.stack(found, axis=1)
