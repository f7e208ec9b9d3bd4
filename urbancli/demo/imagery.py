"""The city as two sensors see it: Sentinel-2-like and NAIP-like scenes with their STAC catalogue.

Both look at one ground of 2.5 m or finer (`_ground`). Sentinel-2 sees its means over 10 m in twelve
bands, on two days with clouds; NAIP sees it as it is, in four bands and without a cloud. Gains are
fixed: a value never depends on what else is in the scene.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from urbancli.demo._clouds import CIRRUS, CLOUD_HIGH, CLOUD_MEDIUM, PLANTS, SHADOW, WATER, skies
from urbancli.demo._cogs import Mosaic, write_cog
from urbancli.demo._ground import CELL_M, Ground, Part, block_means, repeated, tiled
from urbancli.demo._materials import BANDS, NAIP_BANDS
from urbancli.demo._surfaces import survey
from urbancli.demo.catalogue import NAIP, SENTINEL, Scene, write_catalogue
from urbancli.demo.recipe import Recipe
from urbancli.demo.town import Town
from urbancli.grid import TILE_M

Single = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

FINEST_M = 2.5
"""The ground is rendered at this pixel size, or at NAIP's if that is finer."""

PART_PX = 1440
"""Pixels along a part of the ground at most: what bounds the memory."""

DAYS = (datetime(2023, 6, 14, 11, 6, 21, tzinfo=UTC), datetime(2023, 8, 23, 11, 6, 21, tzinfo=UTC))
"""When the two Sentinel-2 scenes say they were taken."""

FLIGHT = datetime(2022, 7, 12, 16, 0, tzinfo=UTC)
"""When the NAIP scenes say they were taken."""

CACHE_BYTES = 128 << 20
"""What GDAL keeps of files in memory; by itself it would take a twentieth of the machine."""

OVERLAP_M = 50.0
"""Quarter quads reach so far over the lines between them."""

OFFSET, SCALE = 1000, 10_000
"""DN = reflectance · SCALE + OFFSET, as of processing baseline 04.00; DN 0 is no data."""

BASELINE = "05.09"

NATIVE_PX = {"B01": 6, "B09": 6, **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 2)}
"""Bands that the sensor sees at 60 and 20 m: their pixels are repeated at 10 m."""

SENTINEL_NOISE = 0.0006
"""Deviation of reflectance."""

NAIP_WHITE = 0.50
"""Reflectance that NAIP shows as 255."""

NAIP_NOISE = 0.6
"""Deviation of NAIP's DN."""

GRAIN_DN = 5.0
"""Contrast below 10 m, either way, that only NAIP sees; where the factor `grain` is 0."""

GRAIN_CELLS = 128
"""Cells of 10 m after which its pattern repeats."""

GRAIN_RISE = 0.6
"""Of the logarithm of that contrast, per unit of the bounded factor."""

# Late in summer plants have less leaf: change of reflectance per share of plants, by band.
_LATE = np.array([2, 2, 1, 5, 3, -3, -4, -4, -4, -4, 3, 5], dtype=np.float32) / 100

_FINE = 40_000
"""Reflectance is kept in steps of 1 / _FINE between rendering and writing."""


@dataclass(frozen=True)
class _Clear:
    """Sentinel-2's view without clouds or noise, (side, side) pixels of 10 m.

    Attributes:
        bands: (12, side, side) reflectance · _FINE.
        plants: (side, side) share of plants.
        water: (side, side) share of water.
    """

    bands: npt.NDArray[np.uint16]
    plants: Single
    water: Single


def render(folder: Path, town: Town) -> None:
    """Write the scenes of a town and a static STAC catalogue `catalog.json` below a folder."""
    import rasterio

    recipe = town.factors.recipe
    pixel_m = min(FINEST_M, recipe.gsd_m)
    ground = Ground(survey(town), town.factors, pixel_m)
    side = round((recipe.rendered_m[2] - recipe.rendered_m[0]) / CELL_M)
    clear = _Clear(
        np.zeros((len(BANDS), side, side), dtype=np.uint16),
        *(np.zeros((side, side), dtype=np.float32) for _ in range(2)),
    )
    quads = _quads(folder, recipe)
    grain = _grain(recipe)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        mosaics = [
            stack.enter_context(
                Mosaic(scene.assets["image"], scene.box_m, recipe.gsd_m, list(NAIP.bands))
            )
            for scene in quads
        ]
        for box in _parts(recipe, pixel_m):
            part = ground.part(box)
            seen = _observe(part, box, clear, recipe, pixel_m)
            flown = _fly(seen, part, box, recipe, grain)
            for mosaic in mosaics:
                mosaic.write(flown, box)
        scenes = _sentinel(folder, clear, recipe)
    write_catalogue(folder, recipe, [*scenes, *quads])


def _parts(recipe: Recipe, pixel_m: float) -> Iterator[Box]:
    """Yield the boxes that are rendered one by one, metres, from the north-west."""
    left, bottom, right, top = recipe.rendered_m
    step = max(1, int(PART_PX * pixel_m / TILE_M)) * TILE_M
    for north in np.arange(top, bottom, -step).tolist():
        for west in np.arange(left, right, step).tolist():
            yield (west, max(north - step, bottom), min(west + step, right), north)


