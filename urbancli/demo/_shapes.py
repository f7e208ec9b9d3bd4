"""Footprints of buildings: a handful of plans, stretched into the box of each plot."""

import numpy as np
import shapely

from urbancli.demo._draws import Draws, Flags, Floats
from urbancli.demo._plots import Blocks, Plots
from urbancli.workspace import Geometries

PLANS: dict[str, list[tuple[float, float]]] = {
    "bar": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "L": [(0, 0), (1, 0), (1, 0.55), (0.5, 0.55), (0.5, 1), (0, 1)],
    "U": [(0, 0), (1, 0), (1, 1), (0.72, 1), (0.72, 0.38), (0.28, 0.38), (0.28, 1), (0, 1)],
    "T": [
        (0, 0), (1, 0), (1, 0.45), (0.66, 0.45), (0.66, 1), (0.34, 1), (0.34, 0.45), (0, 0.45),
    ],
    "cross": [
        (0.3, 0), (0.7, 0), (0.7, 0.55), (1, 0.55), (1, 0.78), (0.7, 0.78), (0.7, 0.88),
        (0.58, 1), (0.42, 1), (0.3, 0.88), (0.3, 0.78), (0, 0.78), (0, 0.55), (0.3, 0.55),
    ],
    "court": [(0, 0), (1, 0), (1, 1), (0, 1)],
}  # fmt: skip
"""Plans in a unit box: across from the left, and along from the street side to the back."""

COURT = [(0.33, 0.34), (0.67, 0.34), (0.67, 0.72), (0.33, 0.72)]
"""The courtyard of the plan `court`."""

VARIANTS = {
    "detached": ("bar", "L", "bar"),
    "slab": ("bar", "L"),
    "office": ("bar", "L", "U", "bar"),
    "shop": ("bar", "bar", "L"),
    "school": ("U", "T", "L"),
    "hospital": ("T", "court", "U"),
    "church": ("cross",),
    "court": ("court", "court", "U"),
}
"""Plans by style of building; all others are bars."""


def footprints(blocks: Blocks, plots: Plots, draws: Draws) -> Geometries:
    """Return a polygon in metres for each plot, (P,)."""
    plan = np.full(len(plots), "bar", dtype=object)
    for style, variants in VARIANTS.items():
        plan[plots.style == style] = draws.pick(variants)[plots.style == style]
    mirrored = draws.happens(0.5)
    shapes = np.empty(len(plots), dtype=object)
    for name, outline in PLANS.items():
        chosen = plan == name
        if not chosen.any():
            continue
        outer = _ring(blocks, plots.take(chosen), mirrored[chosen], outline)
        if name == "court":
            inner = _ring(blocks, plots.take(chosen), mirrored[chosen], COURT)
            holes = np.asarray(shapely.linearrings(inner))[:, None]
            shapes[chosen] = shapely.polygons(shapely.linearrings(outer), holes=holes)
        else:
            shapes[chosen] = shapely.polygons(outer)
    return shapes


def _ring(
    blocks: Blocks, plots: Plots, mirrored: Flags, outline: list[tuple[float, float]]
) -> Floats:
    """Return the corners (P, K, 2) of a plan in the boxes of plots, metres."""
    across, along = (np.broadcast_to(axis, (len(plots), len(outline)))
                     for axis in np.array(outline).T)  # fmt: skip
    across = np.where(mirrored[:, None], 1 - across, across)
    return stretched(blocks, plots, across, along)


def stretched(blocks: Blocks, plots: Plots, across: Floats, along: Floats) -> Floats:
    """Return points (P, K, 2) in metres of fractions (P, K) of the plots' boxes."""
    u = _between(plots.box[:, 0], plots.box[:, 1], across)
    v = _between(plots.box[:, 2], plots.box[:, 3], along)
    return blocks.at(plots.block, u, v)


def _between(start: Floats, end: Floats, fraction: Floats) -> Floats:
    """Return points between start and end (P,); exactly these at fractions 0 and 1."""
    return np.asarray(start[:, None] * (1 - fraction) + end[:, None] * fraction)


def rectangles(blocks: Blocks, plots: Plots, box: Floats) -> Geometries:
    """Return a polygon for each of other boxes (P, 4) on the plots, as `Plots.box`."""
    u, v = box[:, [0, 1, 1, 0]], box[:, [2, 2, 3, 3]]
    return np.asarray(shapely.polygons(blocks.at(plots.block, u, v)), dtype=object)
