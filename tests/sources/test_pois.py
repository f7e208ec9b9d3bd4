"""Points of interest from CSV, GeoJSON and GeoParquet files."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, tiles_of
from urbancli.layers import ENTITY_SCHEMA, entity_view, poi_category
from urbancli.sources.pois import Source
from urbancli.workspace import geometries


@pytest.fixture(scope="module")
def tiles() -> Places:
    return tiles_of(shapely.box(8.99, 49.99, 9.03, 50.03), Grid(32632))


def rows_of(path: Path, places: Places) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The rows of a file by entity id, tags and geometry decoded, and the facts."""
    source = Source(path)
    source.plan(places)
    tables = [source.read(block) for block in source.blocks(places)]
    table = pa.concat_tables(tables)
    assert table.schema == ENTITY_SCHEMA
    rows = {}
    for row, shape in zip(table.to_pylist(), geometries(table), strict=True):
        rows[row["entity_id"]] = {**row, "tags": dict(row["tags"]), "shape": shape}
    assert len(rows) == table.num_rows == source.facts(source.schema.empty_table())["kept"]
    return rows, source.facts(source.schema.empty_table())


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_text_columns_become_tags(tmp_path: Path, tiles: Places) -> None:
    path = write(
        tmp_path / "p.csv",
        "id,Name,category,Latitude,LON,stars,note\n"
        'a,"Größe, Café",cafe,50.001,9.001,4.5,\n'
        "b,,bar,50.002,9.002,,cosy\n",
    )
    rows, facts = rows_of(path, tiles)
    assert rows["poi/a"]["tags"] == {"name": "Größe, Café", "category": "cafe"}
    assert rows["poi/b"]["tags"] == {"category": "bar", "note": "cosy"}
    assert rows["poi/a"]["shape"].equals(shapely.Point(9.001, 50.001))
    assert rows["poi/a"]["members"] == []
    assert facts["counted"] == facts["kept"] == 2


def test_a_json_column_gives_the_tags(tmp_path: Path, tiles: Places) -> None:
    path = tmp_path / "p.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["osm_id", "name", "category", "lat", "lon", "raw_tags", "other"])
        tags = {"amenity": "cafe", "name": "In", "level": 2, "empty": None, "list": [1, "a"]}
        writer.writerow([7, "Out", "cafe", 50.001, 9.001, json.dumps(tags), "x"])
        writer.writerow([8, "", "bar", 50.001, 9.001, "{broken", "y"])
        writer.writerow([9, "N", "", 50.001, 9.001, "", "z"])
        writer.writerow([10, "", "", 50.001, 9.001, "[1, 2]", ""])
    rows, facts = rows_of(path, tiles)
    assert rows["poi/7"]["tags"] == {
        "amenity": "cafe", "name": "In", "level": "2", "list": '[1, "a"]', "category": "cafe"
    }  # fmt: skip
    assert rows["poi/8"]["tags"] == {"category": "bar", "other": "y"}
    assert rows["poi/9"]["tags"] == {"name": "N", "other": "z"}
    assert rows["poi/10"]["tags"] == {}
    assert facts["broken_tags"] == {"count": 2, "ids": ["poi/8", "poi/10"]}


def test_every_row_is_accounted_for(tmp_path: Path, tiles: Places) -> None:
    places = [
        "50.001,9.001", ",9.001", "x,9.001", "91,9.001", "50.001,181", "50.001,", "inf,9.0",
        "50.001,-9.001", "50.002,9.002",
    ]  # fmt: skip
    path = write(tmp_path / "p.csv", "lat,lng\n" + "\n".join(places) + "\n")
    rows, facts = rows_of(path, tiles)
    assert list(rows) == ["poi/1", "poi/9"]
    assert facts["without_coordinates"] == {"count": 6, "ids": [f"poi/{i}" for i in range(2, 8)]}
    assert facts["outside"] == 1
    assert facts["counted"] == 9


def test_ids_are_unique_and_no_row_is_lost(tmp_path: Path, tiles: Places) -> None:
    ids = ["5", "5", "", "3", "5", "5-row7", "5"]
    lines = [f"{i},50.001,9.001" for i in ids]
    path = write(tmp_path / "p.csv", "id,y,x\n" + "\n".join(lines) + "\n")
    rows, facts = rows_of(path, tiles)
    assert list(rows) == [
        "poi/5", "poi/5-row2", "poi/3", "poi/3-row4", "poi/5-row5", "poi/5-row7", "poi/5-row7-row7"
    ]  # fmt: skip
    assert facts["duplicate_ids"]["count"] == 4


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_delimiter_and_a_byte_order_mark_are_read(
    tmp_path: Path, tiles: Places, delimiter: str
) -> None:
    text = "\ufeff" + "lat,lon,name\n50.001,9.001,Bar\n".replace(",", delimiter)
    rows, _ = rows_of(write(tmp_path / "p.csv", text), tiles)
    assert rows["poi/1"]["tags"] == {"name": "Bar"}


