"""The synthetic city as a real OpenStreetMap file, such as any OSM tool reads.

What belongs together in OSM is put together here: equal coordinates are one node, so streets join
and terraces share walls; a point on a line tags the line's own node.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo.recipe import GRID
from urbancli.demo.town import Elements, Floats, Relation
from urbancli.sources._polygons import is_area
from urbancli.workspace import Geometries, atomic_path

GENERATOR = "urban (SYNTHETIC)"
"""Stands in the header of the file."""

UNITS = 10_000_000
"""OSM stores coordinates in 1e-7 degree."""

POINT, LINE, POLYGON, MULTIPOLYGON = 0, 1, 3, 6
"""Type numbers of shapely."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Paths:
    """The lines and rings of all elements but points, in the order of the elements.

    Attributes:
        owner: (W,) element of each.
        role: (W,) `outer` or `inner` in a multipolygon, empty where the way is the element.
        points: (M, 2) coordinates, metres.
        path: (M,) way of each coordinate.
    """

    owner: Integers
    role: npt.NDArray[np.object_]
    points: Floats
    path: Integers


def write_pbf(
    path: Path,
    elements: Elements,
    relations: Sequence[Relation],
    box_m: tuple[float, float, float, float],
) -> None:
    """Write elements as .osm.pbf; equal input gives equal bytes: no times, versions or users.

    Nodes, ways and relations are numbered from 1. A polygon with holes, of several parts, or with
    tags that make no closed way an area is a relation `type=multipolygon` of untagged ways. Of
    several points in one place the first is the node of the lines there, the others are nodes of
    their own.

    Args:
        path: of the file, ending in .osm.pbf.
        elements: of the city; metres in `recipe.GRID`'s CRS.
        relations: of the elements.
        box_m: (left, bottom, right, top) of what is rendered, for the header; metres.
    """
    import osmium

    header = osmium.io.Header()
    header.set("generator", GENERATOR)
    left, bottom, right, top = box_m
    lon, lat = GRID.unproject([left, right, left, right], [bottom, top, top, bottom])
    header.add_box(osmium.osm.Box(lon.min(), lat.min(), lon.max(), lat.max()))
    kinds = shapely.get_type_id(elements.geometry)
    paths = _paths(elements, kinds)
    spots = np.flatnonzero(kinds == POINT)
    places, numbers, node_of_spot = _nodes(paths.points, elements.geometry[spots])
    node_of = list(zip(node_of_spot.tolist(), spots.tolist(), strict=True))
    tags_of_node = {node: elements.tags[spot] for node, spot in node_of}
    refs: list[tuple[str, int]] = [("", 0)] * len(elements)
    for node, spot in node_of:
        refs[spot] = ("n", node)
    with atomic_path(path) as temporary:
        file = osmium.io.File(str(temporary), "pbf,add_metadata=false")
        with osmium.SimpleWriter(file, header=header, overwrite=True) as writer:
            _write_nodes(writer, places, tags_of_node)
            _write_ways(writer, elements, paths, numbers, refs)
            _write_relations(writer, elements, paths, relations, refs)


