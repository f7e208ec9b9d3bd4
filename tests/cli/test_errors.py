"""Bad input: one line on stderr that names the remedy, exit code 1 or 2, nothing on stdout."""

from pathlib import Path

import pytest

from tests.cli.conftest import Town, Urban
from urbancli.workspace import Workspace

FETCH = ("fetch", "--city", "delhi", "--bbox", "77.2,28.6,77.21,28.61")
CASES = [
    (("fetch", "--city", "dehli", "--osm", "x.osm"), 2, "did you mean delhi"),
    (("fetch", "--city", "", "--osm", "x.osm"), 2, "names no city"),
    (("fetch", "--city", "delhi", "--layer", "sentinel3"), 2, "did you mean sentinel"),
    (("fetch", "--city", "delhi", "--since", "2023", "--osm", "x.osm"), 2, "scenes"),
    (("fetch", "--city", "delhi", "--layer", "naip", "--imagery", "naip=TEXT"), 2, "twice"),
    (("fetch", "--city", "nowhere-else", "--offline"), 4, "offline, and 'nowhere-else'"),
    (("fetch",), 2, "--city"),
    (("fetch", "--city", "x", "--bbox", "1,2,3", "--osm", "x.osm"), 2, "four numbers"),
    (("fetch", "--city", "x", "--bbox", "10,50,9,40", "--osm", "x.osm"), 2, "south < north"),
    ((*FETCH, "--osm", "absent.osm.pbf"), 1, "absent.osm.pbf"),
    ((*FETCH, "--osm", "TEXT"), 1, "OSM"),
    ((*FETCH, "--osm", "OSM_ELSEWHERE"), 1, "misses the city"),
    ((*FETCH, "--pois", "TEXT"), 1, "lat"),
    ((*FETCH, "--imagery", "TEXT"), 2, "LAYER=FILE"),
    ((*FETCH, "--imagery", "sentinel=TEXT"), 2, "did you mean sentinel"),
    ((*FETCH, "--imagery", "sentinel2=TEXT"), 1, "cannot open"),
    ((*FETCH, "--label", "crime"), 2, "NAME=FILE"),
    ((*FETCH, "--label", "crime=absent.csv:x"), 1, "absent.csv"),
    (("train", "--method", "urbanfusoin"), 2, "did you mean urbanfusion"),
    (("train", "--method", "urbanfusion", "--city", "delhi"), 2, "urban fetch --city delhi"),
    (("train", "--method", "urbanfusion", "--preset", "big"), 2, "paper"),
    (("train", "--method", "urbanfusion", "--set", "widht=3"), 2, "width"),
    (("train", "--method", "urbanfusion", "--set", "width=three"), 2, "width"),
    (("train", "--method", "urbanfusion", "--without", "imagery"), 2, "unknown modality"),
    (("train", "--method", "urbanfusion", "--without", "satellite", "--without", "osm",
      "--without", "pois"), 1, "modalit"),
    (("train", "--method", "urbanfusion", "--hold-out-split", "absent.parquet"), 1, "absent"),
    (("train", "--method", "urbanfusion", "--device", "gpu"), 2, "cuda"),
    (("train", "--method", "./absent.py"), 2, "no file"),
    (("embed", "--run", "absent"), 2, "absent"),
    (("embed", "--run", "RUN", "--drop", "satelite"), 2, "did you mean satellite"),
    (("embed", "--run", "RUN", "--places", "TEXT"), 1, "lat"),
    (("bench", "--drop", "everything"), 2, "unknown modality"),
    (("bench", "--run", "absent"), 2, "absent"),
    (("bench", "--city", "delhi"), 2, "urban fetch --city delhi"),
    (("list", "towns"), 2, "choose from"),
    (("no-such-command",), 2, "no-such-command"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "remedy"), CASES, ids=lambda c: str(c)[:60])
def test_bad_input_is_one_line(
    town: Town, urban: Urban, tmp_path: Path, arguments: tuple[str, ...], code: int, remedy: str
) -> None:
    (tmp_path / "bad.csv").write_text("name,value\na,1\n")
    (run,) = Workspace(town.workspace).runs()
    replaced = {
        "TEXT": str(tmp_path / "bad.csv"),
        "OSM_ELSEWHERE": str(town.inputs / "map.osm.pbf"),
        "RUN": run,
    }
    given = [
        next((part.replace(k, v) for k, v in replaced.items() if part.endswith(k)), part)
        for part in arguments
    ]
    if "OSM_ELSEWHERE" in arguments:
        given[given.index("--bbox") + 1] = "77.4,28.9,77.41,28.91"
    fetching = arguments[:1] == ("fetch",)
    done = urban("-w", tmp_path / "w" if fetching else town.workspace, *given)
    assert done.code == code, done.err
    lines = done.err.splitlines()
    assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True]
    assert remedy in lines[-1]
    assert done.out == ""


def test_a_fetch_that_fails_keeps_what_was_made(town: Town, urban: Urban, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    assert urban("-w", workspace, *town.fetch).code == 0
    manifest = (workspace / "data/synthetic-town/manifest.json").read_bytes()
    bad = [*town.fetch, "--label", f"x={town.inputs / 'labels/perception.csv'}:absent"]
    assert urban("-w", workspace, *bad).code == 2
    assert (workspace / "data/synthetic-town/manifest.json").read_bytes() == manifest


def test_bench_without_labels_or_runs_says_what_to_do(urban: Urban, tmp_path: Path) -> None:
    done = urban("-w", tmp_path, "bench")
    assert done.code == 2
    assert "urban fetch" in done.err
