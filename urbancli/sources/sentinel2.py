"""Sentinel-2 over STAC: one cloud-free composite of the surface reflectance, 12 bands at 10 m.

The offset rule, by who says what. ESA adds 1000 to every number since processing baseline 04.00,
and Planetary Computer (like any copy of ESA's files) leaves it there: it is taken off where
`s2:processing_baseline` is 04.00 or later. Earth Search takes it off for some items and says so in
`earthsearch:boa_offset_applied`: it is taken off here only where that is false. What was taken off
is recorded per item in the plan.

Without `since` and `until` the twelve months up to the newest scene are used, so that all seasons
are there and no clock decides; where they leave out tiles that older scenes cover, all scenes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from urbancli.errors import UrbanError, unknown
from urbancli.grid import BLOCK_TILES, Block, Grid, Places
from urbancli.layers import NOMINAL_PIXEL_M, PIXEL_SCHEMA
from urbancli.sources import base
from urbancli.sources._items import Item, period, search_area, share_seen, told_synthetic, union
from urbancli.sources._pixels import (
    SATELLITE_WINDOW_M,
    halo_cells,
    tile_parts,
    tile_rows,
    warped,
)
from urbancli.sources._rasters import Rasters, gdal_environment, unreadable
from urbancli.sources._stac import Catalogue

PIXEL_M = NOMINAL_PIXEL_M["sentinel2"]

ASSETS = {
    "B01": ("B01", "coastal"), "B02": ("B02", "blue"), "B03": ("B03", "green"),
    "B04": ("B04", "red"), "B05": ("B05", "rededge1"), "B06": ("B06", "rededge2"),
    "B07": ("B07", "rededge3"), "B08": ("B08", "nir"), "B8A": ("B8A", "nir08"),
    "B09": ("B09", "nir09"), "B11": ("B11", "swir16"), "B12": ("B12", "swir22"),
}  # fmt: skip
"""The bands in their order, with the names of their assets at ESA's copies and at Earth Search."""

MASK_ASSETS = ("SCL", "scl")

UNCLEAR = (0, 1, 3, 8, 9, 10, 11)
"""Classes of the scene classification that are not the ground as it usually looks: no data,
defective, cloud shadow, clouds of medium and high probability, cirrus, and snow. Snow, because it
hides what a city is made of, and bright clouds are taken for it."""

OFFSET = 1000
OFFSET_SINCE = (4, 0)

COMPOSITES = ("median", "least-cloud")

YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Date:
    """The scenes of one overpass, which together are one picture.

    Attributes:
        day: of the local sun.
        items: the newest processing first: the first valid pixel wins.
        cloud_cover: their mean, percent; 100 where an item does not say.
        footprint: EPSG:4326.
    """

    day: str
    items: tuple[Item, ...]
    cloud_cover: float
    footprint: BaseGeometry


