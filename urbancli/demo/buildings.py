"""Buildings, and what stands behind them: gardens, pools, garages, hedges and fences.

Each shared factor shows in channels of its own: density in how many plots are built, in storeys and
in flats against houses; affluence in detached against attached houses, pools, garages, the
condition of buildings and the finer of two roofings; age in dates, in roofing and roof shapes;
greenery in gardens, green roofs, hedges against fences; centrality in what buildings are used for
and in gravel and glass roofs. Masonry decides the material of the walls and nothing else.
"""

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._draws import Draws, Flags, Integers, sigmoid
from urbancli.demo._plots import HOUSES, Blocks, Plots, inner_blocks, lay_plots, styles
from urbancli.demo._shapes import footprints, rectangles
from urbancli.demo.factors import Factors
from urbancli.demo.town import Cells, Elements, join_elements
from urbancli.workspace import Geometries

Words = npt.NDArray[np.object_]

KINDS = {
    "detached": ("detached", "house"), "semidetached": ("semidetached_house",) * 2,
    "terrace": ("terrace",) * 2, "slab": ("apartments",) * 2,
    "court": ("apartments", "residential"), "office": ("commercial", "office"),
    "shop": ("retail",) * 2, "hall": ("industrial", "warehouse"), "school": ("school",) * 2,
    "hospital": ("hospital",) * 2, "church": ("church",) * 2, "farm": ("farm", "barn"),
    "shed": ("shed",) * 2, "hut": ("hut",) * 2, "garage": ("garage",) * 2,
}  # fmt: skip
"""`building=` by style: of offices, halls and farms the second where central, else half each."""

STOREYS = {
    "slab": 4.2, "court": 4.0, "office": 4.5, "shop": 1.4, "hall": 1.2, "school": 2.2,
    "hospital": 4.0, "shed": 1.0, "hut": 1.0, "garage": 1.0, "farm": 1.2, "church": 1.0,
}  # fmt: skip
"""Storeys at mean density, by style; houses have 1.7."""

LOW = ("shed", "hut", "church", "farm", "hall", "garage")
"""Styles whose storeys do not grow with density."""

ALWAYS_BUILT = ("hut", "church", "school", "hospital", "farm")
"""Styles whose plots are built however low the density."""

STOREY_M = {"hall": 7, "church": 17, "shop": 5}
"""Metres of a storey by style; all others have 3."""

USES = ("residential", "commercial")
"""Values of `building:use`, outlying and central."""

DATES = ("2010s", "1970s", "1930s", "1890s")
"""Values of `start_date`, from new to old: few, for a value is a word of its own to an encoder."""


def build(factors: Factors, cells: Cells) -> Elements:
    """Return buildings, gardens, pools, garages and fences of all cells."""
    blocks = inner_blocks(cells)
    style = styles(factors, cells)
    plots = lay_plots(factors, blocks, style)
    draws = Draws(factors, "built", blocks.middles(plots.block, plots.box))
    open_to_all = draws.happens(0.4 + 0.6 * sigmoid(1.5 * draws.level("density") + 0.8))
    plots = plots.take(open_to_all | np.isin(plots.style, ALWAYS_BUILT))
    plan = Draws(factors, "plans", blocks.middles(plots.block, plots.box))
    shapes = footprints(blocks, plots, plan)
    garages = _garages(factors, blocks, plots)
    shapes = np.concatenate([shapes, garages])
    owners = np.concatenate([plots.style, np.full(len(garages), "garage", dtype=object)])
    buildings = Elements(shapes, _building_tags(factors, owners, shapes))
    return join_elements(
        [buildings, *_gardens(factors, blocks, plots), _fences(factors, blocks, style)]
    )


def _building_tags(factors: Factors, style: Words, shapes: Geometries) -> list[dict[str, str]]:
    """Return the tags of each building; what follows a factor does so in its centroid's tile."""
    draws = Draws(factors, "buildings", shapely.get_coordinates(shapely.centroid(shapes)))
    old, rich, central = (draws.follows(f) for f in ("age", "affluence", "centrality"))
    storeys = _storeys(draws, style)
    heights = storeys * np.array([STOREY_M.get(each, 3) for each in style])
    eldest = old.astype(int) + draws.follows("age") + draws.follows("age")
    columns = {
        "building": _kinds(draws, style, central),
        "building:levels": storeys.astype(str),
        "height": np.maximum(heights + 1, 3).astype(str),
        "roof:shape": _roof_shapes(old, rich, style),
        "roof:material": _roof_materials(draws, old, rich, storeys > 2),
        "start_date": np.array(DATES, dtype=object)[eldest],
        "building:condition": np.where(draws.follows("affluence"), "good", "mended"),
        "building:use": np.where(draws.follows("centrality"), *USES[::-1]),
        "building:material": np.where(draws.follows("masonry"), "brick", "plaster"),
    }
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def _kinds(draws: Draws, style: Words, central: Flags) -> Words:
    """Return the values of `building`: some flats of the centre are offices."""
    first, second = np.array([KINDS[each] for each in style], dtype=object).T
    half = draws.happens(0.5)
    kind = np.where(np.where(np.isin(style, ("office", "hall", "farm")), central, half),
                    second, first)  # fmt: skip
    flats = np.isin(style, ("slab", "court"))
    return np.asarray(np.where(flats & central & draws.happens(0.3), "office", kind), dtype=object)


