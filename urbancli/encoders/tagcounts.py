"""Which tags the map entities of a place have, and how many: no weights, a vector for each place.

The control of GeoJEPA's paper, "pooled raw tags": what is learnt of a map should say more.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from urbancli.configs import check_range
from urbancli.encoders import base
from urbancli.encoders._hashing import hash_words, text_grams
from urbancli.encoders._touching import Touching, touching
from urbancli.encoders.base import State
from urbancli.encoders.entities import tag_words
from urbancli.grid import TILE_M, Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens, single_tokens


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """One token per place, at most (`size` + 1) float32, of the entities that touch its square.

    A word is a key, or a `key=value` unless the values of that key are nearly all different, as
    of the encoder `entities`. Columns, s the sum over a place's entities:

    - `words=frequent`: log1p(s) of each of the `size` words that the most fitted places have, in
      that order, ties in the alphabet's; words that no fitted place has are not counted.
    - `words=hashed`: sign(s) log1p(|s|) of the signed hashes of the words, and of `text_grams` of
      the longer one of each tag: nothing is fitted, and tags that are spelt alike are alike.

    Last, log1p of the number of entities. Which places are absent as of the encoder `entities`;
    a place without entities has zeros, which is knowledge.
    """

    modalities: ClassVar[tuple[str, ...]] = ("entities", "buildings", "aoi")
    version: ClassVar[int] = 1
    needs: ClassVar[str] = "tags"
    window_m: float = field(default=float(TILE_M), init=False)
    words: Literal["frequent", "hashed"] = "frequent"
    size: int = 256

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_range("size", self.size, "from 1 to 65536", 1 <= self.size <= 65536)

    def width(self, modality: str) -> int | None:
        """Return the width of a token where no vocabulary decides it."""
        return self.size + 1 if self.words == "hashed" else None

    def fit(self, city: CityLayers, modality: str, places: Places, seed: int) -> State:
        """Return the vocabulary: the words in UTF-8, joined by zero bytes."""
        if self.words == "hashed":
            return {}
        counts, words = place_words(touching(city, modality, places), grams=False)
        having = (counts > 0).sum(axis=0).tolist()
        usual = sorted(zip(having, words, strict=True), key=lambda pair: (-pair[0], pair[1]))
        text = "\0".join(word for having, word in usual[: self.size] if having)
        return {"vocabulary": np.frombuffer(text.encode(), np.uint8)}

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the vectors; the square is a tile's, around the centre of each place."""
        found = touching(city, modality, places)
        counts, words = place_words(found, grams=self.words == "hashed")
        if self.words == "hashed":
            columns, weights = hash_words(words, self.size)
            size = self.size
        else:
            usual = [word for word in state["vocabulary"].tobytes().decode().split("\0") if word]
            column = {word: number for number, word in enumerate(usual)}
            columns = np.array([column.get(word, 0) for word in words], np.int64)
            weights = np.array([word in column for word in words], np.float64)
            size = len(usual)
        sums = np.zeros((len(places), size + 1))
        if len(words) and size:
            sums[:, :size] = (counts @ _matrix(weights, columns, size)).todense()
        sums[:, size] = np.bincount(found.place, minlength=len(places))
        values = np.sign(sums) * np.log1p(np.abs(sums))
        return single_tokens(values.astype(np.float32), found.present)


def place_words(found: Touching, *, grams: bool) -> tuple[Any, list[str]]:
    """Return how often each of N places has each word, a sparse (N, V), and the words.

    Args:
        found: the entities of places.
        grams: with the words within a tag, marked at both ends, and their character 3-grams.
    """
    from scipy.sparse import csr_array

    number: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for pairs in found.table.column("tags").to_pylist():
        for key, value in pairs or ():
            words = tag_words(key, value)
            parts = text_grams(words[-1]) if words and grams else []
            columns += [number.setdefault(word, len(number)) for word in (*words, *parts)]
        ends.append(len(columns))
    of_entity = csr_array((np.ones(len(columns)), columns, ends), (len(ends) - 1, len(number)))
    shape = (len(found.present), len(ends) - 1)
    of_place = csr_array((np.ones(len(found.place)), (found.place, found.entity)), shape)
    return of_place @ of_entity, list(number)


def _matrix(weights: npt.NDArray[np.float64], columns: npt.NDArray[np.int64], size: int) -> Any:
    """Return the sparse (V, size) that adds word v, times its weight, to its column."""
    from scipy.sparse import csr_array

    return csr_array((weights, (np.arange(len(columns)), columns)), (len(columns), size))
