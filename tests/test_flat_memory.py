"""Memory does not grow with the city: four times the tiles, the same blocks at a time.

Of entities some things are held for all at once: where each node lies, relations with the
geometries of their members, and what sorts the rows. That may grow a little.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import shapely

from tests.world.world import World, cache_of
from urbancli.demo.files import make_inputs
from urbancli.demo.recipe import Recipe

MOST = 1.2
"""The peak of four times the tiles, over that of one."""

MOST_OF_ENTITIES = 1.4
"""Likewise; 1.32 was measured, and 1.72 when all of them were held in memory."""


def _peak(world: World, workspace: Path, bbox: str, *more: str) -> tuple[int, int]:
    """Return tiles and peak resident memory, bytes, of a fetch of a part of a city."""
    told = workspace.with_suffix(".peak")
    arguments = ["--workspace", str(workspace), "fetch", "--city", "town", "--bbox", bbox, *more]
    done = subprocess.run(
        [sys.executable, "-m", "tests.world.peak", str(told), *arguments, "--workers", "4"],
        capture_output=True, text=True, env=world.environment(cache_of(workspace)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tiles = int(done.stdout.split(": ")[1].split(" ")[0].replace(",", ""))
    return tiles, int(told.read_text())


def _quarter(world: World) -> str:
    """Return the south-west quarter of a city."""
    west, south, east, north = shapely.bounds(world.area)
    return f"{west + 1e-4},{south + 1e-4},{(west + east) / 2 - 1e-4},{(south + north) / 2 - 1e-4}"


@pytest.mark.soak
def test_four_times_the_tiles_want_no_more_memory(tmp_path: Path, socket_enabled: None) -> None:
    inputs = tmp_path / "inputs/demo"
    make_inputs(inputs, Recipe(tiles=40), lambda *_: None)
    found = {}
    with World(inputs) as world:
        for layer in ("naip", "sentinel2", "entities"):
            peaks = []
            for name, bbox in (("quarter", _quarter(world)), ("whole", world.bbox)):
                peaks.append(_peak(world, tmp_path / f"{layer}-{name}", bbox, "--layer", layer))
            (few, small), (many, large) = peaks
            assert 3.5 < many / few < 4.5
            found[layer] = large / small
            sys.stdout.write(f"{layer}: {few} tiles {small:,}, {many} tiles {large:,} bytes\n")
    assert found["naip"] <= MOST and found["sentinel2"] <= MOST, found
    assert found["entities"] <= MOST_OF_ENTITIES, found
