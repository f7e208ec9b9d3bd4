"""What a synthetic city consists of, between its factors and its files.

Everything on the map is an element as OSM would have it: a shape in metres with tags. The writer of
the .osm.pbf and the renderer of the imagery read the same elements.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo.factors import Factors
from urbancli.workspace import Geometries

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Elements:
    """Map elements.

    Attributes:
        geometry: (N,) Point, LineString, Polygon (with holes or not) or MultiPolygon; metres in
            `recipe.GRID`'s CRS. Equal coordinates are one and the same OSM node.
        tags: (N,) of each.
    """

    geometry: Geometries
    tags: Sequence[dict[str, str]]

    def __len__(self) -> int:
        return len(self.tags)

    def having(self, key: str, *values: str) -> "Elements":
        """Return the elements tagged with a key, and one of the values if any are given."""
        keep = [i for i, t in enumerate(self.tags) if key in t and (not values or t[key] in values)]
        return Elements(self.geometry[keep], [self.tags[i] for i in keep])


def join_elements(parts: Sequence[Elements]) -> Elements:
    """Return the elements of several parts, in their order."""
    geometry = np.concatenate([np.asarray(part.geometry, dtype=object) for part in parts])
    return Elements(geometry, [tags for part in parts for tags in part.tags])


@dataclass(frozen=True)
class Relation:
    """A relation of elements that is no area: a bus route, a street, a site.

    Attributes:
        tags: of the relation.
        members: (index into the town's elements, role).
    """

    tags: dict[str, str]
    members: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Cells:
    """The blocks between streets: quadrilaterals that fill the rendered square without overlap.

    Attributes:
        corners: (C, 4, 2) metres, counter-clockwise; side k runs from corner k to corner k + 1.
        zone: (C,) `residential`, `commercial`, `retail`, `industrial`, `park`, `forest`,
            `farmland`, `meadow`, `allotments`, `cemetery`, `school`, `hospital`, `railway`,
            `water`.
        setback_m: (C, 4) from the centre line of the street along each side to where plots begin,
            metres; 0 where there is no street.
        tile: (C, 2) column and row of the tile that holds the centre, `recipe.GRID`.
    """

    corners: Floats
    zone: npt.NDArray[np.object_]
    setback_m: Floats
    tile: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.zone)

    def centres(self) -> Floats:
        """Return the means of the corners, (C, 2)."""
        return np.asarray(self.corners.mean(axis=1))

    def polygons(self) -> Geometries:
        """Return the quadrilaterals as polygons."""
        return np.asarray(shapely.polygons(self.corners), dtype=object)


@dataclass(frozen=True)
class Pois:
    """Shops, services and sights.

    Attributes:
        xy: (P, 2) metres.
        tags: (P,) as in OSM, with a name: what the map knows.
        listed_name: (P,) the name in the POI file, which alone shows the factor `chains`.
    """

    xy: Floats
    tags: Sequence[dict[str, str]]
    listed_name: Sequence[str]

    def elements(self) -> Elements:
        """Return them as the map has them."""
        return Elements(np.asarray(shapely.points(self.xy), dtype=object), self.tags)


@dataclass(frozen=True)
class Town:
    """A synthetic city, ready to be written.

    Attributes:
        factors: what it was made from.
        cells: its blocks.
        elements: all that is on the map, POIs too.
        relations: of elements.
        pois: the POIs, for their own file.
    """

    factors: Factors
    cells: Cells
    elements: Elements
    relations: Sequence[Relation]
    pois: Pois
