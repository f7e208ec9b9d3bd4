"""An OSM file in, entities with geometries out.

What osmium wrote as text becomes columns, and these geometries, some megabytes at a time.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from urbancli.errors import UrbanError
from urbancli.layers import ENTITY_SCHEMA
from urbancli.sources._entities import Column, Entities, count_and_list, repair
from urbancli.sources._opl import (
    Integers,
    Nodes,
    Relations,
    Ways,
    elements,
)
from urbancli.sources._osm_reading import Content, members_of_kind, read_content
from urbancli.sources._osm_shapes import (
    KINDS,
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


def is_entity(tags: Iterable[str]) -> bool:
    """Return whether any key says something of the place itself."""
    return any(
        key not in METADATA_KEYS and key.split(":")[0] not in {"source", "note", "odbl"}
        for key in tags
    )


def read_entities(path: Path) -> tuple[Entities, dict[str, Any]]:
    """Return all that `stream_entities` yields, as one, and the facts."""
    facts: dict[str, Any] = {}
    parts: list[Any] = list(stream_entities(path, facts))
    ids, tags, members = (
        Column(pa.concat_arrays([column.array for column in columns]))
        for columns in zip(*((p.entity_id, p.tags, p.members) for p in parts), strict=True)
    )
    geometry, rank = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("geometry", "rank")
    )
    return Entities(ids, tags, members, geometry, rank), facts


def stream_entities(path: Path, facts: dict[str, Any]) -> Iterator[Entities]:
    """Yield the tagged elements of a PBF, XML, .osm.gz or .osm.bz2 file, some at a time.

    Held in memory all the while are the places of all nodes, 16 bytes each, until the first are
    yielded, and then relations and the geometries of their members. Elements with negative ids
    (never uploaded) have no place in osmium's index of locations: such ways count as broken.

    Args:
        path: the file.
        facts: told at the end: `counted` = entities + broken; `metadata_only`; `repaired`;
            `incomplete` relations, which lack members but keep a geometry; `broken` by kind.

    Yields:
        Nodes, then ways, then relations; their `rank` sorts each kind by id.

    Raises:
        UrbanError: osmium cannot read the file, or it holds no tagged element.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            builder = _Builder(read_content(path, Path(folder)))
            yield from builder.parts()
            facts.update(builder.facts())
    except OSError as err:
        raise UrbanError(
            f"cannot write {path.name} as text to {tempfile.gettempdir()} ({err}): free space for "
            "fifteen times its size, or set TMPDIR"
        ) from err
    if not facts["counted"]:
        raise UrbanError(f"{path} holds no tagged element: give a file of OSM data")


