"""Tags of streets: what they are for, and what the shared factors make of them.

Each factor decides on tags of its own, by shares that rise with it, in strata within every tile: of
ten ways in a tile where the share is a half, five have the tag.
"""

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._names import street_names
from urbancli.demo._network import BRIDGE, CLASSES, TUNNEL, Ways
from urbancli.demo.factors import SHARED, Factors
from urbancli.grid import TILE_M

Floats = npt.NDArray[np.float64]

SPEEDS = {"primary": "60", "secondary": "50", "tertiary": "50", "residential": "30"}
"""Usual speed limits, km/h."""

LANES = {"primary": ("4", "3"), "secondary": ("3", "2"), "tertiary": ("2", "2")}
"""Lanes in central places and elsewhere."""

ON_WHEELS = ("primary", "secondary", "tertiary", "residential", "service", "pedestrian")


def shares(factor: Floats, steepness: float = 1.5, middle: float = 0.0) -> Floats:
    """Return the share that has a tag where a factor has these values: 1 / (1 + e^−s(f − m))."""
    return np.asarray(1 / (1 + np.exp(-steepness * (factor - middle))))


def stratified(generator: np.random.Generator, xy: Floats) -> Floats:
    """Return numbers in 0..1 for points (N, 2), spread evenly within each tile.

    Of n points in a tile, p · n ± 1 have numbers below p.
    """
    tile = np.floor(xy / TILE_M).astype(np.int64)
    group = tile[:, 0] * (1 << 20) + tile[:, 1]
    noise = generator.random((2, len(xy)))
    order = np.lexsort([noise[0], group])
    in_order = group[order]
    first = np.searchsorted(in_order, in_order)
    count = np.searchsorted(in_order, in_order, side="right") - first
    values = np.empty(len(xy))
    values[order] = (np.arange(len(xy)) - first + noise[1][order]) / count
    return values


def tag_ways(ways: Ways, factors: Factors) -> list[dict[str, str]]:
    """Return the tags of all ways."""
    recipe = factors.recipe
    generator = recipe.generator("street tags")
    middle = shapely.get_coordinates(
        shapely.line_interpolate_point(ways.geometry, 0.5, normalized=True)
    ) + np.array(recipe.rendered_m[:2])
    factor = {name: factors.at(name, *middle.T) for name in SHARED}
    draw = [stratified(generator, middle) for _ in range(12)]
    kinds = [CLASSES[k] for k in ways.kind]
    names = street_names(recipe, kinds, ways.line, ways.stretch)
    lit = draw[0] < shares(factor["centrality"])
    busy = draw[1] < shares(factor["centrality"])
    paved = draw[2] < shares(factor["age"])
    slow = draw[3] < shares(factor["age"])
    trees = draw[4] < shares(factor["greenery"])
    cycling = draw[5] < shares(factor["greenery"])
    smooth = draw[6] < shares(factor["affluence"])
    gated = draw[7] < shares(factor["affluence"])
    parking = draw[8] < shares(factor["density"])
    walks = draw[9] < shares(factor["density"])
    rows = []
    for i, kind in enumerate(kinds):
        tags = {"highway": kind}
        if names[i]:
            tags["name"] = names[i]
        tags["lit"] = "yes" if lit[i] else "no"
        tags["smoothness"] = "excellent" if smooth[i] else "intermediate"
        tags["tree_lined"] = "both" if trees[i] else "no"
        if kind == "track":
            tags["surface"] = "cobblestone" if paved[i] else "gravel"
        elif kind in ("footway", "cycleway", "path"):
            tags["surface"] = "paving_stones" if paved[i] else "fine_gravel"
        else:
            tags["surface"] = "sett" if paved[i] else "asphalt"
        if kind in ON_WHEELS:
            tags["cycleway"] = "lane" if cycling[i] else "no"
            tags["parking:both"] = "lane" if parking[i] else "no"
            tags["sidewalk"] = "both" if walks[i] else "none"
        if kind == "service":
            tags["service"] = "alley"
            tags["access"] = "private" if gated[i] else "yes"
        if kind == "residential" and gated[i]:
            tags["traffic_calming"] = "table"
        if kind in LANES:
            tags["lanes"] = LANES[kind][0 if busy[i] else 1]
        limit = SPEEDS.get(kind)
        if limit and draw[10][i] > 0.12:
            tags["maxspeed"] = limit
            if kind == "residential" and not slow[i]:
                tags["maxspeed"] = "50"
            elif kind == "tertiary" and slow[i]:
                tags["maxspeed"] = "30"
            elif draw[11][i] > 0.97:
                tags["maxspeed"] = "30 mph"
        if kind == "residential" and draw[11][i] < 0.15:
            tags["oneway"] = "yes"
        if ways.level[i] == BRIDGE:
            tags.update(bridge="yes", layer="1")
        elif ways.level[i] == TUNNEL:
            tags.update(tunnel="yes", layer="-1")
        rows.append(tags)
    return rows
