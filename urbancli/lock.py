"""`lock.json`: what exactly was read for a city, beside its data.

The lock is the plan: area, grid, and per layer and label the inputs with their checksums and the
parameters. It is written before anything is read, so that a fetch that was killed goes on with it.
"""

from typing import Any

import shapely

from urbancli.city import City
from urbancli.errors import UrbanError
from urbancli.workspace import Workspace, fingerprint, read_json, write_json


def city_entry(city: City, tile_m: int) -> dict[str, Any]:
    """Return what a lock keeps of a city: key, CRS, tile size, the area as WKT (EPSG:4326)."""
    return {
        "key": city.key,
        "epsg": city.epsg,
        "tile_m": tile_m,
        "origin": city.origin,
        "area": shapely.to_wkt(shapely.normalize(city.area), rounding_precision=7),
    }


def read_lock(workspace: Workspace, key: str) -> dict[str, Any]:
    """Return a city's lock, or an empty one."""
    path = workspace.lock_file(key)
    return read_json(path) if path.exists() else {"city": None, "layers": {}, "labels": {}}


def check_same_city(lock: dict[str, Any], entry: dict[str, Any], workspace: Workspace) -> None:
    """Refuse to mix two areas or grids in one folder.

    Raises:
        UrbanError: the lock is of another area, CRS or tile size.
    """
    there = lock["city"]
    if there is not None and there != entry:
        differs = [name for name in entry if there.get(name) != entry[name]]
        raise UrbanError(
            f"'{entry['key']}' was fetched with another {' and '.join(differs)}: use another "
            f"--workspace, or delete {workspace.city_dir(entry['key'])}"
        )


def write_lock(workspace: Workspace, key: str, lock: dict[str, Any]) -> None:
    """Write a city's lock, whole or not at all."""
    write_json(workspace.lock_file(key), lock)


def layer_fingerprint(lock: dict[str, Any], layer: str) -> str:
    """Return what changes whenever a layer must be read anew: city, grid, inputs, parameters."""
    return fingerprint([lock["city"], layer, lock["layers"][layer]])
