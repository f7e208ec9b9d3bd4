"""`urban fetch`: a city's tiles, layers and labels into `data/<city>/`."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from urbancli.cli import _inputs
from urbancli.cli._console import WITH_GAPS, print_json, progress_bar, say, workspace_of
from urbancli.cli._demo import demo_labels, demo_sources
from urbancli.errors import UsageError

AT_ONCE = 8
"""Blocks read at once from services; of local files as many as there are cores."""


def command(
    context: typer.Context,
    city: Annotated[str, typer.Option(help="A city of the table (`urban list cities`) or any.")],
    bbox: Annotated[
        str | None, typer.Option(help="west,south,east,north in degrees (EPSG:4326).")
    ] = None,
    aoi: Annotated[Path | None, typer.Option(help="Vector file with the outline.")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer to bring from its service: sentinel2, naip, sentinel1, entities "
            "(Overpass), pois, buildings (Overture), streetview (Mapillary); repeatable. Where "
            "nothing is named: sentinel2, naip, entities."
        ),
    ] = None,
    stac: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=CATALOGUE",
            help="Another STAC API, or catalog.json (path or URL), for sentinel2, naip or "
            "sentinel1; repeatable.",
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(help="First day of a catalogue's scenes.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day of a catalogue's scenes.")] = None,
    composite: Annotated[
        str | None, typer.Option(help="Of sentinel2: median (default) or least-cloud.")
    ] = None,
    imagery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=FILE", help="Raster as sentinel2, naip or sentinel1; repeatable."
        ),
    ] = None,
    osm: Annotated[
        Path | None, typer.Option(help="OSM file: .pbf, .osm, .osm.gz, .osm.bz2.")
    ] = None,
    pois: Annotated[Path | None, typer.Option(help="POIs: CSV with lat/lon, or vector.")] = None,
    streetview: Annotated[
        list[Path] | None, typer.Option(help="Geotagged photos: a folder or file; repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE[:COLUMN[/km2]][@RADIUSm]",
            help="Polygons, points or a raster; PREFIX* takes the class of the largest share, "
            "# counts points per tile; repeatable.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Blocks read at once (services: 8).")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers read.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Minutes that a service that is down is waited for.")
    ] = 10.0,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Search anew; do not go on with the pinned plan.")
    ] = False,
    accept_gaps: Annotated[
        bool, typer.Option("--accept-gaps", help="Finish layers without what cannot be read.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no service; say what is missing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only search, and show what would be read.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Bring imagery, OSM, POIs and labels of a city into GeoParquet, from services or files.

    Exit code 3: finished with gaps; the same command fills them.
    """
    from urbancli.city import parse_box, slug
    from urbancli.cli._demo import demo_recipe, make_demo_inputs
    from urbancli.labels.files import parse_label
    from urbancli.net import Net
    from urbancli.planning import Engine
    from urbancli.workers import Dask, Patience, Threads

    box = parse_box(bbox) if bbox is not None else None
    specs = [parse_label(text) for text in label or []]
    repeated = sorted({spec.name for spec in specs if [s.name for s in specs].count(spec.name) > 1})
    if repeated:
        raise UsageError(f"label '{repeated[0]}' is given twice: give each a name of its own")
    workspace = workspace_of(context)
    local = _inputs.local_sources(imagery or [], osm, pois, streetview or [])
    made = demo_recipe(workspace, slug(city))
    nothing = not (local or specs or layer or stac or made)
    layers = list(_inputs.DEFAULT_LAYERS) if nothing else layer or []
    asked = {"since": since, "until": until, "composite": composite}
    save_in = workspace.inputs_dir(slug(city))
    net = Net(offline=offline)
    live = _inputs.service_sources(layers, stac or [], asked, net, save_in, refresh=refresh)
    sources = local + live
    _inputs.check_once(sources)
    if made is not None:
        sources, specs = _with_demo(make_demo_inputs(workspace, made), sources, specs)
    covered = lambda: _inputs.footprints(imagery or [], osm)  # noqa: E731
    found = _area(workspace, city, (box, aoi), made, covered, offline=offline)
    count = workers or (AT_ONCE if live else os.cpu_count() or 1)
    engine = Engine(
        workers=Dask(scheduler) if scheduler else Threads(count),
        refresh=refresh,
        optional=frozenset({"naip"} if nothing else ()),
        keeps=_inputs.unasked(asked) if nothing else frozenset(),
        accept_gaps=accept_gaps,
        patience=Patience(patience * 60, say=say),
    )
    with contextlib.closing(engine.workers):
        if dry_run:
            _show_plan(workspace, found, sources, engine, as_json=json)
        else:
            run_fetch(workspace, found, sources, specs, engine, as_json=json)


