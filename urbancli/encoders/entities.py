"""Map entities: hashed tags beside the closed-form Fourier transform of the shape, one token each.

The tokens of a place are all entities that touch its square; nothing is left out or cut, however
many there are. An entity that reaches beyond the square is described whole.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.encoders import _fourier, base
from urbancli.encoders._hashing import hashed_bags
from urbancli.encoders.base import State
from urbancli.grid import TILE_M, Grid, Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens
from urbancli.workspace import Geometries, geometries

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
    window_m: float = field(default=float(TILE_M), init=False)
    tag_width: int = 128

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens; the square is a tile's, around the centre of each place."""
        table = city.entities(modality)
        geometry = city.grid.project_geometry(geometries(table))
        # Pairs come in any order; a token's place in its bag is the entity's row in the layer.
        place, entity = shapely.STRtree(geometry).query(places.boxes(), predicate="intersects")
        present = city.holds(places)
        place, entity = place[present[place]], entity[present[place]]
        order = np.lexsort([entity, place])
        place, entity = place[order], entity[order]
        used, entity = np.unique(entity, return_inverse=True)
        geometry = geometry[used]
        parts = [hashed_tags(table.take(pa.array(used)), self.tag_width)]
        parts.append(shape_features(geometry, city.grid))
        south_west = np.column_stack([places.x, places.y]) / city.grid.tile_m - 0.5
        corners = box_corners(geometry)[entity] / city.grid.tile_m
        positions = (corners - south_west[place, None]).reshape(-1, 8).astype(np.float32)
        offsets = np.searchsorted(place, np.arange(len(places) + 1)).astype(np.int64)
        values = np.concatenate(parts, axis=1).astype(np.float32)[entity]
        return Tokens(values, offsets, positions, present, bag=True)


def hashed_tags(table: pa.Table, width: int) -> npt.NDArray[np.float64]:
    """Return the signed sums of the hashed tags of each row, (rows, width)."""
    tagged = table.column("tags").to_pylist()
    return hashed_bags(
        ([word for key, value in tags or () for word in _tag_words(key, value)] for tags in tagged),
        width,
    )


def _tag_words(key: str, value: str | None) -> tuple[str, ...]:
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
    solid = shapes.dimension == 2
    area = np.where(solid, shapes.measure, 0.0) * side**2
    bounds = np.nan_to_num(shapely.bounds(geometry).reshape(-1, 4))
    box = (bounds[:, 2:] - bounds[:, :2]) / grid.tile_m
    size = np.column_stack([area, shapes.length * side, box])
    one_hot = shapes.dimension[:, None] == np.arange(3)
    return np.concatenate([waves.real, waves.imag, np.log1p(size), one_hot], axis=1)


def box_corners(geometry: Geometries) -> npt.NDArray[np.float64]:
    """Return the corners (N, 4, 2) of the smallest rotated boxes, metres.

    Counter-clockwise from the lower left one; a line gives its ends twice, a point itself.
    """
    boxes = shapely.oriented_envelope(geometry)
    points, owner = shapely.get_coordinates(boxes, return_index=True)
    counts = np.bincount(owner, minlength=len(geometry))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    # Points have one coordinate, lines two, rectangles five, of which the last repeats the first.
    pick = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]])[np.digitize(counts, [2, 3])]
    corners = points[starts[:, None] + pick]
    diagonal, other = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    clockwise = diagonal[:, 0] * other[:, 1] - diagonal[:, 1] * other[:, 0] < 0
    corners[clockwise] = corners[clockwise][:, ::-1]
    lowest = np.argmin(corners.sum(axis=2), axis=1)
    turned: npt.NDArray[np.float64] = np.take_along_axis(
        corners, ((lowest[:, None] + np.arange(4)) % 4)[:, :, None], axis=1
    )
    return turned
