"""The only training loop: seeds, device, precision, schedules, checkpoints, resume, monitors.

Every place of the index is seen once an epoch, in an order drawn anew; the last batch is the rest.
A rest of one place has nothing to be compared with: it joins the batch before it, which is then one
place larger than the others.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from urbancli.errors import UrbanError, unknown
from urbancli.gradient_cache import represent_in_chunks
from urbancli.methods.base import Method, Optimiser, Representations, Stage
from urbancli.nn.monitors import collapse_monitors, collapsed
from urbancli.nn.schedules import warmup_cosine
from urbancli.tensors import read_tensors, write_tensors
from urbancli.tokens import Batch, Tokens, make_batch

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "bf16")

MONITORED = 512
"""How many training places, evenly spread, the collapse monitors look at."""

SMALL_STEP = 1 << 30
"""Parameters times places of a step below which one thread trains on a CPU. Two gain a third of the
time at the most, and on busy cores they wait for each other ten times as long as one takes."""

CurveRow = tuple[str, int, str, float]
"""(stage, epoch counted from 1, quantity, value)."""


@dataclass(frozen=True)
class EpochReport:
    """What a finished epoch says.

    Attributes:
        stage: name of the stage.
        epoch: epochs of the stage done, from 1.
        epochs: epochs of the stage.
        quantities: the mean of `optimiser/term` over the epoch's steps, and the monitors.
    """

    stage: str
    epoch: int
    epochs: int
    quantities: dict[str, float]


def _silent(_: Any) -> None:
    return None


@dataclass(frozen=True)
class Progress:
    """Where lines for the user and reports of epochs go; a caller with a terminal shows them."""

    say: Callable[[str], None] = _silent
    epoch: Callable[[EpochReport], None] = _silent


@dataclass(frozen=True)
class TrainOptions:
    """How a method is trained, beside its own Config.

    Attributes:
        seed: of batches, masks and dropout.
        device: `auto` takes a GPU where there is one.
        precision: `bf16` runs `represent` under autocast; losses stay float32.
        checkpoint_s: a checkpoint follows the first epoch that ends so many seconds after the last.
        chunk: places of a batch that are represented at a time, 0 for all: see `gradient_cache`.
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    checkpoint_s: float = 10.0
    chunk: int = 0


@dataclass
class History:
    """Counters of a training run; kept in its checkpoint.

    Attributes:
        stage: index of the running stage.
        epoch: epochs of it done.
        steps: training steps done, of all stages.
        places_seen: places in them, repeats counted.
        seconds: spent training, over all resumptions.
        curves: one row per stage, epoch and quantity.
    """

    stage: int = 0
    epoch: int = 0
    steps: int = 0
    places_seen: int = 0
    seconds: float = 0.0
    curves: list[CurveRow] = field(default_factory=list)


