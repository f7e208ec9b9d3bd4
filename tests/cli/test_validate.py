"""`urban validate`: nothing wrong with what urban wrote, and a list where something is."""

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Town, Urban
from urbancli.workspace import Workspace


@pytest.fixture(scope="module")
def benched(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the town to break, with splits and results as `urban bench` leaves them."""
    from urbancli.bench.run import BenchOptions, bench, write_splits

    folder = tmp_path_factory.mktemp("benched") / "workspace"
    shutil.copytree(town.workspace, folder)
    options = BenchOptions(("synthetic-town",), (), ())
    write_splits(Workspace(folder), "synthetic-town", options)
    bench(Workspace(folder), options)
    return folder


def test_all_that_urban_wrote_is_without_fault(benched: Path, urban: Urban) -> None:
    done = urban("-w", benched, "validate")
    assert done.code == 0, done.out
    for name in ("layers/entities.parquet", "labels/cover.parquet", "run.json", "splits/", "stac/"):
        assert name in done.out.replace("\n", "")
    assert " 0 faults" in done.err and "fault" not in done.out
    found = urban("-w", benched, "validate", "--json").json()
    assert found["faults"] == []
    tables = {path.relative_to(benched).as_posix() for path in benched.rglob("*.parquet")}
    of_runs = {name for name in tables if name.startswith("runs/") or "/tokens/" in name}
    assert tables - of_runs <= set(found["files"])


def test_one_city_alone(benched: Path, urban: Urban) -> None:
    found = urban("-w", benched, "validate", "--city", "Synthetic Town", "--json").json()
    assert all(name.startswith("data/synthetic-town/") for name in found["files"])
    done = urban("-w", benched, "validate", "--city", "atlantis")
    assert done.code == 2 and "no data for 'atlantis'" in done.err


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("data/*/layers/pois.parquet", "its checksum is not the manifest's"),
        ("data/*/stac/pois.json", "it is no JSON"),
        ("runs/*/embeddings.parquet", "embeddings.parquet has changed"),
        ("splits/*cover*", "not a whole Parquet file"),
        ("results/bench-*.parquet", "not a whole Parquet file"),
        ("results/answers/*", "not a whole Parquet file"),
    ],
)
def test_a_broken_file_is_listed_with_its_remedy(
    benched: Path, urban: Urban, pattern: str, fault: str
) -> None:
    path = sorted(benched.glob(pattern))[0]
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    try:
        done = urban("-w", benched, "validate")
    finally:
        path.write_bytes(content)
    assert done.code == 1
    lines = [line for line in done.out.splitlines() if fault in line]
    assert lines and any(word in lines[0] for word in ("`urban ", "train it again"))
    assert "Traceback" not in done.err


def test_a_fetch_that_did_not_end_is_one(benched: Path, urban: Urban) -> None:
    folder = benched / "data/half"
    folder.mkdir()
    done = urban("-w", benched, "validate")
    folder.rmdir()
    assert done.code == 1
    assert "data/half/manifest.json: it is missing: a fetch did not end" in done.out


def test_an_empty_workspace_is_one_line(urban: Urban, tmp_path: Path) -> None:
    done = urban("-w", tmp_path, "validate")
    assert done.code == 1 and "no city lies in" in done.err
