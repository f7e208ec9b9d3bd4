"""Files of tokens: memory-mapped to read, written block by block where there are many places."""

import itertools
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.errors import UrbanError
from urbancli.lock import turn
from urbancli.tokens import ARRAYS, Tokens
from urbancli.workspace import atomic_path, read_json, sweep, write_json

BLOCK_PLACES = 4096
"""Places that `write_tokens` encodes and keeps at a time."""


def load_tokens(folder: Path) -> Tokens:
    """Return saved tokens, memory-mapped.

    Raises:
        UrbanError: they are not whole, or do not belong together.
    """
    facts = read_json(folder / "tokens.json")
    broken = f"{folder} is broken: delete it and run the same command again"
    try:
        arrays = [np.lib.format.open_memmap(folder / f"{n}.npy", mode="r") for n in ARRAYS]
        values, offsets, positions, present = arrays
        tokens = Tokens(values, offsets, positions, present, facts["bag"])
        total = len(values)
        whole = len(offsets) == len(present) + 1 and offsets[0] == 0 and offsets[-1] == total
    except (OSError, ValueError, KeyError, TypeError, IndexError) as err:
        raise UrbanError(broken) from err
    if not whole or len(positions) != total:
        raise UrbanError(broken)
    return tokens


def write_tokens(
    folder: Path,
    facts: dict[str, Any],
    size: int,
    encode: Callable[[int, int], Tokens],
    block_places: int = BLOCK_PLACES,
) -> Tokens:
    """Encode places block by block into a folder, unless they are there; return them, mapped.

    A finished block waits in `blocks/`: a call that was killed goes on where it stopped. When all
    are there they are joined, one in memory at a time, to the files that `Tokens.save` would have
    written, `tokens.json` last. Until then the disk holds them twice. A second process waits.

    Args:
        folder: of these tokens alone: its name says what they depend on.
        facts: JSON-able, for `tokens.json`.
        size: N, number of places.
        encode: from (start, stop) to the tokens of places start … stop − 1, in their order.
        block_places: places in a block.

    Raises:
        UrbanError: a finished block is broken, or the disk is full.
        ValueError: blocks differ in width, dtype or kind: a bug of the encoder.
    """
    blocks = folder / "blocks"
    with turn(folder):
        if not (folder / "tokens.json").exists():
            sweep(folder)
            paths = []
            for start in range(0, max(size, 1), block_places):
                stop = min(start + block_places, size)
                paths.append(blocks / f"{start:09d}-{stop:09d}.npz")
                if not paths[-1].exists():
                    _save_block(paths[-1], encode(start, stop), stop - start)
            bag = _join(folder, paths)
            write_json(folder / "tokens.json", {**facts, "bag": bag})
        shutil.rmtree(blocks, ignore_errors=True)
    return load_tokens(folder)


def _save_block(path: Path, tokens: Tokens, size: int) -> None:
    if len(tokens) != size:
        raise ValueError(f"{len(tokens)} places encoded, {size} asked for")
    arrays = {name: getattr(tokens, name) for name in ARRAYS}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, bag=np.array(tokens.bag), **arrays)


def _read_blocks(paths: Sequence[Path], name: str) -> Iterator[npt.NDArray[Any]]:
    """Yield one array of each block."""
    for path in paths:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as block:
                array = np.ascontiguousarray(block[name])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
            raise UrbanError(f"{path} is broken: delete it and run the same command again") from err
        yield array


def _join(folder: Path, paths: Sequence[Path]) -> bool:
    """Write the arrays of all blocks as one .npy file each; return whether they are bags."""
    kinds = {bool(bag) for bag in _read_blocks(paths, "bag")}
    counts = [np.diff(offsets) for offsets in _read_blocks(paths, "offsets")]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    lengths = {"values": int(offsets[-1]), "positions": int(offsets[-1])}
    for name in ARRAYS:
        parts = iter([offsets]) if name == "offsets" else _read_blocks(paths, name)
        first = next(parts)
        form = (first.dtype.str, first.shape[1:])
        length = {**lengths, "offsets": len(offsets), "present": len(offsets) - 1}[name]
        header = {"descr": form[0], "fortran_order": False, "shape": (length, *form[1])}
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in itertools.chain([first], parts):
                length -= len(part)
                if (part.dtype.str, part.shape[1:]) != form or len(kinds) > 1:
                    raise ValueError(f"blocks in {folder} differ in the form of their {name}")
                file.write(part.data if part.size else b"")
            if length:
                raise ValueError(f"blocks in {folder} have offsets that miss their {name}")
    return kinds.pop()
