"""Everything that touches pyosmium: an OSM file in, entities with geometries out.

Osmium reads the file and adds to ways the places of their nodes, in C++; the tagged nodes, all ways
and all relations become columns by way of its text format. Rings of multipolygon and boundary
relations are put together by osmium's area assembler, which goes by the geometry of the members
and not by their roles.
"""

import contextlib
import ctypes
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from urbancli.errors import UrbanError
from urbancli.layers import ENTITY_SCHEMA
from urbancli.sources._entities import Column, Entities, count_and_list, repair
from urbancli.sources._opl import FORMAT, Integers, Nodes, Relations, Ways, read_opl
from urbancli.sources._osm_shapes import (
    Flags,
    Located,
    Members,
    is_equal,
    located,
    positions,
    rows_with,
    way_shapes,
)
from urbancli.workspace import Geometries

METADATA_KEYS = frozenset(
    {"attribution", "comment", "created_by", "fixme", "FIXME", "note", "odbl", "source_ref"}
)
"""Keys that speak of the mapping, not of the place; `source`, `source:*`, `note:*` and `odbl:*`
likewise. An element with no other key is no entity."""

AREA_RELATIONS = ("boundary", "multipolygon")
"""Values of `type` for which a relation is an area."""


@dataclass
class _Content:
    """The elements of a file, and what osmium assembled of them.

    Attributes:
        nodes: the tagged ones.
        ways: all.
        relations: all.
        areas: WKB in hexadecimal of the area relations that are one, by id.
        plain_nodes: places of untagged nodes that are members of relations, by id.
    """

    nodes: Nodes
    ways: Ways
    relations: Relations
    areas: dict[int, str]
    plain_nodes: dict[int, tuple[float, float]] = field(default_factory=dict)


class _OutOfOrderError(Exception):
    """The file's elements are not in the order node, way, relation, each by id."""


def is_entity(tags: Iterable[str]) -> bool:
    """Return whether any key says something of the place itself."""
    return any(
        key not in METADATA_KEYS and key.split(":")[0] not in {"source", "note", "odbl"}
        for key in tags
    )


def read_entities(path: Path) -> tuple[Entities, dict[str, Any]]:
    """Return the tagged elements of a PBF, XML, .osm.gz or .osm.bz2 file, nodes first, by id.

    Elements with negative ids (never uploaded) have no place in osmium's index of locations: such
    ways count as broken.

    Returns:
        The entities, and the facts: `counted` = entities + broken; `metadata_only`; `repaired`;
        `incomplete` relations, which lack members but keep a geometry; `broken` by kind.

    Raises:
        UrbanError: osmium cannot read the file, or it holds no tagged element.
    """
    try:
        with contextlib.suppress(_OutOfOrderError):
            return _Builder(_read(path)).build(path)
        return _Builder(_read_sorted(path)).build(path)
    except OSError as err:
        raise UrbanError(
            f"cannot write {path.name} as text to {tempfile.gettempdir()} ({err}): free space for "
            "six times its size, or set TMPDIR"
        ) from err


def _read_sorted(path: Path) -> _Content:
    """Read a file through a sorted copy: the whole of it is held in memory while sorting."""
    import osmium

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sorted.osm"
        reader = osmium.MergeInputReader()
        reader.add_file(str(path))
        with _writer(osmium.io.File(str(copy))) as writer:
            reader.apply(writer)
        return _read(copy)


def _read(path: Path) -> _Content:
    """Read a file.

    Raises:
        _OutOfOrderError: ways are not sorted, or come before their nodes.
        UrbanError: osmium cannot read it.
    """
    import osmium

    places = osmium.index.create_map("flex_mem")
    try:
        content = _stream(path, places)
        _locate_plain_nodes(content, places)
    except (RuntimeError, ValueError) as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        if "out of order" in reason or "twice in input" in reason:
            raise _OutOfOrderError from err
        raise UrbanError(
            f"cannot read {path} as an OSM file ({reason}): give a whole .osm.pbf, .osm, .osm.gz "
            "or .osm.bz2"
        ) from err
    return content


