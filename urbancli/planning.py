"""What a fetch will read: settled before anything is read, and once for the same question.

A plan is pinned in `lock.json` with the layer it made, and beside the staged blocks of one that is
not finished. The same question later, or after a crash, goes on with the pinned plan, whatever a
catalogue has since added.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.city import City, synthetic_marks
from urbancli.errors import ServiceError, UrbanError
from urbancli.grid import TILE_M, Block, Grid, Places, places_from_table, tiles_of
from urbancli.hilbert import hilbert_order
from urbancli.labels.files import LabelSpec
from urbancli.lock import (
    Standing,
    alone,
    area_fingerprint,
    city_entry,
    layer_fingerprint,
    settle_city,
    standing,
)
from urbancli.net import OfflineError
from urbancli.sources.base import Progress, Source, silent
from urbancli.workers import Patience, Threads, Workers
from urbancli.workspace import Workspace, geometries, open_parquet, read_json, read_table


@dataclass(frozen=True)
class Engine:
    """How a fetch works.

    Attributes:
        workers: who reads the blocks.
        refresh: whether services are searched anew in place of going on with the pinned plan.
        optional: layers that may have nothing for this city, which is then a note and no error.
        keeps: layers that stay if they lie there whole, though they came from elsewhere: from a
            file, another catalogue, other dates.
        accept_gaps: whether a layer is finished without the blocks that cannot be read.
        patience: how long a service that is down is waited for.
        progress: told of every block.
    """

    workers: Workers = field(default_factory=lambda: Threads(1))
    refresh: bool = False
    optional: frozenset[str] = frozenset()
    keeps: frozenset[str] = frozenset()
    accept_gaps: bool = False
    patience: Patience = field(default_factory=Patience)
    progress: Progress = silent


@dataclass
class Planned:
    """A source and what it will read for a city."""

    source: Source
    plan: dict[str, Any]
    places: Places
    mark: str
    staging: Path

    @cached_property
    def blocks(self) -> list[Block]:
        """All its blocks, in Hilbert order."""
        return self.source.blocks(self.places)

    def staged(self, block: Block) -> Path:
        """Return where a block waits until all are there; the file exists = the block is done."""
        return self.staging / f"{block.block_id}.parquet"

    def missing(self) -> list[Block]:
        """Return the blocks that are not done; a staged file that is not whole is removed."""
        return [block for block in self.blocks if not _is_whole(self.staged(block))]


def _is_whole(path: Path) -> bool:
    """Return whether a staged file is there and can be opened, removing it if it cannot."""
    if not path.exists():
        return False
    try:
        open_parquet(path)[0].close()
    except UrbanError:
        path.unlink(missing_ok=True)
        return False
    return True


@dataclass
class Job:
    """One fetch of one city, as far as it has come.

    Attributes:
        workspace: where to.
        engine: how.
        found: what lies there.
        places: the city's tiles, in the order of their file.
        marks: what every file must say: that it is synthetic, or nothing.
        planned: what will be read.
        failed: why, of layers of which nothing is known.
        gaps: of each layer that no service gave wholly: `layer`, what is `missing`, and `why`.
        notes: lines for the person.
        kept: layers that stay as they are, though the same is not asked for.
    """

    workspace: Workspace
    engine: Engine
    found: Standing
    places: Places
    marks: dict[str, str]
    planned: list[Planned] = field(default_factory=list)
    failed: dict[str, UrbanError] = field(default_factory=dict)
    gaps: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        """The city's."""
        return str(self.found.lock["city"]["key"])

    def settle(self, source: Source) -> bool:
        """Settle what a source will read: as pinned for the same question, or asked for now.

        Returns:
            Whether there is anything to read; if not, a gap or a note says why.

        Raises:
            UrbanError: a local input cannot be read or misses the city.
        """
        if source.layer in self.engine.keeps and self._came_from_elsewhere(source):
            self.notes.append(
                f"{source.layer} is kept as it was fetched, with other options or from files: "
                f"--layer {source.layer} brings it from the service instead"
            )
            self.kept.add(source.layer)
            return False
        source.progress = self.engine.progress
        try:
            plan = self._take_pinned(source)
            if plan is None:
                plan, asked = source.plan(self.places), source.asked()
                plan = plan if asked is None else {"asked": asked, **plan}
        except UrbanError as err:
            if isinstance(err, ServiceError) or source.layer not in self.engine.optional:
                if source.asked() is None:
                    raise
                self.failed[source.layer] = err
                return False
            self.notes.append(f"{source.layer} is left out: {err}")
            return False
        finally:
            del source.progress  # it may hold a terminal: other processes have none
        self.failed.pop(source.layer, None)
        mark = self.mark(source.layer, plan)
        staging = self.workspace.staging_dir(self.key, source.layer, mark)
        self.planned.append(Planned(source, plan, self.places, mark, staging))
        return True

    def settle_all(self, sources: Sequence[Source]) -> None:
        """Settle what each source will read.

        Raises:
            UrbanError: what the first of them raises, where no source has anything to read and
                no layer is kept.
        """
        for source in sources:
            self.settle(source)
        if self.failed and not (self.planned or self.kept):
            raise next(iter(self.failed.values()))

    def settle_again(self, source: Source) -> bool:
        """Settle a source whose service did not answer, for as long as the patience lasts."""
        for pause in self.engine.patience.pauses():
            error = self.failed.get(source.layer)
            if not isinstance(error, ServiceError) or isinstance(error, OfflineError):
                return False
            self.engine.patience.say(
                f"{source.layer}: {error}; asked again in {pause:.0f} s (Ctrl-C stops, the other "
                "layers are kept)"
            )
            time.sleep(pause)
            if self.settle(source):
                return True
        return False

    def mark(self, layer: str, plan: dict[str, Any]) -> str:
        """Return the fingerprint of a layer that is made by a plan."""
        return layer_fingerprint(self.found.lock["city"], layer, plan)

    def is_finished(self, planned: Planned) -> bool:
        """Return whether the layer that lies there is whole and of this plan."""
        layer = planned.source.layer
        whole = self.workspace.layer_file(self.key, layer) not in self.found.damaged
        return whole and self.found.marks.get(layer) == planned.mark

    def made(self, path: Path) -> None:
        """Note that a file is written; it may have been a damaged one."""
        if path in self.found.damaged:
            self.found.damaged.discard(path)
            self.notes.append(f"{path} was damaged (not what its manifest says): made anew")

    def _came_from_elsewhere(self, source: Source) -> bool:
        """Return whether a layer lies there whole that answers another question."""
        path = self.workspace.layer_file(self.key, source.layer)
        plan = self.found.lock["layers"].get(source.layer)
        there = plan is not None and path.exists() and path not in self.found.damaged
        return there and plan.get("asked") != source.asked()

    def _take_pinned(self, source: Source) -> dict[str, Any] | None:
        asked = source.asked()
        if asked is None or self.engine.refresh:
            return None
        for pinned in self._pinned(source.layer):
            if pinned.get("asked") == asked:
                plan = {name: value for name, value in pinned.items() if name != "gaps"}
                source.take(plan, self.places)
                return plan
        return None

    def _pinned(self, layer: str) -> Iterator[dict[str, Any]]:
        """Yield the plans of a layer: of the finished one, and of unfinished ones of this area."""
        if layer in self.found.lock["layers"]:
            yield self.found.lock["layers"][layer]
        every = self.workspace.staging_dir(self.key, layer, "").parent
        for path in sorted(every.glob(f"{layer}-*/plan.json")):
            try:
                plan: dict[str, Any] = read_json(path)["plan"]
            except (UrbanError, KeyError):
                continue  # of another version, or broken: planned anew
            mark = self.mark(layer, plan)
            if path.parent == self.workspace.staging_dir(self.key, layer, mark):
                yield plan


