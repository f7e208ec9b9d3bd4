"""Sentinel-2 over STAC: one cloud-free composite of the surface reflectance, 12 bands at 10 m.

The offset rule, by who says what. ESA adds 1000 to every number since processing baseline 04.00,
and Planetary Computer (like any copy of ESA's files) leaves it there: it is taken off where
`s2:processing_baseline` is 04.00 or later. Earth Search takes it off for some items of
`sentinel-2-l2a` and says so in `earthsearch:boa_offset_applied`: it is taken off here only where
that is false, whatever `raster:bands` says (which is the same for both). It leaves it in
`sentinel-2-c1-l2a`, which has no such flag: there it is what `raster:bands` says
(Element84/earth-search#41). Users report items whose flag is wrong (#66, #71 there): which rule an
item fell under, and what was taken off, is recorded per item in the plan.

Without `since` and `until` the twelve months up to the newest scene are used, so that all seasons
are there and no clock decides; where they leave out tiles that older scenes cover, all scenes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli.errors import UrbanError, unknown
from urbancli.grid import BLOCK_TILES, Block, Grid, Places
from urbancli.layers import NOMINAL_PIXEL_M, PIXEL_SCHEMA
from urbancli.net import Net
from urbancli.sources._dates import Date, by_date, choose, dates_of, is_year, last_year, near
from urbancli.sources._items import Item, Pinned, search_area, told_synthetic
from urbancli.sources._median import middle
from urbancli.sources._pixels import warped
from urbancli.sources._scenes import StacSource, shuffled
from urbancli.sources._tiles import SATELLITE_WINDOW_M

PIXEL_M = NOMINAL_PIXEL_M["sentinel2"]

ASSETS = {
    "B01": ("B01", "coastal"), "B02": ("B02", "blue"), "B03": ("B03", "green"),
    "B04": ("B04", "red"), "B05": ("B05", "rededge1"), "B06": ("B06", "rededge2"),
    "B07": ("B07", "rededge3"), "B08": ("B08", "nir"), "B8A": ("B8A", "nir08"),
    "B09": ("B09", "nir09"), "B11": ("B11", "swir16"), "B12": ("B12", "swir22"),
}  # fmt: skip
"""The bands in their order, with the names of their assets at ESA's copies and at Earth Search."""

MASK = "SCL"
MASK_ASSETS = ("SCL", "scl")

UNCLEAR = (0, 1, 3, 8, 9, 10, 11)
"""Classes of the scene classification that are not the ground as it usually looks: no data,
defective, cloud shadow, clouds of medium and high probability, cirrus, and snow. Snow, because it
hides what a city is made of, and bright clouds are taken for it."""

OFFSET = 1000
OFFSET_SINCE = (4, 0)
APPLIED = "earthsearch:boa_offset_applied"

COMPOSITES = ("median", "least-cloud")

NATIVE_M = {"B01": 60, "B05": 20, "B06": 20, "B07": 20, "B8A": 20, "B09": 60, "B11": 20, "B12": 20}
"""Pixel sizes of the files of those bands that are not of 10 m, metres; `SCL` has 20 m."""


