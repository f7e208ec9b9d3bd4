"""Every command on a town of local files: results, files that other tools open, idempotence."""

import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest

from benchmarks._peers import duckdb_home, gpio_check, rows_elsewhere
from tests.cli.conftest import Town, Urban
from urbancli.workspace import Workspace, read_json, sha256

RUN = "urbanfusion-synthetic-town-small-s0"


def _run_name(town: Town) -> str:
    (run,) = Workspace(town.workspace).runs()
    assert run.startswith(RUN)
    return run


def test_a_fetch_leaves_whole_listed_files(town: Town) -> None:
    city = town.workspace / "data/synthetic-town"
    listed = read_json(city / "manifest.json")["files"]
    names = {"places", "layers/naip", "layers/entities", "layers/pois",
             "labels/population_density", "labels/cover"}  # fmt: skip
    items = {f"stac/{layer}.json" for layer in ("naip", "entities", "pois")}
    beside = {"lock.json", "ATTRIBUTION.md"} | items
    assert set(listed) == beside | {f"{name}.parquet" for name in names}
    for name, entry in listed.items():
        assert sha256(city / name) == entry["sha256"]
    assert not list(city.glob(".staging")) and not list(city.rglob("*.part"))
    assert str(town.inputs) not in (city / "lock.json").read_text()


def test_the_same_fetch_again_changes_nothing(town: Town, urban: Urban) -> None:
    manifest = town.workspace / "data/synthetic-town/manifest.json"
    before = manifest.read_bytes()
    done = urban("-w", town.workspace, *town.fetch, "--json")
    assert done.code == 0, done.err
    assert manifest.read_bytes() == before
    assert done.json()["tiles"] > 80


def test_a_fetch_can_add_a_layer_later(town: Town, urban: Urban, tmp_path: Path) -> None:
    bare = [part for part in town.fetch if not part.endswith("pois.csv") and part != "--pois"]
    assert urban("-w", tmp_path, *bare).code == 0
    assert urban("-w", tmp_path, *town.fetch).code == 0
    listed = [
        read_json(folder / "data/synthetic-town/manifest.json")["files"]
        for folder in (tmp_path, town.workspace)
    ]
    assert listed[0] == listed[1]


def test_another_box_in_the_same_folder_is_refused(town: Town, urban: Urban) -> None:
    arguments = list(town.fetch)
    arguments[arguments.index("--bbox") + 1] = "-41.15,44.96,-41.14,44.97"
    done = urban("-w", town.workspace, *arguments)
    assert done.code == 1
    assert "another area" in done.err


def test_training_again_keeps_the_run(town: Town, urban: Urban) -> None:
    model = town.workspace / "runs" / _run_name(town) / "model.safetensors"
    before = model.stat().st_mtime_ns
    done = urban("-w", town.workspace, *town.train, "--json")
    assert done.code == 0, done.err
    assert "already trained" in done.err
    assert model.stat().st_mtime_ns == before
    (facts,) = done.json()
    assert facts["preset"] == "small"
    assert set(facts["modalities"]) == {"coords", "naip", "entities", "pois"}


def test_embedding_a_users_own_points(town: Town, urban: Urban, tmp_path: Path) -> None:
    frame_path = town.workspace / "data/synthetic-town/places.parquet"
    frame = gpd.read_parquet(frame_path).head(5)
    table = tmp_path / "points.csv"
    lines = [
        f"{lat},{lon},house-{n}"
        for n, (lat, lon) in enumerate(zip(frame.lat, frame.lon, strict=True))
    ]
    table.write_text("\n".join(["lat,lon,place_id", *lines, ",,nowhere"]))
    out = tmp_path / "out.parquet"
    done = urban("-w", town.workspace, "embed", "--run", _run_name(town), "--places", table,
                 "--out", out)  # fmt: skip
    assert done.code == 0, done.err
    assert "1 rows are no points" in done.err
    embedded = gpd.read_parquet(out)
    assert sorted(embedded.place_id) == [f"house-{n}" for n in range(5)]
    dropped = tmp_path / "dropped.parquet"
    assert urban("-w", town.workspace, "embed", "--run", _run_name(town), "--drop", "satellite",
                 "--out", dropped).code == 0  # fmt: skip
    assert len(gpd.read_parquet(dropped)) == len(gpd.read_parquet(frame_path))


@pytest.mark.parametrize("drop", [(), ("--drop", "satellite")])
def test_bench_scores_runs_and_controls(town: Town, urban: Urban, drop: tuple[str, ...]) -> None:
    done = urban("-w", town.workspace, "bench", *drop, "--json")
    assert done.code == 0, done.err
    rows = done.json()["rows"]
    assert {row["task"] for row in rows} == {"population_density", "cover"}
    assert {"urbanfusion", "constant", "coordinates", "concatenation", "untrained"} <= {
        row["method"] for row in rows
    }
    if drop:
        retained = [row for row in rows if row["drop"] and row["method"] == "urbanfusion"]
        assert retained and all(row["retention"] is not None for row in retained)


def test_the_terminal_table_shows_preset_and_interval(town: Town, urban: Urban) -> None:
    done = urban("-w", town.workspace, "bench")
    assert done.code == 0, done.err
    assert "small" in done.out and "concatenation" in done.out and "[" in done.out


def test_list_names_everything(town: Town, urban: Urban) -> None:
    assert {"delhi", "demo"} <= set(urban("list", "cities").out.split())
    assert urban("list", "suites").out.split() == ["cookie", "demo", "urbanfusion"]
    assert "urbanfusion" in urban("list", "methods").out.split()
    assert urban("-w", town.workspace, "list", "fetched").out.split() == ["synthetic-town"]
    assert urban("-w", town.workspace, "list", "runs", "--json").json() == [_run_name(town)]
    assert "satellite = sentinel2 + naip + sentinel1" in urban("list", "modalities").out


def test_every_file_passes_gpio_and_opens_elsewhere(town: Town, tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the extra `peers`")
    home = duckdb_home(tmp_path)
    paths = sorted((town.workspace / "data").rglob("*.parquet"))
    paths += sorted((town.workspace / "runs").rglob("embeddings.parquet"))
    assert len(paths) == 7
    for path in paths:
        geopandas, duckdb = rows_elsewhere(path, home)
        assert geopandas == duckdb > 0, path
        assert gpio_check(path, home) == "", path


def test_a_run_named_twice_is_scored_once(town: Town, urban: Urban) -> None:
    twice = ["--run", _run_name(town)] * 2 + ["--city", "Synthetic Town"] * 2
    rows = urban("-w", town.workspace, "bench", *twice, "--json").json()["rows"]
    keys = [(row["method"], row["run"], row["task"]) for row in rows]
    assert len(keys) == len(set(keys))


def test_small_manners(urban: Urban, tmp_path: Path) -> None:
    alone = urban()
    assert (alone.code, alone.err) == (2, "") and "Usage" in alone.out
    assert urban("-w", tmp_path, "list", "runs").out == ""
    script = f"{sys.executable} -m urbancli list cities | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "amsterdam\n", "")
