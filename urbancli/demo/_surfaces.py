"""From tags to painted surfaces: which element covers the ground with what, and in which order.

Only tags that are visible from above are read. What has no rule here is not painted.
"""

import contextlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._materials import CODE, MATERIALS, MOSAICS
from urbancli.demo.town import Town
from urbancli.workspace import Geometries

Floats = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]

FIELDS = len(MATERIALS) + len(MOSAICS)
"""Code of farmland, whose crops the renderer chooses strip by strip."""

GROUND = len(MATERIALS) + MOSAICS.index("meadow")
"""Code of what no element covers."""

TALLEST_M = 60.0
"""Heights beyond this throw no longer shadows."""

_CODES = {**CODE, **{name: len(MATERIALS) + i for i, name in enumerate(MOSAICS)}, "fields": FIELDS}

# Layers of paint, from the bottom.
(_ZONE, _PLACE, _WATER, _SITE, _RAIL, _KERB, _TRACK, _STREET, _BUILDING) = range(9)

_AREAS: dict[tuple[str, str], tuple[int, str]] = {
    ("landuse", "residential"): (_ZONE, "garden"),
    ("landuse", "commercial"): (_ZONE, "court"),
    ("landuse", "retail"): (_ZONE, "court"),
    ("landuse", "industrial"): (_ZONE, "works"),
    ("landuse", "railway"): (_ZONE, "works"),
    ("landuse", "forest"): (_ZONE, "forest"),
    ("landuse", "farmland"): (_ZONE, "fields"),
    ("landuse", "meadow"): (_ZONE, "meadow"),
    ("landuse", "allotments"): (_ZONE, "garden"),
    ("landuse", "cemetery"): (_ZONE, "park"),
    ("landuse", "grass"): (_PLACE, "grass"),
    ("landuse", "recreation_ground"): (_PLACE, "park"),
    ("leisure", "park"): (_PLACE, "park"),
    ("leisure", "garden"): (_PLACE, "garden"),
    ("leisure", "golf_course"): (_PLACE, "turf"),
    ("leisure", "playground"): (_SITE, "sand"),
    ("leisure", "pitch"): (_SITE, "turf"),
    ("leisure", "swimming_pool"): (_SITE, "pool"),
    ("natural", "water"): (_WATER, "water"),
    ("natural", "wood"): (_PLACE, "forest"),
    ("natural", "scrub"): (_PLACE, "scrub"),
    ("natural", "sand"): (_PLACE, "sand"),
    ("amenity", "school"): (_ZONE, "court"),
    ("amenity", "university"): (_ZONE, "court"),
    ("amenity", "hospital"): (_ZONE, "court"),
    ("amenity", "parking"): (_SITE, "yard"),
}

# highway → (layer, material, width in metres without a tag `lanes`)
_STREETS: dict[str, tuple[int, str, float]] = {
    "motorway": (_STREET, "asphalt", 13.0),
    "trunk": (_STREET, "asphalt", 13.0),
    "primary": (_STREET, "asphalt", 13.0),
    "secondary": (_STREET, "asphalt", 10.0),
    "tertiary": (_STREET, "asphalt", 8.5),
    "residential": (_STREET, "asphalt", 7.0),
    "living_street": (_STREET, "asphalt", 6.0),
    "unclassified": (_STREET, "asphalt", 6.5),
    "service": (_STREET, "asphalt", 4.0),
    "pedestrian": (_TRACK, "paving", 7.0),
    "footway": (_TRACK, "paving", 2.5),
    "cycleway": (_TRACK, "asphalt", 3.0),
    "path": (_TRACK, "soil", 2.0),
    "track": (_TRACK, "soil", 3.0),
}

LANE_M = 3.3

SIDEWALK_M = 2.5

_PAVED = {"primary", "secondary", "tertiary", "residential", "living_street", "unclassified"}
"""Streets with pavements on both sides."""

