"""Runs: whole or not there, the same bytes again, held-out places unseen, any place embedded."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from urbancli.embeddings import read_embeddings
from urbancli.errors import UrbanError, UsageError
from urbancli.grid import Grid, Places, point_places
from urbancli.layers import ENTITY_SCHEMA, CityLayers, open_city
from urbancli.runs import RunOptions, create_run, held_out_places, open_run, parse_hold_out
from urbancli.training import read_tensors, write_tensors
from urbancli.workspace import (
    Workspace,
    geo_table,
    sha256,
    write_json,
    write_manifest,
    write_table,
)

GRID = Grid(32643)
BOTH = ("sentinel2", "pois")
CORNER = np.array([2333, 10550])
SIDE = 8
TINY = (
    "width=16", "heads=2", "capsule_frequencies=4", "capsule_width=8", "contrastive_width=8",
    "epochs=3", "batch_size=20",
)  # fmt: skip


def some_tiles(corner: np.ndarray = CORNER) -> Places:
    steps = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1)
    cells = corner + steps.reshape(-1, 2)
    ids = np.array([GRID.tile_id(int(c), int(r)) for c, r in cells], dtype=object)
    x, y = ((cells + 0.5) * GRID.tile_m).T
    return Places(GRID, ids, "tile", x, y, np.ones(len(cells)))


def write_pixels(city_dir: Path, places: Places, seed: int, changed: np.ndarray) -> Path:
    """Two bands at 30 m; the last tile is invalid; tiles in `changed` hold other samples."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 3000, (len(places), 2, 10, 10)).astype("<u2")
    samples[:, 0] += (np.arange(len(places)) * 40).astype("<u2")[:, None, None]
    samples[changed] = 9000 - samples[changed]
    known = [1.0] * (len(places) - 1) + [0.0]
    columns = {
        "place_id": pa.array(places.place_id.tolist()),
        "block": pa.array([""] * len(places)),
        "valid_fraction": pa.array(known),
        "pixels": pa.array([tile.tobytes() for tile in samples], pa.binary()),
        "valid": pa.array([b""] * len(places), pa.binary()),
    }
    shapes = GRID.unproject_geometry(places.boxes())
    path = city_dir / "layers" / "sentinel2.parquet"
    facts = {"bands": ["red", "nir"], "dtype": "uint16", "pixel_m": 30.0}
    write_table(path, geo_table(columns, shapes), facts)
    return path


def write_pois(city_dir: Path, places: Places, seed: int, changed: np.ndarray) -> Path:
    """Three POIs a tile, its first kinds by the tile's column; others where `changed`."""
    rng = np.random.default_rng(seed)
    spots = np.repeat(np.column_stack([places.x, places.y]), 3, axis=0)
    spots += rng.uniform(-140, 140, spots.shape)
    kinds = ["cafe", "school", "bank", "pub"]
    rows = []
    for number, (x, y) in enumerate(spots):
        kind = kinds[(number // 3 // SIDE + number) % 4]
        tags = [("amenity", "prison" if changed[number // 3] else kind), ("name", f"at {number}")]
        lon, lat = GRID.unproject(x, y)
        point = shapely.Point(float(lon), float(lat))
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), point.bounds, strict=True))
        rows.append({
            "entity_id": f"node/{number}", "tags": tags, "members": [], "places": [], "block": "",
            "bbox": box, "geometry": shapely.to_wkb(point),
        })  # fmt: skip
    path = city_dir / "layers" / "pois.parquet"
    write_table(path, pa.Table.from_pylist(rows, schema=ENTITY_SCHEMA), {})
    return path


def make_city(
    workspace: Workspace,
    key: str = "tinytown",
    layers: tuple[str, ...] = ("pois",),
    changed: np.ndarray | None = None,
    places: Places | None = None,
) -> CityLayers:
    places = some_tiles() if places is None else places
    folder = workspace.city_dir(key)
    write_table(workspace.places_file(key), places.to_table(), {})
    changed = np.zeros(len(places), dtype=bool) if changed is None else changed
    writers = {"sentinel2": write_pixels, "pois": write_pois}
    files = [writers[name](folder, places, 0, changed) for name in layers]
    city = {"epsg": GRID.epsg, "tile_m": GRID.tile_m}
    write_json(workspace.lock_file(key), {"city": city})
    write_manifest(folder, [workspace.places_file(key), *files])
    return open_city(workspace, key)


def options(*overrides: str, **changes: Any) -> RunOptions:
    return RunOptions(**{"overrides": (*TINY, *overrides), "checkpoint_s": 0.0, **changes})


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir() if path.name != "cost.json"}


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
        )
    }
    assert len(names) == 3 and plain.name not in names


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
    run.facts["data"]["encoders"]["pois"]["version"] = 0
    assert run.mismatch(away) == "the encoder of pois has changed"


