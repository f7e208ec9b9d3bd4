"""What stands on and along streets: traffic signals, crossings, bus stops."""

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._draws import Draws, sigmoid
from urbancli.demo._lattice import Lattice
from urbancli.demo._names import name_stems
from urbancli.demo._network import FIRST, HOME, ON_GROUND, SECOND, THIRD, Segments
from urbancli.demo.factors import Factors
from urbancli.demo.town import Elements

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

KERB_M = 6.0
"""From the centre line to a bus stop, metres."""


def choose_crossings(lattice: Lattice, segments: Segments, factors: Factors) -> Flags:
    """Return which segments have a crossing for pedestrians in their middle."""
    draws = Draws(factors, "crossings", _middles(lattice, segments, factors))
    chance = np.where(np.isin(segments.kind, (THIRD, SECOND, FIRST)), 0.5, 0.0)
    chance[segments.kind == HOME] = 0.05
    fits = (segments.level == ON_GROUND) & (chance > 0)
    return np.asarray(draws.happens(chance * draws.share("centrality")) & fits)


def _middles(lattice: Lattice, segments: Segments, factors: Factors) -> Floats:
    ends = lattice.vertices.reshape(-1, 2)[segments.ends]
    return np.asarray(ends.mean(axis=1) + np.array(factors.recipe.rendered_m[:2]))


def roadside_elements(lattice: Lattice, segments: Segments, factors: Factors) -> Elements:
    """Return signals on crossings, crossings in the middle of segments, and stops."""
    ends = lattice.vertices.reshape(-1, 2)[segments.ends][segments.middle]
    # As in the ways: the same sum, the same node.
    points = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * 0.5
    south_west = np.array(factors.recipe.rendered_m[:2])
    draws = Draws(factors, "crossing kinds", points + south_west)
    old, rich = draws.follows("age"), draws.follows("affluence")
    tags = [
        {
            "highway": "crossing",
            "crossing": "unmarked" if old[i] else "zebra",
            "tactile_paving": "yes" if rich[i] else "no",
        }
        for i in range(len(points))
    ]
    spots = _signals(lattice, segments, factors)
    tags += [{"highway": "traffic_signals"} for _ in spots]
    stops, stop_tags = _stops(lattice, segments, factors)
    shapes = shapely.points(np.concatenate([points, spots, stops]))
    return Elements(np.asarray(shapes, dtype=object), tags + stop_tags)


def _signals(lattice: Lattice, segments: Segments, factors: Factors) -> Floats:
    """Return vertices with traffic signals, (N, 2): main crossings, the likelier the more central.

    In central places streets that meet a main one have signals too.
    """
    points = lattice.vertices.reshape(-1, 2)
    main = np.isin(segments.kind, (THIRD, SECOND, FIRST))
    arms = np.bincount(segments.ends[main].ravel(), minlength=len(points))
    all_arms = np.bincount(segments.ends.ravel(), minlength=len(points))
    centrality = factors.at("centrality", *(points + np.array(factors.recipe.rendered_m[:2])).T)
    chance = np.where(arms >= 3, sigmoid(1.5 * centrality + 0.7), 0.0)
    side = (arms == 2) & (all_arms >= 3)
    chance[side] = 0.8 * sigmoid(1.6 * centrality[side] - 1.8)
    draw = factors.recipe.generator("signals").random(len(points))
    return points[draw < chance]


def _stops(
    lattice: Lattice, segments: Segments, factors: Factors
) -> tuple[Floats, list[dict[str, str]]]:
    """Return bus stops (N, 2) on the right of main streets, and their tags."""
    main = np.flatnonzero(np.isin(segments.kind, (SECOND, FIRST)) & (segments.level == ON_GROUND))
    ends = lattice.vertices.reshape(-1, 2)[segments.ends[main]]
    chosen = factors.recipe.generator("bus stops").random(len(main)) < 0.22
    start, ahead = ends[chosen, 0], ends[chosen, 1] - ends[chosen, 0]
    right = np.column_stack([ahead[:, 1], -ahead[:, 0]]) / np.hypot(*ahead.T)[:, None]
    stops = start + 0.3 * ahead + KERB_M * right
    draws = Draws(factors, "bus stop kinds", stops + np.array(factors.recipe.rendered_m[:2]))
    shelter, bench, lit = (draws.follows(f) for f in ("affluence", "greenery", "centrality"))
    stems = name_stems(factors.recipe)
    name = draws.generator.integers(0, len(stems), len(stops))
    yes = np.array(["no", "yes"])
    tags = [
        {
            "highway": "bus_stop",
            "public_transport": "platform",
            "bus": "yes",
            "name": f"{stems[name[i]]} Stop",
            "shelter": str(yes[int(shelter[i])]),
            "bench": str(yes[int(bench[i])]),
            "lit": str(yes[int(lit[i])]),
        }
        for i in range(len(stops))
    ]
    return stops, tags