_LINES: dict[tuple[str, str], tuple[int, str, float]] = {
    ("railway", "rail"): (_RAIL, "ballast", 5.0),
    ("railway", "tram"): (_RAIL, "paving", 3.5),
    ("waterway", "river"): (_WATER, "water", 26.0),
    ("waterway", "canal"): (_WATER, "water", 14.0),
    ("waterway", "stream"): (_WATER, "water", 4.0),
    ("natural", "tree_row"): (_BUILDING, "crown", 6.0),
}

_ROOFS = {
    "roof_tiles": "roof_tiles", "slate": "slate", "metal": "metal", "tar_paper": "tar_paper",
    "concrete": "concrete", "gravel": "gravel", "grass": "green_roof", "copper": "copper",
    "glass": "glass", "wood": "wood",
}  # fmt: skip

_STEEP = {"gabled", "hipped", "half-hipped", "gambrel", "mansard", "saltbox", "pyramidal"}


@dataclass(frozen=True)
class Surfaces:
    """Polygons to paint, the lowest first.

    Attributes:
        shapes: (N,) polygons, metres in `recipe.GRID`'s CRS.
        code: (N,) material, or mosaic of materials, or FIELDS.
        tone: (N,) brightness of its own, about 1.
        height_m: (N,) above the ground, 0 for all but buildings and rows of trees.
        centre: (N, 2) metres.
        slope: (N, 2) unit vector across the ridge of a steep roof; 0 where all is flat.
        trees: (T, 2) metres.
        crown_m: (T,) radii.
        crown_tone: (T,) brightness.
    """

    shapes: Geometries
    code: npt.NDArray[np.uint8]
    tone: Single
    height_m: Single
    centre: Floats
    slope: Single
    trees: Floats
    crown_m: Floats
    crown_tone: Single

    def __len__(self) -> int:
        return len(self.code)


def survey(town: Town) -> Surfaces:
    """Return what is painted for a town."""
    elements, recipe = town.elements, town.factors.recipe
    rules = [_rule(tags) for tags in elements.tags]
    geometry = np.asarray(elements.geometry, dtype=object)
    dimension = shapely.get_dimensions(geometry)
    found = np.array([rule is not None for rule in rules], dtype=bool)
    lines, areas = found & (dimension == 1), found & (dimension == 2)
    width = np.array([0.0 if rule is None else rule[2] for rule in rules])
    layer = np.array([0 if rule is None else rule[0] for rule in rules], dtype=np.int64)
    code = np.array([0 if rule is None else _CODES[rule[1]] for rule in rules], dtype=np.uint8)
    # An area that is tagged as a street or a river is painted as it is; a line by its width.
    lines &= width > 0
    wide = _widen(geometry[lines], width[lines])
    streets = lines & np.array([t.get("highway") in _PAVED for t in elements.tags], dtype=bool)
    kerbs = _widen(geometry[streets], width[streets] + 2 * SIDEWALK_M)
    indices = np.concatenate([np.flatnonzero(part) for part in (areas, lines, streets)])
    shapes: Geometries = np.concatenate([geometry[areas], wide, kerbs])
    kerb = np.arange(len(shapes)) >= len(shapes) - len(kerbs)
    layers = np.where(kerb, _KERB, layer[indices])
    codes = np.where(kerb, CODE["pavement"], code[indices]).astype(np.uint8)
    # Within a layer the larger is painted first, but streets of all sizes alike.
    size = np.where(np.isin(layers, (_KERB, _STREET)), 0.0, shapely.area(shapes))
    order = np.lexsort([indices, -size, layers])
    shapes, indices, layers, codes = shapes[order], indices[order], layers[order], codes[order]
    spread = np.where(layers == _BUILDING, 0.13, np.where(layers == _ZONE, 0.06, 0.04))
    draws = recipe.generator("imagery tones").standard_normal(len(rules))[indices]
    height = np.array([_height(elements.tags[i]) for i in indices], dtype=np.float32)
    steep = np.array([elements.tags[i].get("roof:shape") in _STEEP for i in indices], dtype=bool)
    trees, crown, tone = _trees(town)
    return Surfaces(
        shapes,
        codes,
        np.exp(spread * draws).astype(np.float32),
        np.where(layers == _BUILDING, height, 0).astype(np.float32),
        shapely.get_coordinates(shapely.centroid(shapes)).reshape(-1, 2),
        _slopes(shapes, steep | (codes == FIELDS)),
        trees,
        crown,
        tone,
    )


