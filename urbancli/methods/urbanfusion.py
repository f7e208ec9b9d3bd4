"""UrbanFusion (arXiv 2510.13774): Stochastic Multimodal Fusion of one token per modality.

As published: a masked modality is an all-zero token that stays in the sequence; a position
embedding from N(0, 1e-6) is added to every token; one pre-norm transformer block, no final norm;
the mean over all tokens is the embedding, not normalised. Two complementary views of the same
places; (1 − λ) · symmetric InfoNCE + λ · reconstruction, λ = 0.0625, temperature learnt from 0.07,
scale at most 100; every view predicts the raw features of ALL modalities, z-scored and times 1/√d,
each modality with the same weight 1/M and the mean over its d numbers. (So a modality's share of
the reconstruction falls with 1/d, as the published formulas have it, and coordinates lead.)

Deviations:
- The frozen features are this workspace's, one pooled vector per modality, over whatever modalities
  it has, not CLIP, SSL4EO, MAE and BGE.
- Coordinates go through the published capsules; their MLPs are float32, not float64.
- The features that enter the projections are z-scored with the statistics of the training places
  and clipped to ±10 (ours differ in scale by orders; a constant or rare one would explode in
  another city). The same numbers are the reconstruction's targets.
- "N(0, 1e-6)" is read as a standard deviation.
- Every modality but coordinates goes through Linear, LayerNorm, GELU; for POIs this is not known.
- A place that lacks modalities partitions those it has (`nn.masks`); with fewer than two it takes
  part in no loss, and absent targets are left out. The representation of an absent modality is the
  masked one's.
- Optimiser, learning rate, batch and epochs are not known: AdamW, weight decay 0.01 on everything,
  5 % warm-up, cosine to zero; `paper` 1e-4, batch 1024, 100 epochs.
- No validation loss over all pairs of views: nothing is selected by it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from urbancli.configs import check_range
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.methods.base import (
    PRESETS,
    Optimiser,
    Representations,
    Stage,
    Width,
    check_training,
    parameters_of,
)
from urbancli.methods.base import Method as BaseMethod
from urbancli.nn.location import Capsules
from urbancli.nn.losses import modality_mse, symmetric_info_nce
from urbancli.nn.masks import complementary_masks
from urbancli.nn.transformer import Block
from urbancli.tokens import Batch, Tokens

LARGEST_SCALE = 100.0
"""Bound of the learnt inverse temperature."""

WIDEST = 1 << 16
"""Bound of every width and count of the Config: far beyond any of use, and safe to compute with."""

LARGEST_SCORE = 10.0
"""Bound of a z-scored feature."""


@dataclass(frozen=True)
class Config:
    """Parameters of UrbanFusion; the defaults are the `paper` preset."""

    width: int = 768
    heads: int = 8
    mlp_ratio: int = 4
    capsule_sigmas: tuple[float, ...] = (1.0, 16.0, 256.0)
    capsule_frequencies: int = 256
    capsule_width: int = 1024
    contrastive_width: int = 512
    temperature: float = 0.07
    reconstruction_weight: float = 0.0625
    epochs: int = 100
    batch_size: int = 1024
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.05

    def __post_init__(self) -> None:
        check_training(self)
        counts = (
            "width", "heads", "mlp_ratio", "capsule_frequencies", "capsule_width",
            "contrastive_width",
        )  # fmt: skip
        for name in counts:
            value = getattr(self, name)
            check_range(name, value, f"from 1 to {WIDEST}", 1 <= value <= WIDEST)
        sigmas = self.capsule_sigmas
        check_range("capsule_sigmas", sigmas, "one or more numbers above 0 and at most 1e6",
                    bool(sigmas) and all(0 < sigma <= 1e6 for sigma in sigmas))  # fmt: skip
        if self.width % self.heads:
            raise UsageError(f"width={self.width} is not a multiple of heads={self.heads}")
        weight, coolest = self.reconstruction_weight, 1 / LARGEST_SCALE
        check_range("reconstruction_weight", weight, "0 to 1", 0 <= weight <= 1)
        check_range("temperature", self.temperature, f"at least {coolest}",
                    coolest <= self.temperature < math.inf)  # fmt: skip

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return `paper`, or `small`: about a fortieth of its parameters, for two cores."""
        if name == "paper":
            return cls()
        if name == "small":
            return cls(
                width=192, capsule_frequencies=128, capsule_width=256, contrastive_width=128,
                epochs=40, batch_size=256, lr=1e-3,
            )  # fmt: skip
        raise unknown("preset", name, PRESETS)