def begin(
    workspace: Workspace,
    city: City,
    sources: Sequence[Source],
    labels: Sequence[LabelSpec],
    engine: Engine,
    tile_m: int = TILE_M,
) -> Job:
    """Look at what lies there and settle the city's area and tiles; nothing is written.

    Raises:
        UrbanError: the folder holds another area, or a damaged file that is not made anew.
    """
    layers = [source.layer for source in sources]
    given = {workspace.layer_file(city.key, layer) for layer in layers}
    given |= {workspace.label_file(city.key, spec.name) for spec in labels}
    found = standing(workspace, city.key, given)
    settle_city(found, city_entry(city, tile_m), layers, workspace)
    marks = synthetic_marks(found.lock["city"]["origin"])
    return Job(workspace, engine, found, _places(workspace, city, found), marks)


def _places(workspace: Workspace, city: City, found: Standing) -> Places:
    """Return the city's tiles: as they lie there, or of its area in Hilbert order."""
    entry, path = found.lock["city"], workspace.places_file(city.key)
    grid = Grid(entry["epsg"], entry["tile_m"])
    if path.exists() and path not in found.damaged:
        table, facts = read_table(path)
        if facts.get("area_fingerprint") == area_fingerprint(entry):
            return places_from_table(table, grid)
    table = tiles_of(city.area, grid).to_table()
    return places_from_table(table.take(pa.array(hilbert_order(geometries(table)))), grid)


def preview(
    workspace: Workspace, city: City, sources: Sequence[Source], engine: Engine
) -> dict[str, Any]:
    """Return what a fetch would read: searches are made, nothing else is read or written.

    Returns:
        `city`, `tiles`, `gaps` and `notes`, and per layer `items`, `blocks`, those `done` before,
        and `requests` and `bytes` that are left, about.
    """
    layers = {}
    with alone(workspace, city.key):
        job = begin(workspace, city, sources, [], engine)
        for source in sources:
            done = 0
            if source.streamed:  # the others read all that they need as they plan
                if not job.settle(source):
                    continue
                planned = job.planned[-1]
                left = 0 if job.is_finished(planned) else len(planned.missing())
                done = len(planned.blocks) - left
            cost = source.estimate(job.places)
            share = 1 - done / max(1, cost.blocks)
            layers[source.layer] = {
                "items": cost.items,
                "blocks": cost.blocks,
                "done": done,
                "requests": round(cost.requests * share),
                "bytes": round(cost.bytes * share),
            }
    return {
        "city": job.key,
        "tiles": len(job.places),
        "layers": layers,
        "notes": job.notes,
        "gaps": [gap_of_all(layer, err) for layer, err in job.failed.items()],
    }


def gap_of_all(layer: str, why: UrbanError) -> dict[str, str]:
    """Return the gap of a layer of which nothing could be read."""
    return {"layer": layer, "missing": "all of it", "why": str(why)}