def _paths(elements: Elements, kinds: npt.NDArray[np.int32]) -> _Paths:
    """Take the elements apart into lines and rings."""
    shapes = elements.geometry
    holes = shapely.get_num_interior_rings(shapes) > 0
    plain = [is_area(tags) for tags in elements.tags]
    single = (kinds == LINE) | ((kinds == POLYGON) & ~holes & plain)
    whole = np.flatnonzero(single)
    lines = shapes[whole].copy()
    closed = kinds[whole] == POLYGON
    lines[closed] = shapely.get_exterior_ring(lines[closed])
    composed = np.flatnonzero(~single & (kinds != POINT))
    parts, part_of = shapely.get_parts(shapes[composed], return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    first = np.diff(ring_of, prepend=-1) > 0
    lines = np.concatenate([lines, rings])
    owner = np.concatenate([whole, composed[part_of[ring_of]]])
    role = np.concatenate([np.full(len(whole), ""), np.where(first, "outer", "inner")])
    order = np.argsort(owner, kind="stable")
    points, path = shapely.get_coordinates(lines[order], return_index=True)
    return _Paths(owner[order], role[order].astype(object), points, path)


def _nodes(points: Floats, spots: Geometries) -> tuple[Floats, Integers, Integers]:
    """Return lon and lat of all nodes (N, 2), the node of each point of a path, and of each spot.

    Nodes count from 1 in the order in which they first occur: what is near lies near in the file.
    """
    everything = np.concatenate([points, shapely.get_coordinates(spots)])
    lon, lat = GRID.unproject(*everything.T)
    units = np.round(np.column_stack([lon, lat]) * UNITS).astype(np.int64)
    _, first, inverse = np.unique(
        units[:, 0] * (1 << 32) + units[:, 1], return_index=True, return_inverse=True
    )
    occurs = np.argsort(first)
    number = np.empty(len(first), dtype=np.int64)
    number[occurs] = np.arange(1, len(first) + 1)
    node = number[inverse]
    taken = node[len(points) :]
    # Another point in the same place becomes a node of its own, behind all others.
    repeated = np.ones(len(taken), dtype=bool)
    repeated[np.unique(taken, return_index=True)[1]] = False
    places = units[first[occurs]]
    further = places[taken[repeated] - 1]
    taken = taken.copy()
    taken[repeated] = len(places) + 1 + np.arange(repeated.sum())
    return np.concatenate([places, further]) / UNITS, node[: len(points)], taken


def _write_nodes(writer: Any, places: Floats, tags: dict[int, dict[str, str]]) -> None:
    plain, tagged = SimpleNamespace(id=0, location=None), SimpleNamespace(id=0, tags={})
    for number, location in enumerate(map(tuple, places.tolist()), start=1):
        node = tagged if number in tags else plain
        node.id, node.location = number, location
        if number in tags:
            node.tags = tags[number]
        writer.add_node(node)


def _write_ways(
    writer: Any,
    elements: Elements,
    paths: _Paths,
    numbers: Integers,
    refs: list[tuple[str, int]],
) -> None:
    """Write a way for each path, and note those that are elements themselves."""
    moved = np.ones(len(numbers), dtype=bool)
    moved[1:] = (numbers[1:] != numbers[:-1]) | (paths.path[1:] != paths.path[:-1])
    ends = np.cumsum(np.bincount(paths.path[moved], minlength=len(paths.owner))).tolist()
    nodes = numbers[moved].tolist()
    way = SimpleNamespace(id=0, nodes=[], tags={})
    start = 0
    rows = zip(ends, paths.owner.tolist(), paths.role.tolist(), strict=True)
    for number, (end, owner, role) in enumerate(rows, start=1):
        way.id, way.nodes = number, nodes[start:end]
        way.tags = {} if role else elements.tags[owner]
        writer.add_way(way)
        if not role:
            refs[owner] = ("w", number)
        start = end


def _write_relations(
    writer: Any,
    elements: Elements,
    paths: _Paths,
    relations: Sequence[Relation],
    refs: list[tuple[str, int]],
) -> None:
    """Write multipolygons, then the town's relations."""
    members: dict[int, list[tuple[str, int, str]]] = {}
    rows = zip(paths.owner.tolist(), paths.role.tolist(), strict=True)
    for number, (owner, role) in enumerate(rows, start=1):
        if role:
            members.setdefault(owner, []).append(("w", number, role))
    relation = SimpleNamespace(id=0, members=[], tags={})
    for number, (owner, ways) in enumerate(members.items(), start=1):
        relation.id, relation.members = number, ways
        relation.tags = {"type": "multipolygon"} | elements.tags[owner]
        writer.add_relation(relation)
        refs[owner] = ("r", number)
    for number, each in enumerate(relations, start=len(members) + 1):
        relation.id, relation.tags = number, each.tags
        relation.members = [(*refs[element], role) for element, role in each.members]
        writer.add_relation(relation)
