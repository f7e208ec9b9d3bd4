"""`urban embed`: other places, another city, or a modality missing, with a trained run."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbancli.cli._console import city_key, say, workspace_of
from urbancli.errors import UrbanError, UsageError

if TYPE_CHECKING:
    from urbancli.grid import Grid, Places
    from urbancli.layers import CityLayers
    from urbancli.runs import Run
    from urbancli.workspace import Workspace

ID_COLUMNS = ("place_id", "id", "osm_id")


def command(
    context: typer.Context,
    run: Annotated[str, typer.Option(help="A finished run (`urban list runs`).")],
    city: Annotated[
        str | None, typer.Option(help="Fetched city whose layers are read; default the run's.")
    ] = None,
    places: Annotated[
        Path | None,
        typer.Option(help="CSV with lat/lon, or any vector file; default the city's tiles."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Embed without a modality or group; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="GeoParquet to write.")] = Path("embeddings.parquet"),
) -> None:
    """Embed places with a trained run and write them as GeoParquet."""
    from urbancli.embeddings import write_embeddings
    from urbancli.layers import open_city
    from urbancli.runs import open_run
    from urbancli.spoiling import Spoiling

    workspace = workspace_of(context)
    _check_out(out, workspace, places)
    opened = open_run(workspace, run)
    layers = open_city(workspace, opened.city if city is None else city_key(city))
    wanted = layers.tiles() if places is None else _read_points(places, layers.grid)
    dropped = Spoiling(gone=tuple(drop or ()))
    _warn(opened, layers, wanted)
    values, present = opened.embed(layers, wanted, dropped)
    facts = {"run": run, "city": layers.key, "drop": list(dropped.gone), "preset": opened.preset}
    facts |= {"missing": list(opened.missing(layers)), **layers.marks()}
    write_embeddings(out, wanted, values, present, facts)
    missing = int((~present).sum())
    for mark in layers.marks().values():
        say(f"{layers.key} is {mark}")
    say(f"{out}: {int(present.sum()):,} places × {values.shape[1]}")
    if missing:
        say(f"{missing:,} places have none of the modalities left and are not in the file")


def _check_out(out: Path, workspace: "Workspace", places: Path | None) -> None:
    """Refuse to write over anything but embeddings.

    Raises:
        UsageError: `out` lies in the workspace's data or runs, or names another file.
    """
    from urbancli.workspace import open_parquet

    for folder in (workspace.root / "data", workspace.root / "runs"):
        if out.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"--out {out} lies in {folder}, which urban keeps itself: write elsewhere"
            )
    if places is not None and out.resolve() == places.resolve():
        raise UsageError(f"--out {out} is the file of --places: write elsewhere")
    if not out.exists():
        return
    try:
        file, _ = open_parquet(out)
        with file:
            ours = {"place_id", "embedding"} <= set(file.schema_arrow.names)
    except (UrbanError, ValueError):
        ours = False
    if not ours:
        raise UsageError(f"--out {out} exists and is no file of embeddings: give another name")


def _warn(run: "Run", layers: "CityLayers", wanted: "Places") -> None:
    """Say in a line each what makes these embeddings other than those of the run's own tiles."""
    clause = run.mismatch(layers)
    if clause and "cannot be had" not in clause:  # then its tokens lie here, or an error says so
        say(
            f"warning: {clause} since {run.name} was trained: give its `urban train` again for "
            "embeddings of one piece"
        )
    if missing := run.missing(layers):
        say(f"'{layers.key}' has no {', '.join(missing)}: treated as dropped")
    if outside := int((~layers.holds(wanted)).sum()):
        say(
            f"{outside:,} of {len(wanted):,} places lie outside the fetched tiles of "
            f"'{layers.key}', where only coordinates are known"
        )


def _read_points(path: Path, grid: "Grid") -> "Places":
    """Return the points of a table or vector file as places, each with an id of its own.

    The ids are the file's where they are unique, else made from the positions; of several points
    at one position the second is `…-2`.
    """
    import numpy as np
    import shapely

    from urbancli.grid import point_places
    from urbancli.vector import read_vector

    frame = read_vector(path)
    points = np.asarray(frame.geometry.to_numpy(), dtype=object)
    located = (shapely.get_type_id(points) == 0) & ~shapely.is_empty(points)
    lonlat = np.full((len(points), 2), np.nan)
    lonlat[located] = shapely.get_coordinates(points[located])
    # What lies beyond the reach of the city's projection has no place on its grid.
    located &= np.isfinite(np.column_stack(grid.project(*lonlat.T))).all(axis=1)
    if not located.any():
        raise UrbanError(f"{path} holds no point: give places as points, or as lat and lon columns")
    if not located.all():
        say(f"{path}: {int((~located).sum()):,} rows are no points with coordinates and left out")
    found = frame[located]
    names = [name for name in ID_COLUMNS if name in found]
    unique = [name for name in names if found[name].notna().all() and found[name].is_unique]
    if names and not unique:
        say(f"{path}: the ids in '{names[0]}' are not unique: ids are made from the positions")
    ids = found[unique[0]].astype(str).tolist() if unique else None
    lon, lat = lonlat[located].T
    made = point_places(lon, lat, grid, ids)
    return replace(made, place_id=np.array(_numbered(made.place_id.tolist()), dtype=object))


def _numbered(ids: list[str]) -> list[str]:
    """Return ids made unique: the n-th of one name ends in `-n`."""
    seen: dict[str, int] = {}
    for number, name in enumerate(ids):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            ids[number] = f"{name}-{seen[name]}"
    return ids
