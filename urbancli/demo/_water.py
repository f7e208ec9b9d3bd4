"""Water on the map: the river's reaches with an island, brooks, a canal, and ponds in parks."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._courses import Course
from urbancli.demo._lattice import Lattice
from urbancli.demo._names import name_stems
from urbancli.demo._zones import Blocks, Zones
from urbancli.demo.recipe import Recipe
from urbancli.demo.town import Elements

Floats = npt.NDArray[np.float64]

REACH_POINTS = 24
"""Points of a course in one element: 480 m."""

ROUND_M = 30.0
"""Radius of the corners of lakes, metres."""

ISLAND_LAKE_M2 = 12_000.0
"""Lakes of this area or more have an island."""


def draw_lakes(
    lattice: Lattice, blocks: Blocks, zones: Zones, recipe: Recipe
) -> list[shapely.Polygon]:
    """Return rounded ponds in the middle of some superblocks that are all park; islands cut out."""
    generator = recipe.generator("lakes")
    of_cell, count = blocks.of_cell.ravel(), len(blocks)
    cells = np.bincount(of_cell, minlength=count)
    parks = np.bincount(of_cell[zones.ravel() == "park"], minlength=count)
    chosen = np.flatnonzero((parks == cells) & (cells >= 6))
    wanted = 3 + len(zones) ** 2 // 2500
    # The one nearest the centre, which is the big park's, has the largest lake.
    away = np.hypot(*(blocks.centre[chosen] - lattice.centre).T)
    chosen = chosen[np.argsort(away, kind="stable")]
    further = generator.permutation(max(0, len(chosen) - 1))[: wanted - 1] + 1
    chosen = np.concatenate([chosen[:1], chosen[np.sort(further)]])
    quads = np.asarray(shapely.polygons(lattice.corners()), dtype=object)
    lakes = []
    for number, block in enumerate(chosen):
        ground = shapely.union_all(quads[of_cell == block])
        shrink = (0.22 if number else 0.12) * np.sqrt(ground.area)
        lake = shapely.buffer(shapely.buffer(ground, -shrink - ROUND_M), ROUND_M, quad_segs=6)
        if lake.geom_type != "Polygon" or lake.area < 2000:
            continue
        if lake.area > ISLAND_LAKE_M2:
            island = shapely.buffer(lake, -0.36 * np.sqrt(lake.area))
            island = island if island.area > 200 else shapely.buffer(lake.centroid, 14, quad_segs=4)
            lake = shapely.difference(lake, shapely.simplify(island, 1.0))
        lakes.append(shapely.simplify(lake, 0.5))
    return lakes


def water_elements(
    courses: list[Course], lakes: list[shapely.Polygon], lattice: Lattice, recipe: Recipe
) -> Elements:
    """Return all water, clipped to the rendered square; metres from its south-west corner."""
    stems = name_stems(recipe)
    square = shapely.box(0, 0, lattice.side_m, lattice.side_m)
    shapes: list[shapely.Geometry] = []
    tags: list[dict[str, str]] = []
    for number, course in enumerate(c for c in courses if c.kind in ("river", "stream", "canal")):
        name = f"{stems[number]} {'Canal' if course.kind == 'canal' else 'Water'}"
        if course.kind == "river":
            name = f"River {stems[number]}"
            areas = _reaches(course)
            shapes += areas
            tags += [{"natural": "water", "water": "river", "name": name} for _ in areas]
        lines = line_parts(course.points, REACH_POINTS)
        shapes += lines
        width = {"river": "70", "canal": "14", "stream": "4"}[course.kind]
        tags += [{"waterway": course.kind, "name": name, "width": width} for _ in lines]
    for number, lake in enumerate(lakes):
        kind = "lake" if lake.area > ISLAND_LAKE_M2 else "pond"
        shapes.append(lake)
        tags.append({"natural": "water", "water": kind, "name": f"{stems[-1 - number]} Mere"})
    clipped = shapely.intersection(np.array(shapes, dtype=object), square)
    kept = np.flatnonzero(shapely.get_dimensions(clipped) == shapely.get_dimensions(shapes))
    kept = kept[~shapely.is_empty(clipped[kept])]
    return Elements(clipped[kept], [tags[i] for i in kept])


def line_parts(points: Floats, longest: int) -> list[shapely.Geometry]:
    """Return a course as lines of at most so many points that share their ends."""
    starts = range(0, len(points) - 1, longest)
    return [shapely.LineString(points[i : i + longest + 1]) for i in starts]


def _reaches(river: Course) -> list[shapely.Geometry]:
    """Return the river as polygons that meet; the island is a hole in its reach."""
    left, right = river.banks()
    first, last = river.special or (0, 0)
    ends = {0, len(left) - 1, first - 4, last + 4}
    ends |= set(range(first - 4, 0, -REACH_POINTS))
    ends |= set(range(last + 4, len(left) - 1, REACH_POINTS))
    breaks = sorted(ends)
    reaches: list[shapely.Geometry] = []
    for start, end in pairwise(breaks):
        shell = np.concatenate([left[start : end + 1], right[start : end + 1][::-1]])
        holes = [_island(river)] if start == first - 4 else []
        reaches.append(shapely.Polygon(shell, holes))
    return reaches


def _island(river: Course) -> Floats:
    """Return the outline of the island, a spindle amid the river."""
    left, right = river.banks()
    first, last = river.special or (0, 0)
    reach = slice(first, last + 1)
    share = 0.46 * np.sin(np.linspace(0, np.pi, last - first + 1))[1:-1, None]
    middle = river.points[reach]
    upper = middle[1:-1] + share * (left[reach][1:-1] - middle[1:-1])
    lower = middle[1:-1] + share * (right[reach][1:-1] - middle[1:-1])
    return np.concatenate([middle[:1], lower, middle[-1:], upper[::-1]])