def _stream(path: Path, places: Any) -> _Content:
    """Read a file, and the location of every node into osmium's index `places`."""
    import osmium

    factory = osmium.geom.WKBFactory()
    tagged = osmium.filter.EmptyTagFilter()
    tagged.enable_for(osmium.osm.NODE)
    # Elements go to the text file and no further; what comes back are areas.
    nothing = osmium.filter.KeyFilter("\n")
    nothing.enable_for(osmium.osm.NODE | osmium.osm.WAY | osmium.osm.RELATION)
    areas: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "elements.opl"
        with _writer(osmium.io.File(str(text), FORMAT)) as writer:
            processor: Any = osmium.FileProcessor(str(path)).with_locations(places).with_areas()
            for area in processor.with_filter(tagged).with_filter(writer).with_filter(nothing):
                if not area.from_way() and area.num_rings()[0]:
                    areas[area.orig_id()] = factory.create_multipolygon(area)
        return _Content(*read_opl(text), areas)


@contextlib.contextmanager
def _writer(file: Any) -> Iterator[Any]:
    """Give osmium's writer of a file, and close it.

    Raises:
        OSError: the disk is full.
    """
    import osmium

    writer = osmium.SimpleWriter(file)
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


def _locate_plain_nodes(content: _Content, places: Any) -> None:
    """Find the untagged nodes that are members of relations, and prove missing nodes missing."""
    ways, members = content.ways, content.relations.members.flatten()
    missing = np.unique(ways.refs[np.isnan(ways.lonlat[:, 0])])
    refs = members.field("ref").to_numpy()
    wanted = np.unique(refs[is_equal(members.field("type"), "node")])
    wanted = wanted[~np.isin(wanted, content.nodes.ids)]
    for number, ref in enumerate([*missing.tolist(), *wanted.tolist()]):
        location = _location(places, ref)
        if location is not None:
            if number < len(missing):  # it came after a way that needs it
                raise _OutOfOrderError
            content.plain_nodes[ref] = location


def _location(places: Any, ref: int) -> tuple[float, float] | None:
    """Return (lon, lat) of a node in osmium's index, which knows no negative ids."""
    try:
        location = places.get(ref) if ref > 0 else None
    except KeyError:
        return None
    return (location.lon, location.lat) if location is not None and location.valid() else None


