"""Which closed ways of OpenStreetMap are areas: the rule, as a table.

Source: OSM wiki, "Overpass turbo/Polygon Features", the rule that Overpass turbo and OSMnx follow.
A closed way is an area when any of its keys says so, unless it is tagged `area=no`.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

AREA_KEYS = frozenset(
    {
        "amenity", "area", "area:highway", "boundary", "building", "building:part", "craft",
        "golf", "historic", "indoor", "landuse", "leisure", "military", "office", "place",
        "public_transport", "ruins", "shop", "tourism",
    }
)  # fmt: skip
"""Keys that make a closed way an area whatever their value."""

AREA_VALUES = {
    "barrier": frozenset({"city_wall", "ditch", "hedge", "retaining_wall", "spikes"}),
    "highway": frozenset({"elevator", "escape", "rest_area", "services"}),
    "power": frozenset({"generator", "plant", "substation", "transformer"}),
    "railway": frozenset({"platform", "roundhouse", "station", "turntable"}),
    "waterway": frozenset({"boatyard", "dam", "dock", "riverbank"}),
}
"""Keys that make a closed way an area with one of these values only."""

LINE_VALUES = {
    "aeroway": frozenset({"taxiway"}),
    "man_made": frozenset({"cutline", "embankment", "pipeline"}),
    "natural": frozenset({"arete", "cliff", "coastline", "ridge", "tree_row"}),
}
"""Keys that make a closed way an area with any value but these."""


def is_area(tags: Mapping[str, str]) -> bool:
    """Return whether a closed way with these tags is an area and not a ring-shaped line."""
    if tags.get("area") == "no":
        return False
    return any(
        key in AREA_KEYS
        or (key in AREA_VALUES and value in AREA_VALUES[key])
        or (key in LINE_VALUES and value not in LINE_VALUES[key])
        for key, value in tags.items()
    )


def make_areas(
    keys: pa.StringArray, values: pa.StringArray
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which tags (N,) make a closed way an area, and which (N,) forbid it to be one."""

    def among(texts: pa.StringArray, listed: frozenset[str]) -> pa.BooleanArray:
        return pc.is_in(texts, pa.array(sorted(listed), pa.string()))

    makes = among(keys, AREA_KEYS)
    for key, listed in AREA_VALUES.items():
        makes = pc.or_(makes, pc.and_(pc.equal(keys, key), among(values, listed)))
    for key, listed in LINE_VALUES.items():
        makes = pc.or_(makes, pc.and_not(pc.equal(keys, key), among(values, listed)))
    denies = pc.and_(pc.equal(keys, "area"), pc.equal(values, "no"))
    return makes.to_numpy(zero_copy_only=False), denies.to_numpy(zero_copy_only=False)
