"""`kill -9` in the middle of a live fetch: the same command goes on, and reads little again."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.world.cog_bytes import read_again, squares
from tests.world.content import leaks
from tests.world.shared import calm_fetch, calm_world, layers_of
from tests.world.world import STORAGE, World, cache_of, urban_command
from urbancli.grid import Block

AT_MOST = 0.05
"""Of finished bytes that are read again, see `cog_bytes`."""


class Killer:
    """Kills fetches of a world and holds what the resumed ones read against what was finished.

    Attributes:
        read_again: bytes, over all kills.
        finished: bytes, over all kills.
        met: kills that met a fetch with some blocks staged and others not.
    """

    def __init__(self, world: World, folder: Path, whole: Path, layers: Sequence[str]) -> None:
        self.world, self.folder, self.layers = world, folder, layers
        self.read_again = self.finished = self.met = self._kills = 0
        self._squares = {
            layer: squares(world.inputs / "catalogue", f"{name}/**/*.tif")
            for layer, name in (("sentinel2", "sentinel-2-l2a"), ("naip", "naip"))
        }
        self._command = world.fetch(*(word for name in layers for word in ("--layer", name)))
        found = layers_of(whole)
        self._expected = {name: found[name] for name in layers}
        self._blocks = _blocks(whole)

    def kill(self, after: Callable[[Path], bool]) -> None:
        """Kill a fetch as soon as that holds of its workspace, then give the same command again."""
        self._kills += 1
        workspace = self.folder / f"killed-{self._kills}"
        process = subprocess.Popen(
            urban_command(workspace, *self._command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.world.environment(cache_of(workspace)),
        )
        while process.poll() is None and not after(workspace):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = _staged(workspace)
        done = _finished_layers(workspace)
        self.world.door.log.clear()
        resumed = self.world.urban(workspace, *self._command)
        assert resumed.returncode == 0, resumed.stderr
        assert layers_of(workspace) == self._expected
        assert leaks(workspace, cache_of(workspace)) == []
        self._count(left, done)

    def _count(self, staged: set[tuple[str, str]], layers: set[str]) -> None:
        log = self.world.door.of(STORAGE)
        for layer, blocks in self._blocks.items():
            done = [b for b in blocks if layer in layers or (layer, b.block_id) in staged]
            open_ = [b for b in blocks if b not in done]
            again, whole = read_again(self._squares[layer], done, open_, log)
            self.read_again += again
            self.finished += whole
            self.met += bool(done and open_)


def _staged(workspace: Path) -> set[tuple[str, str]]:
    """Return (layer, block id) of the staged blocks."""
    found = workspace.glob("data/town/.staging/*/*.parquet")
    return {(path.parent.name.rpartition("-")[0], path.stem) for path in found
            if not path.name.startswith(".")}  # fmt: skip


def _count_staged(workspace: Path, layer: str) -> int:
    return sum(name == layer for name, _ in _staged(workspace))


def _finished_layers(workspace: Path) -> set[str]:
    return {path.stem for path in workspace.glob("data/town/layers/*.parquet")
            if not path.name.startswith(".")}  # fmt: skip


def _blocks(workspace: Path) -> dict[str, list[Block]]:
    """Return the blocks of each layer of pixels of a whole fetch."""
    import pyarrow.parquet as pq

    found: dict[str, list[Block]] = {}
    for layer in ("sentinel2", "naip"):
        path = workspace / f"data/town/layers/{layer}.parquet"
        names = sorted(set(pq.read_table(path, columns=["block"])["block"].to_pylist()))
        found[layer] = [_block(name) for name in names]
    return found


def _block(name: str) -> Block:
    epsg, tile_m, place = name.split("_", 2)
    column, row = place.removeprefix("b").split("_")
    return Block(int(epsg), int(tile_m), int(column), int(row))


def test_a_killed_live_fetch_goes_on(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    calm = calm_fetch(demo_inputs)
    world = calm_world(demo_inputs)
    killer = Killer(world, tmp_path, calm.workspace, ("naip", "sentinel2"))
    for layer in ("naip", "sentinel2"):
        killer.kill(lambda workspace, layer=layer: _count_staged(workspace, layer) >= 4)
    assert killer.met == 2 and killer.finished > 5e6, "killed too late"
    assert killer.read_again <= AT_MOST * killer.finished, (killer.read_again, killer.finished)


@pytest.mark.soak
def test_thirty_killed_live_fetches_go_on(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    sys.stdout.write(f"seed {seed}\n")
    generator = random.Random(seed)
    with World(demo_inputs) as world:
        began = time.monotonic()
        whole = world.urban(tmp_path / "whole", *world.fetch())
        assert whole.returncode == 0, whole.stderr
        seconds = time.monotonic() - began
        killer = Killer(world, tmp_path, tmp_path / "whole", ("naip", "sentinel2", "entities"))
        for _ in range(30):
            until = time.monotonic() + generator.uniform(0.2, seconds)
            killer.kill(lambda workspace, until=until: time.monotonic() >= until)
    share = killer.read_again / killer.finished
    sys.stdout.write(f"read again: {share:.2%} of {killer.finished:,} bytes, met {killer.met}\n")
    assert killer.met >= 5
    assert share <= AT_MOST
