"""`lock.json`: what exactly was read for a city, beside its data; and what of it still lies there.

The lock holds area, grid, and per layer and label the inputs with their checksums and the
parameters. A file says in its own metadata what it was made from, so that the lock follows from
the files: what a killed or failed fetch planned and never finished is not in it.
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import shapely

from urbancli.city import City
from urbancli.errors import UrbanError
from urbancli.layers import fetched_area
from urbancli.workspace import (
    Workspace,
    fingerprint,
    open_parquet,
    read_json,
    sha256,
    write_json,
)

AREA_KEYS = ("epsg", "tile_m", "area")
"""What of a lock's city decides which tiles there are."""


@dataclass
class Standing:
    """What lies in a city's folder, judged by the files themselves.

    Attributes:
        lock: its `city` (None where nothing lies there), `layers` and `labels`.
        damaged: files that are not what the manifest says, or cannot be opened.
        marks: the fingerprint that each layer carries of what it was made from.
    """

    lock: dict[str, Any]
    damaged: set[Path] = field(default_factory=set)
    marks: dict[str, str] = field(default_factory=dict)


def city_entry(city: City, tile_m: int) -> dict[str, Any]:
    """Return what a lock keeps of a city: key, CRS, tile size, the area as WKT (EPSG:4326)."""
    return {
        "key": city.key,
        "epsg": city.epsg,
        "tile_m": tile_m,
        "origin": city.origin,
        "area": shapely.to_wkt(shapely.normalize(city.area), rounding_precision=7),
    }


def area_fingerprint(entry: dict[str, Any]) -> str:
    """Return what changes whenever a city's tiles do: its CRS, tile size or area."""
    return fingerprint([entry[name] for name in AREA_KEYS])


def layer_fingerprint(entry: dict[str, Any], layer: str, plan: dict[str, Any]) -> str:
    """Return what changes whenever a layer must be read anew: city, grid, inputs, parameters."""
    return fingerprint([entry, layer, plan])


def fetched_city(workspace: Workspace, key: str) -> City | None:
    """Return the city that lies in the workspace, area and CRS as in its lock; None without one.

    Raises:
        UrbanError: its lock cannot be read.
    """
    if not (workspace.layers(key) or workspace.labels(key)):
        return None
    if not workspace.lock_file(key).exists():
        return None
    entry = fetched_area(workspace, key, ("origin", "area"))
    try:
        area = shapely.from_wkt(entry["area"])
    except (shapely.errors.GEOSException, TypeError) as err:
        raise UrbanError(
            f"{workspace.lock_file(key)} holds no area: delete it and run `urban fetch --city "
            f"{key}` with --bbox or --aoi again"
        ) from err
    return City(key, area, entry["epsg"], entry["origin"])


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other process writes a folder, and keep others waiting; made if it is missing.

    Raises:
        UrbanError: the folder cannot be made.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as err:
        raise UrbanError(f"cannot write {folder}: {err.strerror or err}") from err
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(workspace: Workspace, key: str) -> Iterator[None]:
    """Keep other processes from fetching the same city; a killed process lets go by itself.

    Raises:
        UrbanError: another process is fetching it, or the folder cannot be written.
    """
    import fcntl

    path = workspace.city_dir(key) / ".fetching"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as err:
        raise UrbanError(f"cannot write {path}: {err.strerror or err}") from err
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not path.samefile(f"/dev/fd/{file.fileno()}"):
                raise BlockingIOError  # it ended just now and has taken the file away
        except OSError as err:
            raise UrbanError(
                f"another process is fetching '{key}' into {workspace.root}: wait until it ends"
            ) from err
        try:
            yield
        finally:
            if [each.name for each in path.parent.iterdir()] == [path.name]:  # nothing came of it
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # `data` may hold other cities
                    path.parent.rmdir()
                    path.parent.parent.rmdir()


def standing(workspace: Workspace, key: str, given: Collection[Path]) -> Standing:
    """Return what lies in a city's folder, every file checked against the manifest.

    Args:
        workspace: where it lies.
        key: the city.
        given: files that this fetch can make anew.

    Raises:
        UrbanError: a file that this fetch does not make is damaged or not of `urban fetch`.
    """
    listed = workspace.listed_files(key)
    found = Standing({"city": None, "layers": {}, "labels": {}})
    kinds = {
        "layers": ("provenance", {n: workspace.layer_file(key, n) for n in workspace.layers(key)}),
        "labels": ("source", {n: workspace.label_file(key, n) for n in workspace.labels(key)}),
    }
    for kind, (fact, paths) in kinds.items():
        for name, path in paths.items():
            facts = _facts(path, listed.get(f"{kind}/{path.name}"))
            if fact in facts:
                found.lock[kind][name] = facts[fact]
                if kind == "layers":
                    found.marks[name] = str(facts.get("plan_fingerprint"))
            elif path in given:
                found.damaged.add(path)
            else:
                raise UrbanError(
                    f"{path} is damaged or not of `urban fetch`: fetch '{key}' again with its "
                    "input, or delete the file"
                )
    places = workspace.places_file(key)
    if places.exists() and not _facts(places, listed.get(places.name)):
        found.damaged.add(places)
    if (found.lock["layers"] or found.lock["labels"]) and workspace.lock_file(key).exists():
        found.lock["city"] = fetched_area(workspace, key, ("key", "origin", "area"))
    return found


def _facts(path: Path, listed: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a file says about itself; nothing where it is not as listed, or no file of us."""
    if listed is not None and sha256(path) != listed["sha256"]:
        return {}
    try:
        file, facts = open_parquet(path)
    except UrbanError:
        return {}
    file.close()
    return facts


def settle_city(
    found: Standing, entry: dict[str, Any], given: Collection[str], workspace: Workspace
) -> None:
    """Put the city into the lock, refusing to mix two areas or grids in one folder.

    Args:
        found: what lies there.
        entry: the city to fetch; where its area is the one that lies there, that entry stays.
        given: layers that this fetch brings.
        workspace: where it lies.

    Raises:
        UrbanError: what lies there is of another area, CRS or tile size.
    """
    there, key = found.lock["city"], entry["key"]
    if there is not None:
        differs = [name for name in AREA_KEYS if there[name] != entry[name]]
        if differs:
            raise UrbanError(
                f"'{key}' was fetched with another {' and '.join(differs)}: use another "
                "--workspace, or leave out --bbox and --aoi to add to what is there"
            )
    found.lock["city"] = there or entry
    for layer, plan in found.lock["layers"].items():
        mark = layer_fingerprint(found.lock["city"], layer, plan)
        if layer not in given and found.marks[layer] != mark:
            raise UrbanError(
                f"{workspace.layer_file(key, layer)} was fetched for another area: fetch '{key}' "
                "again with its input, or delete the file"
            )


def write_lock(workspace: Workspace, key: str, lock: dict[str, Any]) -> None:
    """Write a city's lock, whole or not at all, if it says something new."""
    path = workspace.lock_file(key)
    if path.exists():
        there = read_json(path)
        if all(there.get(name) == content for name, content in lock.items()):
            return
    unlist(workspace, key, path)
    write_json(path, lock)


def unlist(workspace: Workspace, key: str, path: Path) -> None:
    """Take a file that is about to be replaced out of the manifest: its checksum will be wrong."""
    files = workspace.listed_files(key)
    if files.pop(path.relative_to(workspace.city_dir(key)).as_posix(), None) is not None:
        write_json(workspace.manifest_file(key), {"files": files})
