"""Elements of an OSM file as columns: osmium writes them as lines of text, and Arrow parses those.

OPL is osmium's own format of one line an element (https://osmcode.org/opl-file-format/). Elements
cross from C++ to Python by the ten thousand, not one by one. For characters beyond U+FFFFF, all for
private use, osmium 4.3 writes another code point.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from urbancli.layers import ENTITY_SCHEMA, MEMBER_TYPE

FORMAT = "opl,add_metadata=false,locations_on_ways=true"
"""What osmium is asked for: ids, tags, places, members, and the places of a way's nodes."""

PART_BYTES = 16 << 20
"""Of text that is parsed at a time."""

KINDS = {"n": "node", "w": "way", "r": "relation"}

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_ESCAPED = re.compile("%([0-9a-f]+)%")


@dataclass
class Nodes:
    """Nodes of a file.

    Attributes:
        ids: (N,).
        tags: (N,) maps, keys in alphabetical order.
        lonlat: (N, 2) degrees, EPSG:4326; NaN without a place on the globe.
    """

    ids: Integers
    tags: pa.MapArray
    lonlat: Floats


@dataclass
class Ways:
    """Ways of a file.

    Attributes:
        ids: (N,).
        tags: (N,) maps, keys in alphabetical order.
        count: (N,) how many nodes each has.
        refs: (M,) ids of the nodes of all ways.
        lonlat: (M, 2) their places; NaN where a node is missing.
    """

    ids: Integers
    tags: pa.MapArray
    count: Integers
    refs: Integers
    lonlat: Floats


@dataclass
class Relations:
    """Relations of a file.

    Attributes:
        ids: (N,).
        tags: (N,) maps, keys in alphabetical order.
        members: (N,) lists of type, ref and role.
    """

    ids: Integers
    tags: pa.MapArray
    members: pa.ListArray


def read_opl(path: Path) -> tuple[Nodes, Ways, Relations]:
    """Return the elements of a file in `FORMAT`, in the order they stand in it."""
    parts: list[tuple[Nodes, Ways, Relations]] = []
    with path.open("rb") as file:
        while lines := file.readlines(PART_BYTES) or (not parts and [b""]):
            of: dict[bytes, list[bytes]] = {kind: [] for kind in (b"n", b"w", b"r", b"")}
            for line in lines:
                of[line[:1]].append(line)
            parts.append((_nodes(of[b"n"]), _ways(of[b"w"]), _relations(of[b"r"])))
    nodes, ways, relations = (
        {name: _join([vars(part)[name] for part in kind]) for name in vars(kind[0])}
        for kind in zip(*parts, strict=True)
    )
    return Nodes(**nodes), Ways(**ways), Relations(**relations)


def _join(columns: Sequence[Any]) -> Any:
    arrow = isinstance(columns[0], pa.Array)
    return pa.concat_arrays(columns) if arrow else np.concatenate(columns)


def _nodes(lines: Sequence[bytes]) -> Nodes:
    """Parse lines like `n1 Tshop=bakery x7.4 y43.7`; `x y` is no place."""
    fields = [line.split() for line in lines]
    places = b"\n".join(x + b" " + y for _, _, x, y in fields).translate(None, b"xy")
    table = _table(places, {"lon": pa.float64(), "lat": pa.float64()})
    return Nodes(_ids(fields), parse_tags([each[1] for each in fields]), _lonlat(table))


def _ways(lines: Sequence[bytes]) -> Ways:
    """Parse lines like `w1 Thighway=path Nn1x7.4y43.7,n2xy`; `n2xy` is missing."""
    fields = [line.split() for line in lines]
    lists = [nodes for _, _, nodes in fields if len(nodes) > 1]
    each_node = b",".join(lists).translate(bytes.maketrans(b",xy", b"\n  "), b"Nn")
    table = _table(each_node, {"ref": pa.int64(), "lon": pa.float64(), "lat": pa.float64()})
    return Ways(
        _ids(fields),
        parse_tags([each[1] for each in fields]),
        _counts([each[2] for each in fields]),
        table["ref"].to_numpy(),
        _lonlat(table),
    )


