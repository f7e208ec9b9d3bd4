"""The test world is a true one: over it `urban fetch` brings what it brings from the same files."""

import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

import shapely

from tests.world.content import files_of, leaks, rows_of
from tests.world.files import MARK
from tests.world.front import Door, forward
from tests.world.shared import calm_fetch, calm_world
from tests.world.stac_api import moved_catalogue, stac_api
from tests.world.world import FILES, GEOCODER, STAC, STORAGE, TOKENS, World, cache_of
from urbancli.grid import Grid, tiles_of
from urbancli.net import Net
from urbancli.sources import naip, sentinel2


def test_a_fetch_over_services_is_one_from_files(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    live, local = calm_fetch(demo_inputs), tmp_path / "local"
    world = calm_world(demo_inputs)
    catalogue = demo_inputs / "catalogue"
    files = ["--stac", f"sentinel2={catalogue}", "--stac", f"naip={catalogue}"]
    done = world.urban(local, *world.fetch(*files, "--osm", demo_inputs / "map.osm.pbf"))
    assert done.returncode == 0, done.stderr
    assert rows_of(live.workspace, "town") == rows_of(local, "town")
    assert set(rows_of(local, "town")) == {"sentinel2", "naip", "entities"}
    assert world.door.log == [] and live.read > 1e6
    assert leaks(live.workspace, cache_of(live.workspace)) == []
    again = tmp_path / "live"
    shutil.copytree(live.workspace, again)
    done = world.urban(again, *world.fetch("--offline"))
    assert done.returncode == 0, done.stderr
    assert files_of(again) == live.files and world.door.log == []


def test_a_city_is_found_by_its_name(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    world = calm_world(demo_inputs)
    done = world.urban(tmp_path, "fetch", "--city", world.city, "--layer", "naip", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert len(world.door.of(GEOCODER)) == 1
    assert [each.path for each in world.door.of(STAC)].count("/search") >= 1
    assert world.door.of(STORAGE) == [] and not (tmp_path / "data/lemuria-town/layers").exists()


def test_a_real_server_is_paged(demo_inputs: Path, tmp_path: Path, socket_enabled: None) -> None:
    catalogue = demo_inputs / "catalogue/catalog.json"
    files = moved_catalogue(catalogue, tmp_path, lambda path: f"http://127.0.0.1:9/{path.name}")
    items = json.loads(files[-1].read_text())
    scene = next(item for item in items["features"] if item["collection"] == "sentinel-2-l2a")
    times = [f"2020-{n % 12 + 1:02}-{n % 28 + 1:02}T{n // 400:02}:00:00Z" for n in range(1100)]
    items["features"] = [
        {**scene, "id": f"s{n}", "properties": {**scene["properties"], "datetime": time}}
        for n, time in enumerate(times)
    ]
    files[-1].write_text(json.dumps(items))
    with Door() as door:
        with stac_api(files, door.url) as url:
            door.mount(STAC, forward(url))
            places = tiles_of(shapely.box(-41.15, 44.96, -41.14, 44.97), Grid(32624))
            plan = sentinel2.Source(door.url, net=Net(tmp_path / "cache")).plan(places)
        assert [each.path for each in door.of(STAC)].count("/search") == 2
    assert plan["found"] == 1100


def test_a_real_server_of_recorded_items_is_planned(
    real_data: Path, tmp_path: Path, socket_enabled: None
) -> None:
    recorded = real_data / "stac/planetary_computer/search_naip_intersects.json"
    body = json.loads(recorded.read_text())
    features = body.get("body", body)["features"]
    for each in features:
        each["links"] = []
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    with (
        Door() as door,
        stac_api([tmp_path / "items.json"], door.url, "--create-collections") as url,
    ):
        door.mount(STAC, forward(url))
        places = tiles_of(shapely.box(-73.2, 44.02, -73.19, 44.03), Grid(32618))
        plan = naip.Source(door.url, net=Net(tmp_path / "cache")).plan(places)
    assert plan["years"] == [2023] and 0 < len(plan["items"]) < plan["found"] <= len(features)
    assert "sig=" not in json.dumps(plan)


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
