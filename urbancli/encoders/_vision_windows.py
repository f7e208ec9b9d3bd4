"""Published models of vision over squares around places, of imagery or of the map.

A square's bands are picked by their names; pixels that are not valid get the mean of the valid
ones, band by band; what then happens to it stands in `_vision`. A place with less than half of a
square valid is absent.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from urbancli.configs import check_range
from urbancli.encoders import _weights, base
from urbancli.encoders._images import Images, Window, colour_names, open_images
from urbancli.encoders._vision import Constants, Floats, Vision, open_vision, scaled_images
from urbancli.encoders._windows import LARGEST_M, SMALLEST_IMAGE_M
from urbancli.encoders.base import State
from urbancli.errors import UsageError
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens, single_tokens

MODALITIES = ("sentinel2", "naip", "basemap")

BAND_NAMES = {"sentinel2": {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}}
"""What bands of a layer are called by their colour, where the layer has its sensor's names."""

HIGH = {"sentinel2": 3000.0}
"""The sample value that becomes 1 where no other is set: reflectance 0.3, above which in a city lie
only bright roofs and clouds. Of layers of uint8 it is 255."""

WINDOWS_M = {"sentinel2": (2560.0,), "naip": (300.0,), "basemap": (300.0, 600.0, 1200.0)}
"""Sides of the squares where none is set: UrbanFusion's; of NAIP a tile, as GeoJEPA's image (its
halo holds no more than 2,560 m, and at 0.6 m that would be 4,267 pixels for an input of 224)."""


