"""The ground as it is seen from above, a square part at a time: material, brightness, shadow.

Parts are rendered one by one, so that memory does not grow with the city. What is random is either
drawn per element or read from a texture that repeats over the plane: a part's edges do not show.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.demo._materials import (
    CODE,
    GROUP,
    GROUPS,
    MATERIALS,
    MOSAIC_PARTS,
    PARTS,
    SPECKLE,
    SPECTRA,
    bounded,
    group_gains,
    mosaic_edges,
)
from urbancli.demo._surfaces import FIELDS, GROUND, TALLEST_M, Surfaces
from urbancli.demo.factors import SHARED, Factors
from urbancli.workspace import Geometries

Single = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

CELL_M = 10
"""Side of a Sentinel-2 pixel; factors are constant within one."""

SUN_TANGENT = math.tan(math.radians(56))
"""Of the sun's elevation; it stands in the south-east, and shadows fall to the north-west."""

MARGIN_M = CELL_M * math.ceil(TALLEST_M / SUN_TANGENT / CELL_M)
"""Rendered around a part, so that shadows and crowns fall into it from outside."""

TEXTURE_PX = 1024
"""Pixels after which a texture repeats; twice as many where pixels are finer than 2 m."""

STRIP_M = 70.0
"""Width of the strips of crops on farmland."""

PATCH_M = (5.0, 11.0)
"""Sides of the patches of open ground."""

CROWN_HEIGHT_M = 7.0

_CROPS = np.array([CODE[name] for name in ("wheat", "maize", "beet", "hay", "plough", "grass")])

_CAR_SHARE = {"asphalt": 0.012, "yard": 0.07}


