"""`urban.toml` pins what a project is; what it cannot mean is refused with the near misses."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from urbancli.bench.run import BenchOptions
from urbancli.errors import UrbanError
from urbancli.project import NOT_PINNED, bench_fields, fill, read_project, read_project_file
from urbancli.workspace import Workspace


def read(folder: Path, text: str) -> Any:
    (folder / "urban.toml").write_text(text)
    return read_project(Workspace(folder))


def test_without_a_file_nothing_is_pinned(tmp_path: Path) -> None:
    project = read_project(Workspace(tmp_path))
    assert not (project.cities or project.train or project.bench or project.encoders)


def test_what_the_file_says_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    (tmp_path / "v.csv").touch()
    project = read(
        tmp_path,
        """
        [project]
        cities = ["New York", "demo"]
        [train]
        methods = ["urbanfusion", "mine.py"]
        seeds = [0, 3]
        set = "epochs=5"
        precision = "bf16"
        [encoders]
        satellite = ["rcf", "spectral"]
        [bench]
        suite = "demo"
        drop = "satellite"
        noise = [1, "coords=0.5"]
        drop-rates = [0.3]
        subsets = true
        seed = 4
        embeddings = ["other=v.csv"]
        """,
    )
    assert project.cities == ("new-york", "demo")
    assert project.train == {
        "methods": ("urbanfusion", str(tmp_path / "mine.py")), "seeds": (0, 3),
        "set": ("epochs=5",), "precision": "bf16",
    }  # fmt: skip
    assert project.encoders == {"satellite": ["rcf", "spectral"]}
    assert project.bench == {
        "suite": "demo", "drop": ("satellite",), "noise": ("1", "coords=0.5"),
        "drop_rates": (0.3,), "subsets": True, "seed": 4,
        "embeddings": (f"other={tmp_path / 'v.csv'}",),
    }  # fmt: skip
    BenchOptions(project.cities, **project.bench)


def test_every_option_of_the_benchmark_can_be_pinned(tmp_path: Path) -> None:
    """Also those that are added after this: their kinds must be ones a file can hold."""
    fields = bench_fields()
    assert set(fields) | set(NOT_PINNED) == {f.name for f in dataclasses.fields(BenchOptions)}
    samples = {bool: "true", int: "1", float: "0.5", str: '"x"'}
    for name, kind in fields.items():
        tried = []
        for one, text in samples.items():
            try:
                tried.append((one, read(tmp_path, f"[bench]\n{name} = {text}").bench[name]))
            except UrbanError:
                continue
        assert tried, f"{name}: {kind}"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("[projekt]", "did you mean project"),
        ("cities = ['demo']", "unknown table of urban.toml 'cities'"),
        ("[project]\ncity = ['demo']", r"unknown key of \[project\] .*did you mean cities"),
        ("[train]\nmethod = 'urbanfusion'", "did you mean methods"),
        ("[train]\nseeds = ['a']", "train.seeds is not a list of whole numbers"),
        ("[train]\nseeds = [1.5]", "train.seeds is not a list of whole numbers"),
        ("[train]\nseeds = [true]", "train.seeds is not a list of whole numbers"),
        ("[train]\nseeds = []", "train.seeds is empty: name something, or leave it out"),
        ("[bench]\ndrops = ['osm']", "did you mean drop"),
        ("[bench]\nsubsets = 'yes'", "bench.subsets is not true or false"),
        ("[bench]\ncities = ['a']", "unknown key"),
        ("[bench]\nsuite = true", "bench.suite is not a text"),
        ("[project]\ncities = ['!']", "names no city"),
        ("[bench\n", "cannot be read"),
    ],
)
def test_what_it_cannot_mean_is_refused(tmp_path: Path, text: str, remedy: str) -> None:
    with pytest.raises(UrbanError, match=remedy):
        read(tmp_path, text)


def test_options_come_before_the_file() -> None:
    pinned = {"seeds": (0, 1), "suite": "demo", "subsets": True, "account": False}
    values, said = fill({"seeds": (0,), "suite": None, "subsets": False}, pinned)
    assert values == {"seeds": (0,), "suite": "demo", "subsets": True, "account": False}
    assert said == "suite demo; subsets"
    values, said = fill({"seed": 0, "drop": ()}, {"seed": 5, "drop": ("osm", "pois")})
    assert values == {"seed": 0, "drop": ("osm", "pois")} and said == "drop osm, pois"


def test_the_example_is_whole() -> None:
    project = read_project_file(Path(__file__).parents[1] / "examples/urban.toml")
    assert project.cities and project.train["methods"] and project.bench
