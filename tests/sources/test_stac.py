"""STAC services and catalogues: paging, static ones over HTTP, recorded answers of real ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from stac_scenes import HALO, fetched, halo_pixels, noise, places, scene, write_catalogue
from stac_service import (
    CONFORMS,
    SORTS,
    Service,
    page_of,
    places_at,
    recorded,
    recorded_pages,
    serving,
)

from urbancli.errors import UsageError
from urbancli.sources import naip, sentinel2

JUNE = "2023-06-14T05:30:00+00:00"
SECRET = "c2VjcmV0LXNpZ25hdHVyZQ"


@pytest.fixture
def service(
    socket_enabled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    with serving(tmp_path, monkeypatch) as found:
        yield found


# --- services ----------------------------------------------------------------------------------


def test_one_search_is_paged_to_its_end(service: Service, tmp_path: Path) -> None:
    scenes = [
        scene(tmp_path, f"s{n}", f"2023-06-{n + 1:02}T05:30:00Z", noise(12, n), 4) for n in range(3)
    ]
    service.pages = [
        page_of([scenes[2], scenes[0]], tmp_path, service.url, 1),
        page_of([scenes[1], scenes[0]], tmp_path, service.url, 2),  # one of them twice
        page_of([], tmp_path, service.url),
    ]
    plan = sentinel2.Source(service.url, "2023-06", "2023").plan(places())
    assert [each["id"] for each in plan["items"]] == ["s0", "s1", "s2"]
    first = service.searches[0]
    assert len(service.searches) == 3
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
    service.pages = [page_of([each], tmp_path, service.url, n + 1) for n, each in enumerate(scenes)]
    service.pages.append(page_of([], tmp_path, service.url))
    whole = sentinel2.Source(service.url).plan(places())
    assert len(service.searches) == 5 and "sortby" not in service.searches[0]
    service.conforms = [*CONFORMS, SORTS]
    service.searches.clear()
    plan = sentinel2.Source(service.url).plan(places())
    assert service.searches[0]["sortby"] == [{"field": "properties.datetime", "direction": "desc"}]
    assert len(service.searches) == 3
    assert plan["items"] == whole["items"]
    assert sorted(each["id"] for each in plan["items"]) == ["s0", "s1"]


def test_rasters_are_read_over_http(service: Service, tmp_path: Path) -> None:
    dn = noise(12)
    service.pages = [page_of([scene(tmp_path, "a", JUNE, dn, 4)], tmp_path, service.url)]
    samples, valid = halo_pixels(fetched(tmp_path, sentinel2.Source(service.url))[0])
    np.testing.assert_array_equal(samples, dn[:, HALO, HALO] - 1000)
    assert valid.all()


def test_a_static_catalogue_is_read_over_http(service: Service, tmp_path: Path) -> None:
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


# --- recorded answers --------------------------------------------------------------------------


def _replay(provider: Path, names: tuple[str, ...], service: Service) -> list[Any]:
    """Answer as a provider did: its landing page, its collections, the pages of a search.

    Returns:
        The items of all pages.
    """
    service.documents = {
        "/": recorded(provider / "landing.json", service),
        "/collections": recorded(provider / "collections.json", service),
    }
    service.pages = recorded_pages([provider / f"search_{name}.json" for name in names], service)
    return [each for page in service.pages for each in page["features"]]


def _seen(items: list[Any], lon: float, lat: float) -> set[str]:
    """Return the ids of the items whose geometry holds a point."""
    here = shapely.Point(lon, lat)
    shapes = {each["id"]: shapely.geometry.shape(each["geometry"]) for each in items}
    return {name for name, shape in shapes.items() if shape.intersects(here)}


@pytest.mark.parametrize(
    "names",
    [
        ("naip_bbox_page_1", "naip_bbox_page_2"),
        ("naip_page_1", "naip_page_2", "naip_page_3"),
        ("naip_bbox_datetime",),
        ("naip_bbox_old_token",),
        ("naip_ids",),
        ("naip_intersects",),
        ("naip_limit_1",),
        ("naip_query_gsd_eq",),
        ("naip_query_gsd_range",),
    ],
)
def test_planetary_computers_naip_searches_are_planned(
    service: Service, real_data: Path, names: tuple[str, ...]
) -> None:
    items = _replay(real_data / "stac" / "planetary_computer", names, service)
    of_id = {each["id"]: each for each in items}
    for first in (items[0], items[-1]):
        lon, lat = shapely.geometry.shape(first["geometry"]).representative_point().coords[0]
        service.searches.clear()
        plan = naip.Source(service.url).plan(places_at(lon, lat, 0.003))
        newest = max(of_id[name]["properties"]["naip:year"] for name in _seen(items, lon, lat))
        assert plan["years"] == [int(newest)] and plan["found"] >= len(_seen(items, lon, lat))
        # Its last page names one more in most answers, which here is empty.
        assert len(names) <= len(service.searches) <= len(names) + 1
        for each in plan["items"]:
            said = of_id[each["id"]]
            assert each["year"] == int(said["properties"]["naip:year"])
            assert each["native_m"] == said["properties"]["gsd"]
            assert each["proj:code"] == f"EPSG:{said['properties']['proj:epsg']}"
            assert each["assets"] == {"image": {"href": said["assets"]["image"]["href"]}}
        expected = {
            n for n in _seen(items, lon, lat) if of_id[n]["properties"]["naip:year"] == newest
        }
        assert {each["id"] for each in plan["items"]} >= expected
        assert plan["pixel_m"] == max(0.6, round(300 / round(300 / min(
            each["native_m"] for each in plan["items"])), 9))  # fmt: skip


def test_planetary_computers_sentinel_scenes_are_planned(service: Service, real_data: Path) -> None:
    items = _replay(real_data / "stac" / "planetary_computer", ("sentinel_2_datetime",), service)
    for each in (items[0], items[len(items) // 2], items[-1]):
        lon, lat = shapely.geometry.shape(each["geometry"]).representative_point().coords[0]
        plan = sentinel2.Source(service.url).plan(places_at(lon, lat, 0.005))
        assert {item["id"] for item in plan["items"]} >= _seen(items, lon, lat)
        for item in plan["items"]:
            assert (item["baseline"], item["offset"]) == ("02.12", 0)
            assert item["offset_rule"] == "s2:processing_baseline"
            assert item["assets"]["B8A"]["href"].endswith("_B8A_20m.tif")
            assert item["assets"]["SCL"]["href"].endswith("_SCL_20m.tif")


@pytest.mark.parametrize(
    ("names", "collection", "taken", "rule"),
    [
        (("two_collections",), "sentinel-2-l2a", 0, "earthsearch:boa_offset_applied"),
        (("cql2_page_1", "cql2_page_2"), "sentinel-2-l2a", 0, "earthsearch:boa_offset_applied"),
        (("cql2_page_1", "cql2_page_2"), "sentinel-2-c1-l2a", 1000, "raster:bands"),
    ],
)
def test_earth_searchs_sentinel_scenes_are_planned(
    service: Service, real_data: Path, names: tuple[str, ...], collection: str, taken: int,
    rule: str,
) -> None:  # fmt: skip
    """Both collections say an offset of -0.1 in `raster:bands`; in one it is in the numbers."""
    items = _replay(real_data / "stac" / "earth_search", names, service)
    of_it = [each for each in items if each["collection"] == collection]
    assert len(of_it) in {1, 6}
    for each in of_it:
        lon, lat = shapely.geometry.shape(each["geometry"]).representative_point().coords[0]
        source = sentinel2.Source(service.url, collection=collection)
        plan = source.plan(places_at(lon, lat, 0.005))
        assert {item["id"] for item in plan["items"]} >= _seen(of_it, lon, lat)
        for item in plan["items"]:
            assert (item["offset"], item["offset_rule"]) == (taken, rule)
            files = {
                name: asset["href"].rsplit("/", 1)[1] for name, asset in item["assets"].items()
            }
            assert files == {name: f"{name}.tif" for name in (*sentinel2.ASSETS, "SCL")}


def test_a_collection_that_is_not_there_is_told_with_those_that_are(
    service: Service, real_data: Path
) -> None:
    for provider, known in (("planetary_computer", "3dep-seamless"), ("earth_search", "naip")):
        _replay(real_data / "stac" / provider, (), service)
        with pytest.raises(UsageError, match=f"no collection 'nowhere': it has .*{known}") as error:
            naip.Source(service.url, collection="nowhere").plan(places_at(-73.2, 44.02))
        assert "\n" not in str(error.value)


def test_a_real_series_of_scenes_is_capped_at_its_clearest(
    service: Service, real_data: Path
) -> None:
    path = real_data / "stac" / "documents" / "sentinel_2_items_35MNM.geojson"
    service.pages = [recorded(path, service)]
    series = service.pages[0]["features"]
    lon, lat = shapely.geometry.shape(series[0]["geometry"]).centroid.coords[0]
    plan = sentinel2.Source(service.url, dates=5).plan(places_at(lon, lat))
    clearest = sorted(series, key=lambda each: each["properties"]["eo:cloud_cover"])[:5]
    assert [each["id"] for each in plan["items"]] == [each["id"] for each in clearest]
    assert plan["found"] == len(series) == 13
