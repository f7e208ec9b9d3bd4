"""Which columns of a table are the embedding, which say where a row belongs.

The rule, of any table:

1. The embedding is the column `embedding`, a list of numbers; or the only list of numbers there is.
2. Without one, it is the numeric columns that share a name but for the number they end in, counted
   from 0 or 1 without a gap: e0, e1 …; emb_0 …; A00 … A63; 0, 1, 2 …; in order of their numbers.
   There must be one such family. Other numbers (a population, an area) are never taken for a part
   of an embedding: they are left out, and said.
3. A row belongs to the tile that `place_id` names; else to the geometry; else to the point of `lat`
   and `lon` (or latitude, longitude, lng, y, x), degrees; else to the H3 cell that it names; else
   to the unit of the same id. `:key=COLUMN` says that a column holds the units' ids.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.errors import UrbanError, UsageError
from urbancli.labels._units import looks_like_id
from urbancli.vector import LATITUDES, LONGITUDES

VECTOR, TILE = "embedding", "place_id"

LISTED = 12
"""So many columns are named in an error."""

_NUMBERED = re.compile(r"(.*?)(\d+)")
_NAMELESS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""What pandas calls the index that it wrote beside the columns."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read.

    Attributes:
        vector: the list column; nothing where the embedding is columns of numbers.
        numbers: those columns in their order; none where it is a list or there is none.
        geometry: of a GeoParquet; nothing without.
        lat: latitudes, degrees; nothing without.
        lon: longitudes.
        keys: columns that may hold ids, in order.
        left_out: columns of numbers that are no part of the embedding.
    """

    vector: str = ""
    numbers: tuple[str, ...] = ()
    geometry: str = ""
    lat: str = ""
    lon: str = ""
    keys: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def embedding(self) -> list[str]:
        """All columns of the embedding."""
        return [self.vector] if self.vector else list(self.numbers)

    @property
    def place(self) -> list[str]:
        """All columns that say where a row belongs, but for the geometry."""
        return list(dict.fromkeys([*filter(None, [self.lat, self.lon]), *self.keys]))


def choose_columns(
    path: Path,
    types: Mapping[str, Any],
    *,
    geometry: str = "",
    key: str | None = None,
    vectors: bool = True,
) -> Columns:
    """Return which columns of a table are read, and as what.

    Args:
        path: of the table, for errors.
        types: column → Arrow type, in the order of the file.
        geometry: name of the geometry column.
        key: the column that the user says holds the units' ids.
        vectors: whether the table must hold embeddings; the companion of an array does not.

    Raises:
        UsageError: there is no column `key`.
        UrbanError: there is no embedding in it, or more than one.
    """
    if key is not None and key not in types:
        raise UsageError(f"{path} has no column '{key}': it has {_listed(list(types))}")
    lowered = {name.lower(): name for name in reversed(list(types))}
    lat = next((lowered[name] for name in LATITUDES if name in lowered), "")
    lon = next((lowered[name] for name in LONGITUDES if name in lowered), "")
    used = {geometry, *((lat, lon) if lat and lon else ())}
    rest = {
        name: kind
        for name, kind in types.items()
        if name not in used and name != key and not _NAMELESS.fullmatch(name)
    }
    vector, numbers = _embedding(path, rest) if vectors else ("", ())
    plain = [name for name, kind in rest.items() if name not in {vector, *numbers}]
    texts = [name for name in plain if _is_text(rest[name])]
    ids = [n for n in plain if looks_like_id(n) and (n in texts or pa.types.is_integer(rest[n]))]
    keys = (key,) if key is not None else tuple(dict.fromkeys([*ids, *texts]))
    left_out = [name for name in plain if _is_number(rest[name]) and name not in keys]
    return Columns(
        vector, numbers, geometry, *((lat, lon) if lat and lon else ("", "")), keys,
        tuple(left_out),
    )  # fmt: skip


def _embedding(path: Path, types: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the list column of the embedding, or its columns of numbers."""
    lists = [name for name, kind in types.items() if _is_list(kind)]
    if VECTOR in types and VECTOR not in lists:
        raise UrbanError(
            f"'{VECTOR}' of {path} holds {types[VECTOR]}, not lists of numbers: write lists "
            "(Parquet), or one column per number (e0, e1, …)"
        )
    if VECTOR in lists:
        return VECTOR, ()
    if len(lists) > 1:
        raise UrbanError(
            f"{path} has {len(lists)} columns of lists ({_listed(lists)}): call the one that is "
            f"meant `{VECTOR}`"
        )
    if lists:
        return lists[0], ()
    return "", _numbered(path, types)


def _numbered(path: Path, types: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of numbers that are named alike and counted from 0 or 1."""
    families: dict[str, dict[int, str]] = {}
    for name in types:
        if match := _NUMBERED.fullmatch(name):
            family = families.setdefault(match[1], {})
            if int(match[2]) in family:
                raise UrbanError(
                    f"{path} has both '{family[int(match[2])]}' and '{name}': number the columns "
                    "of the embedding once"
                )
            family[int(match[2])] = name
    begun = [family for family in families.values() if min(family) <= 1]
    counted = [one for one in begun if any(_is_number(types[name]) for name in one.values())]
    whole = [family for family in counted if max(family) - min(family) < len(family)]
    if len(whole) > 1:
        firsts = [family[min(family)] for family in whole]
        raise UrbanError(
            f"{path} has {len(whole)} numbered sets of columns (from {_listed(firsts)}): leave "
            "only the embedding's in it"
        )
    if not whole:
        raise _no_embedding(path, types, counted or begun)
    columns = tuple(whole[0][number] for number in sorted(whole[0]))
    for name in columns:
        if not _is_number(types[name]):
            raise _no_number(path, name, types[name])
    return columns


def _no_number(path: Path, name: str, kind: Any) -> UrbanError:
    return UrbanError(
        f"column '{name}' of {path} holds {kind}, not numbers: write plain numbers, with decimal "
        "points"
    )


def _no_embedding(
    path: Path, types: Mapping[str, Any], near: Sequence[Mapping[int, str]]
) -> UrbanError:
    """Return the error for a table without an embedding, given the sets of columns nearest to it.

    They have gaps, or no numbers in them.
    """
    if near:
        family = max(near, key=len)
        first, last = min(family), max(family)
        gap = next((number for number in range(first, last) if number not in family), None)
        if gap is None:
            return _no_number(path, family[first], types[family[first]])
        return UrbanError(
            f"the columns {family[first]} … {family[last]} of {path} lack number {gap}: an "
            "embedding is numbered without gaps"
        )
    numeric = [n for n, kind in types.items() if _is_number(kind) and not looks_like_id(n)]
    what = f"its numbers are {_listed(numeric)}" if numeric else "it has no columns of numbers"
    return UrbanError(
        f"{path} holds no embeddings that can be told ({what}): name a column of lists "
        f"`{VECTOR}`, or number the columns e0, e1, …"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):  # what pandas calls a category
        return _is_text(kind.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(one(kind) for one in texts)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(one(kind) for one in lists) and _is_number(kind.value_type)
