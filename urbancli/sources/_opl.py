"""Elements of an OSM file as columns: osmium writes them as lines of text, and Arrow parses those.

OPL is osmium's own format of one line an element (https://osmcode.org/opl-file-format/). Elements
cross from C++ to Python by the ten thousand, not one by one. For characters beyond U+FFFFF, all for
private use, osmium 4.3 writes another code point.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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

PART_BYTES = 8 << 20
"""Of text that is parsed at a time: what is made of it takes ten times as much."""

LINE_BYTES = 4 << 20
"""More than the longest line: Arrow parses as much on each thread."""

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


def elements(path: Path, kind: str) -> Iterator[Any]:
    """Yield the elements of one kind of a file in `FORMAT`, some at a time, in their order.

    Args:
        path: the file.
        kind: `n` for `Nodes`, `w` for `Ways`, `r` for `Relations`.
    """
    for text in _texts(path):
        if text.startswith(kind.encode()) or f"\n{kind}".encode() in text:
            yield _PARSE[kind](_of_kind(text, kind))


def joined(parts: Iterable[Any], kind: str) -> Any:
    """Return the elements of all parts as one, none of them where there is no part."""
    found = [vars(part) for part in (_PARSE[kind](b""), *parts)]
    return _TYPES[kind](**{name: _join([part[name] for part in found]) for name in found[0]})


def missing_nodes(path: Path) -> Integers:
    """Return the ids of nodes whose places ways in a file in `FORMAT` lack, each once."""
    lacking = [np.zeros(0, dtype=np.int64)]
    for text in _texts(path):
        if b"xy," in text or b"xy\n" in text:  # else nothing lacks, and nothing is parsed
            ways = _ways(_of_kind(text, "w"))
            lacking.append(each_once(ways.refs[np.isnan(ways.lonlat[:, 0])]))
    return each_once(np.concatenate(lacking))


def each_once(ids: Integers) -> Integers:
    """Return ids (N,) in order without repeats: `np.unique` is slow where ids are far apart."""
    ids = np.sort(ids)
    return np.asarray(ids[np.append(True, np.diff(ids) != 0)[: len(ids)]])


def _texts(path: Path) -> Iterator[bytes]:
    """Yield a file's text, whole lines at a time."""
    with path.open("rb") as file:
        while text := file.read(PART_BYTES) + file.readline():
            yield text


def _of_kind(text: bytes, kind: str) -> bytes:
    """Return the lines that begin with a letter."""
    letters = np.frombuffer(text, np.uint8)
    starts = np.append(0, np.flatnonzero(letters == ord("\n")) + 1)
    kinds = letters[starts[:-1]]
    bounds = [0, *(np.flatnonzero(np.diff(kinds)) + 1), len(kinds)]
    runs = [
        text[starts[first] : starts[end]]
        for first, end in itertools.pairwise(bounds)
        if kinds[first] == ord(kind)
    ]
    return runs[0] if len(runs) == 1 else b"".join(runs)


def _join(columns: Sequence[Any]) -> Any:
    arrow = isinstance(columns[0], pa.Array)
    return pa.concat_arrays(columns) if arrow else np.concatenate(columns)


def _nodes(lines: bytes) -> Nodes:
    """Parse lines like `n1 Tshop=bakery x7.4 y43.7`; `x y` is no place."""
    ids, tags, *places = _fields(lines, 4)
    lon, lat = (pc.if_else(pc.equal(each, ""), "nan", each).cast(pa.float64()) for each in places)
    return Nodes(_ids(ids), parse_tags(tags), _lonlat(lon, lat))


def _ways(lines: bytes) -> Ways:
    """Parse lines like `w1 Thighway=path Nn1x7.4y43.7,n2xy`; `n2xy` is missing."""
    ids, tags, nodes = _fields(lines, 3)
    whole = pa.ListArray.from_arrays(pa.array([0, len(nodes)], pa.int32()), nodes)
    each_node = pc.binary_join(whole, ",")[0].as_buffer().to_pybytes()
    types = {"ref": pa.int64(), "lon": pa.float64(), "lat": pa.float64()}
    table = _table(each_node.translate(bytes.maketrans(b",xy", b"\n  "), b"n"), types)
    some = pc.not_equal(nodes, "").cast(pa.int64())
    count = pc.add(pc.count_substring(nodes, ","), some).to_numpy()
    return Ways(
        _ids(ids), parse_tags(tags), count, table["ref"].to_numpy(),
        _lonlat(table["lon"], table["lat"]),
    )  # fmt: skip


