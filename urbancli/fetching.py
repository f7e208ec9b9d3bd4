"""From a plan to finished layers: block by block, staged, resumable, compacted to one file a layer.

A staged block file exists = the block is done. A layer is compacted from its staged blocks in
Hilbert order; the manifest is written last. A killed fetch therefore goes on where it was, and a
later fetch that fails leaves the city as it was: a file leaves the manifest as it is replaced.

What a service did not give is a gap: its layer stays unfinished, its blocks staged, and everything
else is finished. The same command fills it.
"""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.city import City
from urbancli.compaction import compact, plain, without_pixels
from urbancli.description import describe
from urbancli.grid import TILE_M, Block
from urbancli.labels.files import LabelSpec, read_label
from urbancli.lock import alone, area_fingerprint, unlist, write_lock
from urbancli.planning import Engine, Job, Planned, begin, gap_of_all
from urbancli.sources._entities import EntitySource
from urbancli.sources.base import Source
from urbancli.workers import read_all
from urbancli.workspace import (
    Workspace,
    open_parquet,
    read_table,
    sweep,
    write_json,
    write_manifest,
    write_table,
    write_tables,
)

WHOLE_SHARE = 0.999
"""A tile counts as cut from below this share inside: areas are stored to a centimetre."""


def fetch(
    workspace: Workspace,
    city: City,
    sources: Sequence[Source],
    labels: Sequence[LabelSpec],
    engine: Engine | None = None,
    tile_m: int = TILE_M,
) -> dict[str, Any]:
    """Bring layers and labels of a city into the workspace; what is already there is kept.

    Args:
        workspace: where to.
        city: its area and CRS.
        sources: one per layer.
        labels: label files.
        engine: how.
        tile_m: side of a tile, metres.

    Returns:
        A summary: tiles, per layer and label the facts of its file, `notes` on what was mended or
        left out, and `gaps`: per layer what no service gave, and why.

    Raises:
        UrbanError: an input cannot be read, misses the city, or the folder holds another area.
        ServiceError: there is nothing to read, as no service answers.
    """
    with alone(workspace, city.key):
        job = begin(workspace, city, sources, labels, engine or Engine(), tile_m)
        tables = [read_label(spec, job.places) for spec in labels]
        job.settle_all(sources)

        # Every input is good: only from here on the folder changes, file by file.
        _write_places(job)
        write_lock(workspace, job.key, job.found.lock)
        for planned in job.planned:
            _fetch_layer(job, planned)
        for source in sources:  # what did not answer at first, now that all else is done
            if source.layer in job.failed and job.settle_again(source):
                _fetch_layer(job, job.planned[-1])
        job.gaps += [gap_of_all(layer, err) for layer, err in job.failed.items()]
        for spec, (table, facts) in zip(labels, tables, strict=True):
            path = workspace.label_file(job.key, spec.name)
            unlist(workspace, job.key, path)
            write_table(path, table, facts | job.marks)
            job.made(path)
            job.found.lock["labels"][spec.name] = facts["source"]
        write_lock(workspace, job.key, job.found.lock)
        _finish(job)
        return {**summary(workspace, job.key), "notes": job.notes, "gaps": job.gaps}


def summary(workspace: Workspace, key: str) -> dict[str, Any]:
    """Return the facts of every finished file of a city."""
    places, about = read_table(workspace.places_file(key), columns=["share_inside"])
    share = places.column("share_inside").to_numpy()

    def facts(path: Path) -> dict[str, Any]:
        file, found = open_parquet(path)
        with file:
            return {**found, "rows_in_file": file.metadata.num_rows}

    return {
        "city": key,
        "synthetic": about.get("synthetic", ""),
        "tiles": len(share),
        "edge_tiles": int((share < WHOLE_SHARE).sum()),
        "layers": {n: facts(workspace.layer_file(key, n)) for n in workspace.layers(key)},
        "labels": {n: facts(workspace.label_file(key, n)) for n in workspace.labels(key)},
    }


def _write_places(job: Job) -> None:
    """Write the city's tiles, unless the file that is there has them."""
    entry, path = job.found.lock["city"], job.workspace.places_file(job.key)
    mark = area_fingerprint(entry)
    if path.exists() and path not in job.found.damaged:
        file, facts = open_parquet(path)
        file.close()
        if facts.get("area_fingerprint") == mark:
            return
    facts = {name: entry[name] for name in ("epsg", "tile_m", "origin")}
    facts |= {"city": job.key, "area_fingerprint": mark, **job.marks}
    unlist(job.workspace, job.key, path)
    write_table(path, job.places.to_table(), facts)
    job.made(path)


