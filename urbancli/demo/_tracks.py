"""Railway and motorway: carriageways, ramps, tracks, a yard, stations; all on their courses."""

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._courses import STEP_M, Barrier, Course
from urbancli.demo._lattice import Lattice
from urbancli.demo._names import name_stems
from urbancli.demo._network import FIRST, ON_GROUND, SECOND, Segments, Ways
from urbancli.demo.recipe import Recipe
from urbancli.demo.town import Elements

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

PART_POINTS = 25
"""Points of a course in one element: 500 m."""

LANE_M, TRACK_M = 8.0, 2.3
"""From the middle of the motorway to a carriageway's, and of the railway to a track, metres."""

RAMP_POINTS = 12
"""Points of the course along which a ramp runs: 240 m."""

STATION_EVERY_M = 3000.0


def _offset(course: Course, by: Floats | float) -> Floats:
    """Return the points of a course moved to its left by so many metres, (N, 2)."""
    left, right = course.banks()
    normal = (left - right) / (2 * course.half_m[:, None])
    return np.asarray(course.points + normal * np.broadcast_to(by, len(course.points))[:, None])


def _lines(
    points: Floats, over: list[shapely.Geometry], side_m: float, tags: dict[str, str]
) -> Elements:
    """Return a line in parts; those over water or tracks are bridges."""
    pairs = np.asarray(
        shapely.linestrings(np.stack([points[:-1], points[1:]], axis=1)), dtype=object
    )
    raised = np.zeros(len(pairs), dtype=bool)
    for area in over:
        shapely.prepare(area)
        raised |= np.asarray(shapely.intersects(area, pairs))
    on_map = np.asarray(((points >= 0) & (points <= side_m)).all(axis=1))
    inside = on_map[:-1] & on_map[1:]
    place = np.arange(len(pairs))
    cut = (place % PART_POINTS == 0) & ~raised
    cut[1:] |= (raised[1:] != raised[:-1]) | (inside[1:] != inside[:-1])
    starts = np.unique(np.append(np.flatnonzero(cut), 0))
    ends = np.append(starts[1:], len(pairs))
    shapes, rows = [], []
    for start, end in zip(starts, ends, strict=True):
        if inside[start]:
            shapes.append(shapely.LineString(points[start : end + 1]))
            rows.append({**tags, **({"bridge": "yes", "layer": "1"} if raised[start] else {})})
    return Elements(np.array(shapes, dtype=object), rows)


def rail_elements(rail: Course, barriers: list[Barrier], lattice: Lattice, recipe: Recipe) -> list[
    Elements
]:  # fmt: skip
    """Return the tracks, the yard, and the stations with their platforms."""
    side = lattice.side_m
    over = [b.area for b in barriers if b.kind in ("river", "stream", "canal")]
    parts = [
        _lines(_offset(rail, by), over, side, {"railway": "rail", "gauge": "1435", "usage": "main"})
        for by in (-TRACK_M, TRACK_M)
    ]
    first, last = rail.special or (0, 0)
    swell = np.clip(
        np.minimum(np.arange(len(rail.points)) - first, last - np.arange(len(rail.points))) / 5,
        0,
        1,
    )
    yard = slice(first, last + 1)
    for siding in (6.5, 11.0, 15.5, -6.5, -11.0):
        by = np.sign(siding) * TRACK_M + swell * (siding - np.sign(siding) * TRACK_M)
        tags = {"railway": "rail", "service": "yard"}
        parts.append(_lines(_offset(rail, by)[yard], over, side, tags))
    parts.append(_stations(rail, lattice, recipe))
    return parts


def _stations(rail: Course, lattice: Lattice, recipe: Recipe) -> Elements:
    """Return a station near the main centre and more along the line, each with two platforms."""
    stems = name_stems(recipe)
    every = round(STATION_EVERY_M / STEP_M)
    nearest = int(np.argmin(np.hypot(*(rail.points - lattice.centre).T)))
    places = np.arange(nearest % every, len(rail.points) - 10, every)
    spots = rail.points[places]
    places = places[((spots > 300) & (spots < lattice.side_m - 300)).all(axis=1)]
    shapes: list[shapely.Geometry] = []
    tags: list[dict[str, str]] = []
    for number, place in enumerate(places):
        name = "Central Station" if place == nearest else f"{stems[40 + number]} Station"
        shapes.append(shapely.Point(_offset(rail, TRACK_M)[place]))
        tags.append({"railway": "station", "public_transport": "station", "name": name})
        for sign in (-1, 1):
            inner, outer = (_offset(rail, sign * by)[place - 4 : place + 5] for by in (4.2, 7.6))
            shapes.append(shapely.Polygon(np.concatenate([inner, outer[::-1]])))
            tags.append({"railway": "platform", "public_transport": "platform", "name": name})
    return Elements(np.array(shapes, dtype=object), tags)


