"""What street-view sources share: which photos of a tile are taken, and the rows they become.

A row is a photo with the spot it was taken from, which way it looks and when it was taken. Of a
tile a few photos are taken, spread over its area and over the directions they look in, so that an
encoder that averages or samples them sees the tile and not one drive along one street.
"""

import io
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Block, Floats, Grid, Places, parse_tile_id
from urbancli.hilbert import hilbert_order
from urbancli.sources._entities import count_and_list
from urbancli.sources.base import Estimate, Source, places_grid
from urbancli.workspace import BBOX_TYPE, geo_table

SIDE_PX = 1024
"""The longest side of a photo that we make, pixels."""

LARGEST_PX = 4096
"""The longest side of a photo that is taken as it is given, pixels."""

AT_ONCE = 4
"""Photos of a block that are read at a time."""

PER_TILE = 4
"""Photos of a tile, at most: as many directions as a crossing has."""

HEADING_WEIGHT = 0.5
"""What looking the opposite way is worth, in sides of a tile."""

STREETVIEW_SCHEMA = pa.schema(
    [
        ("photo_id", pa.string()),
        ("place_id", pa.string()),
        ("block", pa.string()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("heading", pa.float64()),
        ("captured", pa.string()),
        ("panorama", pa.bool_()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.binary()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("creator", pa.string()),
        ("bbox", BBOX_TYPE),
        ("geometry", pa.binary()),
    ]
)
"""One row per photo, a photo once. `place_id`: the tile it was taken in; `lon`, `lat`: from where,
EPSG:4326 degrees, also as `geometry`; `heading`: degrees clockwise from north, null where unknown;
`captured`: year and month (`2023-07`), null where unknown; `panorama`: whether `image` shows the
whole circle, its width 360 degrees; `width`, `height`: of `image`, pixels; `image`: a JPEG."""


@dataclass(frozen=True)
class Spot:
    """A photo before it is read.

    Attributes:
        photo_id: unique.
        lon: degrees, EPSG:4326.
        lat: degrees, EPSG:4326.
        heading: degrees clockwise from north, or None.
        captured: year and month, or None.
        panorama: whether it shows the whole circle.
        creator: whom to name, or None.
    """

    photo_id: str
    lon: float
    lat: float
    heading: float | None = None
    captured: str | None = None
    panorama: bool = False
    creator: str | None = None

    def pin(self) -> list[Any]:
        """Return what a plan keeps."""
        return [
            self.photo_id, self.lon, self.lat, self.heading, self.captured, self.panorama,
            self.creator,
        ]  # fmt: skip


@dataclass(frozen=True)
class Image:
    """A whole JPEG: its bytes, width and height in pixels."""

    content: bytes
    width: int
    height: int


class PhotoSource(Source):
    """Photos of a city's tiles, a block at a time.

    Args:
        per_tile: photos of a tile, at most.

    Facts: `photos` that are there, `tiles_with_any` of `tiles`, `left_out` (more than `per_tile`),
    `gone` (planned, and no longer to be had or not to be read), `with_heading`, `panoramas`, and
    how many photos each year gave.
    """

    layer = "streetview"
    schema = STREETVIEW_SCHEMA
    streamed = True
    name: str
    image_licence: str
    typical_bytes = 200_000

    def __init__(self, per_tile: int) -> None:
        if per_tile < 1:
            raise UsageError(f"{per_tile} photos of a tile: take at least one")
        self._per_tile = per_tile
        self._chosen: dict[str, list[Spot]] = {}
        self._tiles = 0
        self._left_out = 0

    @abstractmethod
    def image(self, spot: Spot) -> Image | None:
        """Return a photo; None where it is gone or broken for good.

        Raises:
            ServiceError: it cannot be had now.
        """

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles."""
        return places_grid(places).blocks(places.cells)

    def read(self, block: Block) -> pa.Table:
        """Return the photos of one block, in Hilbert order of their spots."""
        grid = Grid(block.epsg, block.tile_m)
        names = [grid.tile_id(column, row) for column, row in block.tiles().tolist()]
        spots = [(place, spot) for place in names for spot in self._chosen.get(place, [])]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            images = list(pool.map(lambda placed: self.image(placed[1]), spots))
        rows = [
            (place, spot, image)
            for (place, spot), image in zip(spots, images, strict=True)
            if image is not None
        ]
        return self._table(rows, block)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return how many photos there are, of when, and which are missing."""
        there = set(tiles.column("photo_id").to_pylist())
        planned = [spot.photo_id for spots in self._chosen.values() for spot in spots]
        months = tiles.column("captured").to_pylist()
        years = Counter(month[:4] if month else "unknown" for month in months)
        return {
            "photos": tiles.num_rows,
            "per_tile": self._per_tile,
            "tiles": self._tiles,
            "tiles_with_any": len(set(tiles.column("place_id").to_pylist())),
            "left_out": self._left_out,
            "gone": count_and_list(sorted(set(planned) - there)),
            "with_heading": tiles.num_rows - tiles.column("heading").null_count,
            "panoramas": sum(tiles.column("panorama").to_pylist()),
            "years": dict(sorted(years.items())),
        }

    def estimate(self, places: Places) -> Estimate:
        """Return how many photos will be read."""
        photos = sum(map(len, self._chosen.values()))
        return Estimate(photos, len(self.blocks(places)), 0, photos * self.typical_bytes)

    def _take(self, tiles: dict[str, list[list[Any]]], left_out: int, places: Places) -> None:
        """Take what a plan pins: photos by tile."""
        self._chosen = {place: [Spot(*row) for row in rows] for place, rows in tiles.items()}
        self._left_out = left_out
        self._tiles = len(places)

    def _table(self, rows: Sequence[tuple[str, Spot, Image]], block: Block) -> pa.Table:
        points = np.asarray(
            shapely.points([[spot.lon, spot.lat] for _, spot, _ in rows] or np.empty((0, 2))),
            dtype=object,
        )
        order = hilbert_order(points)
        rows = [rows[index] for index in order]
        values: dict[str, list[Any]] = {
            "photo_id": [spot.photo_id for _, spot, _ in rows],
            "place_id": [place for place, _, _ in rows],
            "block": [block.block_id] * len(rows),
            "lon": [spot.lon for _, spot, _ in rows],
            "lat": [spot.lat for _, spot, _ in rows],
            "heading": [spot.heading for _, spot, _ in rows],
            "captured": [spot.captured for _, spot, _ in rows],
            "panorama": [spot.panorama for _, spot, _ in rows],
            "width": [image.width for _, _, image in rows],
            "height": [image.height for _, _, image in rows],
            "image": [image.content for _, _, image in rows],
            "source": [self.name] * len(rows),
            "licence": [self.image_licence] * len(rows),
            "creator": [spot.creator for _, spot, _ in rows],
        }
        columns = {
            name: pa.array(column, STREETVIEW_SCHEMA.field(name).type)
            for name, column in values.items()
        }
        return geo_table(columns, points[order]).select(STREETVIEW_SCHEMA.names)


def choose(
    spots: Sequence[Spot], places: Places, per_tile: int
) -> tuple[dict[str, list[list[Any]]], int]:
    """Return the photos to read, pinned by tile in the city's order, and how many are left out.

    Photos outside the tiles are neither. Of a tile the photo nearest to its centre comes first;
    then, one after the other, the one that is farthest from those taken, in position and heading.
    Panoramas come after all others. Ties go to the lower id: the order given does not count.

    Args:
        spots: photos, each id once.
        places: tiles.
        per_tile: photos of a tile, at most.
    """
    spots = sorted(spots, key=lambda spot: spot.photo_id)
    x, y = places.grid.project([spot.lon for spot in spots], [spot.lat for spot in spots])
    x, y = np.atleast_1d(x), np.atleast_1d(y)
    cells = places.grid.tile_at(x, y)
    of_tile: dict[tuple[int, int], list[int]] = {}
    for index, cell in enumerate(map(tuple, cells.tolist())):
        of_tile.setdefault((cell[0], cell[1]), []).append(index)
    chosen: dict[str, list[list[Any]]] = {}
    left_out = 0
    for place in places.place_id:
        _, column, row = parse_tile_id(place)
        here = of_tile.get((column, row), [])
        if here:
            inside = np.column_stack([x[here], y[here]]) / places.grid.tile_m
            taken = spread([spots[i] for i in here], inside - (column, row), per_tile)
            chosen[place] = [spots[here[i]].pin() for i in taken]
            left_out += len(here) - len(taken)
    return chosen, left_out


def spread(spots: Sequence[Spot], position: Floats, count: int) -> list[int]:
    """Return up to `count` indices of photos far from each other; see `choose`.

    Args:
        spots: photos of one tile.
        position: (N, 2) of each in the tile, in its sides.
        count: how many.
    """
    taken: list[int] = []
    panorama = np.array([spot.panorama for spot in spots])
    turned = np.array([np.nan if s.heading is None else np.radians(s.heading) for s in spots])
    farthest = -((position - 0.5) ** 2).sum(axis=1)  # as yet: near to the centre
    for group in (~panorama, panorama):
        free = group.copy()
        while free.any() and len(taken) < count:
            best = int(np.argmax(np.where(free, farthest, -np.inf)))
            free[best] = False
            half = (turned - turned[best]) / 2
            apart = ((position - position[best]) ** 2).sum(axis=1)
            # Of an unknown direction half of the greatest difference is expected.
            apart += HEADING_WEIGHT**2 * np.where(np.isnan(half), 0.5, np.sin(half) ** 2)
            farthest = np.minimum(farthest, apart) if taken else apart
            taken.append(best)
    return taken


def whole_jpeg(content: bytes) -> Image:
    """Return a JPEG with its size, decoded once to see that it is whole.

    Raises:
        ValueError: it is not.
    """
    from PIL import Image as Pictures

    try:
        with Pictures.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            width, height = picture.size
            if max(width, height) > LARGEST_PX:
                raise ValueError(f"{width} × {height} pixels")
            picture.load()
    except (OSError, SyntaxError, Pictures.DecompressionBombError) as err:
        raise ValueError("no whole JPEG") from err
    if not content.rstrip(b"\0\r\n").endswith(b"\xff\xd9"):
        raise ValueError("a JPEG without its end")
    return Image(content, width, height)


def nothing_here(what: str, places: Places) -> UrbanError:
    """Return the error for a city without any photo."""
    lon, lat = places.lonlat()
    return UrbanError(
        f"{what} in {lon.min():.3f},{lat.min():.3f},{lon.max():.3f},{lat.max():.3f}: leave the "
        "layer 'streetview' out"
    )
