"""Everything that touches pyosmium: an OSM file in, its elements as text and assembled areas out.

Osmium reads the file and adds to ways the places of their nodes, in C++; the tagged nodes, all ways
and all relations are written in its text format. Rings of multipolygon and boundary relations are
put together by osmium's area assembler, which goes by the geometry of the members and not by their
roles.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from urbancli.errors import UrbanError
from urbancli.sources._opl import (
    FORMAT,
    Integers,
    Relations,
    each_once,
    elements,
    joined,
    missing_nodes,
)
from urbancli.sources._osm_shapes import is_equal

BUFFER_BYTES = 1 << 20
"""Of elements that osmium's writer works on at a time; it holds some twenty such."""


@dataclass
class Content:
    """The elements of a file, and what osmium assembled of them.

    Attributes:
        text: the tagged nodes, all ways and all relations, in osmium's text format.
        relations: all.
        areas: WKB of the area relations that are one, by id.
        member_nodes: places (lon, lat) of nodes that are members of relations, by id.
    """

    text: Path
    relations: Relations
    areas: dict[int, bytes]
    member_nodes: dict[int, tuple[float, float]] = field(default_factory=dict)


class _OutOfOrderError(Exception):
    """The file's elements are not in the order node, way, relation, each by id."""


def read_content(path: Path, folder: Path) -> Content:
    """Read a file, where need be through a sorted copy: for that it is held in memory."""
    import osmium

    with contextlib.suppress(_OutOfOrderError):
        return _read(path, folder)
    copy = folder / "sorted.osm"
    reader = osmium.MergeInputReader()
    reader.add_file(str(path))
    with _writer(osmium.io.File(str(copy))) as writer:
        reader.apply(writer)
    del reader
    return _read(copy, folder)


def _read(path: Path, folder: Path) -> Content:
    """Read a file into text in a folder.

    Raises:
        _OutOfOrderError: ways are not sorted, or come before their nodes.
        UrbanError: osmium cannot read it.
    """
    import osmium

    places = osmium.index.create_map("flex_mem")
    try:
        content = _stream(path, folder / "elements.opl", places)
        _locate_nodes(content, places)
    except (RuntimeError, ValueError) as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        if "out of order" in reason or "twice in input" in reason:
            raise _OutOfOrderError from err
        raise UrbanError(
            f"cannot read {path} as an OSM file ({reason}): give a whole .osm.pbf, .osm, .osm.gz "
            "or .osm.bz2"
        ) from err
    del places
    give_back()
    return content


def _stream(path: Path, text: Path, places: Any) -> Content:
    """Read a file into a text file, and the location of every node into osmium's index `places`."""
    import osmium

    factory = osmium.geom.WKBFactory()
    tagged = osmium.filter.EmptyTagFilter()
    tagged.enable_for(osmium.osm.NODE)
    # Elements go to the text file and no further, but for a few in a hundred: osmium hands over the
    # areas that it has put together whenever an element comes back, and piles them up until then.
    few = osmium.filter.KeyFilter("bridge", "landuse", "natural", "railway", "waterway")
    few.enable_for(osmium.osm.NODE | osmium.osm.WAY | osmium.osm.RELATION)
    areas: dict[int, bytes] = {}
    text.unlink(missing_ok=True)
    with _writer(osmium.io.File(str(text), FORMAT)) as writer:
        processor: Any = osmium.FileProcessor(str(path)).with_locations(places).with_areas()
        for area in processor.with_filter(tagged).with_filter(writer).with_filter(few):
            if area.is_area() and not area.from_way() and area.num_rings()[0]:
                areas[area.orig_id()] = bytes.fromhex(factory.create_multipolygon(area))
    return Content(text, joined(elements(text, "r"), "r"), areas)


def give_back() -> None:
    """Give memory that osmium's threads have freed back to the system, where that is glibc's way.

    It keeps such memory by thread: without this, what many threads took in turn adds up.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _writer(file: Any) -> Iterator[Any]:
    """Give osmium's writer of a file, and close it.

    Raises:
        OSError: the disk is full.
    """
    import osmium

    writer = osmium.SimpleWriter(file, bufsz=BUFFER_BYTES)
    try:
        yield writer
        writer.close()
    except BaseException as err:
        try:
            writer.close()
        except RuntimeError:
            # Its destructor would write once more, fail, and abort the process: it must not run.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(writer))
        if "Write failed" in str(err):
            raise OSError(str(err)) from err
        raise


def _locate_nodes(content: Content, places: Any) -> None:
    """Find the nodes that are members of relations, and prove missing nodes missing."""
    if any(_location(places, ref) is not None for ref in missing_nodes(content.text).tolist()):
        raise _OutOfOrderError  # it came after a way that needs it
    for ref in members_of_kind(content.relations, "node").tolist():
        location = _location(places, ref)
        if location is not None:
            content.member_nodes[ref] = location


def members_of_kind(relations: Relations, kind: str) -> Integers:
    """Return the ids of all members of a kind, in order, each once."""
    members = relations.members.flatten()
    refs = np.asarray(members.field("ref").to_numpy())
    return each_once(refs[is_equal(members.field("type"), kind)])


def _location(places: Any, ref: int) -> tuple[float, float] | None:
    """Return (lon, lat) of a node in osmium's index, which knows no negative ids."""
    try:
        location = places.get(ref) if ref > 0 else None
    except KeyError:
        return None
    return (location.lon, location.lat) if location is not None and location.valid() else None