def _relations(lines: Sequence[bytes]) -> Relations:
    """Parse lines like `r1 Ttype=route Mw1@forward,n2@`."""
    fields = [line.split() for line in lines]
    lists = pa.array([members[1:] for _, _, members in fields if len(members) > 1], pa.string())
    flat = pc.split_pattern(lists, ",").flatten()
    kinds = pc.index_in(pc.utf8_slice_codeunits(flat, 0, 1), pa.array([*KINDS], pa.string()))
    refs, roles = _pairs(pc.utf8_slice_codeunits(flat, 1), "@")
    values = pa.StructArray.from_arrays(
        [pa.array([*KINDS.values()]).take(kinds), refs.cast(pa.int64()), unescape(roles)],
        fields=list(MEMBER_TYPE),
    )
    offsets = np.cumsum([0, *_counts([each[2] for each in fields])])
    members = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    members = members.cast(ENTITY_SCHEMA.field("members").type)
    return Relations(_ids(fields), parse_tags([each[1] for each in fields]), members)


# --- fields --------------------------------------------------------------------------------------


def parse_tags(fields: Sequence[bytes]) -> pa.MapArray:
    """Return maps from fields like `Tname=Caf%e9%,shop=bakery`, keys in alphabetical order.

    Of several values of one key the last counts.
    """
    lists = pc.split_pattern(pc.utf8_slice_codeunits(pa.array(fields, pa.string()), 1), ",")
    flat = lists.flatten()
    rows = np.repeat(np.arange(len(fields)), lists.value_lengths().to_numpy())
    some = pc.not_equal(flat, "")  # a list without any holds one empty text
    rows = rows[some.to_numpy(zero_copy_only=False)]
    keys, values = _pairs(flat.filter(some), "=")
    encoded = unescape(keys).dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(names)] = np.arange(len(names))
    ranks = rank[encoded.indices.to_numpy()]
    order = np.lexsort((ranks, rows))
    last = np.append(np.diff(rows[order] * len(names) + ranks[order]) != 0, True)[: len(order)]
    order = order[last]
    offsets = np.searchsorted(rows[order], np.arange(len(fields) + 1))
    return pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32()),
        encoded.dictionary.take(encoded.indices.take(pa.array(order))),
        unescape(values).take(pa.array(order)),
    )


def unescape(texts: pa.StringArray) -> pa.StringArray:
    """Return texts with characters in place of their code points: `a%20%b` → `a b`."""
    escaped = pc.match_substring(texts, "%")
    if not pc.any(escaped).as_py():
        return texts
    encoded = texts.filter(escaped).dictionary_encode()
    plain = [
        _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
        for text in encoded.dictionary.to_pylist()
    ]
    return pc.replace_with_mask(texts, escaped, pa.array(plain, pa.string()).take(encoded.indices))


def _ids(fields: Sequence[Sequence[bytes]]) -> Integers:
    texts = pa.array([each[0][1:] for each in fields], pa.string())
    return np.asarray(texts.cast(pa.int64()).to_numpy())


def _counts(lists: Sequence[bytes]) -> Integers:
    """Return how many entries (N,) lists hold that begin with a letter and have commas between."""
    return np.array(
        [each.count(b",") + 1 if len(each) > 1 else 0 for each in lists], dtype=np.int64
    )


def _pairs(texts: pa.StringArray, between: str) -> tuple[pa.StringArray, pa.StringArray]:
    """Return what stands before and behind the one sign in each text."""
    halves = pc.split_pattern(texts, between).flatten()
    first, second = (pa.array(np.arange(begin, len(halves), 2)) for begin in (0, 1))
    return halves.take(first), halves.take(second)


def _table(text: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    """Return the columns of lines of numbers with blanks between; nothing is null."""
    from pyarrow import csv

    schema = pa.schema(types)
    if not text:
        return schema.empty_table()
    return csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(column_names=schema.names),
        csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
        csv.ConvertOptions(column_types=schema, null_values=[""]),
    )


def _lonlat(table: pa.Table) -> Floats:
    """Return (N, 2) of the columns lon and lat, NaN where they are null or beyond the globe."""
    lonlat = np.column_stack([table["lon"].to_numpy(), table["lat"].to_numpy()])
    lonlat[~(np.abs(lonlat) <= (180, 90)).all(axis=1)] = np.nan
    return lonlat
