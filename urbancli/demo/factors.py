"""The hidden factors of a synthetic city, and the one table of where each of them shows.

Shared factors are correlated with each other, vary over a kilometre or more, and show in every
modality. A unique factor shows in one modality alone, varies within two tiles, and is orthogonal to
all others over the city's tiles, so that no other modality tells it by accident. The synergy target
is the product of two unique factors: neither of their modalities alone says anything about it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from urbancli.demo.recipe import MARGIN_TILES, Recipe
from urbancli.grid import TILE_M

Floats = npt.NDArray[np.float64]

STEP_M = 60
"""Distance between the samples of a field, metres: five along a tile's side."""

PER_TILE = TILE_M // STEP_M

SMOOTH_M = 200.0
"""Length ℓ of the unique factors' correlation exp(−d²/2ℓ²): means over tiles that lie two tiles
apart correlate by less than 0.05."""

MODALITIES = ("sentinel2", "naip", "entities", "pois")
"""The modalities whose truth is known. Coordinates are not among them: they tell whatever varies
slowly over space, in this city as in every other."""


@dataclass(frozen=True)
class Factor:
    """One row of the truth.

    Attributes:
        name: of the factor.
        kind: `shared` by all modalities, or `unique` to one.
        shows_in: the modalities from which it can be told.
        how: what of the city it changes.
    """

    name: str
    kind: Literal["shared", "unique"]
    shows_in: tuple[str, ...]
    how: str


FACTORS = (
    Factor("density", "shared", MODALITIES,
           "buildings per block and their storeys; POIs per block"),
    Factor("affluence", "shared", MODALITIES,
           "plot sizes, pools, roofs and lawns; kinds of buildings, shops and services"),
    Factor("greenery", "shared", MODALITIES,
           "trees, parks and gardens; playgrounds, florists and the like among POIs"),
    Factor("age", "shared", MODALITIES,
           "roofing, building dates and kinds; historic places and old trades among POIs"),
    Factor("centrality", "shared", MODALITIES,
           "offices, shops and paved ground; offices, banks and hotels among POIs"),
    Factor("moisture", "unique", ("sentinel2",),
           "short-wave infrared (B11, B12) of all ground: no other sensor has these bands"),
    Factor("grain", "unique", ("naip",),
           "contrast between neighbouring pixels below 10 m: it averages out in Sentinel-2"),
    Factor("masonry", "unique", ("entities",),
           "share of walls tagged building:material=brick and not plaster: unseen from above"),
    Factor("chains", "unique", ("pois",),
           "share of POIs whose name in the POI file begins with a chain's, not a family's word"),
)  # fmt: skip
"""The truth: which factor shows in which modality."""

SHARED = tuple(factor.name for factor in FACTORS if factor.kind == "shared")
UNIQUE = tuple(factor.name for factor in FACTORS if factor.kind == "unique")

SYNERGY = ("moisture", "masonry")
"""The unique factors whose product, over tiles, is the target `synergy`."""

TARGETS = (*SHARED, *UNIQUE, "synergy")


