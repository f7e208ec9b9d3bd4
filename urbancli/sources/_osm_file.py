"""Everything that touches pyosmium: an OSM file in, entities with geometries out.

Elements are read in C++ and only the tagged nodes, all ways and all relations reach Python, once.
Rings of multipolygon and boundary relations are put together by osmium's area assembler, which
goes by the geometry of the members and not by their roles.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from urbancli.errors import UrbanError
from urbancli.sources._entities import Entities, Member, count_and_list, repair
from urbancli.sources._polygons import is_area
from urbancli.workspace import Geometries

METADATA_KEYS = frozenset(
    {"attribution", "comment", "created_by", "fixme", "FIXME", "note", "odbl", "source_ref"}
)
"""Keys that speak of the mapping, not of the place; `source`, `source:*`, `note:*` and `odbl:*`
likewise. An element with no other key is no entity."""

AREA_RELATIONS = ("boundary", "multipolygon")
"""Values of `type` for which a relation is an area."""

MEMBER_TYPES = {"n": "node", "w": "way", "r": "relation"}

Tags = dict[str, str]


class _Way(NamedTuple):
    tags: Tags
    line: str | None  # hexadecimal WKB; None where it has no two places or a node is missing
    closed: bool
    missing: tuple[int, ...]  # its nodes without a location, where it has no line


@dataclass
class _Content:
    """The elements of a file by id; the first of several with one id and tags counts."""

    nodes: dict[int, tuple[Tags, tuple[float, float] | None]] = field(default_factory=dict)
    ways: dict[int, _Way] = field(default_factory=dict)
    relations: dict[int, tuple[Tags, list[Member]]] = field(default_factory=dict)
    areas: dict[int, str] = field(default_factory=dict)
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
        content = _read(path)
    except _OutOfOrderError:
        content = _read_sorted(path)
    return _Builder(content).build(path)


def _read_sorted(path: Path) -> _Content:
    """Read a file through a sorted copy: the whole of it is held in memory while sorting."""
    import osmium

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sorted.osm"
        reader = osmium.MergeInputReader()
        reader.add_file(str(path))
        with osmium.SimpleWriter(str(copy)) as writer:
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
    except (RuntimeError, ValueError, OSError) as err:
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

    content = _Content()
    factory = osmium.geom.WKBFactory()
    tagged = osmium.filter.EmptyTagFilter()
    tagged.enable_for(osmium.osm.NODE)
    processor: Any = osmium.FileProcessor(str(path)).with_locations(places).with_areas()
    elements = processor.with_filter(tagged)
    for element in elements:
        if element.is_node():
            location = element.location
            place = (location.lon, location.lat) if location.valid() else None
            content.nodes.setdefault(element.id, (dict(element.tags), place))
        elif element.is_way():
            if element.id not in content.ways or not content.ways[element.id].tags:
                content.ways[element.id] = _way(element, factory)
        elif element.is_relation():
            members = [
                (MEMBER_TYPES[member.type], member.ref, member.role) for member in element.members
            ]
            content.relations.setdefault(element.id, (dict(element.tags), members))
        elif not element.from_way() and element.num_rings()[0]:
            content.areas[element.orig_id()] = factory.create_multipolygon(element)
    return content


def _way(way: Any, factory: Any) -> _Way:
    import osmium

    nodes = way.nodes
    tags = dict(way.tags)
    closed = len(nodes) > 1 and way.is_closed()
    if len(nodes) < 2:
        return _Way(tags, None, closed, ())
    try:
        # osmium's factory passes over missing nodes at the start of a way in silence.
        if nodes[0].location.valid():
            return _Way(tags, factory.create_linestring(way), closed, ())
    except osmium.InvalidLocationError:
        pass
    except RuntimeError:  # all its nodes are at one place
        return _Way(tags, None, closed, ())
    missing = tuple(node.ref for node in nodes if not node.location.valid())
    return _Way(tags, None, closed, missing)


def _locate_plain_nodes(content: _Content, places: Any) -> None:
    """Find the untagged nodes that are members of relations, and prove missing nodes missing."""
    missing = {ref for way in content.ways.values() for ref in way.missing if ref > 0}
    wanted = {
        ref
        for _, members in content.relations.values()
        for kind, ref, _ in members
        if kind == "node" and ref > 0 and ref not in content.nodes
    }
    for ref in sorted(missing | wanted):
        try:
            location = places.get(ref)
        except KeyError:
            continue
        if location.valid():
            if ref in missing:  # it came after a way that needs it
                raise _OutOfOrderError
            content.plain_nodes[ref] = (location.lon, location.lat)


class _Builder:
    """Turns elements into geometries, and keeps count of those that cannot be."""

    def __init__(self, content: _Content) -> None:
        self.content = content
        self.ids: list[str] = []
        self.tags: list[Tags] = []
        self.members: list[list[Member]] = []
        self.geometry: list[Geometries] = []
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
        if not self.ids and not broken:
            raise UrbanError(f"{path} holds no tagged element: give a file of OSM data")
        entities = Entities(self.ids, self.tags, self.members, np.concatenate(self.geometry))
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
        ids: Sequence[int],
        tags: Sequence[Tags],
        geometry: Geometries,
        reasons: Sequence[str | None],
    ) -> None:
        """Keep the tagged elements of one kind, and count those with a reason as broken."""
        kept = []
        relation = kind == "relation"
        for index, osm_id in enumerate(ids):
            name = f"{kind}/{osm_id}"
            if not is_entity(tags[index]):
                self.metadata_only += bool(tags[index])
            elif (reason := reasons[index]) is not None:
                self.broken[reason].append(name)
            else:
                kept.append(index)
                self.ids.append(name)
                self.tags.append(tags[index])
                self.members.append(self.content.relations[osm_id][1] if relation else [])
        self.geometry.append(geometry[kept])

    def _nodes(self) -> dict[int, Any]:
        """Keep the tagged nodes; return the points of these and of untagged members."""
        ids = sorted(self.content.nodes)
        tags, places = zip(*(self.content.nodes[i] for i in ids), strict=True) if ids else ((), ())
        located = [place or (np.nan, np.nan) for place in places]
        points = np.asarray(shapely.points(np.reshape(located, (-1, 2))), dtype=object)
        reasons = [None if place else "nodes without a location" for place in places]
        self._keep("node", ids, tags, points, reasons)
        plain = self.content.plain_nodes
        others = np.asarray(shapely.points(np.reshape(list(plain.values()), (-1, 2))), dtype=object)
        found = {i: point for i, point, place in zip(ids, points, places, strict=True) if place}
        return found | dict(zip(plain, others, strict=True))

    def _ways(self) -> dict[int, Any]:
        """Keep the tagged ways; return the lines and polygons of all."""
        ids = sorted(self.content.ways)
        ways = [self.content.ways[i] for i in ids]
        lines = np.asarray(shapely.from_wkb([way.line for way in ways]), dtype=object)
        areal = np.array([way.closed and is_area(way.tags) for way in ways], dtype=bool)
        points = shapely.get_num_points(lines)
        flat = areal & (points > 0) & (points < 4)
        rings = np.flatnonzero(areal & (points >= 4))
        coordinates, index = shapely.get_coordinates(lines[rings], return_index=True)
        if len(rings):
            lines[rings] = shapely.polygons(shapely.linearrings(coordinates, indices=index))
        invalid = repair(lines)
        reasons = [_why_no_way(way, bool(f)) for way, f in zip(ways, flat, strict=True)]
        self.repaired += [
            f"way/{i}" for i, bad, way in zip(ids, invalid, ways, strict=True)
            if bad and is_entity(way.tags)
        ]  # fmt: skip
        self._keep("way", ids, [way.tags for way in ways], lines, reasons)
        return {i: line for i, line, why in zip(ids, lines, reasons, strict=True) if why is None}

    def _relations(self, nodes: dict[int, Any], ways: dict[int, Any]) -> None:
        """Keep the tagged relations."""
        ids = sorted(self.content.relations)
        areas = dict(zip(self.content.areas, self._areas(), strict=True))
        geometry = np.full(len(ids), None, dtype=object)
        reasons: list[str | None] = []
        for index, osm_id in enumerate(ids):
            tags, members = self.content.relations[osm_id]
            reason = None
            if tags.get("type") in AREA_RELATIONS:
                geometry[index] = areas.get(osm_id)
                if geometry[index] is None:
                    whole = all(kind != "way" or ref in ways for kind, ref, _ in members)
                    reason = (
                        "area relations whose rings do not close" if whole
                        else "area relations with missing or broken ways"
                    )  # fmt: skip
            else:
                parts, complete = self._parts(osm_id, nodes, ways, areas)
                geometry[index] = _collect(parts)
                if not parts:
                    reason = "relations without a located member"
                elif not complete and is_entity(tags):
                    self.incomplete.append(f"relation/{osm_id}")
            reasons.append(reason)
        tags_of = [self.content.relations[i][0] for i in ids]
        self._keep("relation", ids, tags_of, geometry, reasons)

    def _areas(self) -> Geometries:
        """Return the assembled areas, a polygon where there is one ring outside."""
        shapes = np.asarray(shapely.from_wkb(list(self.content.areas.values())), dtype=object)
        single = np.flatnonzero(shapely.get_num_geometries(shapes) == 1)
        shapes[single] = shapely.get_geometry(shapes[single], 0)
        invalid = repair(shapes)
        self.repaired += [
            f"relation/{i}" for i, bad in zip(self.content.areas, invalid, strict=True) if bad
        ]
        return shapes

    def _parts(
        self, osm_id: int, nodes: dict[int, Any], ways: dict[int, Any], areas: dict[int, Any]
    ) -> tuple[list[Any], bool]:
        """Return the geometries of a relation's members, each once, and whether none is missing.

        Member relations stand for their own members, unless they are areas.
        """
        located = {"node": nodes, "way": ways, "relation": areas}
        queue = [("relation", osm_id)]
        seen = set(queue)
        parts, complete = [], True
        for kind, ref in queue:  # grows while it is walked
            if kind == "relation" and ref not in areas and ref in self.content.relations:
                for member_kind, member_ref, _ in self.content.relations[ref][1]:
                    if (member_kind, member_ref) not in seen:
                        seen.add((member_kind, member_ref))
                        queue.append((member_kind, member_ref))
            elif ref in located[kind]:
                parts.append(located[kind][ref])
            else:
                complete = False
        return parts, complete


def _why_no_way(way: _Way, flat: bool) -> str | None:
    if way.missing:
        return "ways with missing nodes"
    if way.line is None:
        return "ways of fewer than two places"
    return "areas of fewer than three places" if flat else None


def _collect(parts: Sequence[Any]) -> Any:
    """Return parts as MultiPoint, MultiLineString, or GeometryCollection where they are mixed."""
    kinds = set(shapely.get_type_id(parts).tolist())
    if kinds == {0}:
        return shapely.multipoints(parts)
    if kinds == {1}:
        return shapely.multilinestrings(parts)
    return shapely.geometrycollections(parts)
