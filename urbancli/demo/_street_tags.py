"""Tags of streets: what they are for, and what the shared factors make of them.

Each factor decides on tags of its own, by shares that rise with it, even within every tile.
"""

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._draws import Draws, Flags
from urbancli.demo._names import street_names
from urbancli.demo._network import BRIDGE, CLASSES, TUNNEL, Ways
from urbancli.demo.factors import Factors

MAIN = ("primary", "secondary", "tertiary")
STREETS = (*MAIN, "residential", "pedestrian", "service")
ALL = tuple(CLASSES[1:])

FOLLOWING = (
    ("lit", "centrality", ALL, "yes", "no"),
    ("smoothness", "affluence", ALL, "excellent", "intermediate"),
    ("traffic_calming", "affluence", ("residential",), "table", ""),
    ("access", "affluence", ("service",), "private", "yes"),
    ("tree_lined", "greenery", ALL, "both", "no"),
    ("cycleway", "greenery", STREETS, "lane", "no"),
    ("surface", "age", STREETS, "sett", "asphalt"),
    ("surface", "age", ("footway", "cycleway", "path"), "paving_stones", "fine_gravel"),
    ("surface", "age", ("track",), "cobblestone", "gravel"),
    ("width", "age", ("residential", "tertiary"), "4", "7"),
    ("parking:both", "density", STREETS, "lane", "no"),
    ("sidewalk", "density", STREETS, "both", "none"),
    ("lanes", "centrality", ("primary",), "4", "3"),
    ("lanes", "centrality", ("secondary",), "3", "2"),
    ("lanes", "centrality", ("tertiary",), "2", "1"),
    ("segregated", "density", ("footway", "cycleway", "path"), "yes", "no"),
)
"""(key, factor, classes, value, value elsewhere): the share of the first value follows the factor.
An empty value: no such tag."""

SPEEDS = {"primary": "60", "secondary": "50", "tertiary": "50", "residential": "50"}
"""Usual speed limits, km/h."""

SIGNED, IN_MILES, ONE_WAY = 0.88, 0.02, 0.12
"""Shares of ways with a known speed limit, with one in miles, and of one-way streets."""


def middles(ways: Ways, factors: Factors) -> npt.NDArray[np.float64]:
    """Return the middles of ways, (W, 2) metres in `recipe.GRID`'s CRS."""
    spots = shapely.line_interpolate_point(ways.geometry, 0.5, normalized=True)
    return np.asarray(shapely.get_coordinates(spots) + np.array(factors.recipe.rendered_m[:2]))


def tag_ways(ways: Ways, factors: Factors) -> list[dict[str, str]]:
    """Return the tags of all ways."""
    kinds = np.array(CLASSES, dtype=object)[ways.kind]
    rows = [{"highway": kind} for kind in kinds]
    for row, name in zip(rows, street_names(factors.recipe, ways), strict=True):
        if name:
            row["name"] = name
    draws = Draws(factors, "street tags", middles(ways, factors))
    for key, factor, classes, value, otherwise in FOLLOWING:
        _put(rows, key, np.where(draws.follows(factor), value, otherwise), np.isin(kinds, classes))
    zone_30 = draws.follows("age") & np.isin(kinds, ("residential", "tertiary"))
    limit = np.array([SPEEDS.get(kind, "") for kind in kinds], dtype=object)
    limit[zone_30] = "30"
    limit[draws.happens(IN_MILES)] = "30 mph"
    signed = draws.happens(SIGNED) & np.isin(kinds, tuple(SPEEDS))
    _put(rows, "maxspeed", limit, signed)
    one_way = draws.happens(ONE_WAY) & np.isin(kinds, ("residential", "service"))
    for key, value, where in (
        ("oneway", "yes", one_way),
        ("service", "alley", kinds == "service"),
        ("bridge", "yes", ways.level == BRIDGE),
        ("layer", "1", ways.level == BRIDGE),
        ("tunnel", "yes", ways.level == TUNNEL),
        ("layer", "-1", ways.level == TUNNEL),
    ):
        _put(rows, key, np.full(len(rows), value), where)
    return rows


def _put(
    rows: list[dict[str, str]], key: str, values: npt.NDArray[np.generic], where: Flags
) -> None:
    """Set a tag, where it is wanted and has a value."""
    for index in np.flatnonzero(where):
        if value := str(values[index]):
            rows[index][key] = value
