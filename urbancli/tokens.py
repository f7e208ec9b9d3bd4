"""Tokens: a frozen encoder's output per place, and batches of them.

Tokens of files are memory-mapped and keep their dtype until a batch is made of them: a batch is
gathered row by row straight into its own tensors, and nothing else is copied.

`Batch.drop` is the only place in the package where a modality goes missing: a mask, never zeros
that a method might read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from urbancli.errors import UrbanError
from urbancli.workspace import atomic_path, sweep, write_json

if TYPE_CHECKING:
    import torch

ARRAYS = ("values", "offsets", "positions", "present")
"""The arrays of tokens, each a file."""

SCRATCH_BYTES = 1 << 20
"""What gathering and pooling need beside their result, about: it stays in the processor's cache."""


@dataclass(frozen=True)
class Tokens:
    """One modality of N places: ragged, memory-mapped, never padded.

    Attributes:
        values: (ΣT, d) float16 for standardised features, float32 for counts, float64 coordinates.
        offsets: (N + 1,) int64; the tokens of place i are `values[offsets[i]:offsets[i + 1]]`.
        positions: (ΣT, p) float32, where in the place a token lies, tile units; p may be 0.
        present: (N,) bool; false where the modality is unknown here. A place that is known to be
            empty is present with no tokens.
        bag: whether a place has any number of tokens; else each present place has exactly one.
    """

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    bag: bool

    def __len__(self) -> int:
        return len(self.present)

    @property
    def pooled_width(self) -> int:
        """D of `pooled()`."""
        width = int(self.values.shape[1])
        return 2 * width + 1 if self.bag else width

    def pooled(self) -> npt.NDArray[Any]:
        """Return one vector per place, (N, D), zero where the modality is absent.

        A single token is itself (D = d). A bag of tokens becomes its mean, its signed
        log1p(|sum|), which keeps how many there are, and log1p of their number: D = 2 d + 1.
        """
        if self.bag:
            return _pool_bags(self.values, self.offsets)
        out = np.zeros((len(self), self.values.shape[1]), dtype=_wide(self.values))
        out[self.present] = self.values
        return out

    def rows(self, index: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return which rows of `values` the places at an index have, and their own offsets.

        Args:
            index: (B,) integers in [0, N), in any order and with repeats.

        Returns:
            (ΣT,) and (B + 1,), both int64.

        Raises:
            IndexError: there is no such place.
        """
        index = np.asarray(index, dtype=np.int64)
        _check_range(index, len(self))
        starts = self.offsets[index]
        counts = self.offsets[index + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        return rows, offsets

    def take(self, index: npt.ArrayLike) -> "Tokens":
        """Return the tokens of the places at an index, see `rows`, copied."""
        rows, offsets = self.rows(index)
        return Tokens(
            _gather(self.values, rows),
            offsets,
            _gather(self.positions, rows),
            self.present[np.asarray(index, dtype=np.int64)],
            self.bag,
        )

    def without(self, gone: npt.NDArray[np.bool_]) -> "Tokens":
        """Return them absent in some places (N,), whose tokens are then not in it; a copy."""
        counts = np.diff(self.offsets)
        rows = np.flatnonzero(np.repeat(~gone, counts))
        offsets = np.concatenate([[0], np.cumsum(counts * ~gone)]).astype(np.int64)
        return Tokens(
            _gather(self.values, rows), offsets, _gather(self.positions, rows),
            self.present & ~gone, self.bag,
        )  # fmt: skip

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write the arrays as .npy files, and `tokens.json` last: it exists, so all is there."""
        sweep(folder)
        for name in ARRAYS:
            with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
                # Rows must lie together: a batch of a transposed file would read all of it.
                np.save(file, np.ascontiguousarray(getattr(self, name)), allow_pickle=False)
        write_json(folder / "tokens.json", {**facts, "bag": self.bag})


def _wide(values: npt.NDArray[Any]) -> Any:
    return np.float32 if values.dtype == np.float16 else values.dtype


def _check_range(index: npt.NDArray[np.int64], size: int) -> None:
    if len(index) and not 0 <= index.min() <= index.max() < size:
        raise IndexError(f"indices {index.min()} to {index.max()} of an array of {size}")


def _gather(
    array: npt.NDArray[Any], rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Return `array[rows]` in `out`, or in a new array: one copy, at the speed of memory."""
    _check_range(rows, len(array))
    # numpy asks for huge pages; a buffer of torch's is several times slower to write first.
    out = np.empty((len(rows), *array.shape[1:]), array.dtype) if out is None else out
    source = np.asarray(array)
    if source.flags.c_contiguous:
        # Any mode but `raise` writes to `out` directly; the range is checked above.
        np.take(source, rows, axis=0, out=out, mode="clip")
    else:
        out[...] = source[rows]
    return out


def _pool_bags(values: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return `Tokens.pooled` of bags, (N, 2 d + 1), a few places at a time."""
    size, width = len(offsets) - 1, int(values.shape[1])
    out = np.empty((size, 2 * width + 1), np.float32)
    # Float64 of the tokens, or of the sums of so many places without any.
    step = max(1, SCRATCH_BYTES // (8 * max(width, 1)))
    start = 0
    while start < size:
        reach = int(np.searchsorted(offsets, offsets[start] + step, side="right")) - 1
        stop = min(max(reach, start + 1), start + step, size)
        out[start:stop] = _pool_some(values, np.asarray(offsets[start : stop + 1]))
        start = stop
    return out


def _pool_some(values: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    counts = np.diff(offsets)
    sums = np.zeros((len(counts), values.shape[1]), dtype=np.float64)
    full = counts > 0
    if full.any():
        tokens = values[offsets[0] : offsets[-1]].astype(np.float64)
        sums[full] = np.add.reduceat(tokens, offsets[:-1][full] - offsets[0], axis=0)
    mean = sums / np.maximum(counts, 1)[:, None]
    bag = [mean, np.sign(sums) * np.log1p(np.abs(sums)), np.log1p(counts)[:, None]]
    return np.concatenate(bag, axis=1)


def single_tokens(values: npt.NDArray[Any], present: npt.NDArray[np.bool_] | None = None) -> Tokens:
    """Return tokens with one vector per place.

    Args:
        values: (N, d), one row per place; rows of absent places are left out.
        present: (N,) default all.
    """
    present = np.ones(len(values), dtype=bool) if present is None else present
    offsets = np.concatenate([[0], np.cumsum(present)]).astype(np.int64)
    kept = values[present]
    return Tokens(kept, offsets, np.zeros((len(kept), 0), np.float32), present, bag=False)


# --- batches ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of one modality of B places as tensors on one device, to be read only.

    Attributes:
        values: (ΣT, d) float32; float64 for coordinates.
        offsets: (B + 1,) int64.
        positions: (ΣT, p) float32.
        present: (B,) bool.
        bag: as of `Tokens`.
    """

    values: "torch.Tensor"
    offsets: "torch.Tensor"
    positions: "torch.Tensor"
    present: "torch.Tensor"
    bag: bool

    @cached_property
    def pooled(self) -> "torch.Tensor":
        """(B, D) as `Tokens.pooled`: made when first read; `values` itself where it is the same."""
        import torch

        if self.bag:
            pooled = _pool_bags(self.values.cpu().numpy(), self.offsets.cpu().numpy())
            return torch.from_numpy(pooled).to(self.values.device)
        if len(self.values) == len(self.present):
            return self.values
        out = self.values.new_zeros((len(self.present), self.values.shape[1]))
        out[self.present] = self.values
        return out

    def take(self, start: int, stop: int) -> "TokenBatch":
        """Return the places from one to before another."""
        first, last = self.offsets[start], self.offsets[min(stop, len(self.present))]
        return TokenBatch(
            self.values[first:last], self.offsets[start : stop + 1] - first,
            self.positions[first:last], self.present[start:stop], self.bag,
        )  # fmt: skip

    def without(self, gone: npt.NDArray[np.bool_]) -> "TokenBatch":
        """Return it absent in some places (B,), whose tokens are then not in it."""
        import torch

        lost = torch.from_numpy(gone).to(self.present.device)
        counts = self.offsets.diff()
        rows = torch.repeat_interleave(~lost, counts)
        offsets = torch.cat([self.offsets[:1], (counts * ~lost).cumsum(0)])
        return TokenBatch(
            self.values[rows], offsets, self.positions[rows], self.present & ~lost, self.bag
        )

    def plus(self, noise: npt.NDArray[np.float32]) -> "TokenBatch":
        """Return it with noise (ΣT, d) on its values."""
        import torch

        added = torch.from_numpy(noise).to(self.values.device, self.values.dtype)
        return TokenBatch(self.values + added, self.offsets, self.positions, self.present, self.bag)


@dataclass(frozen=True)
class Batch:
    """B places: modality → its tokens. What is dropped is not there to be read."""

    modalities: Mapping[str, TokenBatch]
    size: int

    def take(self, start: int, stop: int) -> "Batch":
        """Return the places from one to before another, or the end."""
        parts = {name: part.take(start, stop) for name, part in self.modalities.items()}
        return Batch(parts, min(stop, self.size) - start)

    def drop(
        self, names: Iterable[str], holes: Mapping[str, npt.NDArray[np.bool_]] | None = None
    ) -> "Batch":
        """Return the batch without some modalities: the only way one goes missing.

        Args:
            names: those that go wholly.
            holes: modality → (B,) the places where it goes.

        Raises:
            UrbanError: nothing would be left.
        """
        gone = set(names)
        kept = {name: part for name, part in self.modalities.items() if name not in gone}
        if not kept:
            raise UrbanError(
                f"dropping {', '.join(sorted(gone))} leaves no modality: keep at least one of "
                f"{', '.join(self.modalities)}"
            )
        for name, mask in (holes or {}).items():
            if name in kept:
                kept[name] = kept[name].without(mask)
        return replace(self, modalities=kept)


def make_batch(tokens: Mapping[str, Tokens], index: npt.ArrayLike, device: str = "cpu") -> Batch:
    """Return the places at an index as a batch of tensors.

    Args:
        tokens: modality → tokens of the same N places.
        index: (B,) which places.
        device: torch device.
    """
    import torch

    index = np.asarray(index, dtype=np.int64)
    parts = {}
    for name, part in tokens.items():
        rows, offsets = part.rows(index)
        parts[name] = TokenBatch(
            _gather_tensor(part.values, rows, device),
            torch.from_numpy(offsets).to(device),
            _gather_tensor(part.positions, rows, device),
            torch.from_numpy(part.present[index]).to(device),
            part.bag,
        )
    return Batch(parts, len(index))


def _gather_tensor(
    array: npt.NDArray[Any], rows: npt.NDArray[np.int64], device: str
) -> "torch.Tensor":
    """Return `array[rows]` as a tensor on a device, float16 as float32."""
    import torch

    if array.dtype != np.float16:
        return torch.from_numpy(_gather(array, rows)).to(device)
    if torch.device(device).type == "cuda":
        # Half the bytes cross the bus, from memory that the GPU can read by itself.
        pinned = torch.empty((len(rows), *array.shape[1:]), dtype=torch.float16, pin_memory=True)
        _gather(array, rows, pinned.numpy())
        return pinned.to(device, non_blocking=True).float()
    out = torch.from_numpy(np.empty((len(rows), *array.shape[1:]), np.float32))
    step = max(1, SCRATCH_BYTES // max(1, array.itemsize * int(np.prod(array.shape[1:]))))
    scratch = np.empty((min(step, len(rows)), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        narrow = _gather(array, some, scratch[: len(some)])
        out[start : start + step].copy_(torch.from_numpy(narrow))  # numpy widens far slower
    return out.to(device)
