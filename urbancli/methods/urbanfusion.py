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

What its reviewers asked for is in the Config, one field each; the defaults are as published:
`reconstruction_weight` (0: InfoNCE alone, 1: reconstruction alone), `mask_count` and `mask_per`
(`nn.masks`), `depth` of the transformer, `pooling` (`mean` of all tokens; `cls`, a learned token
before the others; `attention`, a learned query over normed tokens), `masked` tokens (`kept` as
zeros, or `removed`: nobody attends to them and no pooling sees them), `fusion` (`concatenation`:
one linear layer over all tokens side by side) and the `location` encoder. What is missing in the
training data itself is `urban train --missing`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from urbancli.configs import check_range
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.methods.base import (
    LARGEST_SCALE,
    PRESETS,
    Representations,
    Stage,
    Width,
    check_counts,
    check_temperature,
    check_training,
    one_stage,
    place_encoder,
)
from urbancli.methods.base import Method as BaseMethod
from urbancli.nn.fusion import Concatenation, Fusion
from urbancli.nn.location import Location
from urbancli.nn.losses import modality_mse, symmetric_info_nce
from urbancli.nn.masks import MaskCount, complementary_masks
from urbancli.nn.scores import Scores
from urbancli.tokens import Batch, Tokens

DEEPEST = 64
"""Bound of the transformer's blocks."""


@dataclass(frozen=True)
class Config:
    """Parameters of UrbanFusion; the defaults are the `paper` preset."""

    width: int = 768
    heads: int = 8
    mlp_ratio: int = 4
    capsule_sigmas: tuple[float, ...] = (1.0, 16.0, 256.0)
    capsule_frequencies: int = 256
    capsule_width: int = 1024
    location: Location = "capsules"
    fusion: Literal["transformer", "concatenation"] = "transformer"
    depth: int = 1
    pooling: Literal["mean", "cls", "attention"] = "mean"
    masked: Literal["kept", "removed"] = "kept"
    mask_count: MaskCount = "uniform"
    mask_per: Literal["batch", "place"] = "batch"
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
        check_counts(
            self, "width", "heads", "mlp_ratio", "capsule_frequencies", "capsule_width",
            "contrastive_width",
        )  # fmt: skip
        sigmas = self.capsule_sigmas
        check_range("capsule_sigmas", sigmas, "one or more numbers above 0 and at most 1e6",
                    bool(sigmas) and all(0 < sigma <= 1e6 for sigma in sigmas))  # fmt: skip
        check_range("depth", self.depth, f"from 1 to {DEEPEST}", 1 <= self.depth <= DEEPEST)
        if self.fusion == "concatenation":
            for field, plain in (("depth", 1), ("pooling", "mean"), ("masked", "kept")):
                if getattr(self, field) != plain:
                    raise UsageError(
                        f"{field}={getattr(self, field)} says nothing of fusion=concatenation: "
                        "give only one of them"
                    )
        if self.location != "capsules" and self.capsule_sigmas != (1.0, 16.0, 256.0):
            raise UsageError(f"capsule_sigmas says nothing of location={self.location}: leave it")
        if self.width % self.heads:
            raise UsageError(f"width={self.width} is not a multiple of heads={self.heads}")
        weight = self.reconstruction_weight
        check_range("reconstruction_weight", weight, "0 to 1", 0 <= weight <= 1)
        check_temperature(self.temperature)

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
        self.scores = Scores({name: width.pooled for name, width in widths.items()})
        self.projections = nn.ModuleDict(
            {name: self._projection(name, width.pooled) for name, width in widths.items()}
        )
        self.fusion = _fusion(config, len(widths))
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
            return place_encoder(config)
        return nn.Sequential(
            nn.Linear(raw_width, config.width), nn.LayerNorm(config.width), nn.GELU()
        )

    def prepare(self, tokens: Mapping[str, Tokens], index: Any) -> None:
        """Take mean and standard deviation of every pooled feature over the training places."""
        self.scores.fit(tokens, index)

    def stages(self) -> list[Stage]:
        """Return the one stage, with one optimiser over everything."""
        return one_stage("fusion", self)

    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the projected tokens (B, M, D), whatever where absent, and presence (B, M)."""
        device = self.log_scale.device
        tokens, present = [], []
        for name in self.modalities:
            if name not in batch.modalities:
                tokens.append(torch.zeros(batch.size, self.width, device=device))
                present.append(torch.zeros(batch.size, dtype=torch.bool, device=device))
                continue
            part = batch.modalities[name]
            is_location = name == "coords"
            read = part.pooled[:, :2] if is_location else self.scores(name, part)
            tokens.append(self.projections[name](read).float())
            present.append(part.present)
        return torch.stack(tokens, dim=1), torch.stack(present, dim=1)

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        """Return both views' contrastive vectors and predictions, and the targets.

        `usable` (B,) are the places with at least two modalities; `present` is (B, M).
        """
        tokens, present = self.tokens(batch)
        config = self.config
        first = complementary_masks(present, generator, config.mask_count, config.mask_per)
        fused = self.fusion(torch.cat([tokens, tokens]), torch.cat([first, present & ~first]))
        contrastive = functional.normalize(self.contrastive_head(fused).float(), dim=1)
        predicted = self.reconstruction_head(fused)
        size = batch.size
        targets = [
            self.scores(name, batch.modalities[name]) / math.sqrt(width)
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
        weight = self.config.reconstruction_weight
        terms = {}
        if weight < 1:
            contrastive = symmetric_info_nce(
                representations["contrastive_0"][usable],
                representations["contrastive_1"][usable],
                self.log_scale.exp(),
            )
            terms["contrastive"] = (1 - weight) * contrastive
        if weight > 0:
            terms["reconstruction"] = weight * self._reconstruction(representations, kept)
        return terms

    def _reconstruction(self, representations: Representations, kept: Tensor) -> Tensor:
        """Return the error of both views' predictions of the modalities that are there (B, M)."""
        target = representations["target"]
        first, second = (
            modality_mse(representations[view], target, kept, self.raw_widths)
            for view in ("predicted_0", "predicted_1")
        )
        return (first + second) / 2

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Keep the learnt inverse temperature at most 100."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def embed(self, batch: Batch) -> Tensor:
        """Return the fused representation (B, width) of whatever the batch has."""
        fused: Tensor = self.fusion(*self.tokens(batch))
        return fused


def _fusion(config: Config, modalities: int) -> nn.Module:
    if config.fusion == "concatenation":
        return Concatenation(config.width, modalities)
    return Fusion(
        config.width, modalities, config.heads, config.mlp_ratio, config.depth, config.pooling,
        removed=config.masked == "removed",
    )  # fmt: skip
