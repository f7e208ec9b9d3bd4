"""From a plan to finished layers: block by block, staged, resumable, compacted to one file a layer.

A staged block file exists = the block is done. A layer is compacted from its staged blocks in
Hilbert order; the manifest is written last. A killed fetch therefore goes on where it was, and a
later fetch that fails leaves the city as it was: a file leaves the manifest as it is replaced.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely

from urbancli.city import SYNTHETIC, City
from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, places_from_table, tiles_of
from urbancli.labels.files import LabelSpec, read_label
from urbancli.lock import (
    Standing,
    alone,
    area_fingerprint,
    city_entry,
    layer_fingerprint,
    settle_city,
    standing,
    unlist,
    write_lock,
)
from urbancli.sources.base import Source
from urbancli.workspace import (
    GEOMETRY_TYPES,
    Workspace,
    geometries,
    hilbert_order,
    open_parquet,
    read_table,
    sweep,
    write_manifest,
    write_table,
    write_tables,
)

ROW_GROUP_BYTES = 32 << 20

WHOLE_SHARE = 0.999
"""A tile counts as cut from below this share inside: areas are stored to a centimetre."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def fetch(
    workspace: Workspace,
    city: City,
    sources: Sequence[Source],
    labels: Sequence[LabelSpec],
    progress: Progress,
    tile_m: int,
) -> dict[str, Any]:
    """Bring layers and labels of a city into the workspace; what is already there is kept.

    Args:
        workspace: where to.
        city: its area and CRS.
        sources: one per layer.
        labels: label files.
        progress: told of every block.
        tile_m: side of a tile, metres.

    Returns:
        A summary: tiles, per layer and label the facts of its file, and notes on what was mended.

    Raises:
        UrbanError: an input cannot be read, misses the city, or the folder holds another area.
    """
    with alone(workspace, city.key):
        layers = [source.layer for source in sources]
        given = {workspace.layer_file(city.key, layer) for layer in layers}
        given |= {workspace.label_file(city.key, spec.name) for spec in labels}
        found = standing(workspace, city.key, given)
        settle_city(found, city_entry(city, tile_m), layers, workspace)
        places, facts = _places(workspace, city, found)
        plans = [source.plan(places) for source in sources]
        tables = [read_label(spec, places) for spec in labels]

        # Every input is good: only from here on the folder changes, file by file.
        if facts:
            path = workspace.places_file(city.key)
            unlist(workspace, city.key, path)
            write_table(path, places.to_table(), facts | _marks(city))
        write_lock(workspace, city.key, found.lock)
        for source, plan in zip(sources, plans, strict=True):
            _fetch_layer(workspace, source, plan, (places, _marks(city)), found, progress)
            found.lock["layers"][source.layer] = plan
            write_lock(workspace, city.key, found.lock)
        for spec, (table, facts) in zip(labels, tables, strict=True):
            path = workspace.label_file(city.key, spec.name)
            unlist(workspace, city.key, path)
            write_table(path, table, facts | _marks(city))
            found.lock["labels"][spec.name] = facts["source"]
        write_lock(workspace, city.key, found.lock)
        _finish(workspace, city.key)
        notes = [
            f"{path} was damaged (not what its manifest says): made anew"
            for path in sorted(found.damaged)
        ]
        return {**summary(workspace, city.key), "notes": notes}


def _marks(city: City) -> dict[str, str]:
    """Return what every file of a city must say: that it is synthetic, or nothing."""
    return {"synthetic": SYNTHETIC} if city.origin == "synthetic" else {}


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


def _places(workspace: Workspace, city: City, found: Standing) -> tuple[Places, dict[str, Any]]:
    """Return the city's tiles in the order of their file, and its facts if it is to be written."""
    entry, path = found.lock["city"], workspace.places_file(city.key)
    grid = Grid(entry["epsg"], entry["tile_m"])
    mark = area_fingerprint(entry)
    if path.exists() and path not in found.damaged:
        table, facts = read_table(path)
        if facts.get("area_fingerprint") == mark:
            return places_from_table(table, grid), {}
    table = tiles_of(city.area, grid).to_table()
    table = table.take(pa.array(hilbert_order(geometries(table))))
    facts = {
        "city": city.key,
        "epsg": grid.epsg,
        "tile_m": grid.tile_m,
        "origin": entry["origin"],
        "area_fingerprint": mark,
    }
    return places_from_table(table, grid), facts


