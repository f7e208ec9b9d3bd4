"""Overture over a loopback bucket: only what touches is read, and what is pinned stays."""

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from tests.world.faults import Faults
from tests.world.files import Files
from tests.world.front import Answer, Door, Request
from tests.world.object_store import Bucket
from tests.world.overture_release import UNWANTED, write_index, write_release
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.layers import entity_view, poi_category
from urbancli.licences import known_licences
from urbancli.net import Manners, Net, OfflineError
from urbancli.sources import overture_buildings, overture_places
from urbancli.sources._overture import search_boxes
from urbancli.sources.overture_places import category_table, osm_tags
from urbancli.workspace import sha256

RELEASE, OLDER = "2026-10-21.10", "2026-10-21.9"
WEST, SOUTH = 8.90, 49.96


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("s3") / "overturemaps"
    rows = write_release(folder / "release", RELEASE, WEST, SOUTH)
    shutil.copytree(folder / "release" / RELEASE, folder / "release" / OLDER)
    (folder / "release" / "2026-11-01-alpha").mkdir()
    return folder, rows


@pytest.fixture
def door(bucket: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, socket_enabled: None) -> Any:
    monkeypatch.setattr("urbancli.net.FIRST_WAIT_S", 0.01)
    with Door() as door:
        url = door.mount("/overturemaps", Bucket(bucket[0], page=3))
        monkeypatch.setenv("URBAN_OVERTURE_URL", f"{url}/release")
        yield door


@pytest.fixture
def net(tmp_path: Path) -> Net:
    return Net(tmp_path / "cache")


def city(west: float = 8.925, south: float = 49.985) -> Places:
    """Of one square of the release, and its halo reaches into the next ones."""
    return tiles_of(shapely.box(west, south, west + 0.01, south + 0.01), Grid(32632))


def table_of(source: Any, places: Places) -> pa.Table:
    tables = [source.read(block) for block in source.blocks(places)]
    return pa.concat_tables(tables)


def near(rows: list[dict[str, Any]], kind: str, places: Places) -> set[str]:
    """The ids whose shapes touch the search boxes, by brute force over all rows."""
    boxes = shapely.union_all([shapely.box(*box) for box in search_boxes(places)])
    shapes = shapely.from_wkb([row["geometry"] for row in rows])
    touches = shapely.intersects(shapes, boxes)
    return {r["id"] for r, t in zip(rows, touches, strict=True) if t and r["type"] == kind}


@pytest.mark.parametrize("module", [overture_places, overture_buildings])
def test_only_the_row_groups_that_touch_are_read(
    bucket: tuple[Path, list[dict[str, Any]]], door: Door, net: Net, tmp_path: Path, module: Any
) -> None:
    source, places = module.Source(net=net, save_in=tmp_path / "in"), city()
    plan = source.plan(places)
    saved = pq.read_table(source.path)
    kind, folder = source.kind.type, bucket[0] / "release" / RELEASE
    brute = near(bucket[1], kind, places)
    assert set(saved.column("id").to_pylist()) == brute
    assert 30 < len(brute) < 16 * 30
    assert plan["release"] == RELEASE, "10 comes after 9"
    assert (plan["files"], plan["row_groups"]) == (3, 9)
    assert plan["inputs"][0]["sha256"] == sha256(source.path)
    assert plan["service"] == f"{door.url}/overturemaps/release"

    # Of the files that the city does not touch only the footer is read, of the others no row group
    # that it does not touch, and no column that nobody wants.
    listed = [each for each in door.log if not each.range]
    assert len(listed) == 1 + 2, "one page of releases, two of files"
    read: set[tuple[int, int]] = set()
    for number, path in enumerate(sorted((folder / source.kind.folder).iterdir())):
        of = [e.range for e in door.log if e.path.endswith(path.name) and e.range]
        ranges = [each for each in of if each[1] < path.stat().st_size - 1]  # but the footer
        footer = pq.ParquetFile(path).metadata
        for group in range(footer.num_row_groups):
            for index in range(footer.num_columns):
                column = footer.row_group(group).column(index)
                start = column.dictionary_page_offset or column.data_page_offset
                if any(first <= start <= last for first, last in ranges):
                    read.add((number, group))
                    assert column.path_in_schema != UNWANTED[kind]
    assert read == {(file, group) for file in range(3) for group in range(3)}
    estimate = source.estimate(places)
    assert estimate.items == 3
    assert estimate.requests == len(door.log)
    assert estimate.bytes == sum(each.sent for each in door.log)


