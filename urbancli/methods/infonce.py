"""Multi-view InfoNCE: the modalities of a place attract, those of other places repel.

The full graph of contrastive multiview coding (Tian, Krishnan, Isola 2020, arXiv 1906.05849): the
symmetric InfoNCE of every pair of modalities, over the places that have both, one learned
temperature for all. The baseline without fusion, masks or reconstruction.

Deviations: in-batch negatives and no memory bank; frozen features of this workspace instead of
networks over pixels; `_views` says how they are read and averaged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from urbancli.errors import unknown
from urbancli.methods._views import ViewsMethod
from urbancli.methods.base import (
    LARGEST_SCALE,
    PRESETS,
    Width,
    check_counts,
    check_temperature,
    check_training,
)
from urbancli.nn.location import Location
from urbancli.nn.losses import symmetric_info_nce


@dataclass(frozen=True)
class Config:
    """Parameters of InfoNCE; the defaults are the `paper` preset, with UrbanFusion's sizes."""

    width: int = 768
    projection: int = 512
    location: Location = "capsules"
    capsule_frequencies: int = 256
    capsule_width: int = 1024
    temperature: float = 0.07
    epochs: int = 100
    batch_size: int = 1024
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.05

    def __post_init__(self) -> None:
        check_training(self)
        check_counts(self, "width", "projection", "capsule_frequencies", "capsule_width")
        check_temperature(self.temperature)

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return `paper`, or `small`, for two cores."""
        if name == "paper":
            return cls()
        if name == "small":
            return cls(
                width=192, projection=128, capsule_frequencies=128, capsule_width=256, epochs=40,
                batch_size=256, lr=1e-3,
            )  # fmt: skip
        raise unknown("preset", name, PRESETS)


class Method(ViewsMethod):
    """InfoNCE over any two or more modalities."""

    config: Config

    def __init__(self, config: Config, widths: Mapping[str, Width]) -> None:
        """Build the model with random weights.

        Raises:
            UrbanError: fewer than two modalities.
        """
        super().__init__(config, widths)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the symmetric InfoNCE of projections (N, P)."""
        one, other = (functional.normalize(part, dim=1) for part in (first, second))
        return symmetric_info_nce(one, other, self.log_scale.exp())

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Keep the learnt inverse temperature at most 100."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
