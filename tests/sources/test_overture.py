"""Overture over a loopback bucket: only what touches is read, and what is pinned stays."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from tests.world.faults import Faults
from tests.world.files import Files
from tests.world.front import Door
from tests.world.object_store import Bucket
from tests.world.overture_release import KINDS, UNWANTED, write_index, write_release
from urbancli.errors import ServiceError, UrbanError, UsageError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.layers import entity_view, poi_category
from urbancli.net import Net, OfflineError
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
