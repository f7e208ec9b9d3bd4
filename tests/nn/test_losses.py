"""Losses and masks against loops over their formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from urbancli.nn import losses
from urbancli.nn.losses import barlow_twins, info_nce, modality_mse, symmetric_info_nce
from urbancli.nn.masks import complementary_masks
from urbancli.nn.monitors import collapse_monitors, collapsed


def naive_info_nce(first: Tensor, second: Tensor, scale: float) -> float:
    total = 0.0
    for a, b in ((first, second), (second, first)):
        for i in range(len(a)):
            logits = [scale * sum(p * q for p, q in zip(a[i], other, strict=True)) for other in b]
            total += math.log(sum(math.exp(logit) for logit in logits)) - logits[i]
    return total / len(first) / 2


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_info_nce_is_its_formula(rows: int) -> None:
    torch.manual_seed(rows)
    first, second = (normalize(torch.randn(rows, 5, dtype=torch.float64)) for _ in range(2))
    wanted = naive_info_nce(first.tolist(), second.tolist(), 14.0)
    assert float(symmetric_info_nce(first, second, 14.0)) == pytest.approx(wanted, abs=1e-9)


def test_info_nce_of_no_rows_is_zero_and_differentiable() -> None:
    weights = torch.randn(4, 3, requires_grad=True)
    loss = symmetric_info_nce(torch.zeros(0, 4) @ weights, torch.zeros(0, 3), torch.tensor(2.0))
    loss.backward()
    assert loss.item() == 0 and torch.equal(weights.grad, torch.zeros(4, 3))
    columns = torch.randn(5, 3, requires_grad=True)
    loss = info_nce(torch.zeros(0, 3), columns, torch.zeros(0, dtype=torch.int64), 2.0)
    loss.backward()
    assert loss.item() == 0 and torch.equal(columns.grad, torch.zeros(5, 3))


@pytest.mark.parametrize("held", [1 << 22, 40, 1])
def test_one_direction_is_its_formula_and_so_is_its_gradient(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole and in blocks: with a positive shared by rows, and columns that are nobody's."""
    monkeypatch.setattr(losses, "HELD_LOGITS", held)
    torch.manual_seed(0)
    rows = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    columns = torch.randn(13, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([0, 3, 3, 12, 5, 6, 7, 8, 1])
    found = info_nce(rows, columns, positive, scale)
    wanted = sum(
        math.log(sum(math.exp(3 * s) for s in near)) - 3 * near[own]
        for near, own in zip((rows @ columns.T).tolist(), positive.tolist(), strict=True)
    ) / len(rows)
    assert found.item() == pytest.approx(wanted, abs=1e-12)
    (2 * found).backward()
    given = [part.grad.clone() for part in (rows, columns, scale)]
    plain = torch.nn.functional.cross_entropy(scale * rows @ columns.T, positive)
    for one, other in zip(
        given, torch.autograd.grad(2 * plain, (rows, columns, scale)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_without_gradients_blocks_give_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (normalize(torch.randn(33, 5)) for _ in range(2))
    wanted = symmetric_info_nce(first, second, 14.0)
    monkeypatch.setattr(losses, "HELD_LOGITS", 64)
    torch.testing.assert_close(symmetric_info_nce(first, second, 14.0), wanted)


@pytest.mark.parametrize("redundancy", [0.0, 0.005, 1.0])
def test_barlow_twins_is_its_formula(redundancy: float) -> None:
    torch.manual_seed(1)
    first, second = (torch.randn(20, 3, dtype=torch.float64) for _ in range(2))
    wanted = 0.0
    for d in range(3):
        for e in range(3):
            a, b = first[:, d].tolist(), second[:, e].tolist()
            ma, mb = sum(a) / 20, sum(b) / 20
            sa = math.sqrt(sum((p - ma) ** 2 for p in a) / 20)
            sb = math.sqrt(sum((q - mb) ** 2 for q in b) / 20)
            c = sum((p - ma) * (q - mb) for p, q in zip(a, b, strict=True)) / 20 / sa / sb
            wanted += (1 - c) ** 2 if d == e else redundancy * c**2
    assert float(barlow_twins(first, second, redundancy)) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_barlow_twins_is_finite_where_nothing_varies(rows: int) -> None:
    first = torch.ones(rows, 3, requires_grad=True)
    loss = barlow_twins(first, torch.ones(rows, 3), 0.005)
    loss.backward()
    assert loss.item() == (3.0 if rows > 1 else 0.0) and torch.isfinite(first.grad).all()


def naive_modality_mse(
    predicted: list[list[float]], target: list[list[float]], present: list[list[bool]],
    widths: list[int],
) -> float:  # fmt: skip
    means, start = [], 0
    for modality, width in enumerate(widths):
        places = []
        for row in range(len(predicted)):
            if present[row][modality]:
                errors = [
                    (predicted[row][c] - target[row][c]) ** 2 for c in range(start, start + width)
                ]
                places.append(sum(errors) / width)
        if places:
            means.append(sum(places) / len(places))
        start += width
    return sum(means) / len(means) if means else 0.0


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.7, 1.0])
def test_reconstruction_is_its_formula(chance: float) -> None:
    torch.manual_seed(0)
    widths = [2, 5, 1]
    predicted, target = torch.randn(2, 6, 8, dtype=torch.float64)
    present = torch.rand(6, 3) < chance
    wanted = naive_modality_mse(predicted.tolist(), target.tolist(), present.tolist(), widths)
    found = modality_mse(predicted, target, present, widths)
    assert found.item() == pytest.approx(wanted, abs=1e-12)


def test_absent_targets_do_not_matter() -> None:
    torch.manual_seed(0)
    predicted, target = torch.randn(2, 4, 5)
    present = torch.tensor([[True, False]] * 2 + [[True, True]] * 2)
    changed = target.clone()
    changed[:2, 2:] = 1e6
    before, after = (modality_mse(predicted, t, present, [2, 3]) for t in (target, changed))
    assert torch.equal(before, after)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_views_are_disjoint_complementary_and_never_empty(modalities: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(9, modalities, generator=generator) < 0.6
    first = complementary_masks(present, generator)
    second = present & ~first
    enough = present.sum(dim=1) >= 2
    assert not (first & ~present).any()
    assert first[enough].any(dim=1).all() and second[enough].any(dim=1).all()
    assert not first[~enough].any()


def test_k_is_uniform_and_shared_by_the_batch_where_nothing_is_missing() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.ones(3, 5, dtype=torch.bool)
    sizes, sets = torch.zeros(5), torch.zeros(5)
    for _ in range(2000):
        first = complementary_masks(present, generator)
        assert (first == first[0]).all()
        masked = ~first[0]
        sizes[int(masked.sum())] += 1
        sets += masked
    assert sizes[0] == 0
    assert ((sizes[1:] / 2000 - 0.25).abs() < 0.04).all()
    assert ((sets / 2000 - 0.5).abs() < 0.05).all()


@pytest.mark.parametrize(("count", "masked"), [("one", [1, 1, 1, 1]), ("half", [1, 1, 2, 2])])
def test_k_may_be_one_or_half_of_what_a_place_has(count: str, masked: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.arange(5) < torch.tensor([[2], [3], [4], [5]])
    for _ in range(20):
        first = complementary_masks(present, generator, count)
        assert (present & ~first).sum(dim=1).tolist() == masked


def test_each_place_may_draw_its_own_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.ones(2000, 5, dtype=torch.bool)
    first = complementary_masks(present, generator, "uniform", "place")
    sizes = (~first).sum(dim=1)
    assert set(sizes.tolist()) == {1, 2, 3, 4}
    assert (torch.bincount(sizes) / 2000 - 0.25)[1:].abs().max() < 0.04
    assert ((~first).double().mean(dim=0) - 0.5).abs().max() < 0.05


def test_monitors_know_a_full_space_from_a_point() -> None:
    torch.manual_seed(0)
    full = collapse_monitors(torch.randn(2000, 8))
    assert full["effective_rank"] == pytest.approx(8, abs=0.1)
    assert full["embedding_std"] == pytest.approx(1, abs=0.05)
    point = collapse_monitors(torch.ones(50, 8) + 1e-4 * torch.randn(50, 8))
    assert point["effective_rank"] < 1.1 and point["mean_cosine"] > 0.999
    assert collapsed(point) and not collapsed(full)


def test_mean_cosine_is_its_formula() -> None:
    torch.manual_seed(0)
    values = torch.randn(6, 3) + 1
    unit = normalize(values)
    pairs = [float(unit[i] @ unit[j]) for i in range(6) for j in range(6) if i != j]
    found = collapse_monitors(values)["mean_cosine"]
    assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
