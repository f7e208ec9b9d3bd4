"""Sentinel-1 over STAC: backscatter of radar, VV and VH at 10 m, the partner of optical images.

The collection is one of radiometrically terrain-corrected scenes, gamma naught as linear power
(`sentinel-1-rtc` at Planetary Computer: float32, -32768 where there is nothing; its storage wants
a key, `PC_SDK_SUBSCRIPTION_KEY`). A composite is the median over dates per pixel and band, taken
of the power: many dates together have less speckle (Quegan & Yu 2001, IEEE TGRS 39, 2373-2379; they
take means), and other than in a mean a ship or a rain cell on one date leaves no trace. The median
of speckle is lower than its mean, by about 0.3 dB at the 4.4 looks of these scenes and everywhere
alike. What is stored is decibel, 10·log10 of that median: the unit encoders were trained in
(SSL4EO-S12, Wang et al. 2023, arXiv:2211.07044), and one that can be standardised, for power is
heavy-tailed.

All dates of a city are of one direction of flight, ascending or descending: slopes and walls look
another way from the other side. It is the one that shows more of the city, then the one with more
dates. Of its dates those that lie farthest apart are read: all seasons are there.
"""

from collections.abc import Iterator, Sequence
from datetime import date as calendar
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli.errors import UrbanError
from urbancli.grid import BLOCK_TILES, Block, Grid, Places
from urbancli.layers import NOMINAL_PIXEL_M, PIXEL_SCHEMA
from urbancli.net import Net
from urbancli.sources._dates import Date, by_date, choose, dates_of, is_year, last_year, near
from urbancli.sources._items import Item, Pinned, search_area, share_seen, told_synthetic
from urbancli.sources._median import middle
from urbancli.sources._pixels import warped
from urbancli.sources._scenes import StacSource, shuffled
from urbancli.sources._tiles import SATELLITE_WINDOW_M

PIXEL_M = NOMINAL_PIXEL_M["sentinel1"]

BANDS = ("vv", "vh")

NODATA = -32768.0

DIRECTION = "sat:orbit_state"
ORBIT = "sat:relative_orbit"


