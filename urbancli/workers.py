"""Who reads the blocks of a layer: threads here, or a Dask cluster.

Blocks are a pure function of the plan, so who reads them, in which order and how many at once does
not change a byte. Threads serve for waiting and for decoding: GDAL and numpy let go of Python's
lock while they work.
"""

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import pyarrow as pa

from urbancli.errors import ServiceError, UrbanError
from urbancli.grid import Block
from urbancli.net import OfflineError
from urbancli.sources.base import Source

Keep = Callable[[Block, pa.Table], None]
"""Writes the rows of a block."""

Outcome = tuple[Block, ServiceError | None]
"""A block and, where it could not be read, why."""

Outcomes = Generator[Outcome, None, None]

CONNECT_S = 10

FIRST_PAUSE_S = 5.0
"""Before a service that is down is asked again; each further pause is twice as long."""


class Workers(ABC):
    """Reads blocks, several at once.

    Attributes:
        count: how many at once.
    """

    count: int

    @abstractmethod
    def run(self, source: Source, blocks: Sequence[Block], keep: Keep) -> Outcomes:
        """Read and keep each block; yield them as they end. Closed early, the rest is not begun.

        Raises:
            UrbanError: what reading a block raises beside `ServiceError`, or what keeping raises.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held; nothing is read afterwards."""


class Threads(Workers):
    """Threads of this process."""

    def __init__(self, count: int) -> None:
        self.count = count

    def close(self) -> None:
        """Do nothing: threads end with the reading."""

    def run(self, source: Source, blocks: Sequence[Block], keep: Keep) -> Outcomes:
        """Read and keep each block on a thread."""
        cores = os.cpu_count() or 1
        # Packing is all computing: more at once than there are cores only crowd each other out.
        packing = threading.Semaphore(cores)

        def work(block: Block) -> Outcome:
            try:
                table = source.read(block)
            except ServiceError as err:
                return block, err
            with packing:
                keep(block, table)
            return block, None

        # Those who wait for a service stand beside each other, at two places for each core: one
        # is decoded while the other's bytes come, and little is read twice where stretches meet.
        apart = min(self.count, 2 * cores) if source.apart else 1
        stretches = Stretches(blocks, apart)
        running: dict[Future[Outcome], int] = {}
        with ThreadPoolExecutor(self.count, "urban-block") as pool:

            def begin(reader: int) -> None:
                if (block := stretches.next(reader % apart)) is not None:
                    running[pool.submit(work, block)] = reader

            for reader in range(self.count):
                begin(reader)
            while running:
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                outcomes = [future.result() for future in ended]
                for future in ended:
                    begin(running.pop(future))
                yield from outcomes


