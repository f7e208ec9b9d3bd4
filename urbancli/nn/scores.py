"""Z-scored features: what every method reads of a modality that is pooled."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from urbancli.tokens import TokenBatch, Tokens

LARGEST_SCORE = 10.0
"""Bound of a z-scored feature: a constant or rare one would explode in another city."""


class Scores(nn.Module):
    """Mean and standard deviation of pooled features over the training places, as buffers.

    Args:
        widths: modality → D of `TokenBatch.pooled`.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        for name, width in widths.items():
            self.register_buffer(f"mean_{name}", torch.zeros(width, dtype=torch.float64))
            self.register_buffer(f"std_{name}", torch.ones(width, dtype=torch.float64))
        self._names = tuple(widths)

    def fit(self, tokens: Mapping[str, Tokens], index: Any) -> None:
        """Take the statistics of the places at an index that have a modality.

        Args:
            tokens: modality → tokens of all places.
            index: the training places only.
        """
        for name in self._names:
            part = tokens[name].take(index)
            pooled = np.asarray(part.pooled()[part.present], dtype=np.float64)
            if not len(pooled):
                continue
            std = pooled.std(axis=0)
            # Below this a "spread" is rounding: the feature is constant.
            constant = std <= 1e-9 * np.maximum(1.0, np.abs(pooled).max(axis=0))
            self.get_buffer(f"mean_{name}").copy_(torch.from_numpy(pooled.mean(axis=0)))
            self.get_buffer(f"std_{name}").copy_(torch.from_numpy(np.where(constant, 1.0, std)))

    def forward(self, name: str, part: TokenBatch) -> Tensor:
        """Return a modality's scores (B, D), float32, within ±10, zero where it is absent."""
        mean, std = self.get_buffer(f"mean_{name}"), self.get_buffer(f"std_{name}")
        score = (part.pooled.double() - mean) / std
        bounded = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).float()
        return bounded.masked_fill(~part.present[:, None], 0.0)
