"""A plain city for tests: square blocks of 100 m on a regular lattice, zones by a rule."""

import numpy as np

from urbancli.demo._draws import tile_index
from urbancli.demo.factors import Factors
from urbancli.demo.recipe import GRID
from urbancli.demo.town import Cells

SIDE_M = 100.0
SETBACK_M = 8.0


def lattice(factors: Factors) -> Cells:
    """Return blocks of 100 m over all that is rendered.

    Every ninth tile is farmland and every other ninth a park; elsewhere one block of nine is
    commercial where central, one industrial, and a few are schools, allotments and the like.
    """
    left, bottom, right, _ = factors.recipe.rendered_m
    count = round((right - left) / SIDE_M)
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(count), np.arange(count)))
    south_west = np.column_stack([left + column * SIDE_M, bottom + row * SIDE_M])
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * SIDE_M
    corners = south_west[:, None] + square
    centres = corners.mean(axis=1)
    zone = np.full(len(corners), "residential", dtype=object)
    number = column * 7 + row * 3
    for k, name in enumerate(("school", "hospital", "allotments", "cemetery", "retail")):
        zone[number % 40 == k] = name
    zone[number % 9 == 5] = "industrial"
    central = factors.at("centrality", *centres.T) > 0.8
    zone[central & (number % 3 == 0)] = "commercial"
    tile = tile_index(factors, centres)
    zone[tile % 9 == 4] = "farmland"
    zone[tile % 9 == 8] = "park"
    return Cells(corners, zone, np.full((len(corners), 4), SETBACK_M), GRID.tile_at(*centres.T))