def _fetch_layer(job: Job, planned: Planned) -> None:
    """Bring one layer, or note its gap."""
    source = planned.source
    if job.is_finished(planned):
        job.engine.progress(source.layer, 1, 1)
    elif source.streamed:
        _fetch_blocks(job, planned)
    else:
        _fetch_whole(job, planned)


def _fetch_whole(job: Job, planned: Planned) -> None:
    """Write a layer that its source keeps in order by itself: nothing of it is worth staging."""
    source = planned.source
    if not isinstance(source, EntitySource):
        raise TypeError(f"the layer '{source.layer}' is not streamed, and no source of entities")
    job.engine.progress(source.layer, len(planned.blocks), len(planned.blocks))
    path, rows = job.workspace.layer_file(job.key, source.layer), source.rows
    facts = _facts(job, source, planned.plan, source.schema.empty_table())
    unlist(job.workspace, job.key, path)
    write_tables(
        path, rows.groups(), schema=source.schema, metadata=facts,
        types=rows.types, bounds=rows.bounds,
    )  # fmt: skip
    _made(job, path, source, planned.plan)


def _fetch_blocks(job: Job, planned: Planned) -> None:
    """Read a layer block by block, each staged; then make one file of them."""
    source, plan = planned.source, planned.plan
    if source.asked() is not None:
        write_json(planned.staging / "plan.json", {"plan": plan})
    failed = _read_blocks(job, planned)
    if failed:
        missing = f"{len(failed)} of {len(planned.blocks)} blocks"
        why = next(iter(failed.values()))
        job.gaps.append({"layer": source.layer, "missing": missing, "why": why})
        if not job.engine.accept_gaps:
            return
        plan = {**plan, "gaps": sorted(failed)}
    staged = [planned.staged(b) for b in planned.blocks if b.block_id not in failed]
    path = job.workspace.layer_file(job.key, source.layer)
    facts = _facts(job, source, plan, without_pixels(staged, source))
    compact(path, staged, source, facts, replaced=lambda: unlist(job.workspace, job.key, path))
    _made(job, path, source, plan)
    if not failed:
        shutil.rmtree(planned.staging)


def _facts(job: Job, source: Source, plan: dict[str, Any], rows: pa.Table) -> dict[str, Any]:
    """Return what a layer's file says of itself."""
    return {
        "layer": source.layer,
        "licence": source.licence,
        "attribution": source.attribution,
        "epsg": job.places.grid.epsg,
        "tile_m": job.places.grid.tile_m,
        "provenance": plan,
        "plan_fingerprint": job.mark(source.layer, plan),
        **source.facts(rows),
        **job.marks,
    }


def _made(job: Job, path: Path, source: Source, plan: dict[str, Any]) -> None:
    """Put a layer that is written into the lock."""
    job.made(path)
    job.found.lock["layers"][source.layer] = plan
    write_lock(job.workspace, job.key, job.found.lock)


def _read_blocks(job: Job, planned: Planned) -> dict[str, str]:
    """Read the blocks that are missing; return why some could not be, by id."""
    source, missing, total = planned.source, planned.missing(), len(planned.blocks)
    schema = plain(source.schema)
    done = total - len(missing)

    def keep(block: Block, table: pa.Table) -> None:
        write_tables(planned.staged(block), [table], schema=schema, metadata={}, passing=True)

    def told() -> None:
        nonlocal done
        done += 1
        job.engine.progress(source.layer, done, total)

    job.engine.progress(source.layer, done, total)
    return read_all(job.engine.workers, source, missing, keep, told, job.engine.patience)


def _finish(job: Job) -> None:
    """Remove what killed fetches left and what is damaged for good, and write the manifest."""
    workspace, key = job.workspace, job.key
    folder = workspace.city_dir(key)
    for path in sorted(job.found.damaged):
        job.notes.append(f"{path} was damaged and could not be made anew: removed")
        path.unlink(missing_ok=True)
        job.found.lock["layers"].pop(path.stem, None)
    write_lock(workspace, key, job.found.lock)
    unfinished = {gap["layer"] for gap in job.gaps}
    for staging in (folder / ".staging").glob("*"):
        if staging.name.rpartition("-")[0] not in unfinished:
            shutil.rmtree(staging)
    with contextlib.suppress(OSError):
        (folder / ".staging").rmdir()
    sweep(folder)
    files = [workspace.places_file(key), workspace.lock_file(key)]
    files += [workspace.layer_file(key, name) for name in workspace.layers(key)]
    files += [workspace.label_file(key, name) for name in workspace.labels(key)]
    files += describe(workspace, key)
    write_manifest(folder, files)
