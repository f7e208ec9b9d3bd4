"""Overture's places: businesses, schools, landmarks … of many open datasets, as the layer `pois`.

Overture has its own two thousand categories. `overture_categories.csv` brings them to the tags that
OpenStreetMap has for the same thing, so that points of interest of both sources are counted under
the same names: of a place the most specific of its categories that the table knows counts, from
its own over the taxonomy's parents to the basic category.
"""

import csv
import functools
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from urbancli.layers import poi_category
from urbancli.sources._entities import Entities, count_and_list
from urbancli.sources._overture import OvertureSource
from urbancli.sources._overture_files import TEXTS, Kind, datasets
from urbancli.workspace import geometries, read_table

CLOSED = ("permanently_closed", "closed_permanently")

UNSURE = 0.5
"""Confidence (0 to 1, that a place exists) below which a place is counted as unsure."""

PLACE = Kind(
    "places",
    "place",
    (
        ("name", "names.primary", pa.string()),
        ("category", "categories.primary", pa.string()),
        ("taxonomy", "taxonomy.primary", pa.string()),
        ("hierarchy", "taxonomy.hierarchy", TEXTS),
        ("basic_category", "basic_category", pa.string()),
        ("confidence", "confidence", pa.float64()),
        ("operating_status", "operating_status", pa.string()),
        ("brand", "brand.names.primary", pa.string()),
        ("brand:wikidata", "brand.wikidata", pa.string()),
        ("websites", "websites", TEXTS),
        ("datasets", "sources.dataset", TEXTS),
    ),
)


class Source(OvertureSource):
    """The places of a release as points of interest, `poi/<Overture's id>`.

    Tags are OSM's, with `name`, `brand`, `brand:wikidata` and `website`. A category that the table
    does not know is kept as `category=<Overture's>` and counted under `unmapped`. Left out, and
    counted: what is closed for good, and what OSM would not have as a point of interest (lakes,
    mountains, stations: the entities have them). Foursquare's part is under the Apache licence.
    """

    layer = "pois"
    licence = "CDLA-Permissive-2.0"
    attribution = "Overture Maps Foundation, overturemaps.org"
    kind = PLACE

    def collect(self) -> tuple[Entities, dict[str, Any]]:
        """Return the places that are open and points of interest."""
        table, about = read_table(self.path)
        given = datasets(table)
        if any("foursquare" in name.lower() for name in given):
            self.licence = f"{Source.licence} AND Apache-2.0"
        self.attribution = f"{Source.attribution} ({about['release']}: {', '.join(given)})"
        rows = table.drop_columns(["geometry", "bbox"]).to_pylist()
        unmapped: Counter[str] = Counter()
        kept, tags = [], []
        closed, others = 0, 0
        for index, row in enumerate(rows):
            if row["operating_status"] in CLOSED:
                closed += 1
                continue
            names = category_names(row)
            kind = osm_tags(names)
            if kind is None and names:
                unmapped[names[0]] += 1
                kind = {"category": names[0]}
            if kind and poi_category(kind) is None:
                others += 1
                continue
            kept.append(index)
            tags.append({**(kind or {}), **_described(row)})
        ids = [f"poi/{rows[index]['id']}" for index in kept]
        shapes = geometries(table)[kept]
        unsure = pc.sum(pc.less(table.column("confidence"), UNSURE)).as_py() or 0
        return Entities(ids, tags, [[]] * len(ids), shapes), {
            "release": about["release"],
            "datasets": given,
            "counted": len(rows),
            "closed": closed,
            "no_point_of_interest": others,
            "unsure": unsure,
            "without_category": sum(poi_category(each) is None for each in tags),
            "unmapped": {
                **count_and_list([name for name, _ in unmapped.most_common()]),
                "places": unmapped.total(),
            },
        }


def category_names(row: dict[str, Any]) -> list[str]:
    """Return a place's categories, the most specific first: its own, parents, the basic one."""
    own = [row["category"], row["taxonomy"], *reversed(row["hierarchy"] or [])]
    return list(dict.fromkeys(name for name in [*own, row["basic_category"]] if name))


def osm_tags(categories: Sequence[str]) -> dict[str, str] | None:
    """Return OSM's tags of the first category that the table knows, or None."""
    table = category_table()
    return next((dict(table[name]) for name in categories if name in table), None)


@functools.cache
def category_table() -> dict[str, dict[str, str]]:
    """Return the tags that OSM has for each of Overture's categories, the kind first."""
    with (files("urbancli") / "sources/overture_categories.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        row["overture"]: dict(tag.split("=", 1) for tag in row["osm"].split(";")) for row in rows
    }


def _described(row: dict[str, Any]) -> dict[str, str]:
    texts = {name: row[name] for name in ("name", "brand", "brand:wikidata")}
    texts["website"] = next(iter(row["websites"] or []), None)
    return {name: text for name, text in texts.items() if text}
