"""The courses of what streets must cross: river, streams, canal, tracks and the motorway.

All are smooth curves drawn before the streets, which give way to them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._lattice import Tear
from urbancli.demo.recipe import Recipe

Floats = npt.NDArray[np.float64]

STEP_M = 20.0
"""Distance between the points of a course, metres."""

SHORTEST_BEND_M = 900.0
"""Courses bend no faster, so that their sides never cross, metres."""

RING_SIDE_M = 9000.0
"""Rendered squares of this side or more have a motorway ring, smaller ones a through road."""


@dataclass(frozen=True)
class Course:
    """A curve with a width.

    Attributes:
        kind: `river`, `stream`, `canal`, `rail` or `motorway`.
        points: (N, 2) along it, about `STEP_M` apart, metres from the square's south-west corner;
            it begins and ends outside the square or on another course.
        half_m: (N,) half its width there, metres.
        clear_m: what streets keep beyond that, metres.
        special: (first, last) point of the stretch with the river's island or the tracks' yard.
    """

    kind: str
    points: Floats
    half_m: Floats
    clear_m: float
    special: tuple[int, int] | None = None

    @property
    def line(self) -> shapely.LineString:
        """The curve."""
        return shapely.LineString(self.points)

    def tear(self) -> Tear:
        """Return the opening that it makes in the lattice."""
        steps = np.hypot(*np.diff(self.points, axis=0).T)
        return Tear(self.line, self.half_m + self.clear_m, np.concatenate([[0], np.cumsum(steps)]))

    def banks(self) -> tuple[Floats, Floats]:
        """Return the points (N, 2) of the left and of the right side."""
        ahead = np.gradient(self.points, axis=0)
        normal = np.column_stack([-ahead[:, 1], ahead[:, 0]]) / np.hypot(*ahead.T)[:, None]
        return self.points + normal * self.half_m[:, None], self.points - normal * self.half_m[
            :, None
        ]

    def area(self) -> shapely.Geometry:
        """Return what lies between the sides, islands included."""
        left, right = self.banks()
        return shapely.make_valid(shapely.Polygon(np.concatenate([left, right[::-1]])))


@dataclass(frozen=True)
class Barrier:
    """What streets cross on bridges or not at all.

    Attributes:
        kind: of a course, or `lake`.
        area: metres from the square's south-west corner.
    """

    kind: str
    area: shapely.Geometry


def draw_courses(recipe: Recipe, centre: Floats) -> list[Course]:
    """Return all courses; crossed by streets in a bridge each."""
    left, _, right, _ = recipe.rendered_m
    side = right - left
    generator = recipe.generator("courses")
    turn = float(generator.uniform(-0.3, 0.3))
    away = float(generator.uniform(0.055, 0.075)) * side
    river = _river(side, centre, turn, away, generator)
    rail_turn = turn + np.pi / 2 + float(generator.uniform(-0.25, 0.25))
    rail = _across(side, centre, rail_turn, 1.1 * away, (side / 60, side / 1.7), generator)
    courses = [
        *_streams(side, river, generator),
        _canal(side, river, generator),
        _rail(rail, side, generator),
        _motorway(side, centre, turn, generator),
        river,
    ]
    return courses


def _rail(points: Floats, side: float, generator: np.random.Generator) -> Course:
    """Return the tracks, with a yard beside them on one stretch."""
    first = int(len(points) * generator.uniform(0.62, 0.7))
    last = first + (36 if side >= RING_SIDE_M else 20)
    place = np.arange(len(points))
    half = 7 + 16 * np.clip(np.minimum(place - first + 6, last + 6 - place) / 6, 0, 1)
    return Course("rail", points, half, 12.0, (first, last))


def _across(
    side: float, centre: Floats, turn: float, away: float,
    swing: tuple[float, float], generator: np.random.Generator,
) -> Floats:  # fmt: skip
    """Return a wavy line right across the square that passes the centre at a distance.

    Args:
        side: of the square, metres.
        centre: (x, y), metres.
        turn: direction, radians from east.
        away: distance from the centre, metres; to the left of the direction.
        swing: height and length of the longest wave, metres.
        generator: of random numbers.
    """
    reach = 1.2 * side
    along = np.arange(-reach, reach, STEP_M)
    height, wave = swing
    swung = np.zeros_like(along)
    for part in (1.0, 0.47, 0.23):
        phase = generator.uniform(0, 2 * np.pi)
        bend = max(wave * part, SHORTEST_BEND_M)
        swung += height * part * np.sin(2 * np.pi * along / bend + phase)
    # It keeps its distance from the centre: waves grow away from there.
    swung *= 0.35 + 0.65 * np.clip(np.abs(along) / (0.15 * side), 0, 1)
    ahead = np.array([np.cos(turn), np.sin(turn)])
    normal = np.array([-ahead[1], ahead[0]])
    points = centre + along[:, None] * ahead + (swung + away)[:, None] * normal
    return _within(points, side, 400.0)


def _within(points: Floats, side: float, beyond_m: float) -> Floats:
    """Return the longest stretch of points that stays within the square and a strip around it."""
    inside = ((points > -beyond_m) & (points < side + beyond_m)).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return points[starts[longest] : ends[longest]]


def _river(
    side: float, centre: Floats, turn: float, away: float, generator: np.random.Generator
) -> Course:
    points = _across(side, centre, turn, -away, (side / 34, side / 3.4), generator)
    count = len(points)
    half = 34 + 7 * np.sin(np.arange(count) / 37 + generator.uniform(0, 6))
    first = int(count * generator.uniform(0.25, 0.4))
    last = first + 28
    place = np.arange(count)
    half += 30 * np.clip(np.minimum(place - first + 12, last + 12 - place) / 12, 0, 1)
    return Course("river", points, half, 16.0, (first, last))


def _streams(side: float, river: Course, generator: np.random.Generator) -> list[Course]:
    """Return brooks that run from the square's sides into the river, on both banks."""
    streams = []
    count = 4
    for k in range(count):
        share = (k + 0.5 + generator.uniform(-0.2, 0.2)) / count
        mouth = river.points[int(np.clip(share, 0.12, 0.88) * len(river.points))]
        upward = 1 if k % 2 == 0 else -1
        rise = np.arange(0, 2 * side, STEP_M)
        swing = 0.028 * side * np.sin(rise / (0.055 * side) + generator.uniform(0, 6))
        swing += 22 * np.sin(rise / 70 + generator.uniform(0, 6))
        lean = generator.uniform(-0.35, 0.35)
        x = mouth[0] + (rise * lean + swing) * np.clip(rise / 400, 0, 1)
        points = np.column_stack([x, mouth[1] + upward * rise])
        points = _within(points, side, 300.0)[::-1]
        streams.append(Course("stream", points, np.full(len(points), 2.0), 9.0))
    return streams


