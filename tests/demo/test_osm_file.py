"""The .osm.pbf: what goes in comes out, once, with one node where OSM has one; same bytes."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import shapely
from shapely import LineString, MultiPolygon, Point, Polygon, box

from urbancli.demo.buildings import build
from urbancli.demo.factors import draw_factors
from urbancli.demo.osm_file import write_pbf
from urbancli.demo.pois import place_pois, write_pois
from urbancli.demo.recipe import GRID, Recipe
from urbancli.demo.streets import lay_streets
from urbancli.demo.town import Elements, Relation, join_elements
from urbancli.demo.trees import plant
from urbancli.sources._osm_file import read_entities

RECIPE = Recipe(seed=3, tiles=8)
SOUTH_WEST = np.array(RECIPE.box_m[:2])

WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_osm_file import write_city
write_city(Path(sys.argv[1]))
"""


def _elements(*pairs: tuple[Any, dict[str, str]]) -> Elements:
    shapes = np.empty(len(pairs), dtype=object)
    shapes[:] = [shapely.transform(shape, lambda p: p + SOUTH_WEST) for shape, _ in pairs]
    return Elements(shapes, [tags for _, tags in pairs])


def _write(folder: Path, elements: Elements, relations: list[Relation] | None = None) -> Path:
    path = folder / "city.osm.pbf"
    write_pbf(path, elements, relations or [], RECIPE.rendered_m)
    return path


def write_city(path: Path) -> tuple[Elements, int]:
    """Write a whole small city, called from other processes too; return what and how many
    relations."""
    factors = draw_factors(RECIPE)
    skeleton = lay_streets(factors)
    pois = place_pois(factors, skeleton.cells)
    points = Elements(np.asarray(shapely.points(pois.xy), dtype=object), pois.tags)
    elements = join_elements(
        [
            skeleton.elements,
            build(factors, skeleton.cells),
            plant(factors, skeleton.cells),
            points,
        ]
    )
    write_pbf(path, elements, skeleton.relations, RECIPE.rendered_m)
    write_pois(path.with_suffix(".csv"), pois)
    return elements, len(skeleton.relations)


def _mine(tags: dict[str, str]) -> dict[str, str]:
    """Return tags less the one that the file adds."""
    return {key: value for key, value in tags.items() if (key, value) != ("type", "multipolygon")}


def _kinds(elements: Elements) -> Counter[Any]:
    """Return how many elements there are of each type and tags."""
    return Counter(
        (shape.geom_type, tuple(sorted(_mine(tags).items())))
        for shape, tags in zip(elements.geometry, elements.tags, strict=True)
    )


def test_every_element_of_a_city_comes_back_once(tmp_path: Path) -> None:
    path = tmp_path / "city.osm.pbf"
    elements, relations = write_city(path)
    entities, facts = read_entities(path)
    assert facts["broken"] == {} and facts["repaired"]["count"] == 0
    assert facts["incomplete"]["count"] == facts["metadata_only"] == 0
    own = {"multipolygon", None}
    kept = [i for i, tags in enumerate(entities.tags) if tags.get("type") in own]
    back = Elements(entities.geometry[kept], [dict(entities.tags[i]) for i in kept])
    assert len(entities) - len(kept) == relations
    assert _kinds(back) == _kinds(elements)
    # Every element has a twin: an element that was read with its tags and its shape.
    shapes = shapely.transform(elements.geometry, _unproject)
    tree = shapely.STRtree(back.geometry)
    near = tree.query(shapes, predicate="dwithin", distance=2e-7)
    twins = np.array([_mine(back.tags[j]) == elements.tags[i] for i, j in near.T])
    first, second = near[:, twins]
    close = shapely.hausdorff_distance(shapes[first], back.geometry[second]) < 2e-7
    assert len(np.unique(first[close])) == len(elements)
    assert len(np.unique(second[close])) == len(back)


def _unproject(points: np.ndarray) -> np.ndarray:
    return np.column_stack(GRID.unproject(points[:, 0], points[:, 1]))


def test_equal_coordinates_are_one_node_and_a_point_on_a_line_tags_it(tmp_path: Path) -> None:
    street = {"highway": "residential"}
    elements = _elements(
        (LineString([(0, 0), (100, 0), (200, 0)]), street),
        (LineString([(100, 0), (100, 80)]), street),
        (Point(100, 0), {"highway": "traffic_signals"}),
        (Point(50, 50), {"amenity": "bench"}),
        (Point(50, 50), {"shop": "kiosk"}),
    )
    path = _write(tmp_path, elements)
    nodes: dict[int, dict[str, str]] = {}
    ways = []
    file: Any = osmium.FileProcessor(str(path))
    for element in file:
        if element.is_node():
            nodes[element.id] = dict(element.tags)
        elif element.is_way():
            ways.append([node.ref for node in element.nodes])
    assert len(nodes) == 6
    assert ways[0][1] == ways[1][0]
    assert nodes[ways[0][1]] == {"highway": "traffic_signals"}
    assert list(nodes) == sorted(nodes)
    assert sum(bool(tags) for tags in nodes.values()) == 3
    assert read_entities(path)[1]["counted"] == 5