class Source(StacSource):
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
        net: how services are asked.
    """

    name = layer = "sentinel2"
    schema = PIXEL_SCHEMA
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
        *,
        net: Net | None = None,
    ) -> None:
        if composite not in COMPOSITES:
            raise unknown("composite", composite, COMPOSITES)
        super().__init__(catalogue, (since, until), collection, net or Net())
        self._composite = composite
        self._most = dates
        self._dates: list[Date[Pinned]] = []

    def _parameters(self) -> dict[str, Any]:
        return {
            "dates_at_most": self._most,
            "composite": self._composite,
            "masked_classes": list(UNCLEAR),
            "pixel_m": PIXEL_M,
            "resampling": {"bands": "bilinear", "classes": "nearest"},
            "halo_m": SATELLITE_WINDOW_M / 2,
            "version": 1,
        }

    def _search(self, places: Places) -> dict[str, Any]:
        found = self._catalogue.search(
            self._collection,
            search_area(places),
            self._when,
            enough=lambda items: not any(self._asked_dates) and is_year(items, places),
        )
        among = found if any(self._asked_dates) else last_year(found, places)
        ordered = sorted(by_date(among, places), key=lambda date: (_clouds(date), date.day))
        dates = choose(ordered, places, self._most)
        if not dates:
            raise UrbanError(
                f"no Sentinel-2 scene of '{self._collection}' in {self._catalogue.where} touches "
                f"the city{' in that time' if any(self._asked_dates) else ''}: check the "
                "catalogue, --since and --until"
            )
        items = [(date.day, item) for date in dates for item in _newest_processing_first(date)]
        days = sorted(date.day for date in dates)
        return {
            "found": len(found),
            "days": [days[0], days[-1]],
            "synthetic": told_synthetic([item for _, item in items]),
            "items": [_pin(day, item) for day, item in items],
        }

    def _take(self, plan: dict[str, Any], grid: Grid) -> None:
        self._dates = dates_of(self._items)

    def _reads(self, block: Block) -> Iterator[tuple[float, int]]:
        for date in near(self._dates, block):
            for _ in date.items:
                yield 20.0, 1
                yield from ((NATIVE_M.get(band, PIXEL_M), 2) for band in ASSETS)

    def read(self, block: Block) -> pa.Table:
        """Return one row per tile of the block that has any valid pixel, in Hilbert order."""
        dates = near(self._dates, block)
        order = shuffled(range(len(dates)), block)
        clear = {n: [self._clear(item, block) for item in dates[n].items] for n in order}
        seen = [index for index in order if any(mask.any() for mask in clear[index])]
        least = self._composite == "least-cloud"
        if least:
            seen.sort()
        side = round(block.tile_m / PIXEL_M) * BLOCK_TILES
        stack = np.zeros((1 if least else len(seen), len(ASSETS), side, side), dtype=np.uint16)
        for layer, index in enumerate(seen):
            into = stack[0 if least else layer]
            for item, mask in zip(dates[index].items, clear[index], strict=True):
                wanted = mask & (into[0] == 0)
                if wanted.any():
                    self._fill(into, item, block, wanted)
        samples = stack[0] if least else median(stack)
        return self._tiles.rows(block, samples, samples[0] > 0)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return bands, pixel sizes, the dates used, and pixels that no date shows clear.

        `pixels_never_clear` counts over the city's tiles and its halo; it follows from the rows.
        """
        of_tile = round(self._tiles.grid.tile_m / PIXEL_M) ** 2
        valid = sum(round(share * of_tile) for share in tiles["valid_fraction"].to_pylist())
        return {
            "bands": list(ASSETS),
            "dtype": "uint16",
            "pixel_m": PIXEL_M,
            "native_m": PIXEL_M,
            "scale": 1e-4,
            "composite": self._composite,
            "dates": [date.day for date in self._dates],
            "pixels_never_clear": len(self._tiles) * of_tile - valid,
        }

    def _clear(self, item: Pinned, block: Block) -> npt.NDArray[np.bool_]:
        """Return where (S, S) an item's scene classification is clear."""
        return ~np.isin(self._band(item, MASK, block, "nearest"), UNCLEAR)

    def _fill(
        self,
        into: npt.NDArray[np.uint16],
        item: Pinned,
        block: Block,
        wanted: npt.NDArray[np.bool_],
    ) -> None:
        """Write an item's reflectance into (bands, S, S) where it is wanted and all bands know."""
        order = shuffled(ASSETS, block)
        read = {band: self._band(item, band, block, "bilinear") for band in order}
        bands = np.stack([read[band] for band in ASSETS])
        wanted = wanted & (bands != 0).all(axis=0)
        taken = item.said["offset"]
        # 1 at least: 0 is no data, and dark pixels fall below the offset.
        reflectance = np.maximum(bands, taken + 1) - np.uint16(taken)
        np.copyto(into, reflectance, where=wanted)

    def _band(self, item: Pinned, band: str, block: Block, resampling: str) -> npt.NDArray[Any]:
        """Return (S, S) of a band of an item on the block's grid, 0 where there is nothing."""

        def on_grid(dataset: Any) -> npt.NDArray[Any]:
            with warped(dataset, block, PIXEL_M, resampling, nodata=0, stored=self._stored) as warp:
                return np.asarray(warp.read(1))

        return self._rasters.read(item.assets[band], on_grid)


