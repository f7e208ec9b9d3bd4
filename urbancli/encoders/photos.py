"""Street view: the photos nearest to a place, through a model of images, CLIP by default."""

import functools
import io
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.configs import check_range
from urbancli.encoders import _weights, base
from urbancli.encoders._vision import KINDS, open_vision
from urbancli.encoders._windows import check_window
from urbancli.encoders.base import State
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens, single_tokens
from urbancli.workspace import open_parquet, read_table

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

LOG = logging.getLogger(__name__)

DEFAULT_MODEL = "openai/clip-vit-large-patch14"
DEFAULT_WIDTH = 768

AT_ONCE = 32
"""Photos decoded and embedded at a time."""

MEMORY_BYTES = 256 << 20
"""Vectors of photos that are kept for the next places, about."""

HEADINGS = 4
"""Views that a panorama is cut into, of 90 degrees each."""


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """The vectors, (d) float32, of up to `photos` photos whose spot lies in the square of
    `window_m` around a place, nearest to its centre first, ties (to the millimetre) in order of
    their id.

    A photo's vector is the model's global one, of CLIP the image features after projection, not
    scaled; of a photo its largest middle square is seen. A panorama is first cut into four level
    views of 90° (the first straight ahead) and has the mean of their vectors.

    - `tokens=mean`: one token per place, the mean over its photos; with `photos=1` UrbanFusion's.
    - `tokens=bag`: a token per photo, nearest first. Its position (8,) is a box without size at the
      photo's spot, x and y four times, in tile sides from the south-west corner of the tile-sized
      square around the place.

    A place without photos is absent: that nobody took one says nothing of the place. So is one
    whose photos cannot be decoded (`urban validate` names them); such a photo is not replaced by
    the next one. West and south sides of a square count, the others do not: of the default one,
    the size of a tile, tiles share no photo. A photo is decoded and embedded once for all places.
    """

    modalities: ClassVar[tuple[str, ...]] = ("streetview",)
    version: ClassVar[int] = 1
    needs: ClassVar[str] = "photos"
    licence: ClassVar[str] = "MIT"
    window_m: float = 300.0
    model: str = DEFAULT_MODEL
    photos: int = 4
    tokens: Literal["mean", "bag"] = "mean"
    precision: Literal["float32", "bf16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_window(self.window_m)
        check_range("photos", self.photos, "at least 1", self.photos >= 1)

    def width(self, modality: str) -> int | None:
        """Return the width of a token, known of the default model alone."""
        return DEFAULT_WIDTH if self.model == DEFAULT_MODEL else None

    def config(self) -> dict[str, Any]:
        """Return the settings; a folder of weights by its portable name."""
        return {**asdict(self), "model": _weights.portable(self.model)}

    def weights(self) -> str:
        """Return the SHA-256 of the model's files."""
        return _weights.find(self.model).sha256

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens of places."""
        embedded = Embedded(city, modality, _weights.find(self.model), self.precision)
        path = city.workspace.layer_file(city.key, modality)
        table, _ = read_table(path, ["photo_id", "lon", "lat"])
        ids = table.column("photo_id").to_numpy(zero_copy_only=False).astype(str)
        spots = np.column_stack(
            places.grid.project(table.column("lon").to_numpy(), table.column("lat").to_numpy())
        )
        place, photo = nearest(spots, ids, places, self.window_m, self.photos)
        used, row = np.unique(photo, return_inverse=True)
        vectors, whole = embedded.vectors(used, ids[used])
        place, photo, row = place[whole[row]], photo[whole[row]], row[whole[row]]
        counts = np.bincount(place, minlength=len(places))
        present = counts > 0
        if self.tokens == "bag":
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            south_west = np.column_stack([places.x, places.y]) / places.grid.tile_m - 0.5
            corner = (spots[photo] / places.grid.tile_m - south_west[place]).astype(np.float32)
            return Tokens(vectors[row], offsets, np.tile(corner, 4), present, bag=True)
        sums = np.zeros((len(places), vectors.shape[1]))
        np.add.at(sums, place, vectors[row])
        mean = sums / np.maximum(counts, 1)[:, None]
        return single_tokens(mean.astype(np.float32), present)


def nearest(
    spots: npt.NDArray[np.float64],
    ids: npt.NDArray[np.str_],
    places: Places,
    window_m: float,
    count: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs (place, photo) of the photos of each place, nearest first; see `Encoder`.

    Args:
        spots: (M, 2) of the photos, metres.
        ids: (M,) theirs.
        places: N places.
        window_m: side of the square around a place, metres.
        count: photos of a place, at most.
    """
    points = np.asarray(shapely.points(spots), dtype=object)
    place, photo = shapely.STRtree(points).query(places.boxes(window_m))
    away = spots[photo] - np.column_stack([places.x, places.y])[place]
    inside = ((away >= -window_m / 2) & (away < window_m / 2)).all(axis=1)
    place, photo, away = place[inside], photo[inside], away[inside]
    order = np.lexsort([ids[photo], np.hypot(*away.T).round(3), place])
    place, photo = place[order], photo[order]
    starts = np.searchsorted(place, np.arange(len(places) + 1))
    kept = np.arange(len(place)) - starts[place] < count
    return place[kept], photo[kept]


class Embedded:
    """The photos of a city through a model, each once.

    Attributes:
        decoded: photos that were read from the layer so far, broken ones too.

    Args:
        city: whose.
        modality: `streetview`.
        weights: of the model.
        precision: `float32` or `bf16`.
    """

    def __init__(
        self, city: CityLayers, modality: str, weights: _weights.Weights, precision: str
    ) -> None:
        self._remembered = _memory(city.checksum(modality), weights, precision)
        self._path = city.workspace.layer_file(city.key, modality)
        self._vision = open_vision(weights, tuple(KINDS))
        self._precision = precision
        self.decoded = 0

    def vectors(
        self, rows: npt.NDArray[np.int64], ids: npt.NDArray[np.str_]
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the vectors of photos (n, d), zero of broken ones, and which are whole (n,).

        Args:
            rows: (n,) of the layer, ascending.
            ids: (n,) of the photos there.
        """
        known = self._remembered
        new = np.array([photo not in known for photo in ids.tolist()], dtype=bool)
        names, broken = deque(ids[new].tolist()), 0
        for photos in self._views(rows[new]):
            for vector in self._embedded(photos):
                known[names.popleft()] = vector
                self.decoded += 1
                broken += vector is None
        if broken:
            LOG.warning(
                "%d of %d photos cannot be decoded and are missing: `urban validate` names them",
                broken, int(new.sum()),
            )  # fmt: skip
        found = [known[photo] for photo in ids.tolist()]
        whole = np.array([vector is not None for vector in found], dtype=bool)
        values = np.zeros((len(found), self._vision.width), np.float32)
        for number in np.flatnonzero(whole).tolist():
            values[number] = found[number]
        while len(known) * values.shape[1] * 4 > MEMORY_BYTES:
            del known[next(iter(known))]
        return values, whole

    def _views(self, rows: npt.NDArray[np.int64]) -> Iterator[list[list[Pixels]]]:
        """Yield the views of a few photos at a time, in the order of their rows; see `views`."""
        file, _ = open_parquet(self._path)
        start = 0
        with file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                here = rows[(rows >= start) & (rows < end)] - start
                if len(here):
                    table = file.read_row_group(group, columns=["image", "panorama"]).take(here)
                    for first in range(0, len(here), AT_ONCE):
                        some = table.slice(first, AT_ONCE).to_pylist()
                        yield [views(row["image"], row["panorama"]) for row in some]
                start = end

    def _embedded(self, photos: Sequence[Sequence[Pixels]]) -> list[Floats | None]:
        """Return the mean vector of the views of each photo, None where there are none."""
        flat = [view for own in photos for view in own]
        vectors = self._vision.embed_photos(flat, self._precision)
        ends = np.cumsum([len(own) for own in photos])
        return [
            vectors[end - len(own) : end].mean(axis=0) if len(own) else None
            for own, end in zip(photos, ends.tolist(), strict=True)
        ]


@functools.lru_cache(maxsize=1)
def _memory(checksum: str, weights: _weights.Weights, precision: str) -> dict[str, Floats | None]:
    """Return what is remembered of the photos of a layer, by their ids; None of broken ones."""
    return {}


def views(image: bytes, panorama: bool) -> list[Pixels]:
    """Return what a photo shows, (rows, columns, 3) RGB: one view, of a panorama four; none where
    it is no whole JPEG."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image), formats=("JPEG",)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return []
    return level_views(pixels) if panorama else [pixels]


def level_views(panorama: Pixels) -> list[Pixels]:
    """Return the four level views of 90° of a panorama: ahead, right, behind, left.

    An equirectangular picture has longitude across, 360° wide, and latitude down, with as many
    pixels to a degree; its middle row is the horizon. A view's pixel at (u, v), both −1 … 1, looks
    to longitude atan(u) and latitude −atan(v / √(1 + u²)), sampled bilinearly; a view is as fine as
    the panorama, a quarter of its width.

    Args:
        panorama: (H, W, 3).
    """
    height, width = panorama.shape[:2]
    side = max(1, width // HEADINGS)
    u = (2 * np.arange(side) + 1) / side - 1
    across, down = np.meshgrid(u, u)
    pixels_per_radian = width / (2 * np.pi)
    column = np.arctan(across) * pixels_per_radian + width / 2 - 0.5
    row = np.arctan(down / np.hypot(1, across)) * pixels_per_radian + height / 2 - 0.5
    row = np.clip(row, 0, height - 1)
    turned = [column + width * heading / HEADINGS for heading in range(HEADINGS)]
    return [_bilinear(panorama, row, columns % width) for columns in turned]


def _bilinear(
    picture: Pixels, row: npt.NDArray[np.float64], column: npt.NDArray[np.float64]
) -> Pixels:
    """Return the samples of a picture at rows and columns; columns go round."""
    top, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    down, across = (row - top)[..., None], (column - left)[..., None]
    bottom = np.minimum(top + 1, picture.shape[0] - 1)
    left, right = left % picture.shape[1], (left + 1) % picture.shape[1]
    above = picture[top, left] * (1 - across) + picture[top, right] * across
    below = picture[bottom, left] * (1 - across) + picture[bottom, right] * across
    return np.asarray(np.rint(above * (1 - down) + below * down), np.uint8)
