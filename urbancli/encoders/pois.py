"""Points of interest: what kinds there are, how many, and what they are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.configs import check_range
from urbancli.encoders import base
from urbancli.encoders._hashing import hashed_bags, text_grams
from urbancli.encoders._windows import check_window
from urbancli.encoders.base import State
from urbancli.grid import Places
from urbancli.layers import CityLayers, poi_category
from urbancli.tokens import Tokens, single_tokens
from urbancli.workspace import geometries


@dataclass(frozen=True)
class Encoder(base.Encoder):
    """One token per place, (2 · (category_width + 1) + text_width) float32.

    Columns: log1p of the POIs of each category and of all, in the place's square (a tile's, around
    the centre; its west and south sides count, the others do not); the same in the circle of
    diameter `window_m`; then the mean over the circle's POIs of the signed hashed words and
    character 3-grams of their name and category, scaled to length 1 where there are any.

    A category is what `layers.poi_category` names, counted in a hashed column without sign, so
    that categories may share one; POIs without a category count only among all. A polygon counts
    where a point surely on it lies. A place in one of the city's tiles is present, no POIs is
    knowledge too; of a place elsewhere nothing was fetched: it is absent.
    """

    modalities: ClassVar[tuple[str, ...]] = ("pois",)
    version: ClassVar[int] = 2
    window_m: float = 600.0
    category_width: int = 64
    text_width: int = 64

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_window(self.window_m)
        for name in ("category_width", "text_width"):
            width = getattr(self, name)
            check_range(name, width, "from 1 to 65536", 1 <= width <= 65536)

    def encode(self, city: CityLayers, modality: str, places: Places, state: State) -> Tokens:
        """Return the vectors of places."""
        table = city.entities(modality)
        spots = shapely.point_on_surface(city.grid.project_geometry(geometries(table)))
        centres = shapely.points(places.x, places.y)
        reach = max(self.window_m, city.grid.tile_m * 2**0.5) / 2
        place, poi = shapely.STRtree(spots).query(centres, predicate="dwithin", distance=reach)
        east = shapely.get_x(spots)[poi] - places.x[place]
        north = shapely.get_y(spots)[poi] - places.y[place]
        half = city.grid.tile_m / 2
        in_square = (east >= -half) & (east < half) & (north >= -half) & (north < half)
        in_circle = np.hypot(east, north) <= self.window_m / 2

        tags = [dict(pairs or ()) for pairs in table.column("tags").to_pylist()]
        counts = kind_counts(tags, self.category_width)
        shape = (len(places), len(tags))
        square = _incidence(place[in_square], poi[in_square], shape)
        circle = _incidence(place[in_circle], poi[in_circle], shape)
        text = circle @ hashed_texts(tags, self.text_width)
        length = np.linalg.norm(text, axis=1, keepdims=True)
        text = np.divide(text, length, out=np.zeros_like(text), where=length > 0)
        parts = [np.log1p(square @ counts), np.log1p(circle @ counts), text]
        return single_tokens(np.concatenate(parts, axis=1).astype(np.float32), city.holds(places))


def kind_counts(tags: Sequence[dict[str, str]], width: int) -> npt.NDArray[np.float64]:
    """Return what each POI adds to the counts: hashed category, then 1, (n, width + 1)."""
    kinds = hashed_bags(([c] if (c := poi_category(t)) else [] for t in tags), width, signed=False)
    return np.column_stack([kinds, np.ones(len(tags))])


def hashed_texts(tags: Sequence[dict[str, str]], width: int) -> npt.NDArray[np.float64]:
    """Return the hashed words and 3-grams of name and category of each POI, (n, width)."""
    texts = [f"{t.get('name', '')} {(poi_category(t) or '=').split('=', 1)[1]}" for t in tags]
    distinct = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    rows = np.array([distinct[text] for text in texts], dtype=np.int64)
    return hashed_bags(map(text_grams, distinct), width)[rows]


def _incidence(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], shape: tuple[int, int]
) -> Any:
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
