"""Overpass, from a server on loopback: pieces, errors, going on, manners; osmnx is the oracle."""

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import osmnx  # keeps the `getaddrinfo` it finds: here, before sockets are blocked
import pyarrow as pa
import pytest
import shapely

from tests.world.overpass import BUSY_PAGE, TIMED_OUT, Fault, OverpassServer, remark
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.layers import entity_view, poi_category
from urbancli.net import BusyError, Manners, Net, OfflineError
from urbancli.sources import osm
from urbancli.sources._osm_file import AREA_RELATIONS, read_entities
from urbancli.sources._overpass_merge import WAYS_AT_MOST, merge
from urbancli.sources._overpass_query import TooMuchError, boxes, check_answer
from urbancli.sources.overpass import Source, area_km2, overpass_manners

GRID = Grid(32632, 600)
TOWN = (10.0, 50.0, 10.2, 50.09)
FAST = Manners(attempts=3, at_once=1, pause_s=0.02, busy=frozenset({429, 504}), alone=True)
NEVER = "http://127.0.0.1:9/api/interpreter"


def _town(path: Path) -> Path:
    """Write a file of some thousand elements within and around `TOWN`."""
    rng = np.random.default_rng(3)
    low, high = np.array(TOWN[:2]) - 0.05, np.array(TOWN[2:]) + 0.05
    corners = rng.uniform(low, high, (900, 2))
    nodes = {index + 1: tuple(place) for index, place in enumerate(corners)}
    tags: dict[int, str] = dict.fromkeys(range(1, 300), '<tag k="amenity" v="cafe"/>')
    tags[5] = '<tag k="shop" v="fish &amp; chips"/><tag k="name" v="Ä"/>'
    nodes[5] = (10.1, 50.05)
    ways: dict[int, tuple[list[int], str]] = {}
    for way in range(1, 201):  # long ways, across pieces
        refs = rng.integers(300, 900, int(rng.integers(2, 5))).tolist()
        ways[way] = (refs, '<tag k="highway" v="residential"/>')
    for way in range(201, 401):  # houses
        first = 1000 + 4 * way
        x, y = rng.uniform(low, high)
        nodes |= {first: (x, y), first + 1: (x + 1e-4, y), first + 2: (x, y + 1e-4)}
        ways[way] = ([first, first + 1, first + 2, first], '<tag k="building" v="yes"/>')
    # An area with one side in the town, three far away; a country; a route, and its line.
    nodes |= {4001: (10.1, 49.9), 4002: (10.1, 50.4), 4003: (12.0, 50.4), 4004: (12.0, 49.9)}
    for way, pair in enumerate([(4001, 4002), (4002, 4003), (4003, 4004), (4004, 4001)], 501):
        ways[way] = (list(pair), '<tag k="boundary" v="administrative"/>')
    turn = np.linspace(0, 2 * np.pi, WAYS_AT_MOST + 20)
    ring = {5000 + n: (10.15 + 5 * np.sin(a), 55.03 - 5 * np.cos(a)) for n, a in enumerate(turn)}
    nodes |= ring
    for n in range(len(ring)):
        ways[5000 + n] = ([5000 + n, 5000 + (n + 1) % len(ring)], "")
    area = '<tag k="type" v="multipolygon"/><tag k="landuse" v="forest"/>'
    relations = {
        1: ([("way", w, "outer") for w in range(501, 505)], area),
        2: ([("way", w, "outer") for w in ring], '<tag k="type" v="boundary"/>'),
        3: ([("way", 1, ""), ("way", 5400, "")], '<tag k="type" v="route"/>'),
        4: ([("relation", 3, "")], '<tag k="type" v="route_master"/>'),
        5: ([("relation", 1, "subarea")], '<tag k="type" v="boundary"/>'),
    }
    lines = ['<osm version="0.6">']
    for n in sorted(nodes):
        x, y = nodes[n]
        lines.append(f'<node id="{n}" lat="{y:.7f}" lon="{x:.7f}">{tags.get(n, "")}</node>')
    for w in sorted(ways):
        refs = "".join(f'<nd ref="{ref}"/>' for ref in ways[w][0])
        lines.append(f'<way id="{w}">{refs}{ways[w][1]}</way>')
    for r, (members, more) in relations.items():
        listed = "".join(f'<member type="{k}" ref="{i}" role="{o}"/>' for k, i, o in members)
        lines.append(f'<relation id="{r}">{listed}{more}</relation>')
    path.write_text("\n".join([*lines, "</osm>\n"]))
    return path


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _town(tmp_path_factory.mktemp("town") / "town.osm")


