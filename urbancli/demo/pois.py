"""Shops, services and sights: points with a kind and a name, and the file that lists them.

How many there are in a tile follows density. Each kind of place speaks for or against affluence,
greenery, age and centrality, and the share of those that speak for a factor follows that factor.
Only the name in the POI file, never the map, shows the factor `chains`.
"""

import csv
from pathlib import Path

import numpy as np

from urbancli.demo._draws import SLOPE, Draws, Floats, choose, sigmoid, tile_levels
from urbancli.demo._place_kinds import CHAIN_WORDS, FAMILY_WORDS, KINDS, NAMES
from urbancli.demo._plots import inner_blocks
from urbancli.demo.factors import Factors
from urbancli.demo.recipe import GRID
from urbancli.demo.town import Cells, Pois
from urbancli.layers import poi_category
from urbancli.workspace import atomic_path

POIS_PER_TILE, GROWTH = 14.0, 0.4
"""POIs of a tile at mean density, and the growth of their logarithm per standard deviation."""

FEWEST_POIS, MOST_POIS = 8, 80

SPOTS = 16
"""Where POIs may be in each block."""

BUSY = {"commercial": 8.0, "retail": 8.0, "residential": 2.0, "park": 0.5, "school": 0.5,
        "hospital": 1.0, "industrial": 0.7, "water": 0.0, "railway": 0.0}  # fmt: skip
"""How likely a POI is in a block, by zone; 0.2 where not listed."""

BACKYARD = 0.05
"""How likely a POI is on a side without a street, compared with a street."""

CODE = {
    "affluence": ("A", "-"), "greenery": ("G", "-"), "age": ("O", "-"), "centrality": ("C", "-"),
}  # fmt: skip
"""Factors, and the letters of the keys of `KINDS` for and against them, in their order."""


def place_pois(factors: Factors, cells: Cells) -> Pois:
    """Return the POIs: about 15 in a tile, at the fronts of built blocks and inside open ones."""
    spots, weight = _spots(factors, cells)
    draws = Draws(factors, "poi spots", spots)
    wanted = POIS_PER_TILE * np.exp(GROWTH * tile_levels(factors, "density"))
    quota = np.round(wanted).astype(np.int64).clip(FEWEST_POIS, MOST_POIS)
    xy = spots[choose(draws.generator, draws.tile, weight, quota)]
    draws = Draws(factors, "pois", xy)
    speaks = [np.where(draws.follows(factor), *pair) for factor, pair in CODE.items()]
    codes = ["".join(letters) for letters in zip(*speaks, strict=True)]
    which = (draws.strata() * 3).astype(np.int64).clip(0, 2).tolist()
    names = draws.pick(NAMES).tolist()
    tags = []
    for code, variant, name in zip(codes, which, names, strict=True):
        key, value = KINDS[code][variant]
        tags.append({key: value, "name": name})
    # The field varies within a tile and encoders look beyond it: here its value on the spot counts.
    chained = draws.happens(sigmoid(SLOPE * factors.at("chains", *xy.T)))
    first = np.where(chained, draws.pick(CHAIN_WORDS), draws.pick(FAMILY_WORDS)).tolist()
    return Pois(xy, tags, [f"{word} {name}" for word, name in zip(first, names, strict=True)])


def _spots(factors: Factors, cells: Cells) -> tuple[Floats, Floats]:
    """Return where POIs may be, (N, 2) metres, and how likely each spot is, (N,)."""
    blocks = inner_blocks(cells, -0.5)
    generator = factors.recipe.generator("poi blocks")
    block, number = np.indices((len(cells), SPOTS)).reshape(2, -1)
    u, v = (generator.random(len(block)) for _ in range(2))
    side = number % 4
    front = ~np.isin(cells.zone, ("park", "forest", "farmland", "meadow", "cemetery"))[block]
    u = np.where(front & (side >= 2), side % 2, u)
    v = np.where(front & (side < 2), side % 2, v)
    # Sides run counter-clockwise from v = 0.
    hidden = front & ~blocks.street[block, np.array([0, 2, 3, 1])[side]]
    weight = np.array([BUSY.get(zone, 0.2) for zone in cells.zone]) * blocks.usable
    return blocks.at(block, u, v), weight[block] * np.where(hidden, BACKYARD, 1.0)


def write_pois(path: Path, pois: Pois) -> None:
    """Write the POI file: CSV with id, name, category (`key=value`), lat and lon (EPSG:4326).

    Every id says that the place is synthetic.
    """
    lon, lat = GRID.unproject(*pois.xy.T)
    rows = zip(pois.listed_name, pois.tags, lat.tolist(), lon.tolist(), strict=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "name", "category", "lat", "lon"])
        for number, (name, tags, north, east) in enumerate(rows, start=1):
            category = poi_category(tags)
            writer.writerow([f"SYNTHETIC-{number}", name, category, f"{north:.7f}", f"{east:.7f}"])