def pick_device(name: str) -> str:
    """Return the torch device of `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: another name.
        UrbanError: there is no GPU.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UrbanError("torch sees no GPU here: leave out --device cuda")
    return "cuda" if available and name != "cpu" else "cpu"


def train(
    method: Method,
    tokens: Mapping[str, Tokens],
    index: npt.NDArray[np.int64],
    options: TrainOptions,
    checkpoint: Path,
    fingerprint: str,
    progress: Progress,
) -> History:
    """Train a prepared method in place, from its checkpoint where there is one.

    On one machine and the CPU, an interrupted and resumed training ends bit for bit as an
    uninterrupted one. torch's global generator is left as it was.

    Args:
        method: prepared; moved to the device.
        tokens: modality → tokens of N places, from `pool_once`.
        index: (P,) the training places.
        options: device, seed, precision.
        checkpoint: a safetensors file, written now and then; the caller removes it in the end.
        fingerprint: of everything the training depends on; a checkpoint of another is not resumed.
        progress: told about epochs, and what is unusual.

    Raises:
        UrbanError: fewer than two places, no such device, or a loss that is not finite.
    """
    if options.precision not in PRECISIONS:
        raise unknown("precision", options.precision, PRECISIONS)
    if len(index) < 2:
        raise UrbanError(
            f"{len(index)} places to train on, at least 2 are needed: fetch a larger area or "
            "hold out less"
        )
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            loop = _Loop(method, tokens, index, options, fingerprint, progress)
            if loop.small():
                torch.set_num_threads(1)
            loop.run(checkpoint)
    finally:
        torch.set_num_threads(threads)
    return loop.history


class _Loop:
    """The state of one training run; everything that must survive a crash is in `save`."""

    def __init__(
        self,
        method: Method,
        tokens: Mapping[str, Tokens],
        index: npt.NDArray[np.int64],
        options: TrainOptions,
        fingerprint: str,
        progress: Progress,
    ) -> None:
        self.method, self.tokens, self.index = method, tokens, index
        self.options, self.fingerprint, self.progress = options, fingerprint, progress
        self.device = pick_device(options.device)
        method.to(self.device)
        torch.manual_seed(options.seed)
        self.order = torch.Generator().manual_seed(options.seed)
        self.masks = torch.Generator().manual_seed(options.seed + 1)
        self.history = History()
        self.adams: list[torch.optim.AdamW] = []
        self.stages = method.stages()
        self.warned = False

    def small(self) -> bool:
        """Return whether a step is too small to be shared by threads."""
        parameters = sum(parameter.numel() for parameter in self.method.parameters())
        places = max((min(stage.batch_size, len(self.index)) for stage in self.stages), default=0)
        return self.device == "cpu" and parameters * places < SMALL_STEP

    def run(self, checkpoint: Path) -> None:
        """Train all stages, or those that the checkpoint leaves."""
        self.begun = time.monotonic()
        self.resume(checkpoint)
        while self.history.stage < len(self.stages):
            stage = self.stages[self.history.stage]
            if not self.adams:
                self.adams = [_adam(optimiser) for optimiser in stage.optimisers]
            self.method.train()
            while self.history.epoch < stage.epochs:
                self.epoch(stage)
                if time.monotonic() - self.begun >= self.options.checkpoint_s:
                    self.save(checkpoint)
            self.history.stage, self.history.epoch, self.adams = self.history.stage + 1, 0, []
        self.history.seconds += time.monotonic() - self.begun
        self.method.eval()

    def epoch(self, stage: Stage) -> None:
        """Run one epoch and report it."""
        shuffled = self.index[torch.randperm(len(self.index), generator=self.order).numpy()]
        batches = _split(shuffled, stage.batch_size)
        total = len(batches) * stage.epochs
        sums: dict[str, Tensor] = {}
        for number, places in enumerate(batches):
            step = self.history.epoch * len(batches) + number
            batch = make_batch(self.tokens, places, self.device)
            for name, value in self.step(stage, batch, step, total).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            self.method.after_step(step + 1, total)
            self.history.steps += 1
            self.history.places_seen += len(places)
        self.history.epoch += 1
        self.report(stage, {name: float(value) / len(batches) for name, value in sums.items()})

    def step(self, stage: Stage, batch: Batch, step: int, total: int) -> dict[str, Tensor]:
        """Let every optimiser of the stage move, in order; return its terms as last computed.

        An attached optimiser's move outdates the representations; the next attached one computes
        them anew, a detached one is content with the old ones.
        """
        chunked = 0 < self.options.chunk < batch.size
        fresh: Representations | None = None
        seen: Representations = {}
        redo: Callable[[Sequence[Tensor]], None] | None = None
        terms: dict[str, Tensor] = {}
        for optimiser, adam in zip(stage.optimisers, self.adams, strict=True):
            for group in adam.param_groups:
                group["lr"] = optimiser.lr * warmup_cosine(step, total, optimiser.warmup)
            for _ in range(optimiser.repeats):
                if fresh is None and not (optimiser.detached and seen):
                    if chunked:
                        fresh, redo = represent_in_chunks(
                            partial(self.represent, stage), batch, self.options.chunk, self.masks
                        )
                    else:
                        fresh = self.represent(stage, batch)
                    seen = {name: value.detach() for name, value in fresh.items()}
                given = seen if optimiser.detached or fresh is None else fresh
                found = self.method.objective(given, optimiser.name)
                loss, parameters = torch.stack(list(found.values())).sum(), optimiser.parameters
                if redo is None or given is seen:
                    loss.backward(inputs=list(parameters))  # type: ignore[no-untyped-call]
                else:
                    leaves = [value for value in given.values() if value.requires_grad]
                    loss.backward(inputs=[*leaves, *parameters])  # type: ignore[no-untyped-call]
                    redo(parameters)
                _move(adam, optimiser)
                fresh = fresh if optimiser.detached else None
            terms |= {f"{optimiser.name}/{name}": value.detach() for name, value in found.items()}
        return terms

    def represent(self, stage: Stage, batch: Batch) -> Representations:
        """Return the method's representations, floating ones as float32."""
        half = self.options.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            found = self.method.represent(batch, stage.name, self.masks)
        return {n: v.float() if v.is_floating_point() else v for n, v in found.items()}

    def report(self, stage: Stage, terms: dict[str, float]) -> None:
        """Keep an epoch's terms and monitors; say when the embeddings collapse.

        Raises:
            UrbanError: a term is not finite.
        """
        epoch = self.history.epoch
        for name, value in terms.items():
            if not math.isfinite(value):
                raise UrbanError(
                    f"{name} is not finite in epoch {epoch} of stage '{stage.name}': train with a "
                    "lower learning rate, e.g. --set lr=1e-4"
                )
        monitors = self.monitor()
        if collapsed(monitors) and not self.warned:
            self.warned = True
            self.progress.say(
                f"warning: the embeddings collapse (stage '{stage.name}', epoch {epoch}: effective "
                f"rank {monitors['effective_rank']:.2f}, mean cosine {monitors['mean_cosine']:.3f})"
            )
        quantities = {**terms, **monitors}
        self.history.curves += [(stage.name, epoch, name, v) for name, v in quantities.items()]
        self.progress.epoch(EpochReport(stage.name, epoch, stage.epochs, quantities))

    @torch.no_grad()
    def monitor(self) -> dict[str, float]:
        """Return the collapse monitors of a fixed sample of the training places."""
        spread = np.linspace(0, len(self.index) - 1, min(MONITORED, len(self.index)))
        batch = make_batch(self.tokens, self.index[spread.astype(np.int64)], self.device)
        if self.method.inputs is not None:
            batch = batch.drop(set(batch.modalities) - set(self.method.inputs))
        self.method.eval()
        found = collapse_monitors(self.method.embed(batch).float())
        self.method.train()
        return found

    # --- checkpoints

    def save(self, checkpoint: Path) -> None:
        """Write model, optimisers, generators and counters as one safetensors file."""
        now = time.monotonic()
        self.history.seconds += now - self.begun
        self.begun = now
        tensors = {f"model.{name}": value for name, value in self.method.state_dict().items()}
        for number, adam in enumerate(self.adams):
            for index, state in adam.state_dict()["state"].items():
                for name, value in state.items():
                    tensors[f"adam.{number}.{index}.{name}"] = value
        for name, state in self.generator_states().items():
            tensors[f"generator.{name}"] = state
        facts = {"fingerprint": self.fingerprint, "history": asdict(self.history)}
        write_tensors(checkpoint, tensors, facts)

    def generator_states(self) -> dict[str, Tensor]:
        """Return the states of all generators that training draws from."""
        states = {
            "order": self.order.get_state(),
            "masks": self.masks.get_state(),
            "torch": torch.get_rng_state(),
        }
        return states | ({"cuda": torch.cuda.get_rng_state()} if self.device == "cuda" else {})

    def resume(self, checkpoint: Path) -> None:
        """Take up the checkpoint, if there is one of this very training."""
        if not checkpoint.exists():
            return
        facts, tensors = read_tensors(checkpoint, self.device)
        if facts.get("fingerprint") != self.fingerprint:
            self.progress.say(
                "the checkpoint is of another configuration or other data: training starts anew"
            )
            return
        self.history = History(**facts["history"])
        self.history.curves = [(s, e, q, v) for s, e, q, v in self.history.curves]
        self.method.load_state_dict(_under("model.", tensors))
        self.adams = [_adam(o) for o in self.stages[self.history.stage].optimisers]
        for number, adam in enumerate(self.adams):
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(f"adam.{number}.", tensors).items():
                index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value.cpu() if key == "step" else value
            adam.load_state_dict({**adam.state_dict(), "state": state})
        self.order.set_state(tensors["generator.order"].cpu())
        self.masks.set_state(tensors["generator.masks"].cpu())
        torch.set_rng_state(tensors["generator.torch"].cpu())
        if self.device == "cuda":
            torch.cuda.set_rng_state(tensors["generator.cuda"].cpu())
        stage = self.stages[self.history.stage].name
        self.progress.say(f"resumed after epoch {self.history.epoch} of stage '{stage}'")


def _split(shuffled: npt.NDArray[np.int64], batch_size: int) -> list[npt.NDArray[np.int64]]:
    """Return the batches of an epoch; a rest of one place joins the batch before it."""
    starts = list(range(0, len(shuffled), batch_size))
    if len(shuffled) - starts[-1] == 1 < len(starts):
        starts.pop()
    return np.split(shuffled, starts[1:])


def _adam(optimiser: Optimiser) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        optimiser.parameters,
        lr=optimiser.lr,
        betas=optimiser.betas,
        weight_decay=optimiser.weight_decay,
    )


def _move(adam: torch.optim.AdamW, optimiser: Optimiser) -> None:
    """Make one step down the gradients that are there, and forget them."""
    if optimiser.clip:
        torch.nn.utils.clip_grad_norm_(optimiser.parameters, optimiser.clip)
    adam.step()
    adam.zero_grad()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
