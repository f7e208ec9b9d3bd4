"""Which tiles a geometry touches, and which of these is nearest to its centroid.

The tiles are a regular grid, so candidates come from arithmetic on bounding boxes and only the
geometries that span several tiles are tested against them: exact, and no index over millions of
tiles is needed.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.grid import Floats, Grid, Integers, Places
from urbancli.workspace import Geometries

CANDIDATES = 2_000_000
"""Pairs of entity and tile tested at a time: bounds the memory."""


class Tiles:
    """Tiles of one grid, each once, put in order once for all geometries that are asked about.

    Attributes:
        places: the tiles.
        ids: (N,) their ids.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.ids = pa.array(places.place_id.tolist(), pa.string())
        self._cells = cells = places.cells
        self._low, self._high = cells.min(axis=0), cells.max(axis=0)
        self._height = int(self._high[1] - self._low[1] + 1)
        keys = (cells[:, 0] - self._low[0]) * self._height + cells[:, 1] - self._low[1]
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        lon, lat = places.lonlat()
        degrees = 2 * places.grid.tile_m / 111_000
        wider = degrees / np.cos(np.radians(min(np.abs(lat).max(), 87.0)))
        self._box = (
            lon.min() - wider, lat.min() - degrees, lon.max() + wider, lat.max() + degrees,
        )  # fmt: skip

    def near(self, geometry: Geometries) -> npt.NDArray[np.bool_]:
        """Return which geometries (EPSG:4326) have a box that meets the tiles', two tiles wider.

        A cheap test that spares most of a country's file the projection. The box of a city across
        the antimeridian goes round the globe and lets all longitudes pass.
        """
        bounds = shapely.bounds(geometry).reshape(-1, 4)
        west, south, east, north = self._box
        near: npt.NDArray[np.bool_] = (
            (bounds[:, 0] <= east)
            & (bounds[:, 2] >= west)
            & (bounds[:, 1] <= north)
            & (bounds[:, 3] >= south)
        )
        return near

    def touching(self, geometry: Geometries) -> tuple[Integers, Integers]:
        """Return the pairs (entity, place) that touch, sorted.

        Collections are taken part by part: the box of a bus route has many tiles, those of its
        streets have few. What lies within one tile, as most do, is known by its box alone.

        Args:
            geometry: (N,), EPSG:4326.
        """
        places, cells, order = self.places, self._cells, self._order
        low, high, height, keys = self._low, self._high, self._height, self._keys
        parts, whole = _parts(geometry)
        points, sizes, bounds = _projected(parts, places.grid)
        bounds /= places.grid.tile_m
        bounds[~np.isfinite(bounds).all(axis=1)] = 0.5 + np.tile(high + 1, 2)  # beyond every tile
        # A box that ends on the border of a tile touches the tile on its other side too.
        first, last = np.ceil(bounds[:, :2]) - 1, np.floor(bounds[:, 2:])
        single = (first == last).all(axis=1)
        start = np.maximum(first, low).astype(np.int64)
        size = np.maximum(np.minimum(last, high).astype(np.int64) - start + 1, 0)
        count = size.prod(axis=1)
        wide = ~single & (count > 0)
        parts[wide] = shapely.set_coordinates(parts[wide], points[np.repeat(wide, sizes)])
        shapely.prepare(parts[count > 4])

        found: list[Integers] = []
        limits = np.arange(CANDIDATES, int(count.sum()), CANDIDATES)
        for chunk in np.split(np.arange(len(parts)), np.searchsorted(np.cumsum(count), limits)):
            part = np.repeat(chunk, count[chunk])
            first_pair = np.cumsum(count[chunk]) - count[chunk]
            step = np.arange(len(part)) - np.repeat(first_pair, count[chunk])
            column = start[part, 0] - low[0] + step // size[part, 1]
            row = start[part, 1] - low[1] + step % size[part, 1]
            key = column * height + row
            position = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            exists = keys[position] == key
            part, place = part[exists], order[position[exists]]
            touches = single[part]
            test = np.flatnonzero(~touches)
            near, box = np.unique(place[test], return_inverse=True)
            boxes = places.grid.tile_boxes(cells[near])[box]
            touches[test] = shapely.intersects(parts[part[test]], boxes)
            found.append(whole[part[touches]] * len(cells) + place[touches])
        pairs = np.sort(np.concatenate(found))
        pairs = pairs[np.append(True, np.diff(pairs) != 0)[: len(pairs)]]
        return pairs // len(cells), pairs % len(cells)

    def nearest_blocks(self, geometry: Geometries, entity: Integers, place: Integers) -> pa.Array:
        """Return the block id of every entity among the sorted pairs; geometry in EPSG:4326."""
        places = self.places
        first = np.flatnonzero(np.append(True, np.diff(entity) != 0)[: len(entity)])
        nearest = place[first]
        several = np.diff(np.append(first, len(entity))) > 1
        pair = np.flatnonzero(np.isin(entity, entity[first[several]]))
        centre = shapely.centroid(places.grid.project_geometry(geometry[entity[first[several]]]))
        one = np.searchsorted(entity[first[several]], entity[pair])
        x, y = shapely.get_x(centre)[one], shapely.get_y(centre)[one]
        distance = (places.x[place[pair]] - x) ** 2 + (places.y[place[pair]] - y) ** 2
        order = np.lexsort((place[pair], distance, one))
        nearest[several] = place[pair[order]][np.unique(one[order], return_index=True)[1]]
        return places.grid.block_ids(places.cells[nearest])


def _parts(geometry: Geometries) -> tuple[Geometries, Integers]:
    """Return geometries, those of several parts taken apart, and of which (N,) each is."""
    several = shapely.get_type_id(geometry) > 3
    parts, owner = shapely.get_parts(geometry[several], return_index=True)
    whole = np.concatenate([np.flatnonzero(~several), np.flatnonzero(several)[owner]])
    return np.concatenate([geometry[~several], parts]), whole


def _projected(geometry: Geometries, grid: Grid) -> tuple[Floats, Integers, Floats]:
    """Return what geometries (N,), EPSG:4326, are in a grid's CRS, metres.

    Returns:
        The points of all, shape (P, 2); how many each has, (N,); and their boxes, (N, 4), infinite
        where there are none.
    """
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    points = np.column_stack(grid.project(points[:, 0], points[:, 1]))
    sizes = np.bincount(owner, minlength=len(geometry))
    some = np.flatnonzero(sizes)
    boxes = np.full((len(geometry), 4), np.inf)
    if len(some):
        first = (np.cumsum(sizes) - sizes)[some]
        boxes[some, :2] = np.minimum.reduceat(points, first)
        boxes[some, 2:] = np.maximum.reduceat(points, first)
    return points, sizes, boxes