class Source(StacSource):
    """A terrain-corrected Sentinel-1 collection of a STAC catalogue as the layer `sentinel1`.

    A sample is gamma naught in dB, float32; a pixel is valid where at least one date knows both
    bands, that is, has positive power in them. Bilinear resampling of the power; a file on the
    tiles' own grid is read unchanged.

    Args:
        catalogue: URL of a STAC API, or URL or path of a static `catalog.json`.
        since: first day, month or year (`2023-05-14`, `2023-05`, `2023`).
        until: last day, month or year, included.
        collection: id of the collection.
        dates: at each tile at most so many dates are used.
        net: how services are asked.
    """

    name = layer = "sentinel1"
    schema = PIXEL_SCHEMA
    licence = "Copernicus-Sentinel"
    attribution = "contains modified Copernicus Sentinel data"

    def __init__(
        self,
        catalogue: str,
        since: str | None = None,
        until: str | None = None,
        collection: str = "sentinel-1-rtc",
        dates: int = 12,
        *,
        net: Net | None = None,
    ) -> None:
        super().__init__(catalogue, (since, until), collection, net or Net())
        self._most = dates
        self._dates: list[Date[Pinned]] = []
        self._direction = ""

    def _parameters(self) -> dict[str, Any]:
        return {
            "dates_at_most": self._most,
            "composite": "median",
            "unit": "dB",
            "pixel_m": PIXEL_M,
            "resampling": "bilinear",
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
        both = [item for item in found if set(BANDS) <= set(item.assets)]
        if not both:
            raise UrbanError(
                f"no Sentinel-1 scene of '{self._collection}' with {' and '.join(BANDS)} in "
                f"{self._catalogue.where} touches the city"
                f"{' in that time' if any(self._asked_dates) else ''}: check the catalogue, "
                "--since and --until"
            )
        among = both if any(self._asked_dates) else last_year(both, places)
        direction, dates = _one_direction(among, places)
        chosen = choose(farthest_apart(dates), places, self._most)
        days = sorted(date.day for date in chosen)
        items = [(date.day, item) for date in chosen for item in date.items]
        return {
            "found": len(found),
            "days": [days[0], days[-1]],
            "orbit_state": direction,
            "synthetic": told_synthetic([item for _, item in items]),
            "items": [_pin(day, item) for day, item in items],
        }

    def _take(self, plan: dict[str, Any], grid: Grid) -> None:
        self._dates = dates_of(self._items, apart=lambda item: item.said["relative_orbit"])
        self._direction = plan["orbit_state"]

    def _reads(self, block: Block) -> Iterator[tuple[float, int]]:
        for date in near(self._dates, block):
            yield from ((PIXEL_M, 4) for _ in date.items for _ in BANDS)

    def read(self, block: Block) -> pa.Table:
        """Return one row per tile of the block that has any valid pixel, in Hilbert order."""
        side = round(block.tile_m / PIXEL_M) * BLOCK_TILES
        dates = near(self._dates, block)
        stack = np.zeros((len(dates), len(BANDS), side, side), dtype=np.float32)
        for index in shuffled(range(len(dates)), block):
            into = stack[index]
            for item in dates[index].items:
                if (into[0] == 0).any():
                    power = np.stack([self._band(item, band, block) for band in BANDS])
                    wanted = (into[0] == 0) & (power > 0).all(axis=0)
                    np.copyto(into, power, where=wanted)
        samples, valid = median_db(stack)
        return self._tiles.rows(block, samples, valid)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return bands, unit, pixel sizes, the direction of flight, and the dates used."""
        return {
            "bands": list(BANDS),
            "dtype": "float32",
            "unit": "dB, gamma naught",
            "pixel_m": PIXEL_M,
            "native_m": PIXEL_M,
            "composite": "median",
            "orbit_state": self._direction,
            "dates": sorted(date.day for date in self._dates),
        }

    def _band(self, item: Pinned, band: str, block: Block) -> npt.NDArray[np.float32]:
        """Return the power (S, S) of a band on the block's grid, 0 where nothing is known."""

        def on_grid(dataset: Any) -> npt.NDArray[np.float32]:
            with warped(dataset, block, PIXEL_M, "bilinear", nodata=NODATA) as warp:
                return np.asarray(warp.read(1), dtype=np.float32)

        power = self._rasters.read(item.assets[band], on_grid)
        return np.where(np.isfinite(power) & (power > 0), power, np.float32(0))


# --- which scenes ------------------------------------------------------------------------------


def _one_direction(items: Sequence[Item], places: Places) -> tuple[str, list[Date[Item]]]:
    """Return the direction of flight that shows more of the city, more often; and its dates."""
    best: tuple[tuple[int, int], str, list[Date[Item]]] = ((-1, -1), "", [])
    for direction in sorted({_direction(item) for item in items}):
        of_it = [item for item in items if _direction(item) == direction]
        dates = by_date(of_it, places, apart=lambda item: item.number(ORBIT))
        count = np.sum([share_seen(date.footprint, places) > 0.5 for date in dates], axis=0)
        shown = (int((count > 0).sum()), int(count.sum()))
        best = max(best, (shown, direction, dates), key=lambda each: each[0])
    return best[1], best[2]


def _direction(item: Item) -> str:
    said = item.properties.get(DIRECTION) or "unknown"
    if not isinstance(said, str):
        raise item.broken(DIRECTION)
    return said.lower()


def farthest_apart(dates: Sequence[Date[Item]]) -> list[Date[Item]]:
    """Return dates in such an order that the first few are spread over the whole time.

    The newest comes first, then always the one farthest in time from all before it, of two equally
    far the newer.
    """
    left = sorted(dates, key=lambda date: (date.day, date.items[0].item_id), reverse=True)
    days = np.array([calendar.fromisoformat(date.day).toordinal() for date in left])
    order: list[int] = []
    distance = np.full(len(left), np.iinfo(np.int64).max)
    for _ in left:
        order.append(int(np.argmax(distance)))
        distance = np.minimum(distance, abs(days - days[order[-1]]))
        distance[order] = -1
    return [left[index] for index in order]


def _pin(day: str, item: Item) -> dict[str, Any]:
    return item.pin(
        {band: item.asset(band) for band in BANDS},
        date=day,
        orbit_state=_direction(item),
        relative_orbit=item.properties.get(ORBIT),
    )


# --- composite ---------------------------------------------------------------------------------


def median_db(
    stack: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the median over dates of (dates, bands, S, S) in dB, and where (S, S) it is known.

    Args:
        stack: linear power; 0 in all bands where a date knows nothing; it is sorted in place.
    """
    power = np.zeros(stack.shape[1:], dtype=np.float32)
    known = np.zeros(stack.shape[2:], dtype=bool)
    if len(stack):
        for where, low, high in middle(stack):
            np.copyto(power, (low + high) / 2, where=where)
            known |= where
    decibel = 10 * np.log10(power, where=known, out=np.zeros_like(power))
    return decibel.astype(np.float32), known
