"""Runs: whole or not there, the same bytes again, held-out places unseen, any place embedded."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import torch
from run_inputs import BOTH, CORNER, GRID, checksums, make_city, options, some_tiles

from urbancli.embeddings import read_embeddings
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Places, point_places
from urbancli.layers import open_city
from urbancli.runs import (
    RunOptions,
    create_run,
    creation,
    held_out_places,
    open_run,
    parse_hold_out,
)
from urbancli.spoiling import Spoiling
from urbancli.workspace import (
    Workspace,
    geo_table,
    sha256,
    write_table,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def test_a_run_says_what_it_is(workspace: Workspace) -> None:
    city = make_city(workspace, layers=BOTH)
    run = create_run(workspace, city, "urbanfusion", options(seed=4))
    assert run.name.startswith("urbanfusion-tinytown-small-s4-")
    assert workspace.runs() == [run.name]
    assert (run.method, run.city, run.preset, run.seed) == ("urbanfusion", "tinytown", "small", 4)
    assert run.pretraining == "transductive" and run.hold_out is None
    assert run.modalities == ("coords", "sentinel2", "pois")
    assert run.facts["steps"] == 3 * 4 and run.facts["places_seen"] == 3 * 64
    assert run.parameters > 1000 and run.seconds > 0 and run.peak_mb > 10
    assert open_run(workspace, run.name) == run
    curves = pq.read_table(run.folder / "curves.parquet").to_pylist()
    assert [row["epoch"] for row in curves if row["quantity"] == "effective_rank"] == [1, 2, 3]


def test_the_name_has_no_suffix_without_special_settings(workspace: Workspace) -> None:
    from urbancli.runs.creation import _plan

    city = make_city(workspace)
    plain = _plan(city, "urbanfusion", RunOptions(seed=2))
    assert plain.name == "urbanfusion-tinytown-small-s2"
    same = _plan(city, "urbanfusion", RunOptions(seed=2, without=("streetview",)))
    assert same.facts == plain.facts, "leaving out what is not there changes nothing"
    names = {
        _plan(city, "urbanfusion", RunOptions(seed=2, **special)).name
        for special in (
            {"without": ("pois",)},
            {"overrides": ("lr=0.1",)},
            {"precision": "bf16"},
            {"missing": 0.3},
            {"chunk": 8},
        )
    }
    assert len(names) == 5 and plain.name not in names


def test_the_embeddings_are_those_of_embed(workspace: Workspace) -> None:
    city = make_city(workspace)
    run = create_run(workspace, city, "urbanfusion", options())
    tiles = city.tiles()
    values, present = run.embed(city, tiles)
    again, _ = run.embed(city, tiles)
    assert values.shape == (64, 16) and values.dtype == np.float32 and present.all()
    assert np.array_equal(values, again)
    saved, facts = read_embeddings(run.folder / "embeddings.parquet")
    assert np.array_equal(saved.at(tiles.place_id).values, values)
    assert facts["run"] == run.name
    turned, _ = run.embed(city, tiles.take(np.arange(64)[::-1]))
    np.testing.assert_allclose(turned[::-1], values, atol=1e-5)
    reopened, _ = open_run(workspace, run.name).embed(city, tiles)
    assert np.array_equal(reopened, values)


def test_what_is_missing_in_training_is_not_seen_and_is_embedded(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn by the seed; coordinates stay, a place keeps one more, statistics miss it too."""
    seen: dict[str, Any] = {}
    usual = creation.train

    def look(method: Any, tokens: Any, *others: Any) -> Any:
        seen["present"] = {name: part.present.copy() for name, part in tokens.items()}
        seen["mean"] = method.scores.get_buffer("mean_pois").clone()
        return usual(method, tokens, *others)

    monkeypatch.setattr(creation, "train", look)
    city = make_city(workspace, layers=BOTH)
    whole = create_run(workspace, city, "urbanfusion", options())
    before = dict(seen)
    run = create_run(workspace, city, "urbanfusion", options(missing=0.5))
    gaps = {n: (before["present"][n] & ~seen["present"][n]).mean() for n in seen["present"]}
    assert gaps["coords"] == 0 and 0.3 < gaps["pois"] < 0.7 and 0.3 < gaps["sentinel2"] < 0.7
    assert (seen["present"]["pois"] | seen["present"]["sentinel2"]).all()
    assert not torch.equal(before["mean"], seen["mean"])
    assert run.facts["missing"] == 0.5 and run.name != whole.name
    values, present = run.embed(city, city.tiles())
    assert present.all() and np.isfinite(values).all()


