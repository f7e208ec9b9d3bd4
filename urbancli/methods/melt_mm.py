"""MELT with its modality heads at inference: the aligned modalities are read, not only the place.

Trained as `melt`, whose Config it shares. The embedding is the mean over what a place has of the
normalised vectors that training compares: the location's u and each modality's v_m. (Not part of
the paper: what its alignment is worth where the modalities can be had.)
"""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from urbancli.methods import melt
from urbancli.nn.fusion import mean_of_present
from urbancli.tokens import Batch

Config = melt.Config


class Method(melt.Method):
    """MELT over coordinates and any other modalities, all of which it reads."""

    inputs: ClassVar[tuple[str, ...] | None] = None

    def embed(self, batch: Batch) -> Tensor:
        """Return the mean (B, width) of the vectors that a place has, zero where it has none."""
        vectors, present = [], []
        for name, part in batch.modalities.items():
            found = self._located(batch) if name == "coords" else self.head(batch, name)
            vectors.append(functional.normalize(found, dim=1))
            present.append(part.present)
        return mean_of_present(vectors, present)
