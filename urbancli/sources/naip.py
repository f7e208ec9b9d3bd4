"""NAIP over STAC: aerial images of the United States, red, green, blue and near infrared.

States are flown in different years. The newest year that covers the city wholly is taken; where
none does, the newest year first, and older ones fill what it leaves open. Within a year images
overlap: of a pixel the first valid one wins, images in order of their ids. What year and what
native resolution a tile's pixels are of stands in its row.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli.errors import UrbanError
from urbancli.grid import BLOCK_TILES, Block, Grid, Places
from urbancli.layers import NOMINAL_PIXEL_M, PIXEL_SCHEMA, pixel_size
from urbancli.net import Net
from urbancli.sources._items import Item, Pinned, search_area, share_seen, told_synthetic, union
from urbancli.sources._pixels import (
    pixel_sides_m,
    valid_pixels,
    warped,
    with_near_infrared,
)
from urbancli.sources._scenes import StacSource
from urbancli.sources._tiles import SATELLITE_WINDOW_M, tile_part

BANDS = ("red", "green", "blue", "nir")

ASSET = "image"

NOBODY = -1
"""In place of an image's number, where none shows a pixel."""

BEYOND_M = 100.0
"""So far beside a block an image's footprint may end whose pixels still touch it."""

NAIP_SCHEMA = (
    PIXEL_SCHEMA.append(pa.field("year", pa.int32()))
    .append(pa.field("year_share", pa.float64()))
    .append(pa.field("native_m", pa.float64()))
)
"""`PIXEL_SCHEMA`, and the year that most of a tile's valid pixels were taken in, the share of them
that were, and the pixel size of the images of that year, metres."""


