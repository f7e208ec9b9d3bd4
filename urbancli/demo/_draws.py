"""Random draws that are low in noise: shares and counts per tile come out as wanted, or off by one.

Independent coin flips for ten houses would hide a factor behind their scatter. Here every object of
a tile gets another stratum of the unit interval, so that a share p of n objects is p·n, rounded.
"""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from urbancli.demo.factors import PER_TILE, Factors
from urbancli.grid import TILE_M

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SLOPE = 1.5
"""A share follows its factor as sigmoid(SLOPE · factor)."""


def sigmoid(values: npt.ArrayLike) -> Floats:
    """Return 1 / (1 + exp(−values))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(values, dtype=np.float64))))


def rendered_tiles(factors: Factors) -> int:
    """Return the tiles along a side of all that is rendered, margin included."""
    left, _, right, _ = factors.recipe.rendered_m
    return round((right - left) / TILE_M)


def tile_levels(factors: Factors, name: str) -> Floats:
    """Return a factor's means over all rendered tiles, (tiles²,), row by row from the south."""
    side = rendered_tiles(factors)
    squares = factors.fields[name].reshape(side, PER_TILE, side, PER_TILE)
    return np.asarray(squares.mean(axis=(1, 3)).ravel())


def tile_index(factors: Factors, xy: Floats) -> Integers:
    """Return which rendered tile holds each point (N, 2), counted as in `tile_levels`."""
    side = rendered_tiles(factors)
    column, row = (
        np.floor((xy - factors.recipe.rendered_m[:2]) / TILE_M).astype(np.int64).clip(0, side - 1).T
    )
    return np.asarray(row * side + column)


def choose(
    generator: np.random.Generator, tile: Integers, weight: Floats, quota: Integers
) -> Integers:
    """Return the indices, ascending, of candidates chosen in each tile.

    Args:
        generator: of the draw.
        tile: (N,) of each candidate.
        weight: (N,) how much likelier than others it comes first; never where 0.
        quota: (tiles,) how many are wanted; all candidates where there are fewer.
    """
    possible = np.flatnonzero(weight > 0)
    arrival = generator.standard_exponential(len(weight))[possible] / weight[possible]
    rank = _rank(tile[possible], arrival, len(quota))
    return np.asarray(possible[rank < quota[tile[possible]]])


def _rank(tile: Integers, key: Floats, tiles: int) -> Integers:
    """Return each object's place, from 0, in its tile's order of the key."""
    order = np.lexsort([key, tile])
    starts = np.concatenate([[0], np.cumsum(np.bincount(tile, minlength=tiles))[:-1]])
    rank = np.empty(len(tile), dtype=np.int64)
    rank[order] = np.arange(len(tile)) - starts[tile[order]]
    return rank


class Draws:
    """Draws for objects at points. The same name and as many objects: the same random numbers."""

    def __init__(self, factors: Factors, name: str, xy: Floats) -> None:
        """Begin the stream of a name for objects at (N, 2) metres."""
        self.factors = factors
        self.generator = factors.recipe.generator(name)
        self.tile = tile_index(factors, xy)
        self.tiles = rendered_tiles(factors) ** 2
        self._levels = functools.cache(lambda each: tile_levels(factors, each))

    def __len__(self) -> int:
        return len(self.tile)

    def level(self, factor: str) -> Floats:
        """Return the mean of a factor over each object's tile, (N,)."""
        return np.asarray(self._levels(factor)[self.tile])

    def share(self, factor: str, offset: float = 0.0) -> Floats:
        """Return sigmoid(SLOPE · factor + offset) of each object's tile, (N,)."""
        return sigmoid(SLOPE * self.level(factor) + offset)

    def strata(self) -> Floats:
        """Return numbers in [0, 1), (N,), equally spaced within each tile, in random order."""
        rank = _rank(self.tile, self.generator.random(len(self)), self.tiles)
        start = self.generator.random(self.tiles)
        count = np.bincount(self.tile, minlength=self.tiles)
        return np.asarray((rank + start[self.tile]) / count[self.tile])

    def happens(self, share: Floats | float) -> Flags:
        """Return for which objects something of a probability, (N,) or one, is true."""
        return np.asarray(self.strata() < np.asarray(share))

    def follows(self, factor: str, offset: float = 0.0) -> Flags:
        """Return for which objects is true what is true of the share of a factor."""
        return self.happens(self.share(factor, offset))

    def uniform(self, low: float, high: float) -> Floats:
        """Return independent uniform numbers, (N,)."""
        return self.generator.uniform(low, high, len(self))

    def pick(self, words: Sequence[str]) -> npt.NDArray[np.object_]:
        """Return words, each as often as the others in a tile, (N,)."""
        which = np.minimum((self.strata() * len(words)).astype(np.int64), len(words) - 1)
        return np.array(words, dtype=object)[which]
