"""The method contract: it must carry every method of the field and has one training loop under it.

`represent` and `objective` are separate so that large batches (gradient cache) and ranks (gather)
need no second code path: the loop may call `represent` in chunks and `objective` on the whole.
"""

import dataclasses
import math
import sys
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from urbancli import plugins
from urbancli.configs import check_range, overridden
from urbancli.errors import UsageError, unknown
from urbancli.nn.location import location_encoder
from urbancli.tokens import Batch, Tokens, single_tokens
from urbancli.workspace import fingerprint, sha256

PRESETS = ("paper", "small")
"""`paper`: as published; `small`: for the demo and CI, never called a reproduction."""

LARGEST_RATE = 1e3
"""Bound of learning rate and weight decay: far beyond any that trains, within float32."""

LARGEST_SCALE = 100.0
"""Bound of a learnt inverse temperature."""

WIDEST = 1 << 16
"""Bound of every width and count of a Config: far beyond any of use, and safe to compute with."""

Representations = dict[str, Tensor]
"""Named tensors whose first axis is the batch."""


def check_training(config: Any) -> None:
    """Refuse a Config of `epochs, batch_size, lr, weight_decay, warmup` that trains nothing.

    Raises:
        UsageError: a field is out of its range.
    """
    check_range("epochs", config.epochs, "at least 1", config.epochs >= 1)
    check_range("batch_size", config.batch_size, "at least 2", config.batch_size >= 2)
    lr, decay = config.lr, config.weight_decay
    check_range("lr", lr, f"above 0 and at most {LARGEST_RATE:g}", 0 < lr <= LARGEST_RATE)
    check_range("weight_decay", decay, f"0 to {LARGEST_RATE:g}", 0 <= decay <= LARGEST_RATE)
    check_range("warmup", config.warmup, "at least 0 and below 1", 0 <= config.warmup < 1)


def check_counts(config: Any, *fields: str) -> None:
    """Refuse a Config of which one of the fields is no width or count.

    Raises:
        UsageError: one is not.
    """
    for name in fields:
        value = getattr(config, name)
        check_range(name, value, f"from 1 to {WIDEST}", 1 <= value <= WIDEST)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature whose inverse is beyond `LARGEST_SCALE`.

    Raises:
        UsageError: it is.
    """
    coolest = 1 / LARGEST_SCALE
    fits = coolest <= temperature < math.inf
    check_range("temperature", temperature, f"at least {coolest}", fits)


def place_encoder(config: Any) -> nn.Module:
    """Return the location encoder that a Config's `location` names, with its own parameters.

    Args:
        config: with `location`, `width` and, where its encoders have them, `capsule_sigmas`,
            `capsule_frequencies`, `capsule_width` and `degrees`.
    """
    fields = {
        "capsules": {
            "sigmas": "capsule_sigmas", "frequencies": "capsule_frequencies",
            "hidden": "capsule_width",
        },
        "spherical-harmonics": {"degrees": "degrees"},
    }.get(config.location, {})  # fmt: skip
    own = {key: getattr(config, field) for key, field in fields.items() if hasattr(config, field)}
    return location_encoder(config.location, config.width, **own)


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
    """A part of training with its own length and optimisers, run one after the other.

    Raises:
        UsageError: a batch of fewer than two places, where a contrast has nothing to contrast.
    """

    name: str
    epochs: int
    batch_size: int
    optimisers: tuple[Optimiser, ...]

    def __post_init__(self) -> None:
        check_range("batch_size", self.batch_size, "at least 2", self.batch_size >= 2)


@dataclass(frozen=True)
class Width:
    """Widths of a modality's tokens: `token` of each, `pooled` of `TokenBatch.pooled`."""

    token: int
    pooled: int


