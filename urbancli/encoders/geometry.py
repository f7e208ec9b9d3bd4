"""The shapes of map entities alone: closed-form Fourier transforms in two frames, a token each.

In the frame of its own box a transform says what an entity looks like, whatever its size; in the
frame of the tile around a place, how large it is there, where it lies and how it is turned.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from urbancli.configs import check_range
from urbancli.encoders import _fourier, base
from urbancli.encoders._touching import Touching, sizes, touching
from urbancli.encoders.base import State
from urbancli.grid import TILE_M, Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens

SIZES = 7
"""Columns beside the transforms."""

CHUNK_TOKENS = 1 << 12
"""Tokens made at once: small enough for the temporaries to stay in cache."""


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """Tokens (ΣT, F · 2 · octaves · orientations + 7) float32 of the entities that touch each
    place's square, F frames.

    Columns: of each frame, `box` first, the real, then the imaginary parts of F(k) / F(0) at
    `_fourier.frequencies(octaves, orientations)`; log1p of area (m²), of edge length (m), of the
    upright box's width and height (tile sides); one-hot dimension (points, lines, polygons).

    Frame `box`: the centre of the entity's upright box at 0, its longer side 1. Frame `tile`: the
    place at 0, the side of a tile 1, the same for all entities of a place. A point is exp(−i k·x)
    there and 1 in its box; no entity has zeros for a transform. An entity that reaches beyond the
    square is described whole.

    Positions, and which places are absent or empty, as of the encoder `entities`.
    """

    modalities: ClassVar[tuple[str, ...]] = ("entities", "buildings", "aoi")
    version: ClassVar[int] = 1
    block_places: ClassVar[int] = 512  # bags of hundreds of tokens each
    window_m: float = field(default=float(TILE_M), init=False)
    frame: Literal["box", "tile", "both"] = "both"
    octaves: int = _fourier.OCTAVES
    orientations: int = _fourier.ORIENTATIONS

    def __post_init__(self) -> None:
        check_range("octaves", self.octaves, "1 to 8", 1 <= self.octaves <= 8)
        check_range("orientations", self.orientations, "1 to 64", 1 <= self.orientations <= 64)

    def width(self, modality: str) -> int:
        """Return the columns of a token."""
        frames = 2 if self.frame == "both" else 1
        return frames * 2 * self.octaves * self.orientations + SIZES

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens; the square is a tile's, around the centre of each place."""
        found = touching(city, modality, places)
        return found.tokens(self.features(found, places), places)

    def features(self, found: Touching, places: Places) -> npt.NDArray[np.float32]:
        """Return the values of tokens, (ΣT, width)."""
        kind = (self.octaves, self.orientations)
        tile_m = float(places.grid.tile_m)
        centre, side = _fourier.box_frames(found.geometry)
        shapes = _fourier.shapes_of(found.geometry, centre, side)
        # Of an entity, the same in every place: its box frame, and the tile's moved onto its box.
        of_entity = [] if self.frame == "tile" else [_fourier.transform(shapes, *kind)]
        if self.frame != "box":
            of_entity.append(_fourier.transform(_fourier.rescaled(shapes, tile_m / side), *kind))
        size = sizes(found.geometry, shapes, side, places.grid)
        origin = np.column_stack([places.x, places.y])
        out = np.empty((len(found.entity), self.width("")), np.float32)
        for start in range(0, len(out), CHUNK_TOKENS):
            some = slice(start, start + CHUNK_TOKENS)
            entity = found.entity[some]
            waves = [of_frame[entity] for of_frame in of_entity]
            if self.frame != "box":
                shift = (centre[entity] - origin[found.place[some]]) / tile_m
                waves[-1] *= _fourier.phases(shift, *kind)
            parts = [part for wave in waves for part in (wave.real, wave.imag)]
            np.concatenate([*parts, size[entity]], axis=1, out=out[some])
        return out
