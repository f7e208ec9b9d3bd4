"""What `urban train` and `urban embed` refuse, say and forgive; each in one line."""

from pathlib import Path

import pytest

from tests.cli.conftest import Town, Urban
from urbancli.workspace import Workspace

TRAIN = ("train", "--method", "urbanfusion")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ((*TRAIN, "--hold-out-split", ""), "names no split file"),
        ((*TRAIN, "--device", "gpu"), "unknown device"),
        ((*TRAIN, "--precision", "bf61"), "did you mean bf16"),
        ((*TRAIN, "--seed", str(1 << 63)), "from 0 to 2**63 - 1"),
        ((*TRAIN, "--set", "epochs=0"), "epochs is at least 1"),
        ((*TRAIN, "--set", "lr=nan"), "lr is a finite number"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_what_would_train_nothing_is_refused_though_the_run_exists(
    town: Town, urban: Urban, arguments: tuple[str, ...], remedy: str
) -> None:
    done = urban("-w", town.workspace, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("error: ") and remedy in done.err


def test_a_city_may_be_spelt_as_one_likes(town: Town, urban: Urban) -> None:
    spelt = "Synthetic  Town"
    done = urban("-w", town.workspace, *town.train, "--city", spelt, "--city", "SYNTHETIC-TOWN")
    assert done.code == 0, done.err
    assert done.err.count("already trained") == 1
    (run,) = Workspace(town.workspace).runs()
    out = Path(town.workspace).parent / "spelt.parquet"
    done = urban("-w", town.workspace, "embed", "--run", run, "--city", spelt, "--out", out)
    assert done.code == 0 and out.is_file(), done.err
