"""The files of the demo city: whole or not at all, checked, the same bytes in any process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from urbancli.demo.files import TRUTH, demo_city, make_inputs, recipe_of
from urbancli.demo.recipe import Recipe
from urbancli.errors import UrbanError, UsageError
from urbancli.workspace import read_json, sha256

TINY = Recipe(4, 8, 5.0)


def ignore(*_: object) -> None:
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "inputs/demo-4"
    assert make_inputs(folder, TINY, ignore) == ""
    return folder


def checksums(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256(p) for p in folder.rglob("*") if p.is_file()}


def test_the_manifest_lists_every_file(made: Path) -> None:
    listed = {name: e["sha256"] for name, e in read_json(made / "manifest.json")["files"].items()}
    found = checksums(made)
    del found["manifest.json"]
    assert listed == found
    assert {"map.osm.pbf", "pois.csv", TRUTH, "labels/factors.tif"} < set(listed)
    assert recipe_of(made) == TINY


def test_the_truth_lies_beside_the_city_and_says_synthetic(made: Path) -> None:
    truth = read_json(made / TRUTH)
    assert "SYNTHETIC" in truth["recipe"]["synthetic"]
    shows = {row["target"]: row["shows_in"] for row in truth["targets"]}
    assert shows["moisture"] == ["sentinel2"] and len(shows["density"]) == 4


def test_another_process_makes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from urbancli.demo.files import make_inputs;"
        "from urbancli.demo.recipe import Recipe;"
        "make_inputs(Path(sys.argv[1]), Recipe(4, 8, 5.0), lambda *_: None)"
    )
    other = {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
             "GDAL_NUM_THREADS": "2", "TZ": "Asia/Tokyo"}  # fmt: skip
    folder = tmp_path / "elsewhere/demo-4"
    subprocess.run(
        [sys.executable, "-c", script, str(folder)], check=True, env={**os.environ, **other}
    )
    assert checksums(folder) == checksums(made)


def test_whole_files_are_kept_and_damaged_ones_made_anew(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo-4"
    shutil.copytree(made, folder)
    before = (folder / "map.osm.pbf").stat().st_mtime_ns
    assert make_inputs(folder, TINY, ignore) == ""
    assert (folder / "map.osm.pbf").stat().st_mtime_ns == before

    whole = checksums(folder)
    (folder / "pois.csv").write_text("id,name\n")
    (folder.parent / ".demo-4.partial").mkdir()
    (folder.parent / ".demo-4.partial/old").write_text("left by a killed process")
    assert "was damaged: made anew" in make_inputs(folder, TINY, ignore)
    assert checksums(folder) == whole
    assert not (folder.parent / ".demo-4.partial").exists()


def test_files_of_another_version_are_made_anew(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo-4"
    shutil.copytree(made, folder)
    truth = json.loads((folder / TRUTH).read_text())
    (folder / TRUTH).write_text(json.dumps({**truth, "generator": 0}))
    assert "another version" in make_inputs(folder, TINY, ignore)
    assert checksums(folder) == checksums(made)


def test_what_is_not_ours_is_never_removed(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo-4"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(UrbanError, match="move it away"):
        make_inputs(folder, TINY, ignore)
    assert (folder / "precious.txt").read_text() == "mine"

    shutil.copytree(made, tmp_path / "whole")
    (tmp_path / "whole/mine.txt").write_text("mine")
    (tmp_path / "whole/pois.csv").write_text("damaged")
    with pytest.raises(UrbanError, match="which is not ours"):
        make_inputs(tmp_path / "whole", TINY, ignore)
    (tmp_path / "whole/mine.txt").unlink()
    (tmp_path / "whole" / TRUTH).unlink()
    with pytest.raises(UrbanError, match="no longer, a whole city"):
        make_inputs(tmp_path / "whole", TINY, ignore)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UrbanError, match="not, or no longer"):
        make_inputs(tmp_path / "file", TINY, ignore)


def test_whole_files_are_used_where_nothing_can_be_written(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo-4"
    shutil.copytree(made, folder)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert make_inputs(folder, TINY, ignore) == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "no lock was needed"


def test_another_recipe_in_the_same_folder_is_refused(made: Path) -> None:
    before = checksums(made)
    with pytest.raises(UsageError, match="holds demo-4 of 8 tiles a side"):
        make_inputs(made, Recipe(4, 9, 5.0), ignore)
    assert checksums(made) == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UrbanError, match="cannot write"):
        make_inputs(tmp_path / "file/inputs/demo-4", TINY, ignore)


def test_cities_of_other_seeds_lie_elsewhere() -> None:
    boxes = [demo_city(Recipe(seed, 62)).area for seed in range(0, 256, 3)]
    assert not any(a.intersects(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.bounds[0] > -42 and box.bounds[2] < -36 for box in boxes), "inside the zone"
