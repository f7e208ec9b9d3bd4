"""Items and ATTRIBUTION.md: valid STAC that agrees with the files, and nobody left unnamed."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from tests.small_city import KEY, fetch_small_city
from urbancli.description import (
    ALWAYS,
    _box,
    _footprint,
    _times,
    attribution_file,
    describe,
    item_file,
)
from urbancli.grid import Grid
from urbancli.layers import open_city
from urbancli.licences import LICENCES, known_licences, licences, producers
from urbancli.workspace import Workspace, open_parquet, read_table, write_tables


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> Workspace:
    """A fetched town."""
    return fetch_small_city(tmp_path_factory.mktemp("described"), demo_inputs)


def _item(workspace: Workspace, layer: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(item_file(workspace, KEY, layer).read_text())
    return document


LAYERS = ["entities", "naip", "pois", "sentinel2", "streetview"]


@pytest.mark.parametrize("layer", LAYERS)
def test_an_item_is_valid_stac(workspace: Workspace, layer: str) -> None:
    document = _item(workspace, layer)
    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources(
        [(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()]
    )
    schema = schemas["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"]
    assert not list(Draft7Validator(schema, registry=registry).iter_errors(document))
    item = pystac.Item.from_file(str(item_file(workspace, KEY, layer)))
    assert item.stac_extensions == document["stac_extensions"]
    assert shapely.geometry.shape(item.geometry).is_valid
    assert item.assets["data"].get_absolute_href() == str(workspace.layer_file(KEY, layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_an_item_agrees_with_its_file(workspace: Workspace, layer: str) -> None:
    path, document = workspace.layer_file(KEY, layer), _item(workspace, layer)
    asset = document["assets"]["data"]
    assert asset["file:size"] == path.stat().st_size
    # A multihash: the code of SHA-256, its length, the digest.
    assert asset["file:checksum"] == "12" + "20" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert document["properties"]["urban:rows"] == pq.ParquetFile(path).metadata.num_rows
    west, south, east, north = document["bbox"]
    assert (west, south, east, north) == shapely.geometry.shape(document["geometry"]).bounds
    if layer in {"naip", "sentinel2"}:
        geo = json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["geometry"]
        assert document["bbox"] == pytest.approx(geo["bbox"], abs=1e-6)


def test_an_imagery_item_says_bands_times_and_grid(workspace: Workspace) -> None:
    document = _item(workspace, "sentinel2")
    properties, asset = document["properties"], document["assets"]["data"]
    assert [band["name"] for band in asset["bands"]][:3] == ["B01", "B02", "B03"]
    assert asset["bands"][3]["eo:common_name"] == "red"
    assert (asset["gsd"], asset["bands"][0]["data_type"]) == (10.0, "uint16")
    assert properties["proj:code"] == "EPSG:32624" and "proj:epsg" not in properties
    assert properties["datetime"] is None
    assert properties["start_datetime"] < properties["end_datetime"] and properties[
        "start_datetime"
    ].startswith("2023-")
    size, _, left, _, down, top = properties["proj:transform"]
    rows, columns = properties["proj:shape"]
    assert properties["proj:bbox"] == [left, top + rows * down, left + columns * size, top]
    layer = open_city(workspace, KEY).pixels("sentinel2")
    _, valid = layer.read(round(left / size), round(-top / size), columns, rows)
    assert valid.any(axis=0).all() and valid.any(axis=1).all()


def test_a_layer_of_unknown_time_has_the_widest_interval(workspace: Workspace) -> None:
    properties = _item(workspace, "pois")["properties"]
    assert (properties["start_datetime"], properties["end_datetime"]) == ALWAYS
    assert properties["datetime"] is None and properties["urban:time_known"] is False


NEW_YEAR, LATER = "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("plan", "first", "last"),
    [
        ({"items": [{"datetime": "2020-01-01T00:00:00.678+00:00"}]}, NEW_YEAR, NEW_YEAR),
        (
            {"items": [{"datetime": LATER}, {"datetime": "2020-01-01T01:00:00+01:00"}]},
            NEW_YEAR,
            LATER,
        ),
        ({"osm_base": [NEW_YEAR, LATER]}, NEW_YEAR, LATER),
        ({"release": "2020-01-01.0"}, NEW_YEAR, NEW_YEAR),
    ],
)
def test_times_are_those_of_what_was_read(plan: dict[str, Any], first: str, last: str) -> None:
    times = _times({"provenance": plan})
    assert (times["start_datetime"], times["end_datetime"]) == (first, last)
    assert times["datetime"] == (first if first == last else None) and times["urban:time_known"]


def test_photos_say_their_years() -> None:
    times = _times({"provenance": {}, "years": {"2019": 3, "2021": 1, "unknown": 2}})
    assert times["start_datetime"] == "2019-01-01T00:00:00Z"
    assert times["end_datetime"] == "2021-12-31T23:59:59Z"
    assert not _times({"provenance": {}, "years": {"unknown": 2}})["urban:time_known"]


def test_licences_are_spdx_or_other_with_a_link(workspace: Workspace) -> None:
    entities = _item(workspace, "entities")
    assert entities["properties"]["license"] == "ODbL-1.0"
    (link,) = [link for link in entities["links"] if link["rel"] == "license"]
    assert link["href"].startswith("https://opendatacommons.org/")
    names = [each["name"] for each in entities["properties"]["providers"]]
    assert names == ["OpenStreetMap contributors", "urban"]
    assert _item(workspace, "pois")["properties"]["license"] == "other"
    assert _item(workspace, "naip")["properties"]["license"] == "CC0-1.0"


def test_attribution_names_every_file_its_licence_and_what_was_done(workspace: Workspace) -> None:
    text = attribution_file(workspace, KEY).read_text()
    folder = workspace.city_dir(KEY)
    for path in [*folder.glob("layers/*"), *folder.glob("labels/*")]:
        assert path.relative_to(folder).as_posix() in text
    sections = text.split("\n## ")[1:]
    for section in sections:
        assert "- Licence: `" in section and "- Read: " in section
        assert "- Done to the data: " in section
    (osm,) = [section for section in sections if "layers/entities" in section]
    assert "© OpenStreetMap contributors" in osm and "(https://opendatacommons.org/" in osm
    (naip,) = [section for section in sections if "layers/naip" in section]
    assert "SYNTHETIC" in naip
    assert str(workspace.root) not in text


def test_describing_again_changes_nothing_and_the_manifest_lists_all(
    workspace: Workspace, tmp_path: Path
) -> None:
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.root.rglob("*.json")}
    paths = describe(copy, KEY)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.root.rglob("*.json")} == before
    listed = copy.listed_files(KEY)
    assert {path.relative_to(copy.city_dir(KEY)).as_posix() for path in paths} <= set(listed)


def test_a_changed_layer_takes_its_item_out_of_the_manifest_first(
    workspace: Workspace, tmp_path: Path
) -> None:
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    copy.layer_file(KEY, "pois").unlink()
    path = copy.layer_file(KEY, "naip")
    table, facts = read_table(path)
    groups = [table.slice(0, 50)]
    write_tables(path, groups, schema=table.schema.remove_metadata(), metadata=facts)
    describe(copy, KEY)
    assert not item_file(copy, KEY, "pois").exists()
    listed = set(copy.listed_files(KEY))
    assert not {"stac/pois.json", "stac/naip.json", "ATTRIBUTION.md"} & listed
    assert {"stac/sentinel2.json", "stac/entities.json"} <= listed
    assert _item(copy, "naip")["properties"]["urban:rows"] == 50


def test_a_footprint_across_the_antimeridian_is_two_parts_and_a_box_that_crosses() -> None:
    grid = Grid(32601)  # its central meridian is 177° W
    left = grid.project([180.0], [10.0])[0][0]
    columns = np.arange(-2, 2) + int(left // 300)
    cells = np.column_stack([columns, np.full(4, 3680)])
    area = _footprint(grid, cells)
    assert area.geom_type == "MultiPolygon" and area.is_valid
    west, _, east, _ = _box(area)
    assert west > 179.9 and east < -179.9
    assert all(ring.exterior.is_ccw for ring in area.geoms)


def test_every_licence_a_source_names_is_known() -> None:
    package = Path(__file__).parents[1] / "urbancli"
    named = {
        name
        for path in [*package.glob("sources/*.py"), *package.glob("labels/*.py")]
        for name in re.findall(r"licence\b[^=\n]*=\s*\(?\s*\"([^\"]+)\"", path.read_text())
    }
    assert {"ODbL-1.0", "public-domain", "Copernicus-Sentinel", "user-supplied"} <= named
    assert all(known_licences(name) for name in named), named


def test_joined_and_unknown_licences() -> None:
    assert known_licences("ODbL-1.0 AND CC-BY-4.0") == [LICENCES["ODbL-1.0"], LICENCES["CC-BY-4.0"]]
    assert known_licences("ODbL-1.0 AND mine") is None
    assert [each.spdx for each in licences("ODbL-1.0 AND mine")] == ["ODbL-1.0", None]
    assert [name for name, _ in producers("© OpenStreetMap contributors, Overture Maps")] == [
        "OpenStreetMap contributors",
        "Overture Maps Foundation",
    ]


def test_the_synthetic_city_names_nobody_as_licensor(tmp_path: Path, demo_inputs: Path) -> None:
    from urbancli.city import City
    from urbancli.demo.files import recipe_of
    from urbancli.fetching import fetch
    from urbancli.sources.osm import Source as Osm

    recipe = recipe_of(demo_inputs)
    assert recipe is not None
    from urbancli.demo.files import demo_city

    city: City = demo_city(recipe)
    workspace = Workspace(tmp_path)
    fetch(workspace, city, [Osm(demo_inputs / "map.osm.pbf")], [])
    document = json.loads(item_file(workspace, city.key, "entities").read_text())
    assert document["properties"]["synthetic"] is True
    assert [each["name"] for each in document["properties"]["providers"]] == ["urban"]
    text = attribution_file(workspace, city.key).read_text()
    assert "**SYNTHETIC" in text and "Name: nobody" in text
    file, _ = open_parquet(workspace.layer_file(city.key, "entities"))
    file.close()