def _storeys(draws: Draws, style: Words) -> Integers:
    """Return the storeys of buildings, growing with density, few values above six."""
    usual = np.array([STOREYS.get(each, 1.7) for each in style])
    grown = usual * np.exp(0.35 * draws.level("density").clip(-2, 3.2))
    grown = np.where(np.isin(style, LOW), usual, grown)
    storeys = np.floor(grown + draws.strata()).astype(np.int64).clip(1, 14)
    return np.asarray(np.where(storeys > 6, storeys // 2 * 2, storeys))


def _roof_shapes(old: Flags, rich: Flags, style: Words) -> Words:
    """Return roof shapes: pitched where old, hipped or skillion where rich."""
    shape = np.where(
        old, np.where(rich, "hipped", "gabled"), np.where(rich, "skillion", "flat")
    ).astype(object)
    shape[style == "church"] = "gabled"
    return shape


def _roof_materials(draws: Draws, old: Flags, rich: Flags, tall: Flags) -> Words:
    """Return roofing: green roofs, then gravel and glass, the rest four by age and affluence."""
    green, central = 0.25 * draws.share("greenery"), 0.35 * draws.share("centrality")
    lot, half = draws.strata(), draws.happens(0.5)
    rest = np.where(
        old,
        np.where(rich, "slate", "roof_tiles"),
        np.where(rich, "metal", np.where(half, "tar_paper", "concrete")),
    )
    middle = np.where(lot < green + central, np.where(half & tall, "glass", "gravel"), rest)
    return np.asarray(np.where(lot < green, "grass", middle), dtype=object)


def _garages(factors: Factors, blocks: Blocks, plots: Plots) -> Geometries:
    """Return garages in the gaps beside detached houses, more where affluent."""
    plots = plots.take(plots.style == "detached")
    draws = Draws(factors, "garages", blocks.middles(plots.block, plots.box))
    metre = 1 / blocks.length[plots.block]
    start = plots.box[:, 1] + 0.7 * metre
    end = np.minimum(plots.right - 0.7 * metre, start + 4 * metre)
    wanted = draws.follows("affluence", -1.2) & (end - start > 2.6 * metre)
    front, back = plots.box[:, 2], plots.box[:, 3]
    box = np.column_stack([start, end, front, front + 0.6 * (back - front)])
    return rectangles(blocks, plots.take(wanted), box[wanted])


def _gardens(factors: Factors, blocks: Blocks, plots: Plots) -> list[Elements]:
    """Return gardens behind houses, more where green, and pools in them, more where affluent."""
    plots = plots.take(np.isin(plots.style, HOUSES))
    draws = Draws(factors, "gardens", blocks.middles(plots.block, plots.box))
    along, across = 1 / blocks.length[plots.block], 1 / blocks.width[plots.block]
    deep = np.abs(plots.back - plots.box[:, 3]) / across
    sense = np.sign(plots.back - plots.front)
    garden = np.column_stack([
        plots.left + along, plots.right - along,
        plots.box[:, 3] + 1.5 * across * sense, plots.back - across * sense,
    ])  # fmt: skip
    planted = (deep > 6) & draws.happens(0.6 * draws.share("greenery"))
    left = plots.left + 2 * along + draws.strata() * 0.3 * (plots.right - plots.left)
    start = plots.box[:, 3] + 2.5 * across * sense
    pool = np.column_stack([left, left + 7.5 * along, start, start + 4 * across * sense])
    fits = (deep > 8) & (pool[:, 1] < plots.right - 2 * along)
    swum = fits & draws.happens(0.6 * draws.share("affluence", -0.5))
    gardens = rectangles(blocks, plots.take(planted), garden[planted])
    pools = rectangles(blocks, plots.take(swum), pool[swum])
    return [
        Elements(gardens, [{"leisure": "garden", "garden:type": "residential"} for _ in gardens]),
        Elements(pools, [{"leisure": "swimming_pool", "access": "private"} for _ in pools]),
    ]


def _fences(factors: Factors, blocks: Blocks, style: Words) -> Elements:
    """Return a line along the backs of house plots, or the edge of open ground.

    Where green it is a hedge more often; of the others the affluent have walls and not fences.
    """
    houses, open_ground = np.isin(style, HOUSES), np.isin(style, ("hut", "farm", "shed"))
    block = np.flatnonzero(blocks.usable & (houses | open_ground))
    v = np.where(houses[block], 0.5, 0.02)[:, None] * np.ones(2)
    u = np.broadcast_to(np.array([0.03, 0.97]), v.shape)
    ends = blocks.at(block, u, v)
    draws = Draws(factors, "fences", ends.mean(axis=1))
    hedge, wall = draws.follows("greenery"), draws.follows("affluence")
    kinds = np.where(hedge, "hedge", np.where(wall, "wall", "fence"))
    return Elements(
        np.asarray(shapely.linestrings(ends), dtype=object),
        [{"barrier": str(kind)} for kind in kinds],
    )
