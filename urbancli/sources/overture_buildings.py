"""Overture's buildings: footprints of OSM, Microsoft, Google and others, as the layer `buildings`.

Overture's columns become the tags that OSM has for the same (its schema is made from them), so
that an encoder sees the same keys whichever source brought a building.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from urbancli.sources._entities import Entities, count_and_list, repair
from urbancli.sources._overture import OvertureSource
from urbancli.sources._overture_files import TEXTS, Kind, datasets
from urbancli.workspace import geometries, read_table

BUILDING = Kind(
    "buildings",
    "building",
    (
        ("name", "names.primary", pa.string()),
        ("class", "class", pa.string()),
        ("subtype", "subtype", pa.string()),
        ("height", "height", pa.float64()),
        ("min_height", "min_height", pa.float64()),
        ("num_floors", "num_floors", pa.int64()),
        ("num_floors_underground", "num_floors_underground", pa.int64()),
        ("min_floor", "min_floor", pa.int64()),
        ("is_underground", "is_underground", pa.bool_()),
        ("facade_material", "facade_material", pa.string()),
        ("roof_material", "roof_material", pa.string()),
        ("roof_shape", "roof_shape", pa.string()),
        ("roof_orientation", "roof_orientation", pa.string()),
        ("roof_height", "roof_height", pa.float64()),
        ("datasets", "sources.dataset", TEXTS),
    ),
)

TAGS = {
    "name": "name",
    "height": "height",
    "min_height": "min_height",
    "num_floors": "building:levels",
    "num_floors_underground": "building:levels:underground",
    "min_floor": "building:min_level",
    "facade_material": "building:material",
    "roof_material": "roof:material",
    "roof_shape": "roof:shape",
    "roof_orientation": "roof:orientation",
    "roof_height": "roof:height",
}
"""Overture's columns and OSM's keys for them."""

CLASSES = {"agricultural": "farm_auxiliary", "library": "public", "post_office": "public"}
"""Classes that OSM's key `building` calls otherwise; the others are its own values."""

SUBTYPES = {
    "agricultural": "farm_auxiliary",
    "civic": "civic",
    "commercial": "commercial",
    "education": "school",
    "entertainment": "civic",
    "industrial": "industrial",
    "medical": "hospital",
    "military": "military",
    "outbuilding": "outbuilding",
    "religious": "religious",
    "residential": "residential",
    "service": "service",
    "transportation": "transportation",
}
"""What OSM's key `building` says of a building of a subtype without a class."""


class Source(OvertureSource):
    """The buildings of a release, `building/<Overture's id>`: no id of OSM, although most are its.

    `building` is the class, else the subtype, else `yes`. Parts of buildings are another type of
    Overture's, and not read.
    """

    layer = "buildings"
    licence = "ODbL-1.0"
    attribution = "© OpenStreetMap contributors, Overture Maps Foundation, overturemaps.org"
    kind = BUILDING

    def collect(self) -> tuple[Entities, dict[str, Any]]:
        """Return every building, invalid outlines repaired."""
        table, about = read_table(self.path)
        given = datasets(table)
        self.attribution = f"{Source.attribution} ({about['release']}: {', '.join(given)})"
        rows = table.drop_columns(["geometry", "bbox"]).to_pylist()
        ids = [f"building/{row['id']}" for row in rows]
        shapes = geometries(table)
        repaired = [ids[i] for i in np.flatnonzero(repair(shapes))]
        return Entities(ids, [building_tags(row) for row in rows], [[]] * len(ids), shapes), {
            "release": about["release"],
            "datasets": given,
            "counted": len(rows),
            "with_height": pc.sum(pc.is_valid(table.column("height"))).as_py() or 0,
            "with_levels": pc.sum(pc.is_valid(table.column("num_floors"))).as_py() or 0,
            "repaired": count_and_list(repaired),
        }


def building_tags(row: dict[str, Any]) -> dict[str, str]:
    """Return OSM's tags of a building of Overture."""
    named, broad = row["class"], row["subtype"]
    kind = CLASSES.get(named, named) if named else SUBTYPES.get(broad, "yes")
    tags = {"building": kind}
    if row["is_underground"]:
        tags["location"] = "underground"
    for column, key in TAGS.items():
        value = row[column]
        if value is not None:
            tags[key] = f"{value:g}" if isinstance(value, float) else str(value)
    return tags
