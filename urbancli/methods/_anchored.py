"""What SatCLIP, MELT and SALT share: a location encoder trained against frozen encoders.

u_i = norm(LocationEncoder(l_i)) of a sample's own location, v_i = norm(P_m(its frozen features)).
The objective of modality m, with all samples of the batch as candidates (`pool = joint`) or those
of m (`pool = modality`), τ shared by all or each modality's own:

    modality-to-location:   mean_{i of m} −log softmax_j(v_i·u_j / τ)_i
    location-to-modality:   mean_{i of m} −log softmax_j(u_i·v_j / τ)_i
    symmetric:              their mean

and the loss is Σ_m w_m of them, w adding up to 1. Samples are unpaired: in every batch each place
stands for one of the modalities that it has, drawn anew, so that a place is never two samples and
one with a single modality counts like any other; `paired = true` takes every modality of a place.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from urbancli.configs import check_range
from urbancli.errors import UrbanError, UsageError
from urbancli.methods.base import (
    LARGEST_SCALE,
    Method,
    Representations,
    Stage,
    Width,
    check_counts,
    check_temperature,
    check_training,
    one_stage,
    place_encoder,
)
from urbancli.nn.location import Location
from urbancli.nn.losses import info_nce
from urbancli.nn.scores import Scores
from urbancli.tokens import Batch, Tokens

Direction = Literal["modality-to-location", "location-to-modality", "symmetric"]


@dataclass(frozen=True)
class AnchoredConfig:
    """Parameters of all of them."""

    width: int = 256
    location: Location = "spherical-harmonics"
    degrees: int = 40
    direction: Direction = "modality-to-location"
    pool: Literal["joint", "modality"] = "joint"
    temperatures: Literal["shared", "own"] = "shared"
    temperature: float = 0.07
    weights: tuple[float, ...] = ()
    paired: bool = False
    epochs: int = 50
    batch_size: int = 2048
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.05

    def __post_init__(self) -> None:
        check_training(self)
        check_counts(self, "width")
        each, total = all(weight >= 0 for weight in self.weights), sum(self.weights)
        fits = not self.weights or (each and 0 < total < math.inf)
        check_range("weights", self.weights, "numbers of at least 0, not all 0", fits)
        check_temperature(self.temperature)
        if self.location != "spherical-harmonics" and self.degrees != 40:
            raise UsageError(f"degrees says nothing of location={self.location}: leave it")


class AnchoredMethod(Method):
    """Base of methods that embed a location.

    Attributes:
        targets: the modalities that locations are compared with.
    """

    inputs: ClassVar[tuple[str, ...] | None] = ("coords",)
    pooled_only: ClassVar[bool] = True
    config: Any

    def __init__(self, config: Any, widths: Mapping[str, Width]) -> None:
        """Build the model with random weights.

        Raises:
            UrbanError: there are no coordinates, or nothing that they are compared with.
            UsageError: there is not one weight for each modality.
        """
        super().__init__(config, widths)
        self.targets = self.targets_of(widths)
        if "coords" not in widths or not self.targets:
            raise UrbanError(
                "a location is compared with what is there, and there is only "
                f"{', '.join(widths) or 'nothing'}: fetch coordinates and imagery, OSM or POIs, or "
                "name fewer in --without"
            )
        if config.weights and len(config.weights) != len(self.targets):
            raise UsageError(
                f"weights={','.join(f'{one:g}' for one in config.weights)} does not fit: give one "
                f"for each of {', '.join(self.targets)}"
            )
        self.width = config.width
        self.location = place_encoder(config)
        self.scores = Scores({name: widths[name].pooled for name in self.targets})
        self.heads = nn.ModuleDict(
            {name: nn.Linear(widths[name].pooled, config.width) for name in self.targets}
        )
        count = len(self.targets) if config.temperatures == "own" else 1
        self.log_scale = nn.Parameter(torch.full((count,), math.log(1 / config.temperature)))

    def targets_of(self, widths: Mapping[str, Width]) -> tuple[str, ...]:
        """Return the modalities that locations are compared with."""
        return tuple(name for name in widths if name != "coords")

    def prepare(self, tokens: Mapping[str, Tokens], index: Any) -> None:
        """Take mean and standard deviation of every pooled feature over the training places."""
        self.scores.fit(tokens, index)

    def stages(self) -> list[Stage]:
        """Return the one stage, with one optimiser over everything."""
        return one_stage("anchor", self)

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        """Return u (B, D), v (B, M, D) of every modality, and which are samples (B, M)."""
        present = torch.stack([batch.modalities[name].present for name in self.targets], dim=1)
        location = functional.normalize(self._located(batch), dim=1)
        # What is not compared has no gradient, not one of zero that moments would act upon.
        vectors = [
            functional.normalize(self.head(batch, name), dim=1)
            if name in self.compared()
            else torch.zeros_like(location)
            for name in self.targets
        ]
        return {
            "location": location,
            "vectors": torch.stack(vectors, dim=1),
            "samples": self.samples(present, generator),
        }

    def compared(self) -> tuple[str, ...]:
        """Return the modalities that are compared now; default all."""
        return self.targets

    def samples(self, present: Tensor, generator: torch.Generator) -> Tensor:
        """Return (B, M) which modalities of each place are samples, of those present (B, M)."""
        if self.config.paired:
            return present
        draws = torch.rand(present.shape, generator=generator).to(present.device)
        first = draws.masked_fill(~present, -1.0).argmax(dim=1, keepdim=True)
        return torch.zeros_like(present).scatter_(1, first, value=True) & present

    def head(self, batch: Batch, name: str) -> Tensor:
        """Return P_m of a modality (B, D), float32, whatever where it is absent."""
        found: Tensor = self.heads[name](self.scores(name, batch.modalities[name])).float()
        return found

    def _located(self, batch: Batch) -> Tensor:
        found: Tensor = self.location(batch.modalities["coords"].pooled[:, :2]).float()
        return found

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        """Return the weighted loss of every modality."""
        samples = representations["samples"]
        weights = self.config.weights or (1.0,) * len(self.targets)
        scales = self.log_scale.exp().expand(len(self.targets))
        places, owners = samples.nonzero(as_tuple=True)
        u = representations["location"][places]
        v = representations["vectors"][places, owners]
        return {
            name: weights[m] / sum(weights) * self._compared(u, v, owners == m, scales[m])
            for m, name in enumerate(self.targets)
            if name in self.compared()
        }

    def _compared(self, u: Tensor, v: Tensor, mine: Tensor, scale: Tensor) -> Tensor:
        """Return the loss of the samples of a modality, (N,) mask, among all (N, D)."""
        rows = mine.nonzero()[:, 0]
        columns = rows if self.config.pool == "modality" else torch.arange(len(u), device=u.device)
        own = torch.arange(len(rows), device=u.device) if self.config.pool == "modality" else rows
        directions = {
            "modality-to-location": ((v, u),),
            "location-to-modality": ((u, v),),
            "symmetric": ((v, u), (u, v)),
        }[self.config.direction]
        losses = [info_nce(one[rows], other[columns], own, scale) for one, other in directions]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Keep the learnt inverse temperatures at most 100."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def embed(self, batch: Batch) -> Tensor:
        """Return the location's vector (B, width), not normalised."""
        return self._located(batch)
