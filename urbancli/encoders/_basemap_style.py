"""The key of the map: classes from the lowest to the topmost, their colours, what belongs to them.

Our own fixed palette, in the manner of common street maps. An entity is drawn once: in the topmost
class that any of its tags belongs to; buildings are given walls besides, where pixels are fine
enough, or blocks of houses would be one. What has no class (boundaries, places, coasts as areas,
routes, power lines, points of interest) is not drawn, nor is what lies in a tunnel or underground.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from urbancli.grid import Integers

VERSION = 1
"""Raised whenever the same entities would be drawn otherwise."""

ANY = "*"
"""Stands for every value but `no`."""

Tags = Mapping[str, tuple[str, ...]]
"""Key → values that belong to a class."""


@dataclass(frozen=True)
class MapClass:
    """A class of the map.

    Attributes:
        name: of its channel.
        colour: red, green, blue.
        areas: tags of polygons.
        lines: tags of lines.
        points: tags of points.
        width_m: of lines, and of the discs that points are; of roads about a carriageway's.
        pixel_limit_m: drawn only on pixels of up to this size, metres.
    """

    name: str
    colour: tuple[int, int, int]
    areas: Tags = field(default_factory=dict)
    lines: Tags = field(default_factory=dict)
    points: Tags = field(default_factory=dict)
    width_m: float = 0.0
    pixel_limit_m: float = math.inf


def _road(name: str, colour: tuple[int, int, int], width_m: float, *values: str) -> MapClass:
    return MapClass(name, colour, lines={"highway": values}, width_m=width_m)


CLASSES = (
    MapClass("ground", (236, 233, 226)),
    MapClass("residential", (220, 216, 210), areas={"landuse": ("residential",)}),
    MapClass("commercial", (240, 208, 200), areas={"landuse": ("commercial", "retail")}),
    MapClass(
        "industrial",
        (222, 206, 226),
        areas={
            "landuse": (
                "industrial", "railway", "depot", "garages", "landfill", "quarry", "port",
                "construction", "brownfield", "military",
            ),
            "power": ("plant", "substation"),
            "man_made": ("wastewater_plant", "works"),
        },
    ),
    MapClass(
        "institution",
        (250, 240, 200),
        areas={
            "amenity": (
                "school", "university", "college", "kindergarten", "hospital", "clinic",
                "place_of_worship", "prison",
            ),
            "landuse": ("education", "institutional", "religious"),
        },
    ),
    MapClass(
        "farmland",
        (234, 228, 178),
        areas={
            "landuse": (
                "farmland", "farmyard", "orchard", "vineyard", "allotments", "plant_nursery",
                "greenhouse_horticulture",
            )
        },
    ),
    MapClass(
        "bare",
        (230, 214, 170),
        areas={"natural": ("sand", "beach", "bare_rock", "scree", "shingle", "dune")},
    ),
    MapClass(
        "park",
        (190, 228, 176),
        areas={
            "leisure": ("park", "garden", "playground", "dog_park", "golf_course", "common"),
            "landuse": ("cemetery", "recreation_ground", "village_green"),
            "amenity": ("grave_yard",),
        },
    ),
    MapClass(
        "grass",
        (208, 236, 160),
        areas={
            "landuse": ("grass", "meadow", "greenfield", "flowerbed"),
            "natural": ("grassland", "heath", "scrub", "fell"),
        },
    ),
    MapClass(
        "wood",
        (146, 196, 132),
        areas={"landuse": ("forest",), "natural": ("wood",)},
        lines={"natural": ("tree_row",), "barrier": ("hedge",)},
        points={"natural": ("tree",)},
        width_m=4.0,
    ),
    MapClass("wetland", (176, 214, 206), areas={"natural": ("wetland", "mud")}),
    MapClass(
        "sport",
        (120, 210, 176),
        areas={"leisure": ("pitch", "track", "stadium", "sports_centre")},
    ),
    MapClass(
        "stream",
        (150, 196, 226),
        lines={"waterway": ("stream", "ditch", "drain"), "natural": ("coastline",)},
        width_m=3.0,
    ),
    MapClass(
        "water",
        (130, 180, 220),
        areas={
            "natural": ("water",),
            "waterway": ("riverbank", "dock", "canal", "river"),
            "landuse": ("reservoir", "basin"),
            "leisure": ("swimming_pool", "marina"),
            "amenity": ("fountain",),
        },
        lines={"waterway": ("river", "canal")},
        width_m=12.0,
    ),
    MapClass("parking", (214, 214, 224), areas={"amenity": ("parking", "bus_station", "fuel")}),
    MapClass(
        "paved",
        (252, 250, 250),
        areas={
            "highway": (ANY,),
            "place": ("square",),
            "man_made": ("pier", "breakwater"),
            "railway": ("platform",),
            "public_transport": ("platform",),
            "aeroway": ("apron", "helipad"),
        },
        lines={"man_made": ("pier", "breakwater")},
        width_m=4.0,
    ),
    MapClass(
        "aeroway",
        (180, 176, 200),
        areas={"aeroway": ("runway", "taxiway")},
        lines={"aeroway": ("runway", "taxiway")},
        width_m=30.0,
    ),
    MapClass("building", (196, 164, 142), areas={"building": (ANY,)}),
    MapClass("wall", (150, 116, 96), width_m=0.5, pixel_limit_m=2.5),
    _road(
        "path", (206, 132, 110), 2.0,
        "footway", "path", "cycleway", "steps", "bridleway", "corridor", "pedestrian",
    ),
    _road("service", (250, 250, 250), 4.0, "service", "track", "busway"),
    _road("street", (255, 255, 255), 7.0, "residential", "unclassified", "living_street", "road"),
    _road(
        "link", (255, 226, 196), 7.0,
        "tertiary_link", "secondary_link", "primary_link", "trunk_link", "motorway_link",
    ),
    _road("tertiary", (255, 246, 150), 8.0, "tertiary"),
    _road("secondary", (252, 220, 110), 10.0, "secondary"),
    _road("primary", (248, 180, 90), 12.0, "primary"),
    _road("motorway", (232, 120, 100), 14.0, "motorway", "trunk"),
    MapClass(
        "railway",
        (96, 96, 104),
        lines={
            "railway": (
                "rail", "light_rail", "tram", "subway", "narrow_gauge", "monorail", "funicular",
            )
        },
        width_m=3.0,
    ),
)  # fmt: skip
"""From the lowest to the topmost."""

NAMES = tuple(each.name for each in CLASSES)

PALETTE = np.array([each.colour for each in CLASSES], dtype=np.uint8).T
"""(3, classes): red, green and blue of each class."""

WIDTHS_M = np.array([each.width_m for each in CLASSES])

PIXEL_LIMITS_M = np.array([each.pixel_limit_m for each in CLASSES])

HIDDEN: Tags = {
    "tunnel": (ANY,),
    "location": ("underground",),
    "parking": ("underground",),
    "indoor": (ANY,),
}
"""Tags of what is not to be seen from above."""

_KINDS = ("points", "lines", "areas")


def classify(table: pa.Table, dimension: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Return the class of each entity, −1 where it is not drawn, and which are bridges.

    Args:
        table: N rows with a column `tags`.
        dimension: (N,) 0 of points, 1 of lines, 2 of polygons.
    """
    tags = table.column("tags").combine_chunks()
    found = np.full((3, table.num_rows), -1)
    for number, kind in enumerate(_KINDS):
        rules: dict[str, dict[str, int]] = {}
        for index, each in enumerate(CLASSES):
            for key, values in getattr(each, kind).items():
                rules.setdefault(key, {}).update(dict.fromkeys(values, index))
        for key, rule in rules.items():
            np.maximum(found[number], _looked_up(tags, key, rule), out=found[number])
    chosen = np.take_along_axis(found, np.clip(dimension, 0, 2)[None], axis=0)[0]
    for key, values in HIDDEN.items():
        chosen[_looked_up(tags, key, dict.fromkeys(values, 1)) == 1] = -1
    return chosen, _looked_up(tags, "bridge", {ANY: 1}) == 1


def _looked_up(tags: pa.MapArray, key: str, rule: Mapping[str, int]) -> Integers:
    """Return what a rule (value → number) says of each row's value of a key; −1 for nothing."""
    values = pc.map_lookup(tags, pa.scalar(key), "first").dictionary_encode()
    other = rule.get(ANY, -1)
    numbers = [
        rule.get(text, -1 if text == "no" else other) for text in values.dictionary.to_pylist()
    ]
    codes = pc.fill_null(values.indices, len(numbers)).to_numpy(zero_copy_only=False)
    found: Integers = np.array([*numbers, -1], dtype=np.int64)[codes]
    return found


def coasts(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows are coastline: land is on the left of its direction, sea on the right."""
    tags = table.column("tags").combine_chunks()
    return np.equal(_looked_up(tags, "natural", {"coastline": 1}), 1)