# --- which scenes ------------------------------------------------------------------------------


def offset(item: Item) -> tuple[int, str]:
    """Return what is to be taken off an item's numbers, and the property that says so.

    Raises:
        UrbanError: the item does not say what its provider says of every item.
    """
    said = item.properties
    applied = said.get(APPLIED)
    if applied is not None and not isinstance(applied, bool):
        raise item.broken(APPLIED)
    if applied is True:
        return 0, APPLIED
    if applied is None and MASK_ASSETS[0] not in item.assets:
        return _of_band(item), "raster:bands"
    try:
        version = tuple(int(part) for part in str(said.get("s2:processing_baseline")).split("."))
    except ValueError as err:
        raise UrbanError(
            f"item {item.item_id} does not say its processing baseline (s2:processing_baseline), "
            "on which the offset depends: use another collection or catalogue"
        ) from err
    rule = "s2:processing_baseline" if applied is None else APPLIED
    return (OFFSET if version >= OFFSET_SINCE else 0), rule


def _of_band(item: Item) -> int:
    """Return what is to be taken off an item's numbers, as its red band says.

    Raises:
        UrbanError: it says nothing, or what cannot be.
    """
    try:
        band = item.asset(*ASSETS["B04"]).said["raster:bands"][0]
        taken = round(-band["offset"] / band["scale"])
    except (LookupError, TypeError, ArithmeticError, ValueError):
        taken = None
    if taken not in {0, OFFSET}:
        raise UrbanError(
            f"item {item.item_id} does not say whether the offset of {OFFSET} is still in its "
            "numbers (earthsearch:boa_offset_applied, raster:bands): use another collection or "
            "catalogue"
        )
    return int(taken)


def _clouds(date: Date[Item]) -> float:
    """Return the mean cloud cover of a date's scenes, percent; 100 where an item does not say."""
    said = [item.number("eo:cloud_cover") for item in date.items]
    return float(np.mean([100.0 if cover is None else cover for cover in said]))


def _newest_processing_first(date: Date[Item]) -> list[Item]:
    baseline = "s2:processing_baseline"
    return sorted(date.items, key=lambda i: str(i.properties.get(baseline)), reverse=True)


def _pin(day: str, item: Item) -> dict[str, Any]:
    taken, rule = offset(item)
    assets = {band: item.asset(*names) for band, names in ASSETS.items()}
    return item.pin(
        {**assets, MASK: item.asset(*MASK_ASSETS)},
        date=day,
        cloud_cover=item.properties.get("eo:cloud_cover"),
        baseline=item.properties.get("s2:processing_baseline"),
        offset=taken,
        offset_rule=rule,
    )


# --- composites --------------------------------------------------------------------------------


def median(stack: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return the median over dates of (dates, bands, S, S), 0 where no date is above 0.

    Of an even number of dates it is the mean of the two in the middle, half rounded up. The stack
    is sorted in place.
    """
    composite = np.zeros(stack.shape[1:], dtype=np.uint16)
    if len(stack):
        for where, low, high in middle(stack):
            mean = low if low is high else (low.astype(np.uint32) + high + 1) // 2
            np.copyto(composite, mean, where=where, casting="unsafe")
    return composite
