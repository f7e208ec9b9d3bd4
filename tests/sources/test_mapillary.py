"""Mapillary over loopback: what is pinned, what is read when, and where the token never is."""

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image

from tests.world.faults import Faults
from tests.world.front import Door
from tests.world.mapillary import SIGNED, TOKEN, Mapillary, photo, picture
from urbancli.city import City, box_area
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.fetching import fetch
from urbancli.grid import Grid, Places, tiles_of
from urbancli.net import Manners, Net, OfflineError
from urbancli.sources import mapillary
from urbancli.sources._streetview import STREETVIEW_SCHEMA
from urbancli.workspace import Workspace, geometries, read_table

GRID = Grid(32632)
CITY = City("test", box_area((8.9, 49.96, 8.93, 49.98)), 32632, "bbox")


@pytest.fixture
def service() -> Mapillary:
    generator = np.random.default_rng(3)
    spots = generator.uniform((8.89, 49.95), (8.94, 49.99), (600, 2))
    photos = [photo(n, lon, lat) for n, (lon, lat) in enumerate(spots.tolist())]
    return Mapillary({each["id"]: each for each in photos})


@pytest.fixture
def door(
    service: Mapillary, monkeypatch: pytest.MonkeyPatch, socket_enabled: None
) -> Iterator[Door]:
    monkeypatch.setattr("urbancli.net.FIRST_WAIT_S", 0.001)  # the attempts stay, the waits do not
    with Door() as door:
        service.url = door.mount("/mapillary", service)
        monkeypatch.setenv("URBAN_MAPILLARY_URL", service.url)
        monkeypatch.setenv("MAPILLARY_TOKEN", TOKEN)
        yield door


@pytest.fixture
def net(tmp_path: Path) -> Net:
    return Net(tmp_path / "cache")


@pytest.fixture(scope="module")
def places() -> Places:
    return tiles_of(CITY.area, GRID)


def pinned(plan: dict[str, Any]) -> dict[str, list[str]]:
    return {place: [row[0] for row in rows] for place, rows in plan["tiles"].items()}


def test_a_layer_of_photos(door: Door, service: Mapillary, net: Net, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    source = mapillary.Source(net=net, per_tile=2)
    fetch(workspace, CITY, [source], [])
    path = workspace.layer_file("test", "streetview")
    table, facts = read_table(path)
    assert table.schema.remove_metadata() == STREETVIEW_SCHEMA
    rows = table.to_pylist()
    tiles = tiles_of(CITY.area, GRID)
    count: dict[str, int] = {}
    for row, point in zip(rows, geometries(table), strict=True):
        given = service.photos[row["photo_id"]]
        lon, lat = given["computed_geometry"]["coordinates"]
        assert (row["lon"], row["lat"]) == (round(lon, 7), round(lat, 7))
        assert point.equals(shapely.Point(row["lon"], row["lat"]))
        cell = GRID.tile_at(*GRID.project(lon, lat))[0]
        assert row["place_id"] == GRID.tile_id(*cell.tolist())
        assert row["block"] == GRID.block_of(*cell.tolist()).block_id
        assert row["image"] == picture(int(row["photo_id"][-6:]))
        assert (row["width"], row["height"]) == Image.open(io.BytesIO(row["image"])).size
        assert row["heading"] == given["computed_compass_angle"]
        assert row["captured"][:4] in {"2020", "2021", "2022"}
        assert row["creator"] == given["creator"]["username"]
        assert row["licence"] == "CC-BY-SA-4.0"
        count[row["place_id"]] = count.get(row["place_id"], 0) + 1
    by_tile: dict[str, int] = {}
    for given in service.photos.values():
        cell = GRID.tile_at(*GRID.project(*given["geometry"]["coordinates"]))[0]
        name = GRID.tile_id(*cell.tolist())
        by_tile[name] = by_tile.get(name, 0) + 1
    inside = {place: by_tile[place] for place in tiles.place_id if place in by_tile}
    assert count == {place: min(2, number) for place, number in inside.items()}
    assert facts["left_out"] == sum(inside.values()) - len(rows) > 0
    assert facts["photos"] == facts["with_heading"] == len(rows)
    assert facts["gone"]["count"] == facts["crowded"] == 0
    assert facts["tiles_with_any"] == len(inside) <= facts["tiles"] == len(tiles)
    # Neither token nor signature is in any file, nor did the token go into any address.
    for each in [p for p in tmp_path.rglob("*") if p.is_file()]:
        assert TOKEN.encode() not in each.read_bytes()
        assert SIGNED.encode() not in each.read_bytes()
    assert TOKEN.encode() not in pickle.dumps(source) and TOKEN not in repr(vars(source))


def test_the_file_is_geoparquet_with_row_groups_of_one_block(
    door: Door, net: Net, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "w")
    fetch(workspace, CITY, [mapillary.Source(net=net, per_tile=1)], [])
    file = pq.ParquetFile(workspace.layer_file("test", "streetview"))
    geo = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]
    assert geo["geometry_types"] == ["Point"]
    groups = [file.read_row_group(g, ["block"])[0] for g in range(file.num_row_groups)]
    blocks = [set(group.to_pylist()) for group in groups]
    assert all(len(each) == 1 for each in blocks) and len(blocks) > 1