def test_holes_parts_and_rings_that_are_no_areas_become_relations(tmp_path: Path) -> None:
    ring = Polygon(box(0, 0, 40, 40).exterior, [box(10, 10, 30, 30).exterior])
    parts = MultiPolygon([box(50, 0, 60, 10), Polygon(box(70, 0, 99, 30).exterior,
                                                      [box(80, 10, 90, 20).exterior])])  # fmt: skip
    square = box(200, 0, 230, 30)
    elements = _elements(
        (ring, {"building": "apartments"}),
        (parts, {"landuse": "forest"}),
        (square, {"highway": "pedestrian"}),
        (box(300, 0, 310, 10), {"building": "yes"}),
        (box(310, 0, 320, 10), {"building": "terrace"}),
    )
    path = _write(tmp_path, elements)
    entities, facts = read_entities(path)
    assert facts["counted"] == 5 and facts["broken"] == {}
    by_kind = {tags.get("building", tags.get("landuse", "square")): i
               for i, tags in enumerate(entities.tags)}  # fmt: skip
    metres = GRID.project_geometry(entities.geometry)
    areas = {kind: round(metres[i].area, 0) for kind, i in by_kind.items()}
    assert areas == {"apartments": 1200, "forest": 870, "square": 900, "yes": 100, "terrace": 100}
    assert entities.entity_id[by_kind["yes"]].startswith("way/")
    roles = Counter(role for _, _, role in entities.members[by_kind["forest"]])
    assert roles == {"outer": 2, "inner": 1}
    assert entities.tags[by_kind["apartments"]]["type"] == "multipolygon"
    shared = set(entities.geometry[by_kind["yes"]].exterior.coords)
    assert len(shared & set(entities.geometry[by_kind["terrace"]].exterior.coords)) == 2


def test_relations_refer_to_their_members(tmp_path: Path) -> None:
    ring = Polygon(box(0, 50, 40, 90).exterior, [box(10, 60, 30, 80).exterior])
    elements = _elements(
        (LineString([(0, 0), (9, 0)]), {"railway": "tram"}),
        (ring, {"building": "school"}),
        (Point(4, 4), {"railway": "tram_stop"}),
    )
    tags = {"type": "route", "route": "tram", "name": "1"}
    relation = Relation(tags, [(0, ""), (2, "stop"), (1, "")])
    path = _write(tmp_path, elements, [relation])
    entities, facts = read_entities(path)
    assert facts["broken"] == {} and facts["incomplete"]["count"] == 0
    row = next(i for i, own in enumerate(entities.tags) if own == tags)
    named = dict(zip(entities.entity_id, entities.tags, strict=True))
    members = [(named[f"{kind}/{ref}"], role) for kind, ref, role in entities.members[row]]
    assert [role for _, role in members] == ["", "stop", ""]
    assert members[0][0] == {"railway": "tram"}
    assert members[1][0] == {"railway": "tram_stop"}
    assert members[2][0]["building"] == "school"


def test_points_closer_than_a_unit_are_not_repeated_in_a_way(tmp_path: Path) -> None:
    line = LineString([(0, 0), (0.0001, 0), (50, 0), (50, 0.0001)])
    path = _write(tmp_path, _elements((line, {"highway": "path"})))
    ways = osmium.FileProcessor(str(path)).with_filter(osmium.filter.EntityFilter(osmium.osm.WAY))
    assert [len(way.nodes) for way in ways] == [2]


def test_the_header_says_what_it_is_and_where(tmp_path: Path) -> None:
    path = _write(tmp_path, _elements((Point(0, 0), {"amenity": "bench"})))
    with osmium.io.Reader(str(path)) as reader:
        header = reader.header()
    assert "SYNTHETIC" in header.get("generator")
    bounds = header.box()
    corners = GRID.unproject(*np.array(RECIPE.rendered_m).reshape(2, 2).T)
    assert bounds.bottom_left.lon <= corners[0][0] + 1e-7
    assert bounds.top_right.lat >= corners[1][1] - 1e-7
    file: Any = osmium.FileProcessor(str(path))
    for node in file:
        assert node.version == 0 and not node.user and node.timestamp.timestamp() == 0


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes() + path.with_suffix(".csv").read_bytes()).hexdigest()


def test_other_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for number, threads in enumerate(("1", "2")):
        path = tmp_path / f"{number}.osm.pbf"
        environment = os.environ | {"PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": threads}
        subprocess.run(
            [sys.executable, "-c", WRITE, str(path), str(Path(__file__).parent)],
            env=environment, check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        digests.add(_digest(path))
    write_city(tmp_path / "here.osm.pbf")
    digests.add(_digest(tmp_path / "here.osm.pbf"))
    assert len(digests) == 1
