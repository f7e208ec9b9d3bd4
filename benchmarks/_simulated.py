"""Simulated cities: Gaussian fields on the tiles of a grid, in the groups and folds of a split.

A city is a grid of tiles of 300 m in groups of 1200 m, in the folds of a spatial split: training
units that touch a test unit leave. Every city of a design has fresh draws of the same law: Gaussian
fields of squared-exponential correlation, 0.2 at the range. Three fields are the signal. Two
methods of 16 features each mix them, with noise that is white by half and a field by half, the
second method's larger. Labels:

- `strong`: signal + 0.7 of a field of its own; R² of about 0.5 is within reach
- `weak`: signal + 2.2 of that field; R² of about 0.1
- `classes`: the largest of three sums like `strong`, in shares of about 45, 33 and 22 %
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.splits.base import Split, Units, equal_runs, hilbert_ranks, make_units, touching
from urbancli.grid import Grid, Places

TILE_M, GROUP_M, FOLDS, WIDTH = 300, 1200, 5, 16
SIDE = GROUP_M // TILE_M
SHAPES = {10: (5, 2), 16: (4, 4), 25: (5, 5), 49: (7, 7), 100: (10, 10)}
"""Columns and rows of groups."""

RESIDUALS = {"strong": 0.7, "weak": 2.2}
NOISES = (0.6, 1.0)
OFFSETS = np.array([0.3, 0.0, -0.3])

Floats = npt.NDArray[np.float64]

_METHODS = np.random.default_rng(2024)
SIGNAL = _METHODS.normal(size=(3, WIDTH))
NUISANCE = _METHODS.normal(size=(2, 3, WIDTH))
LOADINGS = np.linalg.qr(_METHODS.normal(size=(3, 3)))[0]
"""The methods and the law: the same in all cities."""


@dataclass(frozen=True)
class Design:
    """A city without its fields.

    Attributes:
        units: the tiles.
        split: their groups and folds.
        touch: (U, U) sparse.
        spectrum: (n, n) square root of the fields' spectrum on a torus.
        shape: tiles per column and row.
    """

    units: Units
    split: Split
    touch: Any
    spectrum: Floats
    shape: tuple[int, int]


def make_design(groups: int, range_in_groups: float) -> Design:
    """Return a city of so many groups whose fields have a range, in sides of a group."""
    from scipy import sparse

    grid = Grid(32618, TILE_M)
    shape = (SHAPES[groups][0] * SIDE, SHAPES[groups][1] * SIDE)
    at = np.stack(np.divmod(np.arange(shape[0] * shape[1]), shape[1]), axis=1)
    cells = at + np.array([1200, 15000])
    ids = grid.tile_ids(cells).to_numpy(zero_copy_only=False).astype(object)
    x, y = ((cells.T + 0.5) * TILE_M).astype(np.float64)
    places = Places(grid, ids, "tile", x, y, np.ones(len(ids)))
    units = make_units(grid, ids, grid.unproject_geometry(places.boxes()), "simulated")
    squares = Grid(grid.epsg, GROUP_M).tile_at(x, y)
    order = hilbert_ranks(squares)
    fold = equal_runs(np.bincount(order), FOLDS)[order]
    group = Grid(grid.epsg, GROUP_M).tile_ids(squares).to_numpy(zero_copy_only=False)
    split = Split(
        "spatial", group, order, fold, None, True, 0.0, GROUP_M, range_in_groups * GROUP_M, 0
    )
    own = sparse.eye_array(len(ids), format="csr")
    spectrum = field_spectrum(max(shape), range_in_groups * SIDE)
    return Design(units, split, touching(units, places, own, TILE_M), spectrum, shape)


def field_spectrum(length: int, range_tiles: float) -> Floats:
    """Return the square root of the spectrum of a field on a torus that its ends do not feel."""
    size = 1 << int(np.ceil(np.log2(length + 3 * range_tiles)))
    steps = np.minimum(np.arange(size), size - np.arange(size))
    correlation = 0.2 ** ((steps[:, None] ** 2 + steps**2) / range_tiles**2)
    return np.asarray(np.sqrt(np.maximum(np.fft.fft2(correlation).real, 0.0)))


def draw_fields(design: Design, number: int, rng: np.random.Generator) -> Floats:
    """Return independent fields of variance 1 on the tiles, (U, number): two per transform."""
    size, (columns, rows) = len(design.spectrum), design.shape
    fields = []
    for _ in range((number + 1) // 2):
        waves = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
        both = (np.fft.fft2(design.spectrum * waves) / size)[:columns, :rows].ravel()
        fields += [both.real, both.imag]
    return np.stack(fields[:number], axis=1)


@dataclass(frozen=True)
class City:
    """A draw.

    Attributes:
        labels: name → (U,) values, or names of classes.
        signal: (U, 3) fields.
        noise: per method (U, 3 + WIDTH), three fields and white noise.
    """

    labels: dict[str, npt.NDArray[Any]]
    signal: Floats
    noise: tuple[Floats, Floats]

    def features(self, method: int, louder: float = 1.0) -> npt.NDArray[np.float32]:
        """Return what a method makes of the city, (U, WIDTH).

        Args:
            method: 0 or 1.
            louder: times its noise, as chance had it in a training.
        """
        field, white = np.split(self.noise[method], [3], axis=1)
        noise = np.sqrt(0.5) * (field @ NUISANCE[method] + np.sqrt(3) * white)
        mixed: Floats = self.signal @ SIGNAL + louder * NOISES[method] * noise
        return mixed.astype(np.float32)


def draw_city(design: Design, rng: np.random.Generator) -> City:
    """Return a city of a design."""
    signal, own, *fields = np.split(draw_fields(design, 12, rng), 4, axis=1)
    white = rng.normal(size=(2, len(signal), WIDTH))
    noise = tuple(np.concatenate(pair, axis=1) for pair in zip(fields, white, strict=True))
    mixed = signal @ LOADINGS
    labels: dict[str, npt.NDArray[Any]] = {
        name: mixed[:, 0] + share * own[:, 0] for name, share in RESIDUALS.items()
    }
    highest = (mixed + RESIDUALS["strong"] * own + OFFSETS).argmax(axis=1)
    labels["classes"] = np.array(["a", "b", "c"], dtype=object)[highest]
    return City(labels, signal, (noise[0], noise[1]))
