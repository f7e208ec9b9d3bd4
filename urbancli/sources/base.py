"""The contract of a source: what live services and local files have in common.

`plan` says what exactly will be read, as JSON that goes into `lock.json`; `read` returns the rows
of one block and is a pure function of the plan, so that blocks can be read in any order, by any
worker, and again after a crash, with the same bytes.

A source of a live service says in `asked` what it was asked for, and `take`s a plan that was made
for the same: a search is made once per city, and neither a resumed fetch nor the same command a
week later depends on what a catalogue has since added.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.errors import UrbanError
from urbancli.grid import Block, Grid, Places
from urbancli.workspace import sha256

SHAPEFILE_SUFFIXES = (".dbf", ".shx", ".prj", ".cpg")


@dataclass(frozen=True)
class Estimate:
    """What reading a layer will cost.

    Attributes:
        items: files or scenes that are read.
        blocks: of the city and its halo.
        requests: to services, about.
        bytes: to be downloaded, about.
    """

    items: int
    blocks: int
    requests: int
    bytes: int


Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


class Source(ABC):
    """Brings one layer of one city.

    Between `plan` (or `take`) with `blocks`, and `facts`, a streamed source is read from by many
    threads at once, and can be pickled to be read from by other processes.

    Attributes:
        layer: name of the layer it fills.
        licence: SPDX-like name of the data's licence, `user-supplied` where we cannot know.
        attribution: the text that must stand beside the data.
        schema: of the tables `read` returns.
        streamed: whether the compacted file keeps one row group per block (pixels) instead of
            being sorted as a whole (entities).
        apart: whether readers work far from each other, as decoding is what takes time; else they
            work side by side, so that what they share is downloaded once.
        progress: told of what is asked while planning; set by the engine for that time.
    """

    progress: Progress = staticmethod(silent)
    layer: str
    licence: str
    attribution: str
    schema: pa.Schema
    streamed: bool
    apart: bool = False

    @abstractmethod
    def plan(self, places: Places) -> dict[str, Any]:
        """Open the input, check it, and return what is pinned: inputs, parameters.

        Raises:
            UrbanError: the input cannot be read or misses the city.
        """

    @abstractmethod
    def blocks(self, places: Places) -> list[Block]:
        """Return the blocks that `read` wants to be asked for, in Hilbert order."""

    @abstractmethod
    def read(self, block: Block) -> pa.Table:
        """Return the rows of one block, possibly none."""

    @abstractmethod
    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        """Return what the layer's metadata says beside provenance: bands, counts, gaps.

        Args:
            tiles: every row that `read` returned, of a pixel layer without `pixels`, `valid` and
                geometry.
        """

    def asked(self) -> dict[str, Any] | None:
        """Return what a plan answers, as JSON; None where a plan is always made anew (files)."""
        return None

    def take(self, plan: dict[str, Any], places: Places) -> None:
        """Take a plan that was made for the same `asked`, in place of asking the service."""
        raise NotImplementedError

    def estimate(self, places: Places) -> "Estimate":
        """Return what reading will cost, after `plan` or `take`."""
        return Estimate(items=1, blocks=len(self.blocks(places)), requests=0, bytes=0)


def pin(path: Path) -> dict[str, Any]:
    """Return what a lock keeps of a local file: its name, size and checksum, no absolute path.

    Of a shapefile the files beside it that hold attributes, index and CRS belong to it.

    Raises:
        UrbanError: there is no such file.
    """
    if not path.is_file():
        raise UrbanError(f"no file {path}: check the path")
    pinned = _pin_one(path)
    if path.suffix.lower() == ".shp":
        beside = [path.with_suffix(suffix) for suffix in SHAPEFILE_SUFFIXES]
        return {**pinned, "beside": [_pin_one(each) for each in beside if each.is_file()]}
    return pinned


def _pin_one(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def places_grid(places: Places) -> Grid:
    """Return the grid of a city's places, refusing a city without any.

    Raises:
        UrbanError: there are no places.
    """
    if not len(places):
        raise UrbanError("the city has no tiles: check --bbox or --aoi")
    return places.grid
