"""A method of your own in one file: `urban train --method examples/mean_pooling.py`.

Each modality's pooled tokens go through one linear layer; an embedding is the mean over the
modalities that are there. Training pulls the modalities of one place together and those of
different places apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from urbancli.methods import base
from urbancli.methods.base import Optimiser, Representations, Stage, Width, parameters_of
from urbancli.nn.losses import symmetric_info_nce
from urbancli.tokens import Batch


@dataclass(frozen=True)
class Config:
    """What can be set with `--set`."""

    width: int = 64
    epochs: int = 20
    batch_size: int = 256
    lr: float = 1e-3
    temperature: float = 0.1

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return the only Config there is: this method was never published."""
        return cls()


class Method(base.Method):
    """Linear layers, averaged."""

    pooled_only = True

    def __init__(self, config: Config, widths: Mapping[str, Width]) -> None:
        super().__init__(config, widths)
        self.width = config.width
        self.layers = nn.ModuleDict()
        for name in self.modalities:
            pooled = widths[name].pooled
            self.layers[name] = nn.Sequential(nn.LayerNorm(pooled), nn.Linear(pooled, self.width))

    def stages(self) -> list[Stage]:
        """Return the one stage of training."""
        main = Optimiser("main", parameters_of(self), self.config.lr)
        return [Stage("align", self.config.epochs, self.config.batch_size, (main,))]

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        """Return every modality's vectors (B, D) of length 1, and the mean over all."""
        parts = {name: functional.normalize(v, dim=1) for name, v in self._vectors(batch).items()}
        return {**parts, "mean": functional.normalize(torch.stack([*parts.values()]).mean(0))}

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        """Return one contrast per modality: its vectors against the mean."""
        scale = 1 / self.config.temperature
        return {
            name: symmetric_info_nce(representations[name], representations["mean"], scale)
            for name in self.modalities
        }

    def embed(self, batch: Batch) -> Tensor:
        """Return the mean (B, D) over the modalities that a place has."""
        vectors = self._vectors(batch)
        present = torch.stack([batch.modalities[name].present for name in vectors], dim=1)
        weight = present.to(torch.float32) / present.sum(dim=1, keepdim=True).clamp(min=1)
        return (torch.stack([*vectors.values()], dim=1) * weight[:, :, None]).sum(dim=1)

    def _vectors(self, batch: Batch) -> dict[str, Tensor]:
        there = [name for name in self.modalities if name in batch.modalities]
        return {n: self.layers[n](batch.modalities[n].pooled.to(torch.float32)) for n in there}