class _Builder:
    """Turns elements into geometries, and keeps count of those that cannot be."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.broken: dict[str, list[str]] = defaultdict(list)
        self.repaired: list[str] = []
        self.incomplete: list[str] = []
        self.metadata_only = 0
        self._kept = 0
        self._nodes_found: list[Located] = []
        self._ways_found: list[Located] = []

    def parts(self) -> Iterator[Entities]:
        """Yield the entities."""
        yield from self._nodes()
        yield from self._ways()
        yield self._relations()

    def facts(self) -> dict[str, Any]:
        """Return the facts about the entities, all of which have been yielded."""
        broken = {kind: count_and_list(_by_id(ids)) for kind, ids in sorted(self.broken.items())}
        return {
            "counted": self._kept + sum(each["count"] for each in broken.values()),
            "metadata_only": self.metadata_only,
            "repaired": count_and_list(self.repaired),
            "incomplete": count_and_list(self.incomplete),
            "broken": broken,
        }

    def _keep(
        self,
        kind: str,
        found: Nodes | Ways | Relations,
        order: Integers,
        geometry: Geometries,
        reasons: dict[str, Flags],
    ) -> Entities:
        """Return the tagged elements of one kind, and count those with a reason as broken.

        Args:
            kind: of the elements.
            found: as they stand in the file.
            order: which of them, (N,).
            geometry: (N,).
            reasons: (N,) by what is wrong; the first counts.
        """
        tags = found.tags
        if len(order) < len(tags) or (np.diff(order) < 0).any():
            tags = tags.take(pa.array(order))
        entity = _are_entities(tags)
        self.metadata_only += int((~entity & (np.diff(tags.offsets.to_numpy()) > 0)).sum())
        names = _names(kind, found.ids[order])
        kept = entity.copy()
        for reason, wrong in reasons.items():
            if (wrong & kept).any():
                self.broken[reason] += names.filter(pa.array(wrong & kept)).to_pylist()
                kept &= ~wrong
        keep = pa.array(np.flatnonzero(kept))
        if isinstance(found, Relations):
            members = found.members.take(pa.array(order[kept]))
        else:
            members = pa.array([[]] * len(keep), ENTITY_SCHEMA.field("members").type)
        self._kept += len(keep)
        rank = (KINDS.index(kind) << 60) + found.ids[order[kept]]
        names, tags = names.take(keep), tags.take(keep)
        return Entities(Column(names), Column(tags), Column(members), geometry[kept], rank)

    def _nodes(self) -> Iterator[Entities]:
        """Yield the tagged nodes; find the points of these and of others that are members."""
        others, seen = self.content.member_nodes, _Seen()
        wanted = np.array(list(others), dtype=np.int64)
        for nodes in elements(self.content.text, "n"):
            order = seen.new(nodes.ids, _first_of_each(nodes.ids, nodes.tags))
            lonlat = nodes.lonlat[order]
            points = np.asarray(shapely.points(lonlat), dtype=object)
            lost = np.isnan(lonlat[:, 0])
            member = positions(wanted, nodes.ids[order]) >= 0
            self._nodes_found.append(
                located(nodes.ids[order[member & ~lost]], points[member & ~lost])
            )
            for ref in nodes.ids[order[member]].tolist():
                others.pop(ref)
            yield self._keep("node", nodes, order, points, {"nodes without a location": lost})
        points = np.asarray(
            shapely.points(np.reshape(list(others.values()), (-1, 2))), dtype=object
        )
        self._nodes_found.append(located(np.array(list(others), dtype=np.int64), points))

    def _ways(self) -> Iterator[Entities]:
        """Yield the tagged ways; find the lines and polygons of all that are members."""
        wanted = members_of_kind(self.content.relations, "way")
        for ways in elements(self.content.text, "w"):
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
            good = ~(none | flat) & (positions(wanted, ways.ids[order]) >= 0)
            self._ways_found.append(located(ways.ids[order[good]], shapes[good]))
            yield self._keep("way", ways, order, shapes, reasons)
        self.repaired = _by_id(self.repaired)

    def _relations(self) -> Entities:
        """Return the tagged relations."""
        relations = self.content.relations
        order = _first_of_each(relations.ids, relations.tags)
        areas = self._areas()
        found = (_as_one(self._nodes_found), _as_one(self._ways_found), areas)
        members = Members(relations, found)
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
        return self._keep("relation", relations, order, shapes, reasons)

    def _areas(self) -> Located:
        """Return the assembled areas, a polygon where there is one ring outside."""
        ids = np.array(list(self.content.areas), dtype=np.int64)
        shapes = np.asarray(shapely.from_wkb(list(self.content.areas.values())), dtype=object)
        single = np.flatnonzero(shapely.get_num_geometries(shapes) == 1)
        shapes[single] = shapely.get_geometry(shapes[single], 0)
        self.repaired += _names("relation", ids[repair(shapes)]).to_pylist()
        return located(ids, shapes)


class _Seen:
    """Remembers ids, of which files seldom name any twice."""

    def __init__(self) -> None:
        self._ids: list[Integers] = []
        self._last = -(1 << 62)

    def new(self, ids: Integers, order: Integers) -> Integers:
        """Return which of ids (N,), of those in `order`, were not seen before."""
        if self._ids and len(ids) and ids.min() <= self._last:
            order = order[~np.isin(ids[order], np.concatenate(self._ids))]
        self._ids.append(ids[order])
        self._last = max(self._last, int(ids.max(initial=self._last)))
        return order


def _as_one(parts: list[Located]) -> Located:
    """Return the geometries of all parts, by their ids."""
    none = Located(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=object))
    ids, shapes = zip(none, *parts, strict=True)
    return located(np.concatenate(ids), np.concatenate(shapes))


def _by_id(names: list[str]) -> list[str]:
    """Return names of one kind, like `way/1`, in the order of their ids."""
    return sorted(names, key=lambda name: int(name.partition("/")[2]))


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
