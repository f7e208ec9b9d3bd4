"""Coordinates as they are: the location encoder belongs to the method, which may train it."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from urbancli.encoders import base
from urbancli.encoders.base import State
from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens, single_tokens


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """One token per place: (lon, lat) of its centre, float64, EPSG:4326 degrees.

    Always present; reads no neighbourhood.
    """

    modalities: ClassVar[tuple[str, ...]] = ("coords",)
    version: ClassVar[int] = 1
    window_m: float = field(default=0.0, init=False)

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return (N, 2) longitudes and latitudes."""
        return single_tokens(np.column_stack(places.lonlat()))