def run_fetch(
    workspace: Any,
    city: Any,
    sources: list[Any],
    labels: list[Any],
    engine: Any,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Fetch with a progress bar and print what came and what did not.

    Raises:
        typer.Exit: with 3, where there are gaps.
    """
    from urbancli.fetching import fetch
    from urbancli.report.fetched import render

    with progress_bar() as progress:
        watched = dataclasses.replace(engine, progress=progress)
        result = fetch(workspace, city, sources, labels, watched)
    for note in result["notes"]:
        say(note)
    if as_json:
        print_json(result)
    elif not quiet:
        render(result)
    _exit_with_gaps(result["gaps"], engine)


def _show_plan(
    workspace: Any, city: Any, sources: list[Any], engine: Any, *, as_json: bool
) -> None:
    from urbancli.planning import preview
    from urbancli.report.fetched import render_plan

    result = preview(workspace, city, sources, engine)
    for note in result["notes"]:
        say(note)
    if as_json:
        print_json(result)
    else:
        render_plan(result)
    _exit_with_gaps(result["gaps"], engine)


def _exit_with_gaps(gaps: list[dict[str, str]], engine: Any) -> None:
    """Say what is missing and how to go on, and leave with the exit code for gaps."""
    if not gaps:
        return
    from urbancli.report.fetched import render_gaps

    render_gaps(gaps, accepted=engine.accept_gaps)
    raise typer.Exit(WITH_GAPS)


def _with_demo(folder: Path, sources: list[Any], specs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return sources and labels, those of a generated city's files where none is given."""
    layers, names = {source.layer for source in sources}, {spec.name for spec in specs}
    more = [source for source in demo_sources(folder) if source.layer not in layers]
    return sources + more, specs + [spec for spec in demo_labels(folder) if spec.name not in names]


def _area(
    workspace: Any,
    name: str,
    given: tuple[Any, Path | None],
    made: Any,
    covered: Callable[[], dict[str, Any]],
    *,
    offline: bool,
) -> Any:
    """Return the city with its area: as settled by its first fetch, as given, or as known.

    Args:
        workspace: where it may lie.
        name: of the city.
        given: its box and the file with its outline, if any.
        made: the recipe of a generated city.
        covered: says what local files cover, EPSG:4326.
        offline: whether the geocoder must not be asked.
    """
    from urbancli.city import find_city, slug
    from urbancli.demo.files import demo_city
    from urbancli.lock import fetched_city

    if given == (None, None):
        if (settled := fetched_city(workspace, slug(name))) is not None:
            return settled
        if made is not None:
            return demo_city(made)
    found = find_city(name, *given, offline=offline)
    if made is not None:
        return dataclasses.replace(found, origin="synthetic")
    return _limit(found, covered()) if found.origin in {"table", "geocoder"} else found


def _limit(city: Any, covered: dict[str, Any]) -> Any:
    """Narrow a whole city to what its files cover: beyond them nothing could be embedded."""
    import shapely

    for name, footprint in covered.items():
        area = shapely.intersection(city.area, footprint)
        if area.is_empty or area.area == 0:
            already = "what the imagery covers of " if "∩" in city.origin else ""
            raise UsageError(
                f"the {name} lies outside {already}{city.key}: check the file, or give --bbox"
            )
        share = area.area / city.area.area
        if share < 0.999:
            say(
                f"{city.key}: the {name} covers {share:.0%} of the city's area; the fetch is "
                "limited to it (--bbox or --aoi to choose another area)"
            )
        city = dataclasses.replace(city, area=area, origin=f"{city.origin} ∩ {name}")
    return city
