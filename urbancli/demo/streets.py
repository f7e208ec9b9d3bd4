"""The bones of a synthetic city: streets, water, tracks and zones, before any building stands.

Everything is drawn in metres from the south-west corner of the rendered square and moved to
`recipe.GRID`'s CRS at the end. Only the shared factors are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from urbancli.demo._courses import draw_courses
from urbancli.demo._lattice import bend, main_centre, regular_lattice, tear
from urbancli.demo._network import draw_segments, join_ways, setbacks
from urbancli.demo._street_tags import tag_ways
from urbancli.demo._zones import draw_zones, superblocks
from urbancli.demo.factors import Factors
from urbancli.demo.recipe import GRID
from urbancli.demo.town import Cells, Elements, Relation, join_elements


@dataclass(frozen=True)
class Skeleton:
    """What is laid out before anything is built.

    Attributes:
        cells: the blocks, with their zones.
        elements: streets, tracks, water, land use, and what stands along streets.
        relations: their members index `elements`.
    """

    cells: Cells
    elements: Elements
    relations: Sequence[Relation]


def lay_streets(factors: Factors) -> Skeleton:
    """Return streets, water, tracks and zones over all that is rendered."""
    recipe = factors.recipe
    south_west = np.array(recipe.rendered_m[:2])
    centre = main_centre(factors)
    courses = draw_courses(recipe, centre)
    lattice = bend(regular_lattice(recipe, centre), recipe)
    lattice = tear(lattice, [course.tear() for course in courses])
    blocks = superblocks(lattice, factors)
    zones = draw_zones(lattice, blocks, courses, factors)
    segments = draw_segments(lattice, blocks, zones, courses, recipe.generator("streets"))
    ways = join_ways(lattice, segments)
    elements = join_elements([Elements(ways.geometry, tag_ways(ways, factors))])
    corners = lattice.corners() + south_west
    cells = Cells(
        corners,
        zones.ravel(),
        setbacks(lattice, segments),
        GRID.tile_at(*corners.mean(axis=1).T),
    )
    moved = shapely.transform(elements.geometry, lambda points: points + south_west)
    return Skeleton(cells, Elements(moved, elements.tags), [])
