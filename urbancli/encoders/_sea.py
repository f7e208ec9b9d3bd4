"""The sea, which OSM has no entity for: what lies to the right of the coastline."""

import numpy as np
import shapely

from urbancli.workspace import Geometries

BESIDE_M = 0.5
"""How far to the left and right of the coast it is asked what lies there, metres."""


def sea(coast: Geometries, known: shapely.Geometry) -> Geometries:
    """Return the polygons of an area that are sea.

    The coast cuts the area into faces. One is sea where nearly all of the coast along it has it on
    its right. A coast that ends inside the area, as where a file was cut, parts nothing: what is
    around it stays land.

    Args:
        coast: (N,) lines with land on their left, polygons of land; metres.
        known: the area in which the whole coast is known, metres.
    """
    parts = shapely.get_parts(coast)
    rings = shapely.get_exterior_ring(parts[shapely.get_dimensions(parts) == 2])
    rings = np.where(shapely.is_ccw(rings), rings, shapely.reverse(rings))
    lines = np.concatenate([parts[shapely.get_dimensions(parts) == 1], rings])
    within = shapely.intersection(shapely.union_all(lines), known)
    border = shapely.union(within, shapely.boundary(known))
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(border)))
    points, of = shapely.get_coordinates(lines, return_index=True)
    along = np.diff(points, axis=0)[of[1:] == of[:-1]]
    middle = points[:-1][of[1:] == of[:-1]] + along / 2
    length = np.hypot(*along.T)
    beside = along[:, ::-1] * [1, -1] * (BESIDE_M / np.maximum(length, 1e-9))[:, None]
    tree = shapely.STRtree(faces)
    shares = []
    for side in (beside, -beside):
        point, face = tree.query(shapely.points(middle + side), predicate="within")
        shares.append(np.bincount(face, length[point], len(faces)))
    right, left = shares
    return np.asarray(faces[(right > 0) & (left <= 0.05 * right)])
