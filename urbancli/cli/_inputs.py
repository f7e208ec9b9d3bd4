"""What a fetch reads from, by its options: local files, STAC catalogues, services by layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from urbancli.errors import UsageError, unknown

if TYPE_CHECKING:
    from urbancli.net import Net

SERVICES = {
    "sentinel2": "sentinel2",
    "naip": "naip",
    "sentinel1": "sentinel1",
    "entities": "overpass",
    "pois": "overture_places",
    "buildings": "overture_buildings",
    "streetview": "mapillary",
}
"""The source that brings a layer from its service."""

DEFAULT_LAYERS = ("sentinel2", "naip", "entities")
"""What a fetch brings where no option names anything."""

CATALOGUED = ("sentinel2", "naip", "sentinel1")
"""Layers that a STAC catalogue gives."""


def local_sources(
    imagery: list[str], osm: Path | None, pois: Path | None, streetview: list[Path]
) -> list[Any]:
    """Return one source per layer that options name a file of."""
    from urbancli import plugins

    sources: list[Any] = []
    for layer, paths in imagery_files(imagery).items():
        sources.append(plugins.load("sources", "imagery").Source(layer, paths))
    if osm is not None:
        sources.append(plugins.load("sources", "osm").Source(osm))
    if pois is not None:
        sources.append(plugins.load("sources", "pois").Source(pois))
    if streetview:
        sources.append(plugins.load("sources", "photos").Source(streetview))
    return sources


def service_sources(
    layers: list[str],
    stac: list[str],
    asked: dict[str, Any],
    net: "Net",
    save_in: Path,
    *,
    refresh: bool = False,
) -> list[Any]:
    """Return one source per layer of a service, or of the catalogue that `--stac` names for it.

    Args:
        layers: names.
        stac: `LAYER=CATALOGUE`, each also a layer.
        asked: `since`, `until`, `composite` of imagery, None where not given.
        net: how services are asked.
        save_in: folder of the files that a service's answers are saved as.
        refresh: do not go on with what was saved.

    Raises:
        UsageError: a layer that no service gives, or given twice.
    """
    from urbancli import plugins
    from urbancli.net import endpoint

    catalogues = _catalogues(stac)
    sources: list[Any] = []
    for layer in [*layers, *(layer for layer in catalogues if layer not in layers)]:
        if layer not in SERVICES:
            raise unknown("layer of a service", layer, SERVICES)
        module = plugins.load("sources", SERVICES[layer])
        if layer in CATALOGUED:
            options = {name: value for name, value in asked.items() if value is not None}
            if layer != "sentinel2":
                options.pop("composite", None)
            where = catalogues.get(layer) or endpoint("stac")
            sources.append(module.Source(where, net=net, **options))
        elif layer == "streetview":
            sources.append(module.Source(net=net))
        elif layer == "entities":
            sources.append(module.Source(net=net, save_in=save_in, refresh=refresh))
        else:
            sources.append(module.Source(net=net, save_in=save_in))
    if asked["composite"] and "sentinel2" not in {source.layer for source in sources}:
        raise UsageError("--composite is of sentinel2 from a catalogue: add --layer sentinel2")
    if any(asked.values()) and not {source.layer for source in sources} & set(CATALOGUED):
        raise UsageError("--since, --until and --composite choose among the scenes of a catalogue")
    return sources


def unasked(asked: dict[str, Any]) -> frozenset[str]:
    """Return the default layers that no option on scenes (as of `service_sources`) is about."""
    imagery = CATALOGUED if asked["since"] or asked["until"] else ("sentinel2",)
    return frozenset(DEFAULT_LAYERS).difference(imagery if any(asked.values()) else ())


def check_once(sources: list[Any]) -> None:
    """Refuse two sources of one layer.

    Raises:
        UsageError: there are.
    """
    layers = [source.layer for source in sources]
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is given twice: one source per layer")


def _catalogues(options: list[str]) -> dict[str, str]:
    """Return the catalogue of each layer that `--stac` names."""
    found: dict[str, str] = {}
    for option in options:
        layer, separator, catalogue = option.partition("=")
        if not separator or not catalogue:
            raise UsageError(
                f"--stac '{option}' is not LAYER=CATALOGUE, e.g. sentinel2=catalog.json"
            )
        if layer not in CATALOGUED:
            raise unknown("STAC layer", layer, CATALOGUED)
        if layer in found:
            raise UsageError(f"{layer} is given twice: one source per layer")
        found[layer] = catalogue
    return found


def imagery_files(options: list[str]) -> dict[str, list[Path]]:
    """Return the raster files of each layer that `--imagery` names."""
    files: dict[str, list[Path]] = {}
    for option in options:
        layer, separator, path = option.partition("=")
        if not separator or not path:
            raise UsageError(f"--imagery '{option}' is not LAYER=FILE, e.g. sentinel2=mosaic.tif")
        files.setdefault(layer, []).append(Path(path))
    return files


def footprints(imagery: list[str], osm: Path | None) -> dict[str, Any]:
    """Return what imagery and OSM files cover, as far as they say, EPSG:4326."""
    covered: dict[str, Any] = {}
    if imagery:
        from urbancli.sources.imagery import footprint

        paths = [path for files in imagery_files(imagery).values() for path in files]
        covered["imagery"] = footprint(paths)
    if osm is not None:
        from urbancli.sources.osm import footprint as box_of

        if (box := box_of(osm)) is not None:
            covered["OSM file"] = box
    return covered