class Source(StacSource):
    """The NAIP collection of a STAC catalogue as the layer `naip`.

    Pixels of 0.6 m, or as coarse as the images are where that is coarser. Bilinear resampling; an
    image on the tiles' own grid is read unchanged.

    Args:
        catalogue: URL of a STAC API, or URL or path of a static `catalog.json`.
        since: first day, month or year (`2018-07-01`, `2018-07`, `2018`).
        until: last day, month or year, included.
        collection: id of the collection.
        net: how services are asked.
    """

    name = layer = "naip"
    apart = True
    schema = NAIP_SCHEMA
    licence = "public-domain"
    attribution = "USDA National Agriculture Imagery Program (NAIP), public domain"

    def __init__(
        self,
        catalogue: str,
        since: str | None = None,
        until: str | None = None,
        collection: str = "naip",
        *,
        net: Net | None = None,
    ) -> None:
        super().__init__(catalogue, (since, until), collection, net or Net(), with_near_infrared)
        self._whole = False
        self._pixel_m = 0.0

    def _parameters(self) -> dict[str, Any]:
        return {"resampling": "bilinear", "halo_m": SATELLITE_WINDOW_M / 2, "version": 1}

    def _search(self, places: Places) -> dict[str, Any]:
        found = self._catalogue.search(self._collection, search_area(places), self._when)
        if not found:
            lon, lat = places.lonlat()
            raise UrbanError(
                f"NAIP covers the United States only: no image of '{self._collection}' in "
                f"{self._catalogue.where} touches the city at {lon[0]:.2f},{lat[0]:.2f}"
                f"{' in that time' if any(self._asked_dates) else ''}: use sentinel2"
            )
        chosen, whole = choose(found, places)
        grid = places.grid
        native = {item.item_id: self._native_size(item, grid.epsg) for item in chosen}
        coarse = max(min(native.values()), NOMINAL_PIXEL_M[self.layer])
        return {
            "found": len(found),
            "years": sorted({year(item) for item in chosen}),
            "one_year_covers": whole,
            "pixel_m": pixel_size(self.layer, coarse, grid.tile_m),
            "synthetic": told_synthetic(chosen),
            "items": [
                item.pin({ASSET: item.asset(ASSET)}, year=year(item), native_m=native[item.item_id])
                for item in chosen
            ],
        }

    def _take(self, plan: dict[str, Any], grid: Grid) -> None:
        self._whole = plan["one_year_covers"]
        self._pixel_m = plan["pixel_m"]

    def _reads(self, block: Block) -> Iterator[tuple[float, int]]:
        for item in self._touching(block, BEYOND_M):
            yield item.said["native_m"], len(BANDS)

    def read(self, block: Block) -> pa.Table:
        """Return one row per tile of the block that has any valid pixel, in Hilbert order."""
        side = round(block.tile_m / self._pixel_m) * BLOCK_TILES
        samples = self._scratch.array("mosaic", (len(BANDS), side, side), np.uint8)
        by = self._scratch.array("by", (side, side), np.int16)
        samples[:], by[:] = 0, NOBODY
        near = self._touching(block, BEYOND_M)
        for number, item in enumerate(near):
            if (by == NOBODY).any():
                self._fill(samples, by, (number, item), block)
        table = self._tiles.rows(block, samples, by != NOBODY)
        return self._with_years(table, by, near)

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return bands, pixel sizes, the years read, newest first, and whether one sufficed."""
        return {
            "bands": list(BANDS),
            "dtype": "uint8",
            "pixel_m": self._pixel_m,
            "native_m": min(item.said["native_m"] for item in self._items),
            "years": sorted({item.said["year"] for item in self._items}, reverse=True),
            "one_year_covers": self._whole,
        }

    def _native_size(self, item: Item, epsg: int) -> float:
        """Return an image's pixel size as its item says, else as its file does, metres."""
        if said := item.number("gsd"):
            if said < 0:
                raise item.broken("gsd")
            return said
        sides = self._rasters.read(item.asset(ASSET), lambda dataset: pixel_sides_m(dataset, epsg))
        return round(float(np.sqrt(np.prod(sides))), 3)

    def _fill(
        self,
        samples: npt.NDArray[np.uint8],
        by: npt.NDArray[np.int16],
        numbered: tuple[int, Pinned],
        block: Block,
    ) -> None:
        """Write an image into (4, S, S) where no earlier one did, and its number into `by`."""
        number, item = numbered
        asset = item.assets[ASSET]

        def new(dataset: Any) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]] | None:
            if dataset.count != len(BANDS) or set(dataset.dtypes) != {"uint8"}:
                raise UrbanError(
                    f"{asset.href} of item {item.item_id} has {dataset.count} bands of "
                    f"{dataset.dtypes[0]}: NAIP has {len(BANDS)} of uint8; use another collection"
                )
            with warped(
                dataset, block, self._pixel_m, scratch=self._scratch, stored=self._stored
            ) as warp:
                mask = valid_pixels(warp) & (by == NOBODY)
                return (mask, warp.read(list(range(1, len(BANDS) + 1)))) if mask.any() else None

        if (found := self._rasters.read(asset, new)) is not None:
            mask, read = found
            np.copyto(samples, read, where=mask)
            by[mask] = number

    def _with_years(
        self, table: pa.Table, by: npt.NDArray[np.int16], near: Sequence[Pinned]
    ) -> pa.Table:
        """Append year, its share of the valid pixels, and native pixel size to a block's rows."""
        rows = []
        for place in table.column("place_id").to_pylist():
            taken_by = by[tile_part(place, len(by) // BLOCK_TILES)]
            numbers, counts = np.unique(taken_by[taken_by != NOBODY], return_counts=True)
            of_year: dict[int, int] = {}
            for number, count in zip(numbers, counts, strict=True):
                taken = near[number].said["year"]
                of_year[taken] = of_year.get(taken, 0) + int(count)
            most = max(of_year, key=lambda taken: (of_year[taken], taken))
            items = [near[n].said for n in numbers]
            sizes = [said["native_m"] for said in items if said["year"] == most]
            rows.append((most, of_year[most] / sum(of_year.values()), min(sizes)))
        for index, name in enumerate(("year", "year_share", "native_m")):
            values = pa.array([row[index] for row in rows], NAIP_SCHEMA.field(name).type)
            table = table.append_column(name, values)
        return table


def year(item: Item) -> int:
    """Return the year of an image: of its state's programme, else of its date."""
    found = int(item.number("naip:year") or item.acquired.year)
    if not 1900 <= found <= 9999:
        raise item.broken("naip:year")
    return found


def choose(items: Sequence[Item], places: Places) -> tuple[list[Item], bool]:
    """Return the images to read in the order in which they win, and whether one year sufficed."""
    years = sorted({year(item) for item in items}, reverse=True)
    ordered = sorted(items, key=lambda item: (-year(item), item.item_id))
    for newest in years:
        group = [item for item in ordered if year(item) == newest]
        if (share_seen(union(group), places) == 1).all():
            return group, True
    return ordered, False
