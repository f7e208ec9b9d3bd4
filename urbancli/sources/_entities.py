"""What OSM files and POI files share: entities joined to the tiles they touch, and their blocks.

The tiles are a regular grid, so candidates come from arithmetic on bounding boxes and only the
entities that span several tiles are tested against them: exact, and no index over millions of
tiles is needed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import BLOCK_TILES, Block, Floats, Grid, Integers, Places
from urbancli.layers import ENTITY_SCHEMA, MEMBER_TYPE
from urbancli.sources.base import Source, pin, places_grid
from urbancli.workspace import Geometries, geo_table

CANDIDATES = 2_000_000
"""Pairs of entity and tile tested at a time: bounds the memory."""

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
    """

    entity_id: Sequence[str]
    tags: Sequence[Mapping[str, str]]
    members: Sequence[Sequence[Member]]
    geometry: Geometries

    def __len__(self) -> int:
        return len(self.entity_id)


class EntitySource(Source):
    """A file of entities: read once, joined to the city's tiles, and handed out by block."""

    schema = ENTITY_SCHEMA
    streamed = False

    def __init__(self, path: Path) -> None:
        """Remember the file; nothing is read before `plan`."""
        self.path = path
        self._table = ENTITY_SCHEMA.empty_table()
        self._rows: dict[str, tuple[int, int]] = {}
        self._facts: dict[str, Any] = {}

    def collect(self) -> tuple[Entities, dict[str, Any]]:
        """Return what the file holds, and the facts about what it could not give."""
        raise NotImplementedError

    def plan(self, places: Places) -> dict[str, Any]:
        """Read the file, join it to the tiles, and return the pinned file.

        Raises:
            UrbanError: the file cannot be read, or none of its entities touches a tile.
        """
        places_grid(places)
        pinned = pin(self.path)
        entities, facts = self.collect()
        table = join_tiles(entities, places)
        if not table.num_rows:
            raise UrbanError(f"{self.path} misses the city: {_whereabouts(entities, places)}")
        around = join_halo(entities, table, places)
        tiles_with_any = len(pc.unique(pc.list_flatten(table.column("places"))))
        table = pa.concat_tables([table, around])
        encoded = table.column("block").combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        rank = np.argsort(np.argsort(np.array(names)))
        blocks = rank[encoded.indices.to_numpy()]
        self._table = table.take(pa.array(np.argsort(blocks, kind="stable")))
        counts = np.bincount(blocks).tolist()
        starts = np.cumsum([0, *counts]).tolist()
        self._rows = dict(zip(sorted(names), zip(starts, counts, strict=False), strict=True))
        self._facts = {
            **facts,
            "kept": table.num_rows,
            "outside": len(entities) - table.num_rows,
            "halo": around.num_rows,
            "tiles": len(places),
            "tiles_with_any": tiles_with_any,
        }
        return {"inputs": [pinned], "halo_m": HALO_M}

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles and of the halo around them that hold any."""
        numbers = [name.rpartition("_b")[2].split("_") for name in self._rows]
        cells = np.array(numbers, dtype=np.int64).reshape(-1, 2) * BLOCK_TILES
        return places_grid(places).blocks(cells)

    def read(self, block: Block) -> pa.Table:
        """Return the entities of one block, those of the halo last; after `plan`.

        Those of the halo touch no tile of the city: their `places` is empty.
        """
        if not self._rows:
            raise RuntimeError("read before plan")
        start, count = self._rows.get(block.block_id, (0, 0))
        return self._table.slice(start, count)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return what was kept, outside, repaired and broken, and how many tiles hold any."""
        return self._facts


def _whereabouts(entities: Entities, places: Places) -> str:
    """Say where the entities are and where the city is, west,south,east,north in degrees."""
    lon, lat = places.lonlat()
    city = (lon.min(), lat.min(), lon.max(), lat.max())
    boxes = [
        ",".join(f"{value:.3f}" for value in box)
        for box in (shapely.total_bounds(entities.geometry), city)
    ]
    return f"its {len(entities):,} entities lie in {boxes[0]}, the city in {boxes[1]}"


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


