"""`kill -9` in the middle of a live fetch: the same command goes on, and reads little again.

What is read again: what the resumed fetch reads from storage beyond what reading the unfinished
blocks costs who starts with them. Their share of the files is read in any case, also where a
finished block had needed it too: the memory of the dead process is gone. It is held against the
bytes that the finished blocks had cost, which is what the whole costs beyond the unfinished.

One worker reads: how the reads of several meet changes their sum by some percent from run to run,
whoever is killed.
"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.world.content import files_of, leaks
from tests.world.reading import WORKERS
from tests.world.small_squares import small_squares
from tests.world.world import STORAGE, World, cache_of, urban_command

AT_MOST = 0.05
"""Of finished bytes that are read again."""

IMAGERY = ("sentinel2", "naip")


class Killer:
    """Kills fetches of a world and weighs what the resumed ones read.

    Attributes:
        again: bytes read again, over all kills.
        finished: bytes that finished blocks had cost, over all kills.
        blocks: ids of the blocks of each layer of imagery.
        met: layers that a kill met with some blocks staged and others not.
        seconds: that a fetch takes which nobody kills.
    """

    def __init__(self, world: World, folder: Path, *layers: str) -> None:
        self.world, self.folder = world, folder
        self.again = self.finished = self.met = self._kills = 0
        named = (word for name in layers for word in ("--layer", name))
        self._command = world.fetch(*named, "--workers", WORKERS)
        began = time.monotonic()
        self._expected = self._finish(folder / "whole")
        self.seconds = time.monotonic() - began
        self._whole = self._read()
        self.blocks = {name: _blocks(folder / "whole", name) for name in IMAGERY}

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
        left = {name: self.blocks[name] - finished(workspace, name) for name in IMAGERY}
        self.met += sum(0 < len(left[name]) < len(self.blocks[name]) for name in IMAGERY)
        self.world.door.log.clear()
        assert self._finish(workspace) == self._expected
        read, needed = self._read(), self._cost(left)
        assert (needed == 0) == (not any(left.values()))
        self.again += max(0, read - needed)
        self.finished += max(0, self._whole - needed)

    def _finish(self, workspace: Path) -> dict[str, str]:
        done = self.world.urban(workspace, *self._command)
        assert done.returncode == 0, done.stderr
        assert leaks(workspace, cache_of(workspace)) == []
        return files_of(workspace)

    def _read(self) -> int:
        return sum(each.sent for each in self.world.door.of(STORAGE))

    def _cost(self, left: dict[str, set[str]]) -> int:
        """Return the bytes that reading blocks costs a process that reads nothing else."""
        asked = [f"{name}={','.join(sorted(blocks))}" for name, blocks in left.items() if blocks]
        self.world.door.log.clear()
        cache = self.folder / "cost.cache"
        arguments = [self.world.stac_url, self.world.bbox, str(cache), *asked]
        done = subprocess.run(
            [sys.executable, "-m", "tests.world.reading", *arguments],
            capture_output=True, text=True, env=self.world.environment(cache),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return self._read()


def finished(workspace: Path, layer: str) -> set[str]:
    """Return the ids of a layer's blocks that need not be read any more."""
    if (workspace / f"data/town/layers/{layer}.parquet").exists():
        return _blocks(workspace, layer)
    staged = workspace.glob(f"data/town/.staging/{layer}-*/*.parquet")
    return {path.stem for path in staged if not path.name.startswith(".")}


def _blocks(workspace: Path, layer: str) -> set[str]:
    path = workspace / f"data/town/layers/{layer}.parquet"
    return set(pq.read_table(path, columns=["block"])["block"].to_pylist())


def test_a_killed_live_fetch_goes_on(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    with World(small_squares(demo_inputs, tmp_path / "inputs")) as world:
        killer = Killer(world, tmp_path, *IMAGERY)
        for layer in IMAGERY:
            killer.kill(lambda workspace, layer=layer: len(finished(workspace, layer)) >= 6)
    assert killer.met >= 2 and killer.finished > 5e6, "killed too late"
    assert killer.again <= AT_MOST * killer.finished, (killer.again, killer.finished)


@pytest.mark.soak
def test_thirty_killed_live_fetches_go_on(
    demo_inputs: Path, tmp_path: Path, socket_enabled: None
) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    generator = random.Random(seed)
    with World(small_squares(demo_inputs, tmp_path / "inputs")) as world:
        killer = Killer(world, tmp_path, *IMAGERY, "entities")
        for _ in range(15):  # half of them by the clock, half while imagery is being read
            until = time.monotonic() + generator.uniform(0.2, killer.seconds)
            killer.kill(lambda workspace, until=until: time.monotonic() >= until)
            layer = generator.choice(IMAGERY)
            most = generator.randrange(1, len(killer.blocks[layer]))
            killer.kill(
                lambda workspace, layer=layer, most=most: len(finished(workspace, layer)) >= most
            )
    share = killer.again / killer.finished
    sys.stdout.write(f"seed {seed}: {share:.2%} of {killer.finished:,} bytes, met {killer.met}\n")
    assert killer.met >= 5
    assert share <= AT_MOST