def test_the_same_command_keeps_the_run_and_another_workspace_has_its_bytes(
    workspace: Workspace, tmp_path: Path
) -> None:
    run = create_run(workspace, make_city(workspace), "urbanfusion", options())
    before = {path: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    said: list[str] = []
    city = open_city(workspace, "tinytown")
    create_run(workspace, city, "urbanfusion", options(), say=said.append)
    assert said == [f"{run.name} is already trained"]
    assert {path: path.stat().st_mtime_ns for path in run.folder.iterdir()} == before
    other = Workspace(tmp_path / "elsewhere")
    twin = create_run(other, make_city(other), "urbanfusion", options())
    assert checksums(twin.folder) == checksums(run.folder)
    for path in run.folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", [("encode", 1), ("train (fusion)", 1), ("train (fusion)", 3)])
def test_a_killed_run_is_not_there_and_ends_as_an_unbroken_one(
    moment: tuple[str, int], workspace: Workspace, tmp_path: Path
) -> None:
    unbroken = Workspace(tmp_path / "unbroken")
    wanted = create_run(unbroken, make_city(unbroken), "urbanfusion", options())
    city = make_city(workspace)

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == moment:
            raise Killed

    with pytest.raises(Killed):
        create_run(workspace, city, "urbanfusion", options(), kill)
    assert workspace.runs() == []
    with pytest.raises(UsageError, match=r"is not finished|unknown run"):
        open_run(workspace, wanted.name)
    if moment[0] != "encode":
        (workspace.run_dir(wanted.name) / ".model.safetensors.999999999.part").write_text("half")
    said: list[str] = []
    run = create_run(workspace, city, "urbanfusion", options(), say=said.append)
    assert checksums(run.folder) == checksums(wanted.folder)
    resumes = [f"resumed after epoch {moment[1] - 1} of stage 'fusion'"]
    assert said == (resumes if moment == ("train (fusion)", 3) else [])


def test_without_resume_training_starts_anew(workspace: Workspace) -> None:
    city = make_city(workspace)

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == ("train (fusion)", 3):
            raise Killed

    with pytest.raises(Killed):
        create_run(workspace, city, "urbanfusion", options(), kill)
    epochs: list[int] = []
    said: list[str] = []
    create_run(
        workspace, city, "urbanfusion", options(resume=False),
        lambda what, done, _: epochs.append(done) if what.startswith("train") else None,
        said.append,
    )  # fmt: skip
    assert epochs == [1, 2, 3] and said == []


def test_a_run_of_other_data_is_trained_anew(workspace: Workspace) -> None:
    run = create_run(workspace, make_city(workspace), "urbanfusion", options())
    before = checksums(run.folder)
    city = make_city(workspace, changed=np.arange(64) < 9)
    said: list[str] = []
    again = create_run(workspace, city, "urbanfusion", options(), say=said.append)
    assert again.name == run.name
    assert len(said) == 1 and "training it anew" in said[0]
    assert checksums(again.folder)["model.safetensors"] != before["model.safetensors"]


# --- hold-out ----------------------------------------------------------------------------------


def write_split(path: Path, footprints: list[Any], folds: list[int]) -> Path:
    shapes = GRID.unproject_geometry(np.array(footprints, dtype=object))
    columns = {
        "unit_id": pa.array([str(number) for number in range(len(folds))]),
        "group": pa.array([""] * len(folds)),
        "fold": pa.array(folds, pa.int64()),
    }
    write_table(path, geo_table(columns, shapes), {"label": "rent"})
    return path


@pytest.mark.parametrize("window_m", [0.0, 300.0, 600.0, 1000.0])
def test_held_out_places_are_those_of_a_loop(window_m: float, tmp_path: Path) -> None:
    places = some_tiles()
    x, y = places.x[27], places.y[27]
    units = [
        shapely.Point(x + 20, y - 30),
        shapely.box(x + 700, y - 100, x + 800, y + 310),
        shapely.box(x - 1200, y - 1200, x - 1100, y - 1100),
    ]
    path = write_split(tmp_path / "split.parquet", units, [1, 1, 0])
    touched = [any(box.intersection(unit).area > 1 or box.contains(unit) for unit in units[:2])
               for box in places.boxes()]  # fmt: skip
    side = max(window_m, 300.0)
    wanted = [
        any(
            touched[other]
            and abs(places.x[other] - places.x[place]) < side
            and abs(places.y[other] - places.y[place]) < side
            for other in range(64)
        )
        for place in range(64)
    ]
    assert 3 <= sum(touched) < 10
    assert held_out_places(path, 1, places, window_m).tolist() == wanted


def test_what_is_held_out_changes_not_one_bit(workspace: Workspace, tmp_path: Path) -> None:
    """By construction: other values in the test places, the same encoders and model."""
    places = some_tiles()
    city = make_city(workspace, layers=BOTH)
    split = write_split(tmp_path / "split.parquet", [places.boxes()[9].buffer(-1)], [0])
    chosen = options(hold_out=(split, 0))
    said: list[str] = []
    run = create_run(workspace, city, "urbanfusion", chosen, say=said.append)
    assert run.pretraining == "inductive"
    assert run.hold_out == {"sha256": sha256(split), "label": "rent", "fold": 0}
    # Windows of 600 m of the eight neighbours overlap that of the test place.
    assert run.facts["held_out_places"] == 9
    assert said == ["9 of 64 places are held out of pre-training"]
    other = Workspace(tmp_path / "other")
    twin_city = make_city(other, layers=BOTH, changed=np.arange(64) == 9)
    twin = create_run(other, twin_city, "urbanfusion", chosen)
    kept = ("encoders.safetensors", "prepared.safetensors", "model.safetensors", "curves.parquet")
    for name in kept:
        assert sha256(run.folder / name) == sha256(twin.folder / name), name
    moved = (run.embed(city, places)[0] != twin.embed(twin_city, places)[0]).any(axis=1)
    near = np.abs(places.cells - places.cells[9]).max(axis=1) <= 1
    assert moved[9] and not moved[~near].any(), "the change itself is seen"
    free = create_run(workspace, city, "urbanfusion", options())
    for name in kept:
        assert sha256(free.folder / name) != sha256(run.folder / name), name


def test_a_wrong_split_is_said(tmp_path: Path) -> None:
    places = some_tiles()
    path = write_split(tmp_path / "split.parquet", [places.boxes()[0]], [0])
    with pytest.raises(UsageError, match="unknown fold '7': choose from 0"):
        held_out_places(path, 7, places, 0)
    with pytest.raises(UrbanError, match="no file"):
        held_out_places(tmp_path / "none.parquet", 0, places, 0)
    write_table(tmp_path / "other.parquet", pa.table({"a": [1]}), {})
    with pytest.raises(UrbanError, match="is no split file"):
        held_out_places(tmp_path / "other.parquet", 0, places, 0)
    far = write_split(tmp_path / "far.parquet", [shapely.Point(500_000, 3_000_000)], [0])
    with pytest.raises(UrbanError, match="no unit of fold 0"):
        held_out_places(far, 0, places, 0)


def test_hold_out_is_a_file_and_maybe_a_fold() -> None:
    assert parse_hold_out("splits/a-b.parquet:3") == (Path("splits/a-b.parquet"), 3)
    assert parse_hold_out("splits/a-b.parquet") == (Path("splits/a-b.parquet"), 0)
    for nothing in ("", " ", ":3"):
        with pytest.raises(UsageError, match="names no split file"):
            parse_hold_out(nothing)


# --- embedding ---------------------------------------------------------------------------------


def test_places_never_seen_and_another_city_are_embedded(workspace: Workspace) -> None:
    city = make_city(workspace, layers=BOTH)
    run = create_run(workspace, city, "urbanfusion", options())
    tiles = city.tiles()
    lon, lat = tiles.take(np.array([10, 20])).lonlat()
    values, present = run.embed(city, point_places(lon, lat, GRID, ["a", "b"]))
    assert present.all()
    np.testing.assert_allclose(values, run.embed(city, tiles)[0][[10, 20]], atol=1e-4)
    away = some_tiles(CORNER + np.array([40, -7]))
    other = make_city(workspace, "othertown", ("pois",), places=away)
    values, present = run.embed(other, away)
    assert np.isfinite(values).all() and present.all()
    assert list(run.tokens(other, away)) == ["coords", "pois"]


def test_other_data_than_the_runs_own_are_told(workspace: Workspace) -> None:
    run = create_run(workspace, make_city(workspace, layers=BOTH), "urbanfusion", options())
    own = open_city(workspace, "tinytown")
    assert run.mismatch(own) == "" and run.missing(own) == ()
    changed = make_city(workspace, layers=BOTH, changed=np.arange(64) < 9)
    assert run.mismatch(changed) == "its layer sentinel2 has changed"
    turned = make_city(workspace, layers=BOTH, places=some_tiles(CORNER + 1))
    assert run.mismatch(turned) == "the places have changed"
    less = make_city(workspace, layers=BOTH)
    workspace.layer_file("tinytown", "sentinel2").unlink()
    assert run.mismatch(less) == "the layer sentinel2 is gone"
    assert run.missing(less) == ("sentinel2",)
    away = make_city(workspace, "othertown", places=some_tiles(CORNER + 40))
    assert run.mismatch(away) == "" and run.missing(away) == ("sentinel2",)
    run.facts["data"]["encoders"]["pois"][0]["version"] = 0
    assert run.mismatch(away) == "the encoder of pois has changed"


def test_dropping_is_as_if_the_city_did_not_have_it(workspace: Workspace) -> None:
    city = make_city(workspace, layers=BOTH)
    run = create_run(workspace, city, "urbanfusion", options())
    values, _ = run.embed(city, city.tiles(), Spoiling(gone=("satellite",)))
    poorer = Workspace(workspace.root.parent / "poorer")
    shutil.copytree(workspace.run_dir(run.name), poorer.run_dir(run.name))
    less = make_city(poorer, layers=("pois",))
    wanted, _ = open_run(poorer, run.name).embed(less, less.tiles())
    assert np.array_equal(values, wanted)
    assert not np.array_equal(values, run.embed(city, city.tiles())[0])
    with pytest.raises(UrbanError, match="leaves no modality"):
        run.embed(city, city.tiles(), Spoiling(gone=("coords", "pois", "satellite")))
    with pytest.raises(UsageError, match="unknown modality 'satelite': did you mean satellite"):
        run.embed(city, city.tiles(), Spoiling(gone=("satelite",)))


def test_a_place_without_any_modality_is_not_present(workspace: Workspace) -> None:
    """The last tile has no valid pixel; far from its neighbours its window has none at all."""
    places = some_tiles()
    x, y = places.x.copy(), places.y.copy()
    x[-1] += 3000
    ids = places.place_id.copy()
    ids[-1] = GRID.tile_id(*GRID.tile_at(x[-1:], y[-1:])[0])
    sparse = Places(GRID, ids, "tile", x, y, np.ones(64))
    city = make_city(workspace, layers=BOTH, places=sparse)
    run = create_run(workspace, city, "urbanfusion", options())
    tiles = city.tiles()
    lonely = tiles.place_id == ids[-1]
    values, present = run.embed(city, tiles, Spoiling(gone=("coords", "pois")))
    assert np.array_equal(present, ~lonely)
    assert (values[lonely] == 0).all() and np.isfinite(values).all()


def test_the_untrained_method_is_the_one_before_the_first_step(
    workspace: Workspace, tmp_path: Path
) -> None:
    city = make_city(workspace)
    run = create_run(workspace, city, "urbanfusion", options(seed=3))
    (tmp_path / "still.py").write_text(
        "from urbancli.methods import urbanfusion\n"
        "Config = urbanfusion.Config\n"
        "class Method(urbanfusion.Method):\n    def stages(self): return []\n"
    )
    none = create_run(workspace, city, str(tmp_path / "still.py"), options(seed=3))
    untrained, present = run.embed_untrained(city, city.tiles())
    assert present.all()
    assert np.array_equal(untrained, none.embed(city, city.tiles())[0])
    assert not np.array_equal(untrained, run.embed(city, city.tiles())[0])