def join_tiles(entities: Entities, places: Places, candidates: Integers | None = None) -> pa.Table:
    """Return the entities that touch a tile, as a table of `ENTITY_SCHEMA`, in their order.

    An entity touches a tile where their intersection, borders included, is not empty. Its block is
    that of the touched tile whose centre is nearest to the entity's centroid, the earlier tile in
    a tie. Edges are straight between projected vertices.

    Args:
        entities: what to join.
        places: tiles of one grid, each once.
        candidates: numbers of the entities that may touch any; else those near the city.
    """
    near = np.flatnonzero(_near(entities.geometry, places)) if candidates is None else candidates
    geometry = entities.geometry[near]
    entity, place = _touching(geometry, places)
    kept, starts = np.unique(entity, return_index=True)
    ids = pa.array(places.place_id.tolist(), pa.string())
    index = near[kept]
    columns = {
        "entity_id": _chosen(entities.entity_id, index, lambda ids: pa.array(ids, pa.string())),
        "tags": _chosen(entities.tags, index, _tag_maps),
        "members": _chosen(entities.members, index, _member_lists),
        "places": pa.ListArray.from_arrays(
            pa.array(np.append(starts, len(entity)), pa.int32()), ids.take(pa.array(place))
        ),
        "block": _nearest_blocks(geometry, entity, place, places),
    }
    table = geo_table(columns, entities.geometry[index])
    return table.select(ENTITY_SCHEMA.names).cast(ENTITY_SCHEMA)


def join_halo(entities: Entities, joined: pa.Table, places: Places) -> pa.Table:
    """Return the entities that touch no tile, but one within `HALO_M` of them; `places` is empty.

    Args:
        entities: what was joined.
        joined: those that touch a tile, from `join_tiles`.
        places: the tiles.
    """
    grid = places.grid
    cells = grid.halo(places.cells, HALO_M)
    x, y = ((cells + 0.5) * grid.tile_m).T
    ids = grid.tile_ids(cells).to_numpy(zero_copy_only=False)
    wider = Places(grid, ids, "tile", x, y, np.ones(len(cells)))
    index = np.flatnonzero(_near(entities.geometry, wider))
    ids = _chosen(entities.entity_id, index, lambda ids: pa.array(ids, pa.string()))
    outside = pc.invert(pc.is_in(ids, joined.column("entity_id")))
    index = index[outside.to_numpy(zero_copy_only=False)]
    table = join_tiles(entities, wider, index)
    column = table.schema.get_field_index("places")
    none = pa.array([[]] * table.num_rows, ENTITY_SCHEMA.field("places").type)
    return table.set_column(column, ENTITY_SCHEMA.field("places"), none)


def _near(geometry: Geometries, places: Places) -> npt.NDArray[np.bool_]:
    """Return which geometries (EPSG:4326) have a box that meets the city's, two tiles wider.

    A cheap test that spares most of a country's file the projection. The box of a city across the
    antimeridian goes round the globe and lets all longitudes pass.
    """
    lon, lat = places.lonlat()
    degrees = 2 * places.grid.tile_m / 111_000
    wider = degrees / np.cos(np.radians(min(np.abs(lat).max(), 87.0)))
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    near: npt.NDArray[np.bool_] = (
        (bounds[:, 0] <= lon.max() + wider)
        & (bounds[:, 2] >= lon.min() - wider)
        & (bounds[:, 1] <= lat.max() + degrees)
        & (bounds[:, 3] >= lat.min() - degrees)
    )
    return near


