"""A STAC API of given pages, and its items' files, behind the test world's door on loopback."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely

from tests.world.files import Files, Signatures
from tests.world.front import Answer, Door, Request
from urbancli import net
from urbancli.grid import Grid, Places, tiles_of
from urbancli.sources import _rasters, _signing

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
]
SORTS = "https://api.stacspec.org/v1.0.0/item-search#sort"
GEOJSON = "application/geo+json"
STORAGE = ".blob.core.windows.net"

_ACCOUNTS = itertools.count()

EMPTY: dict[str, Any] = {"type": "FeatureCollection", "features": [], "links": []}

REAL = (
    "https://planetarycomputer.microsoft.com/api/stac/v1",
    "https://earth-search.aws.element84.com/v1",
)


class Service:
    """A STAC API; other paths are files of a folder.

    Attributes:
        door: what it is asked through.
        url: of the API.
        pages: the bodies of `/search`, each naming the next by `token`.
        folder: of the files.
        signatures: of the storage in which the same files lie.
        collections: ids of those it has.
        documents: path → what is answered in place of our own landing page and so on.
        conforms: what the landing page says.
        failing: path → status that is answered in place of content.
        searches: the body of every search.
    """

    def __init__(self, door: Door, folder: Path) -> None:
        self.door, self.url, self.folder = door, door.url, folder
        self.signatures = Signatures()
        self.pages: list[Any] = []
        self.collections: list[str] = []
        self.documents: dict[str, Any] = {}
        self.conforms = CONFORMS
        self.failing: dict[str, int] = {}
        self.searches: list[Any] = []
        door.mount("/", self)
        door.mount("/token", self._tokens)
        door.mount_host(STORAGE, Files(folder, self.signatures))

    def __call__(self, request: Request) -> Answer:
        """Answer what is below `/`."""
        if request.method == "POST":
            self.searches.append(json.loads(request.body))
        if request.path in self.failing:
            return Answer(self.failing[request.path], b"<html>not today</html>")
        if request.path in self.documents:
            return _json(self.documents[request.path])
        if request.path == "/search":
            page = self.pages[int(self.searches[-1].get("token", 0))]
            return Answer(200, page) if isinstance(page, bytes) else _json(page)
        if request.path == "/":
            return _json(self._landing())
        if request.path == "/collections":
            found = [_collection(self.url, name) for name in self.collections]
            return _json({"collections": found, "links": []})
        return Files(self.folder)(request)

    def blob(self) -> str:
        """Return a URL below which the files lie signed; another one each time.

        GDAL keeps for all of this process what it has read of a URL.
        """
        return f"http://account{next(_ACCOUNTS)}{STORAGE}/container"

    def asked(self, service: str = "/") -> list[str]:
        """Return the paths of all requests to `/`, `/token`, or `STORAGE`."""
        return [each.path for each in self.door.of(service)]

    def _tokens(self, request: Request) -> Answer:
        if "/token" in self.failing:
            return Answer(self.failing["/token"])
        return self.signatures.tokens(request)

    def _landing(self) -> Any:
        links = [
            {"rel": rel, "href": self.url + path, "type": "application/json"}
            for rel, path in (("root", "/"), ("self", "/"), ("data", "/collections"))
        ]
        links += [
            {"rel": "search", "href": f"{self.url}/search", "method": method, "type": GEOJSON}
            for method in ("GET", "POST")
        ]
        return {
            "type": "Catalog", "id": "test", "description": "test", "stac_version": "1.0.0",
            "conformsTo": self.conforms, "links": links,
        }  # fmt: skip


@contextlib.contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Give a service; waits between attempts are short, and answers are kept below the folder."""
    monkeypatch.setenv("URBAN_CACHE", str(folder / "kept"))
    # Only the waits are shortened, which are constants: no user has a reason to set them. Tokens
    # are the process's and would outlive the test's server.
    monkeypatch.setattr(net, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(_rasters, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(_rasters, "LONGEST_WAIT_S", 0.002)
    monkeypatch.setattr(_rasters, "TOKENS", _signing.Tokens())
    _signing._package()[1].get.cache_clear()
    with Door() as door:
        # By environment, because nothing else reaches there: planetary_computer reads its token
        # endpoint from it, and GDAL the proxy through which Azure's hosts are found on this
        # machine.
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{door.url}/token")
        monkeypatch.setenv("http_proxy", door.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.001")
        yield Service(door, folder)


def page_of(items: list[pystac.Item], folder: Path, url: str, token: int | None = None) -> Any:
    """Return a page of items whose assets, files in a folder, have URLs; and its link onwards."""
    features = []
    for each in items:
        document = each.to_dict(include_self_link=False, transform_hrefs=False)
        for asset in document["assets"].values():
            asset["href"] = f"{url}/{Path(asset['href']).relative_to(folder).as_posix()}"
        features.append(document)
    links = []
    if token is not None:
        links = [{"rel": "next", "href": f"{url}/search", "method": "POST", "merge": True,
                  "body": {"token": token}}]  # fmt: skip
    return {"type": "FeatureCollection", "features": features, "links": links}


def recorded(path: Path, service: Service) -> Any:
    """Return a recorded body with the service's own URL in place of the real one."""
    record = json.loads(path.read_text())
    text = json.dumps(record.get("body", record))
    for real in REAL:
        text = text.replace(real, service.url)
    return json.loads(text)


def recorded_pages(paths: list[Path], service: Service) -> list[Any]:
    """Return recorded pages that follow each other, the last one followed by an empty one."""
    pages = [recorded(path, service) for path in paths]
    for number, page in enumerate(pages):
        for link in page["links"]:
            if link["rel"] == "next":
                link["body"]["token"] = number + 1
    return [*pages, EMPTY]


def places_at(west: float, south: float, side: float = 0.01) -> Places:
    """Return the tiles of a box of some degrees, in its own zone."""
    grid = Grid((32601 if south >= 0 else 32701) + int((west + 180) // 6))
    return tiles_of(shapely.box(west, south, west + side, south + side), grid)


def _json(content: Any) -> Answer:
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def _collection(url: str, name: str) -> Any:
    return {
        "type": "Collection", "id": name, "stac_version": "1.0.0", "description": name,
        "license": "proprietary", "links": [{"rel": "root", "href": f"{url}/"}],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]},
        },
    }  # fmt: skip
