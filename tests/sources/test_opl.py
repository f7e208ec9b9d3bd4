"""osmium's text format as columns, against the elements that pyosmium gives one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import osmium
import pyarrow as pa
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from urbancli.sources import _opl
from urbancli.sources._entities import Column
from urbancli.sources._opl import FORMAT, Relations, Ways, elements, joined
from urbancli.sources._osm_shapes import way_shapes
from urbancli.sources._polygons import (
    AREA_KEYS,
    AREA_VALUES,
    LINE_VALUES,
    is_area,
    make_areas,
)

TEXT = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00", max_codepoint=0xFFFFF),
    max_size=8,
)
TAGS = st.dictionaries(TEXT, TEXT, max_size=4)
LON, LAT = (st.integers(-most * 10**7, most * 10**7) for most in (180, 90))
PLACES = st.one_of(st.none(), st.tuples(LON, LAT))


def read_opl(path: Path) -> tuple[Any, Any, Any]:
    """Return all nodes, ways and relations of a text file."""
    nodes, ways, relations = (joined(elements(path, kind), kind) for kind in "nwr")
    return nodes, ways, relations


def _write(path: Path, elements: list[Any]) -> Path:
    with osmium.SimpleWriter(osmium.io.File(str(path), FORMAT), overwrite=True) as writer:
        for element in elements:
            writer.add(element)
    return path


@settings(max_examples=40, deadline=None)
@example(nodes=[({"a=b": " %,@=\n", "é漢🙂": ""}, None)], relations=[({}, [("r", -9, "")])], part=1)
@given(
    nodes=st.lists(st.tuples(TAGS, PLACES), max_size=5),
    relations=st.lists(
        st.tuples(
            TAGS,
            st.lists(
                st.tuples(st.sampled_from("nwr"), st.integers(-(2**40), 2**40), TEXT), max_size=4
            ),
        ),
        max_size=4,
    ),
    part=st.sampled_from([1, 1 << 20]),
)
def test_tags_places_and_members_come_through(
    tmp_path_factory: pytest.TempPathFactory,
    nodes: list[tuple[dict[str, str], tuple[int, int] | None]],
    relations: list[tuple[dict[str, str], list[tuple[str, int, str]]]],
    part: int,
) -> None:
    elements: list[Any] = [
        osmium.osm.mutable.Node(
            id=number, tags=tags, location=place and (place[0] / 1e7, place[1] / 1e7)
        )
        for number, (tags, place) in enumerate(nodes)
    ]
    elements += [
        osmium.osm.mutable.Relation(id=number, tags=tags, members=members)
        for number, (tags, members) in enumerate(relations)
    ]
    path = _write(tmp_path_factory.mktemp("opl") / "a.opl", elements)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_opl, "PART_BYTES", part)
        found, ways, groups = read_opl(path)
    assert len(ways.ids) == len(ways.refs) == 0
    assert found.ids.tolist() == list(range(len(nodes)))
    assert found.tags.to_pylist() == [sorted(tags.items()) for tags, _ in nodes]
    for lonlat, (_, place) in zip(found.lonlat, nodes, strict=True):
        if place is None:
            assert np.isnan(lonlat).all()
        else:
            assert lonlat.tolist() == [place[0] / 1e7, place[1] / 1e7]
    assert groups.tags.to_pylist() == [sorted(tags.items()) for tags, _ in relations]
    names = {"n": "node", "w": "way", "r": "relation"}
    assert list(Column(groups.members)) == [
        [(names[kind], ref, role) for kind, ref, role in members] for _, members in relations
    ]


def test_places_beyond_the_globe_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.opl"
    path.write_text("n1 T x180 y-90\nn2 T x180.0000001 y0\nw3 T Nn1x180y-90,n2x181y0,n4xy\n")
    nodes, ways, _ = read_opl(path)
    assert nodes.lonlat[0].tolist() == [180, -90]
    assert np.isnan(nodes.lonlat[1]).all()
    assert np.isnan(ways.lonlat[:, 0]).tolist() == [False, True, True]


def test_of_two_values_of_one_key_the_last_counts() -> None:
    tags = _opl.parse_tags(pa.array(["z=1,a=2,z=3", "", "a=4"]))
    assert tags.to_pylist() == [[("a", "2"), ("z", "3")], [], [("a", "4")]]


def test_columns_of_a_real_file_are_its_elements(real_data: Path, tmp_path: Path) -> None:
    source = str(real_data / "osm/berlin.osm.gz")
    processor: Any = osmium.FileProcessor(source).with_locations()
    with osmium.SimpleWriter(osmium.io.File(str(tmp_path / "a.opl"), FORMAT)) as writer:
        for _ in processor.with_filter(writer):
            pass
    nodes, ways, relations = read_opl(tmp_path / "a.opl")
    tags: dict[str, Any] = {"n": nodes, "w": ways, "r": relations}
    maps = {kind: dict(zip(each.ids.tolist(), Column(each.tags), strict=True))
            for kind, each in tags.items()}  # fmt: skip
    places = dict(zip(nodes.ids.tolist(), nodes.lonlat.tolist(), strict=True))
    begin = np.cumsum([0, *ways.count])
    of_way = {
        way: (ways.refs[a:b].tolist(), ways.lonlat[a:b].tolist())
        for way, a, b in zip(ways.ids.tolist(), begin, begin[1:], strict=False)
    }
    of_relation = dict(zip(relations.ids.tolist(), Column(relations.members), strict=True))
    names = {"n": "node", "w": "way", "r": "relation"}
    seen = 0
    elements: Any = osmium.FileProcessor(source).with_locations()
    for element in elements:
        seen += 1
        assert maps[element.type_str()][element.id] == dict(element.tags)
        if element.is_node():
            assert places[element.id] == [element.location.lon, element.location.lat]
        elif element.is_way():
            refs, lonlat = of_way[element.id]
            assert refs == [node.ref for node in element.nodes]
            for node, place in zip(element.nodes, lonlat, strict=True):
                assert not node.location.valid() or place == [node.lon, node.lat]
        else:
            assert of_relation[element.id] == [
                (names[m.type], m.ref, m.role) for m in element.members
            ]
    assert seen == len(nodes.ids) + len(ways.ids) + len(relations.ids) > 1000


# --- what is made of them ------------------------------------------------------------------------


def _ways(*ways: tuple[list[int], dict[str, str]]) -> Ways:
    """Return ways over nodes whose place is that of their id; node 0 is missing, 5 is at 4."""
    places = {0: (np.nan, np.nan), 1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 1)}
    refs = [ref for nodes, _ in ways for ref in nodes]
    kind = pa.map_(pa.string(), pa.string())
    return Ways(
        np.arange(len(ways)),
        pa.array([list(tags.items()) for _, tags in ways], kind),
        np.array([len(nodes) for nodes, _ in ways], dtype=np.int64),
        np.array(refs, dtype=np.int64),
        np.array([places[ref] for ref in refs], dtype=float).reshape(-1, 2),
    )


def test_lines_and_polygons_of_ways() -> None:
    house = {"building": "yes"}
    shapes, missing, areal = way_shapes(
        _ways(
            ([1, 2, 3], {"highway": "path"}),
            ([1, 2, 3, 1], house),
            ([1, 2, 3, 1], {"highway": "path"}),
            ([1, 2, 3, 1], {**house, "area": "no"}),
            ([1, 2, 0], {}),
            ([], {}),
            ([1], house),
            ([4, 5], {}),
            ([3, 4, 5, 3], house),
            ([0], {}),
        )
    )
    expected = [
        "LINESTRING (0 0, 1 0, 1 1)", "POLYGON ((0 0, 1 0, 1 1, 0 0))",
        "LINESTRING (0 0, 1 0, 1 1, 0 0)", "LINESTRING (0 0, 1 0, 1 1, 0 0)",
        None, None, None, None, "LINESTRING (1 1, 0 1, 1 1)", None,
    ]  # fmt: skip
    assert [shape and shape.wkt for shape in shapes] == expected
    assert np.flatnonzero(missing).tolist() == [4]
    assert np.flatnonzero(areal).tolist() == [1, 8]


def test_a_way_without_any_other_is_none() -> None:
    shapes, missing, areal = way_shapes(_ways())
    assert len(shapes) == len(missing) == len(areal) == 0
    assert shapely.is_missing(way_shapes(_ways(([], {})))[0]).all()


def test_tags_make_areas_as_they_do_one_by_one() -> None:
    values = {"yes", "no", "other"}.union(*AREA_VALUES.values(), *LINE_VALUES.values())
    keys = {*AREA_KEYS, *AREA_VALUES, *LINE_VALUES, "name", "oneway"}
    pairs = [(key, value) for key in sorted(keys) for value in sorted(values)]
    makes, denies = make_areas(*(pa.array(column) for column in zip(*pairs, strict=True)))
    for (key, value), made, denied in zip(pairs, makes, denies, strict=True):
        assert is_area({key: value}) == (made and not denied), (key, value)
        assert denied == (not is_area({key: value, "building": "yes"}))


def test_a_column_reads_like_a_list() -> None:
    relations = Relations(np.zeros(0, np.int64), pa.array([]), pa.array([]))
    assert list(Column(relations.members)) == []
    maps = Column(pa.array([[("a", "1")], [], [("b", "2")]], pa.map_(pa.string(), pa.string())))
    assert list(maps) == [{"a": "1"}, {}, {"b": "2"}] == maps[:]
    assert maps[-1] == {"b": "2"} and maps[0] == {"a": "1"} and len(maps) == 3
    assert list(Column(maps.array.slice(2))) == [{"b": "2"}]
    with pytest.raises(IndexError):
        maps[3]
    assert Column(pa.array(["x", "y"]))[1] == "y"
