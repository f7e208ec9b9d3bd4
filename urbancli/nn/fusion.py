"""From one token per modality to one vector per place."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from urbancli.nn.transformer import Block

Pooling = Literal["mean", "cls", "attention"]


class Fusion(nn.Module):
    """A transformer over a place's tokens, a zero where one is not there, and a pooling.

    A learned position, drawn from N(0, 1e-6) (read as a standard deviation), is added to every
    token, those that are not there included; no norm follows the blocks.

    Args:
        width: D.
        modalities: M, tokens of a place.
        heads: of attention.
        mlp_ratio: hidden width of the MLPs, in D.
        depth: blocks.
        pooling: `mean` of the tokens; `cls`, a learned token before the others; `attention`: the
            mean weighted by softmax(q · LN(x) / √D), q learned.
        removed: whether tokens that are not there are unseen, by attention and by pooling, instead
            of seen as zeros. Of a place without any all are seen.
    """

    def __init__(
        self,
        width: int,
        modalities: int,
        heads: int,
        mlp_ratio: int,
        depth: int = 1,
        pooling: Pooling = "mean",
        *,
        removed: bool = False,
    ) -> None:
        super().__init__()
        self.pooling, self.removed = pooling, removed
        self.position = nn.Parameter(torch.randn(modalities, width) * 1e-6)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        if pooling == "cls":
            self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        if pooling == "attention":
            self.query = nn.Parameter(torch.randn(width) * 0.02)
            self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Return (B, D) of tokens (B, M, D) of which only those kept (B, M) are there."""
        x = tokens.masked_fill(~kept[:, :, None], 0.0) + self.position
        seen = (kept | ~kept.any(dim=1, keepdim=True)) if self.removed else None
        if self.pooling == "cls":
            x = torch.cat([self.first.expand(len(x), 1, -1), x], dim=1)
            if seen is not None:
                seen = torch.cat([torch.ones_like(seen[:, :1]), seen], dim=1)
        for block in self.blocks:
            x = block(x, seen)
        if self.pooling == "cls":
            return x[:, 0]
        if self.pooling == "attention":
            logits = self.norm(x) @ self.query / math.sqrt(x.shape[2])
        else:
            logits = x.new_zeros(x.shape[:2])
        if seen is not None:
            logits = logits.masked_fill(~seen, -math.inf)
        elif self.pooling == "mean":
            return x.mean(dim=1)
        return torch.einsum("bm,bmd->bd", torch.softmax(logits, dim=1), x)


def mean_of_present(vectors: Sequence[Tensor], present: Sequence[Tensor]) -> Tensor:
    """Return the mean (B, D) over the modalities that a place has, zero where it has none.

    Args:
        vectors: (B, D) of each modality, whatever where it is absent.
        present: (B,) of each.
    """
    there = torch.stack([*present], dim=1)
    kept = torch.stack([*vectors], dim=1).masked_fill(~there[:, :, None], 0.0)
    return kept.sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)


class Concatenation(nn.Module):
    """One linear layer over a place's tokens side by side, a zero where one is not there.

    Args:
        width: D.
        modalities: M, tokens of a place.
    """

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        self.layer = nn.Linear(modalities * width, width)

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Return (B, D) of tokens (B, M, D) of which only those kept (B, M) are there."""
        out: Tensor = self.layer(tokens.masked_fill(~kept[:, :, None], 0.0).flatten(start_dim=1))
        return out
