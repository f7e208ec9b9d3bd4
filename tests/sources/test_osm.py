"""OSM files, generated: every kind of element, of breakage, of packing and of order."""

import bz2
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import osmium
import pyarrow as pa
import pytest
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.layers import ENTITY_SCHEMA
from urbancli.sources._osm_file import read_entities
from urbancli.sources.osm import Source
from urbancli.workspace import geometries

NODES = {
    1: (9.000, 50.000), 2: (9.002, 50.000), 3: (9.002, 50.002), 4: (9.000, 50.002),
    5: (9.0005, 50.0005), 6: (9.0015, 50.0005), 7: (9.0015, 50.0015), 8: (9.0005, 50.0015),
    9: (9.010, 50.000), 10: (9.010, 50.010), 11: (9.020, 50.010), 12: (-70.0, 10.0),
    13: (9.001, 50.009),
}  # fmt: skip
NODE_TAGS = {
    11: {"amenity": "cafe", "name": "Größe & <Co>"},
    12: {"amenity": "lighthouse"},
    13: {"created_by": "JOSM", "source:date": "2020"},
}
RING = [1, 2, 3, 4, 1]
HOLE = [5, 6, 7, 8, 5]
WAYS = {
    101: (RING, {}),
    102: (HOLE, {}),
    103: (RING, {"building": "yes", "source": "survey"}),
    104: (RING, {"highway": "residential"}),
    105: ([1, 2, 3, 4], {"building": "yes"}),
    106: ([1, 2, 99, 3], {"highway": "track"}),
    107: ([99, 1, 2], {"highway": "path"}),
    108: ([5, 7, 6, 8, 5], {"landuse": "grass"}),
    109: ([9, 10], {"highway": "primary"}),
    110: ([10, 11], {"highway": "primary"}),
    111: ([1, 9, 1], {"building": "shed"}),
    112: ([1], {"highway": "stub"}),
    113: (RING, {"natural": "cliff"}),
    114: (RING, {"leisure": "park", "area": "no"}),
}
RELATIONS = {
    201: ([("way", 101, "outer"), ("way", 102, "inner")], {"type": "multipolygon", "landuse": "x"}),
    202: ([("way", 101, "outer"), ("way", 999, "inner")], {"type": "multipolygon", "landuse": "y"}),
    203: (
        [("way", 109, "forward"), ("way", 110, ""), ("way", 998, ""), ("way", 109, "backward")],
        {"type": "route"},
    ),
    204: ([("way", 109, "from"), ("node", 10, "via"), ("way", 110, "to")], {"type": "restriction"}),
    205: ([("way", 109, "outer"), ("way", 110, "outer")], {"type": "boundary"}),
    206: ([("node", 9, "stop"), ("node", 10, "stop")], {"type": "site", "name": "stops"}),
    207: ([("relation", 203, ""), ("relation", 207, "")], {"type": "route_master"}),
    208: ([("node", 997, "")], {"type": "site"}),
}
BROKEN = {
    "area relations whose rings do not close": ["relation/205"],
    "area relations with missing or broken ways": ["relation/202"],
    "areas of fewer than three places": ["way/111"],
    "relations without a located member": ["relation/208"],
    "ways of fewer than two places": ["way/112"],
    "ways with missing nodes": ["way/106", "way/107"],
}


def tag_lines(tags: dict[str, str]) -> str:
    escaped = {k: v.replace("&", "&amp;").replace("<", "&lt;") for k, v in tags.items()}
    return "".join(f'<tag k="{key}" v="{value}"/>' for key, value in escaped.items())


def node_line(osm_id: int, tagged: bool = True) -> str:
    lon, lat = NODES[osm_id]
    tags = tag_lines(NODE_TAGS.get(osm_id, {}) if tagged else {})
    return f'<node id="{osm_id}" lat="{lat}" lon="{lon}">{tags}</node>'


def way_line(osm_id: int) -> str:
    refs, tags = WAYS[osm_id]
    nodes = "".join(f'<nd ref="{ref}"/>' for ref in refs)
    return f'<way id="{osm_id}">{nodes}{tag_lines(tags)}</way>'


def relation_line(osm_id: int) -> str:
    members, tags = RELATIONS[osm_id]
    lines = "".join(f'<member type="{t}" ref="{r}" role="{role}"/>' for t, r, role in members)
    return f'<relation id="{osm_id}">{lines}{tag_lines(tags)}</relation>'


def write_osm(path: Path, lines: list[str]) -> Path:
    path.write_text('<osm version="0.6">' + "\n".join(lines) + "</osm>", encoding="utf-8")
    return path


