"""`urban fetch`: a city's tiles, layers and labels into `data/<city>/`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from urbancli.cli._console import print_json, progress_bar, say, workspace_of
from urbancli.cli._demo import demo_labels, demo_sources
from urbancli.errors import UsageError


def command(
    context: typer.Context,
    city: Annotated[str, typer.Option(help="A city of the table (`urban list cities`) or any.")],
    bbox: Annotated[
        str | None, typer.Option(help="west,south,east,north in degrees (EPSG:4326).")
    ] = None,
    aoi: Annotated[Path | None, typer.Option(help="Vector file with the outline.")] = None,
    imagery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=FILE", help="Raster as sentinel2, naip or sentinel1; repeatable."
        ),
    ] = None,
    stac: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=CATALOGUE",
            help="STAC API, or catalog.json (path or URL), for sentinel2 or naip; repeatable.",
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(help="First day of --stac imagery.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day of --stac imagery.")] = None,
    osm: Annotated[
        Path | None, typer.Option(help="OSM file: .pbf, .osm, .osm.gz, .osm.bz2.")
    ] = None,
    pois: Annotated[Path | None, typer.Option(help="POIs: CSV with lat/lon, or vector.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE[:COLUMN[/km2]][@RADIUSm]",
            help="Polygons, points or a raster; PREFIX* takes the class of the largest share, "
            "# counts points per tile; repeatable.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Bring imagery, OSM, POIs and labels of a city into GeoParquet, from local files."""
    from urbancli.city import parse_box, slug
    from urbancli.cli._demo import demo_recipe, make_demo_inputs
    from urbancli.fetching import fetch
    from urbancli.grid import TILE_M
    from urbancli.labels.files import parse_label

    box = parse_box(bbox) if bbox is not None else None
    specs = [parse_label(text) for text in label or []]
    repeated = sorted({spec.name for spec in specs if [s.name for s in specs].count(spec.name) > 1})
    if repeated:
        raise UsageError(f"label '{repeated[0]}' is given twice: give each a name of its own")
    workspace = workspace_of(context)
    sources = _sources(imagery or [], osm, pois)
    sources += _stac_sources(stac or [], since, until, {source.layer for source in sources})
    made = demo_recipe(workspace, slug(city))
    if made is not None:
        sources, specs = _with_demo(make_demo_inputs(workspace, made), sources, specs)
    if not sources and not specs:
        raise UsageError(
            "nothing to fetch: give --imagery, --stac, --osm, --pois or --label "
            "(default services are not part of this version), or --city demo"
        )
    found = _area(workspace, city, (box, aoi), made, lambda: _footprints(imagery or [], osm))
    with progress_bar() as progress:
        result = fetch(workspace, found, sources, specs, progress, TILE_M)
    for note in result["notes"]:
        say(note)
    if json:
        print_json(result)
    else:
        from urbancli.report.fetched import render

        render(result)


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
) -> Any:
    """Return the city with its area: as settled by its first fetch, as given, or as known.

    Args:
        workspace: where it may lie.
        name: of the city.
        given: its box and the file with its outline, if any.
        made: the recipe of a generated city.
        covered: says what local files cover, EPSG:4326.
    """
    from urbancli.city import find_city, slug
    from urbancli.demo.files import demo_city
    from urbancli.lock import fetched_city

    if given == (None, None):
        if (settled := fetched_city(workspace, slug(name))) is not None:
            return settled
        if made is not None:
            return demo_city(made)
    found = find_city(name, *given)
    if made is not None:
        return dataclasses.replace(found, origin="synthetic")
    return _limit(found, covered()) if found.origin in {"table", "geocoder"} else found


def _sources(imagery: list[str], osm: Path | None, pois: Path | None) -> list[Any]:
    """Return one source per layer that the options name."""
    from urbancli import plugins

    sources: list[Any] = []
    for layer, paths in _imagery_files(imagery).items():
        sources.append(plugins.load("sources", "imagery").Source(layer, paths))
    if osm is not None:
        sources.append(plugins.load("sources", "osm").Source(osm))
    if pois is not None:
        sources.append(plugins.load("sources", "pois").Source(pois))
    return sources


def _stac_sources(
    options: list[str], since: str | None, until: str | None, taken: set[str]
) -> list[Any]:
    """Return one source per layer that `--stac` names."""
    from urbancli import plugins
    from urbancli.errors import unknown

    layers = ("sentinel2", "naip")
    sources: list[Any] = []
    for option in options:
        layer, separator, catalogue = option.partition("=")
        if not separator or not catalogue:
            raise UsageError(
                f"--stac '{option}' is not LAYER=CATALOGUE, e.g. sentinel2=catalog.json"
            )
        if layer not in layers:
            raise unknown("STAC layer", layer, layers)
        if layer in taken:
            raise UsageError(f"{layer} is given twice: one source per layer")
        taken.add(layer)
        sources.append(plugins.load("sources", layer).Source(catalogue, since, until))
    if not options and (since or until):
        raise UsageError("--since and --until choose among --stac imagery: give --stac")
    return sources


def _imagery_files(options: list[str]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for option in options:
        layer, separator, path = option.partition("=")
        if not separator or not path:
            raise UsageError(f"--imagery '{option}' is not LAYER=FILE, e.g. sentinel2=mosaic.tif")
        files.setdefault(layer, []).append(Path(path))
    return files


def _footprints(imagery: list[str], osm: Path | None) -> dict[str, Any]:
    """Return what imagery and OSM files cover, as far as they say, EPSG:4326."""
    covered: dict[str, Any] = {}
    if imagery:
        from urbancli.sources.imagery import footprint

        paths = [path for files in _imagery_files(imagery).values() for path in files]
        covered["imagery"] = footprint(paths)
    if osm is not None:
        from urbancli.sources.osm import footprint as box_of

        if (box := box_of(osm)) is not None:
            covered["OSM file"] = box
    return covered


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
