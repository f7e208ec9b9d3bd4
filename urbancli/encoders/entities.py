"""Map entities: hashed tags beside the closed-form Fourier transform of the shape, one token each.

The tokens of a place are all entities that touch its square; nothing is left out or cut, however
many there are. An entity that reaches beyond the square is described whole.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli.configs import check_range
from urbancli.encoders import _fourier, base
from urbancli.encoders._hashing import hashed_bags
from urbancli.encoders._touching import sizes, touching
from urbancli.encoders.base import State
from urbancli.grid import TILE_M, Grid, Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens
from urbancli.workspace import Geometries

DROPPED_KEYS = ("tiger:", "source", "import", "yh:", "created_by")
"""Beginnings of keys that tell of the editing and not of the thing."""

FREE_TEXT_KEYS = (
    "name", "addr", "ref", "description", "note", "fixme", "website", "url", "phone", "fax",
    "email", "contact", "wikidata", "wikipedia", "image", "opening_hours", "inscription",
)  # fmt: skip
"""Keys, and with a colon prefixes of keys, whose values are nearly all different: only the key is
hashed. So are keys that end in `name` (`old_name`, `official_name`)."""


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """Tokens (ΣT, tag_width + 55) float32 of the entities that touch each place's square.

    Columns: signed sums of hashed `key` and `key=value`; real, then imaginary parts of the shape's
    transform at `_fourier.frequencies()` in the frame of its upright box (centre at 0, longer side
    1); log1p of area (m²), of edge length (m), of box width and height (tile sides); one-hot
    dimension (points, lines, polygons).

    Positions (ΣT, 8): corners of the entity's smallest rotated box, x and y in turn,
    counter-clockwise from the lower left, in tile sides from the square's south-west corner.

    A place without entities is present with no tokens; one whose centre is in none of the city's
    tiles is absent, nothing was fetched there. `window_m` is the square; an entity that touches it
    can itself reach farther.
    """

    modalities: ClassVar[tuple[str, ...]] = ("entities", "buildings", "aoi")
    version: ClassVar[int] = 2
    block_places: ClassVar[int] = 512  # bags of hundreds of tokens each
    window_m: float = field(default=float(TILE_M), init=False)
    tag_width: int = 128

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        fits = 1 <= self.tag_width <= 65536
        check_range("tag_width", self.tag_width, "from 1 to 65536", fits)

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens; the square is a tile's, around the centre of each place."""
        found = touching(city, modality, places)
        parts = [hashed_tags(found.table, self.tag_width)]
        parts.append(shape_features(found.geometry, city.grid))
        values = np.concatenate(parts, axis=1).astype(np.float32)[found.entity]
        return found.tokens(values, places)


def hashed_tags(table: pa.Table, width: int) -> npt.NDArray[np.float64]:
    """Return the signed sums of the hashed tags of each row, (rows, width)."""
    tagged = table.column("tags").to_pylist()
    return hashed_bags(
        ([word for key, value in tags or () for word in tag_words(key, value)] for tags in tagged),
        width,
    )


def tag_words(key: str, value: str | None) -> tuple[str, ...]:
    """Return the words that a tag is hashed or counted by: `key`, and `key=value` where that
    recurs; none of a key that tells of the editing."""
    if key.startswith(DROPPED_KEYS):
        return ()
    if key.split(":", 1)[0] in FREE_TEXT_KEYS or key.endswith("name") or value is None:
        return (key,)
    return (key, f"{key}={value}")


def shape_features(geometry: Geometries, grid: Grid) -> npt.NDArray[np.float64]:
    """Return transform, size and dimension of geometries in metres, (N, _fourier.WIDTH + 7)."""
    centre, side = _fourier.box_frames(geometry)
    shapes = _fourier.shapes_of(geometry, centre, side)
    waves = _fourier.transform(shapes)
    size = sizes(geometry, shapes, side, grid)
    return np.concatenate([waves.real, waves.imag, size], axis=1)