@dataclass(frozen=True)
class Factors:
    """The fields of one city; mean 0 and variance 1 over the city's tiles, margin left out.

    Attributes:
        recipe: of the city.
        fields: name → (S, S) samples at the centres of squares of `STEP_M`, rows from the south,
            over all that is rendered.
    """

    recipe: Recipe
    fields: dict[str, Floats]

    def at(self, name: str, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """Return a factor at points, bilinearly interpolated; constant beyond the last samples.

        Args:
            name: of the factor.
            x: eastings, metres, `recipe.GRID`'s CRS; any shape.
            y: northings, the same shape.
        """
        left, bottom, _, _ = self.recipe.rendered_m
        field = self.fields[name]
        last = len(field) - 1
        across = np.clip((np.asarray(x, dtype=np.float64) - left) / STEP_M - 0.5, 0, last)
        along = np.clip((np.asarray(y, dtype=np.float64) - bottom) / STEP_M - 0.5, 0, last)
        column, row = (np.minimum(np.floor(c), last - 1).astype(np.int64) for c in (across, along))
        east, north = across - column, along - row
        south_side = field[row, column] * (1 - east) + field[row, column + 1] * east
        north_side = field[row + 1, column] * (1 - east) + field[row + 1, column + 1] * east
        return np.asarray(south_side * (1 - north) + north_side * north)

    def tile_means(self, name: str) -> Floats:
        """Return a target's value per tile of the city, (tiles, tiles), rows from the south.

        A factor's value is its mean over the tile, the synergy's the product of two such means.
        """
        if name == "synergy":
            first, second = (self.tile_means(each) for each in SYNERGY)
            return first * second
        return tile_means(self.fields[name], self.recipe)


def tile_means(field: Floats, recipe: Recipe) -> Floats:
    """Return the means of a field (S, S) over the city's tiles, (tiles, tiles)."""
    inner = slice(MARGIN_TILES * PER_TILE, (MARGIN_TILES + recipe.tiles) * PER_TILE)
    side = recipe.tiles
    return np.asarray(field[inner, inner].reshape(side, PER_TILE, side, PER_TILE).mean(axis=(1, 3)))


def draw_factors(recipe: Recipe) -> Factors:
    """Return the fields of a city."""
    # Shared fields vary over a twelfth of the city, at most 1 km: a small city has parts too.
    length_m = min(1000.0, recipe.tiles * TILE_M / 12)
    own = {name: random_field(recipe, name, length_m) for name in SHARED}
    shared: dict[str, Floats] = {}
    shared["centrality"] = _unit(1.2 * _centres(recipe) + 0.8 * own["centrality"], recipe)
    shared["density"] = _unit(0.6 * shared["centrality"] + 0.8 * own["density"], recipe)
    shared["greenery"] = _unit(-0.4 * shared["density"] + 0.9 * own["greenery"], recipe)
    shared["age"] = _unit(0.4 * shared["centrality"] + 0.9 * own["age"], recipe)
    shared["affluence"] = _unit(0.4 * shared["greenery"] + 0.9 * own["affluence"], recipe)
    fields = {name: shared[name] for name in SHARED}
    for name in UNIQUE:
        fields[name] = _orthogonal(random_field(recipe, name, SMOOTH_M), fields, recipe)
    return Factors(recipe, fields)


def _side(recipe: Recipe) -> int:
    return (recipe.tiles + 2 * MARGIN_TILES) * PER_TILE


def random_field(recipe: Recipe, name: str, length_m: float) -> Floats:
    """Return a Gaussian random field (S, S) with correlation exp(−d²/2ℓ²), unit variance.

    White noise on a wider torus is filtered in the frequency domain: the spectrum of the filter is
    the square root of that of the correlation, exp(−π²ℓ²f²).
    """
    side = _side(recipe)
    wide = side + int(6 * length_m / STEP_M)
    noise = recipe.generator(f"factor {name}").standard_normal((wide, wide))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(wide, STEP_M)] * 2))
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-((np.pi * length_m * frequency) ** 2))).real
    return _unit(smooth[:side, :side], recipe)


def _centres(recipe: Recipe) -> Floats:
    """Return how near the main centre and the lesser ones are, (S, S), falling exponentially."""
    generator = recipe.generator("centres")
    side = _side(recipe)
    steps = np.arange(side) + 0.5
    spots = [(side * (0.5 + generator.uniform(-0.08, 0.08)), side * 0.5, 1.0, 0.17)]
    for angle in generator.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3:
        reach = side * generator.uniform(0.24, 0.34)
        spots.append(
            (side / 2 + reach * np.cos(angle), side / 2 + reach * np.sin(angle), 0.5, 0.07)
        )
    near = np.zeros((side, side))
    for x, y, weight, scale in spots:
        distance = np.hypot(steps[None, :] - x, steps[:, None] - y)
        near += weight * np.exp(-distance / (scale * side))
    return _unit(near, recipe)


def _unit(field: Floats, recipe: Recipe) -> Floats:
    means = tile_means(field, recipe)
    return np.asarray((field - means.mean()) / means.std())


def _orthogonal(field: Floats, others: dict[str, Floats], recipe: Recipe) -> Floats:
    """Return a field less its regression, over tiles, on all the others; unit variance."""
    known = np.column_stack([tile_means(other, recipe).ravel() for other in others.values()])
    weights = np.linalg.lstsq(known, tile_means(field, recipe).ravel(), rcond=None)[0]
    for weight, other in zip(weights, others.values(), strict=True):
        field = field - weight * other
    return _unit(field, recipe)


def truth(recipe: Recipe) -> dict[str, Any]:
    """Return the table that is written beside the city as ground truth."""
    rows = [
        {"target": f.name, "kind": f.kind, "shows_in": list(f.shows_in), "how": f.how}
        for f in FACTORS
    ]
    needs = [next(f.shows_in[0] for f in FACTORS if f.name == name) for name in SYNERGY]
    rows.append({
        "target": "synergy", "kind": "synergy", "shows_in": [], "needs": needs,
        "how": f"product of {SYNERGY[0]} and {SYNERGY[1]}, tile by tile",
    })  # fmt: skip
    return {"recipe": recipe.facts(), "modalities": list(MODALITIES), "targets": rows}
