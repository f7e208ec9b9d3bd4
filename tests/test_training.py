"""The training loop: resume to the bit, every place seen, schedules, seeds, collapse."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from urbancli.errors import UrbanError, UsageError
from urbancli.methods.base import Method, Optimiser, Representations, Stage, Width, parameters_of
from urbancli.tensors import read_tensors, write_tensors
from urbancli.tokens import Batch, single_tokens
from urbancli.training import (
    EpochReport,
    History,
    Progress,
    TrainOptions,
    pick_device,
    train,
)

PLACES = 21


@dataclass(frozen=True)
class Config:
    epochs: tuple[int, int] = (3, 3)
    batch_size: int = 5
    lr: float = 1e-2
    warmup: float = 0.1
    clip: float = 1.0
    loss: str = "usual"


class Wandering(Method):
    """Two stages, two optimisers, dropout, noise, a slow copy: whatever a resume can miss."""

    slow: Tensor

    def __init__(self, config: Config, widths: dict[str, Width]) -> None:
        super().__init__(config, widths)
        self.width = 4
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.3), nn.Linear(8, 4))
        self.head = nn.Linear(4, 1)
        self.register_buffer("slow", torch.zeros(4, 8))
        self.batches: list[list[int]] = []
        self.dtypes: set[torch.dtype] = set()

    def stages(self) -> list[Stage]:
        config = self.config
        both = [
            Optimiser(name, parameters_of(part), config.lr, warmup=config.warmup, clip=config.clip)
            for name, part in (("net", self.net), ("head", self.head))
        ]
        return [
            Stage("first", config.epochs[0], config.batch_size, (both[0],)),
            Stage("second", config.epochs[1], config.batch_size, tuple(both)),
        ]

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        values = batch.modalities["pois"].pooled
        self.batches.append(values[:, 0].int().tolist())
        noise = torch.randn(values.shape, generator=generator)
        code = self.net(values / PLACES + noise)
        self.dtypes.add(code.dtype)
        return {"code": code, "index": values[:, 0].long()}

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        assert representations["code"].dtype == torch.float32
        if self.config.loss == "constant slope":
            return {"sum": sum((p.sum() for p in self.parameters()), torch.zeros(()))}
        code = representations["code"]
        error = (self.head(code) - 1).square().mean()
        if self.config.loss == "infinite":
            error = error / (error - error).detach()
        return {"error": error, "size": 0.1 * code.square().mean()}

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        self.slow.lerp_(self.net[2].weight, 0.1)

    def embed(self, batch: Batch) -> Tensor:
        if self.config.loss == "collapsed":
            return torch.ones(batch.size, 4)
        return self.net(batch.modalities["pois"].pooled)


def fresh(**changes: Any) -> Wandering:
    torch.manual_seed(0)
    return Wandering(Config(**changes), {"pois": Width(2, 2)})


def run(
    method: Method, checkpoint: Path, progress: Progress | None = None, **options: Any
) -> History:
    columns = np.column_stack([np.arange(PLACES), np.arange(PLACES) % 3]).astype(np.float32)
    index = np.arange(PLACES)
    how = TrainOptions(**{"checkpoint_s": 0.0, **options})
    tokens = {"pois": single_tokens(columns)}
    return train(method, tokens, index, how, checkpoint, "mine", progress or Progress())


class Killed(Exception):
    pass


def kill_after(epochs: int) -> Progress:
    seen: list[EpochReport] = []

    def epoch(report: EpochReport) -> None:
        seen.append(report)
        if len(seen) > epochs:
            raise Killed

    return Progress(epoch=epoch)


@pytest.mark.parametrize("epochs", [0, 1, 3, 5])
def test_a_killed_training_ends_as_an_unbroken_one(epochs: int, tmp_path: Path) -> None:
    unbroken = fresh()
    wanted = run(unbroken, tmp_path / "unbroken")
    with pytest.raises(Killed):
        run(fresh(), tmp_path / "killed", kill_after(epochs))
    said: list[str] = []
    resumed = fresh()
    torch.manual_seed(99)  # whatever the process drew before
    found = run(resumed, tmp_path / "killed", Progress(say=said.append))
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert found.curves == wanted.curves
    assert (found.steps, found.places_seen) == (wanted.steps, wanted.places_seen)
    assert said == ([f"resumed after epoch {(epochs - 1) % 3 + 1} of stage "
                     f"'{'first' if epochs <= 3 else 'second'}'"] if epochs else [])  # fmt: skip
    assert len(resumed.batches) < len(unbroken.batches) or not epochs


def test_a_checkpoint_of_something_else_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(fresh(), tmp_path / "checkpoint", kill_after(2))
    facts, tensors = read_tensors(tmp_path / "checkpoint")
    write_tensors(tmp_path / "checkpoint", tensors, {**facts, "fingerprint": "another"})
    said: list[str] = []
    method, unbroken = fresh(), fresh()
    run(method, tmp_path / "checkpoint", Progress(say=said.append))
    run(unbroken, tmp_path / "other")
    assert len(said) == 1 and "starts anew" in said[0]
    assert torch.equal(method.head.weight, unbroken.head.weight)


def test_a_broken_checkpoint_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"not a tensor")
    with pytest.raises(UrbanError, match="delete it and run `urban train` again"):
        run(fresh(), tmp_path / "checkpoint")


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    methods = [fresh() for _ in range(3)]
    for number, (method, seed) in enumerate(zip(methods, (1, 1, 2), strict=True)):
        torch.manual_seed(number)
        run(method, tmp_path / str(number), seed=seed)
    first, same, other = (method.net[2].weight for method in methods)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    method = fresh()
    state = torch.get_rng_state()
    run(method, tmp_path / "checkpoint")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("batch_size", [4, 5, 8, 50])
def test_every_place_is_seen_once_an_epoch(batch_size: int, tmp_path: Path) -> None:
    method = fresh(epochs=(2, 0), batch_size=batch_size)
    history = run(method, tmp_path / "checkpoint")
    per_epoch = len(method.batches) // 2
    epochs = [method.batches[:per_epoch], method.batches[per_epoch:]]
    for batches in epochs:
        seen = [place for batch in batches for place in batch]
        assert len(seen) == len(set(seen)) == PLACES
        assert min(map(len, batches)) > 1, "a lone rest joins the batch before it"
        assert max(map(len, batches)) <= batch_size + (PLACES % batch_size == 1)
    assert epochs[0] != epochs[1], "each epoch has its own order"
    assert history.places_seen == 2 * PLACES
    assert history.steps == 2 * per_epoch


def test_rates_follow_the_schedule(tmp_path: Path) -> None:
    """Under a constant slope AdamW moves by the rate itself: 0.25 + 0.5 + 0.75 + 1 of the peak."""
    method = fresh(epochs=(4, 0), batch_size=50, warmup=1.0, clip=0.0, loss="constant slope")
    before = method.net[0].weight.detach().clone()
    decay = Optimiser("", (), 0.0).weight_decay
    run(method, tmp_path / "checkpoint")
    for share in (0.25, 0.5, 0.75, 1.0):
        before = before * (1 - decay * 1e-2 * share) - 1e-2 * share
    torch.testing.assert_close(method.net[0].weight.detach(), before, rtol=0, atol=1e-6)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """So far that AdamW's epsilon of 1e-8 swallows them."""
    method = fresh(epochs=(4, 0), batch_size=50, warmup=1.0, clip=1e-12, loss="constant slope")
    before = method.net[0].bias.detach().clone()
    run(method, tmp_path / "checkpoint")
    torch.testing.assert_close(method.net[0].bias.detach(), before, rtol=2e-3, atol=1e-5)


