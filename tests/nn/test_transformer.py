"""The transformer block against torch's own attention, and against its definition."""

import pytest
import torch
from torch.nn import functional

from urbancli.nn.schedules import warmup_cosine
from urbancli.nn.transformer import Block


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    block = Block(width=12, heads=3)
    reference = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(block.query_key_value.weight)
        reference.in_proj_bias.copy_(block.query_key_value.bias)
        reference.out_proj.weight.copy_(block.attention_out.weight)
        reference.out_proj.bias.copy_(block.attention_out.bias)
    tokens = torch.randn(5, 4, 12)
    torch.testing.assert_close(block.attend(tokens), reference(tokens, tokens, tokens)[0])


def test_the_block_is_pre_norm_with_two_residuals() -> None:
    torch.manual_seed(0)
    block = Block(width=8, heads=2)
    tokens = torch.randn(3, 4, 8)
    half = tokens + block.attend(functional.layer_norm(tokens, (8,)))
    first, _, second = block.mlp
    hidden = functional.gelu(first(functional.layer_norm(half, (8,))))
    torch.testing.assert_close(block(tokens), half + second(hidden))
    assert first.out_features == 32


def test_the_rate_rises_and_falls_to_zero() -> None:
    rates = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1 and rates[55] == pytest.approx(0.5) and 0 < rates[99] < 1e-3
    assert warmup_cosine(0, 1, 0.0) == 1