class _Builder:
    """Turns elements into geometries, and keeps count of those that cannot be."""

    def __init__(self, content: _Content) -> None:
        self.content = content
        self.parts: list[tuple[pa.Array, pa.Array, pa.Array, Geometries]] = []
        self.broken: dict[str, list[str]] = defaultdict(list)
        self.repaired: list[str] = []
        self.incomplete: list[str] = []
        self.metadata_only = 0

    def build(self, path: Path) -> tuple[Entities, dict[str, Any]]:
        """Return the entities and the facts about them."""
        nodes = self._nodes()
        ways = self._ways()
        self._relations(nodes, ways)
        broken = sum(len(ids) for ids in self.broken.values())
        ids, tags, members, geometry = zip(*self.parts, strict=True)
        columns = [Column(pa.concat_arrays(arrays)) for arrays in (ids, tags, members)]
        entities = Entities(columns[0], columns[1], columns[2], np.concatenate(geometry))
        if not len(entities) and not broken:
            raise UrbanError(f"{path} holds no tagged element: give a file of OSM data")
        return entities, {
            "counted": len(entities) + broken,
            "metadata_only": self.metadata_only,
            "repaired": count_and_list(self.repaired),
            "incomplete": count_and_list(self.incomplete),
            "broken": {kind: count_and_list(ids) for kind, ids in sorted(self.broken.items())},
        }

    def _keep(
        self,
        kind: str,
        elements: Nodes | Ways | Relations,
        order: Integers,
        geometry: Geometries,
        reasons: dict[str, Flags],
    ) -> None:
        """Keep the tagged elements of one kind, and count those with a reason as broken.

        Args:
            kind: of the elements.
            elements: as they stand in the file.
            order: which of them, (N,).
            geometry: (N,).
            reasons: (N,) by what is wrong; the first counts.
        """
        tags = elements.tags
        if len(order) < len(tags) or (np.diff(order) < 0).any():
            tags = tags.take(pa.array(order))
        entity = _are_entities(tags)
        self.metadata_only += int((~entity & (np.diff(tags.offsets.to_numpy()) > 0)).sum())
        names = _names(kind, elements.ids[order])
        kept = entity.copy()
        for reason, wrong in reasons.items():
            if (wrong & kept).any():
                self.broken[reason] += names.filter(pa.array(wrong & kept)).to_pylist()
                kept &= ~wrong
        keep = pa.array(np.flatnonzero(kept))
        if isinstance(elements, Relations):
            members = elements.members.take(pa.array(order[kept]))
        else:
            members = pa.array([[]] * len(keep), ENTITY_SCHEMA.field("members").type)
        self.parts.append((names.take(keep), tags.take(keep), members, geometry[kept]))

    def _nodes(self) -> Located:
        """Keep the tagged nodes; return the points of these and of untagged members."""
        nodes, plain = self.content.nodes, self.content.plain_nodes
        order = _first_of_each(nodes.ids, nodes.tags)
        lonlat = nodes.lonlat[order]
        points = np.asarray(shapely.points(lonlat), dtype=object)
        lost = np.isnan(lonlat[:, 0])
        self._keep("node", nodes, order, points, {"nodes without a location": lost})
        others = np.asarray(shapely.points(np.reshape(list(plain.values()), (-1, 2))), dtype=object)
        ids = np.concatenate([nodes.ids[order[~lost]], np.array(list(plain), dtype=np.int64)])
        return located(ids, np.concatenate([points[~lost], others]))

    def _ways(self) -> Located:
        """Keep the tagged ways; return the lines and polygons of all."""
        ways = self.content.ways
        order = _first_of_each(ways.ids, ways.tags)
        shapes, missing, areal = way_shapes(ways)
        shapes, missing, areal = shapes[order], missing[order], areal[order]
        entity = _are_entities(ways.tags)[order]
        self.repaired += _names("way", ways.ids[order[repair(shapes) & entity]]).to_pylist()
        none = shapely.is_missing(shapes)
        flat = areal & (shapely.get_type_id(shapes) == 1)
        reasons = {
            "ways with missing nodes": missing,
            "ways of fewer than two places": none,
            "areas of fewer than three places": flat,
        }
        self._keep("way", ways, order, shapes, reasons)
        good = ~(none | flat)
        return located(ways.ids[order[good]], shapes[good])

    def _relations(self, nodes: Located, ways: Located) -> None:
        """Keep the tagged relations."""
        relations = self.content.relations
        order = _first_of_each(relations.ids, relations.tags)
        areas = self._areas()
        members = Members(relations, (nodes, ways, areas))
        tags = relations.tags
        kinds = pc.is_in(tags.items, pa.array(AREA_RELATIONS)).to_numpy(zero_copy_only=False)
        areal = rows_with(tags, is_equal(tags.keys, "type") & kinds)[order]
        shapes = np.full(len(order), None, dtype=object)
        position = positions(areas.ids, relations.ids[order])
        assembled = areal & (position >= 0)
        shapes[assembled] = areas.geometry[position[assembled]]
        shapes[~areal], lacks = members.collect(order[~areal])
        none = shapely.is_missing(shapes)
        entity = _are_entities(tags)[order]
        incomplete = order[~areal][lacks & (entity & ~none)[~areal]]
        self.incomplete += _names("relation", relations.ids[incomplete]).to_pylist()
        whole = ~members.without("way")[order]
        reasons = {
            "relations without a located member": ~areal & none,
            "area relations whose rings do not close": areal & none & whole,
            "area relations with missing or broken ways": areal & none & ~whole,
        }
        self._keep("relation", relations, order, shapes, reasons)

    def _areas(self) -> Located:
        """Return the assembled areas, a polygon where there is one ring outside."""
        ids = np.array(list(self.content.areas), dtype=np.int64)
        shapes = np.asarray(shapely.from_wkb(list(self.content.areas.values())), dtype=object)
        single = np.flatnonzero(shapely.get_num_geometries(shapes) == 1)
        shapes[single] = shapely.get_geometry(shapes[single], 0)
        self.repaired += _names("relation", ids[repair(shapes)]).to_pylist()
        return located(ids, shapes)


def _are_entities(tags: pa.MapArray) -> Flags:
    """Return which maps (N,) say anything of a place."""
    keys = tags.keys.dictionary_encode()
    says = np.array([is_entity([key]) for key in keys.dictionary.to_pylist()], dtype=bool)
    return rows_with(tags, says[keys.indices.to_numpy()])


def _names(kind: str, ids: Integers) -> pa.StringArray:
    return pc.binary_join_element_wise(kind, pa.array(ids).cast(pa.string()), "/")


def _first_of_each(ids: Integers, tags: pa.MapArray) -> Integers:
    """Return which elements to take, by id: of several with one id the first that has tags."""
    if (np.diff(ids) > 0).all():
        return np.arange(len(ids))
    bare = np.diff(tags.offsets.to_numpy()) == 0
    order = np.lexsort((bare, ids))
    return np.asarray(order[np.append(True, np.diff(ids[order]) != 0)])