def _relations(lines: bytes) -> Relations:
    """Parse lines like `r1 Ttype=route Mw1@forward,n2@`."""
    ids, tags, members = _fields(lines, 3)
    flat, rows = _entries(members)
    kinds = pc.index_in(pc.utf8_slice_codeunits(flat, 0, 1), pa.array([*KINDS], pa.string()))
    refs, roles = _pairs(pc.utf8_slice_codeunits(flat, 1), "@")
    values = pa.StructArray.from_arrays(
        [pa.array([*KINDS.values()]).take(kinds), refs.cast(pa.int64()), unescape(roles)],
        fields=list(MEMBER_TYPE),
    )
    offsets = np.searchsorted(rows, np.arange(len(ids) + 1))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    return Relations(_ids(ids), parse_tags(tags), lists.cast(ENTITY_SCHEMA.field("members").type))


_PARSE: dict[str, Callable[[bytes], Any]] = {"n": _nodes, "w": _ways, "r": _relations}

_TYPES: dict[str, type[Any]] = {"n": Nodes, "w": Ways, "r": Relations}


# --- fields --------------------------------------------------------------------------------------


def parse_tags(fields: pa.StringArray) -> pa.MapArray:
    """Return maps from texts like `name=Caf%e9%,shop=bakery`, keys in alphabetical order.

    Of several values of one key the last counts.
    """
    flat, rows = _entries(fields)
    keys, values = _pairs(flat, "=")
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


def _fields(lines: bytes, count: int) -> list[pa.StringArray]:
    """Return the fields of lines, which blanks separate, each without its first letter."""
    table = _table(lines, {str(number): pa.string() for number in range(count)})
    return [pc.utf8_slice_codeunits(each.combine_chunks(), 1) for each in table.columns]


def _entries(lists: pa.StringArray) -> tuple[pa.StringArray, Integers]:
    """Return the entries of lists (N,) with commas between, and the number of each one's list."""
    split = pc.split_pattern(lists, ",")
    flat = split.flatten()
    rows = np.repeat(np.arange(len(lists)), split.value_lengths().to_numpy())
    some = pc.not_equal(flat, "")  # a list without any holds one empty text
    return flat.filter(some), rows[some.to_numpy(zero_copy_only=False)]


def _pairs(texts: pa.StringArray, between: str) -> tuple[pa.StringArray, pa.StringArray]:
    """Return what stands before and behind the one sign in each text."""
    halves = pc.split_pattern(texts, between).flatten()
    first, second = (pa.array(np.arange(begin, len(halves), 2)) for begin in (0, 1))
    return halves.take(first), halves.take(second)


def _ids(texts: pa.StringArray) -> Integers:
    return np.asarray(texts.cast(pa.int64()).to_numpy())


def _table(text: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    """Return the columns of lines with blanks between them; of numbers nothing is null."""
    from pyarrow import csv

    schema = pa.schema(types)
    if not text or text.isspace():
        return schema.empty_table()
    return csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(column_names=schema.names, block_size=LINE_BYTES),
        csv.ParseOptions(delimiter=" ", quote_char=False),
        csv.ConvertOptions(column_types=schema, null_values=[""]),
    )


def _lonlat(lon: Any, lat: Any) -> Floats:
    """Return (N, 2) of degrees, NaN where they are null or beyond the globe."""
    lonlat = np.column_stack(
        [lon.to_numpy(zero_copy_only=False), lat.to_numpy(zero_copy_only=False)]
    )
    lonlat[~(np.abs(lonlat) <= (180, 90)).all(axis=1)] = np.nan
    return lonlat