def _rule(tags: dict[str, str]) -> tuple[int, str, float] | None:
    """Return (layer, material or mosaic, width in metres of a line), None if nothing is painted."""
    if tags.get("tunnel", "no") != "no":
        return None
    if "building" in tags:
        return (_BUILDING, _roof(tags), 0.0)
    street = _STREETS.get(tags.get("highway", ""))
    if street is not None:
        lanes = _number(tags.get("lanes", ""), 0.0)
        surface = "soil" if tags.get("surface") in ("gravel", "dirt", "ground") else street[1]
        return (street[0], surface, lanes * LANE_M + 1 if 0 < lanes < 13 else street[2])
    for key in ("railway", "waterway", "natural", "leisure", "amenity", "landuse"):
        if key in tags:
            line, area = _LINES.get((key, tags[key])), _AREAS.get((key, tags[key]))
            if line is not None:
                return line
            if area is not None:
                return (*area, 0.0)
    return None


def _roof(tags: dict[str, str]) -> str:
    named = _ROOFS.get(tags.get("roof:material", ""))
    if named is not None:
        return named
    if tags["building"] in ("house", "detached", "terrace", "farm", "church"):
        return "roof_tiles"
    return "gravel" if tags["building"] in ("apartments", "office", "commercial") else "tar_paper"


def _height(tags: dict[str, str]) -> float:
    if "building" not in tags:
        return 7.0  # a row of trees; of no other element the height is used
    storeys = _number(tags.get("building:levels", ""), 2.0)
    return min(_number(tags.get("height", ""), 3.0 * storeys + 1.0), TALLEST_M)


def _number(text: str, otherwise: float) -> float:
    with contextlib.suppress(ValueError):
        value = float(text.removesuffix("m").strip())
        if np.isfinite(value) and value >= 0:
            return value
    return otherwise


def _widen(lines: Geometries, width_m: Floats) -> Geometries:
    return np.asarray(shapely.buffer(lines, width_m / 2, quad_segs=2), dtype=object)


def _slopes(shapes: Geometries, wanted: npt.NDArray[np.bool_]) -> Single:
    """Return unit vectors across the longest side of the shapes wanted, (N, 2), 0 elsewhere."""
    slopes = np.zeros((len(shapes), 2), dtype=np.float32)
    chosen = np.flatnonzero(wanted)
    points, owner = shapely.get_coordinates(
        shapely.get_exterior_ring(shapely.get_geometry(shapes[chosen], 0)), return_index=True
    )
    if not len(points):
        return slopes
    side = np.diff(points, axis=0)
    length = np.where(owner[1:] == owner[:-1], np.hypot(*side.T), -1.0)
    order = np.lexsort([length, owner[:-1]])
    last = order[np.flatnonzero(np.append(np.diff(owner[:-1][order]), 1))]
    along = side[last] / np.maximum(length[last], 1e-9)[:, None]
    slopes[chosen[owner[last]]] = np.column_stack([-along[:, 1], along[:, 0]])
    return slopes


def _trees(town: Town) -> tuple[Floats, Floats, Single]:
    """Return positions, radii of crowns in metres, and their brightness."""
    geometry = np.asarray(town.elements.geometry, dtype=object)
    single = np.array([tags.get("natural") == "tree" for tags in town.elements.tags], dtype=bool)
    points = geometry[single & (shapely.get_type_id(geometry) == 0)]
    generator = town.factors.recipe.generator("imagery crowns")
    radius = generator.uniform(1.8, 4.0, len(points))
    tone = np.exp(0.16 * generator.standard_normal(len(points)))
    return shapely.get_coordinates(points).reshape(-1, 2), radius, tone.astype(np.float32)
