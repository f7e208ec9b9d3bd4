"""Embedding places by a method, from their tokens: the one loop that runs and checks share."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from urbancli.grid import Places
from urbancli.methods.base import Method, pool_once
from urbancli.spoiling import Spoiling, deviations, holes, noise
from urbancli.tokens import Batch, Tokens, make_batch
from urbancli.training import pick_device

EMBED_BATCH = 512
"""Places embedded at once."""

COUNTED = 64
"""Places whose operations are counted."""

Values = npt.NDArray[np.float32]
Present = npt.NDArray[np.bool_]


class Reader:
    """The tokens of places as a method reads them, spoilt, batch by batch.

    Attributes:
        spared: places that chance would have left with nothing and that kept one modality.
    """

    def __init__(
        self,
        method: Method,
        tokens: Mapping[str, Tokens],
        places: Places,
        spoiling: Spoiling,
        spread: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        """Take the tokens.

        Args:
            method: who reads.
            tokens: modality → tokens of N places.
            places: the same places.
            spoiling: what is done to them; layers of another date are not its business.
            spread: modality → deviations that the noise is in; default those of these places.

        Raises:
            UrbanError: noise is asked for and there are too few places to know deviations.
        """
        self._tokens = pool_once(method, tokens)
        self._ids = places.place_id
        self._spoiling = spoiling
        left = {name: part for name, part in self._tokens.items() if name not in spoiling.gone}
        self.spread = spread or {
            name: deviations(left[name]) for name in spoiling.noised(left) if len(left[name].values)
        }
        present = {name: np.asarray(part.present) for name, part in left.items()}
        self._holes, self.spared = holes(self._ids, present, spoiling)

    def whole(self, index: npt.NDArray[np.int64], device: str) -> Batch:
        """Return the places at an index (B,) with nothing done to them."""
        return make_batch(self._tokens, index, device)

    def batch(self, index: npt.NDArray[np.int64], device: str) -> Batch:
        """Return the places at an index (B,), spoilt.

        Raises:
            UrbanError: no modality is left.
        """
        batch = self.whole(index, device)
        gaps = {name: mask[index] for name, mask in self._holes.items()}
        batch = batch.drop(self._spoiling.gone, gaps)
        parts = dict(batch.modalities)
        for name in self.spread:
            counts = parts[name].offsets.diff().cpu().numpy()
            ids = self._ids[index].tolist()
            parts[name] = parts[name].plus(
                noise(ids, name, counts, self.spread[name], self._spoiling)
            )
        return Batch(parts, batch.size)


def embed_places(method: Method, reader: Reader, size: int) -> tuple[Values, Present]:
    """Return the embeddings (N, D) of all places of a reader, and which have any modality (N,)."""
    device = pick_device("auto")
    method.to(device)
    values = np.zeros((size, method.width), dtype=np.float32)
    present = np.zeros(size, dtype=bool)
    for start in range(0, size, EMBED_BATCH):
        index = np.arange(start, min(start + EMBED_BATCH, size))
        values[index], present[index] = embed_batch(method, reader.batch(index, device))
    return values, present


def embed_batch(method: Method, batch: Batch) -> tuple[Values, Present]:
    """Return the embeddings (B, D) of a batch, and which places have any modality (B,).

    The rows of the others are zero.
    """
    import torch

    with torch.no_grad():
        values = method.embed(batch).float().cpu().numpy()
    known = torch.stack([part.present for part in batch.modalities.values()])
    present = known.any(dim=0).cpu().numpy()
    values[~present] = 0.0
    return values, present


def count_flops(method: Method, reader: Reader, size: int) -> int | None:
    """Return the floating point operations to embed one place, mean over a sample of N places.

    Those of matrix products, convolutions and attention, two for each multiplication and addition;
    not of what is done number by number. None where torch cannot count what a method does.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    device = pick_device("auto")
    batch = reader.batch(spread(size, COUNTED), device)
    counter = FlopCounterMode(display=False)
    try:
        # Of fused attention on a CPU the counter knows nothing.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            method.to(device).embed(batch)
    except (RuntimeError, TypeError):
        return None
    return round(counter.get_total_flops() / batch.size)


def spread(size: int, number: int) -> npt.NDArray[np.int64]:
    """Return up to a number of indices below a size, evenly spread, each once."""
    return np.unique(np.linspace(0, size - 1, min(number, size)).astype(np.int64))
