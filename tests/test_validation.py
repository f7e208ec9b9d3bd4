"""Every check, by a real file broken in that way; and a fetched city without a fault."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from benchmarks._peers import duckdb_home, gpio_check
from tests.small_city import KEY, fetch_small_city, relist
from urbancli.description import attribution_file, item_file
from urbancli.errors import UsageError
from urbancli.lock import layer_fingerprint
from urbancli.validation import Findings, validate
from urbancli.workspace import Workspace, geo_table, geometries, read_json, write_json

Change = Callable[[pa.Table], pa.Table]

POIS, NAIP, SENTINEL2 = "layers/pois", "layers/naip", "layers/sentinel2"
PHOTOS = "layers/streetview"
DENSITY, LAND_USE, PRICES = "labels/population_density", "labels/land_use", "labels/house_price"


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> Workspace:
    """A fetched town; tests copy it."""
    return fetch_small_city(tmp_path_factory.mktemp("valid"), demo_inputs, osm=False)


@pytest.fixture
def town(fetched: Workspace, tmp_path: Path) -> Workspace:
    """A copy to break; its files share their bytes until one is written anew."""
    shutil.copytree(fetched.root, tmp_path / "w", copy_function=os.link)
    return Workspace(tmp_path / "w")


def _file(town: Workspace, name: str) -> Path:
    return town.city_dir(KEY) / f"{name}.parquet"


def _edit(
    path: Path,
    change: Change = lambda table: table,
    urban: dict[str, Any] | None = None,
    geo: Callable[[dict[str, Any]], Any] | None = None,
) -> None:
    """Write a file with other rows or metadata; a value None takes a key out of `urban`."""
    table = pq.read_table(path)
    keys = dict(table.schema.metadata)
    facts = {**json.loads(keys[b"urban"]), **(urban or {})}
    keys[b"urban"] = json.dumps({k: v for k, v in facts.items() if v is not None}).encode()
    if geo is not None:
        keys[b"geo"] = json.dumps(geo(json.loads(keys[b"geo"]))).encode()
    path.unlink()  # a link: the bytes are shared with the town that was fetched
    pq.write_table(change(table).replace_schema_metadata(keys), path, row_group_size=64)


def _set(column: str, row: int, value: Any) -> Change:
    """Return the change of one cell."""

    def change(table: pa.Table) -> pa.Table:
        values = table.column(column).to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        index, field = table.schema.get_field_index(column), table.schema.field(column)
        return table.set_column(index, field, pa.array(values, field.type))

    return change


def _shape(row: int, move: Callable[[Any], Any]) -> Change:
    """Return the change of one geometry, its bbox with it."""

    def change(table: pa.Table) -> pa.Table:
        shapes = geometries(table).copy()
        shapes[row] = move(shapes[row])
        columns = {n: table.column(n) for n in table.column_names if n not in {"bbox", "geometry"}}
        return geo_table(columns, shapes)

    return change


def _validate(town: Workspace) -> Findings:
    return validate(town, [KEY], lambda *_: None)


def _faults(findings: Findings, name: str) -> list[str]:
    return [fault.fault for fault in findings.faults if f"{KEY}/{name}" in fault.file]


def test_a_fetched_city_has_no_fault(fetched: Workspace) -> None:
    findings = _validate(fetched)
    assert findings.faults == []
    folder = fetched.city_dir(KEY)
    files = {path for path in folder.rglob("*") if path.is_file() and path.name != ".fetching"}
    assert len(files) == 4 + 3 + 4 + 4  # layers, labels, their Items, and what is of the city
    assert set(findings.rows) == {path.relative_to(fetched.root).as_posix() for path in files}


def test_gpio_finds_no_fault_either(fetched: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the extra `peers`")
    home = duckdb_home(tmp_path)
    assert gpio_check(fetched.layer_file(KEY, "pois"), home) == ""


# --- rows --------------------------------------------------------------------------------------


def _zero_a_sample(pixels: bytes) -> bytes:
    return b"\0\0" + pixels[2:]


def _bright(pixels: bytes) -> bytes:
    return np.full(len(pixels) // 2, 40_000, "<u2").tobytes()


def _half(table: pa.Table) -> pa.Table:
    """Say that half of the first tile is not valid, and leave its samples."""
    side = round((len(table.column("pixels")[0].as_py()) // 4) ** 0.5)
    valid = np.zeros((side, side), dtype=bool)
    valid[: side // 2] = True
    table = _set("valid", 0, np.packbits(valid).tobytes())(table)
    return _set("valid_fraction", 0, float(valid.mean()))(table)


def _without_rows(*rows: int) -> Change:
    return lambda table: table.take(pa.array([i for i in range(len(table)) if i not in rows]))


def _twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def _column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


BOWTIE = shapely.Polygon([(0, 0), (1e-4, 1e-4), (1e-4, 0), (0, 1e-4)])

ROWS: list[tuple[str, Change, str]] = [
    ("places", _without_rows(2), "1 of the 9 tiles of the lock's area are missing"),
    ("places", _twice, "no id, or one that stands twice: 1 of 10 rows"),
    ("places", _set("share_inside", 1, lambda share: share - 0.01), "share_inside differs"),
    ("places", _set("lon", 1, lambda lon: lon + 1e-6), "lon, lat is not the tile's centre"),
    ("places", _set("kind", 1, "point"), "kind is not 'tile'"),
    ("places", _set("block", 1, "32624_300_b0_0"), "block is not the tile's"),
    ("places", _set("place_id", 1, "32625_300_1_1"), "no tile of the city's grid"),
    ("places", _set("place_id", 1, "here"), "no tile of the city's grid"),
    ("places", _set("place_id", 1, "32624_300_1_1"), "no tile of the lock's area"),
    ("places", _shape(1, lambda box: shapely.affinity.translate(box, 1e-6)), "not the square"),
    (NAIP, _twice, "no id, or one that stands twice"),
    (NAIP, _shape(3, lambda box: shapely.affinity.translate(box, 1e-6)), "not the square"),
    (NAIP, _set("block", 3, "32624_300_b0_0"), "block is not the tile's"),
    (NAIP, _set("pixels", 3, lambda pixels: pixels[:-1]), "pixels are not 57,600 bytes"),
    (NAIP, _set("valid", 3, b"12"), "valid is not 1,800 bytes"),
    (NAIP, _set("valid_fraction", 3, 0.5), "valid_fraction differs from the valid bits"),
    (NAIP, _set("valid_fraction", 3, 1.5), "valid_fraction is not in (0, 1]"),
    (NAIP, _set("valid_fraction", 3, 0.0), "valid_fraction is not in (0, 1]"),
    (NAIP, _half, "a sample where nothing is valid is not 0"),
    (SENTINEL2, _set("pixels", 3, _zero_a_sample), "a valid sample is 0"),
    (NAIP, _set("year", 0, 1066), "year is not in 2000 … 2100: 1 of"),
    (NAIP, _set("year_share", 1, 0.0), "year_share is not in (0, 1]: 1 of"),
    (NAIP, _set("native_m", 2, -1.0), "native_m is not above 0: 1 of"),
    (NAIP, _set("pixels", 0, lambda pixels: bytes(len(pixels))), "all valid samples are 0: 1 of"),
    (SENTINEL2, _set("pixels", 3, _bright), "of the samples are above 20,000"),
    (POIS, _twice, "no id, or one that stands twice"),
    (POIS, _set("tags", 0, None), "no tags"),
    (POIS, _set("block", 0, "32624_300_b0_0"), "block of 8×8 is none of its tiles'"),
    (POIS, _set("places", 0, ["32624_300_1_1"]), "not in places.parquet"),
    (POIS, _shape(0, lambda point: shapely.Point(-41.0, 45.0)), "beyond the halo"),
    (POIS, _shape(0, lambda _: BOWTIE), "geometry is not valid"),
    (POIS, _shape(0, lambda _: shapely.Point()), "no geometry"),
    (POIS, _shape(0, lambda _: shapely.Point(190, 0)), "beyond the globe"),
    (POIS, _set("bbox", 0, dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), 0.0)), "bbox differs"),
    (DENSITY, _set("value", 0, float("nan")), "value is not finite"),
    (DENSITY, _set("value", 0, None), "1 units have no value, its metadata say 0"),
    (DENSITY, _set("unit_id", 0, "7"), "no tile of the city's grid"),
    (LAND_USE, _twice, "no id, or one that stands twice"),
    (LAND_USE, _shape(0, lambda _: BOWTIE), "geometry is not valid"),
    (LAND_USE, _shape(0, lambda _: shapely.box(0, 0, 1, 1)), "outside the city's tiles"),
    (PRICES, _shape(0, lambda point: point.buffer(1e-5)), "geometry is not that of a point"),
    (PRICES, lambda t: _column(t, "value", pa.array(["a"] * len(t))), "value is string"),
    (PRICES, lambda t: t.drop_columns("value"), "value is None"),
    (PRICES, lambda t: t.drop_columns("unit_id"), "columns: no column unit_id (string)"),
    (PHOTOS, _twice, "no id, or one that stands twice"),
    (PHOTOS, _set("place_id", 0, "32624_300_1_1"), "not in places.parquet"),
    (PHOTOS, _shape(0, lambda _: shapely.Point(-41.1, 44.9)), "not taken in the tile"),
    (PHOTOS, _set("lon", 0, -41.1), "lon, lat differ from the geometry"),
    (PHOTOS, _set("heading", 0, 360.0), "heading is not in [0, 360)"),
    (PHOTOS, _set("block", 0, "32624_300_b0_0"), "block is not the tile's"),
    (PHOTOS, _set("image", 0, lambda image: image[:-2]), "image is not a whole JPEG"),
    (PHOTOS, _set("licence", 0, "mine"), "licence is unknown"),
    (NAIP, lambda t: _column(t, "block", pa.array([1] * len(t))), "block is int64, not string"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "fault"), ROWS, ids=[f"{n}-{f}" for n, _, f in ROWS])
def test_rows_that_are_wrong(town: Workspace, name: str, change: Change, fault: str) -> None:
    _edit(_file(town, name), change)
    relist(town)
    findings = _validate(town)
    assert any(fault in found for found in _faults(findings, f"{name}.parquet")), findings.faults
    remedies = [each.remedy for each in findings.faults if each.file.endswith(f"{name}.parquet")]
    assert all(f"`urban fetch --city {KEY}`" in remedy for remedy in remedies)


def test_an_entity_that_names_a_tile_it_does_not_touch(town: Workspace) -> None:
    path = _file(town, POIS)
    places = pq.read_table(path).column("places").to_pylist()
    first = next(row for row, own in enumerate(places) if own)
    other = next(own for own in places if own and own != places[first])
    _edit(path, _set("places", first, other))
    faults = _faults(_validate(town), f"{POIS}.parquet")
    assert any("does not touch a tile that it names: 1 of" in fault for fault in faults)


def test_a_float_layer_must_be_finite_where_it_is_valid(town: Workspace) -> None:
    def change(table: pa.Table) -> pa.Table:
        samples = np.ones((30, 30), "<f4")
        columns = {"pixels": [samples.tobytes()] * len(table)}
        samples[0, 0] = np.inf
        columns["pixels"][1] = samples.tobytes()
        return _column(table, "pixels", pa.array(columns["pixels"], pa.binary()))

    _edit(_file(town, SENTINEL2), change, {"dtype": "float32", "bands": ["vv"], "pixel_m": 10.0})
    faults = _faults(_validate(town), f"{SENTINEL2}.parquet")
    assert "a valid sample is not finite: 1 of" in " ".join(faults)


def test_backscatter_is_in_decibel(town: Workspace) -> None:
    def change(table: pa.Table) -> pa.Table:
        linear = np.full((2, 30, 30), 3000.0, "<f4")  # digital numbers in place of decibel
        return _column(table, "pixels", pa.array([linear.tobytes()] * len(table), pa.binary()))

    about = {"dtype": "float32", "bands": ["vv", "vh"], "pixel_m": 10.0,
             "provenance": {"source": "sentinel1"}}  # fmt: skip
    _edit(_file(town, SENTINEL2), change, about)
    faults = _faults(_validate(town), f"{SENTINEL2}.parquet")
    assert "a valid sample is not in -80 … 60 dB" in " ".join(faults)


# --- metadata ----------------------------------------------------------------------------------


def _geometry(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(geo: dict[str, Any]) -> dict[str, Any]:
        geo["columns"]["geometry"] |= changes
        return geo

    return change


GEO: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda geo: {}, "no GeoParquet metadata"),
    (lambda geo: {**geo, "version": "1.0.0"}, 'version is "1.0.0", not "1.1.0"'),
    (lambda geo: {**geo, "primary_column": "shape"}, "primary column"),
    (_geometry(encoding="point"), "encoding"),
    (_geometry(covering={}), "covering"),
    (_geometry(crs=None), "CRS"),
    (_geometry(geometry_types=["Point", "Polygon"]), "geometry_types are said to be"),
    (_geometry(geometry_types=[]), "geometry_types are said to be []"),
    (_geometry(bbox=[-41.2, 44.0, -41.0, 45.0]), "bbox is said to be [-41.2"),
]


@pytest.mark.parametrize(("geo", "fault"), GEO, ids=[fault for _, fault in GEO])
def test_geoparquet_metadata_that_is_wrong(
    town: Workspace, geo: Callable[[dict[str, Any]], Any], fault: str
) -> None:
    _edit(_file(town, PRICES), geo=geo)
    assert any(fault in found for found in _faults(_validate(town), f"{PRICES}.parquet"))


URBAN: list[tuple[str, dict[str, Any], str]] = [
    (POIS, {"licence": None}, "its metadata lack licence"),
    (POIS, {"licence": ""}, "it has no licence"),
    (POIS, {"licence": "WTFPL-9"}, "licence 'WTFPL-9' is unknown"),
    (POIS, {"licence": "ODbL-1.0", "attribution": ""}, "no attribution, which ODbL-1.0 wants"),
    (POIS, {"epsg": 32625}, "its epsg is 32625, the lock says 32624"),
    (POIS, {"synthetic": "SYNTHETIC"}, "whether the city is synthetic"),
    (POIS, {"schema_version": 0}, "schema version 0"),
    (POIS, {"plan_fingerprint": "0"}, "it was made for another area or plan"),
    (POIS, {"provenance": {"inputs": []}}, "the lock says it was made otherwise"),
    (PRICES, {"source": {}}, "the lock says it was made otherwise"),
    (PRICES, {"kind": "classification"}, "value is double, not that of a classification"),
    (NAIP, {"dtype": "uint16"}, "samples are uint16, not uint8"),
    (NAIP, {"pixel_m": 0.7}, "do not fill a tile"),
    (NAIP, {"bands": None}, "its metadata lack bands"),
    ("places", {"area_fingerprint": "0"}, "made for another area than the lock's"),
]


@pytest.mark.parametrize(("name", "urban", "fault"), URBAN, ids=[fault for _, _, fault in URBAN])
def test_facts_that_are_wrong(
    town: Workspace, name: str, urban: dict[str, Any], fault: str
) -> None:
    _edit(_file(town, name), urban=urban)
    findings = _validate(town)
    assert any(fault in found for found in _faults(findings, f"{name}.parquet")), findings.faults


# --- the folder --------------------------------------------------------------------------------


def test_a_changed_byte_is_named(town: Workspace) -> None:
    path = _file(town, NAIP)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.unlink()
    path.write_bytes(content)
    faults = _faults(_validate(town), f"{NAIP}.parquet")
    assert "its checksum is not the manifest's: it has changed" in faults


@pytest.mark.parametrize("keep", [0, 1000])
def test_a_cut_file_is_named(town: Workspace, keep: int) -> None:
    path = _file(town, POIS)
    content = path.read_bytes()[:keep]
    path.unlink()
    path.write_bytes(content)
    assert any("not a whole Parquet file" in f for f in _faults(_validate(town), f"{POIS}.parquet"))


def test_rows_that_cannot_be_decoded_are_named(town: Workspace) -> None:
    path = _file(town, POIS)
    table = pq.read_table(path)
    wrong = _column(table, "geometry", pa.array([b"no WKB"] * len(table), pa.binary()))
    path.unlink()
    pq.write_table(wrong.replace_schema_metadata(table.schema.metadata), path)
    assert "its rows cannot be read (GEOSException)" in _faults(_validate(town), f"{POIS}.parquet")


def test_missing_and_unlisted_files_are_named(town: Workspace) -> None:
    _file(town, POIS).unlink()
    stray = town.city_dir(KEY) / "layers/stray.parquet"
    shutil.copy(_file(town, NAIP), stray)
    (town.city_dir(KEY) / "tokens").mkdir()
    (town.city_dir(KEY) / "tokens/cache").touch()
    findings = _validate(town)
    assert "it is listed in the manifest and missing" in _faults(findings, "layers/pois.parquet")
    assert "the lock names it and it is missing" in _faults(findings, "layers/pois.parquet")
    assert "it is not listed in the manifest" in _faults(findings, "layers/stray.parquet")
    assert not _faults(findings, "tokens")


def test_no_manifest_and_a_broken_one(town: Workspace) -> None:
    path = town.manifest_file(KEY)
    path.unlink()
    assert "it is missing: a fetch did not end" in _faults(_validate(town), "manifest.json")
    path.write_text("{")
    assert any("cannot read" in fault for fault in _faults(_validate(town), "manifest.json"))


def test_a_lock_that_says_otherwise(town: Workspace) -> None:
    path = town.lock_file(KEY)
    lock = read_json(path)
    path.unlink()
    write_json(path, {**lock, "city": {**lock["city"], "tile_m": 150}})
    faults = _validate(town).faults
    assert any("the lock says 150" in fault.fault for fault in faults)
    path.write_text("{}")
    assert any("schema version" in fault for fault in _faults(_validate(town), "lock.json"))


@pytest.mark.parametrize(
    ("field", "value"), [("bbox", [0, 0, 1, 1]), ("stac_version", "1.0.0"), ("id", "x")]
)
def test_an_item_that_does_not_agree(town: Workspace, field: str, value: Any) -> None:
    path = item_file(town, KEY, "naip")
    document = {**json.loads(path.read_text()), field: value}
    path.unlink()
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    faults = _faults(_validate(town), "stac/naip.json")
    assert f"it does not agree with the data: {field}" in faults


def test_an_item_or_attribution_that_is_gone(town: Workspace) -> None:
    item_file(town, KEY, "naip").unlink()
    attribution_file(town, KEY).unlink()
    attribution_file(town, KEY).write_text("all mine")
    findings = _validate(town)
    assert "it is missing" in _faults(findings, "stac/naip.json")
    assert "it does not agree with the data: text" in _faults(findings, "ATTRIBUTION.md")


# --- notes -------------------------------------------------------------------------------------


def test_a_layer_that_urban_does_not_write(town: Workspace) -> None:
    shutil.copy(_file(town, POIS), town.city_dir(KEY) / "layers/weather.parquet")
    assert "it is no layer that urban writes" in _faults(_validate(town), "layers/weather.parquet")


def test_tiles_without_data_are_notes_and_no_faults(town: Workspace) -> None:
    tile = _first_tile(town)
    naip = pq.read_table(_file(town, NAIP)).column("place_id").to_pylist()
    _edit(_file(town, NAIP), _without_rows(naip.index(tile)))

    def without(table: pa.Table) -> pa.Table:
        places = [[p for p in own if p != tile] for own in table.column("places").to_pylist()]
        return _column(table, "places", pa.array(places, table.schema.field("places").type))

    _edit(_file(town, POIS), without)
    findings = _validate(town)
    notes = {(note.file.rpartition("/")[2], note.note) for note in findings.notes}
    assert ("naip.parquet", "1 of the city's 9 tiles have no pixel") in notes
    assert any(name == "pois.parquet" and "hold no entity" in note for name, note in notes)
    assert ("streetview.parquet", "7 of the city's 9 tiles have no photo") in notes
    assert not any("rows" in fault for fault in _faults(findings, "layers/naip.parquet"))


def _first_tile(town: Workspace) -> str:
    return str(pq.read_table(town.places_file(KEY)).column("place_id")[0].as_py())


def test_gaps_that_were_accepted_are_a_note(town: Workspace) -> None:
    lock = read_json(town.lock_file(KEY))
    plan = {**lock["layers"]["naip"], "gaps": ["32624_300_b137_2074"]}
    mark = layer_fingerprint(lock["city"], "naip", plan)
    _edit(_file(town, NAIP), urban={"provenance": plan, "plan_fingerprint": mark})
    town.lock_file(KEY).unlink()
    write_json(town.lock_file(KEY), {**lock, "layers": {**lock["layers"], "naip": plan}})
    findings = _validate(town)
    assert "1 blocks could not be read and are missing" in {note.note for note in findings.notes}
    assert not any("lock" in fault for fault in _faults(findings, "naip"))


def test_a_city_that_is_not_there(fetched: Workspace) -> None:
    with pytest.raises(UsageError, match="no data for 'atlantis'"):
        validate(fetched, ["atlantis"], lambda *_: None)
