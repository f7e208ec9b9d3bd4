"""Points of interest as a text, read by a sentence encoder: the POI token of UrbanFusion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import shapely

from urbancli.configs import check_range
from urbancli.encoders._texts import DEFAULT_MODEL, DEFAULT_WIDTH, TextEncoder
from urbancli.encoders._windows import check_window
from urbancli.encoders.base import State
from urbancli.grid import Places
from urbancli.layers import CityLayers, poi_category
from urbancli.tokens import Tokens, single_tokens
from urbancli.workspace import geometries

HEADER = "Nearby OSM points of interest are:"

NAMELESS = "unnamed"
"""The name of a POI that has none; most of OSM's small amenities."""

KINDLESS = "unknown"
"""The type of a POI that no key of `layers.POI_KEYS` names."""


@dataclass(frozen=True)
class Encoder(TextEncoder):
    """One token per place, (d) float32 of length 1: the vector of `prompt`'s text.

    The text is UrbanFusion's (arXiv 2510.13774): up to `nearest` POIs within half of `window_m`
    of the place's centre, nearest first. What its paper leaves open is decided so: POIs at the
    same distance, to the millimetre, come in order of their entity id; a polygon lies where a point
    surely on it lies; a POI without name is kept as `unnamed`; its type is the value of the first
    of `layers.POI_KEYS` that it has, as tagged (`fast_food`), that key for the value `yes`,
    `unknown` without any.

    A place in one of the city's tiles is present, and without POIs its text is the header alone;
    of a place elsewhere nothing was fetched: it is absent. A text longer than the model reads
    (BGE: 512 tokens) loses its farthest POIs; `SentenceModel.truncated` counts such texts.
    """

    modalities: ClassVar[tuple[str, ...]] = ("pois",)
    version: ClassVar[int] = 1
    needs: ClassVar[str] = "names and kinds of POIs"
    window_m: float = 400.0
    nearest: int = 15

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_window(self.window_m)
        check_range("nearest", self.nearest, "at least 1", self.nearest >= 1)

    def width(self, modality: str) -> int | None:
        """Return the width of a token, known of the default model alone."""
        return DEFAULT_WIDTH if self.model == DEFAULT_MODEL else None

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the vectors of the places' texts."""
        present = city.holds(places)
        found = texts(city.entities(modality), places.take(present), self.window_m, self.nearest)
        model = self.loaded()
        values = np.zeros((len(places), model.width), np.float32)
        values[present] = model.vectors(found)
        return single_tokens(values, present)


def texts(table: pa.Table, places: Places, window_m: float, nearest: int) -> list[str]:
    """Return the text of each place.

    Args:
        table: the POIs, an entity layer.
        places: N places.
        window_m: diameter of the circle in which POIs are named, metres.
        nearest: POIs that are named, at most.
    """
    spots = shapely.point_on_surface(places.grid.project_geometry(geometries(table)))
    centres = shapely.points(places.x, places.y)
    place, poi = shapely.STRtree(spots).query(centres, predicate="dwithin", distance=window_m / 2)
    distance = np.hypot(
        shapely.get_x(spots)[poi] - places.x[place], shapely.get_y(spots)[poi] - places.y[place]
    )
    ids = table.column("entity_id").to_numpy(zero_copy_only=False).astype(str)
    # To the millimetre: what is as far as another is so on every machine.
    order = np.lexsort([ids[poi], distance.round(3), place])
    place, poi, distance = place[order], poi[order], distance[order]
    starts = np.searchsorted(place, np.arange(len(places) + 1))
    kept = np.arange(len(place)) - starts[place] < nearest
    place, poi, distance = place[kept], poi[kept], distance[kept]
    used, index = np.unique(poi, return_inverse=True)
    tags = table.column("tags").take(pa.array(used)).to_pylist()
    named = [named_kind(dict(pairs or ())) for pairs in tags]
    lines: list[list[tuple[str, str, float]]] = [[] for _ in range(len(places))]
    for owner, number, metres in zip(
        place.tolist(), index.tolist(), distance.tolist(), strict=True
    ):
        lines[owner].append((*named[number], metres))
    return [prompt(pois) for pois in lines]


def named_kind(tags: dict[str, str]) -> tuple[str, str]:
    """Return the name and type of a POI, each on one line."""
    # A category of a user's own file may itself be `key=value`.
    *_, key, value = (poi_category(tags) or f"{KINDLESS}=yes").split("=")
    name = " ".join(tags.get("name", "").split())
    return name or NAMELESS, key if value == "yes" else " ".join(value.split())


def prompt(pois: Sequence[tuple[str, str, float]]) -> str:
    """Return the text of a place.

    Args:
        pois: name, type and distance in metres of each, nearest first.
    """
    lines = [
        f"{name} (type: {kind}) with distance {round(metres)}m," for name, kind, metres in pois
    ]
    return "\n".join([HEADER, *lines])