def test_dropping_is_as_if_the_city_did_not_have_it(workspace: Workspace) -> None:
    city = make_city(workspace, layers=BOTH)
    run = create_run(workspace, city, "urbanfusion", options())
    values, _ = run.embed(city, city.tiles(), drop=["satellite"])
    poorer = Workspace(workspace.root.parent / "poorer")
    shutil.copytree(workspace.run_dir(run.name), poorer.run_dir(run.name))
    less = make_city(poorer, layers=("pois",))
    wanted, _ = open_run(poorer, run.name).embed(less, less.tiles())
    assert np.array_equal(values, wanted)
    assert not np.array_equal(values, run.embed(city, city.tiles())[0])
    with pytest.raises(UrbanError, match="leaves no modality"):
        run.embed(city, city.tiles(), drop=["coords", "pois", "satellite"])
    with pytest.raises(UsageError, match="unknown modality 'satelite': did you mean satellite"):
        run.embed(city, city.tiles(), drop=["satelite"])


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
    values, present = run.embed(city, tiles, drop=["coords", "pois"])
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


# --- methods and mistakes ----------------------------------------------------------------------

MINE = """
from dataclasses import dataclass
from urbancli.methods import urbanfusion

@dataclass(frozen=True)
class Config(urbanfusion.Config):
    epochs: int = 1

    @classmethod
    def preset(cls, name):
        return cls(width=8, heads=2, capsule_width=8, contrastive_width=4)

class Method(urbanfusion.Method):
    inputs = ("coords",)
"""


def test_a_users_own_method_travels_with_its_run(workspace: Workspace, tmp_path: Path) -> None:
    city = make_city(workspace)
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    run = create_run(workspace, city, str(mine), RunOptions())
    version = sha256(mine)[:8]
    assert run.name == f"mine-{version}-tinytown-small-s0" and run.method == f"./mine-{version}"
    assert run.modalities == ("coords",) and list(run.tokens(city, city.tiles())) == ["coords"]
    mine.unlink()
    values, _ = open_run(workspace, run.name).embed(city, city.tiles())
    assert values.shape == (64, 8)


