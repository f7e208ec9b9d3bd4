"""A fifth of all requests fails in seven ways: the same files come out, and no secret with them."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.content import files_of, leaks
from tests.world.faults import KINDS
from tests.world.files import MARK
from tests.world.world import World, cache_of


def _storm(world: World, folder: Path, seed: int, again: int = 0) -> None:
    """Fetch in calm and in a storm; the same command may be given so many times again."""
    calm, stormy = folder / "calm", folder / "stormy"
    done = world.urban(calm, *world.fetch())
    assert done.returncode == 0, done.stderr
    world.door.log.clear()
    faults = world.storm(seed)
    said: list[subprocess.CompletedProcess[str]] = []
    while len(said) <= again and (not said or said[-1].returncode in {3, 4}):
        said.append(world.urban(stormy, *world.fetch(), timeout_s=1200))
    sys.stdout.write(f"seed {seed}: {[each.returncode for each in said]} {faults.done}\n")
    assert said[-1].returncode == 0, said[-1].stderr
    assert files_of(stormy) == files_of(calm)
    assert leaks(stormy, cache_of(stormy)) == []
    assert not any(MARK in each.stdout + each.stderr for each in said)
    assert {kind for _, kind in faults.done} == set(KINDS)
    share = sum(faults.done.values()) / len(world.door.log)
    assert 0.12 < share < 0.28, share


def test_a_fetch_in_a_storm_brings_the_same(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    with World(demo_inputs, timeout_s=2) as world:
        _storm(world, tmp_path, seed=1)


@pytest.mark.soak
def test_a_long_storm_over_a_whole_city(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    with World(demo_inputs, timeout_s=2, lifetime_s=3) as world:
        _storm(world, tmp_path, seed, again=3)
