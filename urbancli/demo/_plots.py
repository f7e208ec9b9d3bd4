"""Plots: how a block between streets is cut up, and where on its plot a building stands.

All is laid out in a block's own square (u along its longer sides, v across, both 0 to 1) and mapped
to metres bilinearly, all blocks at once. The map keeps lines of constant u or v straight and is one
to one on a convex block, so what does not overlap in the square does not overlap on the ground.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.demo._draws import Draws, Flags, Floats, Integers
from urbancli.demo.factors import Factors
from urbancli.demo.town import Cells

NARROWEST_M = 12.0
"""A block is not built on where, less its setbacks, a side is shorter."""

STREET_M, BORDER_M = 3.0, 1.5
"""A side with a wider setback has a street; one without keeps this far from the next block."""

FACING_M = 60.0
"""A street along a side weighs as much as so many metres when a block's rows are laid."""


class Style(NamedTuple):
    """How a block is built: all lengths in metres.

    Attributes:
        plot_m: wanted width of a plot.
        two_rows_m: from which depth of the block on there are two rows of plots, back to back.
        front_m: from the street side of the plot to the building.
        gap_m: from the building to the sides of the plot.
        width_m: of the building at most.
        depth_m: of the building at most.
        back_m: from the building to the plot's back at least.
    """

    plot_m: float
    two_rows_m: float
    front_m: float
    gap_m: float
    width_m: float
    depth_m: float
    back_m: float


STYLES = {
    "detached": Style(26, 42, 5, 3.5, 15, 11, 3),
    "semidetached": Style(19, 40, 4, 4.5, 99, 11, 3),
    "terrace": Style(16, 38, 3, 0, 99, 11, 3),
    "slab": Style(42, 60, 6, 4, 99, 14, 4),
    "court": Style(40, 50, 0, 0, 99, 99, 0),
    "office": Style(40, 56, 2, 3, 99, 30, 4),
    "shop": Style(44, 70, 5, 3, 99, 34, 3),
    "hall": Style(60, 100, 6, 5, 99, 60, 6),
    "school": Style(120, 999, 8, 8, 70, 44, 6),
    "hospital": Style(55, 80, 6, 6, 60, 40, 5),
    "church": Style(999, 999, 6, 4, 20, 36, 4),
    "farm": Style(26, 999, 6, 5, 22, 14, 4),
    "shed": Style(17, 34, 9, 3, 5, 4, 1),
    "hut": Style(100, 999, 3, 3, 9, 6, 2),
    "none": Style(999, 999, 0, 0, 0, 0, 0),
}
"""The ways of building, by name."""

HOUSES = ("detached", "semidetached", "terrace")
"""Styles with gardens behind the houses."""

OF_ZONE = {
    "commercial": "office", "retail": "shop", "industrial": "hall", "school": "school",
    "hospital": "hospital", "allotments": "shed", "water": "none", "railway": "none",
}  # fmt: skip
"""Styles by zone; residential blocks vary, all others have huts and barns here and there."""


@dataclass(frozen=True)
class Blocks:
    """Blocks less their setbacks, turned so that u runs along the longer sides.

    Attributes:
        corners: (C, 4, 2) metres, counter-clockwise.
        street: (C, 4) whether there is a street along each side.
        usable: (C,) whether something can stand there: convex and not too narrow.
        length: (C,) metres along u.
        width: (C,) metres along v.
    """

    corners: Floats
    street: Flags
    usable: Flags
    length: Floats
    width: Floats

    def at(self, block: Integers, u: Floats, v: Floats) -> Floats:
        """Return points (N, 2) or (N, K, 2) in metres of u and v (N,) or (N, K) in blocks (N,)."""
        corner = self.corners[block].reshape(len(block), 4, *(1,) * (u.ndim - 1), 2)
        first, second, third, fourth = np.moveaxis(corner, 1, 0)
        u, v = u[..., None], v[..., None]
        return np.asarray(
            (1 - u) * (1 - v) * first + u * (1 - v) * second + u * v * third + (1 - u) * v * fourth
        )

    def middles(self, block: Integers, box: Floats) -> Floats:
        """Return the middles (N, 2) in metres of boxes (N, 4) in blocks, as `Plots.box`."""
        return self.at(block, box[:, :2].mean(axis=1), box[:, 2:].mean(axis=1))


