"""`urban encode`, and encoders chosen by option or by `urban.toml`, from the cache to the table."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Town, Urban
from urbancli.workspace import Workspace, read_json, write_json

CITY = "synthetic-town"
FEW = ("--set", "epochs=1")


@pytest.fixture
def workspace(town: Town, tmp_path: Path) -> Path:
    """A copy of the town's data, without its runs."""
    shutil.copytree(town.workspace / "data", tmp_path / "w/data")
    return tmp_path / "w"


def test_encoders_run_alone_and_once(urban: Urban, workspace: Path) -> None:
    done = urban("-w", workspace, "encode", "--json")
    assert done.code == 0, done.err
    rows = {row["modality"]: row for row in done.json()}
    assert set(rows) == {"coords", "naip", "entities", "pois"}
    assert rows["naip"]["encoder"] == "rcf" and rows["naip"]["width"] == 256
    assert rows["coords"]["present"] == rows["coords"]["places"] == 100
    tokens = workspace / f"data/{CITY}/tokens"
    stamps = {file: file.stat().st_mtime_ns for file in tokens.rglob("*.npy")}
    again = urban("-w", workspace, "encode")
    assert again.code == 0 and "entities" in again.out
    assert stamps == {file: file.stat().st_mtime_ns for file in tokens.rglob("*.npy")}
    only = urban("-w", workspace, "encode", "--encoder", "naip=rcf,filters=8", "--json")
    assert [(row["modality"], row["encoder"], row["width"]) for row in only.json()] == [
        ("naip", "rcf,filters=8", 8)
    ]


def test_a_view_of_the_entities_is_read_where_an_encoder_is_chosen(
    urban: Urban, workspace: Path
) -> None:
    """With the very encoder that a layer of buildings of its own would have by default."""
    done = urban("-w", workspace, "encode", "--encoder", "buildings=entities", "--json")
    (row,) = done.json()
    assert row["modality"] == "buildings" and row["tokens"] > 1000
    train = ("-w", workspace, "train", "--method", "urbanfusion", *FEW, "--json")
    (facts,) = urban(*train, "--encoder", "buildings=entities").json()
    assert "buildings" in facts["modalities"] and facts["encoders"] == {"buildings": "entities"}
    (usual,) = urban(*train).json()
    assert "buildings" not in usual["modalities"]
    assert len(Workspace(workspace).runs()) == 2, "neither takes the other's name"


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--encoder", "sentinel2=rcf"), "has no sentinel2 to encode: it has coords, naip"),
        (("--encoder", "naip=clipp"), "unknown encoder 'clipp'"),
        (("--city", "nowhere"), "no data for 'nowhere'"),
    ],
)
def test_what_cannot_be_encoded_is_one_line(
    town: Town, urban: Urban, arguments: tuple[str, ...], remedy: str
) -> None:
    done = urban("-w", town.workspace, "encode", *arguments)
    assert done.code == 2 and done.out == ""
    assert done.err.splitlines()[-1].startswith("error: ") and remedy in done.err


def test_a_chosen_encoder_goes_with_its_run(urban: Urban, workspace: Path) -> None:
    train = ("-w", workspace, "train", "--method", "urbanfusion", *FEW)
    chosen = ("--encoder", "satellite=rcf,filters=8", "--encoder", "satellite=rcf,filters=6")
    for options in ((), chosen):
        done = urban(*train, *options)
        assert done.code == 0, done.err
    runs = {
        name: read_json(workspace / "runs" / name / "run.json")
        for name in Workspace(workspace).runs()
    }
    other, facts = next((name, facts) for name, facts in runs.items() if facts["encoders"])
    assert len(runs) == 2, "a run of other encoders has a name of its own"
    assert facts["encoders"] == {"naip": "rcf,filters=8 + rcf,filters=6"}
    assert facts["widths"]["naip"] == [14, 14]
    out = workspace / "e.parquet"
    assert urban("-w", workspace, "embed", "--run", other, "--out", out).code == 0
    done = urban("-w", workspace, "bench", "--json")
    assert done.code == 0, done.err
    rows = done.json()["rows"]
    title = "naip=rcf,filters=8 + rcf,filters=6"
    controls = {row["settings"] for row in rows if row["method"] == "concatenation"}
    assert controls == {"", title}
    values = {
        row["settings"]: row["value"]
        for row in rows
        if row["method"] == "concatenation" and row["task"] == rows[0]["task"]
    }
    for row in rows:
        if row["method"] == "urbanfusion" and row["task"] == rows[0]["task"]:
            mine = title if row["run"] == other else ""
            assert title in row["settings"] or not mine
            difference = row["value"] - values[mine]
            assert row["difference_concatenation"] == pytest.approx(difference, abs=1e-9)


