"""Fixtures shared by all tests: where the real data lies, and a small city whose truth is known."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

# Before torch and OpenBLAS load: their threads spin, and beside any other process that costs more
# than a second core gives to work as small as the tests'.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

ROOT = Path(__file__).parents[1]


SLOWEST = ("test_readme.py", "test_demo.py", "test_kill.py", "test_truth.py", "test_real_cities.py")
"""Files that take longest: begun first, so that the other process does not wait at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout; a test that asks for it skips without it."""
    folder = (ROOT / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder


@pytest.fixture(scope="session")
def demo_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a SYNTHETIC city of 100 tiles, made once; tests read them or copy them."""
    from urbancli.demo.files import make_inputs
    from urbancli.demo.recipe import Recipe

    folder = tmp_path_factory.mktemp("demo") / "inputs/demo"
    make_inputs(folder, Recipe(tiles=10), lambda *_: None)
    return folder


def local_fetch(inputs: Path) -> list[str]:
    """Return the arguments of a fetch that names a demo city's files as a user's own."""
    box = "-41.154,44.9545,-41.119,44.9795"
    fetch = [
        "fetch",
        "--city",
        "synthetic-town",
        "--bbox",
        box,
        "--osm",
        f"{inputs / 'map.osm.pbf'}",
    ]
    for image in sorted(inputs.rglob("naip/**/*.tif")):
        fetch += ["--imagery", f"naip={image}"]
    fetch += ["--pois", f"{inputs / 'pois.csv'}"]
    fetch += ["--label", f"population_density={inputs / 'labels/population.tif'}"]
    return [*fetch, "--label", f"cover={inputs / 'labels/land_use.geojson'}:lu_*"]


class Town(NamedTuple):
    """Inputs and workspace of a town."""

    inputs: Path
    workspace: Path
    fetch: list[str]
    train: list[str]


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory, demo_inputs: Path) -> Town:
    """A town of the demo city's files, fetched and trained once; tests must not change it."""
    folder = tmp_path_factory.mktemp("town")
    fetch = local_fetch(demo_inputs)
    train = ["train", "--method", "urbanfusion", "--set", "epochs=10"]
    from urbancli.cli import main

    with pytest.MonkeyPatch.context() as patch:
        for arguments in (fetch, train):
            patch.setattr("sys.argv", ["urban", "-w", str(folder / "workspace"), *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code, arguments
    return Town(demo_inputs, folder / "workspace", fetch, train)
