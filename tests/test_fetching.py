"""What a fetch leaves behind: a finished city stays whole, and the lock says what lies there."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from urbancli.city import City, box_area
from urbancli.encoders import pois
from urbancli.errors import UrbanError
from urbancli.fetching import fetch
from urbancli.labels.files import parse_label
from urbancli.layers import open_city
from urbancli.lock import fetched_city
from urbancli.sources.base import pin
from urbancli.sources.pois import Source
from urbancli.workspace import Workspace, read_json, read_table, sha256, write_json

BOX = (8.99, 49.99, 9.02, 50.01)
SMALL = (8.99, 49.99, 9.00, 50.00)


class Broken(Source):
    """A source whose rows cannot be read: the plan is good, the fetch fails."""

    layer = "entities"

    @property
    def rows(self) -> Any:
        raise UrbanError("the input broke off")


def _city(box: tuple[float, float, float, float] = BOX) -> City:
    return City("town", box_area(box), 32632, "bbox")


def _fetch(
    workspace: Workspace, *sources: Source, labels: tuple[str, ...] = (), city: City | None = None
) -> dict[str, Any]:
    specs = [parse_label(text) for text in labels]
    return fetch(workspace, city or _city(), sources, specs)


def _points(path: Path, count: int = 4) -> Path:
    rows = [f"{49.995 + n / 500},{8.995 + n / 200},cafe,{n}" for n in range(count)]
    path.write_text("\n".join(["lat,lon,category,stars", *rows]))
    return path


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return _points(tmp_path / "points.csv")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def _manifest(workspace: Workspace) -> dict[str, Any]:
    return dict(read_json(workspace.manifest_file("town"))["files"])


def _lock(workspace: Workspace) -> dict[str, Any]:
    return read_json(workspace.lock_file("town"))


def test_a_first_fetch_that_fails_does_not_fix_the_area(workspace: Workspace, points: Path) -> None:
    with pytest.raises(UrbanError, match="broke off"):
        _fetch(workspace, Broken(points), city=_city(SMALL))
    assert fetched_city(workspace, "town") is None
    _fetch(workspace, Source(points))
    other = Workspace(workspace.root / "other")
    _fetch(other, Source(points))
    for name in ("places.parquet", "lock.json"):
        folders = (workspace.city_dir("town"), other.city_dir("town"))
        assert sha256(folders[0] / name) == sha256(folders[1] / name)


def test_a_bad_label_leaves_no_tiles(workspace: Workspace, points: Path) -> None:
    with pytest.raises(UrbanError):
        _fetch(workspace, Source(points), labels=(f"x={points}:absent",))
    assert not workspace.places_file("town").exists()
    assert not workspace.lock_file("town").exists()


def test_a_failed_refetch_leaves_the_city_as_it_was(workspace: Workspace, points: Path) -> None:
    _fetch(workspace, Source(points), labels=(f"stars={points}:stars@100m",))
    before, lock = _manifest(workspace), _lock(workspace)
    with pytest.raises(UrbanError, match="broke off"):
        _fetch(workspace, Broken(points))
    assert _manifest(workspace) == before
    assert _lock(workspace) == lock
    assert open_city(workspace, "town").checksum("pois") == before["layers/pois.parquet"]["sha256"]


def test_a_layer_replaced_before_the_failure_has_no_stale_checksum(
    workspace: Workspace, points: Path, tmp_path: Path
) -> None:
    _fetch(workspace, Source(points))
    more = _points(tmp_path / "more.csv", 5)
    with pytest.raises(UrbanError, match="broke off"):
        _fetch(workspace, Source(more), Broken(points))
    assert workspace.cities() == ["town"]
    with pytest.raises(UrbanError, match=r"run the same `urban fetch --city town` again"):
        open_city(workspace, "town").checksum("pois")
    assert _lock(workspace)["layers"]["pois"]["inputs"] == [pin(more)]
    assert list(_lock(workspace)["layers"]) == ["pois"]
    _fetch(workspace, Source(more))
    path = workspace.layer_file("town", "pois")
    assert open_city(workspace, "town").checksum("pois") == sha256(path)
    assert _manifest(workspace)["lock.json"]["sha256"] == sha256(workspace.lock_file("town"))


def test_the_lock_says_what_lies_there(workspace: Workspace, points: Path) -> None:
    _fetch(workspace, Source(points), labels=(f"stars={points}:stars@100m",))
    true = _lock(workspace)
    planned = {**true, "layers": {"pois": {"inputs": []}, "entities": {}}, "labels": {}}
    write_json(workspace.lock_file("town"), planned)
    _fetch(workspace, labels=(f"more={points}:stars@100m",))
    assert _lock(workspace)["layers"] == true["layers"]
    assert _lock(workspace)["labels"]["stars"] == true["labels"]["stars"]
    facts = read_table(workspace.layer_file("town", "pois"))[1]
    assert _lock(workspace)["layers"]["pois"] == facts["provenance"]


@pytest.mark.parametrize(
    "damage", [lambda old: old[:-200], lambda old: old[:99] + b"#" + old[100:]]
)
def test_damage_is_found_and_made_anew(workspace: Workspace, points: Path, damage: Any) -> None:
    _fetch(workspace, Source(points))
    assert _fetch(workspace, Source(points))["notes"] == []
    path = workspace.layer_file("town", "pois")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(UrbanError, match=r"pois\.parquet is damaged.*fetch 'town' again"):
        _fetch(workspace, labels=(f"stars={points}:stars@100m",))
    (note,) = _fetch(workspace, Source(points))["notes"]
    assert "pois.parquet was damaged" in note
    assert path.read_bytes() == whole


def test_damaged_tiles_are_made_anew(workspace: Workspace, points: Path) -> None:
    _fetch(workspace, Source(points))
    path = workspace.places_file("town")
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    (note,) = _fetch(workspace, Source(points))["notes"]
    assert "places.parquet" in note
    assert path.read_bytes() == whole


def test_a_layer_of_another_area_is_not_taken_for_its_own(
    workspace: Workspace, points: Path
) -> None:
    _fetch(workspace, Source(points))
    other = Workspace(workspace.root / "other")
    _fetch(other, Source(points), city=_city(SMALL))
    copied = other.layer_file("town", "pois").read_bytes()
    path = workspace.layer_file("town", "pois")
    path.write_bytes(copied)
    files = _manifest(workspace)
    del files["layers/pois.parquet"]
    write_json(workspace.manifest_file("town"), {"files": files})
    with pytest.raises(UrbanError, match="for another area"):
        _fetch(workspace, labels=(f"stars={points}:stars@100m",))
    _fetch(workspace, Source(points))
    assert path.read_bytes() != copied


def test_another_area_is_refused_the_same_one_by_another_way_is_not(
    workspace: Workspace, points: Path
) -> None:
    _fetch(workspace, Source(points))
    with pytest.raises(UrbanError, match="another area: use another --workspace"):
        _fetch(workspace, Source(points), city=_city(SMALL))
    again = fetched_city(workspace, "town")
    assert again is not None
    before = _manifest(workspace)
    _fetch(workspace, Source(points), city=again)
    _fetch(workspace, Source(points), city=City("town", _city().area, 32632, "aoi"))
    assert _manifest(workspace) == before


def test_two_fetches_of_one_city_do_not_meet(workspace: Workspace, points: Path) -> None:
    _fetch(workspace, Source(points))
    script = (
        "import sys, pathlib; from urbancli.lock import alone; "
        "from urbancli.workspace import Workspace\n"
        "with alone(Workspace(pathlib.Path(sys.argv[1])), 'town'): print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(workspace.root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(UrbanError, match="another process is fetching 'town'"):
            _fetch(workspace, Source(points))
        other.kill()
    _fetch(workspace, Source(points))


@pytest.mark.parametrize(
    ("name", "content"),
    [("lock.json", {}), ("lock.json", {"city": {"epsg": 32632}}), ("manifest.json", {}),
     ("manifest.json", {"files": {"layers/pois.parquet": {}}})],
)  # fmt: skip
def test_state_that_lacks_something_is_one_line(
    workspace: Workspace, points: Path, name: str, content: dict[str, Any]
) -> None:
    _fetch(workspace, Source(points))
    write_json(workspace.city_dir("town") / name, content)
    with pytest.raises(UrbanError, match=f"{name}.*delete it") as error:
        open_city(workspace, "town").checksum("pois")
    assert "\n" not in str(error.value)
    with pytest.raises(UrbanError, match=f"{name}.*delete it"):
        _fetch(workspace, Source(points))
    (workspace.city_dir("town") / name).unlink()
    _fetch(workspace, Source(points))
    assert open_city(workspace, "town").checksum("pois")


def test_tokens_at_the_edge_do_not_depend_on_the_area(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    spots = [(50.001 + i / 2000, 9.001 + j / 2000, i * j) for i in range(40) for j in range(40)]
    rows = [f"{lat},{lon},{'cafe' if n % 3 else 'bar'},p{n}" for lat, lon, n in spots]
    path.write_text("\n".join(["lat,lon,category,name", *rows]))
    small, large = (9.008, 50.006, 9.013, 50.010), (9.0, 50.0, 9.03, 50.03)
    tokens = {}
    for name, box in (("small", small), ("large", large)):
        folder = Workspace(workspace.root / name)
        facts = _fetch(folder, Source(path), city=_city(box))["layers"]["pois"]
        assert facts["kept"] + facts["outside"] == facts["counted"] == 1600
        city = open_city(folder, "town")
        table = city.entities("pois")
        empty = sum(not ids for ids in table.column("places").to_pylist())
        assert empty == facts["halo"] and facts["kept"] == facts["rows_in_file"]
        places = open_city(Workspace(workspace.root / "small"), "town").tiles()
        assert facts["halo"] > 100 or name == "large"
        encoded = pois.Encoder().encode(city, "pois", places, {})
        assert encoded.present.all()
        tokens[name] = encoded.values
    np.testing.assert_allclose(tokens["small"], tokens["large"], atol=1e-6)