def inner_blocks(cells: Cells, further_m: float = 0.0) -> Blocks:
    """Return the blocks less their setbacks and `further_m` metres more (less if negative).

    They are turned so that rows of plots face streets, along the longer sides if all are streets.
    """
    start, side = cells.corners, np.roll(cells.corners, -1, axis=1) - cells.corners
    length = np.linalg.norm(side, axis=2)
    street = cells.setback_m > STREET_M
    setback = np.maximum(cells.setback_m, BORDER_M)
    normal = np.stack([-side[..., 1], side[..., 0]], axis=2) / length[..., None]
    offset = np.einsum("ckd,ckd->ck", normal, start) + setback + further_m
    # Corner k is where the moved sides k − 1 and k meet: normal · x = offset for both.
    before, reach = np.roll(normal, 1, axis=1), np.roll(offset, 1, axis=1)
    cross = before[..., 0] * normal[..., 1] - before[..., 1] * normal[..., 0]
    safe = np.where(np.abs(cross) < 0.1, 1.0, cross)
    east = (reach * normal[..., 1] - offset * before[..., 1]) / safe
    north = (offset * before[..., 0] - reach * normal[..., 0]) / safe
    corners = np.stack([east, north], axis=2)
    moved = np.roll(corners, -1, axis=1) - corners
    kept = np.einsum("ckd,ckd->ck", moved, side) / length
    usable = ((cross > 0.1) & (kept > NARROWEST_M)).all(axis=1)
    pairs = (kept + FACING_M * street).reshape(-1, 2, 2).sum(axis=1)
    turn = pairs[:, 1] > pairs[:, 0]
    for each in (corners, kept, street):
        each[turn] = np.roll(each[turn], -1, axis=1)
    length, width = ((kept[:, k] + kept[:, k + 2]) / 2 for k in (0, 1))
    return Blocks(corners, street, usable, length, width)


def styles(factors: Factors, cells: Cells) -> npt.NDArray[np.object_]:
    """Return the style of each cell, (C,): a key of `STYLES`.

    Density decides between flats and houses, age between courts and slabs, affluence between
    detached and attached houses.
    """
    draws = Draws(factors, "styles", cells.centres())
    zone = cells.zone
    flats = draws.follows("density", -1.0)
    court = draws.follows("age", 0.2)
    detached = draws.follows("affluence", 0.3)
    pair = draws.happens(0.5)
    style = np.where(
        flats,
        np.where(court, "court", "slab"),
        np.where(detached, "detached", np.where(pair, "semidetached", "terrace")),
    ).astype(object)
    style[zone != "residential"] = "hut"
    for name, other in OF_ZONE.items():
        style[zone == name] = other
    style[(zone == "residential") & draws.happens(0.02)] = "church"
    style[(zone == "cemetery") & draws.happens(0.4)] = "church"
    style[(zone == "farmland") & draws.happens(0.15)] = "farm"
    return style


@dataclass(frozen=True)
class Plots:
    """Plots of blocks, and the box on each in which its building stands; u and v of the block.

    Attributes:
        block: (P,) index of the cell.
        style: (P,) of the block.
        left: (P,) u where the plot begins.
        right: (P,) u where it ends.
        front: (P,) v of its street side.
        back: (P,) v of its back; less than `front` in a second row.
        box: (P, 4) u from, u to, v of the front, v of the back of the building.
    """

    block: Integers
    style: npt.NDArray[np.object_]
    left: Floats
    right: Floats
    front: Floats
    back: Floats
    box: Floats

    def __len__(self) -> int:
        return len(self.block)

    def take(self, index: npt.NDArray[np.int64] | Flags) -> "Plots":
        """Return some of the plots."""
        return Plots(
            self.block[index], self.style[index], self.left[index], self.right[index],
            self.front[index], self.back[index], self.box[index],
        )  # fmt: skip


