"""What every cell is used for, and the land-use polygons of the map.

Cells are zoned by superblocks: two or three cells a side, between main streets. Zones follow the
shared factors alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._courses import Course
from urbancli.demo._lattice import PRIMARY, RESIDENTIAL, SECONDARY, Lattice
from urbancli.demo.factors import SHARED, Factors
from urbancli.demo.recipe import MARGIN_TILES
from urbancli.grid import TILE_M

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Zones = npt.NDArray[np.object_]

BUILT = ("residential", "commercial", "retail", "industrial", "school", "hospital")
"""Zones with buildings."""

RURAL = ("farmland", "meadow", "forest")

GREEN = ("park", "forest", "cemetery", "allotments")
"""Zones that are crossed on foot."""

FEWEST_BUILT = 4
"""Built cells that a tile of the city keeps where water and tracks leave room."""


@dataclass(frozen=True)
class Blocks:
    """The superblocks of a lattice.

    Attributes:
        of_cell: (rows, columns) the superblock of each cell.
        centre: (B, 2) metres from the square's south-west corner.
        factor: name → (B,) of the shared factors at the centres.
        outward_m: (B,) distance beyond the city's border; negative inside.
    """

    of_cell: Integers
    centre: Floats
    factor: dict[str, Floats]
    outward_m: Floats

    def __len__(self) -> int:
        return len(self.centre)


def superblocks(lattice: Lattice, factors: Factors) -> Blocks:
    """Return the superblocks of a lattice."""
    rows, columns = (_intervals(rank) for rank in lattice.rank)
    of_cell = rows[:, None] * (columns[-1] + 1) + columns[None, :]
    count = int(of_cell.max()) + 1
    middles = lattice.corners().mean(axis=1)
    size = np.bincount(of_cell.ravel(), minlength=count)
    sums = [np.bincount(of_cell.ravel(), weights=axis, minlength=count) for axis in middles.T]
    centre = np.column_stack(sums) / size[:, None]
    south_west = np.array(factors.recipe.rendered_m[:2])
    factor = {name: factors.at(name, *(centre + south_west).T) for name in SHARED}
    inside = np.minimum(centre, lattice.side_m - centre).min(axis=1)
    return Blocks(of_cell, centre, factor, MARGIN_TILES * TILE_M - inside)


def _intervals(rank: Integers) -> Integers:
    """Return the superblock, along one axis, of each gap between lines."""
    cuts = rank > RESIDENTIAL
    starts = np.flatnonzero(cuts)
    for start, end in zip([0, *starts], [*starts, len(rank) - 1], strict=True):
        for third in range(start + 2, end - 1, 3 if (end - start) % 3 == 0 else 2):
            cuts[third] = True
    cuts[0] = cuts[-1] = False
    return np.asarray(np.cumsum(cuts)[:-1], dtype=np.int64)


def draw_zones(lattice: Lattice, blocks: Blocks, courses: list[Course], factors: Factors) -> Zones:
    """Return the zone of every cell, (rows, columns)."""
    generator = factors.recipe.generator("zones")
    by_block = _block_zones(lattice, blocks, courses, generator)
    zones = by_block[blocks.of_cell]
    _scatter(zones, lattice, blocks, generator)
    fixed = _under(lattice, courses, zones) | _central_park(lattice, blocks)[blocks.of_cell]
    _keep_built(zones, fixed, lattice)
    return zones


def _block_zones(
    lattice: Lattice, blocks: Blocks, courses: list[Course], generator: np.random.Generator
) -> Zones:
    """Return the zone of every superblock."""
    factor = blocks.factor
    inside = blocks.outward_m < 0
    zone = np.full(len(blocks), "residential", dtype=object)

    def choose(name: str, score: Floats, share: float) -> None:
        """Give a share of the city's superblocks, those of the highest score, a zone."""
        noisy = score + 0.7 * generator.standard_normal(len(blocks))
        free = zone == "residential"
        zone[free & (noisy > np.quantile(noisy[inside & free], 1 - share))] = name

    wild = generator.standard_normal((2, len(blocks)))
    country = 0.9 * np.clip(blocks.outward_m / 500, -1.5, 1.2) - 0.7 * factor["density"]
    country += -0.5 * factor["centrality"] + 0.2 * wild[0]
    rural = country > np.quantile(country[inside], 0.955)
    kind = np.digitize(factor["greenery"] + 0.15 * wild[1], [-0.5, 0.4])
    zone[rural] = np.array(["farmland", "meadow", "forest"], dtype=object)[kind[rural]]
    choose("commercial", factor["centrality"], 0.035)
    works = _near(blocks, lattice, courses, ("rail", "motorway"))
    choose("industrial", 1.6 * works - 0.6 * factor["affluence"] - 0.4 * factor["centrality"], 0.05)
    choose("retail", 0.8 * factor["centrality"] + 0.3 * factor["density"], 0.02)
    choose("park", 1.2 * factor["greenery"], 0.045)
    choose("allotments", 0.5 * factor["greenery"] - factor["affluence"], 0.012)
    choose("cemetery", 0.8 * factor["age"] - 0.3 * factor["centrality"], 0.006)
    zone[_central_park(lattice, blocks)] = "park"
    return zone


