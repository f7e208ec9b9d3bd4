"""The benchmark end to end on a small town with a known answer, against scoring by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely

from urbancli.bench.controls import controls, position_features
from urbancli.bench.evaluation import answer, score
from urbancli.bench.papers import set_exam
from urbancli.bench.preparation import load_split, prepare
from urbancli.bench.probes import ridge
from urbancli.bench.run import SCHEMA, BenchOptions, BenchResult, bench, write_splits
from urbancli.bench.tasks.base import in_suite
from urbancli.city import City
from urbancli.embeddings import aggregate, align
from urbancli.errors import UrbanError, UsageError
from urbancli.fetching import fetch
from urbancli.grid import Grid
from urbancli.labels.files import load_label, parse_label
from urbancli.layers import open_city
from urbancli.runs import RunOptions, create_run
from urbancli.sources.pois import Source as Pois
from urbancli.spoiling import WHOLE
from urbancli.workspace import Workspace, read_table, sha256, write_table

GRID = Grid(32643)
SIDE = 12
LEFT, BOTTOM = 720_000.0, 3_162_000.0
TINY = (
    "width=16", "heads=2", "capsule_frequencies=4", "capsule_width=8", "contrastive_width=8",
    "epochs=2", "batch_size=48",
)  # fmt: skip


def write_csv(path: Path, header: str, rows: list) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def make_town(made: Workspace, folder: Path, name: str = "town", seed: int = 0) -> None:
    """Fetch and train a town of 12 × 12 tiles with POIs: their number is the label `liveliness`."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(4, SIDE * SIDE)
    columns, rows = np.divmod(np.arange(SIDE * SIDE), SIDE)
    left = LEFT + 300 * 2 * SIDE * seed
    x, y = left + 150 + 300 * columns, BOTTOM + 150 + 300 * rows
    spots = np.repeat(np.column_stack([x, y]), counts, axis=0)
    spots += rng.uniform(-120, 120, spots.shape)
    kinds = rng.choice(["cafe", "restaurant"], len(spots))
    lon, lat = GRID.unproject(*spots.T)
    pois = [[i, "", lat[i], lon[i], kinds[i]] for i in range(len(spots))]
    path = write_csv(folder / f"{name}-pois.csv", "osm_id,name,lat,lon,category", pois)
    lon, lat = GRID.unproject(x + 10, y + 10)
    units = [[f"u{i}", lat[i], lon[i], counts[i], "ab"[int(counts[i] > 4)]] for i in range(144)]
    for row in units[:2]:
        row[3] = ""
    for row in units[2:5]:
        row[4] = "rare"
    points = write_csv(folder / f"{name}.csv", "unit_id,lat,lon,liveliness,land_use", units)
    area = shapely.box(left + 1, BOTTOM + 1, left + 300 * SIDE - 1, BOTTOM + 300 * SIDE - 1)
    city = City(name, GRID.unproject_geometry(area), GRID.epsg, "bbox")
    specs = [
        parse_label(f"liveliness={points}:liveliness"),
        parse_label(f"land_use={points}:land_use"),
    ]
    fetch(made, city, [Pois(path)], specs)
    create_run(made, open_city(made, name), "urbanfusion", RunOptions(overrides=TINY))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("town")
    made = Workspace(folder / "workspace")
    make_town(made, folder)
    return made


@pytest.fixture(scope="module")
def result(workspace: Workspace) -> BenchResult:
    return bench(workspace, BenchOptions(("town",), drop=("pois", "satellite")))


def only(result: BenchResult, **wanted: str) -> dict:
    rows = [row for row in result.rows if all(row[k] == v for k, v in wanted.items())]
    assert len(rows) == 1
    return rows[0]


# --- rows ------------------------------------------------------------------------------------


def test_every_contestant_label_and_drop_has_its_row(result: BenchResult) -> None:
    methods = {
        "constant", "coordinates", "counts", "concatenation", "concatenation-pca", "untrained",
        "urbanfusion",
    }  # fmt: skip
    expected = {
        (m, t, d, "both" if d else "")
        for m in methods
        for t in ("liveliness", "land_use")
        for d in ("", "pois", "satellite")
        if not (d and m == "constant")
    }
    expected |= {("urbanfusion", t, "pois", "test") for t in ("liveliness", "land_use")}
    found = [(row["method"], row["task"], row["drop"], row["drop_at"]) for row in result.rows]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert all(list(row) == SCHEMA.names for row in result.rows)


def test_the_file_holds_the_rows(result: BenchResult) -> None:
    table, facts = read_table(result.path)
    assert table.to_pylist() == result.rows
    assert facts["notes"] == result.notes


