"""Checks of every file of a workspace: what `urban validate` does.

A fault is what a fetch would not have left; a note is what is as it is, tiles without data above
all. Files are read row group by row group.
"""

from collections.abc import Callable, Sequence
from typing import Any

import shapely

from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Grid, tiles_of
from urbancli.layers import ENTITY_LAYERS, NOMINAL_PIXEL_M, fetched_area
from urbancli.validation.city import City
from urbancli.validation.entities import check_entities
from urbancli.validation.findings import Fault, FileCheck, Findings, Note
from urbancli.validation.folder import check_description, check_lock, check_manifest
from urbancli.validation.outputs import check_outputs
from urbancli.validation.pixels import check_pixels
from urbancli.validation.streetview import check_streetview
from urbancli.validation.units import check_label, check_places
from urbancli.workspace import Workspace, read_json

__all__ = ["Fault", "Findings", "Note", "check_outputs", "validate"]

STREETVIEW = "streetview"

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def validate(workspace: Workspace, cities: Sequence[str], progress: Progress) -> Findings:
    """Check every file of cities.

    Args:
        workspace: where they lie.
        cities: their keys.
        progress: told of every file.

    Raises:
        UsageError: nothing of a city lies there.
    """
    findings = Findings(workspace.root)
    for key in cities:
        if not workspace.city_dir(key).is_dir():
            raise UsageError(f"no data for '{key}': run `urban fetch --city {key}`")
        _validate_city(workspace, key, findings, progress)
    return findings


def _validate_city(workspace: Workspace, key: str, findings: Findings, progress: Progress) -> None:
    if not workspace.manifest_file(key).exists():
        again = f"run the same `urban fetch --city {key}` again"
        findings.fault(workspace.manifest_file(key), "it is missing: a fetch did not end", again)
    checksums = check_manifest(workspace, key, findings)
    city = _open(workspace, key, findings)
    if city is None:
        return
    layers, labels = workspace.layers(key), workspace.labels(key)
    steps: list[tuple[str, Callable[[], Any]]] = [("places", lambda: check_places(city))]
    steps += [(f"layers/{n}", lambda n=n: _check_layer(city, n)) for n in layers]  # type: ignore[misc]
    steps += [(f"labels/{n}", lambda n=n: check_label(city, n)) for n in labels]  # type: ignore[misc]
    for done, (name, step) in enumerate(steps):
        progress(key, done, len(steps))
        path = city.folder / f"{name}.parquet"
        _guard(FileCheck(path, findings, city.again(path)), step)
    progress(key, len(steps), len(steps))
    check_lock(city)
    check_description(city, checksums)


def _guard(check: FileCheck, step: Callable[[], Any]) -> None:
    """Take a step; rows that cannot be decoded are a fault of the file, not of this program."""
    try:
        step()
    except (OSError, ValueError, KeyError, TypeError, shapely.errors.GEOSException) as err:
        check.fault(f"its rows cannot be read ({type(err).__name__})")


def _check_layer(city: City, layer: str) -> None:
    if layer in ENTITY_LAYERS:
        check_entities(city, layer)
    elif layer in NOMINAL_PIXEL_M:
        check_pixels(city, layer)
    elif layer == STREETVIEW:
        check_streetview(city, layer)
    else:
        path = city.workspace.layer_file(city.key, layer)
        city.findings.fault(path, "it is no layer that urban writes", "move it away")


def _open(workspace: Workspace, key: str, findings: Findings) -> City | None:
    """Return a city by its lock; None with a fault where that cannot be read."""
    path = workspace.lock_file(key)
    try:
        entry = fetched_area(workspace, key, ("origin", "area", "key"))
        lock = read_json(path)
        places = tiles_of(shapely.from_wkt(entry["area"]), Grid(entry["epsg"], entry["tile_m"]))
    except (UrbanError, shapely.errors.GEOSException, TypeError, ValueError) as err:
        text = str(err).replace(str(path), "the lock").split(": ")[0]
        findings.fault(path, text, f"delete it and run `urban fetch --city {key}` again")
        return None
    return City(workspace, key, places.grid, lock, places, findings)
