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

from tests.world.faults import Faults
from tests.world.files import Files
from tests.world.front import Answer, Door, Request
from tests.world.object_store import Bucket
from tests.world.overture_release import (
    RELEASE,
    SOUTH,
    UNWANTED,
    WEST,
    city,
    near,
    table_of,
    write_index,
    write_release,
)
from urbancli.city import City, box_area
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.fetching import fetch
from urbancli.net import Manners, Net, OfflineError
from urbancli.sources import overture_buildings, overture_places
from urbancli.workspace import Workspace, sha256

OLDER = "2026-10-21.9"


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


def test_an_estimate_reads_footers_only(door: Door, net: Net, tmp_path: Path) -> None:
    places = city()
    told = overture_places.Source(net=net, save_in=tmp_path / "a").estimate(places)
    asked = len(door.settled())
    footers = sum(each.sent for each in door.log if each.range)
    assert told.items == 3
    assert not (tmp_path / "a").exists()
    overture_places.Source(net=net, save_in=tmp_path / "b").plan(places)
    # What reading asks beyond what the estimate asked for, which it asks for too.
    read = sum(each.sent for each in door.log[asked:] if each.range) - footers
    assert told.bytes == pytest.approx(read, rel=0.25), "holes between columns are read too"
    assert told.requests == pytest.approx(len(door.settled()) - 2 * asked, rel=0.5)


def test_a_pinned_plan_needs_no_network(door: Door, net: Net, tmp_path: Path) -> None:
    source, places = overture_places.Source(net=net, save_in=tmp_path), city()
    plan, table = source.plan(places), table_of(source, places)
    before = len(door.settled())
    offline = Net(tmp_path / "cache", offline=True)
    again = overture_places.Source(net=offline, save_in=tmp_path)
    again.take(plan, places)
    assert table_of(again, places) == table
    assert again.estimate(places).requests == again.estimate(places).bytes == 0
    assert again.asked() == source.asked()
    assert again.plan(places) == plan, "the newest that was saved"
    assert len(door.settled()) == before
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
    before = len(door.settled())
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
    before = len(door.settled())
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
    with pytest.raises(ServiceError, match=r"parquet answers 403: check") as raised:
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


@pytest.mark.parametrize("module", [overture_places, overture_buildings])
def test_the_engine_asks_once(door: Door, net: Net, tmp_path: Path, module: Any) -> None:
    workspace = Workspace(tmp_path / "w")
    box = (8.925, 49.985, 8.935, 49.995)
    where = City("town", box_area(box), 32632, "bbox")
    layer = module.Source.layer

    def run() -> str:
        source = module.Source(net=net, save_in=workspace.inputs_dir("town"))
        fetch(workspace, where, [source], [])
        return sha256(workspace.layer_file("town", layer))

    first, asked = run(), len(door.settled())
    assert run() == first and len(door.settled()) == asked, "the plan of lock.json is taken"
    workspace.layer_file("town", layer).unlink()
    assert run() == first and len(door.settled()) == asked + 1, "of what was saved, the newest"
    lock = workspace.lock_file("town").read_text()
    assert RELEASE in lock and str(tmp_path) not in lock
