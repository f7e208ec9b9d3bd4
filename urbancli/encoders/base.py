"""The contract of a frozen encoder: from the layer windows of places to tokens.

An encoder is fitted once on places (whitening, say; many need nothing) and then encodes any place,
also of another city, with that state. `encoding.py` chooses encoders and keeps what they made.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.token_files import BLOCK_PLACES
from urbancli.tokens import Tokens

State = Mapping[str, npt.NDArray[Any]]
"""What `fit` learnt, as named arrays; may be empty."""


class Encoder(ABC):
    """A frozen encoder: a frozen dataclass called `Encoder`, whose fields are its settings.

    Every field has a default and is set by `--encoder MODALITY=NAME,field=value`; one called
    `model` also by `NAME:MODEL`. It names weights, by id on the Hugging Face hub or by a folder.

    Attributes:
        modalities: what it can encode.
        version: raised whenever the same input would give other values.
        window_m: side of the square around a place's centre that it reads, metres; 0 for encoders
            that read no neighbourhood.
        needs: what it must find in the layer, in a few words, e.g. `red, green, blue`.
        licence: of the weights it loads by default; empty where it loads none.
        block_places: places encoded and kept at a time, as many as `encode` is given.
    """

    modalities: ClassVar[tuple[str, ...]]
    version: ClassVar[int]
    window_m: float
    needs: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    block_places: ClassVar[int] = BLOCK_PLACES

    def fit(self, city: CityLayers, modality: str, places: Places, seed: int) -> State:
        """Return what the encoder must learn from places before it can encode; default nothing."""
        return {}

    @abstractmethod
    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the tokens of places, in their order."""

    def reach_m(self, modality: str) -> float:
        """Return the side of the largest square that it reads of a modality; default `window_m`."""
        return self.window_m

    def width(self, modality: str) -> int | None:
        """Return the width of a token where the settings alone decide it, else None."""
        return None

    def config(self) -> dict[str, Any]:
        """Return the parameters that change the values, JSON-able: no absolute path."""
        return dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}

    def weights(self) -> str:
        """Return the SHA-256 of the weights it loads; empty where it loads none.

        Raises:
            UrbanError: they are not here and cannot be had.
        """
        return ""
