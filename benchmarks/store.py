"""Random batches of 16,384 places out of the token store, against numpy and a plain copy.

    python -m benchmarks.store [PLACES [ROUNDS [FOLDER]]]      (default 1000000 21, a temporary one)

Two stores are made on disk, block by block: one vector of 768 float16 per place, and bags of 0 to 4
vectors of 384 float16 with a position each. All their pages are touched first, so that files and
page tables are warm; what the first batches after opening cost is told apart (`opened`). Then every
round draws one batch at random, and on it runs, in turn:

- `batch`: `make_batch`, as the training loop calls it: torch tensors, float16 widened to float32;
- `take`: `Tokens.take`, which keeps float16 (the store alone);
- `fancy`: numpy's `memmap[rows]` of the same rows, float16;
- `before`: `memmap[rows].astype(float32)`, the plain way to what `batch` gives;
- `copy`: as many bytes in one piece from a random start, copied to a new array.

GB/s count the bytes as they are stored, once, also where twice as many are written. `gb_per_s` is
`batch` of single vectors, `ratio` is `gb_per_s` over `copy`; `ratio_take` is `take` over `copy`.
`batch_over_bytes` is the peak of memory newly taken while one batch is made over the size of the
batch's own tensors: 1 says that nothing but the batch was copied. Times are medians.
"""

import resource
import shutil
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._result import finish
from urbancli.token_files import load_tokens, write_tokens
from urbancli.tokens import Tokens, make_batch, single_tokens

WIDTH, BAG_WIDTH, LARGEST_BAG = 768, 384, 4
BATCH = 16_384
WANTED = 0.5
"""GB/s."""

CHECKED = 64
"""Places of a batch that are compared with a loop over single places."""

Integers = npt.NDArray[np.int64]


def encode_single(start: int, stop: int) -> Tokens:
    """Return one vector per place, drawn from the block's own seed."""
    rng = np.random.default_rng([0, start])
    return single_tokens(rng.random((stop - start, WIDTH), np.float32).astype(np.float16))


def encode_bags(start: int, stop: int) -> Tokens:
    """Return bags of vectors with positions, drawn likewise."""
    rng = np.random.default_rng([1, start])
    counts = rng.integers(0, LARGEST_BAG + 1, stop - start)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = rng.random((offsets[-1], BAG_WIDTH), np.float32).astype(np.float16)
    positions = rng.random((offsets[-1], 2), np.float32)
    return Tokens(values, offsets, positions, np.ones(stop - start, dtype=bool), bag=True)


STORES = {"single": encode_single, "bags": encode_bags}


def room_needed(places: int) -> int:
    """Return the bytes that making one store after the other takes on disk."""
    single = places * WIDTH * 2
    bags = places * LARGEST_BAG * (BAG_WIDTH * 2 + 8) // 2
    # While the blocks of a store are joined it is there twice.
    return int(1.1 * (2 * single + 2 * bags))


def touch(tokens: Tokens) -> None:
    """Read a value of every page of a store's files."""
    for array in (tokens.values, tokens.positions, tokens.offsets, tokens.present):
        pages = np.asarray(array).reshape(-1).view(np.uint8)[::4096]
        pages.max(initial=0)


# --- what is timed ---------------------------------------------------------------------------


def competitors(tokens: Tokens) -> dict[str, Callable[[Integers], Any]]:
    """Return name → what it does with an index of places."""
    values, positions = tokens.values, tokens.positions

    def fancy(index: Integers) -> Any:
        rows, _ = tokens.rows(index)
        return values[rows], positions[rows]

    def before(index: Integers) -> Any:
        rows, _ = tokens.rows(index)
        return values[rows].astype(np.float32), positions[rows]

    def copy(index: Integers) -> Any:
        rows, _ = tokens.rows(index)
        start = int(rows[0]) % max(1, len(values) - len(rows))
        stop = start + len(rows)
        return np.array(values[start:stop]), np.array(positions[start:stop])

    return {
        "batch": lambda index: make_batch({"modality": tokens}, index),
        "take": tokens.take,
        "fancy": fancy,
        "before": before,
        "copy": copy,
    }


def stored_bytes(tokens: Tokens, index: Integers) -> int:
    """Return the bytes of values and positions of places, as they are stored."""
    count = int((tokens.offsets[index + 1] - tokens.offsets[index]).sum())
    arrays = (tokens.values, tokens.positions)
    return count * int(sum(array.shape[1] * array.itemsize for array in arrays))