def test_places_speak_as_osm_does(
    bucket: tuple[Path, list[dict[str, Any]]], door: Door, net: Net, tmp_path: Path
) -> None:
    source, places = overture_places.Source(net=net, save_in=tmp_path), city()
    source.plan(places)
    table, facts = table_of(source, places), source.facts(pa.table({}))
    given = {row["id"]: row for row in bucket[1] if row["type"] == "place"}
    brute = {name: given[name] for name in near(bucket[1], "place", places)}
    closed = {n for n, row in brute.items() if row["operating_status"] != "open"}
    lakes = {n for n, r in brute.items() if r["taxonomy"]["primary"] == "lake"} - closed
    kinds = {
        "italian_restaurant": {"amenity": "restaurant", "cuisine": "italian"},
        "tatar_restaurant": {"amenity": "restaurant"},
        "florist": {"shop": "florist"},
        "quantum_bureau": {"office": "company"},
    }
    rows = table.to_pylist()
    for row in rows:
        raw = brute[row["entity_id"].removeprefix("poi/")]
        expected = dict(kinds[raw["taxonomy"]["primary"]])
        if raw["names"]:
            expected["name"] = raw["names"]["primary"]
        if raw["brand"]:
            expected |= {"brand": "Brand", "brand:wikidata": "Q1"}
        if raw["websites"]:
            expected["website"] = raw["websites"][0]
        assert dict(row["tags"]) == expected
        assert row["geometry"] == raw["geometry"]
    assert entity_view(table, "pois").num_rows == table.num_rows
    assert facts["counted"] == len(brute)
    assert facts["closed"] == len(closed) > 0
    assert facts["no_point_of_interest"] == len(lakes) > 0
    assert facts["kept"] + facts["outside"] == len(brute) - len(closed) - len(lakes)
    assert facts["kept"] == len(rows) > facts["halo"] > 0
    told = [each["dataset"] for row in brute.values() for each in row["sources"]]
    assert facts["datasets"] == {name: told.count(name) for name in ("Foursquare", "meta")}
    assert facts["unmapped"] == {"count": 0, "ids": [], "places": 0}
    assert source.licence == "CDLA-Permissive-2.0 AND Apache-2.0"
    assert known_licences(source.licence)
    assert RELEASE in source.attribution and "meta" in source.attribution


