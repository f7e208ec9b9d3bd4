"""What a synthetic city is made from: a seed, a size, a pixel size; and where it lies.

The city lies in the open North Atlantic, where no real data are, so that nobody takes it for one.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from urbancli.city import SYNTHETIC
from urbancli.errors import UsageError
from urbancli.grid import TILE_M, Grid

GRID = Grid(32624)
"""UTM zone 24 north."""

MARGIN_TILES = 4
"""Tiles rendered around the city, so that windows at its edge are full (1,200 m ≥ 1,130 m)."""

WEST_TILE, SOUTH_TILE = 1100, 16600
"""South-west tile of seed 0: easting 330 km, northing 4,980 km."""

STRIDE_TILES, STRIDES = 70, 16
"""Cities of other seeds lie on a chequerboard of 16 × 16 spots to the east and north: up to 62
tiles wide they do not overlap. Seeds that differ by a multiple of 256 share a spot."""

GSD_M = (0.5, 1.0, 2.0, 2.5, 5.0)
"""Pixel sizes of the NAIP-like imagery, metres: each divides a Sentinel-2 pixel of 10 m."""

FEWEST_TILES, MOST_TILES = 8, 100


@dataclass(frozen=True)
class Recipe:
    """All that a synthetic city depends on; the same recipe gives the same bytes.

    Attributes:
        seed: of every random draw.
        tiles: tiles of 300 m along a side of the square city.
        gsd_m: pixel size of the NAIP-like imagery, metres.
    """

    seed: int = 0
    tiles: int = 40
    gsd_m: float = 2.5

    def __post_init__(self) -> None:
        if not FEWEST_TILES <= self.tiles <= MOST_TILES:
            raise UsageError(
                f"a demo city of {self.tiles} tiles a side: give {FEWEST_TILES} to {MOST_TILES}"
            )
        if self.gsd_m not in GSD_M:
            sizes = ", ".join(f"{size:g}" for size in GSD_M)
            raise UsageError(f"a demo city with pixels of {self.gsd_m:g} m: give one of {sizes}")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"seed {self.seed} of a demo city is not in 0 to 4294967295")

    @property
    def key(self) -> str:
        """The city's name: `demo` for seed 0, `demo-7` for seed 7."""
        return "demo" if self.seed == 0 else f"demo-{self.seed}"

    @property
    def box_m(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the city, metres in `GRID`'s CRS."""
        north, east = divmod(self.seed, STRIDES)
        left = float((WEST_TILE + STRIDE_TILES * east) * TILE_M)
        bottom = float((SOUTH_TILE + STRIDE_TILES * (north % STRIDES)) * TILE_M)
        side = float(self.tiles * TILE_M)
        return (left, bottom, left + side, bottom + side)

    @property
    def rendered_m(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of what is rendered: the city and its margin, metres."""
        left, bottom, right, top = self.box_m
        margin = MARGIN_TILES * TILE_M
        return (left - margin, bottom - margin, right + margin, top + margin)

    def generator(self, what: str) -> np.random.Generator:
        """Return a stream of random numbers of its own for each thing that is drawn.

        What one part draws can then change without changing any other part.
        """
        return np.random.default_rng([self.seed, *what.encode()])

    def facts(self) -> dict[str, Any]:
        """Return the parameters, for metadata."""
        return {**asdict(self), "synthetic": SYNTHETIC}


def demo_seed(key: str) -> int | None:
    """Return the seed that a city's key names, None for any other city.

    Raises:
        UsageError: a seed written otherwise than a demo city's key has it.
    """
    match = re.fullmatch(r"demo(?:-(\d+))?", key)
    if match is None:
        return None
    seed = int(match[1] or 0)
    if (right := Recipe(seed).key) != key:
        raise UsageError(f"the demo city of seed {seed} is called '{right}', not '{key}'")
    return seed