def measure(tokens: Tokens, rounds: int) -> dict[str, Any]:
    """Return the median GB/s of every competitor on warm random batches, interleaved."""
    rng = np.random.default_rng(2)
    speeds: dict[str, list[float]] = {name: [] for name in competitors(tokens)}
    for number in range(rounds + 1):
        index = rng.integers(0, len(tokens), BATCH)
        size = stored_bytes(tokens, index)
        for name, work in competitors(tokens).items():
            begun = time.perf_counter()
            made = work(index)
            seconds = time.perf_counter() - begun
            del made
            if number:  # the first round does not count
                speeds[name].append(size / seconds / 1e9)
    check(tokens, index)
    return {name: round(statistics.median(found), 3) for name, found in speeds.items()}


def check(tokens: Tokens, index: Integers) -> None:
    """Compare a batch with a loop over some of its places."""
    part = make_batch({"modality": tokens}, index).modalities["modality"]
    offsets = part.offsets.numpy()
    for number in range(0, len(index), max(1, len(index) // CHECKED)):
        begin, end = tokens.offsets[index[number]], tokens.offsets[index[number] + 1]
        wanted = tokens.values[begin:end].astype(np.float32)
        np.testing.assert_array_equal(part.values[offsets[number] : offsets[number + 1]], wanted)


def opened(folder: Path, rounds: int) -> float:
    """Return GB/s of the first batches after opening: the pages are in memory, not yet mapped."""
    rng = np.random.default_rng(3)
    speeds = []
    for _ in range(rounds):
        tokens = load_tokens(folder)
        index = rng.integers(0, len(tokens), BATCH)
        begun = time.perf_counter()
        make_batch({"modality": tokens}, index)
        speeds.append(stored_bytes(tokens, index) / (time.perf_counter() - begun) / 1e9)
    return round(statistics.median(speeds), 3)


def memory(tokens: Tokens) -> float:
    """Return the peak of memory newly taken while a batch is made, over the batch's own bytes."""
    import torch

    index = np.random.default_rng(4).integers(0, len(tokens), BATCH)
    tracemalloc.start()
    part = make_batch({"modality": tokens}, index).modalities["modality"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tensors = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
    return round(peak / sum(value.nbytes for value in tensors), 3)


# --- all of it -------------------------------------------------------------------------------


def examine(name: str, folder: Path, places: int, rounds: int) -> dict[str, Any]:
    """Make one store, measure it, and return what was found."""
    begun = time.perf_counter()
    write_tokens(folder, {"modality": name}, places, STORES[name])
    written = time.perf_counter() - begun
    first = opened(folder, min(rounds, 5))
    tokens = load_tokens(folder)
    touch(tokens)
    return {
        "speeds": measure(tokens, rounds),
        "opened": first,
        "batch_over_bytes": memory(tokens),
        "gigabytes": round((tokens.values.nbytes + tokens.positions.nbytes) / 1e9, 3),
        "seconds_to_make": round(written, 1),
    }


def examine_all(places: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return what is measured of both stores.

    Args:
        places: of each store.
        rounds: batches that count.
        folder: where a temporary folder of the stores goes.
    """
    free, needed = shutil.disk_usage(folder).free, room_needed(places)
    if free < needed:
        raise SystemExit(
            f"{folder} has {free / 1e9:.1f} GB free, {places} places need {needed / 1e9:.1f}: name "
            f"another folder, or fewer places, e.g. `python -m benchmarks.store {places // 10}`"
        )
    found = {}
    for name in STORES:
        # One at a time: a store whose pages are pushed out by the other is not warm.
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            found[name] = examine(name, Path(inside) / name, places, rounds)
    single = found["single"]["speeds"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "ratio": round(single["batch"] / single["copy"], 3),
        "ratio_take": round(single["take"] / single["copy"], 3),
        "gb_per_s": single["batch"],
        "peak_mb": round(peak, 1),
        "places": places,
        "batch_places": BATCH,
        "met": single["batch"] >= WANTED,
        "stores": found,
    }


def show(found: dict[str, Any]) -> None:
    """Print a table of GB/s."""
    names = list(found["stores"]["single"]["speeds"])
    print(f"random batches of {BATCH} of {found['places']} places, stored GB/s, medians")
    columns = [*names, "opened"]
    print(f"{'':8}" + "".join(f"{name:>9}" for name in columns) + f"{'memory / batch':>17}")
    for name, store in found["stores"].items():
        speeds = [*store["speeds"].values(), store["opened"]]
        cells = "".join(f"{speed:9.2f}" for speed in speeds)
        print(f"{name:8}{cells}{store['batch_over_bytes']:17.3f}")
    print(f"peak memory of the process, mapped pages of the files included: {found['peak_mb']} MiB")


if __name__ == "__main__":
    given = sys.argv[1:]
    count, rounds, where = (*given, *("1000000", "21", tempfile.gettempdir())[len(given) :])
    result = examine_all(int(count), int(rounds), Path(where))
    show(result)
    finish("store", result)