def town_lines() -> list[str]:
    return [
        *(node_line(i) for i in NODES),
        *(way_line(i) for i in WAYS),
        *(relation_line(i) for i in RELATIONS),
    ]


@pytest.fixture
def town(tmp_path: Path) -> Path:
    return write_osm(tmp_path / "town.osm", town_lines())


@pytest.fixture(scope="module")
def town_tiles() -> Places:
    return tiles_of(shapely.box(8.99, 49.99, 9.03, 50.03), Grid(32632))


def whole_table(source: Source, places: Places) -> pa.Table:
    source.plan(places)
    tables = [source.read(block) for block in source.blocks(places)]
    assert all(table.schema == ENTITY_SCHEMA for table in tables)
    for block, table in zip(source.blocks(places), tables, strict=True):
        assert set(table.column("block").to_pylist()) <= {block.block_id}
    return pa.concat_tables(tables)


def test_every_kind_of_element_becomes_its_geometry(town: Path, town_tiles: Places) -> None:
    table = whole_table(Source(town), town_tiles)
    shapes = dict(zip(table.column("entity_id").to_pylist(), geometries(table), strict=True))
    assert {name: shape.geom_type for name, shape in shapes.items()} == {
        "node/11": "Point",
        "way/103": "Polygon",
        "way/104": "LineString",
        "way/105": "LineString",
        "way/108": "MultiPolygon",
        "way/109": "LineString",
        "way/110": "LineString",
        "way/113": "LineString",
        "way/114": "LineString",
        "relation/201": "Polygon",
        "relation/203": "MultiLineString",
        "relation/204": "GeometryCollection",
        "relation/206": "MultiPoint",
        "relation/207": "MultiLineString",
    }
    ring = shapely.Polygon([NODES[i] for i in RING])
    assert shapes["way/103"].equals(ring)
    assert shapes["relation/201"].equals(ring - shapely.Polygon([NODES[i] for i in HOLE]))
    assert len(shapes["relation/203"].geoms) == 2  # a member that comes twice counts once
    assert shapes["relation/203"].equals(shapes["relation/207"])
    assert shapes["relation/204"].geoms[1].equals(shapely.Point(NODES[10]))
    assert all(shape.is_valid for shape in shapes.values())


def test_tags_and_members_are_kept_whole(town: Path, town_tiles: Places) -> None:
    rows = {row["entity_id"]: row for row in whole_table(Source(town), town_tiles).to_pylist()}
    assert dict(rows["node/11"]["tags"]) == NODE_TAGS[11]
    assert dict(rows["way/103"]["tags"]) == {"building": "yes", "source": "survey"}
    for osm_id in (201, 203, 204, 206, 207):
        members = rows[f"relation/{osm_id}"]["members"]
        assert [(m["type"], m["ref"], m["role"]) for m in members] == RELATIONS[osm_id][0]
    assert all(row["members"] == [] for name, row in rows.items() if "relation" not in name)


def test_nothing_is_lost_in_silence(town: Path, town_tiles: Places) -> None:
    source = Source(town)
    plan = source.plan(town_tiles)
    facts = source.facts(source.schema.empty_table())
    assert {kind: each["ids"] for kind, each in facts["broken"].items()} == BROKEN
    assert {kind: each["count"] for kind, each in facts["broken"].items()} == {
        kind: len(ids) for kind, ids in BROKEN.items()
    }
    assert facts["repaired"] == {"count": 1, "ids": ["way/108"]}
    assert facts["incomplete"]["ids"] == ["relation/203", "relation/207"]
    assert (facts["kept"], facts["outside"], facts["metadata_only"]) == (14, 1, 1)
    assert facts["counted"] == 14 + 1 + 7
    assert plan["inputs"][0]["file"] == "town.osm"


def test_the_packing_of_a_file_does_not_matter(town: Path, town_tiles: Places) -> None:
    expected = whole_table(Source(town), town_tiles)
    packed = town.with_suffix(".osm.gz")
    packed.write_bytes(gzip.compress(town.read_bytes()))
    squeezed = town.with_suffix(".osm.bz2")
    squeezed.write_bytes(bz2.compress(town.read_bytes()))
    binary = town.with_suffix(".osm.pbf")
    with osmium.SimpleWriter(str(binary)) as writer:
        for element in osmium.FileProcessor(str(town)):
            writer.add(element)
    for path in (packed, squeezed, binary):
        assert whole_table(Source(path), town_tiles).equals(expected)