@pytest.fixture(scope="module")
def places() -> Places:
    return tiles_of(shapely.box(*TOWN), GRID)


@pytest.fixture
def server(town: Path, socket_enabled: None) -> Iterator[OverpassServer]:
    with OverpassServer(town) as started:
        yield started


def _source(server: OverpassServer, folder: Path, **more: Any) -> Source:
    net = more.pop("net", None) or Net(cache=folder / "cache")
    given = {"url": server.url, "manners": FAST, **more}
    return Source(save_in=folder / "inputs", net=net, **given)


def _rows(source: Any, places: Places) -> dict[str, dict[str, Any]]:
    table = pa.concat_tables([source.read(block) for block in source.blocks(places)])
    return {row["entity_id"]: row for row in table.to_pylist()}


def _saved(folder: Path) -> Path:
    (found,) = (folder / "inputs").glob("overpass-*.osm.gz")
    return found


def test_a_city_in_pieces_is_the_same_as_from_the_file(
    server: OverpassServer, town: Path, places: Places, tmp_path: Path
) -> None:
    source = _source(server, tmp_path)
    expected = source.estimate(places)
    assert not server.queries, "an estimate asks nobody"
    plan = source.plan(places)
    assert len(boxes(places)) >= 6 and expected.requests == len(server.queries)
    ours, local = _rows(source, places), osm.Source(town)
    local.plan(places)
    theirs = _rows(local, places)
    # The country is left out: it lacks more than a thousand ways.
    assert theirs.keys() - ours.keys() == {"relation/2"}
    assert ours.keys() <= theirs.keys()
    assert len(ours) > 400 and {"relation/1", "relation/3", "relation/4"} <= ours.keys()
    partial = {"relation/3", "relation/4"}  # routes keep what lies in the area
    assert all(ours[i] == theirs[i] for i in ours.keys() - partial)
    assert all(ours[i]["members"] == theirs[i]["members"] for i in partial)

    facts = source.facts(source.schema.empty_table())
    assert facts["left_out"] == {"count": 1, "ids": ["relation/2"]}
    assert set(facts["incomplete"]["ids"]) == partial
    assert facts["counted"] == facts["kept"] + facts["outside"] + sum(
        each["count"] for each in facts["broken"].values()
    )
    assert plan["osm_base"] == ["2024-05-06T07:08:09Z"] * 2 and plan["member_ways"] == 3
    assert len(plan["pieces"]) == len(server.queries)
    assert set(server.agents) == {server.agents[0]} and server.agents[0].startswith("urban/")
    assert not server.polled and server.most_at_once == 1
    assert [p.name for p in (tmp_path / "inputs").iterdir() if p.is_dir()] == []


def test_the_saved_file_has_each_element_once_and_sorted_and_always_the_same_bytes(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    first = _source(server, tmp_path / "a").plan(places)
    server.largest = 0.0015  # every box is cut, most of them twice
    second = _source(server, tmp_path / "b").plan(places)
    assert first["inputs"] == second["inputs"]
    assert len(second["pieces"]) > 3 * len(first["pieces"])
    path = _saved(tmp_path / "a")
    assert path.read_bytes()[4:8] == bytes(4), "no time stamp in the header"
    order = [("nwr".index(e.type_str()), e.id) for e in osmium.FileProcessor(str(path))]
    assert order == sorted(set(order))


def test_pois_are_a_view_of_the_answer(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    source = _source(server, tmp_path)
    source.plan(places)
    table = pa.concat_tables([source.read(block) for block in source.blocks(places)])
    tags = [dict(row) for row in entity_view(table, "pois").column("tags").to_pylist()]
    found = {poi_category(each) for each in tags}
    assert found == {"amenity=cafe", "shop=fish & chips"} and len(tags) > 100


# --- what goes wrong --------------------------------------------------------------------------


def test_the_recorded_time_out_is_an_error(real_data: Path) -> None:
    with pytest.raises(TooMuchError, match="timed out"):
        check_answer((real_data / "overpass/timeout_remark.json").read_bytes())


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (TIMED_OUT.body, TooMuchError),
        (remark("runtime error: Query run out of memory using about 512 MB of RAM.").body,
         TooMuchError),
        (remark("runtime error: open64: Probably too busy.").body, BusyError),
        (remark("runtime error: something new").body, ValueError),
        (BUSY_PAGE, BusyError),
        ("<html><body>Welcome to the hotel</body></html>", ValueError),
        ('{"version": 0.6, "elements": []}', ValueError),
        ("", ValueError),
        ('<?xml version="1.0"?><osm version="0.6"><node id="1"', ValueError),
        ('<?xml version="1.0"?><osm version="0.6"><way id="1"></nd></osm>', ValueError),
    ],
)  # fmt: skip
def test_no_answer(body: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        check_answer(body.encode())
    assert type(caught.value) is error or error is ValueError


def test_answers_that_are_whole() -> None:
    check_answer(remark("runtime remark: Timeout is 180 seconds.").body.encode())
    check_answer(b'<?xml version="1.0"?>\n<osm version="0.6"><tag k="remark" v="x"/></osm>\n')


def test_a_fault_now_and_then_changes_nothing(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    whole = _source(server, tmp_path / "whole").plan(places)
    true = len(server.queries)
    faults = [
        Fault(429, "slow down"), Fault(504, BUSY_PAGE), Fault(200, BUSY_PAGE), Fault(cut=2000),
        remark("runtime error: open64: timeout. Probably too busy."), TIMED_OUT,
    ]  # fmt: skip
    assert len(boxes(places)) >= len(faults)
    server.faults = [each for fault in faults for each in (fault, None)]
    plan = _source(server, tmp_path / "faulty").plan(places)
    assert plan["inputs"] == whole["inputs"]
    # One more for each, and four quarters of what was too much.
    assert len(server.queries) == 2 * true + len(faults) + 3
    assert len(plan["pieces"]) == len(whole["pieces"]) + 3


@pytest.mark.parametrize("fault", [TIMED_OUT, Fault(504), Fault(200, "<html></html>"), Fault(403)])
def test_never_an_empty_city(
    server: OverpassServer, places: Places, tmp_path: Path, fault: Fault
) -> None:
    server.faults = [fault] * 500
    with pytest.raises(ServiceError) as caught:
        _source(server, tmp_path).plan(places)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "inputs").glob("overpass-*"))
    server.faults = []
    assert _source(server, tmp_path).plan(places)["pieces"]


