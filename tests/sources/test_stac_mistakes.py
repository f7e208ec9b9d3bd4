"""STAC: services and catalogues that are wrong, dates, the antimeridian, GDAL's environment."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest
import shapely
from stac_scenes import item, noise, places, scene, write_catalogue, write_raster
from stac_service import EMPTY, Service, page_of, serving

from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.grid import Grid, tiles_of
from urbancli.net import Net, OfflineError
from urbancli.sources import naip, sentinel2
from urbancli.sources._items import period, search_area
from urbancli.sources._rasters import GDAL_REMOTE, gdal_environment
from urbancli.sources._stac import Catalogue

JUNE = "2023-06-14T05:30:00+00:00"
SECRET = "c2VjcmV0LXNpZ25hdHVyZQ"


@pytest.fixture
def service(
    socket_enabled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    with serving(tmp_path, monkeypatch) as found:
        yield found


# --- what is wrong -----------------------------------------------------------------------------


def test_a_service_that_fails_is_said_so(service: Service, tmp_path: Path) -> None:
    service.failing["/search"] = 503
    service.collections = ["landsat", "naip"]
    with pytest.raises(
        ServiceError, match=r"answers 503.*try the same command again later"
    ) as error:
        naip.Source(service.url).plan(places())
    assert "\n" not in str(error.value)
    with pytest.raises(ServiceError, match="cannot be reached") as error:
        naip.Source(f"http://127.0.0.1:9/?sig={SECRET}").plan(places())
    assert SECRET not in str(error.value)
    del service.failing["/search"]
    image = item("m_1", JUNE, {"image": write_raster(tmp_path / "a.tif", noise(1))}, "naip")
    circle = page_of([image], tmp_path, service.url, 0)
    for page in (b"<html>", {"features": [{"id": "broken"}], "links": []}, circle):
        service.pages = [page]
        with pytest.raises(UrbanError) as error:
            naip.Source(service.url).plan(places())
        assert "\n" not in str(error.value) and service.url in str(error.value)
    assert len(service.searches) > 6  # a body that is no JSON is asked for again
    service.pages = [EMPTY]
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


def test_a_catalogue_may_be_a_collection(tmp_path: Path) -> None:
    write_catalogue(tmp_path, scene(tmp_path, "a", JUNE, noise(12), 4))
    alone = tmp_path / "sentinel-2-l2a" / "collection.json"
    plan = sentinel2.Source(str(alone)).plan(places())
    assert [each["id"] for each in plan["items"]] == ["a"]
    assert plan["items"][0]["assets"]["B02"]["href"] == "../scenes/a/B02.tif"
    with pytest.raises(UsageError, match=r"no collection 'naip': it has sentinel-2-l2a$"):
        naip.Source(str(alone)).plan(places())


def test_a_collection_of_an_api_names_the_api(service: Service) -> None:
    url = service.url
    links = [{"rel": "items", "href": f"{url}/collections/naip/items"},
             {"rel": "root", "href": f"{url}/?sig={SECRET}"}]  # fmt: skip
    service.documents["/collections/naip"] = {"type": "Collection", "id": "naip", "links": links}
    with pytest.raises(UsageError, match=f"'naip' of a STAC API: give the API itself, {url}/$"):
        naip.Source(f"{url}/collections/naip").plan(places())


def test_files_that_no_plan_can_name_are_said(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of([scene(tmp_path, "a", JUNE, noise(12), 4)], tmp_path, service.url)
    hrefs = {
        None: r"item a in .* is broken .*href of an asset",
        f"https://example.com/B02.tif?sig={SECRET}": "signed address or one with a password",
        f"https://user:{SECRET}@example.com/B02.tif": "signed address or one with a password",
        f"file://{tmp_path}/scenes/a/B02.tif": "is no URL",
        "s3://sentinel-s2-l2a/tiles/B02.tif": "the reader pays",
    }
    for href, why in hrefs.items():
        page["features"][0]["assets"]["B02"]["href"] = href
        service.pages = [page]
        with pytest.raises(UrbanError, match=why) as error:
            sentinel2.Source(service.url).plan(places())
        assert "\n" not in str(error.value) and SECRET not in str(error.value)
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    assert sentinel2.Source(service.url).plan(places())["found"] == 1


def test_offline_the_last_answer_of_a_catalogue_is_used(service: Service, tmp_path: Path) -> None:
    service.pages = [page_of([scene(tmp_path, "a", JUNE, noise(12), 4)], tmp_path, service.url)]
    offline = Net(offline=True)
    with pytest.raises(OfflineError, match="offline, and no answer of"):
        sentinel2.Source(service.url, net=offline).plan(places())
    plan = sentinel2.Source(service.url).plan(places())
    asked = len(service.door.settled())
    assert sentinel2.Source(service.url, net=offline).plan(places()) == plan
    with pytest.raises(OfflineError):
        sentinel2.Source(service.url, "2020", net=offline).plan(places())
    assert len(service.door.settled()) == asked


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
    catalogue = Catalogue(str(write_catalogue(tmp_path, *ids)), Net())
    found = catalogue.search("naip", search_area(fiji), (None, None))
    assert [each.item_id for each in found] == ["m_e", "m_w"]


def test_gdal_is_told_only_what_the_user_has_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import rasterio

    # A user's own setting, which GDAL reads from the environment itself.
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
