"""Rasters of a catalogue on a server: signatures, faults, offline, other processes, requests."""

import json
import logging
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stac_scenes import (
    HALO,
    PX,
    fetched,
    halo_pixels,
    item,
    noise,
    places,
    scene,
    write_catalogue,
    write_raster,
)
from stac_service import STORAGE, Service, page_of, serving

from tests.world.faults import Faults
from tests.world.files import MARK, Files
from tests.world.front import Answer, Request
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.net import Manners, Net, OfflineError
from urbancli.sources import _rasters, _signing, naip, sentinel1, sentinel2
from urbancli.sources._items import Asset
from urbancli.workers import FIRST_PAUSE_S

JUNE, JULY = "2023-06-14T05:30:00+00:00", "2023-07-14T05:30:00+00:00"
COG = {"driver": "COG", "compress": "deflate", "blocksize": 128, "overviews": "none"}


@pytest.fixture
def service(
    socket_enabled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    with serving(tmp_path, monkeypatch) as found:
        yield found


def _signed_scene(service: Service, folder: Path) -> tuple[Any, str]:
    """Serve one Sentinel-2 scene in signed storage; return its numbers, and where it lies."""
    dn, blob = noise(12), service.blob()
    service.pages = [page_of([scene(folder, "a", JUNE, dn, 4, profile=COG)], folder, blob)]
    return dn, blob


def _tables(source: Any) -> list[Any]:
    return [source.read(block) for block in source.blocks(places())]


# --- signatures --------------------------------------------------------------------------------


def test_blob_storage_is_read_signed_and_pinned_unsigned(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dn, blob = _signed_scene(service, tmp_path)
    for asset in service.pages[0]["features"][0]["assets"].values():
        asset["href"] += "?se=2001&sig=stale"  # signed by whoever wrote the item, long ago
    source = sentinel2.Source(service.url)
    with caplog.at_level(logging.DEBUG):
        samples, valid = halo_pixels(fetched(tmp_path / "out", source)[0])
    np.testing.assert_array_equal(samples, dn[:, HALO, HALO] - 1000)
    assert valid.all()
    assert {each.status for each in service.door.of(STORAGE)} <= {200, 206}
    assert service.signatures.issued == 1
    plan = source.plan(places())
    assert plan["items"][0]["assets"]["B02"]["href"] == f"{blob}/scenes/a/B02.tif"
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert MARK.encode() not in path.read_bytes() and b"stale" not in path.read_bytes()
    assert MARK not in repr(source.__dict__) and "stale" not in repr(source.__dict__)
    assert MARK not in repr(vars(_rasters.TOKENS)) and MARK.encode() not in pickle.dumps(source)
    assert MARK not in caplog.text and "B02.tif" in caplog.text


def test_a_signature_that_is_about_to_end_is_not_used(service: Service) -> None:
    """It is used until a minute before its end, or half its life; what it says itself counts."""
    href = f"{service.blob()}/a.tif"
    asset = Asset("B02", "a", href, href)
    for lifetime_s, used_s in ((3600.0, 3540.0), (4.0, 2.0)):
        service.signatures.lifetime_s = lifetime_s
        tokens = _signing.Tokens()
        location, until = tokens.sign(asset, Net())
        assert location.startswith(f"{href}?") and MARK in location
        left = until - time.monotonic()
        assert used_s - 2.0 < left <= used_s  # the server cuts its times to whole seconds
        assert tokens.sign(asset, Net()) == (location, until)
    issued = service.signatures.issued
    tokens._found = {
        key: replace(token, until=time.monotonic()) for key, token in tokens._found.items()
    }
    tokens.sign(asset, Net())
    assert service.signatures.issued == issued + 1
    give = service.signatures.tokens

    def long_said(request: Request) -> Answer:
        body = json.loads(give(request).body)
        return Answer(200, json.dumps({**body, "msft:expiry": "2999-01-01T00:00:00Z"}).encode())

    service.door.mount("/token", long_said)
    assert _signing.Tokens().sign(asset, Net())[1] - time.monotonic() <= 2.0


def test_what_the_storage_refuses_is_signed_anew(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dn, _ = _signed_scene(service, tmp_path)
    gone: set[str] = set()
    refuse = service.signatures.refused

    def refused(request: Request, account: str, container: str) -> str:
        # The first token ends at once, as after a change of the storage's key.
        if not gone:
            gone.add(request.query["sig"])
            service.signatures.lifetime_s = 1800.0  # so that the next token is another one
        return "ended" if request.query["sig"] in gone else refuse(request, account, container)

    monkeypatch.setattr(service.signatures, "refused", refused)
    samples, _ = halo_pixels(fetched(tmp_path / "out", sentinel2.Source(service.url))[0])
    np.testing.assert_array_equal(samples, dn[:, HALO, HALO] - 1000)
    assert service.signatures.issued == 2


def test_no_error_holds_a_signature(service: Service, tmp_path: Path) -> None:
    _signed_scene(service, tmp_path)
    (tmp_path / "scenes" / "a" / "SCL.tif").unlink()
    source = sentinel2.Source(service.url)
    source.plan(places())
    block = source.blocks(places())[0]
    with pytest.raises(ServiceError, match="cannot read asset SCL of item a") as error:
        source.read(block)
    assert "\n" not in str(error.value) and MARK not in str(error.value)
    assert error.value.__suppress_context__ and error.value.__cause__ is None
    gets = [each for each in service.door.of(STORAGE) if each.status == 404]
    assert _rasters.BELIEVED <= len(gets) <= 4 * _rasters.BELIEVED
    service.failing["/token"] = 403
    with pytest.raises(
        ServiceError, match=r"cannot get a token .*PC_SDK_SUBSCRIPTION_KEY"
    ) as error:
        source.read(block)
    assert MARK not in str(error.value) and "\n" not in str(error.value)


def test_no_token_is_asked_for_once_by_all_threads(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that want the same one share its failure, but not for longer than an engine waits."""
    _signed_scene(service, tmp_path)
    source = sentinel2.Source(service.url)
    source.plan(places())
    service.failing["/token"] = 503

    def failed(block: Any) -> str:
        with pytest.raises(ServiceError, match="cannot get a token to read asset") as error:
            source.read(block)
        return str(error.value)

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(failed, source.blocks(places()) * 4))
    assert len(service.asked("/token")) == Manners().attempts
    for each in said:
        assert "answers 503" in each and "PC_SDK_SAS_URL" in each and "\n" not in each
    del service.failing["/token"]
    assert _signing.SHARED_S < FIRST_PAUSE_S
    monkeypatch.setattr(_rasters.TOKENS, "_failed", {})  # as after that time
    assert source.read(source.blocks(places())[0]).num_rows


@pytest.mark.parametrize("url", ["foo", "http://", "ftp://127.0.0.1/token"])
def test_an_endpoint_of_tokens_that_is_no_url_is_named(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    _signed_scene(service, tmp_path)
    source = sentinel2.Source(service.url)
    source.plan(places())
    monkeypatch.setenv("PC_SDK_SAS_URL", url)
    _signing._package()[1].get.cache_clear()
    with pytest.raises(UsageError, match="PC_SDK_SAS_URL") as error:
        source.read(source.blocks(places())[0])
    assert "\n" not in str(error.value)


# --- faults ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Files of three sensors, and the items of each."""
    folder = tmp_path_factory.mktemp("files")
    classes = np.where(np.random.default_rng(1).random((PX // 2, PX // 2)) < 0.3, 9, 4)
    scenes = [
        scene(folder, f"s{n}", when, noise(12, n), classes, profile=COG)
        for n, when in enumerate((JUNE, JULY))
    ]
    power = np.random.default_rng(2).gamma(4.4, 0.02, (2, PX, PX)).astype(np.float32)
    radar = {
        band: write_raster(folder / f"radar/{band}.tif", power[[n]], nodata=-32768.0, **COG)
        for n, band in enumerate(("vv", "vh"))
    }
    aerial = np.random.default_rng(3).integers(1, 255, (4, PX, PX)).astype(np.uint8)
    # GDAL tags the fourth band as alpha, as in NAIP's own files: it is read through a VRT.
    image = write_raster(folder / "naip/m.tif", aerial, **COG)
    return folder, {
        "sentinel2": scenes,
        "sentinel1": [item("r", JUNE, radar, "sentinel-1-rtc", sat__orbit_state="ascending")],
        "naip": [item("m", JUNE, {"image": image}, "naip", gsd=10.0, naip__year="2023")],
    }


MODULES = {"sentinel2": sentinel2, "sentinel1": sentinel1, "naip": naip}


@pytest.mark.parametrize(("name", "seeds"), [("sentinel2", 2), ("sentinel1", 6), ("naip", 12)])
def test_a_storm_of_faults_changes_no_byte(
    service: Service, sources: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, name: str, seeds: int,
) -> None:  # fmt: skip
    """A fifth of all requests fails in one of seven ways, read by four threads."""
    folder, items = sources
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "0.4")  # a user's setting: a late answer takes longer
    service.door.mount_host(STORAGE, Files(folder, service.signatures))
    blob = service.blob()
    service.pages = [page_of(items[name], folder, blob)]
    calm = MODULES[name].Source(service.url)
    plan = calm.plan(places())
    expected, done = _tables(calm), 0
    for seed in range(seeds):
        elsewhere = json.loads(json.dumps(plan).replace(blob, service.blob()))
        service.door.spoiler = faults = Faults(seed, 0.2, STORAGE, late_s=0.6)
        again = MODULES[name].Source(service.url)
        again.take(elsewhere, places())
        with ThreadPoolExecutor(4) as pool, caplog.at_level(logging.DEBUG):
            tables = list(pool.map(again.read, again.blocks(places())))
        service.door.spoiler = None
        assert tables == expected
        done += sum(faults.done.values())
    assert done > 5
    assert MARK not in caplog.text


# --- plans -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_pinned_plan_is_read_without_asking_the_catalogue(
    service: Service, sources: tuple[Path, dict[str, Any]], name: str
) -> None:
    """As JSON out of a lock, in another process, by several threads."""
    folder, items = sources
    blob = service.blob()
    service.door.mount_host(STORAGE, Files(folder, service.signatures))
    service.pages = [page_of(items[name], folder, blob)]
    first = MODULES[name].Source(service.url)
    plan = json.loads(json.dumps(first.plan(places())))
    question = first.asked()
    assert question is not None and plan | question == plan
    assert str(folder) not in json.dumps(plan) and MARK not in json.dumps(plan)
    expected = _tables(first)
    before = len(service.door.settled())
    service.pages = []
    again = MODULES[name].Source(service.url)
    assert again.asked() == question
    assert MODULES[name].Source(service.url, since="2020").asked() != question
    again.take(plan, places())
    blocks = again.blocks(places())
    estimate = again.estimate(places())
    assert len(service.door.settled()) == before, "taking a plan opens nothing"
    assert estimate.items == len(items[name]) and estimate.blocks == len(blocks) == 4
    assert estimate.requests > 0 and estimate.bytes > 0
    again = pickle.loads(pickle.dumps(again))
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(again.read, blocks))
    assert tables == expected
    assert again.facts(tables[0]) == first.facts(tables[0])
    assert (again.licence, again.attribution) == (first.licence, first.attribution)
    assert len(service.searches) == 1
    again = pickle.loads(pickle.dumps(again))  # after it has read
    assert again.read(blocks[0]) == expected[0]


def test_a_local_catalogue_is_planned_anew(tmp_path: Path) -> None:
    source = sentinel2.Source(
        str(write_catalogue(tmp_path, scene(tmp_path, "a", JUNE, noise(12), 4)))
    )
    assert source.asked() is None
    source.plan(places())
    estimate = source.estimate(places())
    assert (estimate.items, estimate.requests, estimate.bytes) == (1, 0, 0)


def test_a_plan_that_is_broken_is_said_so(service: Service, tmp_path: Path) -> None:
    _signed_scene(service, tmp_path)
    source = sentinel2.Source(service.url)
    plan = source.plan(places())
    for wrong in (
        {},
        {**plan, "items": [{}]},
        {**plan, "items": [{**plan["items"][0], "footprint": "POINT"}]},
    ):
        with pytest.raises(
            UrbanError, match=r"plan of sentinel2 in the city's lock\.json is broken"
        ):
            source.take(wrong, places())


def test_offline_nothing_is_read_from_elsewhere(service: Service, tmp_path: Path) -> None:
    _signed_scene(service, tmp_path)
    plan = sentinel2.Source(service.url).plan(places())
    source = sentinel2.Source(service.url, net=Net(offline=True))
    source.take(plan, places())
    before = len(service.door.settled())
    with pytest.raises(OfflineError, match="offline, and asset SCL of item a is not here"):
        source.read(source.blocks(places())[0])
    assert len(service.door.settled()) == before


def test_a_file_is_opened_once_for_all_blocks(service: Service, tmp_path: Path) -> None:
    _signed_scene(service, tmp_path)
    source = sentinel2.Source(service.url)
    source.plan(places())
    tables = _tables(source)
    asked = service.door.of(STORAGE)
    assert sum(each.method == "HEAD" for each in asked) == 13
    assert len(asked) <= 3 * 13
    source.facts(tables[0])
    assert len(service.door.of(STORAGE)) == len(asked), "facts follow from the rows"


def test_a_proxy_that_is_dead_is_one_line(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _signed_scene(service, tmp_path)
    source = sentinel2.Source(service.url)
    source.plan(places())
    monkeypatch.setenv("http_proxy", "http://user:password@127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"cannot read asset SCL .* through the proxy") as error:
        source.read(source.blocks(places())[0])
    assert "\n" not in str(error.value) and "password" not in str(error.value)
