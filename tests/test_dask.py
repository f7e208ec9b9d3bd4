"""`urban fetch --scheduler`: a Dask cluster reads the same bytes as this machine."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world.content import leaks
from tests.world.shared import calm_fetch, calm_world, layers_of
from tests.world.world import STORAGE, World


@pytest.fixture
def world(demo_inputs: Path, socket_enabled: None) -> World:
    return calm_world(demo_inputs)


@pytest.fixture
def scheduler(world: World, tmp_path: Path) -> Iterator[str]:
    """The address of a cluster whose two workers live in the world."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.world.cluster"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=world.environment(tmp_path / "workers.cache"),
    ) as cluster:  # fmt: skip
        assert cluster.stdout is not None
        try:
            yield cluster.stdout.readline().strip()
        finally:
            cluster.communicate("", timeout=30)


def test_a_cluster_brings_the_same_files(world: World, scheduler: str, tmp_path: Path) -> None:
    calm = calm_fetch(world.inputs)
    layers = ("naip", "sentinel2")
    asked = [word for layer in layers for word in ("--layer", layer)]
    world.door.log.clear()
    done = world.urban(tmp_path / "far", *world.fetch(*asked, "--scheduler", scheduler))
    assert done.returncode == 0, done.stderr
    assert layers_of(tmp_path / "far") == calm.layers(*layers)
    assert leaks(tmp_path) == []
    assert sum(each.sent for each in world.door.of(STORAGE)) > calm.read / 2, "nobody read"
