"""What `urban train` and `urban embed` refuse, say and forgive; each in one line."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Town, Urban
from urbancli.embeddings import read_embeddings
from urbancli.workspace import Workspace, write_json

TRAIN = ("train", "--method", "urbanfusion")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ((*TRAIN, "--hold-out-split", ""), "names no split file"),
        ((*TRAIN, "--device", "gpu"), "unknown device"),
        ((*TRAIN, "--precision", "bf61"), "did you mean bf16"),
        ((*TRAIN, "--seed", str(1 << 63)), "from 0 to 2**63 - 1"),
        ((*TRAIN, "--city", "!"), "'!' names no city"),
        (("embed", "--run", "."), "unknown run '.'"),
        ((*TRAIN, "--set", "epochs=0"), "epochs is at least 1"),
        ((*TRAIN, "--set", "lr=nan"), "lr is a finite number"),
        ((*TRAIN, "--missing", "1"), "missing is at least 0 and below 1"),
        ((*TRAIN, "--chunk", "1"), "chunk is at least 2, or 0"),
        ((*TRAIN, "--sweep", "epochs"), "'epochs' is no KEY=VALUE,VALUE…"),
        ((*TRAIN, "--sweep", "epochs=1,,2"), "is no KEY=VALUE,VALUE…"),
        ((*TRAIN, "--sweep", "epochs=1,2", "--set", "epochs=3"), "epochs is set more than once"),
        ((*TRAIN, "--sweep", "epoch=1,2"), "unknown parameter 'epoch'"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_what_would_train_nothing_is_refused_though_the_run_exists(
    town: Town, urban: Urban, arguments: tuple[str, ...], remedy: str
) -> None:
    done = urban("-w", town.workspace, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("error: ") and remedy in done.err


def test_a_city_may_be_spelt_as_one_likes(town: Town, urban: Urban) -> None:
    spelt = "Synthetic  Town"
    done = urban("-w", town.workspace, *town.train, "--city", spelt, "--city", "SYNTHETIC-TOWN")
    assert done.code == 0, done.err
    assert done.err.count("already trained") == 1
    (run,) = Workspace(town.workspace).runs()
    out = Path(town.workspace).parent / "spelt.parquet"
    done = urban("-w", town.workspace, "embed", "--run", run, "--city", spelt, "--out", out)
    assert done.code == 0 and out.is_file(), done.err


def test_seeds_and_sweeps_are_trained_in_every_combination(
    town: Town, urban: Urban, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(town.workspace, workspace, ignore=shutil.ignore_patterns("runs", "results"))
    asked = ("--seeds", "2", "--seed", "3", "--sweep", "reconstruction_weight=0,0.5, 0.5")
    done = urban("-w", workspace, *town.train, *asked, "--json")
    assert done.code == 0, done.err
    runs = [(run["seed"], run["overrides"][-1]) for run in done.json()]
    weights = ("reconstruction_weight=0", "reconstruction_weight=0.5")
    assert runs == [(seed, weight) for weight in weights for seed in (3, 4)]
    done = urban("-w", workspace, "bench", "--json")
    settings = {row["settings"] for row in done.json()["rows"]}
    assert any("reconstruction_weight chosen of 2" in text for text in settings)


def test_embeddings_are_never_written_over_anything_else(
    town: Town, urban: Urban, tmp_path: Path
) -> None:
    (run,) = Workspace(town.workspace).runs()
    folder = town.workspace / "runs" / run
    before = (folder / "embeddings.parquet").read_bytes()
    notes, json = tmp_path / "notes.txt", tmp_path / "a.json"
    notes.write_text("mine")
    write_json(json, {})
    places = town.workspace / "data/synthetic-town/places.parquet"
    shutil.copyfile(places, tmp_path / "other.parquet")
    for out, remedy in (
        (folder / "embeddings.parquet", "which urban keeps itself"),
        (town.workspace / "data/../data/new.parquet", "which urban keeps itself"),
        (notes, "is no file of embeddings"),
        (json, "is no file of embeddings"),
        (tmp_path, "is no file of embeddings"),
        (tmp_path / "other.parquet", "is no file of embeddings"),
    ):
        done = urban("-w", town.workspace, "embed", "--run", run, "--out", out)
        assert done.code == 2 and remedy in done.err, (out, done.err)
    assert notes.read_text() == "mine"
    assert (folder / "embeddings.parquet").read_bytes() == before
    out = tmp_path / "e.parquet"
    for _ in range(2):
        done = urban("-w", town.workspace, "embed", "--run", run, "--out", out)
        assert done.code == 0, done.err
        assert len(done.err.splitlines()) == 1, "nothing to warn of"
    done = urban("-w", town.workspace, "embed", "--run", run, "--places", out, "--out", out)
    assert done.code == 2 and "is the file of --places" in done.err


def test_places_get_ids_of_their_own_and_far_ones_are_told(
    town: Town, urban: Urban, tmp_path: Path
) -> None:
    (run,) = Workspace(town.workspace).runs()
    tile = pq.read_table(town.workspace / "data/synthetic-town/places.parquet").slice(40, 1)
    lon, lat = (round(tile.column(name)[0].as_py(), 6) for name in ("lon", "lat"))
    spots = [(lat, lon, "a"), (lat, lon, "a"), (lat + 0.0001, lon, "b"), (lat + 2, lon + 2, "c"),
             (0, 51, "beyond the projection")]  # fmt: skip
    table, out = tmp_path / "spots.csv", tmp_path / "spots.parquet"
    table.write_text("\n".join(["lat,lon,id", *(f"{y},{x},{name}" for y, x, name in spots)]))
    done = urban("-w", town.workspace, "embed", "--run", run, "--places", table, "--out", out)
    assert done.code == 0, done.err
    assert "1 rows are no points" in done.err
    assert "the ids in 'id' are not unique: ids are made from the positions" in done.err
    assert "1 of 4 places lie outside the fetched tiles of 'synthetic-town'" in done.err
    ids = read_embeddings(out)[0].place_id
    here = f"p_{round(lon * 1e7)}_{round(lat * 1e7)}"
    assert len(set(ids)) == 4 and {here, f"{here}-2"} < set(ids)


def test_what_a_run_misses_in_a_city_is_told(town: Town, urban: Urban, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    shutil.copytree(town.workspace, workspace)
    (run,) = Workspace(workspace).runs()
    (workspace / "data/synthetic-town/layers/naip.parquet").unlink()
    out = tmp_path / "e.parquet"
    done = urban("-w", workspace, "embed", "--run", run, "--out", out)
    assert done.code == 0, done.err
    assert f"warning: the layer naip is gone since {run} was trained" in done.err
    assert "'synthetic-town' has no naip: treated as dropped" in done.err
    assert read_embeddings(out)[1]["missing"] == ["naip"]