def test_a_question_that_times_out_to_the_end_names_a_file_as_the_way(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    server.largest = 0.0
    with pytest.raises(ServiceError, match=r"time or memory .*--osm FILE"):
        _source(server, tmp_path).plan(places)
    depth = len(server.queries)
    assert depth == 5, "7,200 m are halved four times"
    with pytest.raises(ServiceError):
        _source(server, tmp_path).plan(places)
    assert len(server.queries) == depth + 1, "what was cut is not asked again"


def test_a_server_of_another_region_is_an_error(server: OverpassServer, tmp_path: Path) -> None:
    elsewhere = tiles_of(shapely.box(8.0, 48.0, 8.01, 48.01), GRID)
    with pytest.raises(UrbanError, match="holds nothing in the city"):
        _source(server, tmp_path).plan(elsewhere)
    assert not list((tmp_path / "inputs").glob("overpass-*"))


def test_a_box_that_gets_no_answer_is_cut_once(
    server: OverpassServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urbancli.net.FIRST_WAIT_S", 0.01)
    place = tiles_of(shapely.box(10.115, 50.055, 10.12, 50.06), GRID)
    whole = _source(server, tmp_path / "whole").plan(place)
    (box,) = boxes(place)
    size = (box.north - box.south) * (box.east - box.west)
    server.largest, server.too_large = size / 3, Fault(504, "gateway time-out")
    plan = _source(server, tmp_path / "cut").plan(place)
    assert plan["inputs"] == whole["inputs"]
    assert len(plan["pieces"]) == len(whole["pieces"]) + 3
    server.largest, server.queries = size / 5, []
    with pytest.raises(ServiceError, match="answers 504"):
        _source(server, tmp_path / "none").plan(place)
    assert len(server.queries) == 2 * FAST.attempts, "a server that is down is not cut to bits"


# --- going on ---------------------------------------------------------------------------------


def test_a_stopped_fetch_asks_only_for_what_it_lacks(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    whole = _source(server, tmp_path / "whole").plan(places)
    total = len(server.queries)
    server.queries.clear()

    def stop(what: str, done: int, of: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    source = _source(server, tmp_path / "stopped")
    source.progress = stop
    with pytest.raises(KeyboardInterrupt):
        source.plan(places)
    assert len(server.queries) == 4
    plan = _source(server, tmp_path / "stopped").plan(places)
    assert plan == whole and len(server.queries) == total


def test_a_saved_answer_is_not_asked_for_again(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    plan = _source(server, tmp_path).plan(places)
    asked = len(server.queries)
    offline = _source(server, tmp_path, net=Net(cache=tmp_path, offline=True))
    assert offline.plan(places) == plan and offline.estimate(places).requests == 0
    later = _source(server, tmp_path)
    later.take(plan, places)
    assert len(_rows(later, places)) > 400 and later.facts(later.schema.empty_table())["osm_base"]
    assert len(server.queries) == asked
    assert _source(server, tmp_path, refresh=True).plan(places) == plan
    assert len(server.queries) == 2 * asked
    with pytest.raises(OfflineError):
        _source(server, tmp_path / "b", net=Net(cache=tmp_path, offline=True)).plan(places)


def test_a_pinned_answer_that_is_gone_is_asked_for_again_and_must_be_the_same(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    plan = _source(server, tmp_path).plan(places)
    _saved(tmp_path).unlink()
    moved = _source(server, tmp_path)
    moved.take(plan, places)
    asked = len(server.queries)
    assert _rows(moved, places) and len(server.queries) > asked

    damaged = _saved(tmp_path)
    damaged.write_bytes(b"damaged")
    server.data.tags["node"][5]["shop"] = "closed"
    moved = _source(server, tmp_path)
    moved.take(plan, places)
    with pytest.raises(UrbanError, match=r"overpass-.* as of 2024-.* --refresh"):
        moved.blocks(places)
    server.data.tags["node"][5]["shop"] = "fish & chips"


def test_of_answers_of_two_times_the_newer_counts(tmp_path: Path) -> None:
    def piece(name: str, base: str, *nodes: str) -> Path:
        text = f'<osm version="0.6"><meta osm_base="{base}"/>{"".join(nodes)}</osm>'
        source = tmp_path / f"{name}.osm.gz"
        import gzip

        source.write_bytes(gzip.compress(text.encode()))
        return source

    def node(n: int, value: str) -> str:
        return f'<node id="{n}" lat="50" lon="10"><tag k="shop" v="{value}"/></node>'

    pieces = [piece(f"z{n}", f"2024-01-{n:02}", node(1, f"of {n}"), node(n, "own"))
              for n in range(2, 20)]  # more than are open at once  # fmt: skip
    pieces.insert(3, piece("a", "2024-02-01", node(1, "newest"), node(30, "own")))
    assert merge(pieces, tmp_path / "all.osm.gz") == 20
    again = tmp_path / "again.osm.gz"
    merge(pieces[::-1], again)
    assert again.read_bytes() == (tmp_path / "all.osm.gz").read_bytes()
    entities, _ = read_entities(again)
    assert dict(zip(entities.entity_id, entities.tags, strict=True))["node/1"] == {"shop": "newest"}


# --- manners ----------------------------------------------------------------------------------


def _plan_of(url: str, folder: Path, cache: Path) -> None:
    places = tiles_of(shapely.box(*TOWN), GRID)
    Source(save_in=folder, net=Net(cache=cache), url=url, manners=FAST).plan(places)


def test_one_at_a_time_over_processes(server: OverpassServer, tmp_path: Path) -> None:
    server.delay_s = 0.03
    context = multiprocessing.get_context("forkserver")
    others = [
        context.Process(target=_plan_of, args=(server.url, tmp_path / str(n), tmp_path / "cache"))
        for n in range(2)
    ]
    for process in others:
        process.start()
    for process in others:
        process.join()
    assert [process.exitcode for process in others] == [0, 0]
    assert len(server.queries) > 12 and server.most_at_once == 1


def test_public_servers_have_a_budget_and_their_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_OVERPASS_PAUSE_S", "0.5")
    for url in ("https://overpass-api.de/api/interpreter", "https://lz4.overpass-api.de/api/x"):
        manners = overpass_manners(url)
        assert manners.daily is not None and manners.daily.requests <= 10_000
        assert manners.daily.bytes <= 1e9 and "--osm FILE" in manners.daily.remedy
        assert manners.pause_s >= 30 and manners.alone and {429, 504} <= manners.busy
    own = overpass_manners("https://notoverpass-api.de/api/interpreter")
    assert own.daily is None and own.pause_s == 0.5 and own.alone
    monkeypatch.setenv("URBAN_OVERPASS_PAUSE_S", "soon")
    with pytest.raises(UsageError, match="URBAN_OVERPASS_PAUSE_S='soon'"):
        overpass_manners(NEVER)


def test_a_country_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    country = tiles_of(shapely.box(9.0, 49.5, 10.5, 50.6), Grid(32632, 1200))
    source = Source(save_in=tmp_path, net=Net(cache=tmp_path), url="https://overpass-api.de/api/x")
    with pytest.raises(UrbanError, match=r"km² are too much .*--osm FILE.*URBAN_OVERPASS_URL"):
        source.plan(country)


def test_no_key_of_the_server_is_kept(
    server: OverpassServer, places: Places, tmp_path: Path
) -> None:
    url = server.url.replace("//", "//me:pass@") + "?key=hidden"
    source = _source(server, tmp_path, url=url)
    plan = source.plan(places)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in ("hidden", "pass@"):
        assert secret not in str(plan) + str(source.asked())
        assert not any(secret.encode() in body for body in kept)


def test_boxes_cover_tiles_and_halo_also_across_the_antimeridian() -> None:
    for area in (
        shapely.box(*TOWN),
        shapely.union(
            shapely.box(179.9, -16.9, 180, -16.8), shapely.box(-180, -16.9, -179.9, -16.8)
        ),
    ):
        grid = GRID if area.bounds[0] > 0 else Grid(32760)
        places = tiles_of(area, grid)
        found = boxes(places)
        cover = shapely.union_all([shapely.box(b.west, b.south, b.east, b.north) for b in found])
        cells = grid.halo(places.cells, 1130.0)
        lon, lat = grid.unproject(*((cells + 0.5) * grid.tile_m).T)
        assert shapely.covers(cover, shapely.points((lon + 180) % 360 - 180, lat)).all()
        assert all(b.west < b.east and b.east - b.west < 1 for b in found)
        assert area_km2(places) == len(cells) * grid.tile_m**2 / 1e6


# --- the oracle -------------------------------------------------------------------------------

KEYS = ("building", "highway", "amenity", "shop", "landuse", "natural", "boundary", "railway")


@pytest.mark.parametrize("name", ["town", "osm/monaco.osm.pbf", "osm/berlin.osm.gz"])
def test_entities_are_those_of_osmnx_one_by_one(
    request: pytest.FixtureRequest, name: str, tmp_path: Path, socket_enabled: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Type, id and geometry, asked of the same server for the same box.

    Where definitions differ: osmnx knows areas among relations only; and it puts the rings of a
    relation together by the members' roles, where osmium goes by their geometry and refuses
    relations that lack a way or whose rings do not close (those are counted as `broken`). Ours
    also holds what encloses the box, where a border of it lies in the halo: not compared.
    """

    path = request.getfixturevalue("town" if name == "town" else "real_data")
    box = (10.1, 50.02, 10.13, 50.04)
    if name != "town":
        path = path / name
        box = (7.415, 43.732, 7.425, 43.74) if "monaco" in name else (13.33, 52.51, 13.36, 52.52)
    grid = Grid(32633 if "berlin" in name else 32632)
    places = tiles_of(shapely.box(*box), grid)
    area = shapely.box(*box)
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)  # osmnx puts its own there
    for setting, value in {
        "use_cache": False, "overpass_rate_limit": False, "doh_url_template": None,
    }.items():  # fmt: skip
        monkeypatch.setattr(osmnx.settings, setting, value)
    with OverpassServer(path) as server:
        monkeypatch.setattr(osmnx.settings, "overpass_url", server.root)
        frame = osmnx.features_from_bbox(area.bounds, dict.fromkeys(KEYS, True))
        source = _source(server, tmp_path)
        source.plan(places)
    entities, facts = read_entities(_saved(tmp_path))
    theirs = {f"{kind}/{osm_id}": shape for (kind, osm_id), shape in frame.geometry.items()}
    ours = {
        entity: shape
        for entity, tags, shape in zip(
            entities.entity_id, entities.tags, entities.geometry, strict=True
        )
        if set(KEYS) & tags.keys()
        and (entity[0] != "r" or tags.get("type") in AREA_RELATIONS)
        and shapely.intersects(shapely.boundary(shape) if shape.area else shape, area)
    }
    broken = {entity for each in facts["broken"].values() for entity in each["ids"]}
    assert ours.keys() - theirs.keys() == set()
    assert theirs.keys() - ours.keys() <= broken
    assert len(ours) > (50 if name == "town" else 400)
    differ = [i for i in ours if not shapely.equals(ours[i], theirs[i])]
    assert differ == []
    assert all(ours[i].geom_type == theirs[i].geom_type for i in ours)


def test_threads_of_one_process_also_take_turns(server: OverpassServer, tmp_path: Path) -> None:
    server.delay_s = 0.02
    nets = [Net(cache=tmp_path / "cache") for _ in range(2)]
    query = b"data=%5Bout%3Axml%5D%3Bnode%28id%3A1%29%3Bout%3B"

    def ask(net: Net) -> None:
        for _ in range(3):
            net.ask("POST", server.url, body=query, manners=FAST, check=check_answer)

    threads = [threading.Thread(target=ask, args=(net,)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.queries) == 6 and server.most_at_once == 1
