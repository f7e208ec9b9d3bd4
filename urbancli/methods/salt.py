"""SALT (arXiv 2606.20167): one location encoder against one modality at a time, epoch by epoch.

The loss of `melt` for one active modality, m = epoch mod M, switched at epoch boundaries, while the
location encoder, its optimiser and schedule go on. Every place that has the active modality is a
sample. What `melt` says of choices and deviations holds here too; `pool` says nothing, for all
samples of a batch are of one modality.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from urbancli.errors import UsageError, unknown
from urbancli.methods._anchored import AnchoredConfig, AnchoredMethod
from urbancli.methods.base import PRESETS, Representations, Width


@dataclass(frozen=True)
class Config(AnchoredConfig):
    """Parameters of SALT; the defaults are the `paper` preset."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, plain in (("pool", "joint"), ("paired", False)):
            if getattr(self, field) != plain:
                raise UsageError(f"{field} says nothing of salt, one modality at a time: leave it")

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return `paper`, or `small`, for two cores and one city."""
        if name == "paper":
            return cls()
        if name == "small":
            return cls(width=192, location="fourier", epochs=40, batch_size=256, lr=1e-3)
        raise unknown("preset", name, PRESETS)


class Method(AnchoredMethod):
    """SALT over coordinates and any other modalities.

    Attributes:
        active: the number of the modality whose epoch it is.
    """

    config: Config
    active: Tensor

    def __init__(self, config: Config, widths: Mapping[str, Width]) -> None:
        """Build the model with random weights.

        Raises:
            UrbanError: there are no coordinates, or nothing that they are compared with.
            UsageError: there is not one weight for each modality.
        """
        super().__init__(config, widths)
        self.register_buffer("active", torch.tensor(0))

    def compared(self) -> tuple[str, ...]:
        """Return the active modality."""
        return (self.targets[int(self.active)],)

    def samples(self, present: Tensor, generator: torch.Generator) -> Tensor:
        """Return (B, M): the active modality of every place that has it."""
        chosen = torch.arange(present.shape[1], device=present.device) == self.active
        return present & chosen

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        """Return the weighted loss of the active modality."""
        (term,) = super().objective(representations, optimiser).values()
        return {"active": term * len(self.targets)}

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Keep the inverse temperatures at most 100, and know the epoch that comes."""
        super().after_step(step, total)
        self.active.fill_(step * self.config.epochs // total % len(self.targets))