def vector_frame() -> gpd.GeoDataFrame:
    shapes = [
        shapely.Point(9.001, 50.001, 12.0),
        shapely.box(9.001, 50.001, 9.009, 50.002),
        shapely.Polygon([(9.0, 50.0), (9.001, 50.001), (9.001, 50.0), (9.0, 50.001)]),
        None,
    ]
    values = {
        "id": [1, 2, 3, 4], "name": ["A", "B", None, "D"], "seats": [3, 4, 5, 6],
        "kind": ["cafe", None, "bar", "bar"],
    }  # fmt: skip
    return gpd.GeoDataFrame(values, geometry=shapes, crs=4326)


@pytest.mark.parametrize("suffix", [".geojson", ".parquet", ".gpkg"])
def test_vector_files_keep_their_geometries(tmp_path: Path, tiles: Places, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    frame = vector_frame().to_crs(4326 if suffix == ".geojson" else 32632)
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    rows, facts = rows_of(path, tiles)
    assert [row["shape"].geom_type for row in rows.values()] == ["Point", "Polygon", "MultiPolygon"]
    assert not any(row["shape"].has_z for row in rows.values())
    assert rows["poi/1"]["tags"] == {"name": "A", "kind": "cafe"}
    assert rows["poi/2"]["tags"] == {"name": "B"}
    assert len(rows["poi/2"]["places"]) > 1
    assert facts["repaired"] == {"count": 1, "ids": ["poi/3"]}
    assert facts["without_coordinates"]["ids"] == ["poi/4"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.csv", b"", "is empty"),
        ("p.csv", b"lat,lon\n", "no rows"),
        ("p.csv", b"name,breite,laenge\na,1,2\n", "no lat and lon .* name, breite, laenge"),
        ("p.csv", b"\x89PNG\r\n\x1a\n\x00\xff", "as a table"),
        ("p.csv", b"lat,lon\n1,2\n1,2,3\n", "as a table"),
        ("p.csv", b"lat,lon\n1,2,3\n1,2,3\n", "as a table"),
        ("p.csv", b"lat,lon\n9.001,50.001\n", "misses the city"),
        ("p.csv", b"lat,lon\n555000,5500000\n", "out of range"),
        ("p.geojson", b"hello", "cannot read"),
        ("p.geojson", b'{"type": "FeatureCollection", "features": []}', "p.geojson"),
    ],
)
def test_bad_files_are_refused(
    tmp_path: Path, tiles: Places, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UrbanError, match=said) as raised:
        Source(tmp_path / name).plan(tiles)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path, tiles: Places) -> None:
    with pytest.raises(UrbanError, match="no file"):
        Source(tmp_path / "p.csv").plan(tiles)


def test_the_source_claims_no_licence(tmp_path: Path) -> None:
    source = Source(tmp_path / "mine.csv")
    assert (source.layer, source.licence) == ("pois", "user-supplied")
    assert source.attribution == "mine.csv"


def test_the_places_of_delhi(real_data: Path) -> None:
    """All 1,577 rows: inside the box 1,324, and two more in the tiles that its border cuts."""
    path = real_data / "delhi/osm_places.csv"
    box = (77.06, 28.48, 77.32, 28.74)
    places = tiles_of(shapely.box(*box), Grid(32643))
    rows, facts = rows_of(path, places)
    with path.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert facts["counted"] == len(lines) == 1577
    assert facts["without_coordinates"]["count"] == facts["duplicate_ids"]["count"] == 0
    assert facts["kept"] + facts["outside"] == 1577

    lon, lat = (np.array([float(line[name]) for line in lines]) for name in ("lon", "lat"))
    cells = places.grid.tile_at(*places.grid.project(lon, lat))
    tile_of = {f"poi/{line['osm_id']}": places.grid.tile_id(*cell)
               for line, cell in zip(lines, cells.tolist(), strict=True)}  # fmt: skip
    held = {name: tile for name, tile in tile_of.items() if tile in set(places.place_id)}
    assert sum(not row["places"] for row in rows.values()) == facts["halo"]
    rows = {name: row for name, row in rows.items() if row["places"]}
    assert {name: row["places"] for name, row in rows.items()} == {n: [t] for n, t in held.items()}
    inside = (lon >= box[0]) & (lon <= box[2]) & (lat >= box[1]) & (lat <= box[3])
    assert inside.sum() == 1324
    assert {f"poi/{lines[i]['osm_id']}" for i in np.flatnonzero(inside)} <= rows.keys()

    by_id = {f"poi/{line['osm_id']}": line for line in lines}
    for name, row in rows.items():
        assert row["tags"].items() >= json.loads(by_id[name]["raw_tags"]).items()
        assert row["tags"]["category"] == by_id[name]["category"]
    categories = Counter(poi_category(row["tags"]) for row in rows.values())
    assert None not in categories
    assert categories["amenity=restaurant"] > 600
    source = Source(path)
    source.plan(places)
    block = source.read(source.blocks(places)[20])
    assert entity_view(block, "pois").num_rows == block.num_rows
