"""The bones of a synthetic city: streets, water, tracks and zones, before any building stands.

Everything is drawn in metres from the south-west corner of the rendered square and moved to
`recipe.GRID`'s CRS at the end. Only the shared factors are read.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._courses import Barrier, Course, draw_courses
from urbancli.demo._landuse import draw_sites, land_elements
from urbancli.demo._lattice import Lattice, bend, main_centre, regular_lattice, tear
from urbancli.demo._network import Segments, Ways, draw_segments, join_ways, setbacks
from urbancli.demo._roadside import choose_crossings, roadside_elements
from urbancli.demo._routes import (
    bus_routes,
    districts,
    school_sites,
    street_relations,
    tram_elements,
    tram_route,
)  # fmt: skip
from urbancli.demo._street_tags import tag_ways
from urbancli.demo._tracks import motorway_elements, rail_elements
from urbancli.demo._water import draw_lakes, water_elements
from urbancli.demo._zones import draw_zones, superblocks
from urbancli.demo.factors import Factors
from urbancli.demo.recipe import GRID
from urbancli.demo.town import Cells, Elements, Relation, join_elements

RAILWAY_M = 16.0
"""Half the width of the railway's ground, metres."""

LAKE_SHARE = 0.15
"""From this share of a cell on, a lake makes it water."""


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
    centre = main_centre(factors)
    courses = draw_courses(recipe, centre)
    lattice = bend(regular_lattice(recipe, centre), recipe)
    lattice = tear(lattice, [course.tear() for course in courses])
    blocks = superblocks(lattice, factors)
    zones = draw_zones(lattice, blocks, courses, factors)
    lakes = draw_lakes(lattice, blocks, zones, recipe)
    barriers = [Barrier(course.kind, course.area()) for course in courses]
    barriers += [Barrier("lake", shapely.Polygon(lake.exterior)) for lake in lakes]
    segments = draw_segments(lattice, blocks, zones, barriers, recipe.generator("streets"))
    crossed = choose_crossings(lattice, segments, factors)
    segments = dataclasses.replace(segments, middle=crossed)
    ways = join_ways(lattice, segments)
    shore = shapely.union_all(np.array(lakes, dtype=object))
    sites, setback_m = draw_sites(lattice, zones, setbacks(lattice, segments), shore, factors)
    land = land_elements(lattice, blocks, zones, _bare(courses), factors)
    water = water_elements(courses, lakes, lattice, recipe)
    tracks = _tracks(courses, (segments, ways), barriers, lattice, factors)
    elements, relations = _join(factors, lattice, segments, ways, land, sites, [water, *tracks])
    corners = lattice.corners() + np.array(recipe.rendered_m[:2])
    wet = _lake_cells(lattice, shore)
    cells = Cells(
        corners, np.where(wet, "water", zones.ravel()), setback_m,
        GRID.tile_at(*corners.mean(axis=1).T),
    )  # fmt: skip
    return Skeleton(cells, elements, relations)


def _join(
    factors: Factors, lattice: Lattice, segments: Segments, ways: Ways,
    land: Elements, sites: Elements, others: list[Elements],
) -> tuple[Elements, list[Relation]]:  # fmt: skip
    """Return all elements, in the CRS, and the relations of them."""
    streets = Elements(ways.geometry, tag_ways(ways, factors))
    roadside = roadside_elements(lattice, segments, factors)
    trams = tram_elements(lattice, ways)
    parts = [streets, land, sites, roadside, trams, *others]
    first = np.cumsum([0, *(len(part) for part in parts)])
    borders, relations = districts(lattice, factors, int(first[-1]))
    relations += street_relations(streets.tags, ways, 0)
    relations += school_sites(land, int(first[1]), sites, int(first[2]))
    relations += tram_route(trams, int(first[4]))
    stops = roadside.having("highway", "bus_stop")
    # Stops are the last among what stands at the roadside.
    relations += bus_routes(lattice, ways, 0, stops, int(first[4]) - len(stops))
    elements = join_elements([*parts, borders])
    south_west = np.array(factors.recipe.rendered_m[:2])
    moved = shapely.transform(elements.geometry, lambda points: points + south_west)
    return Elements(moved, elements.tags), relations


def _bare(courses: list[Course]) -> shapely.Geometry:
    """Return the ground of river, canal, railway and motorway."""
    wide = {"river": 0.0, "canal": 0.0, "motorway": 4.0, "rail": RAILWAY_M - 7.0}
    return shapely.union_all(
        [shapely.buffer(c.area(), wide[c.kind], quad_segs=3) for c in courses if c.kind in wide]
    )


def _tracks(
    courses: list[Course], streets: tuple[Segments, Ways], barriers: list[Barrier],
    lattice: Lattice, factors: Factors,
) -> list[Elements]:  # fmt: skip
    """Return railway and motorway."""
    rail = next(course for course in courses if course.kind == "rail")
    road = next(course for course in courses if course.kind == "motorway")
    return [
        *rail_elements(rail, barriers, lattice, factors.recipe),
        *motorway_elements(road, *streets, barriers, lattice),
    ]


def _lake_cells(lattice: Lattice, lakes: shapely.Geometry) -> npt.NDArray[np.bool_]:
    """Return which cells a lake covers in good part, (cells,)."""
    touched = lattice.cells_touching(lakes).ravel()
    cells = np.asarray(shapely.polygons(lattice.corners()[touched]), dtype=object)
    share = shapely.area(shapely.intersection(cells, lakes)) / shapely.area(cells)
    touched[touched] = share > LAKE_SHARE
    return touched
