"""Whole files or none, schema versions, GeoParquet metadata, Hilbert order, the manifest."""

import json
import os
import subprocess
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from urbancli.errors import UrbanError
from urbancli.hilbert import hilbert_index
from urbancli.workspace import (
    Workspace,
    atomic_path,
    geo_table,
    read_json,
    read_table,
    sha256,
    sweep,
    write_json,
    write_manifest,
    write_table,
)


def _points(count: int = 50) -> pa.Table:
    generator = np.random.default_rng(0)
    shapes = shapely.points(generator.uniform(0, 1, (count, 2)))
    return geo_table({"name": [f"p{i}" for i in range(count)]}, np.asarray(shapes, dtype=object))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="halfway"), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise ValueError("halfway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UrbanError, match="cannot write"):
        write_json(tmp_path / "file" / "below.json", {})


def test_an_unknown_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(UrbanError, match="schema version 99"):
        read_json(path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UrbanError, match="schema version None"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("damage", ["truncate", "replace"])
def test_a_damaged_parquet_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, _points(), {})
    path.write_bytes(path.read_bytes()[:100] if damage == "truncate" else b"text")
    with pytest.raises(UrbanError, match="not a whole Parquet file"):
        read_table(path)


def test_damaged_pages_behind_a_whole_footer_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, _points(), {})
    content = bytearray(path.read_bytes())
    for place in range(4, 60):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UrbanError, match=r"a\.parquet is damaged: delete it"):
        read_table(path)


def test_geopandas_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, _points(), {"licence": "CC0"})
    frame = gpd.read_parquet(path, bbox=(0.0, 0.0, 0.5, 0.5))
    assert frame.crs.to_epsg() == 4326
    assert 0 < len(frame) < 50
    metadata = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert metadata["version"] == "1.1.0"
    assert metadata["columns"]["geometry"]["geometry_types"] == ["Point"]
    assert read_table(path)[1]["licence"] == "CC0"


def test_rows_stand_in_hilbert_order_and_bytes_are_equal(tmp_path: Path) -> None:
    table = _points()
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    write_table(tmp_path / "a.parquet", table, {})
    write_table(tmp_path / "b.parquet", shuffled, {})
    assert sha256(tmp_path / "a.parquet") == sha256(tmp_path / "b.parquet")


def test_the_hilbert_curve_visits_every_cell_by_single_steps() -> None:
    columns, rows = np.meshgrid(np.arange(16), np.arange(16))
    index = hilbert_index(columns.ravel(), rows.ravel(), bits=4)
    order = np.argsort(index)
    assert sorted(index) == list(range(256))
    walk = np.column_stack([columns.ravel()[order], rows.ravel()[order]])
    assert (np.abs(np.diff(walk, axis=0)).sum(axis=1) == 1).all()


def test_the_hilbert_curve_is_that_of_one_level_at_a_time() -> None:
    generator = np.random.default_rng(0)
    for bits in (1, 2, 3, 4, 5, 16, 31):
        x, y = generator.integers(0, 1 << bits, (2, 50))
        for column, row, index in zip(x, y, hilbert_index(x, y, bits), strict=True):
            a, b, expected = int(column), int(row), 0
            for bit in reversed(range(bits)):
                side = 1 << bit
                right, upper = a & side > 0, b & side > 0
                expected += side * side * ((3 * right) ^ upper)
                a, b = a % side, b % side
                if not upper:
                    if right:
                        a, b = side - 1 - a, side - 1 - b
                    a, b = b, a
            assert index == expected, bits


def test_a_city_counts_as_fetched_by_its_manifest_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_json(workspace.lock_file("x"), {})
    assert workspace.cities() == []
    write_manifest(workspace.city_dir("x"), [workspace.lock_file("x")])
    assert workspace.cities() == ["x"]
    listed = read_json(workspace.manifest_file("x"))["files"]
    assert listed["lock.json"]["sha256"] == sha256(workspace.lock_file("x"))


def test_only_the_litter_of_the_dead_is_swept(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    dead = tmp_path / "layers" / f".a.parquet.{process.pid}.part"
    alive = tmp_path / f".b.parquet.{os.getpid()}.part"
    whole = tmp_path / "c.parquet"
    dead.parent.mkdir()
    for path in (dead, alive, whole):
        path.write_text("")
    sweep(tmp_path)
    assert (dead.exists(), alive.exists(), whole.exists()) == (False, True, True)