def test_files_of_one_name_have_runs_of_their_own(workspace: Workspace, tmp_path: Path) -> None:
    city = make_city(workspace)
    runs = []
    for number, name in enumerate(("urbanfusion.py", "a/mine.py", "b/mine.py")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(MINE.replace("width=8,", f"width={8 + 2 * number},"))
        runs.append(create_run(workspace, city, str(path), RunOptions()))
    runs.append(create_run(workspace, city, "urbanfusion", options()))
    assert len({run.name for run in runs}) == len({run.method for run in runs}) == 4
    assert runs[0].method.startswith("./urbanfusion-") and runs[3].method == "urbanfusion"
    reopened = [open_run(workspace, run.name) for run in runs]
    widths = [run.embed(city, city.tiles())[0].shape[1] for run in reopened]
    assert widths == [8, 10, 12, 16]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINE + "\nclass Method(:\n", r"mine\.py:16: SyntaxError: .*mend the file"),
        ("import nowhere_at_all\n", r"mine\.py:1: ModuleNotFoundError: .*nowhere_at_all"),
        ("x = 1\n\nx.y\n", r"mine\.py:3: AttributeError"),
        ("raise SystemExit\n", r"mine\.py:1: SystemExit"),
        ("", r"mine\.py defines no class Method that extends"),
        ("class Method: ...\n", "defines no class Method that extends"),
        (MINE.replace("class Config", "class Other"), "defines no dataclass Config"),
        (MINE.replace("(urbanfusion.Method)", "(urbanfusion.BaseMethod)"), r"lacks stages\(\)"),
    ],
)  # fmt: skip
def test_a_users_broken_method_is_told_with_its_line(
    text: str, message: str, workspace: Workspace, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        create_run(workspace, make_city(workspace), str(mine), RunOptions())
    assert "\n" not in str(error.value)


def test_weights_of_other_code_are_refused(workspace: Workspace) -> None:
    """A parameter that the file lacks must not stay random, a Config not be guessed."""
    city = make_city(workspace)
    run = create_run(workspace, city, "urbanfusion", options("epochs=1"))
    _, tensors = read_tensors(run.folder / "model.safetensors")
    del tensors["position"]
    write_tensors(run.folder / "model.safetensors", tensors, {})
    with pytest.raises(UrbanError, match="trained with other code"):
        run.embed(city, city.tiles())
    write_json(run.folder / "config.json", {"config": {**run.facts["config"], "gone": 1}})
    with pytest.raises(UrbanError, match="Config has other fields"):
        run.embed_untrained(city, city.tiles())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "spoil", "opens", "fault"),
    [
        ("model.safetensors", Path.unlink, False, "model.safetensors is missing"),
        ("model.safetensors", flip, False, "model.safetensors has changed"),
        ("encoders.safetensors", flip, False, "encoders.safetensors has changed"),
        ("prepared.safetensors", flip, False, "prepared.safetensors has changed"),
        ("config.json", Path.unlink, False, "config.json is missing"),
        ("cost.json", Path.unlink, False, "cost.json is missing or broken"),
        ("curves.parquet", Path.unlink, False, "curves.parquet is missing"),
        ("embeddings.parquet", flip, True, "embeddings.parquet has changed"),
        ("run.json", flip, False, "has a broken run.json"),
        ("run.json", lambda p: write_json(p, {}), False, "other settings, code or data"),
    ],
)
def test_a_spoilt_run_is_refused_and_made_anew(
    name: str, spoil: Any, opens: bool, fault: str, workspace: Workspace
) -> None:
    city, chosen = make_city(workspace), options("epochs=1")
    run = create_run(workspace, city, "urbanfusion", chosen)
    whole = checksums(run.folder)
    spoil(run.folder / name)
    if opens:
        open_run(workspace, run.name)
    else:
        with pytest.raises(UrbanError) as error:
            open_run(workspace, run.name)
        assert "\n" not in str(error.value) and "again" in str(error.value)
    said: list[str] = []
    create_run(workspace, city, "urbanfusion", chosen, say=said.append)
    assert len(said) == 1 and fault in said[0] and said[0].endswith("training it anew")
    assert checksums(run.folder) == whole


def test_mistakes_are_said_in_one_line(workspace: Workspace) -> None:
    city = make_city(workspace)
    for chosen, message in (
        (options(without=("pois",)), "at least two modalities"),
        (options("epoch=3"), "unknown parameter 'epoch': did you mean epochs"),
        (options(without=("satelite",)), "unknown modality 'satelite': did you mean satellite"),
        (options("epochs=0"), "epochs is at least 1"),
        (options(without=("satellite", "pois", "coords")), "urbanfusion reads some modality"),
    ):
        with pytest.raises(UrbanError, match=message) as error:
            create_run(workspace, city, "urbanfusion", chosen)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="unknown method 'urbanfushion': did you mean urbanfusion"):
        create_run(workspace, city, "urbanfushion", options())
    for wrong, message in (
        ({"seed": 1 << 63}, r"from 0 to 2\*\*63"),
        ({"device": "gpu"}, "unknown device"),
        ({"precision": "bf61"}, "did you mean bf16"),
    ):
        with pytest.raises(UsageError, match=message):
            options(**wrong)
    create_run(workspace, city, "urbanfusion", options("epochs=1", seed=(1 << 63) - 1))
    (made,) = workspace.runs()
    shutil.rmtree(workspace.run_dir(made))
    with pytest.raises(UsageError, match="unknown run 'x'"):
        open_run(workspace, "x")
    assert workspace.runs() == []


def test_a_finished_run_can_be_read_without_us(workspace: Workspace) -> None:
    run = create_run(workspace, make_city(workspace), "urbanfusion", options())
    for path in run.folder.glob("*.json"):
        assert json.loads(path.read_text())["schema_version"] == 1
    for path in run.folder.glob("*.parquet"):
        assert pq.read_table(path).num_rows > 0
