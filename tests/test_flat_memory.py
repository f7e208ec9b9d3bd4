"""Memory does not grow with the city: four times the tiles, the same blocks at a time.

Entities of a small city are held in memory, of a larger one they lie on disk (`_sorted_rows`): the
city here is large enough for both its quarter and its whole to lie there. Overpass's answers are
merged first, which grows a little.
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

MOST_OF_OVERPASS = 1.4
"""Likewise; from 1.07 (80 tiles a side) to 1.27 (90) were measured."""


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
    kinds = {
        "naip": (40, ("--layer", "naip"), MOST),
        "sentinel2": (40, ("--layer", "sentinel2"), MOST),
        "entities": (80, ("--osm", str(tmp_path / "80/demo/map.osm.pbf")), MOST),
        "overpass": (80, ("--layer", "entities"), MOST_OF_OVERPASS),
    }
    found = {}
    for side in (40, 80):
        inputs = tmp_path / f"{side}/demo"
        make_inputs(inputs, Recipe(tiles=side), lambda *_: None)
        with World(inputs) as world:
            for kind, (_, more, _) in ((k, v) for k, v in kinds.items() if v[0] == side):
                peaks = []
                for name, bbox in (("quarter", _quarter(world)), ("whole", world.bbox)):
                    peaks.append(_peak(world, tmp_path / f"{kind}-{name}", bbox, *more))
                (few, small), (many, large) = peaks
                assert 3.5 < many / few < 4.5
                found[kind] = large / small
                sys.stdout.write(f"{kind}: {few} tiles {small:,}, {many} tiles {large:,} bytes\n")
    for kind, (_, _, most) in kinds.items():
        assert found[kind] <= most, found
