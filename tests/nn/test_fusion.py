"""Fusions against what their pooling and masks mean, written out place by place."""

import math

import pytest
import torch
from torch.nn import functional

from urbancli.nn.fusion import Concatenation, Fusion, Pooling, mean_of_present

KEPT = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])


def fusion(pooling: Pooling, *, removed: bool = False, depth: int = 2) -> Fusion:
    torch.manual_seed(0)
    made = Fusion(8, 3, 2, 2, depth, pooling, removed=removed)
    with torch.no_grad():
        made.position.normal_()  # as published they are all but 0
    return made.eval()


def naive(made: Fusion, tokens: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """One place: tokens that are not there are zeros, or are left out of the sequence."""
    x = tokens.clone()
    x[~kept] = 0
    x = x + made.position
    x = x[kept] if made.removed else x
    if made.pooling == "cls":
        x = torch.cat([made.first[0], x])
    x = x[None]
    for block in made.blocks:
        x = block(x)
    x = x[0]
    if made.pooling == "cls":
        return x[0]
    if made.pooling == "mean":
        return x.mean(dim=0)
    normed = functional.layer_norm(x, (8,), made.norm.weight, made.norm.bias)
    weights = torch.softmax(normed @ made.query / math.sqrt(8), dim=0)
    return weights @ x


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_a_fusion_is_what_it_says_place_by_place(pooling: Pooling, removed: bool) -> None:
    made = fusion(pooling, removed=removed)
    tokens = torch.randn(3, 3, 8)
    with torch.no_grad():
        found = made(tokens, KEPT)
        for place in range(3):
            torch.testing.assert_close(found[place], naive(made, tokens[place], KEPT[place]))
    assert not torch.allclose(found[1], fusion(pooling, removed=not removed)(tokens, KEPT)[1])


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_a_place_without_anything_is_finite(pooling: Pooling) -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.isfinite(fusion(pooling, removed=True)(torch.randn(2, 3, 8), nothing)).all()


def test_a_concatenation_is_one_layer_over_tokens_side_by_side() -> None:
    made, tokens = Concatenation(8, 3), torch.randn(3, 3, 8)
    tokens_there = tokens * KEPT[:, :, None]
    wanted = functional.linear(tokens_there.reshape(3, 24), made.layer.weight, made.layer.bias)
    torch.testing.assert_close(made(tokens, KEPT), wanted)


def test_the_mean_is_over_what_is_there() -> None:
    vectors = [torch.full((3, 2), value) for value in (1.0, 4.0, 7.0)]
    found = mean_of_present(vectors, list(torch.cat([KEPT[:2], ~KEPT[:1]]).T))
    assert found[:, 0].tolist() == [4.0, 4.0, 0.0]