def _canal(side: float, river: Course, generator: np.random.Generator) -> Course:
    """Return a canal that leaves the river and cuts straight through the city's edge."""
    start = river.points[int(len(river.points) * generator.uniform(0.62, 0.7))]
    first = np.array([0.16, -0.2]) * side
    bends = np.array([start, start + first, start + first + np.array([0.6 * side, -0.12 * side])])
    line = shapely.LineString(bends)
    places = np.arange(0, line.length, STEP_M)
    points = shapely.get_coordinates(shapely.line_interpolate_point(line, places))
    kernel = np.ones(13) / 13
    wide = np.pad(points, ((6, 6), (0, 0)), mode="edge")
    smooth = np.column_stack([np.convolve(axis, kernel, mode="valid") for axis in wide.T])
    smooth = _within(smooth, side, 300.0)
    return Course("canal", smooth, np.full(len(smooth), 8.0), 14.0)


def _motorway(side: float, centre: Floats, turn: float, generator: np.random.Generator) -> Course:
    """Return a ring about the centre, or in a small city a road past it."""
    if side < RING_SIDE_M:
        away = 0.26 * side
        points = _across(side, centre, turn + 0.1, away, (side / 60, side / 2), generator)
        return Course("motorway", points, np.full(len(points), 14.0), 16.0)
    middle = centre + generator.uniform(-0.02, 0.02, 2) * side
    mean = 0.29 * side
    angle = np.arange(0, 2 * np.pi, STEP_M / mean)
    radius = mean * (
        1
        + 0.09 * np.sin(2 * angle + generator.uniform(0, 6))
        + 0.05 * np.sin(3 * angle + generator.uniform(0, 6))
        + 0.02 * np.sin(5 * angle + generator.uniform(0, 6))
    )
    points = middle + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    points = np.concatenate([points, points[:1]])
    return Course("motorway", points, np.full(len(points), 14.0), 16.0)
