"""Layers: what a source brought, their schemas, and `window()` over pixels.

Two shapes of layer exist. A *pixel layer* (`sentinel2`, `naip`, `sentinel1`) holds one row per tile
on a pixel grid aligned to the tiles, the tiles of the halo included. An *entity layer* (`entities`,
`pois`) holds one row per OSM-like entity; buildings, areas of interest and POIs of an OSM
file are views of it, with the same columns.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from urbancli.city import synthetic_marks
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.grid import Grid, Places, cells_of_ids, places_from_table
from urbancli.workspace import BBOX_TYPE, Workspace, geometries, open_parquet, read_json, read_table

NOMINAL_PIXEL_M = {"sentinel2": 10.0, "naip": 0.6, "sentinel1": 10.0}
"""Imagery layers and the pixel size each sensor is brought to, metres."""

ENTITY_LAYERS = ("entities", "pois", "buildings", "aoi")

MODALITIES = ("coords", *NOMINAL_PIXEL_M, *ENTITY_LAYERS, "basemap", "streetview")
"""What a method can see and `--drop` can remove."""

MODALITY_GROUPS = {
    "satellite": ("sentinel2", "naip", "sentinel1"),
    "osm": ("entities", "buildings", "aoi", "basemap"),
}

PIXEL_SCHEMA = pa.schema(
    [
        ("place_id", pa.string()),
        ("block", pa.string()),
        ("valid_fraction", pa.float64()),
        ("pixels", pa.binary()),
        ("valid", pa.binary()),
        ("bbox", BBOX_TYPE),
        ("geometry", pa.binary()),
    ]
)
"""One row per tile. `pixels`: C-order little-endian samples (bands, rows, columns), north first;
`valid`: packed bits (rows, columns), empty where all or none are valid. Shape, dtype, band names,
pixel size and CRS are in the file's `urban` metadata; the transform follows from the tile's id."""

MEMBER_TYPE = pa.struct([("type", pa.string()), ("ref", pa.int64()), ("role", pa.string())])

ENTITY_SCHEMA = pa.schema(
    [
        ("entity_id", pa.string()),
        ("tags", pa.map_(pa.string(), pa.string())),
        ("members", pa.list_(MEMBER_TYPE)),
        ("places", pa.list_(pa.string())),
        ("block", pa.string()),
        ("bbox", BBOX_TYPE),
        ("geometry", pa.binary()),
    ]
)
"""`entity_id` is `node/1`, `way/1`, `relation/1`, `poi/1` or `building/1`, the last two not of OSM;
`members` of relations, with roles; `places` are the ids of the tiles the geometry touches, none
for those of the halo."""

POI_KEYS = (
    "amenity", "shop", "tourism", "leisure", "office", "healthcare", "craft", "historic",
    "category",
)  # fmt: skip
"""Keys whose value names the kind of a point of interest, the first present one counts."""

AOI_KEYS = ("landuse", "leisure", "natural", "amenity", "tourism", "place")
"""Keys that make a polygon an area of interest."""

CACHE_BYTES = 512 << 20


def expand_modalities(names: Iterable[str]) -> list[str]:
    """Return single modalities for names of modalities or groups, without repeats.

    Raises:
        UsageError: a name is neither.
    """
    expanded: list[str] = []
    for name in names:
        if name not in MODALITIES and name not in MODALITY_GROUPS:
            raise unknown("modality", name, [*MODALITIES, *MODALITY_GROUPS])
        expanded += MODALITY_GROUPS.get(name, (name,))
    return list(dict.fromkeys(expanded))


# --- pixels ----------------------------------------------------------------------------------


def pixel_size(layer: str, native_m: float, tile_m: int) -> float:
    """Return the pixel size of a layer, metres: a whole number of pixels fits a tile's side.

    The sensor's nominal size where the file's own is within a factor of 1.5 of it, else the size
    nearest to the file's own.

    Args:
        layer: name of the imagery layer.
        native_m: the file's own pixel size, metres.
        tile_m: side of a tile, metres.
    """
    nominal = NOMINAL_PIXEL_M[layer]
    wanted = nominal if 1 / 1.5 <= native_m / nominal <= 1.5 else native_m
    return tile_m / max(1, round(tile_m / wanted))


class PixelLayer:
    """A pixel layer opened for reading windows; row groups are decoded once and kept, bounded.

    Attributes:
        grid: the tile grid.
        pixel_m: pixel size, metres.
        bands: names of the bands.
        dtype: numpy dtype of the samples.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        self._file, facts = open_parquet(path)
        self.grid = grid
        self.bands: list[str] = facts["bands"]
        self.dtype = np.dtype(facts["dtype"])
        self.pixel_m: float = facts["pixel_m"]
        self._side = round(grid.tile_m / self.pixel_m)
        self._group_of: dict[tuple[int, int], int] = {}
        self._cache: OrderedDict[int, dict[tuple[int, int], Any]] = OrderedDict()
        self._bytes = 0
        for group in range(self._file.num_row_groups):
            ids = self._file.read_row_group(group, columns=["place_id"]).column(0)
            self._group_of.update(dict.fromkeys(_cells(ids), group))

    def window(
        self, x: float, y: float, size_m: float
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the square of `size_m` around a point, exact across tiles and blocks.

        Args:
            x: easting of the centre, metres, grid's CRS; snapped to the nearest pixel edge.
            y: northing of the centre, metres.
            size_m: side, metres, rounded to whole pixels.

        Returns:
            Samples (bands, S, S), first row north, zero where unknown; and validity (S, S).
        """
        side = round(size_m / self.pixel_m)
        column = round(x / self.pixel_m - side / 2)
        row = round(-y / self.pixel_m - side / 2)
        return self.read(column, row, side, side)

    def read(
        self, column: int, row: int, width: int, height: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return a box of the zone's pixel grid.

        Args:
            column: first pixel column, counted eastwards from the zone's origin.
            row: first pixel row, counted southwards from the zone's origin: negative north of it.
            width: pixels.
            height: pixels.

        Returns:
            Samples (bands, height, width), first row north; and validity (height, width).
        """
        samples = np.zeros((len(self.bands), height, width), dtype=self.dtype)
        valid = np.zeros((height, width), dtype=bool)
        side = self._side
        for tile_column in range(column // side, (column + width - 1) // side + 1):
            for tile_south in range(row // side, (row + height - 1) // side + 1):
                tile = self._tile(tile_column, -1 - tile_south)
                if tile is None:
                    continue
                left, top = tile_column * side - column, tile_south * side - row
                into = (
                    slice(max(top, 0), min(top + side, height)),
                    slice(max(left, 0), min(left + side, width)),
                )
                part = (
                    slice(into[0].start - top, into[0].stop - top),
                    slice(into[1].start - left, into[1].stop - left),
                )
                samples[(slice(None), *into)] = tile[0][(slice(None), *part)]
                valid[into] = tile[1][part]
        return samples, valid

    def _tile(self, column: int, row: int) -> Any:
        group = self._group_of.get((column, row))
        if group is None:
            return None
        if group not in self._cache:
            self._load(group)
        self._cache.move_to_end(group)
        return self._cache[group][(column, row)]

    def _load(self, group: int) -> None:
        table = self._file.read_row_group(
            group, columns=["place_id", "valid_fraction", "pixels", "valid"]
        )
        tiles = {}
        shape = (len(self.bands), self._side, self._side)
        for cell, row in zip(_cells(table.column("place_id")), table.to_pylist(), strict=True):
            samples = np.frombuffer(row["pixels"], self.dtype.newbyteorder("<")).reshape(shape)
            tiles[cell] = (samples, unpack_valid(row, self._side))
            self._bytes += samples.nbytes
        self._cache[group] = tiles
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._bytes -= sum(samples.nbytes for samples, _ in old.values())


def _cells(place_ids: pa.ChunkedArray) -> list[tuple[int, int]]:
    return [(column, row) for column, row in cells_of_ids(place_ids.combine_chunks()).tolist()]


def pack_valid(valid: npt.NDArray[np.bool_]) -> tuple[float, bytes]:
    """Return (valid_fraction, packed bits) of a tile's validity; no bits where all or none hold."""
    share = np.count_nonzero(valid) / valid.size
    return share, b"" if share in {0.0, 1.0} else np.packbits(valid).tobytes()


def unpack_valid(row: dict[str, Any], side: int) -> npt.NDArray[np.bool_]:
    """Return the validity (side, side) of a row of a pixel layer."""
    if not row["valid"]:
        return np.full((side, side), row["valid_fraction"] == 1.0)
    bits = np.unpackbits(np.frombuffer(row["valid"], np.uint8), count=side * side)
    return bits.reshape(side, side).astype(bool)


# --- entities --------------------------------------------------------------------------------


def has_tag(table: pa.Table, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which rows of an entity layer carry any of the keys with a value other than `no`."""
    found = np.zeros(table.num_rows, dtype=bool)
    tags = table.column("tags").combine_chunks()
    for key in keys:
        values = pc.map_lookup(tags, pa.scalar(key), "first")
        kept = pc.fill_null(pc.not_equal(values, "no"), False)
        found |= kept.to_numpy(zero_copy_only=False)
    return found


def poi_category(tags: dict[str, str]) -> str | None:
    """Return `key=value` of the first of `POI_KEYS` that names what a place is, or None."""
    for key in POI_KEYS:
        value = tags.get(key)
        if value and value != "no":
            return f"{key}={value}"
    return None


def entity_view(table: pa.Table, view: str) -> pa.Table:
    """Return the rows of an entity layer that are `buildings`, `aoi` or `pois`; same columns."""
    areal = np.isin(shapely.get_type_id(geometries(table)), (3, 6))
    if view == "buildings":
        mask = has_tag(table, ["building"]) & areal
    elif view == "aoi":
        mask = has_tag(table, AOI_KEYS) & areal & ~has_tag(table, ["building"])
    elif view == "pois":
        mask = has_tag(table, POI_KEYS)
    else:
        return table
    return table.filter(pa.array(mask))


# --- a city's layers -------------------------------------------------------------------------


@dataclass(frozen=True)
class CityLayers:
    """Read access to a fetched city.

    Attributes:
        workspace: where it lies.
        key: the city.
        grid: its tile grid.
    """

    workspace: Workspace
    key: str
    grid: Grid

    def marks(self) -> dict[str, str]:
        """Return what every file made from this city must say: that it is synthetic, or nothing."""
        return synthetic_marks(fetched_area(self.workspace, self.key).get("origin"))

    def tiles(self) -> Places:
        """Return the city's tiles in file order: the order of every token and embedding table."""
        table, _ = read_table(self.workspace.places_file(self.key))
        return places_from_table(table, self.grid)

    def holds(self, places: Places) -> npt.NDArray[np.bool_]:
        """Return which places (N,) have their centre in one of the city's tiles."""
        tiles = set(map(tuple, self.tiles().cells.tolist()))
        return np.array([tuple(cell) in tiles for cell in places.cells.tolist()], dtype=bool)

    def modalities(self) -> list[str]:
        """Return the modalities this city has data for; `coords` always, some as views."""
        have = {"coords", *self.workspace.layers(self.key), *self.views()}
        have |= {"pois"} if "entities" in have else set()
        return [name for name in MODALITIES if name in have]

    def views(self) -> list[str]:
        """Return the modalities that only show again what `entities` holds, in another way."""
        layers = self.workspace.layers(self.key)
        names = ("buildings", "aoi", "basemap") if "entities" in layers else ()
        return [name for name in names if name not in layers]

    def source_layer(self, modality: str) -> str:
        """Return the layer a modality is read from: its own, or the entities it is a view of."""
        own = self.workspace.layer_file(self.key, modality).exists()
        return modality if own or modality not in (*ENTITY_LAYERS, "basemap") else "entities"

    def pixels(self, modality: str) -> PixelLayer:
        """Open an imagery layer."""
        return PixelLayer(self._existing(modality), self.grid)

    def entities(self, modality: str) -> pa.Table:
        """Return an entity layer, or the view of `entities` that a modality is."""
        layer = self.source_layer(modality)
        table, _ = read_table(self._existing(layer))
        return table if layer == modality else entity_view(table, modality)

    def checksum(self, modality: str) -> str:
        """Return the SHA-256 of the layer a modality is read from, as the manifest lists it."""
        if modality == "coords":
            return ""
        path = self._existing(self.source_layer(modality))
        name = path.relative_to(self.workspace.city_dir(self.key)).as_posix()
        listed = self.workspace.listed_files(self.key)
        if name not in listed:
            raise UrbanError(
                f"{path} is not in the city's manifest (a fetch did not end, or it was copied "
                f"there): run the same `urban fetch --city {self.key}` again"
            )
        return str(listed[name]["sha256"])

    def _existing(self, layer: str) -> Path:
        path = self.workspace.layer_file(self.key, layer)
        if not path.exists():
            raise UrbanError(
                f"'{self.key}' has no layer '{layer}': run `urban fetch --city {self.key}` with it"
            )
        return path


def open_city(workspace: Workspace, key: str) -> CityLayers:
    """Return a fetched city's layers.

    Raises:
        UsageError: it has not been fetched, or not to the end.
    """
    if key not in workspace.cities():
        if workspace.lock_file(key).exists():
            raise UsageError(f"'{key}' is not wholly fetched: run `urban fetch --city {key}` again")
        fetched = workspace.cities()
        hint = f"fetched so far: {', '.join(fetched)}" if fetched else "nothing is fetched yet"
        raise UsageError(f"no data for '{key}' ({hint}): run `urban fetch --city {key}`")
    city = fetched_area(workspace, key)
    return CityLayers(workspace, key, Grid(city["epsg"], city["tile_m"]))


def fetched_area(workspace: Workspace, key: str, also: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the lock says of a city: at least `epsg`, `tile_m`, and `also`.

    Raises:
        UrbanError: there is no lock, or it lacks any of these.
    """
    path = workspace.lock_file(key)
    city = read_json(path).get("city")
    if not isinstance(city, dict) or not {"epsg", "tile_m", *also} <= set(city):
        raise UrbanError(
            f"{path} does not say which area '{key}' is: delete it and run the same "
            f"`urban fetch --city {key}` again, with --bbox or --aoi if it had one"
        )
    return city
