"""The test world: every service of a live fetch on loopback, out of a SYNTHETIC city's files.

The real command line runs against it as it runs against the real services: only the environment
names other URLs. What an Azure host would serve comes through the door as a proxy.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import shapely

from tests.world.faults import Faults
from tests.world.files import Files, Signatures
from tests.world.front import Door, forward
from tests.world.nominatim import nominatim
from tests.world.overpass import OverpassServer
from tests.world.stac_api import moved_catalogue, stac_api

STORAGE = ".blob.core.windows.net"
STAC, TOKENS, OVERPASS, GEOCODER, FILES = "/", "/token", "/overpass", "/nominatim", "/files"
"""What the services are called in the door's log; that of the signed files is `STORAGE`."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class World:
    """All services of a city; a context manager.

    Attributes:
        door: what all requests go through: its log, its latency, its faults.
        signatures: of the storage.
        city: what the geocoder calls the city.
        bbox: (west, south, east, north) of the city's tiles, for `--bbox`.

    Args:
        inputs: the files that `urbancli.demo` made.
        signed: whether the imagery lies in storage that wants signatures.
        lifetime_s: of a signature, seconds.
        timeout_s: after which GDAL gives up, seconds.
    """

    city = "Lemuria Town"

    def __init__(
        self,
        inputs: Path,
        signed: bool = True,
        lifetime_s: float = 3600.0,
        timeout_s: int = 10,
    ) -> None:
        self.inputs = inputs
        self.signatures = Signatures(lifetime_s)
        self.door = Door()
        self.stac_url = ""
        self._signed = signed
        self._timeout_s = timeout_s
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "World":
        with contextlib.ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            opened.enter_context(self.door)
            self.door.mount_host(STORAGE, Files(self.inputs, self.signatures))
            self.door.mount(FILES, Files(self.inputs))
            self.door.mount(TOKENS, self.signatures.tokens)
            self.door.mount(GEOCODER, nominatim({self.city: self.area}))
            self._mount_overpass(opened)
            files = moved_catalogue(self.inputs / "catalogue/catalog.json", folder, self._href)
            self.stac_url = self.door.url  # rustac drops any path of its address from its links
            self.door.mount(STAC, forward(opened.enter_context(stac_api(files, self.stac_url))))
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def area(self) -> Any:
        """The city's tiles, EPSG:4326, lon lat."""
        from urbancli.demo.files import demo_city, recipe_of

        recipe = recipe_of(self.inputs)
        assert recipe is not None
        return demo_city(recipe).area

    @property
    def bbox(self) -> str:
        """A box within the city, as `--bbox` takes it."""
        west, south, east, north = shapely.bounds(self.area)
        return f"{west + 1e-4:.5f},{south + 1e-4:.5f},{east - 1e-4:.5f},{north - 1e-4:.5f}"

    def fetch(self, *more: object) -> list[str]:
        """Return the arguments that fetch the city from its services, as in production."""
        return ["fetch", "--city", "town", "--bbox", self.bbox, *map(str, more)]

    def storm(self, seed: int, hurried: bool = False) -> Faults:
        """Let a fifth of all requests fail from now on.

        Args:
            seed: of which, and how.
            hurried: Overpass never says that it is busy: half a minute of pause follows each time.
        """
        busy = {(OVERPASS, kind) for kind in ("too many", "unavailable")} if hurried else set()
        late_s = self._timeout_s + 1.0
        faults = Faults(seed, 0.2, STORAGE, late_s=late_s, spared=frozenset(busy))
        self.door.spoiler = faults
        return faults

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the environment in which `urban` meets this world and no other."""
        theirs = {k: v for k, v in os.environ.items() if k.lower() not in PROXIES}
        return {
            **theirs,
            "URBAN_STAC_URL": self.stac_url,
            "URBAN_OVERPASS_URL": f"{self.door.url}{OVERPASS}/api/interpreter",
            "URBAN_NOMINATIM_URL": f"{self.door.url}{GEOCODER}/",
            "URBAN_CACHE": str(cache),
            "PC_SDK_SAS_URL": self.door.url + TOKENS,
            "http_proxy": self.door.url,
            "no_proxy": "127.0.0.1,localhost",
            "GDAL_HTTP_TIMEOUT": str(self._timeout_s),
            "OMP_NUM_THREADS": "1",
        }

    def urban(
        self, workspace: Path, *arguments: object, timeout_s: float = 300.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run `urban` with arguments in a process of its own, its cache beside the workspace."""
        return subprocess.run(
            urban_command(workspace, *arguments),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment(cache_of(workspace)),
        )

    def _href(self, file: Path) -> str:
        path = file.relative_to(self.inputs).as_posix()
        if self._signed:
            return f"http://account{STORAGE}/demo/{path}"
        return f"{self.door.url}{FILES}/{path}"

    def _mount_overpass(self, opened: contextlib.ExitStack) -> None:
        server = opened.enter_context(OverpassServer(self.inputs / "map.osm.pbf"))
        root = server.url.partition("/api/")[0]
        self.door.mount(OVERPASS, forward(root))


def urban_command(workspace: Path, *arguments: object) -> list[str]:
    """Return the command line of `urban` in a workspace."""
    return [sys.executable, "-m", "urbancli", "--workspace", str(workspace), *map(str, arguments)]


def cache_of(workspace: Path) -> Path:
    """Return where a workspace's fetches keep answers: no two workspaces share one."""
    return workspace.with_name(workspace.name + ".cache")
