"""One world and one calm fetch for all tests of a session: services and imports cost seconds."""

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.world.content import files_of
from tests.world.world import STORAGE, World


@dataclass(frozen=True)
class Calm:
    """What `urban fetch` brought when nothing was in its way.

    Attributes:
        workspace: of the fetch; to be looked at only.
        files: its files' checksums.
        at_once: the most reads of storage that were under way at a time.
        read: bytes read from storage.
    """

    workspace: Path
    files: dict[str, str]
    at_once: int
    read: int

    def layers(self, *names: str) -> dict[str, str]:
        """Return the checksums of some layers' files."""
        return {name: self.files[f"data/town/layers/{name}.parquet"] for name in names}


def calm_world(inputs: Path) -> World:
    """Return the world of a city, without faults, delays and log; the calling test has sockets."""
    world = _world(inputs)
    world.door.spoiler = None
    world.door.latency_s = 0.0
    world.signatures.lifetime_s = 3600.0
    world.door.log.clear()
    world.door.most_at_once.clear()
    return world


@functools.cache
def calm_fetch(inputs: Path) -> Calm:
    """Return what a fetch of all layers brings."""
    world = calm_world(inputs)
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    world.door.latency_s = 0.03  # so that workers which wait meet
    done = world.urban(folder / "calm", *world.fetch("--workers", 8))
    assert done.returncode == 0, done.stderr
    at_once = world.door.most_at_once[STORAGE]
    read = sum(each.sent for each in world.door.of(STORAGE))
    calm_world(inputs)
    return Calm(folder / "calm", files_of(folder / "calm"), at_once, read)


def layers_of(workspace: Path) -> dict[str, str]:
    """Return the checksums of the layers' files of a fetch."""
    found = files_of(workspace / "data/town/layers")
    return {name.removesuffix(".parquet"): digest for name, digest in found.items()}


@functools.cache
def _world(inputs: Path) -> World:
    world = World(inputs, timeout_s=2)
    atexit.register(world.__exit__)
    return world.__enter__()
