"""The test world is a true one: over it `urban fetch` brings what it brings from the same files."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world.content import files_of, leaks, rows_of
from tests.world.files import MARK
from tests.world.world import FILES, GEOCODER, OVERPASS, STAC, STORAGE, TOKENS, World, cache_of


@pytest.fixture
def world(demo_inputs: Path, socket_enabled: None) -> Iterator[World]:
    with World(demo_inputs) as opened:
        yield opened


def test_a_fetch_over_services_is_one_from_files(world: World, tmp_path: Path) -> None:
    live, local = tmp_path / "live", tmp_path / "local"
    done = world.urban(live, *world.fetch())
    assert done.returncode == 0, done.stderr
    catalogue = world.inputs / "catalogue"
    files = ["--stac", f"sentinel2={catalogue}", "--stac", f"naip={catalogue}"]
    done = world.urban(local, *world.fetch(*files, "--osm", world.inputs / "map.osm.pbf"))
    assert done.returncode == 0, done.stderr
    assert rows_of(live, "town") == rows_of(local, "town")
    assert set(rows_of(live, "town")) == {"sentinel2", "naip", "entities"}
    reads = [each for each in world.door.of(STORAGE) if each.method == "GET"]
    assert reads and all(each.status == 206 for each in reads), "windowed reads only"
    searches = [each for each in world.door.of(STAC) if each.path == "/search"]
    assert len(searches) >= 2 and world.signatures.issued >= 1
    assert leaks(live, cache_of(live)) == []
    asked = len(world.door.log)
    before = files_of(live)
    done = world.urban(live, *world.fetch("--offline"))
    assert done.returncode == 0, done.stderr
    assert files_of(live) == before and len(world.door.log) == asked


def test_a_city_is_found_by_its_name(world: World, tmp_path: Path) -> None:
    done = world.urban(tmp_path / "w", "fetch", "--city", world.city, "--layer", "entities")
    assert done.returncode == 0, done.stderr
    assert len(world.door.of(GEOCODER)) == 1
    assert [each.status for each in world.door.of(OVERPASS)].count(200) >= 1
    assert (tmp_path / "w/data/lemuria-town/layers/entities.parquet").is_file()


# --- the world itself --------------------------------------------------------------------------


def test_storage_wants_a_signature_that_has_not_expired(
    demo_inputs: Path, socket_enabled: None
) -> None:
    blob = f"http://account{STORAGE}/demo/pois.csv"
    whole = (demo_inputs / "pois.csv").read_bytes()
    with World(demo_inputs, lifetime_s=2) as world:
        assert _asked(world, blob)[0] == 403
        token = _token(world)
        assert MARK in token
        assert _asked(world, f"{blob}?{token}") == (200, whole)
        assert _asked(world, f"{blob}?{token}", "bytes=10-19") == (206, whole[10:20])
        assert _asked(world, f"http://account{STORAGE}/other/pois.csv?{token}")[0] == 403
        assert _asked(world, f"{world.door.url}{FILES}/../{demo_inputs.name}/absent")[0] == 404
        time.sleep(2.5)
        assert _asked(world, f"{blob}?{token}")[0] == 403
        assert _asked(world, f"{blob}?{_token(world)}")[0] == 200
    assert [each.range for each in world.door.of(STORAGE)][2] == (10, 19)
    assert not any(MARK in each.path for each in world.door.log)


def _token(world: World) -> str:
    return str(json.loads(_asked(world, f"{world.door.url}{TOKENS}/account/demo")[1])["token"])


def _asked(world: World, url: str, range_: str = "") -> tuple[int, bytes]:
    """Return status and body of a GET through the world's door."""
    proxies = {"http": world.door.url} if "windows.net" in url else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    headers = {"Range": range_} if range_ else {}
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read()
