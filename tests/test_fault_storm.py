"""A fifth of all requests fails in seven ways: the same files come out, and no secret with them."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.content import files_of, leaks
from tests.world.faults import KINDS, Faults
from tests.world.files import MARK
from tests.world.shared import calm_fetch, calm_world, layers_of
from tests.world.world import World, cache_of


def _fetch(world: World, workspace: Path, faults: Faults, *more: str, again: int = 0) -> None:
    """Fetch in a storm; the command may be given so many times again."""
    said: list[subprocess.CompletedProcess[str]] = []
    while len(said) <= again and (not said or said[-1].returncode in {3, 4}):
        said.append(world.urban(workspace, *world.fetch(*more), timeout_s=1200))
    world.door.spoiler = None
    sys.stdout.write(f"{[each.returncode for each in said]} {faults.done}\n")
    assert said[-1].returncode == 0, said[-1].stderr
    assert leaks(workspace, cache_of(workspace)) == []
    assert not any(MARK in each.stdout + each.stderr for each in said)
    assert {kind for _, kind in faults.done} == set(KINDS)
    share = sum(faults.done.values()) / len(world.door.log)
    assert 0.12 < share < 0.28, share


def test_a_fetch_in_a_storm_brings_the_same(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    calm = calm_fetch(demo_inputs)
    world = calm_world(demo_inputs)
    world.signatures.lifetime_s = 4.0
    layers = ("sentinel2", "entities")
    asked = [word for layer in layers for word in ("--layer", layer)]
    _fetch(world, tmp_path / "stormy", world.storm(seed=3, hurried=True), *asked)
    assert layers_of(tmp_path / "stormy") == calm.layers(*layers)
    assert world.signatures.issued >= 2


@pytest.mark.soak
def test_long_storms_over_a_larger_city(tmp_path: Path, socket_enabled: None) -> None:
    from urbancli.demo.files import make_inputs
    from urbancli.demo.recipe import Recipe

    inputs = tmp_path / "inputs/demo"
    make_inputs(inputs, Recipe(tiles=20), lambda *_: None)
    with World(inputs, timeout_s=2, lifetime_s=4.0) as world:
        calm = world.urban(tmp_path / "calm", *world.fetch())
        assert calm.returncode == 0, calm.stderr
        for number in range(2):
            seed = random.SystemRandom().randrange(1 << 30)
            sys.stdout.write(f"seed {seed}\n")
            world.door.log.clear()
            stormy = tmp_path / f"stormy-{number}"
            _fetch(world, stormy, world.storm(seed), again=3)
            assert files_of(stormy) == files_of(tmp_path / "calm"), f"seed {seed}"