def test_a_plan_is_asked_for_once(door: Door, net: Net, places: Places) -> None:
    source = mapillary.Source(net=net)
    plan = json.loads(json.dumps(source.plan(places)))
    again = mapillary.Source(net=net)
    before = len(door.settled())
    again.take(plan, places)
    assert len(door.settled()) == before
    assert source.asked() == again.asked()
    estimate = again.estimate(places)
    assert estimate.requests == 2 * estimate.items == 2 * sum(map(len, plan["tiles"].values()))
    blocks = source.blocks(places)
    copy = pickle.loads(pickle.dumps(again))
    assert copy.read(blocks[0]) == source.read(blocks[0])


def test_a_full_box_is_split(
    door: Door, service: Mapillary, net: Net, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mapillary.Source(net=net).plan(places)
    asked = service.asked["images"]
    service.limit = 20
    monkeypatch.setattr(mapillary, "LIMIT", 20)  # Mapillary's own is 2,000 photos an answer
    split = mapillary.Source(net=net).plan(places)
    assert service.asked["images"] - asked > 2 * asked
    assert pinned(split) == pinned(whole)
    assert split["crowded"] == 0
    service.limit, service.heavy = 2000, 60
    monkeypatch.setattr(mapillary, "LIMIT", 2000)
    monkeypatch.setattr(mapillary, "MANNERS", Manners(attempts=2))
    assert pinned(mapillary.Source(net=net).plan(places)) == pinned(whole)


def test_a_crowd_is_told(
    door: Door, service: Mapillary, net: Net, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    lon, lat = places.lonlat()
    for number in range(700, 730):
        each = photo(number, lon[5], lat[5])
        service.photos[each["id"]] = each
    service.limit = 20
    monkeypatch.setattr(mapillary, "LIMIT", 20)
    assert mapillary.Source(net=net).plan(places)["crowded"] >= 1


def test_an_expired_address_is_asked_for_again_and_a_deleted_photo_is_gone(
    door: Door, service: Mapillary, net: Net, places: Places
) -> None:
    source = mapillary.Source(net=net, per_tile=1)
    plan = source.plan(places)
    names = sorted(name for names in pinned(plan).values() for name in names)
    whole = [source.read(block) for block in source.blocks(places)]
    service.asked.clear()
    service.stale = set(names[:3])
    assert [source.read(block) for block in source.blocks(places)] == whole
    assert [service.asked[name] for name in names[:4]] == [2, 2, 2, 1]
    service.deleted = {names[7]}
    tables = [source.read(block) for block in source.blocks(places)]
    there = {name for table in tables for name in table.column("photo_id").to_pylist()}
    assert there == set(names) - {names[7]}
    rows = [table.drop_columns(["image", "geometry"]) for table in tables]
    assert source.facts(pa.concat_tables(rows))["gone"] == {"count": 1, "ids": [names[7]]}


def test_half_a_photo_is_no_photo(door: Door, service: Mapillary, net: Net, places: Places) -> None:
    source = mapillary.Source(net=net)
    names = [name for names in pinned(source.plan(places)).values() for name in names]
    service.broken = {names[0]}
    with pytest.raises(ServiceError, match="no whole JPEG") as raised:
        [source.read(block) for block in source.blocks(places)]
    assert SIGNED not in str(raised.value)


def test_faults_change_nothing(
    door: Door, net: Net, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapillary, "MANNERS", Manners(attempts=12, answer_s=0.1, pause_s=0.01))
    source = mapillary.Source(net=net)
    plan = source.plan(places)
    rows = [source.read(block) for block in source.blocks(places)[:3]]
    faults = Faults(seed=4, share=0.2, late_s=0.2)
    door.spoiler = faults
    spoilt = mapillary.Source(net=net)
    assert spoilt.plan(places) == plan
    assert [spoilt.read(block) for block in spoilt.blocks(places)[:3]] == rows
    assert faults.done.total() > 20 and len(faults.done) == 5


def test_what_a_user_can_mend(
    door: Door, service: Mapillary, net: Net, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mapillary.Source(net=net)
    plan = source.plan(places)
    monkeypatch.delenv("MAPILLARY_TOKEN")
    before = len(door.settled())
    with pytest.raises(UsageError, match="set MAPILLARY_TOKEN"):
        source.plan(places)
    monkeypatch.setenv("MAPILLARY_TOKEN", "MLY|1|se\ncret")
    with pytest.raises(UsageError, match="set it anew") as raised:
        source.plan(places)
    assert "cret" not in str(raised.value)
    assert len(door.settled()) == before
    monkeypatch.setenv("MAPILLARY_TOKEN", "MLY|1|wrong")
    with pytest.raises(UrbanError, match="refuses the token") as raised:
        source.plan(places)
    assert "wrong" not in str(raised.value)
    # A token that has run out since is no reason to take all photos for gone.
    with pytest.raises(UrbanError, match="refuses the token"):
        [source.read(block) for block in source.blocks(places)]
    monkeypatch.setenv("MAPILLARY_TOKEN", TOKEN)
    offline = mapillary.Source(net=Net(offline=True))
    with pytest.raises(OfflineError, match="offline"):
        offline.plan(places)
    offline.take(plan, places)
    with pytest.raises(OfflineError, match="offline"):
        [offline.read(block) for block in offline.blocks(places)]
    service.photos.clear()
    with pytest.raises(UrbanError, match="no photo in"):
        source.plan(places)
