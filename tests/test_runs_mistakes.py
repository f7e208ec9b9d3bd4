"""Runs of users' own methods, wrong settings, and spoilt files: one line, and what mends it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_inputs import (
    MINE,
    checksums,
    make_city,
    options,
)

from urbancli.errors import UrbanError, UsageError
from urbancli.runs import RunOptions, create_run, open_run
from urbancli.tensors import read_tensors, write_tensors
from urbancli.workspace import (
    Workspace,
    sha256,
    write_json,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


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
    del tensors["fusion.position"]
    write_tensors(run.folder / "model.safetensors", tensors, {})
    with pytest.raises(UrbanError, match="trained with other code"):
        run.embed(city, city.tiles())
    write_json(run.folder / "config.json", {"config": {**run.facts["config"], "gone": 1}})
    with pytest.raises(UrbanError, match="has other settings"):
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