def _fetch_layer(
    workspace: Workspace,
    source: Source,
    plan: dict[str, Any],
    about: tuple[Places, dict[str, str]],
    found: Standing,
    progress: Progress,
) -> None:
    """Bring one layer; `about` are the city's tiles and what its files must say."""
    places, marks = about
    key = found.lock["city"]["key"]
    path = workspace.layer_file(key, source.layer)
    plan_fingerprint = layer_fingerprint(found.lock["city"], source.layer, plan)
    if path not in found.damaged and found.marks.get(source.layer) == plan_fingerprint:
        progress(source.layer, 1, 1)
        return
    staging = workspace.staging_dir(key, source.layer, plan_fingerprint)
    blocks = source.blocks(places)
    for done, block in enumerate(blocks):
        progress(source.layer, done, len(blocks))
        staged = staging / f"{block.block_id}.parquet"
        if not staged.exists():
            write_tables(staged, [source.read(block)], schema=_plain(source.schema), metadata={})
    progress(source.layer, len(blocks), len(blocks))
    paths = [staging / f"{block.block_id}.parquet" for block in blocks]
    facts = {
        "layer": source.layer,
        "licence": source.licence,
        "attribution": source.attribution,
        "epsg": places.grid.epsg,
        "tile_m": places.grid.tile_m,
        "provenance": plan,
        "plan_fingerprint": plan_fingerprint,
        **source.facts(_without_pixels(paths, source)),
        **marks,
    }
    _compact(path, paths, source, facts, replaced=lambda: unlist(workspace, key, path))
    shutil.rmtree(staging)


def _without_pixels(staged: Sequence[Path], source: Source) -> pa.Table:
    """Return all rows of a layer's blocks, the columns that weigh left out."""
    heavy = {"pixels", "valid", "image", "geometry"} if source.streamed else set()
    names = [name for name in source.schema.names if name not in heavy]
    return pa.concat_tables(
        [read_table(file, names)[0].replace_schema_metadata() for file in staged]
    )


def _plain(schema: pa.Schema) -> pa.Schema:
    return schema.remove_metadata()


def _compact(
    path: Path,
    staged: Sequence[Path],
    source: Source,
    facts: dict[str, Any],
    replaced: Callable[[], None],
) -> None:
    """Write a layer's file from its blocks; `replaced` is called once they are known to be good."""
    if not source.streamed:
        tables = [read_table(file)[0].replace_schema_metadata() for file in staged]
        table = pa.concat_tables(tables)
        if not table.num_rows:
            raise UrbanError(f"the layer '{source.layer}' is empty: the input misses the city")
        replaced()
        write_table(path, table, facts)
        return
    boxes = [geometries(read_table(file, ["geometry"])[0]) for file in staged]
    shapes = [box for group in boxes for box in group]
    if not shapes:
        raise UrbanError(f"the layer '{source.layer}' has no valid pixel in the city")
    types = sorted({GEOMETRY_TYPES[t] for t in shapely.get_type_id(shapes)})
    groups = (part for file in staged for part in _row_groups(read_table(file)[0]))
    bounds = shapely.total_bounds(shapes).tolist()
    schema = _plain(source.schema)
    replaced()
    write_tables(path, groups, schema=schema, metadata=facts, types=types, bounds=bounds)


def _row_groups(table: pa.Table) -> list[pa.Table]:
    """Cut a block's rows so that a row group stays small enough for random access."""
    if not table.num_rows:
        return []
    rows = max(1, int(table.num_rows * ROW_GROUP_BYTES / max(table.nbytes, 1)))
    return [table.slice(start, rows) for start in range(0, table.num_rows, rows)]


def _finish(workspace: Workspace, key: str) -> None:
    """Remove what killed fetches left and write the manifest."""
    folder = workspace.city_dir(key)
    shutil.rmtree(folder / ".staging", ignore_errors=True)
    sweep(folder)
    files = [workspace.places_file(key), workspace.lock_file(key)]
    files += [workspace.layer_file(key, name) for name in workspace.layers(key)]
    files += [workspace.label_file(key, name) for name in workspace.labels(key)]
    write_manifest(folder, files)
