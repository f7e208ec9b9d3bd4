"""STAC services and catalogues: paging, recorded answers, remote rasters, signatures, mistakes."""

import json
import logging
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely
from stac_scenes import (
    HALO,
    fetched,
    halo_pixels,
    item,
    noise,
    places,
    scene,
    write_catalogue,
    write_raster,
)

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.sources import naip, sentinel2
from urbancli.sources._items import period
from urbancli.sources._rasters import GDAL_REMOTE, gdal_environment
from urbancli.sources._stac import Catalogue

JUNE = "2023-06-14T05:30:00+00:00"
CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
]
SORTS = "https://api.stacspec.org/v1.0.0/item-search#sort"
GEOJSON = "application/geo+json"
SECRET = "c2VjcmV0LXNpZ25hdHVyZQ"


class Service(ThreadingHTTPServer):
    """A STAC API, a token endpoint and, as a proxy too, files with byte ranges; on loopback.

    Attributes:
        pages: the bodies of `/search`, each naming the next.
        folder: of the files.
        conforms: what the landing page says.
        failing: path → status that is answered in place of content.
        asked: (method, path, body) of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.pages: list[Any] = []
        self.collections: list[str] = []
        self.folder = Path()
        self.conforms = CONFORMS
        self.failing: dict[str, int] = {}
        self.asked: list[tuple[str, str, Any]] = []

    def searches(self) -> list[Any]:
        return [body for method, path, body in self.asked if (method, path) == ("POST", "/search")]


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        path = self.path.removeprefix("http://account.blob.core.windows.net")
        self.server.asked.append(("GET", self.path, None))
        if path != self.path and SECRET not in path:
            self._send(403, b"no signature")
        elif path in self.server.failing:
            self._send(self.server.failing[path], b"<html>not today</html>")
        elif path == "/":
            self._send_json(self._landing())
        elif path == "/collections":
            names = self.server.collections
            collections = [_collection(self.server.url, name) for name in names]
            self._send_json({"collections": collections, "links": []})
        elif path.startswith("/token/"):
            expiry = "2999-01-01T00:00:00Z"
            self._send_json({"msft:expiry": expiry, "token": f"se=2999&sig={SECRET}"})
        else:
            self._send_file(self.server.folder / path.split("?")[0].lstrip("/"))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(("POST", self.path, body))
        if "/search" in self.server.failing:
            self._send(self.server.failing["/search"], b"<html>not today</html>")
            return
        page = self.server.pages[int(body.get("token", 0))]
        self._send(200, page) if isinstance(page, bytes) else self._send_json(page)

    def _landing(self) -> Any:
        url = self.server.url
        links = [
            {"rel": rel, "href": url + path, "type": "application/json"}
            for rel, path in (("root", "/"), ("self", "/"), ("data", "/collections"))
        ]
        links += [
            {"rel": "search", "href": f"{url}/search", "method": method, "type": GEOJSON}
            for method in ("GET", "POST")
        ]
        return {
            "type": "Catalog", "id": "test", "description": "test", "stac_version": "1.0.0",
            "conformsTo": self.server.conforms, "links": links,
        }  # fmt: skip

    def _send_json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode())

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            self._send(404, b"")
            return
        whole = path.read_bytes()
        asked = self.headers.get("Range")
        if not asked:
            self._send(200, whole)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last or len(whole)), len(whole) - 1) + 1
        self._send(206, whole[start:stop], f"bytes {start}-{stop - 1}/{len(whole)}")

    def _send(self, status: int, body: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def _collection(url: str, name: str) -> Any:
    return {
        "type": "Collection", "id": name, "stac_version": "1.0.0", "description": name,
        "license": "proprietary", "links": [{"rel": "root", "href": f"{url}/"}],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]},
        },
    }  # fmt: skip


@pytest.fixture
def service(socket_enabled: None) -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _page(items: list[pystac.Item], folder: Path, url: str, token: int | None = None) -> Any:
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


def _recorded(path: Path, service: Service) -> Any:
    """Return a recorded body with the service's own URL in place of the real one."""
    record = json.loads(path.read_text())
    text = json.dumps(record.get("body", record))
    for real in (
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        "https://earth-search.aws.element84.com/v1",
    ):
        text = text.replace(real, service.url)
    return json.loads(text)