def test_what_the_table_does_not_know_is_counted(
    door: Door, net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {n: t for n, t in category_table().items() if n != "services_and_business"}
    monkeypatch.setattr(overture_places, "category_table", lambda: known)
    source, places = overture_places.Source(net=net, save_in=tmp_path), city()
    source.plan(places)
    table = table_of(source, places)
    unmapped = source.facts(pa.table({}))["unmapped"]
    assert unmapped["ids"] == ["quantum_bureau"] and unmapped["places"] > 0
    named = [dict(tags).get("category") for tags in table.column("tags").to_pylist()]
    assert named.count("quantum_bureau") > 0
    assert set(named) == {None, "quantum_bureau"}


def test_the_table_of_categories() -> None:
    """Every row begins with a kind or is no point of interest; what is most frequent is there."""
    table = category_table()
    assert len(table) > 900
    no_kind = {name for name, tags in table.items() if poi_category(tags) is None}
    for name, tags in table.items():
        kind = poi_category(tags)
        assert kind is None or kind == "=".join(next(iter(tags.items()))), name
        assert all(key and value for key, value in tags.items()), name
    assert {"lake", "river", "mountain", "airport", "train_station", "apartment"} <= no_kind
    assert len(no_kind) < 50
    frequent = (
        "restaurant professional_service beauty_salon shopping hotel historic_site grocery_store "
        "clothing_store automotive_repair christian_place_of_worship social_or_community_service "
        "party_and_event_planning real_estate_service cafe school bar hair_salon spa coffee_shop "
        "real_estate_agent health_care gas_station auto_dealer gym government_office pharmacy bank "
        "bakery dental_clinic park hospital convenience_store furniture_store education atm "
        "elementary_school fast_food_restaurant pizza_restaurant religious_organization barber "
        "flowers_and_gifts_store travel_service bank_or_credit_union college_university "
        "doctors_office japanese_restaurant building_or_construction_service lodging supermarket"
    )
    assert set(frequent.split()) <= table.keys()
    assert osm_tags(["unheard_of", "sushi_restaurant"]) == {
        "amenity": "restaurant", "cuisine": "sushi"
    }  # fmt: skip
    assert osm_tags(["unheard_of"]) is None and osm_tags([]) is None


def test_buildings_speak_as_osm_does(
    bucket: tuple[Path, list[dict[str, Any]]], door: Door, net: Net, tmp_path: Path
) -> None:
    source, places = overture_buildings.Source(net=net, save_in=tmp_path), city()
    source.plan(places)
    given = {row["id"]: row for row in bucket[1] if row["type"] == "building"}
    table = table_of(source, places)
    seen = set()
    for row in table.to_pylist():
        raw = given[row["entity_id"].removeprefix("building/")]
        kinds = {"house": "house", "library": "public"}
        broad = {"residential": "residential", "agricultural": "farm_auxiliary", None: "yes"}
        expected = {"building": kinds.get(raw["class"]) or broad[raw["subtype"]]}
        expected["roof:shape"] = "gabled"
        if raw["names"]:
            expected["name"] = "Hall"
        if raw["num_floors"]:
            expected["building:levels"] = str(raw["num_floors"])
            expected["height"] = {1: "3.5", 2: "7", 3: "10.5"}[raw["num_floors"]]
        if raw["is_underground"]:
            expected["location"] = "underground"
        assert dict(row["tags"]) == expected
        seen.add(expected["building"])
    assert seen == {"house", "public", "residential", "farm_auxiliary", "yes"}
    assert entity_view(table, "buildings").num_rows == table.num_rows
    facts = source.facts(pa.table({}))
    assert facts["kept"] + facts["outside"] == facts["counted"]
    assert facts["with_levels"] == facts["with_height"] > 0


def test_a_pinned_plan_needs_no_network(door: Door, net: Net, tmp_path: Path) -> None:
    source, places = overture_places.Source(net=net, save_in=tmp_path), city()
    plan, table = source.plan(places), table_of(source, places)
    before = len(door.log)
    offline = Net(tmp_path / "cache", offline=True)
    again = overture_places.Source(net=offline, save_in=tmp_path)
    again.take(plan, places)
    assert table_of(again, places) == table
    assert again.estimate(places).requests == again.estimate(places).bytes == 0
    assert again.asked() == source.asked()
    assert again.plan(places) == plan, "the newest that was saved"
    assert len(door.log) == before
    with pytest.raises(OfflineError, match="offline, and no answer"):
        again.plan(city(8.935, 49.985))
    source.path.unlink()
    with pytest.raises(OfflineError, match="offline"):
        overture_places.Source(net=offline, save_in=tmp_path).take(plan, places)
    online = overture_places.Source(net=net, save_in=tmp_path)
    online.take(plan, places)
    assert table_of(online, places) == table, "the pinned release is read again"
    assert sha256(online.path) == plan["inputs"][0]["sha256"]


def test_a_release_is_named_or_gone(
    bucket: tuple[Path, Any], door: Door, net: Net, tmp_path: Path
) -> None:
    places = city()
    older = overture_places.Source(net=net, save_in=tmp_path, release=OLDER)
    assert older.plan(places)["release"] == OLDER
    assert older.asked() != overture_places.Source(net=net, save_in=tmp_path).asked()
    gone = overture_places.Source(net=net, save_in=tmp_path, release="2026-01-21.0")
    with pytest.raises(UrbanError, match=f"2026-01-21.0.*there are: {OLDER}, {RELEASE}"):
        gone.plan(places)
    plan = {"release": "2026-01-21.0", "inputs": [{"sha256": "0"}]}
    with pytest.raises(UrbanError, match=r"no place of release '2026-01-21\.0'"):
        overture_places.Source(net=net, save_in=tmp_path).take(plan, places)


def test_what_is_not_what_it_was_is_refused(door: Door, net: Net, tmp_path: Path) -> None:
    source, places = overture_places.Source(net=net, save_in=tmp_path), city()
    plan = source.plan(places)
    plan["inputs"][0]["sha256"] = "0" * 64
    with pytest.raises(UrbanError, match=r"is not what lock\.json pins"):
        source.take(plan, places)


@pytest.mark.parametrize("form", ["folder", "s3"])
def test_other_stores_give_the_same(
    bucket: tuple[Path, Any],
    door: Door,
    net: Net,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    places = city()
    source = overture_places.Source(net=net, save_in=tmp_path / "a")
    source.plan(places)
    override = f"?endpoint_override={door.url[7:]}&scheme=http"
    url = {"folder": str(bucket[0] / "release"), "s3": f"s3://overturemaps/release{override}"}
    monkeypatch.setenv("URBAN_OVERTURE_URL", url[form])
    other = overture_places.Source(net=net, save_in=tmp_path / "b")
    plan = other.plan(places)
    assert table_of(other, places) == table_of(source, places)
    assert str(tmp_path) not in str(plan)
    assert (other.asked() is None) == (form == "folder")
    again = overture_places.Source(net=net, save_in=tmp_path / "b")
    assert again.plan(places) == plan


class Stall:
    """Answers nothing of a file but its end, until the test is over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.over = threading.Event()

    def spoil(
        self, service: str, request: Request, answer: Callable[[], Answer]
    ) -> tuple[Answer, str]:
        asked = request.headers.get("range", "")
        end = asked.endswith(f"-{self._path.stat().st_size - 1}")
        if request.path.endswith(self._path.name) and asked and not end:
            self.over.wait(20)
        return answer(), ""


def test_a_killed_read_goes_on(
    bucket: tuple[Path, Any], door: Door, net: Net, tmp_path: Path
) -> None:
    whole, places = overture_places.Source(net=net, save_in=tmp_path / "a"), city()
    whole.plan(places)
    files = sorted((bucket[0] / "release" / RELEASE / "theme=places/type=place").iterdir())
    door.spoiler = stall = Stall(files[1])
    script = (
        "import pathlib, shapely; from urbancli.grid import *; "
        "from urbancli.sources import overture_places as o; "
        f"o.Source(save_in=pathlib.Path({str(tmp_path / 'b')!r})).plan("
        "tiles_of(shapely.box(8.925, 49.985, 8.935, 49.995), Grid(32632)))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        for _ in range(1000):
            done = list((tmp_path / "b").rglob("*.parquet"))
            if len(done) == 6 or process.poll() is not None:
                break
            time.sleep(0.02)
        process.kill()
    stall.over.set()
    door.spoiler = None
    assert len(done) == 6, "of nine row groups"
    before = len(door.log)
    again = overture_places.Source(net=net, save_in=tmp_path / "b")
    again.plan(places)
    size = {path.name: path.stat().st_size for path in files}
    names = [(e.path.rpartition("/")[2], e.range) for e in door.log[before:] if e.range]
    assert {n for n, (_, last) in names if last < size[n] - 1} == {files[1].name}
    assert sha256(again.path) == sha256(whole.path)
    assert [path.name for path in (tmp_path / "b").iterdir()] == [again.path.name]


def test_the_index_spares_footers(door: Door, net: Net, tmp_path: Path) -> None:
    places = city()
    plain = overture_places.Source(net=net, save_in=tmp_path / "a")
    plain.plan(places)
    folder = f"{RELEASE}/theme=places/type=place"
    boxes = {
        f"{folder}/part-{n:05d}-c000.zstd.parquet": [
            WEST + n * 0.02, SOUTH, WEST + (n + 1) * 0.02, SOUTH + 0.08,
        ]
        for n in range(4)
    }  # fmt: skip
    boxes |= {key.replace("place", "building"): [0.0, 0.0, 1.0, 1.0] for key in boxes}
    write_index(tmp_path / f"stac/{RELEASE}/collections.parquet", boxes)
    stac = door.mount("/stac", Files(tmp_path / "stac"))
    before = len(door.log)
    indexed = overture_places.Source(net=net, save_in=tmp_path / "b", index=stac)
    indexed.plan(places)
    assert sha256(indexed.path) == sha256(plain.path)
    far = [e for e in door.log[before:] if "part-00003" in e.path]
    assert not far and [e for e in door.log[:before] if "part-00003" in e.path]
    # Without the index it costs more, and gives the same.
    (tmp_path / f"stac/{RELEASE}/collections.parquet").unlink()
    lost = overture_places.Source(net=net, save_in=tmp_path / "c", index=stac)
    lost.plan(places)
    assert sha256(lost.path) == sha256(plain.path)


def test_faults_change_nothing(
    door: Door, net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = city()
    source = overture_places.Source(net=net, save_in=tmp_path / "a")
    source.plan(places)
    manners = Manners(attempts=12, answer_s=0.2, pause_s=0.01)
    monkeypatch.setattr("urbancli.sources._objects.MANNERS", manners)
    done: Counter[str] = Counter()
    for seed in range(3):
        door.spoiler = faults = Faults(seed=seed, share=0.3, late_s=0.3)
        spoilt = overture_places.Source(net=net, save_in=tmp_path / f"b{seed}")
        spoilt.plan(places)
        assert sha256(spoilt.path) == sha256(source.path)
        done.update(kind for _, kind in faults.done.elements())
    assert len(done) == 5 and done["wrong content"] > 1


class Refuse:
    """Lists what nobody may read."""

    def spoil(
        self, service: str, request: Request, answer: Callable[[], Answer]
    ) -> tuple[Answer, str]:
        return (Answer(403) if request.path.endswith(".parquet") else answer()), ""


def test_a_refusal_is_one_line(door: Door, net: Net, tmp_path: Path) -> None:
    door.spoiler = Refuse()
    with pytest.raises(ServiceError, match=r"parquet answers 403: try") as raised:
        overture_places.Source(net=net, save_in=tmp_path).plan(city())
    assert "\n" not in str(raised.value)


def test_what_a_user_can_mend(
    bucket: tuple[Path, Any],
    door: Door,
    net: Net,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def source(**more: Any) -> overture_places.Source:
        return overture_places.Source(net=net, save_in=tmp_path / "in", **more)

    with pytest.raises(UrbanError, match=r"no place in the city"):
        source().plan(city(8.0, 49.0))
    folder = tmp_path / "broken"
    shutil.copytree(bucket[0] / "release" / RELEASE, folder / RELEASE)
    path = sorted((folder / RELEASE / "theme=places/type=place").iterdir())[1]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    monkeypatch.setenv("URBAN_OVERTURE_URL", str(folder))
    with pytest.raises(UrbanError, match=r"part-00001.*is not a whole Parquet file"):
        source().plan(city())
    pq.write_table(pa.table({"name": ["x"]}), path)
    with pytest.raises(UrbanError, match="has no column id and geometry"):
        source().plan(city())
    monkeypatch.setenv("URBAN_OVERTURE_URL", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no folder"):
        source()
    monkeypatch.setenv("URBAN_OVERTURE_URL", str(tmp_path))
    with pytest.raises(UrbanError, match="has no releases"):
        source().plan(city())
    for url, said in {
        "ftp://x/y": "is no store",
        "https://me:secret@host/bucket": "holds a user",
        "https://host": "names no bucket",
    }.items():
        monkeypatch.setenv("URBAN_OVERTURE_URL", url)
        with pytest.raises(UsageError, match=said) as raised:
            source()
        assert "secret" not in str(raised.value)
    monkeypatch.setenv("URBAN_OVERTURE_URL", f"{door.url}/nothing/release")
    with pytest.raises(ServiceError, match="answers 404"):
        source().plan(city())
