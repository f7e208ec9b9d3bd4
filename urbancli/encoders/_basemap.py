"""Maps drawn from a city's OSM entities: the image modality `basemap`.

A map is a cut-out of one raster that covers the whole UTM zone for each pixel size, anchored at the
zone's origin. What a pixel shows is decided at its centre, by arithmetic in that raster's own
coordinates: a place's map is the same whatever is drawn beside it. Polygons are filled where the
winding number at a pixel's centre is positive, lines are the union of rectangles and of discs at
their nodes, so they are as wide as `_basemap_style` says, but never thinner than one pixel, which
keeps them connected. No antialiasing: a pixel is of one class. The sea is painted first where the
coastline cuts through all that was fetched, or at least through the tiles.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from urbancli.encoders import _basemap_style as style
from urbancli.encoders._images import Images
from urbancli.encoders._painting import Outlines, outlines, paint
from urbancli.encoders._sea import sea
from urbancli.grid import Integers, Places
from urbancli.layers import CityLayers
from urbancli.sources._entities import HALO_M
from urbancli.workspace import Geometries, geometries

SIDE_PX = 256
"""Side of every map, pixels, whatever square it shows."""

GROUP_PX = 1024
"""Places are drawn together whose centres share a square of this side."""

BUILDING, WALL = style.NAMES.index("building"), style.NAMES.index("wall")

SEA = style.NAMES.index("water") - len(style.CLASSES)
"""Level of the sea: water, but below all else."""

Bytes = npt.NDArray[np.uint8]
Window = tuple[int, Bytes, npt.NDArray[np.bool_]]


class Basemap(Images):
    """Maps around places, 256 × 256 pixels of any square.

    Attributes:
        bands: red, green, blue; or the names of the classes.
        dtype: uint8, 0 or 1 where a band is a class.
    """

    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)

    def __init__(self, city: CityLayers, *, classes: bool = False) -> None:
        """Read and sort the city's entities, for as many maps as are asked for.

        Args:
            city: with a layer `entities`.
            classes: a band per class, 1 where it is the topmost, instead of colours.
        """
        self.bands = style.NAMES if classes else ("red", "green", "blue")
        self._city, self._classes = city, classes
        self._drawing = read_drawing(city.entities("entities"), city.tiles())

    def windows(self, places: Places, window_m: float) -> Iterator[Window]:
        """Yield number, map (bands, 256, 256) and validity of places, neighbours together.

        The square is snapped to the nearest pixel edge, at most half a pixel off; centres of tiles
        lie on edges of 300, 600 and 1,200 m exactly.

        A place is valid all over if its centre is in one of the city's tiles, else not at all:
        nothing was fetched around it, and all is 0. A place without any entity is a valid map of
        bare ground. Entities are fetched to 1,130 m beyond the tiles, so squares of up to 2,260 m
        are whole in every tile; a file that ends at the city's edge has less.
        """
        pixel_m = window_m / SIDE_PX
        column = np.round(places.x / pixel_m - SIDE_PX / 2).astype(np.int64)
        row = np.round(-places.y / pixel_m - SIDE_PX / 2).astype(np.int64)
        held = self._city.holds(places)
        for number in np.flatnonzero(~held).tolist():
            shape = (len(self.bands), SIDE_PX, SIDE_PX)
            yield number, np.zeros(shape, np.uint8), np.zeros(shape[1:], bool)
        for group in _groups(column, row, np.flatnonzero(held)):
            left, top = int(column[group].min()), int(row[group].min())
            width, height = np.ptp(column[group]) + SIDE_PX, np.ptp(row[group]) + SIDE_PX
            box = (left, top, int(width), int(height))
            drawn = self._banded(paint(self._drawing, pixel_m, box, len(style.CLASSES)))
            for number in group.tolist():
                x, y = column[number] - left, row[number] - top
                part = drawn[:, y : y + SIDE_PX, x : x + SIDE_PX].copy()
                yield number, part, np.ones(part.shape[1:], bool)

    def _banded(self, drawn: Bytes) -> Bytes:
        """Return classes (height, width) as bands (bands, height, width)."""
        if self._classes:
            shown = drawn == np.arange(len(style.CLASSES), dtype=np.uint8)[:, None, None]
            return np.asarray(shown).view(np.uint8)
        return np.asarray(np.take(style.PALETTE, drawn, axis=1))


def _groups(column: Integers, row: Integers, chosen: Integers) -> Iterator[Integers]:
    """Yield the indices of windows to draw together; far ones of a sparse square go alone."""
    if not len(chosen):
        return
    cells = np.column_stack([column, row])[chosen] // GROUP_PX
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    order = np.argsort(cell.ravel(), kind="stable")
    for run in np.split(chosen[order], np.flatnonzero(np.diff(cell.ravel()[order])) + 1):
        box = (np.ptp(column[run]) + SIDE_PX) * (np.ptp(row[run]) + SIDE_PX)
        if box <= len(run) * SIDE_PX**2:
            yield run
        else:
            yield from run[:, None]


def read_drawing(table: pa.Table, tiles: Places) -> Outlines:
    """Return the entities of a layer that are drawn, in the order in which they are.

    Bridges come after all else of roads and railways, in the order of their classes.
    """
    grid, shapes = tiles.grid, geometries(table)
    dimension = shapely.get_dimensions(shapes).astype(np.int64)
    classes, bridge = style.classify(table, dimension)
    drawn = np.flatnonzero(classes >= 0)
    shapes, owner = _parts(grid.project_geometry(shapes[drawn]), dimension[drawn])
    classes, bridge = classes[drawn][owner], bridge[drawn][owner]
    lifted = np.where(bridge & (shapely.get_dimensions(shapes) == 1), len(style.CLASSES), 0)
    rings = shapely.get_rings(shapes[classes == BUILDING])
    shapes, walls = np.concatenate([shapes, rings]), np.full(len(rings), WALL)
    level = np.concatenate([classes + lifted, walls])
    seas = _seas(table, tiles)
    shapes, level = np.concatenate([shapes, seas]), np.append(level, np.full(len(seas), SEA))
    classes = level % len(style.CLASSES)
    return outlines(shapes, level, style.WIDTHS_M[classes], style.PIXEL_LIMITS_M[classes])


def _seas(table: pa.Table, tiles: Places) -> Geometries:
    """Return the sea as far as entities were fetched and, as files are cut, in the tiles alone."""
    coast = style.coasts(table)
    if not coast.any():
        return np.array([], dtype=object)
    lines = tiles.grid.project_geometry(geometries(table)[coast])
    areas = (tiles.grid.tile_boxes(tiles.grid.halo(tiles.cells, reach)) for reach in (HALO_M, 0))
    return np.concatenate([sea(lines, shapely.union_all(boxes)) for boxes in areas])


def _parts(shapes: Geometries, dimension: Integers) -> tuple[Geometries, Integers]:
    """Return polygons, lines and points, and which entity (N,) each is of.

    Broken polygons are mended; points and lines of what is an area as a whole are left out, and
    what is beyond the projection.
    """
    broken = (dimension == 2) & ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken])
    owner = np.arange(len(shapes))
    for _ in range(2):  # collections hold collections
        shapes, of = shapely.get_parts(shapes, return_index=True)
        owner = owner[of]
    kept = shapely.get_dimensions(shapes) == dimension[owner]
    kept &= np.isfinite(shapely.bounds(shapes).reshape(-1, 4)).all(axis=1)
    return shapes[kept], owner[kept]
