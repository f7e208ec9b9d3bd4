"""Geometries of OpenStreetMap's ways, and of relations that are no area, many at a time."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from urbancli.sources._opl import Integers, Relations, Ways
from urbancli.sources._polygons import make_areas
from urbancli.workspace import Geometries

Flags = npt.NDArray[np.bool_]

KINDS = ("node", "way", "relation")


class Located(NamedTuple):
    """Geometries of one kind of element, by id.

    Attributes:
        ids: (N,) in order, each once.
        geometry: (N,).
    """

    ids: Integers
    geometry: Geometries


def positions(ids: Integers, wanted: Integers) -> Integers:
    """Return where ids (M,) stand among ids (N,) in order, -1 for those that do not."""
    if not len(ids):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[place] == wanted, place, -1).astype(np.int64)


def located(ids: Integers, geometry: Geometries) -> Located:
    """Return geometries (N,) by their ids, each once."""
    order = np.argsort(ids, kind="stable")
    return Located(ids[order], geometry[order])


def rows_with(tags: pa.MapArray, flags: Flags) -> Flags:
    """Return which maps (N,) have any tag that is flagged, of all that the maps hold."""
    before = np.concatenate([[0], np.cumsum(flags)])
    offsets = tags.offsets.to_numpy()
    return np.asarray(before[offsets[1:]] > before[offsets[:-1]])


def is_equal(texts: pa.StringArray, value: str) -> Flags:
    """Return which texts (N,) are a value."""
    return np.asarray(pc.equal(texts, value).to_numpy(zero_copy_only=False))


# --- ways ----------------------------------------------------------------------------------------


def way_shapes(ways: Ways) -> tuple[Geometries, Flags, Flags]:
    """Return lines, and polygons of ways that are areas, in EPSG:4326 lon lat.

    Returns:
        (N,) shapes, None where a way has no two places or a node is missing, lines where an area
        has no three places; (N,) whether nodes are missing; and (N,) whether it is an area.
    """
    of = np.repeat(np.arange(len(ways.ids)), ways.count)
    many = ways.count > 1
    missing = many & (np.bincount(of, np.isnan(ways.lonlat[:, 0]), len(ways.ids)) > 0)
    # A node at the place of the one before it adds nothing.
    moves = np.ones(len(of), dtype=bool)
    moves[1:] = (of[1:] != of[:-1]) | (ways.lonlat[1:] != ways.lonlat[:-1]).any(axis=1)
    points = np.bincount(of[moves], minlength=len(ways.ids))
    end = np.cumsum(ways.count)
    closed = many.copy()
    closed[many] = ways.refs[(end - ways.count)[many]] == ways.refs[end[many] - 1]
    areal = closed & _are_areas(ways.tags)
    drawn = ~missing & (points > 1)
    rings = drawn & areal & (points > 3)
    shapes = np.full(len(ways.ids), None, dtype=object)
    for which, draw in ((drawn & ~rings, shapely.linestrings), (rings, _polygons)):
        if which.any():
            chosen = moves & which[of]
            shapes[which] = draw(ways.lonlat[chosen], indices=(np.cumsum(which) - 1)[of[chosen]])
    return shapes, missing, areal


def _polygons(lonlat: npt.NDArray[np.float64], indices: Integers) -> Geometries:
    return np.asarray(shapely.polygons(shapely.linearrings(lonlat, indices=indices)), dtype=object)


def _are_areas(tags: pa.MapArray) -> Flags:
    makes, denies = make_areas(tags.keys, tags.items)
    return rows_with(tags, makes) & ~rows_with(tags, denies)


# --- relations -----------------------------------------------------------------------------------


class Members:
    """The members of relations, and where the geometries of these are found.

    Args:
        relations: all of a file, in the order they stand in it.
        found: geometries of nodes, of ways, and of relations that are areas.
    """

    def __init__(self, relations: Relations, found: tuple[Located, Located, Located]) -> None:
        self._pool = np.concatenate([each.geometry for each in found])
        members = relations.members.flatten()
        first = np.asarray(relations.members.offsets.to_numpy())
        self.row = np.repeat(np.arange(len(relations.ids)), np.diff(first))
        self._first = first - first[0]
        ref, self._kind = members.field("ref").to_numpy(), members.field("type")
        self.place = np.full(len(ref), -1)
        self._child = np.full(len(ref), -1)
        begin = 0
        for kind, each in zip(KINDS, found, strict=True):
            of_kind = is_equal(self._kind, kind)
            position = positions(each.ids, ref[of_kind])
            self.place[of_kind] = np.where(position < 0, -1, position + begin)
            begin += len(each.ids)
        # Relations that are no area stand for their own members.
        order = np.argsort(relations.ids, kind="stable")
        inner = is_equal(self._kind, "relation") & (self.place < 0)
        position = positions(relations.ids[order], ref[inner])
        self._child[inner] = np.where(position < 0, -1, order[position])

    def without(self, kind: str) -> Flags:
        """Return which relations have a member of a kind that is not found."""
        lost = is_equal(self._kind, kind) & (self.place < 0)
        return np.bincount(self.row[lost], minlength=len(self._first) - 1) > 0

    def collect(self, rows: Integers) -> tuple[Geometries, Flags]:
        """Return what the members of relations amount to, each member once, and if any lacks.

        MultiPoint, MultiLineString, or GeometryCollection where they are mixed; None without any.

        Args:
            rows: (N,) numbers of the relations.
        """
        nested = np.zeros(int(self.row.max(initial=-1)) + 1, dtype=bool)
        nested[self.row[self._child >= 0]] = True
        number = np.full(len(self._first) - 1, -1)
        number[rows] = np.arange(len(rows))
        flat = number[self.row] >= 0
        flat &= ~nested[self.row]
        lacks = np.zeros(len(rows), dtype=bool)
        lacks[number[self.row[flat & (self.place < 0)]]] = True
        flat &= self.place >= 0
        owner, part = [number[self.row[flat]]], [self.place[flat]]
        for index in np.flatnonzero(nested[rows]):
            parts, lacks[index] = self._walk(int(rows[index]))
            owner.append(np.full(len(parts), index))
            part.append(np.array(parts, dtype=np.int64))
        return self._shapes(np.concatenate(owner), np.concatenate(part), len(rows)), lacks

    def _walk(self, row: int) -> tuple[list[int], bool]:
        """Return the geometries of a relation's members and of theirs, and if any lacks."""
        queue, seen, parts, lacks = [row], {row}, [], False
        for each in queue:  # grows while it is walked
            within = slice(self._first[each], self._first[each + 1])
            children = self._child[within].tolist()
            for place, child in zip(self.place[within].tolist(), children, strict=True):
                if place >= 0:
                    parts.append(place)
                elif child < 0:
                    lacks = True
                elif child not in seen:
                    seen.add(child)
                    queue.append(child)
        return parts, lacks

    def _shapes(self, owner: Integers, part: Integers, count: int) -> Geometries:
        """Return (count,) collections of the parts that each owner has, None without any."""
        _, once = np.unique(owner * max(len(self._pool), 1) + part, return_index=True)
        once = np.sort(once)
        once = once[np.argsort(owner[once], kind="stable")]
        owner, parts = owner[once], self._pool[part[once]]
        shapes = np.full(count, None, dtype=object)
        if not len(owner):
            return shapes
        kinds = shapely.get_type_id(parts)
        have, starts = np.unique(owner, return_index=True)
        least, most = np.minimum.reduceat(kinds, starts), np.maximum.reduceat(kinds, starts)
        mixed = (least != most) | (most > 1)
        for which, build in (
            (~mixed & (most == 0), shapely.multipoints),
            (~mixed & (most == 1), shapely.multilinestrings),
            (mixed, shapely.geometrycollections),
        ):
            if which.any():
                rank = np.full(count, -1)
                rank[have[which]] = np.arange(int(which.sum()))
                chosen = rank[owner] >= 0
                shapes[have[which]] = build(parts[chosen], indices=rank[owner[chosen]])
        return shapes
