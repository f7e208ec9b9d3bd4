"""`urban export`: a layer of a city as a file that any GIS opens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbancli.cli._console import city_key, progress_bar, say, workspace_of
from urbancli.errors import UsageError

if TYPE_CHECKING:
    from urbancli.workspace import Workspace


def command(
    context: typer.Context,
    city: Annotated[str, typer.Option(help="Fetched city.")],
    layer: Annotated[str, typer.Option(help="A layer, a label, or `places`.")],
    to: Annotated[str, typer.Option(help="cog (imagery), gpkg or csv (everything else).")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default CITY-LAYER.SUFFIX here.")
    ] = None,
    wkt: Annotated[bool, typer.Option("--wkt", help="CSV: the whole geometry as WKT too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a layer as a cloud-optimised GeoTIFF, GeoPackage or CSV, its attribution with it."""
    from urbancli.exporting import FORMATS, beside, choose, export

    workspace, key = workspace_of(context), city_key(city)
    chosen = choose(workspace, key, layer)
    path = out or Path(f"{key}-{chosen.name}{FORMATS.get(to, '')}")
    _check_out(path, workspace, force=force)
    with progress_bar() as progress:
        rows = export(chosen, to, path, progress, wkt=wkt)
    say(f"{path}: {rows:,} {'tiles' if to == 'cog' else 'rows'}")
    if to == "csv":
        say(f"{beside(path)}: whose data they are; pass it on with them")
    print(path)


def _check_out(path: Path, workspace: "Workspace", *, force: bool) -> None:
    """Refuse to write into what urban keeps itself, or over a file.

    Raises:
        UsageError: either.
    """
    for folder in (workspace.root / "data", workspace.root / "runs"):
        if path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"--out {path} lies in {folder}, which urban keeps itself: write elsewhere"
            )
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder: give a file's name")
    if path.exists() and not force:
        raise UsageError(f"{path} exists: give --force to replace it, or another --out")