def motorway_elements(
    road: Course, segments: Segments, ways: Ways, barriers: list[Barrier], lattice: Lattice
) -> list[Elements]:
    """Return both carriageways and the ramps to the primaries and secondaries that cross."""
    side = lattice.side_m
    over = [b.area for b in barriers if b.kind in ("river", "stream", "canal", "rail")]
    common = {"ref": "M1", "oneway": "yes", "lanes": "2", "surface": "asphalt"}
    fast = {"highway": "motorway", **common, "maxspeed": "120"}
    left, right = _offset(road, LANE_M), _offset(road, -LANE_M)
    parts = [_lines(line, over, side, fast) for line in (left[::-1], right)]
    ramp = {"highway": "motorway_link", "oneway": "yes", "lanes": "1", "surface": "asphalt"}
    shapes = _ramps(road, segments, lattice)
    dry = np.ones(len(shapes), dtype=bool)
    for area in over:
        dry &= ~np.asarray(shapely.intersects(shapes, area))
    ground = shapely.STRtree(ways.geometry[ways.level == ON_GROUND])
    # A ramp meets streets at its end alone.
    dry[ground.query(shapes, predicate="crosses")[0]] = False
    shapes = shapes[dry]
    parts.append(Elements(shapes, [{**ramp, "maxspeed": "60"} for _ in shapes]))
    return parts


def _ramps(road: Course, segments: Segments, lattice: Lattice) -> npt.NDArray[np.object_]:
    """Return ramps from carriageways to the ends of main streets' segments that cross."""
    points = lattice.vertices.reshape(-1, 2)
    main = np.flatnonzero(np.isin(segments.kind, (FIRST, SECOND)) & (segments.level > 0))
    lines = np.asarray(shapely.linestrings(points[segments.ends[main]]), dtype=object)
    closed = bool((road.points[0] == road.points[-1]).all())
    shapes = []
    for street in main[shapely.intersects(road.line, lines)]:
        for vertex in points[segments.ends[street]]:
            place = int(np.argmin(np.hypot(*(road.points - vertex).T)))
            ahead = road.points[min(place + 1, len(road.points) - 1)] - road.points[place - 1]
            reach = vertex - road.points[place]
            left = float(ahead[0] * reach[1] - ahead[1] * reach[0]) > 0
            for step in (-1, 1):
                stop = place + step * RAMP_POINTS
                if not 0 < stop < len(road.points) - 1 or (closed and place < RAMP_POINTS):
                    continue
                shapes.append(_ramp(road, place, stop, vertex, left))
    inside = [s for s in shapes if _within(s, lattice.side_m)]
    return np.array(inside, dtype=object)


def _within(shape: shapely.LineString, side: float) -> bool:
    left, bottom, right, top = shape.bounds
    return min(left, bottom) >= 0 and max(right, top) <= side


def _ramp(road: Course, place: int, stop: int, vertex: Floats, left: bool) -> shapely.LineString:
    """Return a ramp between a point of a carriageway and a vertex, in the direction of travel."""
    sign = 1 if left else -1
    step = 1 if stop > place else -1
    # It leaves its carriageway by and by, and keeps within what the motorway holds free.
    index = np.arange(stop, place + step * 2, -step)
    share = np.linspace(0, 1, len(index))
    away = sign * (LANE_M + 14.0 * np.sqrt(share))
    begin = _offset(road, sign * LANE_M)[stop]
    middle = road.points[index] + (_offset(road, 1.0)[index] - road.points[index]) * away[:, None]
    line = np.concatenate([begin[None], middle[1:], vertex[None]])
    # Traffic keeps right: forwards on the right carriageway.
    forwards = (sign < 0) == (step < 0)
    return shapely.LineString(line if forwards else line[::-1])
