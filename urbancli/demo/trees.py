"""Trees: along streets, in parks and gardens, in rows between fields."""

import numpy as np
import shapely

from urbancli.demo._draws import Draws, Flags, Floats, Integers, choose, tile_levels
from urbancli.demo._plots import HOUSES, inner_blocks, styles
from urbancli.demo.factors import Factors
from urbancli.demo.town import Cells, Elements, join_elements

TREES_PER_TILE = 26
"""At mean greenery: sixty thousand over the default city and its margin."""

MORE_TREES = 11
"""Trees per tile for one standard deviation of greenery."""

FEWEST_TREES, MOST_TREES = 4, 70

KERB_M = 1.5
"""From the line where plots begin out to the trunks of street trees, metres."""

STREET_SPOTS, GROUND_SPOTS = 6, 9
"""Where trees may stand: on each side of a block, and inside it."""

WOODED = {
    "park": 6.0, "forest": 8.0, "cemetery": 4.0, "allotments": 2.0, "meadow": 1.0, "farmland": 0.4,
    "school": 1.0, "hospital": 1.5,
}  # fmt: skip
"""How much likelier than on a street a tree stands on a spot inside a block, by zone."""

GENERA = (("Platanus", "Tilia"), ("Robinia", "Populus"))
"""`genus`, affluent and not."""

GIRTHS = (("2.8", "1.9"), ("0.9", "0.5"))
"""`circumference` in metres, old and new."""


def plant(factors: Factors, cells: Cells) -> Elements:
    """Return trees, and rows of trees along the edges of open ground.

    A tile has about 26 trees, 11 more or fewer for one standard deviation of greenery, at most 70:
    some 60 thousand in the default city and its margin. They are chosen among more spots than are
    needed, so that their number does not depend on the blocks.

    Their tags follow the factors too, for where there are few buildings: genus affluence, girth
    age, `denotation` centrality.
    """
    spots, weight = _spots(factors, cells)
    draws = Draws(factors, "tree spots", spots)
    wanted = TREES_PER_TILE + MORE_TREES * tile_levels(factors, "greenery")
    quota = np.round(wanted).astype(np.int64).clip(FEWEST_TREES, MOST_TREES)
    chosen = spots[choose(draws.generator, draws.tile, weight, quota)]
    trees = Elements(
        np.asarray(shapely.points(chosen), dtype=object),
        _tree_tags(Draws(factors, "trees", chosen)),
    )
    return join_elements([trees, _rows(factors, cells)])


def _tree_tags(draws: Draws) -> list[dict[str, str]]:
    half = draws.happens(0.5)
    genus = _either(draws.follows("affluence"), half, GENERA)
    girth = _either(draws.follows("age"), half, GIRTHS)
    place = np.where(draws.follows("centrality"), "avenue", "park").tolist()
    return [
        {"natural": "tree", "genus": a, "circumference": b, "denotation": c}
        for a, b, c in zip(genus, girth, place, strict=True)
    ]


def _either(first: Flags, half: Flags, words: tuple[tuple[str, str], ...]) -> list[str]:
    """Return words of the first pair where a flag is true, of the second where not."""
    yes, no = (np.where(half, *pair) for pair in words)
    return [str(word) for word in np.where(first, yes, no)]


def _spots(factors: Factors, cells: Cells) -> tuple[Floats, Floats]:
    """Return where trees may stand, (N, 2) metres, and the weight of each spot, (N,)."""
    draws = Draws(factors, "tree blocks", cells.centres())
    streets = inner_blocks(cells, -KERB_M)
    block, side, along = _sides(len(cells))
    ahead = (along + draws.generator.uniform(0.15, 0.85, len(block))) / STREET_SPOTS
    start, end = streets.corners[block, side], streets.corners[block, (side + 1) % 4]
    street = start + (end - start) * ahead[:, None]
    lined = (streets.street & streets.usable[:, None])[block, side] & (cells.zone[block] != "water")
    # Behind houses trees stand near the middle line, where gardens meet and no house reaches.
    style = styles(factors, cells)
    blocks = inner_blocks(cells)
    weight = np.array([WOODED.get(zone, 0.0) for zone in cells.zone])
    houses = np.isin(style, HOUSES)
    weight[houses] = 1.2
    inside = np.repeat(np.arange(len(cells)), GROUND_SPOTS)
    u, v = draws.generator.uniform(0.05, 0.95, (2, len(inside)))
    v = np.where(houses[inside], 0.5 + (v - 0.5) * 0.06, v)
    ground = blocks.at(inside, u, v)
    spots = np.concatenate([street, ground])
    weights = np.concatenate([lined * 1.0, (weight * blocks.usable)[inside]])
    return spots, weights


def _sides(cells: int) -> tuple[Integers, Integers, Integers]:
    """Return cell, side and number of every spot on the sides of cells."""
    cell, side, along = np.indices((cells, 4, STREET_SPOTS)).reshape(3, -1)
    return cell, side, along


def _rows(factors: Factors, cells: Cells) -> Elements:
    """Return a row of trees along one edge of open ground, more often where green."""
    blocks = inner_blocks(cells)
    ground = np.isin(cells.zone, ("farmland", "meadow", "park", "cemetery"))
    block = np.flatnonzero(blocks.usable & ground)
    u = np.broadcast_to(np.array([0.04, 0.96]), (len(block), 2))
    ends = blocks.at(block, u, np.full(u.shape, 0.98))
    draws = Draws(factors, "tree rows", ends.mean(axis=1))
    ends = ends[draws.happens(0.6 * draws.share("greenery"))]
    lines = np.asarray(shapely.linestrings(ends), dtype=object)
    return Elements(lines, [{"natural": "tree_row"} for _ in lines])
