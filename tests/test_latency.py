"""Blocks are read side by side, and how many at once changes no byte."""

from pathlib import Path

from tests.world.shared import calm_fetch, calm_world, layers_of
from tests.world.world import STORAGE


def test_blocks_are_read_at_once_and_the_same(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    calm = calm_fetch(demo_inputs)
    world = calm_world(demo_inputs)
    layers = ("--layer", "naip", "--layer", "sentinel2")
    done = world.urban(tmp_path, *world.fetch(*layers, "--workers", 1))
    assert done.returncode == 0, done.stderr
    assert calm.at_once >= 5, "of 8 workers"
    assert world.door.most_at_once[STORAGE] == 1
    assert layers_of(tmp_path) == calm.layers("naip", "sentinel2")