@dataclass(frozen=True)
class VisionEncoder(base.Encoder):
    """A published model over squares of imagery or of the map; see the module.

    Settings:
        model: hub id (`id@revision` pins it), folder of `transformers.save_pretrained`, or the
            portable name of one.
        tokens: `cls`, the model's global vector; `mean` of its patches' vectors; `patches`, a bag
            of them; `all`, the bag with the global vector before them. Of several squares vectors
            are concatenated, bags united.
        bands: of the layer, in the model's order; `red`, `green`, `blue`, `nir` in any layer.
        low, high: sample values that become 0 and 1; a `high` of 0 is the layer's own (`HIGH`).
        window_m: side of the square; 0 is the layer's own (`WINDOWS_M`).
        precision: `bf16` is faster where the processor has it, and rounds to three digits.
        batch: images at once.

    Values are float32. A position (8,) holds the corners of a patch or of the square, x and y in
    turn, counter-clockwise from the lower left, in tile sides from the south-west corner of the
    tile-sized square around the place; the square itself is snapped to whole pixels.
    """

    modalities: ClassVar[tuple[str, ...]] = MODALITIES
    version: ClassVar[int] = 1
    block_places: ClassVar[int] = 512  # bags of hundreds of patches each
    needs: ClassVar[str] = "red, green, blue"
    kinds: ClassVar[tuple[str, ...]] = ()
    default_width: ClassVar[int | None] = None
    constants: ClassVar[Constants | None] = None
    missing_bands: ClassVar[tuple[str, ...]] = ()
    """Bands that are zero where the layer has none of that name."""

    model: str = ""
    tokens: Literal["cls", "mean", "patches", "all"] = "cls"
    bands: tuple[str, ...] = ("red", "green", "blue")
    low: float = 0.0
    high: float = 0.0
    window_m: float = 0.0
    precision: Literal["float32", "bf16"] = "float32"
    batch: int = 32

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        check_range("batch", self.batch, "from 1 to 4096", 1 <= self.batch <= 4096)
        fits = self.window_m == 0 or SMALLEST_IMAGE_M <= self.window_m <= LARGEST_M
        wanted = f"0, or from {SMALLEST_IMAGE_M:.0f} to {LARGEST_M:.0f}"
        check_range("window_m", self.window_m, wanted, fits)
        check_range("high", self.high, "above low", self.high > self.low or self.high == 0)
        check_range("bands", ",".join(self.bands), "a list of names", all(self.bands))

    def windows_m(self, modality: str) -> tuple[float, ...]:
        """Return the sides of its squares, metres."""
        return (self.window_m,) if self.window_m else WINDOWS_M[modality]

    def reach_m(self, modality: str) -> float:
        """Return the side of the largest square."""
        return max(self.windows_m(modality))

    def width(self, modality: str) -> int | None:
        """Return the width of a token of the default model."""
        if self.default_width is None or self.model != type(self)().model:
            return None
        bag = self.tokens in {"patches", "all"}
        return self.default_width * (1 if bag else len(self.windows_m(modality)))

    def config(self) -> dict[str, Any]:
        """Return the settings, a folder by its portable name."""
        return {**asdict(self), "model": _weights.portable(self.model)}

    def weights(self) -> str:
        """Return the SHA-256 of the model's files."""
        return _weights.find(self.model).sha256

    def opened(self) -> Vision:
        """Return the model, loaded."""
        return open_vision(_weights.find(self.model), self.kinds, self.constants, self.bands)

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens of the squares around places; see the class.

        Raises:
            UsageError: the layer lacks a band, or the model wants another number of them.
        """
        images = open_images(city, modality)
        pick, vision = self._pick(images, modality), self.opened()
        if len(pick) != vision.channels:
            raise UsageError(
                f"'{self.model}' takes {vision.channels} bands, not {len(pick)} "
                f"({', '.join(self.bands)}): set bands=…"
            )
        ends = (self.low, self.high or self._high(images, modality))
        sides = self.windows_m(modality)
        parts = []
        present = np.ones(len(places), bool)
        for side_m in sides:
            values, found = self._encoded(vision, images.windows(places, side_m), pick, ends)
            parts.append(values)
            present &= np.isin(np.arange(len(places)), found)
        if self.tokens in {"cls", "mean"}:
            rows = np.zeros((len(places), vision.width * len(sides)), np.float32)
            for number in np.flatnonzero(present).tolist():
                rows[number] = np.concatenate([part[number][0] for part in parts])
            return single_tokens(rows, present)
        return self._bag(parts, present, vision, [side / places.grid.tile_m for side in sides])

    def _bag(
        self,
        parts: Sequence[dict[int, Floats]],
        present: npt.NDArray[np.bool_],
        vision: Vision,
        sides: Sequence[float],
    ) -> Tokens:
        """Return the bags of the squares of present places, those of one place together."""
        chosen = np.flatnonzero(present).tolist()
        boxes = np.concatenate([self._boxes(vision, side) for side in sides])
        rows = [part[number] for number in chosen for part in parts]
        values = np.concatenate(rows) if rows else np.zeros((0, vision.width), np.float32)
        offsets = np.concatenate([[0], np.cumsum(present * len(boxes))]).astype(np.int64)
        return Tokens(values, offsets, np.tile(boxes, (len(chosen), 1)), present, bag=True)

    def _boxes(self, vision: Vision, side: float) -> Floats:
        """Return the corners of the tokens of a square of so many tile sides, (T, 8)."""
        across = vision.side_px // vision.patch_px
        row, column = np.divmod(np.arange(across**2), across)
        whole = [[0.0, 0.0, 1.0]] if self.tokens == "all" else np.zeros((0, 3))
        patches = np.column_stack([column, across - 1 - row, np.ones(across**2)]) / across
        left, low, size = np.concatenate([whole, patches]).T
        corners = [left, low, left + size, low, left + size, low + size, left, low + size]
        return (0.5 + (np.column_stack(corners) - 0.5) * side).astype(np.float32)

    def _encoded(
        self,
        vision: Vision,
        windows: Iterable[Window],
        pick: Sequence[int],
        ends: tuple[float, float],
    ) -> tuple[dict[int, Floats], list[int]]:
        """Return number of a place → its tokens (T, d), and these numbers."""
        import torch

        found: dict[int, Floats] = {}
        for numbers, stack in _batches(windows, pick, self.batch):
            pixels = vision.pixels(scaled_images(stack, *ends))
            whole, patches = vision.features(pixels, self.precision)
            if self.tokens == "cls":
                tokens = whole[:, None]
            elif self.tokens == "mean":
                tokens = patches.mean(dim=1, keepdim=True)
            else:
                first = whole[:, None] if self.tokens == "all" else whole[:, None][:, :0]
                tokens = torch.cat([first, patches], dim=1)
            found.update(zip(numbers, tokens.cpu().numpy(), strict=True))
        return found, list(found)

    def _pick(self, images: Images, modality: str) -> list[int]:
        """Return which bands of a layer are wanted, −1 for a band of zeros."""
        number = {name: n for n, name in enumerate(colour_names(images.bands, modality))}
        number |= {name: n for n, name in enumerate(images.bands)}
        sensor = BAND_NAMES.get(modality, {})
        names = [name if name in number else sensor.get(name, name) for name in self.bands]
        missing = set(names) - {*number, *self.missing_bands}
        if missing:
            example = ",".join(images.bands[: len(self.bands)])
            raise UsageError(
                f"{modality} has no band {', '.join(sorted(missing))}, it has "
                f"{', '.join(images.bands)}: set bands={example} (those that are "
                f"{', '.join(self.bands)}, in this order) or choose another encoder"
            )
        return [number.get(name, -1) for name in names]

    def _high(self, images: Images, modality: str) -> float:
        if modality in HIGH:
            return HIGH[modality]
        if images.dtype != np.uint8:
            raise UsageError(
                f"{modality} has samples of {images.dtype}: say which value is white, high=…"
            )
        return 255.0


def _batches(
    windows: Iterable[Window], pick: Sequence[int], batch: int
) -> Iterator[tuple[list[int], Floats]]:
    """Yield numbers of places and their squares (B, bands, S, S), those that are mostly valid.

    The squares lie in one buffer, which the next batch overwrites.
    """
    numbers: list[int] = []
    stack = np.zeros((0, 0, 0, 0), np.float32)
    for number, samples, valid in windows:
        if samples.dtype.kind == "f":
            valid = valid & np.isfinite(samples).all(axis=0)
        known = np.count_nonzero(valid)
        if not valid.size or 2 * known < valid.size:
            continue
        if not stack.size:
            stack = np.zeros((batch, len(pick), *valid.shape), np.float32)
        _fill(stack[len(numbers)], samples, None if known == valid.size else valid, pick)
        numbers.append(number)
        if len(numbers) == batch:
            yield numbers, stack
            numbers = []
    if numbers:
        yield numbers, stack[: len(numbers)]


def _fill(
    out: Floats,
    samples: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None,
    pick: Sequence[int],
) -> None:
    """Write the picked bands, the mean of a band where it is not valid; None where all is."""
    for into, band in zip(out, pick, strict=True):
        into[...] = samples[band] if band >= 0 else 0
        if band >= 0 and valid is not None:
            into[~valid] = samples[band][valid].mean(dtype=np.float64)
