"""Images around places, as every image encoder reads them: imagery, or a map drawn from OSM."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.encoders._windows import check_pixels
from urbancli.grid import Places
from urbancli.hilbert import hilbert_index
from urbancli.layers import CityLayers, PixelLayer

Window = tuple[int, npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Number of a place, samples (bands, S, S) with the first row north, validity (S, S)."""

NAIP_COLOURS = ("red", "green", "blue", "nir")
"""The bands of NAIP, in the order of its files."""

NAMELESS = ("band1", "band2", "band3", "band4")
"""What they are called in a layer of files that name none."""


class Images(ABC):
    """Squares around places, one at a time.

    Attributes:
        bands: names of the bands, as the layer has them.
        dtype: of the samples.
    """

    bands: tuple[str, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def windows(self, places: Places, window_m: float) -> Iterator[Window]:
        """Yield the square of each place, in an order that reads neighbours together.

        Args:
            places: N places.
            window_m: side of the square, metres.
        """


class LayerImages(Images):
    """Windows of a pixel layer, in its own pixels."""

    def __init__(self, layer: PixelLayer) -> None:
        self._layer = layer
        self.bands = tuple(layer.bands)
        self.dtype = layer.dtype

    def windows(self, places: Places, window_m: float) -> Iterator[Window]:
        """Yield the squares, S = window_m in pixels; zero and invalid where nothing is known.

        Raises:
            UrbanError: they would have no pixel, or too many.
        """
        check_pixels(window_m, self._layer.pixel_m)
        column, row = (places.cells - places.cells.min(axis=0, initial=1 << 40)).T
        for number in np.argsort(hilbert_index(column, row), kind="stable").tolist():
            samples, valid = self._layer.window(places.x[number], places.y[number], window_m)
            yield number, samples, valid


def colour_names(bands: Sequence[str], modality: str) -> tuple[str, ...]:
    """Return the names of a layer's bands; of NAIP the colours also where its files name none."""
    if modality == "naip" and tuple(name.lower() for name in bands) == NAMELESS:
        return NAIP_COLOURS
    return tuple(bands)


def open_images(city: CityLayers, modality: str, *, classes: bool = False) -> Images:
    """Return the images of a modality: imagery, or `basemap`.

    Args:
        city: whose.
        modality: which.
        classes: of a basemap a band per class instead of colours.

    Raises:
        UrbanError: the city has no such layer.
    """
    if modality == "basemap":
        from urbancli.encoders._basemap import Basemap

        return Basemap(city, classes=classes)
    return LayerImages(city.pixels(modality))
