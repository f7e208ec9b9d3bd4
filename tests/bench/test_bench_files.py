"""Anybody's embeddings in the benchmark: rows of their own, common support, loud failures."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Town
from urbancli.bench.run import BenchOptions, BenchResult, bench
from urbancli.errors import UrbanError
from urbancli.layers import open_city
from urbancli.runs import open_run
from urbancli.workspace import Workspace

CITY = "synthetic-town"


@pytest.fixture(scope="module")
def workspace(town: Town) -> Workspace:
    return Workspace(town.workspace)


def scored(workspace: Workspace, *files: str, runs: tuple[str, ...] | None = None) -> BenchResult:
    return bench(workspace, BenchOptions((CITY,), runs, embeddings=files))


def test_a_run_and_its_own_file_score_alike(workspace: Workspace) -> None:
    (name,) = workspace.runs()
    path = open_run(workspace, name).folder / "embeddings.parquet"
    result = scored(workspace, f"copied={path}")
    for task in {row["task"] for row in result.rows}:
        mine, copied = (
            next(row for row in result.rows if row["task"] == task and row["method"] == method)
            for method in ("urbanfusion", "copied")
        )
        assert copied["value"] == pytest.approx(mine["value"], abs=1e-9)
        assert (copied["n"], copied["pretraining"]) == (mine["n"], "external")
        assert copied["leak"] == "unknown" and copied["run"] == ""
    assert any("copied has embeddings of" in note["note"] for note in result.notes)


def test_units_that_a_file_lacks_are_asked_of_nobody(workspace: Workspace, tmp_path: Path) -> None:
    places = open_city(workspace, CITY).tiles()
    lon, lat = places.lonlat()
    kept = np.arange(len(places)) % 4 != 0
    path = tmp_path / "some.csv"
    rng = np.random.default_rng(0)
    rows = [f"{lat[i]},{lon[i]},{rng.normal()},{rng.normal()}" for i in np.flatnonzero(kept)]
    path.write_text("\n".join(["lat,lon,e0,e1", *rows]) + "\n")
    result = scored(workspace, str(path), runs=())
    rows_of = [row for row in result.rows if row["task"] == "population_density"]
    (n,) = {row["n"] for row in rows_of}
    assert n == kept.sum()
    assert any("asked of nobody" in note["note"] for note in result.notes)
    whole = scored(workspace, runs=())
    assert {r["n"] for r in whole.rows if r["task"] == "population_density"} == {len(places)}


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("lat,lon,e0,e1\n44.96,-41.13,nan,1\n", "holds null, not numbers"),
        ("lat,lon,e0,e1\n44.96,-41.13,inf,1\n", "not finite|infinite"),
        ("lat,lon,e0,e1\n10.0,10.0,1,2\n", "misses the city"),
        ("unit_id,e0,e1\nnobody,1,2\n", "none of 1 ids"),
        ("unit_id,e0,e1\na,1,2\na,1,2\n", "more than once"),
    ],
)
def test_bad_files_are_refused_in_one_line(
    workspace: Workspace, tmp_path: Path, content: str, remedy: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(UrbanError, match=remedy) as told:
        scored(workspace, str(path), runs=())
    assert "\n" not in str(told.value)
