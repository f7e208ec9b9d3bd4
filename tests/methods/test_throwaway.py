"""Two methods made to be thrown away: they prove that the contract and the loop carry others.

One has a teacher that follows the student after every step (as GeoJEPA), one a critic with its own
optimiser that takes two steps on detached representations (as CooKIE's CLUB terms).
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from urbancli.methods.base import Method, Optimiser, Representations, Stage, Width, parameters_of
from urbancli.nn.schedules import warmup_cosine
from urbancli.tokens import Batch, Tokens, single_tokens
from urbancli.training import Progress, TrainOptions, train

PLACES = 20


@dataclass(frozen=True)
class Config:
    lr: float = 1e-2
    critic_lr: float = 1e-2
    momentum: float = 0.9


class Teacher(Method):
    """The student predicts, from noisy input, what its own moving average sees."""

    def __init__(self, config: Config, widths: dict[str, Width]) -> None:
        super().__init__(config, widths)
        self.width = 3
        self.student = nn.Linear(widths["pois"].pooled, 3)
        self.teacher = nn.Linear(widths["pois"].pooled, 3).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.trail = [self.student.weight.detach().clone()]
        self.calls: list[tuple[int, int]] = []

    def stages(self) -> list[Stage]:
        main = Optimiser("main", parameters_of(self), self.config.lr)
        return [Stage("predict", 2, 8, (main,))]

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        values = batch.modalities["pois"].pooled
        noisy = values + torch.randn(values.shape, generator=generator)
        return {"predicted": self.student(noisy), "target": self.teacher(values)}

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        difference = representations["predicted"] - representations["target"]
        return {"difference": difference.square().mean()}

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        self.calls.append((step, total))
        self.trail.append(self.student.weight.detach().clone())
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.config.momentum)

    def embed(self, batch: Batch) -> Tensor:
        return self.student(batch.modalities["pois"].pooled)


class Critic(Method):
    """The encoder lowers what a critic finds shared; the critic learns to find it."""

    def __init__(self, config: Config, widths: dict[str, Width]) -> None:
        super().__init__(config, widths)
        self.width = 3
        self.encoder = nn.Linear(widths["pois"].pooled, 3)
        self.critic = nn.Bilinear(3, 2, 1)
        self.represented = 0
        self.asked: list[tuple[str, bool]] = []

    def stages(self) -> list[Stage]:
        main = Optimiser("main", parameters_of(self.encoder), self.config.lr)
        critic = Optimiser(
            "critic", parameters_of(self.critic), self.config.critic_lr, repeats=2, detached=True
        )
        return [Stage("separate", 2, 8, (main, critic))]

    def represent(self, batch: Batch, stage: str, generator: torch.Generator) -> Representations:
        self.represented += 1
        parts = batch.modalities
        return {"code": self.encoder(parts["pois"].pooled), "other": parts["coords"].pooled.float()}

    def objective(self, representations: Representations, optimiser: str) -> dict[str, Tensor]:
        code, other = representations["code"], representations["other"]
        self.asked.append((optimiser, code.requires_grad))
        paired = self.critic(code, other).mean()
        turned = self.critic(code, other.roll(1, dims=0)).mean()
        return {"shared": (paired - turned) * (1 if optimiser == "main" else -1)}

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder(batch.modalities["pois"].pooled)


def tokens() -> dict[str, Tokens]:
    rng = np.random.default_rng(0)
    return {
        "coords": single_tokens(rng.random((PLACES, 2))),
        "pois": single_tokens(rng.normal(size=(PLACES, 4)).astype(np.float32)),
    }


def trained(kind: type[Method], config: Config, folder: Path) -> Method:
    torch.manual_seed(0)
    method = kind(config, {"coords": Width(2, 2), "pois": Width(4, 4)})
    options = TrainOptions(seed=1)
    train(method, tokens(), np.arange(PLACES), options, folder / "checkpoint", "x", Progress())
    return method


def test_the_teacher_is_the_moving_average_of_the_student(tmp_path: Path) -> None:
    method = trained(Teacher, Config(), tmp_path)
    assert isinstance(method, Teacher)
    assert method.calls == [(step, 6) for step in range(1, 7)]  # 2 epochs of 8 + 8 + 4 places
    average = method.trail[0]
    for weight in method.trail[1:]:
        average = 0.9 * average + 0.1 * weight
    torch.testing.assert_close(method.teacher.weight, average)
    steps = [float((b - a).abs().max()) for a, b in itertools.pairwise(method.trail)]
    assert all(step > 0 for step in steps), "the student learns in every step"
    assert not torch.equal(method.teacher.weight, method.student.weight)


def test_the_critic_takes_two_detached_steps_after_each_of_the_encoder(tmp_path: Path) -> None:
    method = trained(Critic, Config(), tmp_path)
    assert isinstance(method, Critic)
    assert method.asked == [("main", True), ("critic", False), ("critic", False)] * 6
    assert method.represented == 6


def test_the_loop_is_the_one_written_out_by_hand(tmp_path: Path) -> None:
    method = trained(Critic, Config(), tmp_path)
    torch.manual_seed(0)
    hand = Critic(Config(), {"coords": Width(2, 2), "pois": Width(4, 4)})
    main = torch.optim.AdamW(hand.encoder.parameters(), weight_decay=0.01)
    critic = torch.optim.AdamW(hand.critic.parameters(), weight_decay=0.01)
    pois, coords = (torch.from_numpy(tokens()[name].pooled()) for name in ("pois", "coords"))
    order, step = torch.Generator().manual_seed(1), 0
    for _ in range(2):
        for places in torch.randperm(PLACES, generator=order).split(8):
            rate = 1e-2 * warmup_cosine(step, 6, 0.1)
            found = {"code": hand.encoder(pois[places]), "other": coords[places].float()}
            for adam, name in ((main, "main"), (critic, "critic"), (critic, "critic")):
                adam.param_groups[0]["lr"] = rate
                moved = adam.param_groups[0]["params"]
                loss = hand.objective(found, name)["shared"]
                for parameter, slope in zip(moved, torch.autograd.grad(loss, moved), strict=True):
                    parameter.grad = slope
                adam.step()
                found["code"] = found["code"].detach()
            step += 1
    for name, value in hand.state_dict().items():
        torch.testing.assert_close(method.state_dict()[name], value, msg=name)


@pytest.mark.parametrize(("lr", "critic_lr"), [(0.0, 1e-2), (1e-2, 0.0)])
def test_an_optimiser_moves_its_own_parameters_only(
    lr: float, critic_lr: float, tmp_path: Path
) -> None:
    """Both objectives depend on both parts; with a rate of zero a part stays to the bit."""
    torch.manual_seed(0)
    fresh = Critic(Config(), {"coords": Width(2, 2), "pois": Width(4, 4)})
    method = trained(Critic, Config(lr=lr, critic_lr=critic_lr), tmp_path)
    assert isinstance(method, Critic)
    assert torch.equal(method.encoder.weight, fresh.encoder.weight) == (lr == 0)
    assert torch.equal(method.critic.weight, fresh.critic.weight) == (critic_lr == 0)
    assert all(parameter.grad is None for parameter in method.parameters())
