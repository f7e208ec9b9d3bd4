"""The issue's own fetches of Manhattan and Delhi, as `python -m benchmarks.cities` runs them."""

from pathlib import Path

import pytest

from benchmarks._peers import duckdb_home, gpio_check, rows_elsewhere
from benchmarks.cities import DELHI, NEW_YORK
from tests.cli.conftest import Urban


def _judge(city: Path, home: Path) -> int:
    """Hold every GeoParquet file of a city to gpio, GeoPandas and DuckDB; return how many."""
    paths = sorted(city.rglob("*.parquet"))
    for path in paths:
        geopandas, duckdb = rows_elsewhere(path, home)
        assert geopandas == duckdb > 0, path
        assert gpio_check(path, home) == "", path
    return len(paths)


def test_manhattan(real_data: Path, urban: Urban, tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the extra `peers`")
    done = urban("-w", tmp_path / "w", *NEW_YORK, "--json")
    assert done.code == 0, done.err
    found = done.json()
    entities = found["layers"]["entities"]
    broken = sum(kind["count"] for kind in entities["broken"].values())
    assert entities["counted"] == entities["kept"] + entities["outside"] + broken
    assert entities["kept"] == 50_443
    assert {
        name: facts["rows_in_file"] for name, facts in found["labels"].items()
    } == dict.fromkeys(("crime", "land_use", "population_density"), 73)
    assert _judge(tmp_path / "w/data/new-york", duckdb_home(tmp_path)) == 5


def test_delhi(real_data: Path, urban: Urban, tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the extra `peers`")
    done = urban("-w", tmp_path / "w", *DELHI, "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert 8_000 < found["tiles"] < 8_500
    assert found["labels"]["land_cover"]["rows_in_file"] == 841
    pois = found["layers"]["pois"]
    assert pois["kept"] + pois["outside"] == pois["counted"] == 1_577
    assert "limited to it" in done.err
    assert _judge(tmp_path / "w/data/delhi", duckdb_home(tmp_path)) == 4
