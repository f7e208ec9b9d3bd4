"""Tokens: a frozen encoder's output per place, and batches of them.

`Batch.drop` is the only place in the package where a modality goes missing: a mask, never zeros
that a method might read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from urbancli.errors import UrbanError
from urbancli.workspace import atomic_path, read_json, sweep, write_json

if TYPE_CHECKING:
    import torch


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
        counts = np.diff(self.offsets)
        if not self.bag:
            out = np.zeros((len(self), self.values.shape[1]), dtype=_wide(self.values))
            out[self.present] = self.values
            return out
        sums = np.zeros((len(self), self.values.shape[1]), dtype=np.float64)
        full = counts > 0
        if full.any():
            starts = self.offsets[:-1][full]
            sums[full] = np.add.reduceat(self.values.astype(np.float64), starts, axis=0)
        mean = sums / np.maximum(counts, 1)[:, None]
        bag = [mean, np.sign(sums) * np.log1p(np.abs(sums)), np.log1p(counts)[:, None]]
        return np.concatenate(bag, axis=1).astype(np.float32)

    def take(self, index: npt.ArrayLike) -> "Tokens":
        """Return the tokens of the places at an integer index, copied."""
        index = np.asarray(index, dtype=np.int64)
        counts = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.offsets[index] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Tokens(
            self.values[rows], offsets, self.positions[rows], self.present[index], self.bag
        )

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write the arrays as .npy files, and `tokens.json` last: it exists, so all is there."""
        sweep(folder)
        for name in ("values", "offsets", "positions", "present"):
            with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, getattr(self, name), allow_pickle=False)
        write_json(folder / "tokens.json", {**facts, "bag": self.bag})


def _wide(values: npt.NDArray[Any]) -> Any:
    return np.float32 if values.dtype == np.float16 else values.dtype


def load_tokens(folder: Path) -> Tokens:
    """Return saved tokens, memory-mapped.

    Raises:
        UrbanError: they are not whole.
    """
    facts = read_json(folder / "tokens.json")
    names = ("values", "offsets", "positions", "present")
    try:
        arrays = [np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in names]
    except (OSError, ValueError) as err:
        raise UrbanError(f"{folder} is broken: delete it and run `urban train` again") from err
    values, offsets, positions, present = arrays
    return Tokens(values, offsets, positions, present, facts["bag"])


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


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of one modality of B places as tensors on one device.

    Attributes:
        values: (ΣT, d) float32; float64 for coordinates.
        offsets: (B + 1,) int64.
        positions: (ΣT, p) float32.
        pooled: (B, D) as `Tokens.pooled`.
        present: (B,) bool.
    """

    values: "torch.Tensor"
    offsets: "torch.Tensor"
    positions: "torch.Tensor"
    pooled: "torch.Tensor"
    present: "torch.Tensor"


@dataclass(frozen=True)
class Batch:
    """B places: modality → its tokens. What is dropped is not there to be read."""

    modalities: Mapping[str, TokenBatch]
    size: int

    def drop(self, names: Iterable[str]) -> "Batch":
        """Return the batch without some modalities: the only way one goes missing.

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

    def tensor(array: npt.NDArray[Any]) -> "torch.Tensor":
        wide = array.astype(_wide(array)) if array.dtype == np.float16 else array
        return torch.from_numpy(np.ascontiguousarray(wide)).to(device)

    parts = {}
    for name, all_tokens in tokens.items():
        part = all_tokens.take(index)
        parts[name] = TokenBatch(
            tensor(part.values),
            tensor(part.offsets),
            tensor(part.positions),
            tensor(part.pooled()),
            tensor(part.present),
        )
    return Batch(parts, len(index))
