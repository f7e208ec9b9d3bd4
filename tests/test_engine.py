"""The engine of a fetch: workers, pinned plans, patience, gaps; a source that fails to order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from urbancli.city import City, box_area
from urbancli.errors import ServiceError, UrbanError
from urbancli.fetching import fetch
from urbancli.grid import BLOCK_TILES, Block, Places
from urbancli.layers import PIXEL_SCHEMA
from urbancli.net import OfflineError
from urbancli.planning import Engine, preview
from urbancli.sources import base, pois
from urbancli.sources._tiles import WantedTiles
from urbancli.workers import Patience, Threads
from urbancli.workspace import Workspace, read_json, read_table, sha256

CITY = City("town", box_area((8.95, 49.95, 9.05, 50.03)), 32632, "bbox")
HASTY = Patience(total_s=0.05, first_pause_s=0.01)


class Service:
    """A service that may fail, and what it was asked."""

    def __init__(self) -> None:
        self.release = 1
        self.searches = 0
        self.reads: list[str] = []
        self.fails: Callable[[str], bool] = lambda block_id: False
        self.error: type[UrbanError] = ServiceError


class Chequered(base.Source):
    """A source of tiny images that a service gives, block by block."""

    layer = "sentinel2"
    schema = PIXEL_SCHEMA
    streamed = True
    licence = "CC0-1.0"
    attribution = "nobody"

    def __init__(self, service: Service) -> None:
        self.service = service
        self._release = 0

    def asked(self) -> dict[str, Any]:
        return {"source": "chequered"}

    def plan(self, places: Places) -> dict[str, Any]:
        self.service.searches += 1
        if self.service.fails("search"):
            raise self.service.error("the service answers 503: try again later")
        plan = {"edition": self.service.release}
        self.take(plan, places)
        return plan

    def take(self, plan: dict[str, Any], places: Places) -> None:
        self._release = plan["edition"]

    def blocks(self, places: Places) -> list[Block]:
        self._tiles = WantedTiles(places.grid, places.cells)
        return self._tiles.blocks

    def read(self, block: Block) -> pa.Table:
        self.service.reads.append(block.block_id)
        if self.service.fails(block.block_id):
            raise self.service.error(f"cannot read {block.block_id}")
        side = 3 * BLOCK_TILES
        samples = np.full((1, side, side), self._release + block.column % 7, dtype=np.uint8)
        return self._tiles.rows(block, samples, np.ones((side, side), dtype=bool))

    def facts(self, tiles: pa.Table) -> dict[str, Any]:
        return {"bands": ["x"], "dtype": "uint8", "pixel_m": 100.0, "native_m": 100.0,
                "rows": tiles.num_rows}  # fmt: skip

    def estimate(self, places: Places) -> base.Estimate:
        count = len(self.blocks(places))
        return base.Estimate(items=1, blocks=count, requests=10 * count, bytes=1000 * count)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def _fetch(workspace: Workspace, service: Service, *more: base.Source, **how: Any) -> Any:
    engine = Engine(**{"workers": Threads(3), "patience": HASTY, **how})
    return fetch(workspace, CITY, [Chequered(service), *more], [], engine)


def _layer(workspace: Workspace) -> Path:
    return workspace.layer_file("town", "sentinel2")


def _points(tmp_path: Path) -> pois.Source:
    path = tmp_path / "points.csv"
    path.write_text("lat,lon,category\n49.99,9.0,cafe\n")
    return pois.Source(path)


def test_how_many_read_changes_no_byte(tmp_path: Path, service: Service) -> None:
    sums = set()
    for count in (1, 7):
        workspace = Workspace(tmp_path / str(count))
        _fetch(workspace, service, workers=Threads(count))
        sums.add((sha256(_layer(workspace)), sha256(workspace.lock_file("town"))))
    assert len(sums) == 1
    assert len(service.reads) == 2 * len(set(service.reads)) > 10


def test_a_block_that_fails_once_is_no_gap(workspace: Workspace, service: Service) -> None:
    seen: set[str] = set()

    def once(block_id: str) -> bool:
        first = block_id not in seen and len(seen) < 2
        seen.add(block_id)
        return first and block_id != "search"

    service.fails = once
    assert _fetch(workspace, service)["gaps"] == []
    assert len(service.reads) == len(set(service.reads)) + 1


def test_a_block_that_never_comes_is_a_gap_that_the_next_fetch_fills(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    whole = Workspace(tmp_path / "whole")
    _fetch(whole, service)
    bad = service.reads[3]
    service.fails = lambda block_id: block_id == bad
    service.reads.clear()
    (gap,) = _fetch(workspace, service, _points(tmp_path))["gaps"]
    total = len(set(service.reads))
    assert gap == {
        "layer": "sentinel2", "missing": f"1 of {total} blocks", "why": f"cannot read {bad}"
    }  # fmt: skip
    assert service.reads.count(bad) == 2
    assert len(service.reads) == total + 1
    assert not _layer(workspace).exists()
    assert "layers/pois.parquet" in read_json(workspace.manifest_file("town"))["files"]

    service.fails = lambda block_id: False
    service.reads.clear()
    assert _fetch(workspace, service)["gaps"] == []
    assert service.reads == [bad]
    assert sha256(_layer(workspace)) == sha256(_layer(whole))
    assert not (workspace.city_dir("town") / ".staging").exists()


def test_gaps_can_be_accepted_and_filled_later(workspace: Workspace, service: Service) -> None:
    _fetch(workspace, service)
    whole, bad = sha256(_layer(workspace)), service.reads[2]
    service.fails = lambda block_id: block_id == bad
    result = _fetch(workspace, service, refresh=True, accept_gaps=True)
    assert result["gaps"] == []  # the same plan: the layer that is there serves
    service.release = 2
    (gap,) = _fetch(workspace, service, refresh=True, accept_gaps=True)["gaps"]
    assert bad in gap["why"]
    facts = read_table(_layer(workspace))[1]
    assert facts["provenance"]["gaps"] == [bad]
    assert bad not in read_table(_layer(workspace))[0].column("block").to_pylist()
    service.reads.clear()
    _fetch(workspace, service, accept_gaps=True)
    assert service.reads == [bad] * len(service.reads) != []
    service.fails = lambda block_id: False
    service.reads.clear()
    assert _fetch(workspace, service)["gaps"] == []
    assert service.reads == [bad]
    service.release = 1
    _fetch(workspace, service, refresh=True)
    assert sha256(_layer(workspace)) == whole


def test_a_service_that_is_down_is_waited_for(workspace: Workspace, service: Service) -> None:
    said: list[str] = []
    state = {"left": 40}

    def down(block_id: str) -> bool:
        state["left"] -= 1
        return block_id != "search" and 0 <= state["left"] < 30

    service.fails = down
    patience = Patience(60.0, 0.001, said.append)
    assert _fetch(workspace, service, patience=patience)["gaps"] == []
    assert said
    assert all("asked again in" in line for line in said)
    assert len(service.reads) > len(set(service.reads))


def test_patience_ends(workspace: Workspace, service: Service) -> None:
    service.fails = lambda block_id: block_id != "search"
    (gap,) = _fetch(workspace, service)["gaps"]
    blocks = len(set(service.reads))
    assert gap["missing"].startswith(gap["missing"].split()[2])  # all of them
    assert len(service.reads) < 6 * 3 * 3  # not each block again and again
    assert blocks <= 3 * 2 * 3


def test_offline_does_not_wait(workspace: Workspace, service: Service) -> None:
    service.error = OfflineError
    service.fails = lambda block_id: block_id != "search"
    said: list[str] = []
    (gap,) = _fetch(workspace, service, patience=Patience(60.0, 30.0, said.append))["gaps"]
    assert gap["layer"] == "sentinel2"
    assert said == []


def test_a_resumed_fetch_goes_on_with_its_plan(workspace: Workspace, service: Service) -> None:
    class Killed(Exception):
        pass

    def kill(what: str, done: int, total: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        _fetch(workspace, service, progress=kill)
    service.release = 2  # the catalogue has a newer scene meanwhile
    reads = len(service.reads)
    _fetch(workspace, service)
    assert service.searches == 1
    assert len(service.reads) == len(set(service.reads)) > reads
    assert read_table(_layer(workspace))[1]["provenance"] == {
        "asked": {"source": "chequered"}, "edition": 1
    }  # fmt: skip
    _fetch(workspace, service)
    assert service.searches == 1
    _fetch(workspace, service, refresh=True)
    assert service.searches == 2
    assert read_table(_layer(workspace))[1]["provenance"]["edition"] == 2


def test_a_gap_leaves_the_layer_that_was_there(workspace: Workspace, service: Service) -> None:
    _fetch(workspace, service)
    before = sha256(_layer(workspace))
    service.release = 2
    service.fails = lambda block_id: block_id == service.reads[0]
    assert _fetch(workspace, service, refresh=True)["gaps"]
    assert sha256(_layer(workspace)) == before
    lock = read_json(workspace.lock_file("town"))
    assert lock["layers"]["sentinel2"]["edition"] == 1
    assert read_json(workspace.manifest_file("town"))["files"]["layers/sentinel2.parquet"][
        "sha256"] == before  # fmt: skip


def test_a_damaged_layer_that_no_service_gives_anew_is_not_kept_as_good(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    _fetch(workspace, service, _points(tmp_path))
    _layer(workspace).write_bytes(_layer(workspace).read_bytes()[:-9])
    service.fails = lambda block_id: True
    result = _fetch(workspace, service, _points(tmp_path))
    assert [gap["missing"] for gap in result["gaps"]] == ["all of it"]
    assert any("could not be made anew: removed" in note for note in result["notes"])
    assert list(result["layers"]) == ["pois"]
    assert "layers/sentinel2.parquet" not in read_json(workspace.manifest_file("town"))["files"]


def test_nothing_at_all_is_the_services_error(workspace: Workspace, service: Service) -> None:
    service.fails = lambda block_id: True
    with pytest.raises(ServiceError, match="503"):
        _fetch(workspace, service)
    assert not workspace.city_dir("town").exists()


def test_an_optional_layer_without_data_is_a_note(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    service.error = UrbanError
    service.fails = lambda block_id: block_id == "search"
    result = _fetch(workspace, service, _points(tmp_path), optional=frozenset({"sentinel2"}))
    assert result["gaps"] == []
    assert result["notes"] == ["sentinel2 is left out: the service answers 503: try again later"]


def test_a_layer_that_a_service_does_not_have_stops_no_other(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    service.error = UrbanError
    service.fails = lambda block_id: block_id == "search"
    with pytest.raises(UrbanError, match="503"):
        _fetch(workspace, service)
    assert service.searches == 1
    result = _fetch(workspace, service, _points(tmp_path))
    assert [gap["layer"] for gap in result["gaps"]] == ["sentinel2"]
    assert list(result["layers"]) == ["pois"]
    assert service.searches == 2, "what is not there is not asked for again"


def test_a_service_that_answers_late_is_asked_again_when_all_else_is_done(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    service.fails = lambda block_id: block_id == "search" and service.searches < 3
    said: list[str] = []
    patience = Patience(1.0, 0.001, said.append)
    result = _fetch(workspace, service, _points(tmp_path), patience=patience)
    assert result["gaps"] == []
    assert set(result["layers"]) == {"sentinel2", "pois"}
    assert len(said) == 2
    assert "asked again in" in said[0]


def test_staged_files_that_are_not_whole_are_read_again(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    whole = Workspace(tmp_path / "whole")
    _fetch(whole, service)
    bad = service.reads[3]
    service.fails = lambda block_id: block_id == bad
    _fetch(workspace, service)
    staged = sorted(workspace.city_dir("town").glob(".staging/*/*.parquet"))
    staged[0].write_bytes(staged[0].read_bytes()[:-7])
    (plan,) = workspace.city_dir("town").glob(".staging/*/plan.json")
    plan.write_text(plan.read_text()[:-9])
    service.fails = lambda block_id: False
    service.reads.clear()
    assert _fetch(workspace, service)["gaps"] == []
    assert sorted(service.reads) == sorted([bad, staged[0].stem])
    assert sha256(_layer(workspace)) == sha256(_layer(whole))


def test_a_preview_reads_and_writes_nothing(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    source = Chequered(service)
    first = preview(workspace, CITY, [source, _points(tmp_path)], Engine())
    assert service.reads == []
    assert not workspace.city_dir("town").exists()
    cost = first["layers"]["sentinel2"]
    assert cost["requests"] == 10 * cost["blocks"] > 0 == cost["done"]
    assert first["layers"]["pois"]["requests"] == 0

    service.fails = lambda block_id: bool(service.reads) and block_id == service.reads[0]
    _fetch(workspace, service)
    later = preview(workspace, CITY, [source], Engine())["layers"]["sentinel2"]
    assert later["done"] == cost["blocks"] - 1
    assert later["bytes"] == 1000
    service.fails = lambda block_id: False
    _fetch(workspace, service)
    ended = preview(workspace, CITY, [source], Engine())["layers"]["sentinel2"]
    assert ended["done"] == cost["blocks"]
    assert ended["requests"] == 0


def test_what_came_from_elsewhere_is_kept_where_nothing_was_asked_for(
    workspace: Workspace, service: Service, tmp_path: Path
) -> None:
    _fetch(workspace, service)
    before, service.release = sha256(_layer(workspace)), 2

    class Otherwise(Chequered):
        def asked(self) -> dict[str, Any]:
            return {"source": "chequered", "since": "2023"}

    engine = Engine(workers=Threads(3), keeps=frozenset({"sentinel2"}))
    result = fetch(workspace, CITY, [Otherwise(service)], [], engine)
    assert sha256(_layer(workspace)) == before
    (note,) = result["notes"]
    assert "sentinel2 is kept" in note and "--layer sentinel2" in note
    assert fetch(workspace, CITY, [Chequered(service)], [], engine)["notes"] == []
    assert fetch(workspace, CITY, [Otherwise(service)], [], Engine())["notes"] == []
    assert sha256(_layer(workspace)) != before, "asked for by name it is replaced"
    _layer(workspace).write_bytes(b"broken")
    fetch(workspace, CITY, [Chequered(service)], [], engine)
    assert read_table(_layer(workspace))[0].num_rows, "what is damaged is not kept"
