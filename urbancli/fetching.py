"""From a plan to finished layers: block by block, staged, resumable, compacted to one file a layer.

A staged block file exists = the block is done. A layer is compacted from its staged blocks in
Hilbert order; the manifest is written last. A killed fetch therefore goes on where it was.
"""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import shapely

from urbancli.city import City
from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, places_from_table, tiles_of
from urbancli.labels.files import LabelSpec, read_label
from urbancli.lock import (
    check_same_city,
    city_entry,
    layer_fingerprint,
    read_lock,
    write_lock,
)
from urbancli.sources.base import Source
from urbancli.workspace import (
    GEOMETRY_TYPES,
    Workspace,
    geometries,
    open_parquet,
    read_table,
    sweep,
    write_manifest,
    write_table,
    write_tables,
)

ROW_GROUP_BYTES = 32 << 20

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
        A summary: tiles, and per layer and label the facts of its file.

    Raises:
        UrbanError: an input cannot be read, misses the city, or the folder holds another area.
    """
    lock = read_lock(workspace, city.key)
    entry = city_entry(city, tile_m)
    check_same_city(lock, entry, workspace)
    # What an earlier, killed fetch planned but never finished is planned anew or not at all.
    lock["layers"] = {n: p for n, p in lock["layers"].items() if n in workspace.layers(city.key)}
    lock["labels"] = {n: p for n, p in lock["labels"].items() if n in workspace.labels(city.key)}
    lock["city"] = entry
    places = _places(workspace, city, Grid(city.epsg, tile_m))
    for source in sources:
        lock["layers"][source.layer] = source.plan(places)
    tables = {spec.name: read_label(spec, places) for spec in labels}
    for name, (_, facts) in tables.items():
        lock["labels"][name] = facts["source"]

    # From here on the city counts as unfinished until its manifest is written again.
    workspace.manifest_file(city.key).unlink(missing_ok=True)
    write_lock(workspace, city.key, lock)
    for source in sources:
        _fetch_layer(workspace, city.key, source, places, lock, progress)
    for name, (table, facts) in tables.items():
        write_table(workspace.label_file(city.key, name), table, facts)
    _finish(workspace, city.key)
    return summary(workspace, city.key)


def summary(workspace: Workspace, key: str) -> dict[str, Any]:
    """Return the facts of every finished file of a city."""
    places, _ = read_table(workspace.places_file(key), columns=["share_inside"])
    share = places.column("share_inside").to_numpy()

    def facts(path: Any) -> dict[str, Any]:
        file, found = open_parquet(path)
        with file:
            return {**found, "rows_in_file": file.metadata.num_rows}

    return {
        "city": key,
        "tiles": len(share),
        "edge_tiles": int((share < 1).sum()),
        "layers": {n: facts(workspace.layer_file(key, n)) for n in workspace.layers(key)},
        "labels": {n: facts(workspace.label_file(key, n)) for n in workspace.labels(key)},
    }


def _places(workspace: Workspace, city: City, grid: Grid) -> Places:
    """Return the city's tiles in the order of their file, which is written if it is not there."""
    path = workspace.places_file(city.key)
    if not path.exists():
        places = tiles_of(city.area, grid)
        facts = {"city": city.key, "epsg": grid.epsg, "tile_m": grid.tile_m, "origin": city.origin}
        write_table(path, places.to_table(), facts)
    table, _ = read_table(path)
    return places_from_table(table, grid)


def _fetch_layer(
    workspace: Workspace,
    key: str,
    source: Source,
    places: Places,
    lock: dict[str, Any],
    progress: Progress,
) -> None:
    path = workspace.layer_file(key, source.layer)
    plan_fingerprint = layer_fingerprint(lock, source.layer)
    if path.exists() and open_parquet(path)[1].get("plan_fingerprint") == plan_fingerprint:
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
        "provenance": lock["layers"][source.layer],
        "plan_fingerprint": plan_fingerprint,
        **source.facts(),
    }
    _compact(path, paths, source, facts)
    shutil.rmtree(staging)


def _plain(schema: pa.Schema) -> pa.Schema:
    return schema.remove_metadata()


def _compact(path: Any, staged: Sequence[Any], source: Source, facts: dict[str, Any]) -> None:
    if not source.streamed:
        tables = [read_table(file)[0].replace_schema_metadata() for file in staged]
        table = pa.concat_tables(tables)
        if not table.num_rows:
            raise UrbanError(f"the layer '{source.layer}' is empty: the input misses the city")
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