def _observe(part: Part, box: Box, clear: _Clear, recipe: Recipe, pixel_m: float) -> Single:
    """Put a part into Sentinel-2's view; return reflectances for NAIP, (4, H, W)."""
    left, _, _, top = recipe.rendered_m
    row, column = round((top - box[3]) / CELL_M), round((box[0] - left) / CELL_M)
    place = (slice(row, row + part.shape[0]), slice(column, column + part.shape[1]))
    side = round(CELL_M / pixel_m)
    wanted: dict[str, Single] = {}
    for number, band in enumerate(BANDS):
        fine = part.reflectance(number)
        clear.bands[(number, *place)] = np.rint(block_means(fine, side) * _FINE)
        if band in NAIP_BANDS:
            coarser = round(recipe.gsd_m / pixel_m)
            wanted[band] = fine if coarser == 1 else block_means(fine, coarser)
    clear.plants[place], clear.water[place] = part.share("plants"), part.share("water")
    return np.stack([wanted[band] for band in NAIP_BANDS])


def _grain(recipe: Recipe) -> Single:
    """Return a texture of NAIP's pixels: +1 or −1, as many of each in every cell of 10 m.

    Where a cell has an odd number of pixels, one is 0.
    """
    side = round(CELL_M / recipe.gsd_m)
    noise = recipe.generator("imagery grain").random((GRAIN_CELLS, GRAIN_CELLS, side * side))
    rank = noise.argsort(axis=-1).argsort(axis=-1)
    signs = np.sign(rank - (side * side - 1) / 2).astype(np.float32)
    blocks = signs.reshape(GRAIN_CELLS, GRAIN_CELLS, side, side).swapaxes(1, 2)
    return np.ascontiguousarray(blocks.reshape(GRAIN_CELLS * side, GRAIN_CELLS * side))


def _fly(
    reflectance: Single, part: Part, box: Box, recipe: Recipe, grain: Single
) -> npt.NDArray[np.uint8]:
    """Return NAIP's samples (4, H, W) of a part: gamma 2, grain on land, and noise."""
    side = round(CELL_M / recipe.gsd_m)
    generator = recipe.generator(f"imagery naip {box[0]:.0f} {box[3]:.0f}")
    depth = np.float32(GRAIN_DN) * np.exp(np.float32(GRAIN_RISE) * part.fields["grain"])
    depth = depth * (part.share("water") == 0).ravel()
    contrast = part.by_pixel(depth, side)
    contrast *= tiled(grain, box[0], box[3], recipe.gsd_m, contrast.shape)
    samples = np.empty(reflectance.shape, dtype=np.uint8)
    for band, seen in enumerate(reflectance):
        level = np.sqrt(seen / np.float32(NAIP_WHITE))
        level *= 255
        level += contrast
        level += generator.standard_normal(level.shape, dtype=np.float32) * np.float32(NAIP_NOISE)
        samples[band] = np.rint(np.clip(level, 1, 255))
    return samples


def _sentinel(folder: Path, clear: _Clear, recipe: Recipe) -> list[Scene]:
    """Write the two Sentinel-2 scenes and return them."""
    left, _, _, top = recipe.rendered_m
    scenes = []
    for late, (when, sky) in enumerate(zip(DAYS, skies(recipe, len(clear.water)), strict=True)):
        name = f"S2_SYNTHETIC_{when:%Y%m%d}_{recipe.key}"
        assets = {key: folder / SENTINEL.name / name / f"{key}.tif" for key in (*BANDS, "SCL")}
        for number, band in enumerate(BANDS):
            seen = clear.bands[number] / np.float32(_FINE)
            seen *= 1 + late * _LATE[number] * clear.plants
            native = NATIVE_PX.get(band, 1)
            seen = block_means(seen, native)
            noise = recipe.generator(f"imagery sentinel2 {late} {band}")
            seen += np.float32(SENTINEL_NOISE) * noise.standard_normal(seen.shape, dtype=np.float32)
            seen = sky.veil(repeated(seen, native), number)
            samples = np.clip(np.rint(seen * SCALE) + OFFSET, 1, 65_535).astype(np.uint16)
            write_cog(assets[band], samples, (left, top), CELL_M, band, nodata=0)
        scene = sky.classes(clear.plants, clear.water)
        write_cog(assets["SCL"], scene, (left, top), 2 * CELL_M, "SCL", nodata=0)
        scenes.append(Scene(SENTINEL, name, when, recipe.rendered_m, assets, _shares(scene)))
    return scenes


def _shares(scene: npt.NDArray[np.uint8]) -> dict[str, float | str]:
    """Return what a scene's classification says of it, in per cent."""

    def per_cent(*classes: int) -> float:
        return round(float(np.isin(scene, classes).mean()) * 100, 4)

    return {
        "eo:cloud_cover": per_cent(CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS),
        "s2:processing_baseline": BASELINE,
        "s2:cloud_shadow_percentage": per_cent(SHADOW),
        "s2:vegetation_percentage": per_cent(PLANTS),
        "s2:water_percentage": per_cent(WATER),
        "s2:nodata_pixel_percentage": 0.0,
    }


def _quads(folder: Path, recipe: Recipe) -> list[Scene]:
    """Return the scenes of the four quarter quads; their files are not written yet."""
    left, bottom, right, top = recipe.rendered_m
    x, y = (left + right) / 2, (bottom + top) / 2
    boxes = {
        "nw": (left, y - OVERLAP_M, x + OVERLAP_M, top),
        "ne": (x - OVERLAP_M, y - OVERLAP_M, right, top),
        "sw": (left, bottom, x + OVERLAP_M, y + OVERLAP_M),
        "se": (x - OVERLAP_M, bottom, right, y + OVERLAP_M),
    }
    scenes = []
    for quarter, box in boxes.items():
        name = f"{recipe.key}_{quarter}_24_{round(recipe.gsd_m * 100):03d}_{FLIGHT:%Y%m%d}"
        assets = {"image": folder / NAIP.name / name / f"m_{name}.tif"}
        facts: dict[str, float | str] = {"naip:year": f"{FLIGHT:%Y}", "eo:cloud_cover": 0.0}
        scenes.append(Scene(NAIP, name, FLIGHT, box, assets, facts))
    return scenes
