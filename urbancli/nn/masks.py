"""Masks over the modalities of a batch."""

from typing import Literal

import torch
from torch import Tensor

MaskCount = Literal["uniform", "one", "half"]


def complementary_masks(
    present: Tensor,
    generator: torch.Generator,
    count: MaskCount = "uniform",
    per: Literal["batch", "place"] = "batch",
) -> Tensor:
    """Return which modalities the first of two complementary views keeps (UrbanFusion's SMF).

    One order of the modalities and one u ~ U[0, 1) are drawn for the whole batch; a place that has
    p modalities masks the first k of its own in this order, k = 1 + ⌊u (p − 1)⌋. Where all M are
    present this is the published rule: k ~ U{1..M−1}, the same random k modalities masked in every
    place. The other view keeps `present` without these; both keep at least one where p ≥ 2.

    Args:
        present: (B, M) bool.
        generator: on the CPU; drawn from the same number of times whatever is present.
        count: what k is: `uniform` as above, `one`, or `half` of p, rounded down.
        per: whether order and u are those of the `batch`, or each `place` draws its own.

    Returns:
        (B, M) bool, on the device of `present`; nothing is kept where p < 2.
    """
    rows = present.shape[0] if per == "place" else 1
    draws = torch.rand(rows, present.shape[1] + 1, generator=generator, dtype=torch.float64)
    order = draws[:, 1:].argsort(dim=1).to(present.device).expand(present.shape)
    owned = present.sum(dim=1, keepdim=True)
    if count == "uniform":
        masked = 1 + (draws[:, :1].to(present.device) * (owned - 1)).floor()
    else:
        masked = torch.ones_like(owned) if count == "one" else owned // 2
    ordered = present.gather(1, order)
    kept = torch.empty_like(present)
    return kept.scatter_(1, order, ordered & (ordered.cumsum(dim=1) > masked))
