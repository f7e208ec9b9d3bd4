"""The method contract: it must carry every method of the field and has one training loop under it.

`represent` and `objective` are separate so that large batches (gradient cache) and ranks (gather)
need no second code path: the loop may call `represent` in chunks and `objective` on the whole.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from urbancli.tokens import Batch, Tokens

Representations = dict[str, Tensor]
"""Named tensors whose first axis is the batch."""


@dataclass(frozen=True)
class Optimiser:
    """One optimiser of a stage.

    Attributes:
        name: passed to `objective`; unique in its stage.
        parameters: what it moves.
        lr: peak learning rate.
        weight_decay: decoupled (AdamW).
        betas: of AdamW.
        warmup: share of the stage's steps with linearly rising rate; a cosine to zero follows.
        clip: largest gradient norm, 0 for none.
        repeats: its own steps per training step (CLUB critics: 1–5).
        detached: whether it sees the representations without their graph, as critics do.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.1
    clip: float = 0.0
    repeats: int = 1
    detached: bool = False


@dataclass(frozen=True)
class Stage:
    """A part of training with its own length and optimisers, run one after the other."""

    name: str
    epochs: int
    batch_size: int
    optimisers: tuple[Optimiser, ...]


@dataclass(frozen=True)
class Width:
    """Widths of a modality's tokens: `token` of each, `pooled` of `TokenBatch.pooled`."""

    token: int
    pooled: int


class Method(nn.Module):
    """Base of every method.

    A method's module defines `class Method` and `Config`, a frozen dataclass with a class method
    `preset(name)` for `paper` (as published) and `small` (demo, CI).

    Attributes:
        inputs: the modalities `embed` reads, in a fixed order; None means whatever the city has.
        modalities: those of this instance.
        width: D of the embedding.
    """

    inputs: ClassVar[tuple[str, ...] | None] = None
    modalities: tuple[str, ...]
    width: int

    def __init__(self, config: Any, widths: Mapping[str, Width]) -> None:
        super().__init__()
        self.config = config
        self.modalities = tuple(widths)

    def prepare(self, tokens: Mapping[str, Tokens], index: Any) -> None:
        """Take statistics (z-scores …) of the training places into buffers; default nothing.

        Args:
            tokens: modality → tokens of all places.
            index: the training places only.
        """

    @abstractmethod
    def stages(self) -> list[Stage]:
        """Return the stages of training; none for a control that is not trained."""

    @abstractmethod
    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        """Return what the objective compares; masks and augmentations draw from `generator`."""

    @abstractmethod
    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        """Return the terms, each already weighted, whose sum an optimiser descends."""

    def after_step(self, step: int, total: int) -> None:
        """Do what follows a training step: EMA of a teacher, say; default nothing."""

    @abstractmethod
    def embed(self, batch: Batch) -> Tensor:
        """Return (B, D) for any non-empty subset of the modalities.

        The result depends neither on values that were dropped nor on the other places in the batch.
        """


def parameters_of(*modules: nn.Module | nn.Parameter) -> tuple[nn.Parameter, ...]:
    """Return the trainable parameters of modules as a tuple, for `Optimiser`."""
    found: list[nn.Parameter] = []
    for module in modules:
        parts: Iterable[nn.Parameter] = (
            [module] if isinstance(module, nn.Parameter) else module.parameters()
        )
        found += [p for p in parts if p.requires_grad]
    return tuple(found)
