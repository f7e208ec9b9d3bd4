"""What OSM files and POI files share: entities joined to the tiles they touch, and their blocks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import BLOCK_TILES, Block, Floats, Integers, Places
from urbancli.layers import ENTITY_SCHEMA, MEMBER_TYPE
from urbancli.sources._sorted_rows import SortedRows
from urbancli.sources._touching import Tiles
from urbancli.sources.base import Source, pin, places_grid
from urbancli.workspace import Geometries, geo_table

HALO_M = 1130.0
"""How far beyond the tiles entities are kept, metres: as far as the widest window of an encoder
(2,560 m) reaches beyond a tile, so that a window at the edge does not depend on the area."""

LISTED = 20
"""How many ids a fact lists beside its count."""

Member = tuple[str, int, str]
"""(type, ref, role) of a relation's member; the type is `node`, `way` or `relation`."""


class Column(Sequence[Any]):
    """An Arrow array as a sequence of Python values: maps are dicts, structs tuples.

    Attributes:
        array: (N,).
    """

    def __init__(self, array: pa.Array) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        values = self.array.to_pylist()
        if pa.types.is_map(self.array.type):
            return map(dict, values)
        if pa.types.is_list(self.array.type):
            return ([tuple(each.values()) for each in value] for value in values)
        return iter(values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        return next(iter(Column(self.array.slice(range(len(self))[index], 1))))


@dataclass(frozen=True)
class Entities:
    """What a file holds, before it meets the tiles.

    Attributes:
        entity_id: (N,) unique ids.
        tags: (N,) every tag of the entity.
        members: (N,) members of relations, empty for anything else.
        geometry: (N,) valid and not empty, EPSG:4326, lon lat.
        rank: (N,) what sorts the entities of a file; by default, the order they are given in.
    """

    entity_id: Sequence[str]
    tags: Sequence[Mapping[str, str]]
    members: Sequence[Sequence[Member]]
    geometry: Geometries
    rank: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        """Number the entities where nothing else sorts them."""
        if len(self.rank) != len(self.entity_id):
            object.__setattr__(self, "rank", np.arange(len(self.entity_id)))

    def __len__(self) -> int:
        return len(self.entity_id)


class EntitySource(Source):
    """A file of entities: read once, joined to the city's tiles, and kept in order on disk."""

    schema = ENTITY_SCHEMA
    streamed = False

    def __init__(self, path: Path) -> None:
        """Remember the file; nothing is read before `plan`."""
        self.path = path
        self._rows: SortedRows | None = None
        self._facts: dict[str, Any] = {}

    def collect(self) -> tuple[Entities, dict[str, Any]]:
        """Return what the file holds, and the facts about what it could not give."""
        raise NotImplementedError

    def stream(self, facts: dict[str, Any]) -> Iterator[Entities]:
        """Yield what the file holds, by default all that `collect` returns; then tell the facts."""
        entities, told = self.collect()
        facts.update(told)
        yield entities

    def plan(self, places: Places) -> dict[str, Any]:
        """Read the file, join it to the tiles, and return the pinned file.

        Raises:
            UrbanError: the file cannot be read, or none of its entities touches a tile.
        """
        places_grid(places)
        pinned = pin(self.path)
        facts: dict[str, Any] = {}
        self._rows, rows, city = None, SortedRows(ENTITY_SCHEMA), _City(places)
        count, box = 0, np.full(4, np.nan)
        for entities in filter(len, self.stream(facts)):
            for halo, (table, rank) in enumerate(city.rows(entities)):
                rows.add(table, rank, bool(halo))
            count += len(entities)
            bounds = shapely.total_bounds(entities.geometry)
            box = np.append(np.fmin(box[:2], bounds[:2]), np.fmax(box[2:], bounds[2:]))
        if not city.counts[0]:
            raise UrbanError(f"{self.path} misses the city: {_whereabouts(count, box, places)}")
        self._rows = rows
        rows.sort([block.block_id for block in self.blocks(places)])
        self._facts = {
            **facts,
            "kept": sum(city.counts),
            "outside": count - sum(city.counts),
            "halo": city.counts[1],
            "tiles": len(places),
            "tiles_with_any": int(city.touched.sum()),
        }
        return {"inputs": [pinned], "halo_m": HALO_M}

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles and of the halo around them that hold any."""
        names = self._rows.blocks if self._rows else []
        numbers = [name.rpartition("_b")[2].split("_") for name in names]
        cells = np.array(numbers, dtype=np.int64).reshape(-1, 2) * BLOCK_TILES
        return places_grid(places).blocks(cells)

    def read(self, block: Block) -> pa.Table:
        """Return the entities of one block, those of the halo last; after `plan`.

        Those of the halo touch no tile of the city: their `places` is empty.
        """
        return self.rows.of_block(block.block_id)

    @property
    def rows(self) -> SortedRows:
        """All entities, in the order of a layer's file; after `plan`."""
        if self._rows is None:
            raise RuntimeError("read before plan")
        return self._rows

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return what was kept, outside, repaired and broken, and how many tiles hold any."""
        return self._facts


def _whereabouts(count: int, box: Floats, places: Places) -> str:
    """Say where the entities are and where the city is, west,south,east,north in degrees."""
    lon, lat = places.lonlat()
    city = (lon.min(), lat.min(), lon.max(), lat.max())
    boxes = [",".join(f"{value:.3f}" for value in each) for each in (box, city)]
    return f"its {count:,} entities lie in {boxes[0]}, the city in {boxes[1]}"


def count_and_list(ids: Sequence[str]) -> dict[str, Any]:
    """Return how many ids there are and the first of them, for a layer's facts."""
    return {"count": len(ids), "ids": list(ids[:LISTED])}


def repair(geometry: Geometries) -> npt.NDArray[np.bool_]:
    """Make invalid polygons valid, in place, and return which they were.

    Of a polygon that falls apart into polygons and slivers of lines, the polygons are kept.

    Args:
        geometry: (N,) of any type and CRS.
    """
    areal = np.isin(shapely.get_type_id(geometry), (3, 6))
    invalid = areal & ~shapely.is_valid(geometry)
    for index in np.flatnonzero(invalid):
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(geometry[index])))
        polygons = parts[shapely.get_type_id(parts) == 3]
        parts = polygons if len(polygons) else parts
        geometry[index] = shapely.union_all(parts)
    return invalid