class Stretches:
    """Blocks in the order in which several readers take them, each along a stretch of its own.

    Neighbours share what a file stores as one piece. Where decoding is what takes time, readers of
    neighbours would wait for each other; one who reads both finds what he has decoded.

    Args:
        blocks: neighbours following each other.
        readers: how many.
    """

    def __init__(self, blocks: Sequence[Block], readers: int) -> None:
        self._blocks = blocks
        ends = [len(blocks) * reader // readers for reader in range(readers + 1)]
        self._left = [range(*pair) for pair in pairwise(ends)]

    def next(self, reader: int) -> Block | None:
        """Return a reader's next block; at its end, the second half of the longest stretch."""
        if not self._left[reader]:
            longest = max(range(len(self._left)), key=lambda other: len(self._left[other]))
            left = self._left[longest]
            half = len(left) // 2
            self._left[longest], self._left[reader] = left[:half], left[half:]
        if not self._left[reader]:
            return None
        first, self._left[reader] = self._left[reader][0], self._left[reader][1:]
        return self._blocks[first]


class Dask(Workers):
    """The workers of a Dask cluster, which have the same urban installed.

    They read, and this process writes: they need no common disk.

    Args:
        address: of the scheduler, e.g. `tcp://10.0.0.1:8786`.

    Raises:
        UrbanError: dask is not installed.
        ServiceError: there is no scheduler there, or it has no workers.
    """

    AHEAD = 2
    """Blocks under way for each thread of the cluster: none waits for this process."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError as err:
            raise UrbanError(
                "--scheduler wants Dask: `pip install 'urbancli[scale]'`, here and on its workers"
            ) from err
        self._client: Any = None
        try:
            self._client = Client(address, timeout=CONNECT_S, set_as_default=False)
            self._client.wait_for_workers(1, timeout=CONNECT_S)
        except (OSError, ValueError, TimeoutError) as err:
            self.close()
            raise ServiceError(
                f"no Dask scheduler with workers at {address}: start `dask scheduler` and `dask "
                "worker`, or leave out --scheduler"
            ) from err
        self.count = sum(self._client.nthreads().values())

    def close(self) -> None:
        """Leave the cluster."""
        if self._client is not None:
            self._client.close(timeout=CONNECT_S)

    def run(self, source: Source, blocks: Sequence[Block], keep: Keep) -> Outcomes:
        """Read each block on the cluster and keep it here."""
        from distributed import as_completed

        waiting = iter(blocks)
        with _lost_cluster():
            shared = self._client.scatter(source, broadcast=True)
            running: dict[str, tuple[Any, Block]] = {}

            def submit(most: int) -> list[Any]:
                futures = []
                for block in islice(waiting, most):
                    future = self._client.submit(_read, shared, block, pure=False)
                    running[future.key] = (future, block)
                    futures.append(future)
                return futures

            ended = as_completed(submit(self.AHEAD * self.count), loop=self._client.loop)
            try:
                for future in ended:
                    _, block = running.pop(future.key)
                    outcome = _outcome(future)
                    future.release()
                    ended.update(submit(1))
                    if isinstance(outcome, ServiceError):
                        yield block, outcome
                    else:
                        keep(block, outcome)
                        yield block, None
            finally:
                self._client.cancel([future for future, _ in running.values()], force=True)


def _read(source: Source, block: Block) -> pa.Table:
    """Return a block's rows, on a worker."""
    return source.read(block)


def _outcome(future: Any) -> pa.Table | ServiceError:
    """Return what a worker made of a block.

    Raises:
        UrbanError: as reading it did.
    """
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        return ServiceError("Dask workers died reading it (memory?): try the same command again")
    if error is None or isinstance(error, ServiceError):
        return error or future.result()
    raise error


@contextlib.contextmanager
def _lost_cluster() -> Generator[None, None, None]:
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    try:
        yield
    except (CommClosedError, CancelledError, TimeoutError) as err:
        raise ServiceError(
            "the Dask scheduler went away: start it and run the same command again, finished "
            "blocks are kept"
        ) from err


# --- as often as it may help -------------------------------------------------------------------


@dataclass(frozen=True)
class Patience:
    """How long a service that fails is waited for.

    Attributes:
        total_s: in all, from the last block that it gave.
        first_pause_s: before it is asked again; each further pause is twice as long.
        say: told in one line of each pause.
    """

    total_s: float = 600.0
    first_pause_s: float = FIRST_PAUSE_S
    say: Callable[[str], None] = lambda line: None

    def pauses(self) -> Iterator[float]:
        """Yield seconds to wait, each twice the last, no more in all than the patience."""
        waited, pause = 0.0, self.first_pause_s
        while waited + pause <= self.total_s:
            yield pause
            waited, pause = waited + pause, 2 * pause


def read_all(
    workers: Workers,
    source: Source,
    blocks: Sequence[Block],
    keep: Keep,
    told: Callable[[], None],
    patience: Patience,
) -> dict[str, str]:
    """Read and keep blocks, again where that may help, and return why the others failed, by id.

    A block that fails among others that do not is tried once more. Where none succeeds any more
    the service is down: it is waited for, longer each time, until the patience is at its end.

    Args:
        workers: who read.
        source: planned.
        blocks: to be read.
        keep: writes the rows of one.
        told: called after each block that was read.
        patience: with a service that is down.
    """
    left, again, pauses = list(blocks), False, patience.pauses()
    while left:
        read, failed, stopped = _round(workers, source, left, keep, told)
        left = [block for block in left if block not in read]
        if not left or not failed:
            break
        first = next(iter(failed.values()))
        why = {block.block_id: str(failed.get(block, first)) for block in left}
        down = stopped or not (read or again)
        if isinstance(first, OfflineError) or (again and not down):
            return why
        if not down:
            again = True
            continue
        again = False  # what fails as the service comes back is tried once more, too
        if read:
            pauses = patience.pauses()
        pause = next(pauses, None)
        if pause is None:
            return why
        patience.say(
            f"{source.layer}: {first}; asked again in {pause:.0f} s ({len(left)} of {len(blocks)} "
            "blocks left; Ctrl-C stops, finished blocks are kept)"
        )
        time.sleep(pause)
    return {}


def _round(
    workers: Workers,
    source: Source,
    blocks: Sequence[Block],
    keep: Keep,
    told: Callable[[], None],
) -> tuple[set[Block], dict[Block, ServiceError], bool]:
    """Try blocks once; stop where twice as many as there are workers fail in a row.

    Returns the blocks read, those that failed, and whether it stopped.
    """
    read: set[Block] = set()
    failed: dict[Block, ServiceError] = {}
    in_a_row = 0
    with contextlib.closing(workers.run(source, blocks, keep)) as outcomes:
        for block, error in outcomes:
            if error is None:
                read.add(block)
                in_a_row = 0
                told()
                continue
            failed[block] = error
            in_a_row += 1
            if in_a_row >= 2 * workers.count:
                return read, failed, True
    return read, failed, False