def test_a_constant_scores_nothing(result: BenchResult) -> None:
    row = only(result, method="constant", task="liveliness", drop="")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0, 0, 0), abs=1e-12)
    assert row["n"] == 142 and row["groups"] >= 10 and not row["too_few"]


def test_concatenation_finds_what_is_there(result: BenchResult) -> None:
    row = only(result, method="concatenation", task="liveliness", drop="")
    assert row["value"] > 0.8 and row["low"] < row["value"] < row["high"]
    assert only(result, method="coordinates", task="liveliness", drop="")["value"] < 0.3
    assert row["removed"] > 0 and row["imputed"] == 0


def test_a_score_equals_scoring_by_hand(workspace: Workspace, result: BenchResult) -> None:
    """From the files alone: the split's folds, windows pair by pair, R² summed by hand."""
    table, facts = read_table(workspace.split_file("town", "liveliness", 0))
    row = only(result, method="coordinates", task="liveliness", drop="")
    assert row["split_sha256"] == sha256(workspace.split_file("town", "liveliness", 0))
    assert row["group_m"] == facts["group_m"]
    fold_of = dict(zip(table["unit_id"].to_pylist(), table["fold"].to_pylist(), strict=True))
    group_of = dict(zip(table["unit_id"].to_pylist(), table["group"].to_pylist(), strict=True))
    label = load_label(workspace, "town", "liveliness")
    kept = np.array([unit in fold_of for unit in label.unit_id])
    assert kept.sum() == 142 and np.isfinite(label.value[kept]).all()
    ids, y = label.unit_id[kept], label.value[kept]
    x, n = GRID.project(*shapely.get_coordinates(label.geometry[kept]).T)
    places = open_city(workspace, "town").tiles()
    features = aggregate(
        align(label.geometry[kept], places), position_features(places), np.ones(144, dtype=bool)
    )[0]
    centre = np.floor(np.column_stack([x, n]) / 300) * 300 + 150
    # POIs are seen in a window of 600 m: ±300 m around the centre of the unit's tile.
    seen = np.abs(np.column_stack([x, n])[:, None] - centre[None]).max(axis=2) <= 300.01
    touch = seen | seen.T
    folds = np.array([fold_of[unit] for unit in ids])
    _, split_order = np.unique([group_of[unit] for unit in ids], return_inverse=True)
    exam = set_exam(*material_and_split(workspace), [600.0])
    above = below = removed = 0.0
    for fold in sorted(set(folds)):
        test = folds == fold
        train = ~test & ~touch[:, test].any(axis=1)
        removed += (~test & touch[:, test].any(axis=1)).sum()
        assert (exam.training[fold] == train).all()
        # Inner folds follow the Hilbert order of groups, so take the exam's.
        (guess,) = ridge.fit_predict_folds(features, y, [exam.folds[fold]])
        above += ((y[test] - guess.values) ** 2).sum()
        below += ((y[test] - y[train].mean()) ** 2).sum()
    assert len(set(split_order)) == row["groups"]
    assert row["value"] == pytest.approx(1 - above / below, abs=1e-9)
    assert row["removed"] == removed / len(set(folds))


def material_and_split(workspace: Workspace):
    city = open_city(workspace, "town")
    material = prepare(city, city.tiles(), "liveliness")
    return material, load_split(city, material, "spatial", 0, 5), city.tiles()


def test_what_is_left_out_is_named(result: BenchResult) -> None:
    notes = [n["note"] for n in result.notes if n["task"] == "liveliness"]
    assert any("2 of 144 units without a value" in note and "u0" in note for note in notes)
    notes = [n["note"] for n in result.notes if n["task"] == "land_use"]
    assert any("classes left out: rare (3)" in note for note in notes)
    assert only(result, method="constant", task="land_use", drop="")["n"] == 141


def test_units_half_outside_are_left_out_and_named(tmp_path) -> None:
    x = LEFT + np.array([150, 10, -10, 600, 900, 1200, 900])
    y = BOTTOM + np.array([600, 600, 600, -190, 600, 600, 600])
    lon, lat = GRID.unproject(x, y)
    rows = [[f"u{i}", lat[i], lon[i], i] for i in range(7)]
    path = write_csv(tmp_path / "c.csv", "unit_id,lat,lon,v", rows)
    pois = [[i, "", lat[i], lon[i], "cafe"] for i in range(7)]
    source = Pois(write_csv(tmp_path / "pois.csv", "osm_id,name,lat,lon,category", pois))
    area = shapely.box(LEFT + 1, BOTTOM + 1, LEFT + 1799, BOTTOM + 1799)
    city = City("edge", GRID.unproject_geometry(area), GRID.epsg, "bbox")
    made = Workspace(tmp_path / "workspace")
    fetch(made, city, [source], [parse_label(f"v={path}:v@200m")])
    layers = open_city(made, "edge")
    material = prepare(layers, layers.tiles(), "v")
    # u2 has its centre just west of the city, u3 only its top in it.
    found = dict(zip(material.units.unit_id, material.values, strict=True))
    assert found == {"u0": 0, "u1": 1, "u4": 4, "u5": 5, "u6": 6}
    assert material.alignment.weights.shape == (5, 36)
    (note,) = material.notes
    assert "2 of 7 units covered by tiles less than half" in note and "u2" in note and "u3" in note