def _near(
    blocks: Blocks, lattice: Lattice, courses: list[Course], kinds: tuple[str, ...]
) -> Floats:
    """Return how near superblocks are to courses, 1 beside them and 0 from 450 m on."""
    lines = shapely.multilinestrings([c.line for c in courses if c.kind in kinds])
    distance = shapely.distance(lines, shapely.points(blocks.centre))
    return np.asarray(np.clip(1.3 - distance / 350, 0, 1))


def _central_park(lattice: Lattice, blocks: Blocks) -> npt.NDArray[np.bool_]:
    """Return the superblocks of the big park: the greenest spot near the main centre."""
    away = np.hypot(*(blocks.centre - lattice.centre).T) / lattice.side_m
    score = blocks.factor["greenery"] - np.abs(away - 0.085) * 80
    spot = blocks.centre[int(np.argmax(score))]
    return np.asarray(np.hypot(*(blocks.centre - spot).T) < 0.032 * lattice.side_m)


def _scatter(
    zones: Zones, lattice: Lattice, blocks: Blocks, generator: np.random.Generator
) -> None:
    """Put schools, hospitals, shops and pocket parks into single cells of residential blocks."""
    shape = zones.shape
    greenery, centrality = (blocks.factor[n][blocks.of_cell] for n in ("greenery", "centrality"))
    chance = generator.random(shape)
    free = zones == "residential"
    zones[free & (chance < 0.06 / (1 + np.exp(-1.5 * greenery)))] = "park"
    main = lattice.rank >= SECONDARY
    beside = [axis[:-1] | axis[1:] for axis in main]
    first = [axis[:-1] | axis[1:] for axis in lattice.rank >= PRIMARY]
    facing = beside[0][:, None] | beside[1][None, :]
    grand = first[0][:, None] | first[1][None, :]
    chance = generator.random(shape)
    shops = np.where(grand, 0.5, 0.16) / (1 + np.exp(-1.5 * centrality))
    zones[(zones == "residential") & facing & (chance < shops)] = "retail"
    area = shape[0] * shape[1]
    for name, every in (("school", 150), ("hospital", 2600)):
        places = generator.choice(area, max(2, area // every), replace=False)
        row, column = np.unravel_index(np.sort(places), shape)
        fits = zones[row, column] == "residential"
        zones[row[fits], column[fits]] = name
        beside_it = np.minimum(column + 1, shape[1] - 1)
        fits &= (zones[row, beside_it] == "residential") & (
            blocks.of_cell[row, column] == blocks.of_cell[row, beside_it]
        )
        zones[row[fits], beside_it[fits]] = name


def _under(lattice: Lattice, courses: list[Course], zones: Zones) -> npt.NDArray[np.bool_]:
    """Keep courses free of buildings; return the cells for which that was done."""
    taken = np.zeros(zones.shape, dtype=bool)
    for course in courses:
        touched = lattice.cells_touching(course.area())
        if course.kind == "stream":
            zones[touched & ~np.isin(zones, (*RURAL, "cemetery", "water", "railway"))] = "park"
        else:
            zones[touched] = "water" if course.kind in ("river", "canal") else "railway"
        taken |= touched
    return taken


def _keep_built(zones: Zones, fixed: npt.NDArray[np.bool_], lattice: Lattice) -> None:
    """Let houses into the most central tiles of the city that have hardly any.

    One tile in eighteen may stay as it is: big parks, woods and fields at the edge.
    """
    tile = np.floor(lattice.corners().mean(axis=1) / TILE_M).astype(np.int64)
    side = round(lattice.side_m / TILE_M)
    number = (tile[:, 1] * side + tile[:, 0]).reshape(zones.shape)
    built = np.bincount(number[np.isin(zones, BUILT)], minlength=side**2).reshape(side, side)
    inner = slice(MARGIN_TILES, side - MARGIN_TILES)
    poor = np.zeros((side, side), dtype=bool)
    poor[inner, inner] = built[inner, inner] < FEWEST_BUILT
    steps = np.arange(side) - (side - 1) / 2
    away = np.hypot(steps[:, None], steps[None, :])
    order = np.argsort(np.where(poor, away, np.inf).ravel(), kind="stable")[: int(poor.sum())]
    spare = (side - 2 * MARGIN_TILES) ** 2 // 18
    mend = np.isin(number, order[: max(0, len(order) - spare)]) & ~fixed
    zones[mend & np.isin(zones, (*RURAL, *GREEN))] = "residential"