@dataclass(frozen=True)
class Part:
    """What a square part of the city shows, before any sensor.

    Attributes:
        material: (H, W) codes, rows from the north.
        light: (H, W) brightness, about 1.
        shaded: (H, W) whether the sun is hidden.
        cell: (H, W) index of the 10 m cell, row-major.
        shape: rows and columns of cells.
        fields: bounded factors by cell: the shared ones, `moisture` and `grain`.
    """

    material: npt.NDArray[np.intp]
    light: Single
    shaded: Flags
    cell: npt.NDArray[np.intp]
    shape: tuple[int, int]
    fields: dict[str, Single]
    _place: npt.NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        group = GROUP.astype(np.intp)[self.material] + len(GROUPS) * self.shaded
        object.__setattr__(self, "_place", group * self.shape[0] * self.shape[1] + self.cell)

    def reflectance(self, band: int) -> Single:
        """Return a band's reflectance, (H, W), of an index into `_materials.BANDS`."""
        seen = np.take(SPECTRA[band], self.material)
        seen *= np.take(group_gains(self.fields, band).ravel(), self._place)
        seen *= self.light
        np.minimum(seen, np.float32(0.95), out=seen)
        return np.asarray(seen)

    def share(self, group: str) -> Single:
        """Return the share of a group's materials in each cell, `shape`."""
        return block_means((GROUP[self.material] == GROUPS.index(group)).astype(np.float32),
                           self.material.shape[0] // self.shape[0])  # fmt: skip

    def by_pixel(self, values: Single, side: int) -> Single:
        """Return values of the cells, repeated for the side × side pixels of each."""
        return repeated(values.reshape(self.shape), side)


class Ground:
    """Renders parts of a city; see `part`."""

    def __init__(self, surfaces: Surfaces, factors: Factors, pixel_m: float) -> None:
        """Prepare textures and an index of the surfaces.

        Args:
            surfaces: of the city.
            factors: of the city.
            pixel_m: side of a pixel in metres, a divisor of 10.
        """
        self.surfaces, self.factors, self.pixel_m = surfaces, factors, pixel_m
        generator = factors.recipe.generator("imagery textures")
        side = TEXTURE_PX if pixel_m >= 2 else 2 * TEXTURE_PX
        self._speckle = _texture(generator, side, 0.7)
        self._patches = _patches(generator, side, pixel_m)
        self._dots = generator.random((side, side), dtype=np.float32)
        self._index = shapely.STRtree(surfaces.shapes)
        self._trees = shapely.STRtree(
            np.array(shapely.points(surfaces.trees), dtype=object, ndmin=1)
        )
        # What nothing covers is painted −1: the last entry.
        self._code = np.append(surfaces.code, np.uint8(GROUND))
        self._tone = np.append(surfaces.tone, np.float32(1))
        self._height = np.append(surfaces.height_m, np.float32(0))

    def part(self, box_m: Box) -> Part:
        """Return what (left, bottom, right, top), metres and multiples of 10, shows."""
        left, bottom, right, top = box_m
        wide = (left - MARGIN_M, bottom - MARGIN_M, right + MARGIN_M, top + MARGIN_M)
        margin = round(MARGIN_M / self.pixel_m)
        inner = (slice(margin, -margin), slice(margin, -margin))
        painted = self._paint(wide)
        code, light, height = self._code[painted], self._tone[painted], self._height[painted]
        self._plant(wide, code, light, height)
        shaded = shadows(height, self.pixel_m)[inner]
        painted, code, light = painted[inner], code[inner], light[inner].copy()
        shape = (round((top - bottom) / CELL_M), round((right - left) / CELL_M))
        side = round(CELL_M / self.pixel_m)
        cell = np.arange(shape[0] * shape[1], dtype=np.intp).reshape(shape)
        cell = repeated(cell, side)
        fields = self._fields(left, top, shape)
        material = self._resolve(code, painted, cell, fields, (left, top))
        self._tilt(painted, material, light, (left, top))
        spread = np.float32(0.5) * SPECKLE * np.float32(min(1.0, 2.5 / self.pixel_m) ** 0.5)
        light *= np.exp(
            spread[material] * tiled(self._speckle, left, top, self.pixel_m, light.shape)
        )
        return Part(material, light, shaded, cell, shape, fields)

    def _paint(self, box_m: Box) -> npt.NDArray[np.int32]:
        """Return the index of the uppermost surface at each pixel, −1 where there is none."""
        from rasterio.features import rasterize
        from rasterio.transform import from_origin

        left, bottom, right, top = box_m
        size = (round((top - bottom) / self.pixel_m), round((right - left) / self.pixel_m))
        found = np.sort(self._index.query(shapely.box(*box_m)))
        if not len(found):
            return np.full(size, -1, dtype=np.int32)
        painted: npt.NDArray[np.int32] = rasterize(
            zip(_rings(self.surfaces.shapes[found]), found.tolist(), strict=True),
            out_shape=size,
            fill=-1,
            transform=from_origin(left, top, self.pixel_m, self.pixel_m),
            dtype="int32",
        )
        return painted

    def _plant(self, box_m: Box, code: Bytes, light: Single, height: Single) -> None:
        """Draw the crowns of trees, beside buildings but not over them."""
        found = np.sort(self._trees.query(shapely.box(*box_m)))
        place = (self.surfaces.trees[found] - (box_m[0], box_m[3])) * (1, -1) / self.pixel_m
        radius = self.surfaces.crown_m[found] / self.pixel_m
        column, row = np.floor(place).astype(np.int64).T
        east, south = (place - np.floor(place) - 0.5).T
        reach = int(np.ceil(radius.max(initial=0) + 0.5))
        free = height == 0
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                away = np.hypot(right - east, down - south)
                r, c = row + down, column + right
                hit = (away <= radius) & (r >= 0) & (c >= 0)
                hit &= (r < code.shape[0]) & (c < code.shape[1])
                hit[hit] = free[r[hit], c[hit]]
                # A crown is a dome: its side towards the sun is brighter.
                sunny = (right - east + down - south)[hit] / np.maximum(radius[hit], 1)
                code[r[hit], c[hit]] = CODE["crown"]
                light[r[hit], c[hit]] = self.surfaces.crown_tone[found][hit] * (1 + 0.16 * sunny)
                height[r[hit], c[hit]] = CROWN_HEIGHT_M

    def _fields(self, left: float, top: float, shape: tuple[int, int]) -> dict[str, Single]:
        x = left + CELL_M * (np.arange(shape[1]) + 0.5)
        y = top - CELL_M * (np.arange(shape[0]) + 0.5)
        east, north = np.meshgrid(x, y)
        return {
            name: bounded(self.factors.at(name, east, north)).ravel()
            for name in (*SHARED, "moisture", "grain")
        }

    def _resolve(
        self,
        code: Bytes,
        painted: npt.NDArray[np.int32],
        cell: npt.NDArray[np.intp],
        fields: dict[str, Single],
        corner: tuple[float, float],
    ) -> npt.NDArray[np.intp]:
        """Return materials: mosaics and fields resolved into their parts, cars put on asphalt."""
        material = code.astype(np.intp)
        patches = tiled(self._patches, *corner, self.pixel_m, code.shape)
        mosaic = np.flatnonzero((material >= len(MATERIALS)) & (material < FIELDS))
        kind = material.ravel()[mosaic] - len(MATERIALS)
        edges, cells = mosaic_edges(fields), len(fields["density"])
        place = kind * (PARTS - 1) * cells + cell.ravel()[mosaic]
        chance, part = patches.ravel()[mosaic], np.zeros(len(mosaic), dtype=np.intp)
        for step in range(PARTS - 1):
            part += chance > np.take(edges.ravel(), place + step * cells)
        material.flat[mosaic] = MOSAIC_PARTS[kind, part]
        row, column = np.nonzero(material == FIELDS)
        owner = painted[row, column]
        x, y = corner[0] + self.pixel_m * column, corner[1] - self.pixel_m * row
        slope = self.surfaces.slope[owner].astype(np.float64)
        strip = np.floor((x * slope[:, 0] + y * slope[:, 1]) / STRIP_M).astype(np.int64)
        material[row, column] = _CROPS[(strip * 7919 + owner.astype(np.int64) * 104729) % 97 % 6]
        dots = tiled(self._dots, *corner, self.pixel_m, code.shape)
        for name, share in _CAR_SHARE.items():
            material[(material == CODE[name]) & (dots < share)] = CODE["car"]
        return material

    def _tilt(
        self,
        painted: npt.NDArray[np.int32],
        material: npt.NDArray[np.intp],
        light: Single,
        corner: tuple[float, float],
    ) -> None:
        """Brighten the sides of steep roofs that face the sun, darken the others."""
        surfaces = self.surfaces
        steep = np.append(surfaces.height_m > 0, False) & np.append(
            surfaces.slope.any(axis=1), False
        )
        row, column = np.nonzero(steep[painted] & (material != CODE["crown"]))
        owner = painted[row, column]
        x = corner[0] + self.pixel_m * (column + 0.5) - surfaces.centre[owner, 0]
        y = corner[1] - self.pixel_m * (row + 0.5) - surfaces.centre[owner, 1]
        slope = surfaces.slope[owner]
        side = np.sign(x * slope[:, 0] + y * slope[:, 1])
        light[row, column] *= 1 + 0.20 * side * (slope[:, 0] - slope[:, 1]) / math.sqrt(2)


def shadows(height_m: Single, pixel_m: float) -> Flags:
    """Return where the sun, in the south-east, is hidden by something higher, (H, W)."""
    hidden = np.zeros(height_m.shape, dtype=bool)
    fall = pixel_m * math.sqrt(2) * SUN_TANGENT
    for step in range(1, math.ceil(float(height_m.max(initial=0)) / fall)):
        hidden[:-step, :-step] |= height_m[step:, step:] - step * fall > height_m[:-step, :-step]
    return hidden


def block_means(values: Single, side: int) -> Single:
    """Return the means of side × side pixels, (H / side, W / side)."""
    height, width = values.shape[0] // side, values.shape[1] // side
    rows = values.reshape(height, side, width * side).sum(axis=1)
    means = sum((rows[:, k::side] for k in range(1, side)), start=rows[:, 0::side])
    return np.asarray(means / np.float32(side * side), dtype=np.float32)


def repeated(values: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Return an array with each value repeated for side × side pixels."""
    return np.repeat(np.repeat(values, side, axis=0), side, axis=1)


def _texture(generator: np.random.Generator, side: int, smooth_px: float) -> Single:
    """Return noise of mean 0 and deviation 1 that repeats without a seam, (side, side)."""
    from scipy.ndimage import gaussian_filter

    noise = generator.standard_normal((side, side), dtype=np.float32)
    noise = gaussian_filter(noise, smooth_px, mode="wrap", truncate=3)
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


def tiled(
    pattern: Single, left: float, top: float, pixel_m: float, shape: tuple[int, ...]
) -> Single:
    """Return the pattern, repeated over the zone, from an upper left corner in metres."""
    rows = (np.arange(shape[0]) - round(top / pixel_m)) % len(pattern)
    columns = (np.arange(shape[1]) + round(left / pixel_m)) % len(pattern)
    return pattern[rows[:, None], columns]


def _patches(generator: np.random.Generator, side: int, pixel_m: float) -> Single:
    """Return a repeating pattern of patches like beds and yards, each uniform in (0, 1).

    They are the squares of two lattices, one for a third of the ground, with crooked borders.
    """
    bend = [_texture(generator, side, 6.0 / pixel_m) * np.float32(3.0 / pixel_m) for _ in range(2)]
    row, column = np.meshgrid(*[np.arange(side, dtype=np.float32)] * 2, indexing="ij")
    layers = []
    for size_m in PATCH_M:
        count = round(side * pixel_m / size_m)
        values = generator.random((count, count), dtype=np.float32)
        y, x = (
            np.floor((along + shift) % side * np.float32(count / side)).astype(np.intp) % count
            for along, shift in zip((row, column), bend, strict=True)
        )
        layers.append(values[y, x])
    choice = _texture(generator, side, 12.0 / pixel_m) > 0.4
    return np.where(choice, layers[0], layers[1])


def _rings(shapes: Geometries) -> list[dict[str, Any]]:
    """Return polygons as GeoJSON, much faster for simple ones than shapely's own mapping."""
    simple = (shapely.get_type_id(shapes) == 3) & (shapely.get_num_interior_rings(shapes) == 0)
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    ends = np.searchsorted(owner, np.arange(len(shapes) + 1)).tolist()
    listed = points.tolist()
    return [
        {"type": "Polygon", "coordinates": [listed[ends[i] : ends[i + 1]]]}
        if plain
        else shapes[i].__geo_interface__
        for i, plain in enumerate(simple.tolist())
    ]