class Method(BaseMethod):
    """UrbanFusion over any two or more modalities."""

    pooled_only: ClassVar[bool] = True
    config: Config

    def __init__(self, config: Config, widths: Mapping[str, Width]) -> None:
        """Build the model with random weights.

        Raises:
            UrbanError: fewer than two modalities.
        """
        super().__init__(config, widths)
        if len(widths) < 2:
            raise UrbanError(
                f"urbanfusion fuses at least two modalities, there is only "
                f"{', '.join(widths) or 'none'}: fetch more with --imagery, --osm or --pois, or "
                "name fewer in --without"
            )
        self.width = config.width
        self.raw_widths = [width.pooled for width in widths.values()]
        self.projections = nn.ModuleDict()
        for name, width in widths.items():
            self.register_buffer(f"mean_{name}", torch.zeros(width.pooled, dtype=torch.float64))
            self.register_buffer(f"std_{name}", torch.ones(width.pooled, dtype=torch.float64))
            self.projections[name] = self._projection(name, width.pooled)
        self.position = nn.Parameter(torch.randn(len(widths), config.width) * 1e-6)
        self.block = Block(config.width, config.heads, config.mlp_ratio)
        self.contrastive_head = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.GELU(),
            nn.Linear(config.width, config.contrastive_width),
        )
        self.reconstruction_head = nn.Sequential(
            nn.LayerNorm(config.width), nn.GELU(), nn.Linear(config.width, sum(self.raw_widths))
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))

    def _projection(self, name: str, raw_width: int) -> nn.Module:
        config = self.config
        if name == "coords":
            return Capsules(
                config.width, config.capsule_sigmas, config.capsule_frequencies,
                config.capsule_width,
            )  # fmt: skip
        return nn.Sequential(
            nn.Linear(raw_width, config.width), nn.LayerNorm(config.width), nn.GELU()
        )

    def prepare(self, tokens: Mapping[str, Tokens], index: Any) -> None:
        """Take mean and standard deviation of every pooled feature over the training places."""
        for name in self.modalities:
            part = tokens[name].take(index)
            pooled = np.asarray(part.pooled()[part.present], dtype=np.float64)
            if not len(pooled):
                continue
            std = pooled.std(axis=0)
            # Below this a "spread" is rounding: the feature is constant.
            constant = std <= 1e-9 * np.maximum(1.0, np.abs(pooled).max(axis=0))
            self.get_buffer(f"mean_{name}").copy_(torch.from_numpy(pooled.mean(axis=0)))
            self.get_buffer(f"std_{name}").copy_(torch.from_numpy(np.where(constant, 1.0, std)))

    def stages(self) -> list[Stage]:
        """Return the one stage, with one optimiser over everything."""
        config = self.config
        optimiser = Optimiser(
            "main", parameters_of(self), config.lr, config.weight_decay, warmup=config.warmup
        )
        return [Stage("fusion", config.epochs, config.batch_size, (optimiser,))]

    def scores(self, batch: Batch, name: str) -> Tensor:
        """Return a modality's z-scored raw features (B, d), float32, zero where it is absent."""
        part = batch.modalities[name]
        score = (part.pooled.double() - self.get_buffer(f"mean_{name}")) / self.get_buffer(
            f"std_{name}"
        )
        bounded = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).float()
        return bounded.masked_fill(~part.present[:, None], 0.0)

    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the projected tokens (B, M, D), whatever where absent, and presence (B, M)."""
        device = self.position.device
        tokens, present = [], []
        for name in self.modalities:
            if name not in batch.modalities:
                tokens.append(torch.zeros(batch.size, self.width, device=device))
                present.append(torch.zeros(batch.size, dtype=torch.bool, device=device))
                continue
            part = batch.modalities[name]
            is_location = name == "coords"
            read = part.pooled[:, :2] if is_location else self.scores(batch, name)
            tokens.append(self.projections[name](read).float())
            present.append(part.present)
        return torch.stack(tokens, dim=1), torch.stack(present, dim=1)

    def fuse(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Return (B, D) of tokens (B, M, D) of which only those kept (B, M) are seen."""
        seen = tokens.masked_fill(~kept[:, :, None], 0.0)
        fused: Tensor = self.block(seen + self.position).mean(dim=1)
        return fused

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        """Return both views' contrastive vectors and predictions, and the targets.

        `usable` (B,) are the places with at least two modalities; `present` is (B, M).
        """
        tokens, present = self.tokens(batch)
        first = complementary_masks(present, generator)
        fused = self.fuse(torch.cat([tokens, tokens]), torch.cat([first, present & ~first]))
        contrastive = functional.normalize(self.contrastive_head(fused).float(), dim=1)
        predicted = self.reconstruction_head(fused)
        size = batch.size
        targets = [
            self.scores(batch, name) / math.sqrt(width)
            for name, width in zip(self.modalities, self.raw_widths, strict=True)
        ]
        return {
            "contrastive_0": contrastive[:size],
            "contrastive_1": contrastive[size:],
            "predicted_0": predicted[:size],
            "predicted_1": predicted[size:],
            "target": torch.cat(targets, dim=1),
            "present": present,
            "usable": present.sum(dim=1) >= 2,
        }

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        """Return (1 − λ) · InfoNCE and λ · reconstruction."""
        usable = representations["usable"]
        kept = representations["present"] & usable[:, None]
        contrastive = symmetric_info_nce(
            representations["contrastive_0"][usable],
            representations["contrastive_1"][usable],
            self.log_scale.exp(),
        )
        target = representations["target"]
        first, second = (
            modality_mse(representations[view], target, kept, self.raw_widths)
            for view in ("predicted_0", "predicted_1")
        )
        weight = self.config.reconstruction_weight
        return {
            "contrastive": (1 - weight) * contrastive,
            "reconstruction": weight * (first + second) / 2,
        }

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Keep the learnt inverse temperature at most 100."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def embed(self, batch: Batch) -> Tensor:
        """Return the fused representation (B, width) of whatever the batch has."""
        return self.fuse(*self.tokens(batch))