def _places(west: float, south: float, side: float = 0.01) -> Places:
    """Return the tiles of a box of some degrees, in its own zone."""
    grid = Grid((32601 if south >= 0 else 32701) + int((west + 180) // 6))
    return tiles_of(shapely.box(west, south, west + side, south + side), grid)


# --- services ----------------------------------------------------------------------------------


def test_one_search_is_paged_to_its_end(service: Service, tmp_path: Path) -> None:
    service.folder = tmp_path
    scenes = [
        scene(tmp_path, f"s{n}", f"2023-06-{n + 1:02}T05:30:00Z", noise(12, n), 4) for n in range(3)
    ]
    service.pages = [
        _page([scenes[2], scenes[0]], tmp_path, service.url, 1),
        _page([scenes[1], scenes[0]], tmp_path, service.url, 2),  # one of them twice
        _page([], tmp_path, service.url),
    ]
    plan = sentinel2.Source(service.url, "2023-06", "2023").plan(places())
    assert [each["id"] for each in plan["items"]] == ["s0", "s1", "s2"]
    first = service.searches()[0]
    assert len(service.searches()) == 3
    assert first["collections"] == ["sentinel-2-l2a"] and first["limit"] == 1000
    assert first["datetime"] == "2023-06-01T00:00:00Z/2023-12-31T23:59:59Z"
    asked = shapely.geometry.shape(first["intersects"])
    lon, lat = places().lonlat()
    assert shapely.contains_xy(asked, lon, lat).all() and asked.area < 0.1
    assert plan["catalogue"] == service.url
    assert plan["items"][0]["assets"]["B02"] == {"href": f"{service.url}/scenes/s0/B02.tif"}


def test_a_service_that_sorts_is_asked_only_for_the_last_year(
    service: Service, tmp_path: Path
) -> None:
    days = ("2023-05-01", "2022-09-01", "2022-04-01", "2019-01-01")
    scenes = [scene(tmp_path, f"s{n}", f"{d}T05:30:00Z", noise(12), 4) for n, d in enumerate(days)]
    service.pages = [_page([each], tmp_path, service.url, n + 1) for n, each in enumerate(scenes)]
    service.pages.append(_page([], tmp_path, service.url))
    whole = sentinel2.Source(service.url).plan(places())
    assert len(service.searches()) == 5 and "sortby" not in service.searches()[0]
    service.conforms = [*CONFORMS, SORTS]
    service.asked.clear()
    plan = sentinel2.Source(service.url).plan(places())
    assert service.searches()[0]["sortby"] == [
        {"field": "properties.datetime", "direction": "desc"}
    ]
    assert len(service.searches()) == 3
    assert plan["items"] == whole["items"]
    assert sorted(each["id"] for each in plan["items"]) == ["s0", "s1"]


def test_rasters_are_read_over_http(service: Service, tmp_path: Path) -> None:
    service.folder = tmp_path
    dn = noise(12)
    service.pages = [_page([scene(tmp_path, "a", JUNE, dn, 4)], tmp_path, service.url)]
    samples, valid = halo_pixels(fetched(tmp_path, sentinel2.Source(service.url))[0])
    np.testing.assert_array_equal(samples, dn[:, HALO, HALO] - 1000)
    assert valid.all()


def test_a_static_catalogue_is_read_over_http(service: Service, tmp_path: Path) -> None:
    service.folder = tmp_path
    dn = noise(12)
    write_catalogue(tmp_path, scene(tmp_path, "a", JUNE, dn, 4))
    local = sentinel2.Source(str(tmp_path)).plan(places())
    source = sentinel2.Source(f"{service.url}/catalog.json?key={SECRET}&sig=1")
    plan = source.plan(places())
    assert plan["catalogue"] == f"{service.url}/catalog.json"
    assert SECRET not in json.dumps(plan)
    for remote, here in zip(plan["items"], local["items"], strict=True):
        for name, asset in here["assets"].items():
            assert remote["assets"][name]["href"] == asset["href"]
    samples, _ = halo_pixels(fetched(tmp_path, source)[0])
    np.testing.assert_array_equal(samples, dn[:, HALO, HALO] - 1000)


@pytest.fixture
def storage(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service as token endpoint, and as the proxy through which GDAL reaches blob storage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from planetary_computer.sas import TOKEN_CACHE
        from planetary_computer.settings import Settings

    monkeypatch.setenv("PC_SDK_SAS_URL", f"{service.url}/token")
    monkeypatch.setenv("GDAL_HTTP_PROXY", service.url)
    Settings.get.cache_clear()
    TOKEN_CACHE.clear()
    return service


def test_blob_storage_is_read_signed_and_pinned_unsigned(
    storage: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage.folder = tmp_path
    dn = noise(12)
    blob = "http://account.blob.core.windows.net"
    page = _page([scene(tmp_path, "a", JUNE, dn, 4)], tmp_path, blob)
    for asset in page["features"][0]["assets"].values():
        asset["href"] += "?se=2001&sig=stale"  # signed by whoever wrote the item, long ago
    storage.pages = [page]
    with caplog.at_level(logging.DEBUG):
        source = sentinel2.Source(storage.url)
        samples, valid = halo_pixels(fetched(tmp_path / "out", source)[0])
    np.testing.assert_array_equal(samples, dn[:, HALO, HALO] - 1000)
    assert valid.all()
    reads = [path for _, path, _ in storage.asked if path.startswith(blob)]
    assert reads and all(SECRET in path and "stale" not in path for path in reads)
    plan = source.plan(places())
    assert plan["items"][0]["assets"]["B02"]["href"] == f"{blob}/scenes/a/B02.tif"
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert SECRET.encode() not in path.read_bytes() and b"stale" not in path.read_bytes()
    assert SECRET not in repr(source.__dict__) and "stale" not in repr(source.__dict__)
    assert SECRET not in caplog.text


def test_no_error_holds_a_signature(storage: Service, tmp_path: Path) -> None:
    blob = "http://account.blob.core.windows.net"
    storage.folder = tmp_path
    page = _page([scene(tmp_path, "lost", JUNE, noise(12), 4)], tmp_path, blob)
    storage.pages = [page]
    (tmp_path / "scenes" / "lost" / "SCL.tif").unlink()
    source = sentinel2.Source(storage.url)
    source.plan(places())
    block = source.blocks(places())[0]
    with pytest.raises(ServiceError, match="cannot read asset SCL of item lost") as error:
        source.read(block)
    assert any(SECRET in path for _, path, _ in storage.asked)
    assert "\n" not in str(error.value) and SECRET not in str(error.value)
    assert error.value.__suppress_context__ and error.value.__cause__ is None
    storage.failing["/token/account/scenes"] = 404
    from planetary_computer.sas import TOKEN_CACHE

    TOKEN_CACHE.clear()
    with pytest.raises(ServiceError, match="cannot get a token"):
        source.read(block)


# --- recorded answers --------------------------------------------------------------------------


def test_planetary_computers_naip_pages_are_planned(service: Service, real_data: Path) -> None:
    folder = real_data / "stac" / "planetary_computer"
    service.pages = [_recorded(folder / f"search_naip_bbox_page_{n}.json", service) for n in (1, 2)]
    service.pages.append({"type": "FeatureCollection", "features": [], "links": []})
    for number, page in enumerate(service.pages[:2]):
        for link in page["links"]:
            if link["rel"] == "next":
                link["body"]["token"] = number + 1
    vermont = _places(-73.2, 44.02)
    plan = naip.Source(service.url).plan(vermont)
    features = [each for page in service.pages for each in page["features"]]
    near = shapely.box(-73.2, 44.02, -73.19, 44.03)
    years = {
        each["id"]: int(each["properties"]["naip:year"])
        for each in features
        if shapely.geometry.shape(each["geometry"]).intersects(near)
    }
    assert plan["years"] == [max(years.values())] == [2023]
    assert {each["id"] for each in plan["items"]} >= {n for n, y in years.items() if y == 2023}
    assert len(service.searches()) == 3
    for each in plan["items"]:
        assert each["proj:code"] == "EPSG:26918" and each["native_m"] == 0.3
        href = each["assets"]["image"]["href"]
        assert href.startswith("https://naipeuwest.blob.core.windows.net/naip/v002/vt/2023/")
        assert "?" not in href
    assert plan["pixel_m"] == 0.6


def test_planetary_computers_sentinel_scenes_are_planned(service: Service, real_data: Path) -> None:
    folder = real_data / "stac" / "planetary_computer"
    body = _recorded(folder / "search_sentinel_2_datetime.json", service)
    service.pages = [body]
    lon, lat = (
        shapely.geometry.shape(body["features"][0]["geometry"]).representative_point().coords[0]
    )
    here = _places(lon, lat, 0.005)
    plan = sentinel2.Source(service.url).plan(here)
    within = {
        each["id"]
        for each in body["features"]
        if shapely.geometry.shape(each["geometry"]).intersects(shapely.Point(lon, lat))
    }
    assert {each["id"] for each in plan["items"]} >= within
    for each in plan["items"]:
        assert (each["baseline"], each["offset"]) == ("02.12", 0)
        assert each["offset_rule"] == "s2:processing_baseline"
        assert each["assets"]["B8A"]["href"].endswith("_B8A_20m.tif")
        assert each["assets"]["SCL"]["href"].endswith("_SCL_20m.tif")


def test_earth_searchs_sentinel_scene_is_planned(service: Service, real_data: Path) -> None:
    body = _recorded(real_data / "stac" / "earth_search" / "search_two_collections.json", service)
    service.pages = [body, {"type": "FeatureCollection", "features": [], "links": []}]
    for link in body["links"]:
        if link["rel"] == "next":
            link["body"]["token"] = 1
    plan = sentinel2.Source(service.url).plan(_places(-105.11, 40.16))
    (found,) = plan["items"]
    assert found["id"] == "S2A_13TDE_20231008_0_L2A"
    assert (found["baseline"], found["offset"]) == ("05.09", 0)
    assert found["offset_rule"] == "earthsearch:boa_offset_applied"
    files = {name: asset["href"].rsplit("/", 1)[1] for name, asset in found["assets"].items()}
    assert files == {name: f"{name}.tif" for name in (*sentinel2.ASSETS, "SCL")}


def test_a_real_series_of_scenes_is_capped_at_its_clearest(
    service: Service, real_data: Path
) -> None:
    path = real_data / "stac" / "documents" / "sentinel_2_items_35MNM.geojson"
    service.pages = [_recorded(path, service)]
    series = service.pages[0]["features"]
    lon, lat = shapely.geometry.shape(series[0]["geometry"]).centroid.coords[0]
    plan = sentinel2.Source(service.url, dates=5).plan(_places(lon, lat))
    clearest = sorted(series, key=lambda each: each["properties"]["eo:cloud_cover"])[:5]
    assert [each["id"] for each in plan["items"]] == [each["id"] for each in clearest]
    assert plan["found"] == len(series) == 13


# --- what is wrong -----------------------------------------------------------------------------


def test_a_service_that_fails_is_said_so(service: Service, tmp_path: Path) -> None:
    service.failing["/search"] = 503
    service.collections = ["landsat", "naip"]
    empty = {"type": "FeatureCollection", "features": [], "links": []}
    with pytest.raises(ServiceError, match=r"answers 503.*try again later") as error:
        naip.Source(service.url).plan(places())
    assert "\n" not in str(error.value)
    with pytest.raises(ServiceError, match="cannot be reached") as error:
        naip.Source(f"http://127.0.0.1:9/?sig={SECRET}").plan(places())
    assert SECRET not in str(error.value)
    del service.failing["/search"]
    image = item("m_1", JUNE, {"image": write_raster(tmp_path / "a.tif", noise(1))}, "naip")
    circle = _page([image], tmp_path, service.url, 0)
    for page in (b"<html>", {"features": [{"id": "broken"}], "links": []}, circle):
        service.pages = [page]
        with pytest.raises(UrbanError) as error:
            naip.Source(service.url).plan(places())
        assert "\n" not in str(error.value) and service.url in str(error.value)
    service.pages = [empty]
    with pytest.raises(UsageError, match=r"no collection 'sentinel-2-l2a': it has landsat, naip$"):
        sentinel2.Source(service.url).plan(places())
    with pytest.raises(UrbanError, match="United States only"):
        naip.Source(service.url).plan(places())
    service.failing["/"] = 401
    with pytest.raises(ServiceError, match="answers 401"):
        naip.Source(service.url).plan(places())


def test_catalogues_that_are_none_are_said_so(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, scene(tmp_path, "a", JUNE, noise(12), 4))
    with pytest.raises(UsageError, match=r"no collection 'naip': it has sentinel-2-l2a$"):
        naip.Source(str(path)).plan(places())
    with pytest.raises(UrbanError, match=r"no file .*absent/catalog\.json.*URL of a STAC API"):
        naip.Source(str(tmp_path / "absent" / "catalog.json"))
    broken = tmp_path / "sentinel-2-l2a" / "a" / "a.json"
    whole = json.loads(broken.read_text())
    for change in ({"geometry": None}, {"properties": {}}, {"assets": {"B01": {}}}, {"type": "x"}):
        broken.write_text(json.dumps({**whole, **change}))
        _refused(path)
    broken.write_text("{")
    _refused(path)
    broken.unlink()
    _refused(path)
    for text in ("no JSON", "[]", '{"type": "Feature"}', '{"a": 1}'):
        path.write_text(text)
        _refused(path)


def _refused(path: Path) -> None:
    with pytest.raises(UrbanError, match=r"catalog\.json") as error:
        sentinel2.Source(str(path)).plan(places())
    assert "\n" not in str(error.value)


# --- times, places, environment ----------------------------------------------------------------


def test_dates_are_years_months_or_days() -> None:
    def at(*parts: int) -> datetime:
        return datetime(*parts, tzinfo=UTC)

    assert period("2023", "2023") == (at(2023, 1, 1), at(2023, 12, 31, 23, 59, 59))
    assert period("2024-02", "2024-02")[1] == at(2024, 2, 29, 23, 59, 59)
    assert period("2023-12", "2023-12")[1] == at(2023, 12, 31, 23, 59, 59)
    assert period("2023-05-14", None) == (at(2023, 5, 14), None)
    for bad in ("yesterday", "2023-13", "2023-02-30", "0000", "23"):
        with pytest.raises(UsageError, match="is no date"):
            period(bad, None)
    with pytest.raises(UsageError, match="is after until"):
        period("2024", "2023-05")


def test_a_city_on_the_antimeridian_is_searched_on_both_sides(tmp_path: Path) -> None:
    fiji = tiles_of(shapely.box(179.995, -16.8, 180.0, -16.79), Grid(32760))
    folder = tmp_path / "images"
    ids = []
    for side, (west, east) in {"w": (179.9, 180.0), "e": (-180.0, -179.9), "far": (0, 1)}.items():
        image = pystac.Item(
            f"m_{side}", shapely.geometry.mapping(shapely.box(west, -16.9, east, -16.7)),
            [west, -16.9, east, -16.7], datetime(2022, 7, 1, tzinfo=UTC), {}, collection="naip",
        )  # fmt: skip
        image.add_asset("image", pystac.Asset(str(folder / "none.tif")))
        ids.append(image)
    from urbancli.sources._items import search_area

    catalogue = Catalogue(str(write_catalogue(tmp_path, *ids)))
    found = catalogue.search("naip", search_area(fiji), (None, None))
    assert [each.item_id for each in found] == ["m_e", "m_w"]


def test_gdal_is_told_only_what_the_user_has_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import rasterio

    monkeypatch.setenv("VSI_CACHE", "FALSE")
    with rasterio.Env(GDAL_HTTP_TIMEOUT=7), gdal_environment():
        told = rasterio.env.getenv()
        assert told["GDAL_HTTP_TIMEOUT"] == 7
        assert "VSI_CACHE" not in told
        assert str(told["GDAL_DISABLE_READDIR_ON_OPEN"]) == "EMPTY_DIR"
        assert set(GDAL_REMOTE) - set(told) == {"VSI_CACHE"}
    assert not rasterio.env.hasenv()


def test_items_in_plain_catalogues_are_found(tmp_path: Path) -> None:
    """A catalogue need not sort its items into collections' files."""
    dn = noise(12)
    found = scene(tmp_path, "a", JUNE, dn, 4)
    other = item("b", JUNE, {"image": tmp_path / "scenes/a/B02.tif"}, "naip")
    inner = pystac.Catalog("inner", "inner")
    inner.add_items([found, other])
    for each in (found, other):
        each.collection_id = {"a": "sentinel-2-l2a", "b": "naip"}[each.id]
    root = pystac.Catalog("root", "root")
    root.add_child(inner)
    root.normalize_hrefs(str(tmp_path / "catalogue"))
    root.make_all_asset_hrefs_relative()
    root.save(pystac.CatalogType.SELF_CONTAINED)
    plan = sentinel2.Source(str(tmp_path / "catalogue")).plan(places())
    assert [each["id"] for each in plan["items"]] == ["a"]
    assert plan["items"][0]["assets"]["B02"]["href"] == "../scenes/a/B02.tif"
