"""What the sources of imagery over STAC have in common: one search, one plan, one way from it.

The plan holds all that reading needs: items with footprint, files, dates, numbers to take off. A
catalogue on a server is searched once per city; a resumed fetch takes the pinned plan and asks
nobody. A catalogue that lies here as a file is searched anew, its files pinned by checksum.
"""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import Block, Grid, Places
from urbancli.net import Net
from urbancli.sources import base
from urbancli.sources._items import Pinned, period, pinned_items
from urbancli.sources._rasters import Rasters, unchanged
from urbancli.sources._stac import Catalogue
from urbancli.sources._stored import Scratch, StoredBlocks
from urbancli.sources._tiles import WantedTiles, halo_cells

COG_TILE_PX = 512
"""Side of the squares that a COG is compressed in, as far as one knows beforehand."""

COMPRESSED = 0.6
"""Bytes of deflated samples, of 8 or 16 bits, against their plain size, about."""

HEADER_BYTES = 32 << 10

Thing = TypeVar("Thing")


class StacSource(base.Source):
    """A collection of a STAC catalogue as a pixel layer.

    Attributes:
        name: of the source, its file's.

    Args:
        catalogue: URL of a STAC API, or URL or path of a static `catalog.json`.
        dates: first and last day, month or year, both included.
        collection: id of the collection.
        net: how the catalogue and the tokens are asked for.
        prepare: makes of a raster just opened the one to read.
    """

    streamed = True
    name: str

    def __init__(
        self,
        catalogue: str,
        dates: tuple[str | None, str | None],
        collection: str,
        net: Net,
        prepare: Callable[[Any], Any] = unchanged,
    ) -> None:
        self._asked_dates = dates
        self._when = period(*dates)
        self._catalogue = Catalogue(catalogue, net)
        self._collection = collection
        self._rasters = Rasters(net, prepare)
        self._items: list[Pinned] = []
        self._stored, self._scratch = StoredBlocks(), Scratch()
        self._tiles = WantedTiles(Grid(0), np.empty((0, 2), dtype=np.int64))

    @abstractmethod
    def _parameters(self) -> dict[str, Any]:
        """Return what of the options decides which items are read, and how."""

    @abstractmethod
    def _search(self, places: Places) -> dict[str, Any]:
        """Search once, choose, and return what the plan holds beside the question."""

    @abstractmethod
    def _take(self, plan: dict[str, Any], grid: Grid) -> None:
        """Take from a plan what reading needs beside its items."""

    @abstractmethod
    def _reads(self, block: Block) -> Iterable[tuple[float, int]]:
        """Yield (pixel size in metres, bytes a pixel) of each asset that a block reads."""

    def _question(self) -> dict[str, Any]:
        since, until = self._asked_dates
        return {
            "source": self.name,
            "catalogue": self._catalogue.where,
            "collection": self._collection,
            "since": since,
            "until": until,
            **self._parameters(),
        }

    def asked(self) -> dict[str, Any] | None:
        """Return catalogue, collection, dates and parameters; None of a catalogue that is here."""
        return None if self._catalogue.is_local else self._question()

    def plan(self, places: Places) -> dict[str, Any]:
        """Search once, choose the items, and pin every file that will be read.

        Raises:
            UrbanError: the catalogue cannot be read, or has nothing that can be read of the city.
            ServiceError: the service refuses or cannot be reached.
        """
        base.places_grid(places)
        plan = {**self._question(), **self._search(places)}
        self.take(plan, places)
        return plan

    def take(self, plan: dict[str, Any], places: Places) -> None:
        """Take a plan of `plan`: nothing is searched or opened.

        Raises:
            UrbanError: it is no whole plan.
        """
        try:
            self._items = pinned_items(plan, self._catalogue.locate)
            self.licence, self.attribution = type(self).licence, type(self).attribution
            if plan["synthetic"]:
                self.licence, self.attribution = "CC0-1.0", plan["synthetic"]
            self._take(plan, base.places_grid(places))
        except (LookupError, TypeError, ValueError, shapely.errors.GEOSException) as err:
            raise UrbanError(
                f"the plan of {self.name} in the city's lock.json is broken "
                f"({type(err).__name__}): delete the lock and fetch again"
            ) from err

    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks of the city's tiles and of the halo around them."""
        self._tiles = WantedTiles(places.grid, halo_cells(places))
        return self._tiles.blocks

    def estimate(self, places: Places) -> base.Estimate:
        """Return what reading will cost: all items that touch a block are read, whole COG tiles.

        Of a file two requests are for its header; of a block's part of it mostly one, often two.
        """
        blocks = self.blocks(places)
        remote = [a for item in self._items for a in item.assets.values() if not a.is_local]
        reads = [read for block in blocks for read in self._reads(block)] if remote else []
        side_m = blocks[0].bounds[2] - blocks[0].bounds[0] if blocks else 0.0
        data = sum((side_m / pixel_m + COG_TILE_PX) ** 2 * size for pixel_m, size in reads)
        return base.Estimate(
            items=len(self._items),
            blocks=len(blocks),
            requests=2 * len(remote) + round(1.5 * len(reads)),
            bytes=HEADER_BYTES * len(remote) + round(COMPRESSED * data),
        )

    def _touching(self, block: Block, beyond_m: float) -> list[Pinned]:
        """Return the items, in the plan's order, that touch a block and some metres around it."""
        box = around(block, beyond_m)
        return [item for item in self._items if shapely.intersects(item.footprint, box)]


def around(block: Block, beyond_m: float) -> Any:
    """Return a block and some metres around it, EPSG:4326, lon lat."""
    grid = Grid(block.epsg, block.tile_m)
    box = shapely.buffer(shapely.box(*block.bounds), beyond_m)
    return grid.unproject_geometry(shapely.segmentize(box, 1000.0))


def shuffled(things: Iterable[Thing], block: Block) -> list[Thing]:
    """Return things in an order of its own for each block.

    Blocks that are read at once then seldom want the same file first, and each file is opened by
    one of them while the others open others.
    """
    order = list(things)
    random.Random(block.block_id).shuffle(order)
    return order
