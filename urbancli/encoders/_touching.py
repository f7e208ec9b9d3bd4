"""Which entities touch the squares of places, how large they are, and where their boxes lie."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.encoders._fourier import Shapes
from urbancli.grid import Grid, Places
from urbancli.layers import CityLayers
from urbancli.tokens import Tokens
from urbancli.workspace import Geometries, geometries


@dataclass(frozen=True)
class Touching:
    """The entities that touch the square of a tile around each of N places, one token each.

    Attributes:
        table: (M rows) the entities that touch any, each once, in the order of the layer.
        geometry: (M,) theirs, metres.
        entity: (ΣT,) row of `table` that a token is of; in a bag they ascend.
        place: (ΣT,) number of the place that a token belongs to, sorted.
        present: (N,) false where a place's centre is in none of the city's tiles: nothing was
            fetched there. Such a place has no tokens.
    """

    table: pa.Table
    geometry: Geometries
    entity: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]

    def tokens(self, values: npt.NDArray[np.float32], places: Places) -> Tokens:
        """Return bags of tokens.

        Args:
            values: (ΣT, d).
            places: the N places.

        Returns:
            Tokens with positions (ΣT, 8): corners of the entity's smallest rotated box, x and y in
            turn, counter-clockwise from the lower left, in tile sides from the square's south-west
            corner.
        """
        tile_m = places.grid.tile_m
        south_west = np.column_stack([places.x, places.y]) / tile_m - 0.5
        corners = box_corners(self.geometry)[self.entity] / tile_m
        positions = (corners - south_west[self.place, None]).reshape(-1, 8).astype(np.float32)
        offsets = np.searchsorted(self.place, np.arange(len(places) + 1)).astype(np.int64)
        return Tokens(values, offsets, positions, self.present, bag=True)


def touching(city: CityLayers, modality: str, places: Places) -> Touching:
    """Return the entities of a modality that touch the squares of places."""
    table, geometry, tree = _layer(city, modality, city.checksum(modality))
    # Pairs come in any order; a token's place in its bag is the entity's row in the layer.
    place, entity = tree.query(places.boxes(), predicate="intersects")
    present = city.holds(places)
    place, entity = place[present[place]], entity[present[place]]
    order = np.lexsort([entity, place])
    place, entity = place[order], entity[order]
    used, entity = np.unique(entity, return_inverse=True)
    return Touching(table.take(pa.array(used)), geometry[used], entity, place, present)


@functools.lru_cache(maxsize=1)
def _layer(city: CityLayers, modality: str, checksum: str) -> tuple[pa.Table, Geometries, Any]:
    """Return a layer, its geometries in metres and a tree of them: once for all blocks of places.

    Args:
        city: whose.
        modality: which.
        checksum: of the layer's file: another file is read anew.
    """
    table = city.entities(modality)
    geometry = city.grid.project_geometry(geometries(table))
    return table, geometry, shapely.STRtree(geometry)


def sizes(
    geometry: Geometries, shapes: Shapes, side: npt.NDArray[np.float64], grid: Grid
) -> npt.NDArray[np.float64]:
    """Return log1p of area (m²), of edge length (m), of box width and height (tile sides), then
    one-hot dimension (points, lines, polygons), (N, 7).

    Args:
        geometry: (N,) metres.
        shapes: their edges in frames of their own.
        side: (N,) unit of each frame, metres.
        grid: of the tiles.
    """
    area = np.where(shapes.dimension == 2, shapes.measure, 0.0) * side**2
    bounds = np.nan_to_num(shapely.bounds(geometry).reshape(-1, 4))
    box = (bounds[:, 2:] - bounds[:, :2]) / grid.tile_m
    size = np.column_stack([area, shapes.length * side, box])
    one_hot = shapes.dimension[:, None] == np.arange(3)
    return np.concatenate([np.log1p(size), one_hot], axis=1)


def box_corners(geometry: Geometries) -> npt.NDArray[np.float64]:
    """Return the corners (N, 4, 2) of the smallest rotated boxes, metres.

    Counter-clockwise from the lower left one; a line gives its ends twice, a point itself.
    """
    boxes = shapely.oriented_envelope(geometry)
    points, owner = shapely.get_coordinates(boxes, return_index=True)
    counts = np.bincount(owner, minlength=len(geometry))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    # Points have one coordinate, lines two, rectangles five, of which the last repeats the first.
    pick = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]])[np.digitize(counts, [2, 3])]
    corners = points[starts[:, None] + pick]
    diagonal, other = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    clockwise = diagonal[:, 0] * other[:, 1] - diagonal[:, 1] * other[:, 0] < 0
    corners[clockwise] = corners[clockwise][:, ::-1]
    lowest = np.argmin(corners.sum(axis=2), axis=1)
    turned: npt.NDArray[np.float64] = np.take_along_axis(
        corners, ((lowest[:, None] + np.arange(4)) % 4)[:, :, None], axis=1
    )
    return turned
