"""Real OSM files against independent counts, and against osmnx."""

from pathlib import Path

import numpy as np
import osmium
import pyarrow as pa
import pytest
import shapely

from urbancli.city import utm_epsg
from urbancli.grid import Grid, tiles_of
from urbancli.sources._osm_file import read_entities
from urbancli.sources._polygons import is_area
from urbancli.sources.osm import Source

FILES = {
    "osm/small.osm": (10.0682, 48.135, 10.071, 48.1364),
    "osm/berlin.osm.gz": (13.3156, 52.5034, 13.3766, 52.5219),
    "osm/monaco.osm.pbf": (7.4017, 43.72, 7.45, 43.7543),
    "osm/liechtenstein.osm.bz2": (9.45, 47.04, 9.6715, 47.3),
    "nyc/manhattan.osm.pbf": (-74.0136, 40.736, -73.963, 40.759),
}


class Counter(osmium.SimpleHandler):
    """Every element with a tag that is not metadata, and what must be broken, on its own terms."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, dict[str, str]] = {}
        self.ways: dict[int, list[int]] = {}
        self.node_ids: set[int] = set()
        self.area_members: dict[str, list[int]] = {}

    def _see(self, kind: str, element: object) -> None:
        tags = {tag.k: tag.v for tag in element.tags}
        metadata = ("source", "note", "odbl", "attribution", "comment", "created_by", "fixme")
        if any(k.split(":")[0] not in metadata and k not in ("FIXME", "source_ref") for k in tags):
            self.tags[f"{kind}/{element.id}"] = tags

    def node(self, node: object) -> None:
        self.node_ids.add(node.id)
        self._see("node", node)

    def way(self, way: object) -> None:
        self.ways[way.id] = [node.ref for node in way.nodes]
        self._see("way", way)

    def relation(self, relation: object) -> None:
        self._see("relation", relation)
        if relation.tags.get("type") in ("multipolygon", "boundary"):
            ways = [m.ref for m in relation.members if m.type == "w"]
            self.area_members[f"relation/{relation.id}"] = ways


@pytest.mark.parametrize("name", FILES)
def test_real_files_are_accounted_for_exactly(
    real_data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter()
    counter.apply_file(str(real_data / name))
    entities, facts = read_entities(real_data / name)
    kept = dict(zip(entities.entity_id, entities.tags, strict=True))
    assert len(kept) == len(entities)
    lost = counter.tags.keys() - kept.keys()
    assert kept.items() <= counter.tags.items()
    assert facts["counted"] == len(counter.tags)
    assert sum(each["count"] for each in facts["broken"].values()) == len(lost)
    for key in ("building", "amenity", "shop"):
        have = sum(key in tags for tags in kept.values())
        gone = sum(key in counter.tags[entity] for entity in lost)
        assert have + gone == sum(key in tags for tags in counter.tags.values())
    for entity in (entity for entity in lost if entity.startswith("way/")):
        nodes = counter.ways[int(entity[4:])]
        areal = is_area(counter.tags[entity]) and len(set(nodes)) < 3
        assert len(set(nodes)) < 2 or set(nodes) - counter.node_ids or areal, entity
    missing = {
        relation for relation, ways in counter.area_members.items()
        if any(set(counter.ways.get(way, [0])) - counter.node_ids for way in ways)
    }  # fmt: skip
    assert missing & counter.tags.keys() <= lost

    box = FILES[name]
    places = tiles_of(shapely.box(*box), Grid(utm_epsg((box[0] + box[2]) / 2, box[1])))
    source = Source(real_data / name)
    monkeypatch.setattr(source, "collect", lambda: (entities, facts))  # read once is enough
    source.plan(places)
    table = pa.concat_tables([source.read(block) for block in source.blocks(places)])
    facts = source.facts(source.schema.empty_table())
    assert table.num_rows == facts["kept"] == len(set(table.column("entity_id").to_pylist()))
    assert facts["kept"] + facts["outside"] == len(entities)
    assert facts["kept"] + facts["outside"] + len(lost) == facts["counted"]
    sample = np.random.default_rng(1).choice(len(entities), 100)
    row_of = {entity: row for row, entity in enumerate(table.column("entity_id").to_pylist())}
    boxes = places.boxes()
    for index in sample:
        projected = places.grid.project_geometry(entities.geometry[index])
        touched = set(places.place_id[shapely.intersects(projected, boxes)])
        row = row_of.get(entities.entity_id[index])
        assert touched == (set() if row is None else set(table["places"][row].as_py()))


def test_geometries_are_those_of_osmnx(real_data: Path) -> None:
    """Type, id and geometry one by one.

    Seen on whole files too (Berlin, Monaco, Liechtenstein, Manhattan, State College: 165,000
    elements), with these differences: osmnx leaves out relations other than areas, keeps elements
    with metadata only, and assembles areas by the members' roles, dropping rings that do not close
    where osmium refuses the relation.
    """
    import osmnx

    frame = osmnx.features_from_xml(real_data / "osm/small.osm")
    expected = {f"{kind}/{osm_id}": shape for (kind, osm_id), shape in frame.geometry.items()}
    entities, _ = read_entities(real_data / "osm/small.osm")
    ours = dict(zip(entities.entity_id, entities.geometry, strict=True))
    assert ours.keys() == expected.keys()
    for name, shape in ours.items():
        assert shape.geom_type == expected[name].geom_type, name
        assert shapely.equals(shape, expected[name]), name


def test_the_polygon_rule_is_the_one_of_osmnx() -> None:
    from osmnx.features import _POLYGON_FEATURES

    values = {"yes", "anything"}.union(
        *(rule.get("values", ()) for rule in _POLYGON_FEATURES.values())
    )
    for key in [*_POLYGON_FEATURES, "name", "highway:area"]:
        rule = _POLYGON_FEATURES.get(key, {"polygon": "passlist", "values": ()})
        for value in values:
            listed = value in rule.get("values", ())
            expected = {"all": True, "passlist": listed, "blocklist": not listed}[rule["polygon"]]
            if (key, value) != ("area", "no"):
                assert is_area({"name": "x", key: value}) == expected, (key, value)
    assert not is_area({"building": "yes", "area": "no"})
    assert not is_area({})