def test_positions_are_waves_of_many_lengths_and_directions(workspace: Workspace) -> None:
    places = open_city(workspace, "town").tiles()
    found = position_features(places)
    x, y = (places.x - places.x.mean()) / 1000, (places.y - places.y.mean()) / 1000
    expected = [x, y]
    for wave in (np.sin, np.cos):
        for degrees in (0, 45, 90, 135):
            angle = np.radians(degrees)
            for power in np.linspace(np.log(0.3), np.log(50), 12):
                along = x * np.cos(angle) + y * np.sin(angle)
                expected.append(wave(2 * np.pi * along / np.exp(power)))
    np.testing.assert_allclose(found, np.column_stack(expected), atol=1e-9)


# --- drops -----------------------------------------------------------------------------------


def test_a_drop_that_changes_nothing_is_not_applicable(result: BenchResult) -> None:
    rows = [row for row in result.rows if row["drop"] == "satellite"]
    assert all(row["value"] is None and row["retention"] is None for row in rows)
    assert {row["note"] for row in rows} == {"n/a: the city has no satellite"}
    row = only(result, method="coordinates", task="liveliness", drop="pois")
    assert row["value"] is None and row["note"] == "n/a: does not read pois"
    row = only(result, method="concatenation", task="liveliness", drop="pois")
    assert row["value"] is None and row["note"] == "n/a: reads nothing but pois"


def test_a_drop_is_scored_again(result: BenchResult) -> None:
    full = only(result, method="urbanfusion", task="liveliness", drop="")
    without = only(result, method="urbanfusion", task="liveliness", drop="pois", drop_at="both")
    assert full["value"] > 0.3 > without["value"]
    constant = only(result, method="constant", task="liveliness", drop="")["value"]
    expected = (without["value"] - constant) / (full["value"] - constant)
    assert without["retention"] == pytest.approx(expected)
    assert without["difference_concatenation"] is None
    assert any("without pois keeps" in note["note"] for note in result.notes)


def test_differences_are_paired(result: BenchResult) -> None:
    row = only(result, method="urbanfusion", task="land_use", drop="")
    for other in ("concatenation", "untrained"):
        theirs = only(result, method=other, task="land_use", drop="")["value"]
        key = f"difference_{other}"
        assert row[key] == pytest.approx(row["value"] - theirs)
        assert row[f"{key}_low"] < row[key] < row[f"{key}_high"]
    for control in ("constant", "concatenation", "untrained"):
        other = only(result, method=control, task="land_use", drop="")
        assert other["difference_concatenation"] is None


def test_any_two_rows_of_an_exam_can_be_paired(result: BenchResult) -> None:
    mine = only(result, method="urbanfusion", task="land_use", drop="")
    theirs = only(result, method="concatenation", task="land_use", drop="")
    found = result.difference(mine, theirs)
    assert found.value == pytest.approx(mine["difference_concatenation"])
    assert found.low == pytest.approx(mine["difference_concatenation_low"])
    without = only(result, method="urbanfusion", task="land_use", drop="pois", drop_at="both")
    assert result.difference(without, mine).value == pytest.approx(without["difference_full"])
    other = only(result, method="concatenation", task="liveliness", drop="")
    with pytest.raises(ValueError, match="two exams"):
        result.difference(mine, other)


def test_leaks_follow_what_is_left(result: BenchResult) -> None:
    leaks = {(row["task"], row["leak"]) for row in result.rows}
    assert leaks == {("land_use", ""), ("liveliness", "unknown")}


# --- files and runs --------------------------------------------------------------------------


def test_the_same_inputs_are_the_same_file(workspace: Workspace, result: BenchResult) -> None:
    before = sha256(workspace.split_file("town", "land_use", 0))
    paths = write_splits(workspace, "town", BenchOptions(("town",)))
    assert [path.name for path in paths] == [
        "town-land_use-s0.parquet",
        "town-liveliness-s0.parquet",
    ]
    assert sha256(workspace.split_file("town", "land_use", 0)) == before
    few = bench(workspace, BenchOptions(("town",), runs=()))
    assert few.path != result.path
    assert only(few, method="concatenation", task="land_use", drop="") == only(
        result, method="concatenation", task="land_use", drop=""
    )
    assert any("no run to score" in note["note"] for note in few.notes)


