"""Land-use polygons, and what lies inside blocks: pitches, playgrounds and parking lots."""

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._draws import Draws
from urbancli.demo._lattice import Lattice
from urbancli.demo._names import name_stems
from urbancli.demo._zones import Blocks, Zones
from urbancli.demo.factors import Factors
from urbancli.demo.town import Elements

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

INSET_M = 5.0
"""Polygons keep off the centre lines of streets, and so off each other."""

SMALLEST_M2 = 150.0

TAGS = {
    "park": ("leisure", "park"),
    "school": ("amenity", "school"),
    "hospital": ("amenity", "hospital"),
    "water": ("landuse", "grass"),
    "railway": ("natural", "scrub"),
}
"""Tags of zones other than `landuse=ZONE`."""

NAMED = {
    "park": "Park", "school": "School", "hospital": "Hospital", "cemetery": "Cemetery",
    "industrial": "Works", "allotments": "Gardens", "forest": "Wood",
}  # fmt: skip

LOT_M, FIELD_M = 22.0, 42.0
"""Depth of a parking lot and of a school's sports field, metres from where plots would begin."""


def land_elements(
    lattice: Lattice, blocks: Blocks, zones: Zones, bare: shapely.Geometry, factors: Factors
) -> Elements:
    """Return a polygon for each stretch of one zone within a superblock.

    Args:
        lattice: of the streets.
        blocks: its superblocks.
        zones: (rows, columns) of the cells.
        bare: water and tracks, which are taken out of the cells that they cross.
        factors: of the city.
    """
    names = name_stems(factors.recipe)
    number = np.unique(zones.ravel().astype(str), return_inverse=True)[1].ravel()
    group = blocks.of_cell.ravel() * 32 + number
    order = np.argsort(group, kind="stable")
    quads = np.asarray(shapely.polygons(lattice.corners()), dtype=object)[order]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    unions = [
        shapely.union_all(quads[a:b])
        for a, b in zip(starts, np.append(starts[1:], len(order)), strict=True)
    ]
    zone = zones.ravel()[order][starts]
    shapes = np.asarray(shapely.buffer(unions, -INSET_M, join_style="mitre"), dtype=object)
    crossed = np.isin(zone, ("water", "railway"))
    shapes[crossed] = shapely.difference(shapes[crossed], bare)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    kept = (shapely.area(parts) > SMALLEST_M2) & (shapely.get_dimensions(parts) == 2)
    parts, owner = parts[kept], owner[kept]
    south_west = np.array(factors.recipe.rendered_m[:2])
    spots = shapely.get_coordinates(shapely.centroid(parts)) + south_west
    draws = Draws(factors, "land use", spots)
    stem, woods = draws.generator.integers(0, len(names), len(parts)), draws.follows("age")
    rows = []
    for i, kind in enumerate(zone[owner]):
        key, value = TAGS.get(kind, ("landuse", kind))
        row = {key: value}
        if kind == "forest" and not woods[i]:
            row = {"natural": "wood"}
        elif kind == "park" and parts[i].area < 9000:
            row = {"leisure": "garden"}
        if kind in NAMED:
            row["name"] = f"{names[stem[i]]} {NAMED[kind]}"
        rows.append(row)
    return Elements(parts, rows)


def draw_sites(
    lattice: Lattice, zones: Zones, setback_m: Floats, lakes: shapely.Geometry, factors: Factors
) -> tuple[Elements, Floats]:
    """Lay out parking lots and fields along streets, and pitches and playgrounds in parks.

    Args:
        lattice: of the streets.
        zones: (rows, columns) of the cells.
        setback_m: (cells, 4) before plots make room for lots and fields.
        lakes: what nothing is laid out on.
        factors: of the city.

    Returns:
        The polygons, metres from the square's south-west corner; and the setbacks with them.
    """
    corners, zone = lattice.corners(), zones.ravel()
    draws = Draws(factors, "sites", corners.mean(axis=1) + np.array(factors.recipe.rendered_m[:2]))
    length = np.hypot(*np.moveaxis(np.roll(corners, -1, axis=1) - corners, -1, 0))
    roomy = length.min(axis=1) > 72
    # Along the longest side that has a street.
    side = np.argmax(np.where(setback_m > 0, length, 0), axis=1)
    on_street = setback_m.max(axis=1) > 0
    shops = np.isin(zone, ("retail", "commercial", "industrial"))
    lots = roomy & on_street & shops & draws.happens(0.35 * draws.share("affluence") + 0.12)
    fields = roomy & on_street & (zone == "school") & draws.happens(0.7)
    setback_m = setback_m.copy()
    parts: list[Elements] = []
    for chosen, depth, tags in (
        (lots, LOT_M, {"amenity": "parking", "parking": "surface", "surface": "asphalt"}),
        (fields, FIELD_M, {"leisure": "pitch", "sport": "soccer", "surface": "grass"}),
    ):
        where = np.flatnonzero(chosen)
        begin = setback_m[where, side[where]] + 2
        parts.append(_strips(corners[where], side[where], begin, depth - 4, tags))
        setback_m[where, side[where]] += depth
    pitch, court = draws.happens(0.11), draws.happens(0.16 * draws.share("greenery") + 0.04)
    park = (zone == "park") & roomy
    for chosen, box, tags in (
        (park & pitch, (0.28, 0.3, 0.72, 0.62), {"leisure": "pitch", "sport": "soccer"}),
        (park & court & ~pitch, (0.4, 0.14, 0.64, 0.34), {"leisure": "playground"}),
    ):
        shapes = _boxes(corners[chosen], box)
        shapes = shapes[~shapely.intersects(shapes, lakes)]
        parts.append(Elements(shapes, [dict(tags) for _ in shapes]))
    geometry = np.concatenate([part.geometry for part in parts])
    return Elements(geometry, [row for part in parts for row in part.tags]), setback_m


def _strips(
    corners: Floats, side: npt.NDArray[np.int64], begin: Floats, depth: float, tags: dict[str, str]
) -> Elements:
    """Return strips along one side of each cell (N, 4, 2), as deep, from `begin` on."""
    index = np.arange(len(corners))
    start, end = corners[index, side], corners[index, (side + 1) % 4]
    ahead = end - start
    inward = np.column_stack([-ahead[:, 1], ahead[:, 0]]) / np.hypot(*ahead.T)[:, None]
    low, high = inward * begin[:, None], inward * (begin + depth)[:, None]
    first, last = start + 0.24 * ahead, start + 0.76 * ahead
    rings = np.stack([first + low, last + low, last + high, first + high], axis=1)
    shapes = np.asarray(shapely.polygons(rings), dtype=object)
    return Elements(shapes, [dict(tags) for _ in shapes])


def _boxes(corners: Floats, box: tuple[float, float, float, float]) -> npt.NDArray[np.object_]:
    """Return boxes (left, bottom, right, top) in the unit squares of cells (N, 4, 2)."""
    left, bottom, right, top = box
    first, second, third, fourth = np.moveaxis(corners, 1, 0)
    rings = [
        (1 - u) * (1 - v) * first + u * (1 - v) * second + u * v * third + (1 - u) * v * fourth
        for u, v in ((left, bottom), (right, bottom), (right, top), (left, top))
    ]
    return np.asarray(shapely.polygons(np.stack(rings, axis=1)), dtype=object)