class Source(base.Source):
    """A Sentinel-2 L2A collection of a STAC catalogue as the layer `sentinel2`.

    A sample is reflectance times 10,000, at least 1, uint16; a pixel is valid where at least one
    date shows it clear in all bands. `median`: per band, of the clear dates (of an even number the
    mean of the two in the middle, half rounded up). `least-cloud`: of the first clear date, the
    least cloudy date first. Bands of 20 and 60 m are brought to 10 m bilinearly, the scene
    classification by the nearest pixel; a file on the tiles' own grid is read unchanged.

    Args:
        catalogue: URL of a STAC API, or URL or path of a static `catalog.json`.
        since: first day, month or year (`2023-05-14`, `2023-05`, `2023`).
        until: last day, month or year, included.
        collection: id of the collection, e.g. also `sentinel-2-c1-l2a` at Earth Search.
        composite: `median` or `least-cloud`.
        dates: at each tile at most so many dates are used, the least cloudy.
    """

    layer = "sentinel2"
    schema = PIXEL_SCHEMA
    streamed = True
    licence = "Copernicus-Sentinel"
    attribution = "contains modified Copernicus Sentinel data"

    def __init__(
        self,
        catalogue: str,
        since: str | None = None,
        until: str | None = None,
        collection: str = "sentinel-2-l2a",
        composite: str = "median",
        dates: int = 12,
    ) -> None:
        if composite not in COMPOSITES:
            raise unknown("composite", composite, COMPOSITES)
        self._catalogue = Catalogue(catalogue)
        self._asked = (since, until)
        self._when = period(since, until)
        self._collection = collection
        self._composite = composite
        self._most = dates
        self._dates: list[Date] = []
        self._offset: dict[str, int] = {}
        self._rasters = Rasters()
        self._blocks: list[Block] = []
        self._unclear: dict[str, int] = {}

    def plan(self, places: Places) -> dict[str, Any]:
        """Search once, choose the dates, and pin every file that will be read."""
        base.places_grid(places)
        found = self._catalogue.search(
            self._collection,
            search_area(places),
            self._when,
            enough=lambda items: self._is_year(items, places),
        )
        chosen = found if any(self._asked) else _last_year(found, places)
        self._dates = choose(_by_date(chosen, places), places, self._most)
        if not self._dates:
            raise UrbanError(
                f"no Sentinel-2 scene of '{self._collection}' in {self._catalogue.where} touches "
                f"the city{' in that time' if any(self._asked) else ''}: check the catalogue, "
                "--since and --until"
            )
        items = [(date, item) for date in self._dates for item in date.items]
        if synthetic := told_synthetic([item for _, item in items]):
            self.licence, self.attribution = "CC0-1.0", synthetic
        offsets = {item.item_id: offset(item) for _, item in items}
        self._offset = {key: amount for key, (amount, _) in offsets.items()}
        days = sorted(date.day for date in self._dates)
        return {
            "source": "sentinel2",
            "catalogue": self._catalogue.where,
            "collection": self._collection,
            "since": self._asked[0],
            "until": self._asked[1],
            "found": len(found),
            "days": [days[0], days[-1]],
            "dates_at_most": self._most,
            "composite": self._composite,
            "masked_classes": list(UNCLEAR),
            "pixel_m": PIXEL_M,
            "resampling": {"bands": "bilinear", "classes": "nearest"},
            "halo_m": SATELLITE_WINDOW_M / 2,
            "items": [_pinned(date, item, *offsets[item.item_id]) for date, item in items],
            "version": 1,
        }

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles and of the halo around them."""
        cells = halo_cells(places)
        self._wanted = set(map(tuple, cells.tolist()))
        self._blocks = places.grid.blocks(cells)
        return self._blocks

    def read(self, block: Block) -> pa.Table:
        """Return one row per tile of the block that has any valid pixel, in Hilbert order."""
        with gdal_environment():
            dates = self._near(block)
            clear = [self._clear(date, block) for date in dates]
            self._count(block, clear)
            seen = [index for index, masks in enumerate(clear) if any(m.any() for m in masks)]
            least = self._composite == "least-cloud"
            side = _side(block)
            stack = np.zeros((1 if least else len(seen), len(ASSETS), side, side), dtype=np.uint16)
            for layer, index in enumerate(seen):
                into = stack[0 if least else layer]
                for item, mask in zip(dates[index].items, clear[index], strict=True):
                    wanted = mask & (into[0] == 0)
                    if wanted.any():
                        self._fill(into, item, block, wanted)
        samples = stack[0] if least else median(stack)
        return tile_rows(block, samples, samples[0] > 0, self._wanted)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return bands, pixel sizes, the dates used, and pixels that no date shows clear."""
        with gdal_environment():
            for block in self._blocks:
                if block.block_id not in self._unclear:  # read by a fetch before this one
                    self._count(block, [self._clear(date, block) for date in self._near(block)])
        return {
            "bands": list(ASSETS),
            "dtype": "uint16",
            "pixel_m": PIXEL_M,
            "native_m": PIXEL_M,
            "scale": 1e-4,
            "composite": self._composite,
            "dates": [date.day for date in self._dates],
            "pixels_never_clear": sum(self._unclear[block.block_id] for block in self._blocks),
        }

    def _is_year(self, items: Sequence[Item], places: Places) -> bool:
        """Return whether older items are not needed: a year is whole and covers the city."""
        if any(self._asked) or items[0].acquired - items[-1].acquired <= YEAR:
            return False
        recent = [item for item in items if items[0].acquired - item.acquired <= YEAR]
        return bool((share_seen(union(recent), places) > 0.5).all())

    def _near(self, block: Block) -> list[Date]:
        """Return the dates whose scenes touch a block, least cloudy first."""
        grid = Grid(block.epsg, block.tile_m)
        # A footprint's edges are chords on the globe: up to 500 m beside those of its raster.
        box = shapely.segmentize(shapely.buffer(shapely.box(*block.bounds), 1000.0), 1000.0)
        area = grid.unproject_geometry(box)
        return [date for date in self._dates if shapely.intersects(date.footprint, area)]

    def _clear(self, date: Date, block: Block) -> list[npt.NDArray[np.bool_]]:
        """Return for each item of a date where (S, S) its scene classification is clear."""
        return [
            ~np.isin(self._band(item, MASK_ASSETS, block, "nearest"), UNCLEAR)
            for item in date.items
        ]

    def _count(self, block: Block, clear: Sequence[Sequence[npt.NDArray[np.bool_]]]) -> None:
        """Note how many pixels of the wanted tiles no date shows clear."""
        side = _side(block)
        ever = np.zeros((side, side), dtype=bool)
        for mask in (mask for masks in clear for mask in masks):
            ever |= mask
        parts = tile_parts(block, self._wanted, side // BLOCK_TILES)
        self._unclear[block.block_id] = sum(int((~ever[part]).sum()) for _, _, part in parts)

    def _fill(
        self,
        into: npt.NDArray[np.uint16],
        item: Item,
        block: Block,
        wanted: npt.NDArray[np.bool_],
    ) -> None:
        """Write an item's reflectance into (bands, S, S) where it is wanted and all bands know."""
        bands = np.stack([self._band(item, names, block, "bilinear") for names in ASSETS.values()])
        wanted = wanted & (bands != 0).all(axis=0)
        taken = self._offset[item.item_id]
        # 1 at least: 0 is no data, and dark pixels fall below the offset.
        reflectance = np.maximum(bands, taken + 1) - np.uint16(taken)
        np.copyto(into, reflectance, where=wanted)

    def _band(
        self, item: Item, names: Sequence[str], block: Block, resampling: str
    ) -> npt.NDArray[Any]:
        """Return (S, S) of a band of an item on the block's grid, 0 where there is nothing."""
        from rasterio.errors import RasterioError

        asset = item.asset(*names)
        dataset = self._rasters.open(item, asset)
        try:
            with warped(dataset, block, PIXEL_M, resampling, nodata=0) as warp:
                return np.asarray(warp.read(1))
        except RasterioError:
            raise unreadable(item, asset) from None  # GDAL's message may hold a signed URL


# --- which scenes ------------------------------------------------------------------------------


def offset(item: Item) -> tuple[int, str]:
    """Return what is to be taken off an item's numbers, and the property that says so.

    Raises:
        UrbanError: the item does not say what its provider says of every item.
    """
    said = item.properties
    baseline = said.get("s2:processing_baseline")
    applied = said.get("earthsearch:boa_offset_applied")
    if applied is None and MASK_ASSETS[0] not in item.assets:
        raise UrbanError(
            f"item {item.item_id} does not say whether the offset of 1000 is still in its numbers "
            "(earthsearch:boa_offset_applied): use another collection or catalogue"
        )
    if applied is True:
        return 0, "earthsearch:boa_offset_applied"
    try:
        version = tuple(int(part) for part in str(baseline).split("."))
    except ValueError as err:
        raise UrbanError(
            f"item {item.item_id} does not say its processing baseline (s2:processing_baseline), "
            "on which the offset depends: use another collection or catalogue"
        ) from err
    rule = "s2:processing_baseline" if applied is None else "earthsearch:boa_offset_applied"
    return (OFFSET if version >= OFFSET_SINCE else 0), rule


def choose(dates: Sequence[Date], places: Places, most: int) -> list[Date]:
    """Return the least cloudy dates such that each tile has at least `most`, where there are.

    A date is left out where every tile that it shows most of has enough: a city between two orbits
    gets its dates from both.
    """
    count = np.zeros(len(places), dtype=np.int64)
    chosen = []
    for date in sorted(dates, key=lambda date: (date.cloud_cover, date.day)):
        seen = share_seen(date.footprint, places) > 0.5
        if (count[seen] < most).any():
            chosen.append(date)
            count += seen
    return chosen


def _by_date(items: Sequence[Item], places: Places) -> list[Date]:
    """Group scenes by the day of the local sun: an overpass never falls on its midnight."""
    lon, _ = places.lonlat()
    shift = timedelta(hours=float(lon[0]) / 15)
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault((item.acquired + shift).date().isoformat(), []).append(item)
    dates = []
    for day, group in groups.items():
        group.sort(key=lambda item: item.item_id)
        group.sort(key=lambda i: str(i.properties.get("s2:processing_baseline")), reverse=True)
        clouds = [float(item.properties.get("eo:cloud_cover", 100.0)) for item in group]
        dates.append(Date(day, tuple(group), float(np.mean(clouds)), union(group)))
    return dates


def _last_year(items: Sequence[Item], places: Places) -> list[Item]:
    """Return the items of the twelve months up to the newest, or all if those cover more."""
    recent = [item for item in items if items[-1].acquired - item.acquired <= YEAR]
    if not recent:
        return []
    seen, ever = (share_seen(union(group), places) > 0.5 for group in (recent, items))
    return recent if (seen == ever).all() else list(items)


def _pinned(date: Date, item: Item, taken: int, rule: str) -> dict[str, Any]:
    assets = {band: item.asset(*names).pin() for band, names in ASSETS.items()}
    return item.pin(
        date=date.day,
        cloud_cover=item.properties.get("eo:cloud_cover"),
        baseline=item.properties.get("s2:processing_baseline"),
        offset=taken,
        offset_rule=rule,
        assets={**assets, "SCL": item.asset(*MASK_ASSETS).pin()},
    )


# --- composites --------------------------------------------------------------------------------


def _side(block: Block) -> int:
    return round(block.tile_m / PIXEL_M) * BLOCK_TILES


def median(stack: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return the median over dates of (dates, bands, S, S), 0 where no date is above 0.

    Of an even number of dates it is the mean of the two in the middle, half rounded up.
    """
    if len(stack) == 0:
        return np.zeros(stack.shape[1:], dtype=np.uint16)
    known = (stack[:, 0] > 0).sum(axis=0)  # a date knows all bands of a pixel or none
    ordered = np.sort(stack, axis=0)  # unknown ones, 0, come first
    first = len(stack) - known
    low = np.minimum(first + (known - 1) // 2, len(stack) - 1)
    high = np.minimum(first + known // 2, len(stack) - 1)
    two = [
        np.take_along_axis(ordered, np.broadcast_to(i, (1, *ordered.shape[1:])), axis=0)[0]
        for i in (low, high)
    ]
    return np.asarray((two[0].astype(np.uint32) + two[1] + 1) // 2, dtype=np.uint16)
