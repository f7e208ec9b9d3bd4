"""`urban embed`: other places, another city, or a modality missing, with a trained run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbancli.cli._console import say, workspace_of
from urbancli.errors import UrbanError

if TYPE_CHECKING:
    from urbancli.grid import Grid, Places

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
    from urbancli.city import slug
    from urbancli.embeddings import write_embeddings
    from urbancli.layers import expand_modalities, open_city
    from urbancli.runs import open_run

    workspace = workspace_of(context)
    opened = open_run(workspace, run)
    layers = open_city(workspace, opened.city if city is None else slug(city))
    wanted = layers.tiles() if places is None else _read_points(places, layers.grid)
    dropped = expand_modalities(drop or ())
    values, present = opened.embed(layers, wanted, dropped)
    facts = {"run": run, "city": layers.key, "drop": dropped, "preset": opened.preset}
    write_embeddings(out, wanted, values, present, facts)
    missing = int((~present).sum())
    say(f"{out}: {int(present.sum()):,} places × {values.shape[1]}")
    if missing:
        say(f"{missing:,} places have none of the modalities left and are not in the file")


def _read_points(path: Path, grid: "Grid") -> "Places":
    """Return the points of a table or vector file as places, with the file's own unique ids."""
    import numpy as np
    import shapely

    from urbancli.grid import point_places
    from urbancli.vector import read_vector

    frame = read_vector(path)
    points = np.asarray(frame.geometry.to_numpy(), dtype=object)
    located = shapely.get_type_id(points) == 0
    if not located.any():
        raise UrbanError(f"{path} holds no point: give places as points, or as lat and lon columns")
    if not located.all():
        say(f"{path}: {int((~located).sum()):,} rows are no points with coordinates and left out")
    names = [name for name in ID_COLUMNS if name in frame and frame[name][located].is_unique]
    ids = frame[names[0]][located].astype(str).tolist() if names else None
    x, y = shapely.get_coordinates(points[located]).T
    return point_places(x, y, grid, ids)
