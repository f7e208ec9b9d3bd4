"""The warped lattice that streets run along and whose meshes are the city's cells.

Lines of both axes have ranks (residential to primary). The regular lattice is bent by swirls
(rotated districts), rounded about the main centre (rings) and shifted by smooth noise; then it is
torn open along rivers, tracks and motorways, so that streets keep off them and cross them squarely.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo.factors import STEP_M, Factors
from urbancli.demo.recipe import Recipe

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SPACING_M = 100.0
"""Mean distance between neighbouring lines, metres: nine cells to a tile."""

RESIDENTIAL, TERTIARY, SECONDARY, PRIMARY = range(4)

PERIOD = 18
"""Lines from one primary to the next; secondaries lie midway, tertiaries midway again."""


@dataclass(frozen=True)
class Tear:
    """A line that opens the lattice.

    Attributes:
        line: its course, metres from the rendered square's south-west corner.
        clear_m: distance from it that vertices keep at least, metres, per `places`.
        places: distances along the line to which `clear_m` belongs, growing, metres.
    """

    line: shapely.LineString
    clear_m: Floats
    places: Floats


@dataclass(frozen=True)
class Lattice:
    """The vertices (rows + 1, columns + 1, 2) of square-topology cells, and the ranks of lines.

    Attributes:
        vertices: metres from the rendered square's south-west corner; [row, column], rows from
            the south.
        rank: (2, lines): of lines of constant row, then of lines of constant column.
        centre: (x, y) of the most central place.
        side_m: of the rendered square.
    """

    vertices: Floats
    rank: Integers
    centre: Floats
    side_m: float

    @property
    def size(self) -> int:
        """Cells along a side."""
        return len(self.vertices) - 1

    def lines(self) -> Floats:
        """Return the vertices by line, (2, lines, vertices of a line, 2)."""
        return np.stack([self.vertices, self.vertices.transpose(1, 0, 2)])

    def corners(self) -> Floats:
        """Return the corners of the cells, (rows · columns, 4, 2), counter-clockwise."""
        v = self.vertices
        quads = np.stack([v[:-1, :-1], v[:-1, 1:], v[1:, 1:], v[1:, :-1]], axis=2)
        return np.asarray(quads.reshape(-1, 4, 2))

    def cells_touching(self, shape: shapely.Geometry) -> npt.NDArray[np.bool_]:
        """Return which cells a shape reaches into, (rows, columns)."""
        cells = shapely.polygons(self.corners())
        shapely.prepare(shape)
        return np.asarray(shapely.intersects(shape, cells)).reshape(self.size, self.size)


def main_centre(factors: Factors) -> Floats:
    """Return the most central place of the city's inner half, metres from the south-west corner."""
    field = factors.fields["centrality"]
    inner = slice(len(field) // 4, -(len(field) // 4))
    spot = np.unravel_index(np.argmax(field[inner, inner]), field[inner, inner].shape)
    row, column = (int(axis) + len(field) // 4 for axis in spot)
    return np.array([column + 0.5, row + 0.5]) * STEP_M


def regular_lattice(recipe: Recipe, centre: Floats) -> Lattice:
    """Return a lattice of straight lines, finer at the centre, with primaries beside it."""
    generator = recipe.generator("lattice lines")
    left, _, right, _ = recipe.rendered_m
    side = right - left
    count = round(side / SPACING_M)
    axes, ranks = [], []
    for middle in centre[::-1]:
        steps = generator.uniform(0.82, 1.2, count)
        away = np.abs((np.arange(count) + 0.5) / count - middle / side)
        steps *= 0.86 + 0.5 * np.minimum(away, 0.4)
        places = np.concatenate([[0.0], np.cumsum(steps)])
        axes.append(places * side / places[-1])
        first = int(np.argmin(np.abs(axes[-1] - middle))) + int(generator.integers(-1, 2))
        ranks.append(_ranks(count + 1, first, generator))
    x, y = np.meshgrid(axes[1], axes[0])
    return Lattice(np.stack([x, y], axis=2), np.array(ranks), centre, side)


def _ranks(count: int, first: int, generator: np.random.Generator) -> Integers:
    """Return the ranks of lines; tertiaries lie a line off their middle at times."""
    rank = np.full(count, RESIDENTIAL, dtype=np.int64)
    for start in range(first % PERIOD - PERIOD, count, PERIOD):
        middle = start + 9
        lesser = (start + int(generator.integers(4, 6)), middle + int(generator.integers(4, 6)))
        for line, value in (
            (start, PRIMARY),
            (middle, SECONDARY),
            *((k, TERTIARY) for k in lesser),
        ):
            if 0 <= line < count:
                rank[line] = value
    return rank


def bend(lattice: Lattice, recipe: Recipe) -> Lattice:
    """Return the lattice bent by swirls, rings about the centre and smooth noise."""
    generator = recipe.generator("lattice bends")
    side = lattice.side_m
    points = lattice.vertices
    for k in range(9):
        spot = lattice.centre if k == 0 else generator.uniform(0.16, 0.84, 2) * side
        room = float(min(spot.min(), (side - spot).min()))
        reach = min(room, side * generator.uniform(0.16, 0.3))
        turn = generator.choice([-1, 1]) * generator.uniform(0.3, 0.62)
        points = _swirl(points, spot, reach * 0.98, turn)
    points = points + _rings(points, lattice.centre, side)
    shift = np.zeros_like(points)
    for wave_m, share in ((min(3200.0, side / 3), 1 / 36), (1100.0, 1 / 50), (420.0, 1 / 60)):
        shift += _waves(points, wave_m, generator) * wave_m * share
    shift += generator.normal(0, 3.0, shift.shape)
    shift *= np.clip(np.minimum(points, side - points) / (0.08 * side), 0, 1)
    return _pinned(lattice, points + shift)


def _swirl(points: Floats, spot: Floats, reach: float, turn: float) -> Floats:
    """Turn points about a spot by an angle that falls to 0 at `reach`: always one to one."""
    offset = points - spot
    near = np.clip(1 - (offset**2).sum(axis=-1) / reach**2, 0, None) ** 2
    sine, cosine = np.sin(turn * near), np.cos(turn * near)
    x, y = offset[..., 0], offset[..., 1]
    return np.asarray(spot + np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=-1))


def _rings(points: Floats, centre: Floats, side: float) -> Floats:
    """Return shifts that round the squares about the centre towards circles."""
    reach = 0.16 * side
    x, y = np.moveaxis((points - centre) / reach, -1, 0)
    fade = np.exp(-((np.hypot(x, y) / 1.1) ** 4))
    inward = np.stack(
        [x * (np.sqrt(1 - np.minimum(y**2, 1.5) / 2) - 1),
         y * (np.sqrt(1 - np.minimum(x**2, 1.5) / 2) - 1)],
        axis=-1,
    )  # fmt: skip
    return np.asarray(0.55 * inward * fade[..., None] * reach)


def _waves(points: Floats, wave_m: float, generator: np.random.Generator) -> Floats:
    """Return smooth noise of about unit height: eight plane waves for each coordinate."""
    count = 8
    angle = generator.uniform(0, 2 * np.pi, (2, count))
    rate = 2 * np.pi / wave_m * generator.uniform(0.6, 1.2, (2, count))
    phase = generator.uniform(0, 2 * np.pi, (2, count))
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * rate[..., None]
    return np.asarray(np.sin(np.einsum("...d,ckd->...ck", points, vectors) + phase).sum(-1) / 2)


def tear(lattice: Lattice, tears: list[Tear]) -> Lattice:
    """Return the lattice opened along lines; the last ones have the last word where they cross."""
    points = lattice.vertices.reshape(-1, 2).copy()
    for each in tears:
        spots = np.asarray(shapely.points(points), dtype=object)
        # Beyond three times the widest opening nothing moves.
        near = np.flatnonzero(shapely.dwithin(each.line, spots, 3 * each.clear_m.max()))
        where = shapely.line_locate_point(each.line, spots[near])
        foot = shapely.get_coordinates(shapely.line_interpolate_point(each.line, where))
        offset = points[near] - foot
        distance = np.maximum(np.hypot(*offset.T), 1e-6)
        clear = np.interp(where, each.places, each.clear_m)
        pushed = clear + distance * (2 / 3)
        scale = np.where(distance < 3 * clear, pushed / distance, 1.0)
        points[near] = foot + offset * scale[:, None]
    return _untangled(_pinned(lattice, points.reshape(lattice.vertices.shape)))


def _pinned(lattice: Lattice, points: Floats) -> Lattice:
    """Put the outermost vertices back on the sides of the square."""
    side = lattice.side_m
    points = np.clip(points, 0, side)
    points[:, 0, 0], points[:, -1, 0] = 0, side
    points[0, :, 1], points[-1, :, 1] = 0, side
    return Lattice(points, lattice.rank, lattice.centre, side)


def _untangled(lattice: Lattice) -> Lattice:
    """Smooth the vertices of cells that are bent inwards or turned over until none is."""
    for _ in range(200):
        bad = sharpness(lattice).min(axis=-1) < 0.12
        if not bad.any():
            break
        touched = np.zeros(lattice.vertices.shape[:2], dtype=bool)
        for row in (slice(None, -1), slice(1, None)):
            for column in (slice(None, -1), slice(1, None)):
                touched[row, column] |= bad
        wide = np.pad(lattice.vertices, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]) / 4
        half = (lattice.vertices + mean) / 2
        lattice = _pinned(lattice, np.where(touched[..., None], half, lattice.vertices))
    return lattice


def sharpness(lattice: Lattice) -> Floats:
    """Return the sine of every cell's angles, (rows, columns, 4); negative: bent inwards."""
    quads = lattice.corners().reshape(lattice.size, lattice.size, 4, 2)
    ahead = np.roll(quads, -1, axis=2) - quads
    behind = np.roll(ahead, 1, axis=2)
    cross = behind[..., 0] * ahead[..., 1] - behind[..., 1] * ahead[..., 0]
    lengths = np.hypot(behind[..., 0], behind[..., 1]) * np.hypot(ahead[..., 0], ahead[..., 1])
    return np.asarray(cross / np.maximum(lengths, 1e-9))