def test_the_order_of_elements_does_not_matter(town: Path, town_tiles: Places) -> None:
    """The order of Overpass' `out; >; out skel qt;`: ways first, nodes last, some twice."""
    expected = whole_table(Source(town), town_tiles)
    backwards = write_osm(
        town.with_name("backwards.osm"),
        [relation_line(i) for i in reversed(RELATIONS)]
        + [way_line(i) for i in reversed(WAYS)]
        + [way_line(103)]
        + [node_line(i) for i in reversed(NODES)]
        + [node_line(i, tagged=False) for i in (11, 12)],
    )
    assert whole_table(Source(backwards), town_tiles).equals(expected)
    twice = write_osm(
        town.with_name("twice.osm"),
        [line for line in town_lines() for _ in range(1 + ("way" in line))],
    )
    assert whole_table(Source(twice), town_tiles).equals(expected)
    late = write_osm(
        town.with_name("late.osm"),
        [way_line(i) for i in WAYS]
        + [node_line(i) for i in NODES]
        + [relation_line(i) for i in RELATIONS],
    )
    assert whole_table(Source(late), town_tiles).equals(expected)


def test_a_node_without_a_location_is_broken(tmp_path: Path) -> None:
    path = write_osm(
        tmp_path / "n.osm", ['<node id="5"><tag k="shop" v="yes"/></node>', node_line(11)]
    )
    entities, facts = read_entities(path)
    assert list(entities.entity_id) == ["node/11"]
    assert facts["broken"] == {"nodes without a location": {"count": 1, "ids": ["node/5"]}}


def test_twenty_broken_ids_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    ways = [
        f'<way id="{i}"><nd ref="99"/><nd ref="98"/><tag k="a" v="b"/></way>' for i in range(30)
    ]
    _, facts = read_entities(write_osm(tmp_path / "b.osm", [node_line(11), *ways]))
    broken = facts["broken"]["ways with missing nodes"]
    assert broken["count"] == 30
    assert broken["ids"] == [f"way/{i}" for i in range(20)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.osm", b"hello", "cannot read"),
        ("a.osm.pbf", b"hello, this is not a PBF", "cannot read"),
        ("a.txt", b"hello", "cannot read"),
        ("a.osm", b'<osm version="0.6"><node id="x" lat="1" lon="1"/></osm>', "cannot read"),
        ("a.osm", b'<osm version="0.6"></osm>', "no tagged element"),
        ("a.osm.gz", gzip.compress(b'<osm version="0.6"></osm>', mtime=0)[:-12], "cannot read"),
    ],
)
def test_a_file_that_is_no_osm_file_is_refused(
    tmp_path: Path, town_tiles: Places, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UrbanError, match=said) as raised:
        Source(tmp_path / name).plan(town_tiles)
    assert "\n" not in str(raised.value)


def test_missing_and_misplaced_files_are_refused(town: Path, town_tiles: Places) -> None:
    with pytest.raises(UrbanError, match="no file"):
        Source(town.with_name("nowhere.osm")).plan(town_tiles)
    elsewhere = tiles_of(shapely.box(8.0, 51.0, 8.01, 51.01), Grid(32632))
    with pytest.raises(UrbanError, match="misses the city"):
        Source(town).plan(elsewhere)
    with pytest.raises(UrbanError, match="no tiles"):
        Source(town).plan(town_tiles.take(np.zeros(0, dtype=np.int64)))


def test_a_truncated_pbf_is_refused(tmp_path: Path, real_data: Path, town_tiles: Places) -> None:
    whole = (real_data / "osm/monaco.osm.pbf").read_bytes()
    (tmp_path / "half.osm.pbf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UrbanError, match=r"cannot read .*whole \.osm\.pbf"):
        Source(tmp_path / "half.osm.pbf").plan(town_tiles)


@pytest.mark.parametrize("order", [1, -1])
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, order: int) -> None:
    """The limit on a file's size stands for the disk: osmium's writer fails in the same way."""
    nodes = [
        f'<node id="{i}" lat="0" lon="0"><tag k="a" v="{"x" * 100}"/></node>' for i in range(1, 900)
    ]
    path = write_osm(tmp_path / "a.osm", nodes[::order])
    script = (
        "import resource, signal, sys, pathlib\n"
        "from urbancli.errors import UrbanError\n"
        "from urbancli.sources._osm_file import read_entities\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    read_entities(pathlib.Path(sys.argv[1]))\n"
        "except UrbanError as err:\n    print(err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cannot write a.osm as text" in done.stdout
    assert "set TMPDIR" in done.stdout
    assert done.stdout.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.osm"]