def test_an_inductive_run_is_scored_on_its_fold_only(workspace: Workspace, tmp_path) -> None:
    city = open_city(workspace, "town")
    path = write_splits(workspace, "town", BenchOptions(("town",)))[1]
    options = RunOptions(overrides=TINY, hold_out=(path, 1))
    run = create_run(workspace, city, "urbanfusion", options)
    result = bench(workspace, BenchOptions(("town",), runs=(run.name,)))
    row = only(result, method="urbanfusion", task="liveliness")
    folds = read_table(path)[0]["fold"].to_numpy()
    assert row["pretraining"] == "inductive" and row["folds"] == "1"
    assert row["n"] == (folds == 1).sum()
    assert row["too_few"] and row["low"] is None
    # The difference is taken on the units that both were asked.
    exam = set_exam(*material_and_split(workspace), [600.0])
    fold = answer(exam, np.zeros((142, 0)), [1])
    assert fold.scored.sum() == row["n"]
    untrained = only(result, method="untrained", task="liveliness")["value"]
    assert row["difference_untrained"] == pytest.approx(row["value"] - untrained)
    places = city.tiles()
    material = material_and_split(workspace)[0]
    (pooled,) = [one for one in controls(city, places, []) if one.method == "concatenation"]
    theirs = answer(exam, pooled.on_units(material, WHOLE), [1])
    expected = row["value"] - score(exam, theirs).value
    assert row["difference_concatenation"] == pytest.approx(expected)
    assert only(result, method="untrained", task="liveliness")["folds"] == "1"
    other = only(result, method="urbanfusion", task="land_use")
    assert other["value"] is None and "held out test units of liveliness" in other["note"]
    # Other folds: the run has no score on them, the controls have.
    again = bench(workspace, BenchOptions(("town",), runs=(run.name,), seed=5))
    row = only(again, method="urbanfusion", task="liveliness")
    assert row["value"] is None and "--hold-out-split" in row["note"]
    assert only(again, method="concatenation", task="liveliness")["value"] is not None
    assert sha256(path) == run.hold_out["sha256"]


def test_a_run_on_other_data_is_not_scored(workspace: Workspace, result: BenchResult) -> None:
    """The run is of the layers it saw; bench says so instead of scoring it on what is there now."""
    path = workspace.manifest_file("town")
    before = path.read_text()
    changed = json.loads(before)
    changed["files"]["layers/pois.parquet"]["sha256"] = "0" * 64
    path.write_text(json.dumps(changed))
    try:
        again = bench(workspace, BenchOptions(("town",)))
    finally:
        path.write_text(before)
    rows = [row for row in again.rows if row["method"] in {"urbanfusion", "untrained"}]
    assert rows and all(row["value"] is None and "train it again" in row["note"] for row in rows)


def test_a_constant_label_stops_no_other(workspace: Workspace) -> None:
    path = workspace.label_file("town", "same")
    table, facts = read_table(workspace.label_file("town", "liveliness"))
    ones = pa.array(np.ones(table.num_rows))
    index = table.column_names.index("value")
    write_table(path, table.set_column(index, "value", ones), {**facts, "label": "same"})
    try:
        result = bench(workspace, BenchOptions(("town",), runs=()))
    finally:
        path.unlink()
    assert "same value" in only(result, method="concatenation", task="same")["note"]
    assert only(result, method="concatenation", task="liveliness")["value"] is not None


def test_a_suite_scores_its_labels_only(workspace: Workspace) -> None:
    result = bench(workspace, BenchOptions(("town",), suite="cookie"))
    labels = {row["task"] for row in result.rows}
    assert labels and labels < set(workspace.labels("town"))
    assert all(in_suite("cookie", name) for name in labels)
    with pytest.raises(UsageError, match="unknown suite 'coockie'"):
        bench(workspace, BenchOptions(("town",), suite="coockie"))
    with pytest.raises(UrbanError, match="no label of the suite 'urbanfusion'"):
        bench(workspace, BenchOptions(("town",), suite="urbanfusion"))


def test_wrong_names_are_refused(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="modality 'satelite'"):
        bench(workspace, BenchOptions(("town",), drop=("satelite",)))
    with pytest.raises(UsageError, match="atlantis"):
        bench(workspace, BenchOptions(("atlantis",)))
    with pytest.raises(UsageError, match="nosuch"):
        bench(workspace, BenchOptions(("town",), runs=("nosuch",)))