class Method(nn.Module):
    """Base of every method.

    A method's module defines `class Method` and `Config`, a frozen dataclass with a class method
    `preset(name)` for each of `PRESETS`. The state of a method is its parameters and buffers: what
    else it keeps is lost when training resumes. A teacher's parameters do not require gradients.

    Attributes:
        inputs: the modalities `embed` reads, in a fixed order; None means all it is trained with.
        pooled_only: whether of a batch only `pooled` and `present` are read; the tokens are then
            pooled once, and `values` is `pooled` without the absent places.
        modalities: those of this instance, in a fixed order.
        width: D of the embedding.
    """

    inputs: ClassVar[tuple[str, ...] | None] = None
    pooled_only: ClassVar[bool] = False
    modalities: tuple[str, ...]
    width: int

    def __init__(self, config: Any, widths: Mapping[str, Width]) -> None:
        super().__init__()
        self.config = config
        self.modalities = tuple(widths)

    def prepare(self, tokens: Mapping[str, Tokens], index: Any) -> None:
        """Take statistics (z-scores …) of the training places into buffers; default nothing.

        The buffers have their final shapes from `__init__` on, or a saved run could not be loaded.

        Args:
            tokens: modality → tokens of all places.
            index: the training places only.
        """

    @abstractmethod
    def stages(self) -> list[Stage]:
        """Return the stages of training; none for a control that is not trained."""

    @abstractmethod
    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        """Return what the objective compares; masks and augmentations draw from `generator`.

        It may run under autocast; the objective gets its floating tensors as float32.

        Args:
            batch: the places of one step, or a chunk of them.
            stage: name of the running stage.
            generator: on the CPU, the same on all ranks, saved in the checkpoint.
        """

    @abstractmethod
    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        """Return the terms, each already weighted, whose sum an optimiser descends.

        Only the parameters of the named optimiser get a gradient, whatever the sum depends on.
        """

    def after_step(self, step: int, total: int) -> None:
        """Do what follows a training step: EMA of a teacher, say; default nothing.

        Args:
            step: steps of the stage done so far, 1 … `total`.
            total: steps of the stage.
        """

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


def one_stage(name: str, method: Method) -> list[Stage]:
    """Return one stage of AdamW over everything, as the method's Config says."""
    config = method.config
    main = Optimiser(
        "main", parameters_of(method), config.lr, config.weight_decay, warmup=config.warmup
    )
    return [Stage(name, config.epochs, config.batch_size, (main,))]


def load_method(name: str) -> ModuleType:
    """Return the module of a method by its name, or of the user's own `./mine.py`.

    Raises:
        UsageError: an unknown name, or a file without a whole `Method` and `Config`.
    """
    module = plugins.load("methods", name)
    method, config = getattr(module, "Method", None), getattr(module, "Config", None)
    if not (isinstance(method, type) and issubclass(method, Method)) or method is Method:
        raise UsageError(
            f"{name} defines no class Method that extends urbancli.methods.base.Method: add it"
        )
    for part in ("stages", "represent", "objective", "embed"):
        if getattr(getattr(method, part), "__isabstractmethod__", False):
            raise UsageError(f"the class Method of {name} lacks {part}(): add it")
    if not (dataclasses.is_dataclass(config) and callable(getattr(config, "preset", None))):
        raise UsageError(
            f"{name} defines no dataclass Config with a class method preset(name): add it"
        )
    return module


def code_of(module: ModuleType) -> str:
    """Return the SHA-256 of a method's file, or of it and of those in `methods` it extends.

    A user's own file is told by its content alone.
    """
    own = Path(str(module.__file__))
    extended = {
        Path(str(sys.modules[one.__module__].__file__))
        for one in module.Method.__mro__
        if one.__module__.startswith("urbancli.methods.") and one.__module__ != __name__
    }
    beside = sorted(extended - {own}) if own in extended else []
    return fingerprint([sha256(path) for path in (own, *beside)]) if beside else sha256(own)


# --- Config ----------------------------------------------------------------------------------


def configure(config_class: Any, preset: str, overrides: Sequence[str] = ()) -> Any:
    """Return a method's Config: a preset with `key=value` overrides.

    Args:
        config_class: the frozen dataclass of the method.
        preset: one of `PRESETS`.
        overrides: e.g. `["epochs=10", "capsule_sigmas=1,16"]`, parsed by the fields' types.

    Raises:
        UsageError: an unknown preset or key (with near misses), a value of another type, not
            finite, or out of the range that the Config checks.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    base = config_class.preset(preset)
    if not isinstance(base, config_class):
        raise UsageError(f"preset('{preset}') of the Config returns no Config: mend the method")
    return overridden(base, overrides)


def pool_once(method: Method, tokens: Mapping[str, Tokens]) -> Mapping[str, Tokens]:
    """Return the tokens as the method reads them: pooled once where it reads nothing else."""
    if not method.pooled_only:
        return tokens
    return {
        name: single_tokens(part.pooled(), part.present) if part.bag else part
        for name, part in tokens.items()
    }