def _touching(geometry: Geometries, places: Places) -> tuple[Integers, Integers]:
    """Return the pairs (entity, place) that touch, sorted.

    Collections are taken part by part: the box of a bus route has many tiles, those of its streets
    have few. What lies within one tile, as most do, is known by its box alone.

    Args:
        geometry: (N,), EPSG:4326.
        places: tiles of one grid, each once.
    """
    cells = places.cells
    low, high = cells.min(axis=0), cells.max(axis=0)
    height = int(high[1] - low[1] + 1)
    keys = (cells[:, 0] - low[0]) * height + cells[:, 1] - low[1]
    order = np.argsort(keys)
    keys = keys[order]

    parts, whole = _parts(geometry)
    points, sizes, bounds = _projected(parts, places.grid)
    bounds /= places.grid.tile_m
    bounds[~np.isfinite(bounds).all(axis=1)] = 0.5 + np.tile(high + 1, 2)  # beyond every tile
    # A box that ends on the border of a tile touches the tile on its other side too.
    first, last = np.ceil(bounds[:, :2]) - 1, np.floor(bounds[:, 2:])
    single = (first == last).all(axis=1)
    start = np.maximum(first, low).astype(np.int64)
    size = np.maximum(np.minimum(last, high).astype(np.int64) - start + 1, 0)
    count = size.prod(axis=1)
    wide = ~single & (count > 0)
    parts[wide] = shapely.set_coordinates(parts[wide], points[np.repeat(wide, sizes)])
    shapely.prepare(parts[count > 4])

    found: list[Integers] = []
    limits = np.arange(CANDIDATES, int(count.sum()), CANDIDATES)
    for chunk in np.split(np.arange(len(parts)), np.searchsorted(np.cumsum(count), limits)):
        part = np.repeat(chunk, count[chunk])
        first_pair = np.cumsum(count[chunk]) - count[chunk]
        step = np.arange(len(part)) - np.repeat(first_pair, count[chunk])
        column = start[part, 0] - low[0] + step // size[part, 1]
        row = start[part, 1] - low[1] + step % size[part, 1]
        key = column * height + row
        position = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        exists = keys[position] == key
        part, place = part[exists], order[position[exists]]
        touches = single[part]
        test = np.flatnonzero(~touches)
        near, box = np.unique(place[test], return_inverse=True)
        boxes = places.grid.tile_boxes(cells[near])[box]
        touches[test] = shapely.intersects(parts[part[test]], boxes)
        found.append(whole[part[touches]] * len(cells) + place[touches])
    pairs = np.sort(np.concatenate(found))
    pairs = pairs[np.append(True, np.diff(pairs) != 0)[: len(pairs)]]
    return pairs // len(cells), pairs % len(cells)


def _parts(geometry: Geometries) -> tuple[Geometries, Integers]:
    """Return geometries, those of several parts taken apart, and of which (N,) each is."""
    several = shapely.get_type_id(geometry) > 3
    parts, owner = shapely.get_parts(geometry[several], return_index=True)
    whole = np.concatenate([np.flatnonzero(~several), np.flatnonzero(several)[owner]])
    return np.concatenate([geometry[~several], parts]), whole


def _projected(geometry: Geometries, grid: Grid) -> tuple[Floats, Integers, Floats]:
    """Return what geometries (N,), EPSG:4326, are in a grid's CRS, metres.

    Returns:
        The points of all, shape (P, 2); how many each has, (N,); and their boxes, (N, 4), infinite
        where there are none.
    """
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    points = np.column_stack(grid.project(points[:, 0], points[:, 1]))
    sizes = np.bincount(owner, minlength=len(geometry))
    some = np.flatnonzero(sizes)
    boxes = np.full((len(geometry), 4), np.inf)
    if len(some):
        first = (np.cumsum(sizes) - sizes)[some]
        boxes[some, :2] = np.minimum.reduceat(points, first)
        boxes[some, 2:] = np.maximum.reduceat(points, first)
    return points, sizes, boxes


def _nearest_blocks(
    geometry: Geometries, entity: Integers, place: Integers, places: Places
) -> pa.Array:
    """Return the block id of every entity among the sorted pairs; geometry (N,) in EPSG:4326."""
    first = np.flatnonzero(np.append(True, np.diff(entity) != 0)[: len(entity)])
    nearest = place[first]
    several = np.diff(np.append(first, len(entity))) > 1
    pair = np.flatnonzero(np.isin(entity, entity[first[several]]))
    centre = shapely.centroid(places.grid.project_geometry(geometry[entity[first[several]]]))
    one = np.searchsorted(entity[first[several]], entity[pair])
    x, y = shapely.get_x(centre)[one], shapely.get_y(centre)[one]
    distance = (places.x[place[pair]] - x) ** 2 + (places.y[place[pair]] - y) ** 2
    order = np.lexsort((place[pair], distance, one))
    nearest[several] = place[pair[order]][np.unique(one[order], return_index=True)[1]]
    return places.grid.block_ids(places.cells[nearest])


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
