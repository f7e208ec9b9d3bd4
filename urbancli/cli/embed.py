"""`urban embed`: other places, another city, or a modality missing, with a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from urbancli.cli._console import say, workspace_of


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
    from urbancli.layers import expand_modalities, open_city
    from urbancli.runs import open_run, read_places

    workspace = workspace_of(context)
    opened = open_run(workspace, run)
    layers = open_city(workspace, city or opened.city)
    wanted = layers.tiles() if places is None else read_places(places, layers.grid)
    dropped = expand_modalities(drop or ())
    values, present = opened.embed(layers, wanted, dropped)
    facts = {"run": run, "city": layers.key, "drop": dropped, "preset": opened.preset}
    write_embeddings(out, wanted, values, present, facts)
    missing = int((~present).sum())
    say(f"{out}: {int(present.sum()):,} places × {values.shape[1]}")
    if missing:
        say(f"{missing:,} places have none of the modalities left and are not in the file")