def test_a_run_whose_encoder_is_gone_is_not_scored_and_the_others_are(
    urban: Urban, workspace: Path
) -> None:
    train = ("-w", workspace, "train", "--method", "urbanfusion", *FEW, "--json")
    (kept,), (lost,) = urban(*train).json(), urban(*train, "--encoder", "naip=spectral").json()
    path = workspace / "runs" / _run_of(workspace, lost) / "run.json"
    facts = read_json(path)
    facts["data"]["encoders"]["naip"][0]["name"] = "gone"
    write_json(path, facts)
    done = urban("-w", workspace, "bench", "--json")
    assert done.code == 3 and "train it again" in done.err.splitlines()[-1], done.err
    rows = [row for row in done.json()["rows"] if row["method"] == "urbanfusion"]
    for row in rows:
        mine = row["run"] == _run_of(workspace, kept)
        assert (row["value"] is not None) == mine
        assert mine or "the encoder of naip cannot be had" in row["note"]
    done = urban("-w", workspace, "embed", "--run", path.parent.name)
    assert done.code == 2 and len(done.err.splitlines()) == 1


def _run_of(workspace: Path, facts: dict[str, Any]) -> str:
    """Return the name of the run of these facts."""
    every = {name: read_json(workspace / "runs" / name / "run.json")
             for name in Workspace(workspace).runs()}  # fmt: skip
    return next(n for n, own in every.items() if own["fingerprint"] == facts["fingerprint"])


def test_urban_toml_chooses_what_no_option_does(urban: Urban, workspace: Path) -> None:
    toml = workspace / "urban.toml"
    toml.write_text(
        '[encoders]\nsatellite = ["rcf", "rcf,filters=8"]\npois = "pois,text_width=4"\n'
    )
    rows = {r["modality"]: r["encoder"] for r in urban("-w", workspace, "encode", "--json").json()}
    assert rows["naip"] == "rcf + rcf,filters=8" and rows["pois"] == "pois,text_width=4"
    done = urban("-w", workspace, "encode", "--encoder", "naip=rcf,filters=4", "--json")
    assert [row["encoder"] for row in done.json()] == ["rcf,filters=4"]
    # An option for one of a group leaves the file's choice for the others.
    toml.write_text('[encoders]\nosm = "geometry"\n')
    done = urban("-w", workspace, "encode", "--encoder", "buildings=tagcounts", "--encoder",
                 "entities=entities", "--json")  # fmt: skip
    rows = {row["modality"]: row["encoder"] for row in done.json()}
    assert rows == {"entities": "entities", "buildings": "tagcounts"}
    train = ("-w", workspace, "train", "--method", "urbanfusion", *FEW, "--json")
    (facts,) = urban(*train, "--encoder", "buildings=tagcounts").json()
    assert facts["encoders"] == {
        "entities": "geometry", "buildings": "tagcounts", "aoi": "geometry"
    }  # fmt: skip
    for content, remedy in (
        ("[encoders]\nnaip = []", "is no name and no list of names"),
        ("[encoders]\nnaip = 'rfc'", "urban.toml, encoders.naip: unknown encoder 'rfc'"),
        ("[encoders", "cannot be read"),
        ("[encoder]\nnaip = 'rcf'", "did you mean encoders"),
        ("[encoders]\nnaip = 3", "is no name and no list of names"),
        ("[encoders]\nnaipp = 'rcf'", "did you mean naip"),
    ):
        toml.write_text(content)
        done = urban("-w", workspace, "encode")
        assert done.code in (1, 2) and remedy in done.err, done.err
        assert len(done.err.splitlines()) == 1


def test_every_encoder_is_listed_with_what_it_needs(urban: Urban) -> None:
    found = {one["encoder"]: one for one in json.loads(urban("list", "encoders", "--json").out)}
    assert {"rcf", "entities", "pois", "coords"} <= set(found)
    table = urban("list", "encoders").out
    for name, one in found.items():
        assert name in table and one["modalities"]
        assert set(one["window_m"]) == set(one["width"]) == set(one["modalities"])