def test_bf16_represents_in_half_and_judges_in_whole(tmp_path: Path) -> None:
    method = fresh(epochs=(1, 0))
    run(method, tmp_path / "checkpoint", precision="bf16")
    assert method.dtypes == {torch.bfloat16}
    assert method.net[0].weight.dtype == torch.float32


def test_collapse_is_said_once_and_kept_in_the_curves(tmp_path: Path) -> None:
    said: list[str] = []
    history = run(fresh(loss="collapsed"), tmp_path / "a", Progress(say=said.append))
    assert len(said) == 1 and "collapse" in said[0]
    ranks = [value for _, _, quantity, value in history.curves if quantity == "effective_rank"]
    assert ranks == pytest.approx([1.0] * 6)
    said.clear()
    run(fresh(), tmp_path / "b", Progress(say=said.append))
    assert not said


def test_curves_hold_each_term_of_each_optimiser(tmp_path: Path) -> None:
    curves = run(fresh(), tmp_path / "checkpoint").curves
    first = {quantity for stage, _, quantity, _ in curves if stage == "first"}
    second = {quantity for stage, _, quantity, _ in curves if stage == "second"}
    monitors = {"effective_rank", "embedding_std", "mean_cosine"}
    assert first == {"net/error", "net/size", *monitors}
    assert second == first | {"head/error", "head/size"}
    assert [epoch for s, epoch, q, _ in curves if (s, q) == ("first", "net/error")] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(UrbanError, match=r"net/error is not finite in epoch 1.*--set lr=") as error:
        run(fresh(loss="infinite"), tmp_path / "checkpoint")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checkpoint").exists()


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    tokens = {"pois": single_tokens(np.zeros((3, 2), np.float32))}
    with pytest.raises(UrbanError, match="1 places to train on"):
        train(fresh(), tokens, np.array([1]), TrainOptions(), tmp_path / "c", "", Progress())
    with pytest.raises(UsageError, match="batch_size=1 does not fit: batch_size is at least 2"):
        run(fresh(batch_size=1), tmp_path / "checkpoint")
    with pytest.raises(UsageError, match="unknown precision 'bf61': did you mean bf16"):
        run(fresh(), tmp_path / "checkpoint", precision="bf61")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        pick_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said() -> None:
    assert pick_device("auto") == "cpu"
    with pytest.raises(UrbanError, match="leave out --device cuda"):
        pick_device("cuda")