def lay_plots(factors: Factors, blocks: Blocks, style: npt.NDArray[np.object_]) -> Plots:
    """Return the plots of all usable blocks; the richer and less dense, the wider."""
    table = np.array([STYLES[name] for name in style]).reshape(-1, len(Style._fields))
    draws = Draws(factors, "plots", blocks.corners.mean(axis=1))
    wanted = table[:, 0] * np.exp(
        0.12 * draws.level("affluence") - 0.12 * draws.level("density").clip(-2, 2.5)
    )
    wanted = np.where(np.isin(style, HOUSES), wanted, table[:, 0])
    columns = np.maximum(np.round(blocks.length / wanted), 1).astype(np.int64)
    farm = style == "farm"
    used = np.where(farm, np.minimum(1.0, 75 / blocks.length), 1.0)
    columns[farm] = 3
    rows = np.where(blocks.width >= table[:, 1], 2, 1)
    count = np.where(blocks.usable & (style != "none"), columns * rows, 0)
    block = np.repeat(np.arange(len(style)), count)
    number = np.arange(len(block)) - np.repeat(np.cumsum(count) - count, count)
    column, row = number % columns[block], number // columns[block]
    # Neighbours compute a shared side from the same numbers: their corners are equal to the bit.
    left, right = (used[block] * (column + step) / columns[block] for step in (0, 1))
    front = row.astype(np.float64)
    back = np.where(rows[block] == 2, 0.5, 1.0)
    plots = Plots(block, style[block], left, right, front, back, np.empty((len(block), 4)))
    return _place(factors, blocks, plots, table[block])


def _place(factors: Factors, blocks: Blocks, plots: Plots, table: Floats) -> Plots:
    """Fill in the boxes; leave out plots too small for a building."""
    length, width = blocks.length[plots.block], blocks.width[plots.block]
    plot_u, plot_v = plots.right - plots.left, plots.back - plots.front
    frontage, depth = plot_u * length, np.abs(plot_v) * width
    middle = blocks.at(plots.block, (plots.left + plots.right) / 2, (plots.front + plots.back) / 2)
    draws = Draws(factors, "boxes", middle)
    _, _, front_m, gap_m, width_m, depth_m, back_m = table.T
    loose = np.isin(plots.style, ("detached", "hut", "shed", "farm", "hall", "slab", "office"))
    across = np.minimum(frontage - 2 * gap_m, width_m * np.where(loose, draws.uniform(0.7, 1), 1))
    along = np.minimum(
        depth - front_m - back_m, depth_m * np.where(loose, draws.uniform(0.75, 1), 1)
    )
    spare = np.maximum(depth - front_m - back_m - along, 0)
    free = np.isin(plots.style, ("hut", "shed"))
    near = front_m + spare * np.where(free, draws.uniform(0, 1), 0)
    near += np.minimum(spare, 3) * np.where(plots.style == "detached", draws.uniform(0, 1), 0)
    side = np.where(loose, draws.uniform(0, 1), 0.5)
    from_u = plots.left + plot_u * (gap_m + side * (frontage - 2 * gap_m - across)) / frontage
    to_u = from_u + plot_u * across / frontage
    whole = gap_m == 0
    from_u, to_u = np.where(whole, plots.left, from_u), np.where(whole, plots.right, to_u)
    # Two semi-detached houses share the plots' common side, where the block has an even number.
    first = np.flatnonzero(
        (plots.style[:-1] == "semidetached") & (plots.right[:-1] == plots.left[1:])
        & (plots.block[:-1] == plots.block[1:]) & (plots.front[:-1] == plots.front[1:])
        & (_place_in_row(plots)[:-1] % 2 == 0)
    )  # fmt: skip
    to_u[first], from_u[first + 1] = plots.right[first], plots.left[first + 1]
    start = plots.front + plot_v * near / depth
    end = np.where(depth_m >= depth, plots.back, start + plot_v * along / depth)
    plots.box[:] = np.column_stack([from_u, to_u, start, end])
    return plots.take((across >= 3) & (along >= 3))


def _place_in_row(plots: Plots) -> Integers:
    """Return how many plots lie left of each in its row."""
    return np.round(plots.left / (plots.right - plots.left)).astype(np.int64)