def join_tiles(entities: Entities, tiles: Tiles, candidates: Integers | None = None) -> pa.Table:
    """Return the entities that touch a tile, as a table of `ENTITY_SCHEMA`, in their order.

    An entity touches a tile where their intersection, borders included, is not empty. Its block is
    that of the touched tile whose centre is nearest to the entity's centroid, the earlier tile in
    a tie. Edges are straight between projected vertices.

    Args:
        entities: what to join.
        tiles: of one grid, each once.
        candidates: numbers of the entities that may touch any; else those near the city.
    """
    return _join(entities, tiles, candidates)[0]


def _join(
    entities: Entities, tiles: Tiles, candidates: Integers | None = None
) -> tuple[pa.Table, Integers, Integers]:
    """Return what `join_tiles` does, the numbers of these entities, and the tiles they touch."""
    near = np.flatnonzero(tiles.near(entities.geometry)) if candidates is None else candidates
    geometry = entities.geometry[near]
    entity, place = tiles.touching(geometry)
    kept, starts = np.unique(entity, return_index=True)
    index = near[kept]
    columns = {
        "entity_id": _chosen(entities.entity_id, index, lambda ids: pa.array(ids, pa.string())),
        "tags": _chosen(entities.tags, index, _tag_maps),
        "members": _chosen(entities.members, index, _member_lists),
        "places": pa.ListArray.from_arrays(
            pa.array(np.append(starts, len(entity)), pa.int32()), tiles.ids.take(pa.array(place))
        ),
        "block": tiles.nearest_blocks(geometry, entity, place),
    }
    table = geo_table(columns, entities.geometry[index])
    return table.select(ENTITY_SCHEMA.names).cast(ENTITY_SCHEMA), index, place


class _City:
    """The tiles of a city and of the halo around it, and how many of a file's entities they got.

    Attributes:
        counts: entities that touch a tile, and others of the halo.
        touched: (N,) which tiles any entity touches.
    """

    def __init__(self, places: Places) -> None:
        grid = places.grid
        cells = grid.halo(places.cells, HALO_M)
        x, y = ((cells + 0.5) * grid.tile_m).T
        ids = grid.tile_ids(cells).to_numpy(zero_copy_only=False)
        self._tiles = Tiles(places)
        self._wider = Tiles(Places(grid, ids, "tile", x, y, np.ones(len(cells))))
        self.counts = [0, 0]
        self.touched = np.zeros(len(places), dtype=bool)

    def rows(self, entities: Entities) -> Iterator[tuple[pa.Table, Integers]]:
        """Yield tables of those that touch a tile, and of those that touch one of the halo only.

        Of the latter `places` is empty. Beside each table stands what sorts its rows, (N,).
        """
        table, index, place = _join(entities, self._tiles)
        self.touched[place] = True
        self.counts[0] += len(index)
        yield table, entities.rank[index]
        near = self._wider.near(entities.geometry)
        near[index] = False
        table, index, _ = _join(entities, self._wider, np.flatnonzero(near))
        self.counts[1] += len(index)
        column = table.schema.get_field_index("places")
        none = pa.array([[]] * table.num_rows, ENTITY_SCHEMA.field("places").type)
        yield (
            table.set_column(column, ENTITY_SCHEMA.field("places"), none),
            entities.rank[index],
        )


def _chosen(values: Sequence[Any], index: Integers, build: Callable[[Any], pa.Array]) -> pa.Array:
    """Return some values as an Arrow array, built from Python values where they are none yet."""
    if isinstance(values, Column):
        return values.array.take(pa.array(index))
    return build([values[i] for i in index])


def _tag_maps(tags: Sequence[Mapping[str, str]]) -> pa.Array:
    """Return tags as a map column, keys in alphabetical order whatever the file's."""
    return pa.array([sorted(each.items()) for each in tags], ENTITY_SCHEMA.field("tags").type)


def _member_lists(members: Sequence[Sequence[Member]]) -> pa.Array:
    offsets = np.cumsum([0, *(len(each) for each in members)])
    flat = [member for each in members for member in each]
    columns = zip(*flat, strict=True) if flat else ((), (), ())
    values = pa.StructArray.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, MEMBER_TYPE, strict=True)],
        fields=list(MEMBER_TYPE),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
