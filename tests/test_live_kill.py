"""`kill -9` in the middle of a live fetch: the same command goes on, and reads little again."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.world.cog_bytes import read_again, squares
from tests.world.content import files_of, leaks
from tests.world.shared import calm_world
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

    def __init__(self, world: World, folder: Path, *more: str) -> None:
        self.world, self.folder, self.more = world, folder, more
        self.read_again = self.finished = self.met = 0
        self._squares = {
            layer: squares(world.inputs / "catalogue", f"{name}/**/*.tif")
            for layer, name in (("sentinel2", "sentinel-2-l2a"), ("naip", "naip"))
        }
        began = time.monotonic()
        self.expected = self._finish(folder / "whole")
        self.seconds = time.monotonic() - began
        self.blocks = _blocks(folder / "whole")

    def kill(self, seed: int, layer: str = "", staged: int = 0) -> None:
        """Kill once: at a random moment, or once so many blocks of a layer are staged; resume."""
        workspace = self.folder / f"killed-{seed}"
        process = subprocess.Popen(
            urban_command(workspace, *self.world.fetch(*self.more)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.world.environment(cache_of(workspace)),
        )
        until = random.Random(seed).uniform(0.2, self.seconds)
        began = time.monotonic()
        while process.poll() is None:
            if not layer and time.monotonic() - began >= until:
                break
            if layer and sum(name == layer for name, _ in _staged(workspace)) >= staged:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = _staged(workspace)
        done = _finished_layers(workspace)
        self.world.door.log.clear()
        assert self._finish(workspace) == self.expected, f"seed {seed}"
        self._count(left, done)

    def _finish(self, workspace: Path) -> dict[str, str]:
        done = self.world.urban(workspace, *self.world.fetch(*self.more))
        assert done.returncode == 0, done.stderr
        assert leaks(workspace, cache_of(workspace)) == []
        return files_of(workspace)

    def _count(self, staged: set[tuple[str, str]], layers: set[str]) -> None:
        log = self.world.door.of(STORAGE)
        for layer, blocks in self.blocks.items():
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
    world = calm_world(demo_inputs)
    killer = Killer(world, tmp_path, "--layer", "sentinel2", "--layer", "naip")
    killer.kill(1, "sentinel2", staged=4)
    killer.kill(2, "naip", staged=4)
    assert killer.met == 2 and killer.finished > 5e6, "killed too late"
    assert killer.read_again <= AT_MOST * killer.finished, (killer.read_again, killer.finished)


@pytest.mark.soak
def test_thirty_killed_live_fetches_go_on(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    seeds = [random.SystemRandom().randrange(1 << 30) for _ in range(30)]
    with World(demo_inputs) as world:
        killer = Killer(world, tmp_path)
        for seed in seeds:
            killer.kill(seed)
    share = killer.read_again / killer.finished
    sys.stdout.write(f"read again: {share:.2%} of {killer.finished:,} bytes, met {killer.met}\n")
    assert killer.met >= 5
    assert share <= AT_MOST
