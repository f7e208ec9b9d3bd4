"""What map entities are, by a sentence encoder: the summed tag vectors of GeoJEPA."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli.encoders._texts import DEFAULT_MODEL, DEFAULT_WIDTH, SentenceModel, TextEncoder
from urbancli.encoders._touching import touching
from urbancli.encoders.base import State
from urbancli.encoders.entities import DROPPED_KEYS, shape_features
from urbancli.grid import TILE_M, Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens

SHAPE_WIDTH = 55
"""Columns of `entities.shape_features`."""


@dataclass(frozen=True)
class Encoder(TextEncoder):
    """Tokens (ΣT, d) float32, or (ΣT, d + 55) with `shape`, of the entities that touch each
    place's square.

    Columns: the sum over an entity's tags of the vectors, of length 1, of the texts `key=value`
    (GeoJEPA, arXiv 2503.05774), without keys that tell of the editing, `entities.DROPPED_KEYS`;
    zero for an entity without any other. With `shape` the columns `entities.shape_features` of the
    encoder `entities` stand beside them: GeoJEPA's two parts of an entity in one token.

    GeoJEPA's vectors have 1024 columns; which model made them is not known to us, any can be
    named. Positions, and which places are absent or empty, as of the encoder `entities`.
    """

    modalities: ClassVar[tuple[str, ...]] = ("entities", "buildings", "aoi")
    version: ClassVar[int] = 1
    block_places: ClassVar[int] = 512  # bags of hundreds of tokens each
    needs: ClassVar[str] = "tags"
    window_m: float = field(default=float(TILE_M), init=False)
    shape: bool = False

    def width(self, modality: str) -> int | None:
        """Return the width of a token, known of the default model alone."""
        return DEFAULT_WIDTH + SHAPE_WIDTH * self.shape if self.model == DEFAULT_MODEL else None

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens; the square is a tile's, around the centre of each place."""
        found = touching(city, modality, places)
        values = summed_vectors(found.table, self.loaded())
        if self.shape:
            shapes = shape_features(found.geometry, places.grid).astype(np.float32)
            values = np.concatenate([values, shapes], axis=1)
        return found.tokens(values[found.entity], places)


def summed_vectors(table: pa.Table, model: SentenceModel) -> npt.NDArray[np.float32]:
    """Return the sum of the vectors of each row's tags, (rows, model.width)."""
    from scipy.sparse import csr_array

    texts = [tag_texts(dict(pairs or ())) for pairs in table.column("tags").to_pylist()]
    number: dict[str, int] = {}
    columns = [number.setdefault(text, len(number)) for row in texts for text in row]
    ends = np.concatenate([[0], np.cumsum([len(row) for row in texts])]).astype(np.int64)
    ones = np.ones(len(columns), np.float32)
    shape = (len(texts), len(number))
    counts = csr_array((ones, np.array(columns, np.int64), ends), shape=shape)
    sums: npt.NDArray[np.float32] = counts @ model.vectors(list(number))
    return sums


def tag_texts(tags: Mapping[str, str | None]) -> list[str]:
    """Return the texts of an entity's tags, those that tell of its editing left out."""
    kept = {key: value for key, value in tags.items() if not key.startswith(DROPPED_KEYS)}
    return [key if value is None else f"{key}={value}" for key, value in kept.items()]
