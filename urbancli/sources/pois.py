"""Points of interest from a user's own file: CSV, GeoParquet, GeoJSON or any vector file.

A CSV needs a latitude and a longitude column in EPSG:4326 degrees, found by their usual names.
Tags come from a JSON column `raw_tags` or `tags` where there is one, else from every text column;
`name` and `category` are always kept.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.errors import UrbanError
from urbancli.sources._entities import Entities, EntitySource, count_and_list, repair
from urbancli.vector import is_text, read_vector
from urbancli.workspace import Geometries

IDENTIFIER = ("osm_id", "id")
TAGS = ("raw_tags", "tags")
ALWAYS_KEPT = ("name", "category")
"""Columns by their names in lower case, the first present one counts (`ALWAYS_KEPT`: both)."""

Columns = dict[str, npt.NDArray[np.object_]]
"""The columns of a file by name: text, numbers, None where there is no value."""


class Source(EntitySource):
    """The points of interest of one file; polygons stay polygons.

    An entity is `poi/<osm_id or id>`, or `poi/<row>` without one, rows counted from 1. An id that
    comes again gets `-row<row>` behind it, so that no row is lost and every id is unique.

    Facts: `counted` rows = `kept` + `outside` + `without_coordinates`; `duplicate_ids` and
    `broken_tags` (not a JSON object: the text columns were taken) list rows that were kept.
    """

    layer = "pois"
    licence = "user-supplied"
    attribution = ""

    def __init__(self, path: Path) -> None:
        """Remember the file; its name is the only attribution we know."""
        super().__init__(path)
        self.attribution = path.name

    def collect(self) -> tuple[Entities, dict[str, Any]]:
        """Return the rows of the file that have coordinates.

        Raises:
            UrbanError: the file cannot be read, is empty, or has no usable coordinates.
        """
        columns, geometry = _read(self.path)
        if not len(geometry):
            raise UrbanError(f"{self.path} has no rows: give a file of points of interest")
        located = _on_the_globe(geometry)
        ids, duplicates = _unique_ids(columns, len(geometry))
        if not located.any():
            raise UrbanError(
                f"no row of {self.path} has coordinates in range: it wants latitudes in [-90, 90] "
                "and longitudes in [-180, 180], in degrees"
            )
        tags, broken_tags = _tags(columns, ids)
        kept = np.flatnonzero(located)
        geometry = geometry[kept]
        names = [ids[i] for i in kept]
        repaired = [names[i] for i in np.flatnonzero(repair(geometry))]
        return Entities(names, [tags[i] for i in kept], [[]] * len(kept), geometry), {
            "counted": len(ids),
            "without_coordinates": count_and_list([ids[i] for i in np.flatnonzero(~located)]),
            "duplicate_ids": count_and_list(duplicates),
            "broken_tags": count_and_list(broken_tags),
            "repaired": count_and_list(repaired),
        }


def _read(path: Path) -> tuple[Columns, Geometries]:
    """Return the columns of a file but its geometry, and its geometries in EPSG:4326."""
    frame = read_vector(path)
    geometry = np.asarray(shapely.force_2d(frame.geometry.to_numpy()), dtype=object)
    others = frame.drop(columns=frame.geometry.name)
    columns = {name: others[name].to_numpy(dtype=object) for name in others.columns}
    return (_text_only(columns) if is_text(path) else columns), geometry


def _text_only(columns: Columns) -> Columns:
    """Return the columns of a text table that are no numbers throughout."""
    import pandas as pd

    texts = {}
    for name, values in columns.items():
        numbers = pd.to_numeric(pd.Series(values).dropna(), errors="coerce")
        if numbers.isna().any() or name.lower() in (*IDENTIFIER, *TAGS, *ALWAYS_KEPT):
            texts[name] = values
    return texts


def _find(columns: Columns, names: Sequence[str]) -> str | None:
    """Return the column whose name in lower case comes first among names."""
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)


def _on_the_globe(geometry: Geometries) -> npt.NDArray[np.bool_]:
    """Return which geometries are neither missing nor empty nor out of range."""
    west, south, east, north = shapely.bounds(geometry).reshape(-1, 4).T  # NaN where empty
    inside: npt.NDArray[np.bool_] = (west >= -180) & (east <= 180) & (south >= -90) & (north <= 90)
    return inside


def _text(value: Any) -> str | None:
    """Return a value as the text of a tag, or None where there is none."""
    if value is None or value == "" or (isinstance(value, float) and not np.isfinite(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)


def _unique_ids(columns: Columns, rows: int) -> tuple[list[str], list[str]]:
    """Return the entity ids, and which of them had to be made unique."""
    name = _find(columns, IDENTIFIER)
    given = [_text(value) for value in columns[name]] if name else [None] * rows
    seen: set[str] = set()
    ids, duplicates = [], []
    for row, value in enumerate(given, start=1):
        entity_id = f"poi/{value or row}"
        if entity_id in seen:
            while entity_id in seen:
                entity_id += f"-row{row}"
            duplicates.append(entity_id)
        seen.add(entity_id)
        ids.append(entity_id)
    return ids, duplicates


def _tags(columns: Columns, ids: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the tags of every row, and the ids of those whose JSON column is no JSON object."""
    source = _find(columns, TAGS)
    named = {name: column for name in ALWAYS_KEPT if (column := _find(columns, (name,)))}
    special = {source, _find(columns, IDENTIFIER), *named.values()}
    others = {name: name for name in columns if name not in special}
    tags, broken = [], []
    for row, entity_id in enumerate(ids):
        own = _parsed(columns[source][row]) if source else None
        if own is None:
            if source and _text(columns[source][row]) is not None:
                broken.append(entity_id)
            own = {
                name: value for name in others
                if isinstance(value := columns[name][row], str) and value
            }  # fmt: skip
        for name, column in named.items():
            value = _text(columns[column][row])
            if value is not None:
                own.setdefault(name, value)
        tags.append(own)
    return tags, broken


def _parsed(value: Any) -> dict[str, str] | None:
    """Return tags from JSON text, or from the map or struct of a Parquet file; None if neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, list):
        try:
            value = dict(value)
        except (TypeError, ValueError):
            return None
    if not isinstance(value, dict):
        return None
    texts = ((str(key), _text(item)) for key, item in value.items())
    return {key: text for key, text in texts if text is not None}
