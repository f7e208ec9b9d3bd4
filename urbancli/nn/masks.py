"""Masks over the modalities of a batch."""

import torch
from torch import Tensor


def complementary_masks(present: Tensor, generator: torch.Generator) -> Tensor:
    """Return which modalities the first of two complementary views keeps (UrbanFusion's SMF).

    One order of the modalities and one u ~ U[0, 1) are drawn for the whole batch; a place that has
    p modalities masks the first 1 + ⌊u (p − 1)⌋ of its own in this order. Where all M are present
    this is the published rule: k ~ U{1..M−1}, the same random k modalities masked in every place.
    The other view keeps `present` without these; both keep at least one where p ≥ 2.

    Args:
        present: (B, M) bool.
        generator: on the CPU; drawn from the same number of times whatever is present.

    Returns:
        (B, M) bool, on the device of `present`; nothing is kept where p < 2.
    """
    order = torch.randperm(present.shape[1], generator=generator).to(present.device)
    draw = torch.rand(1, generator=generator, dtype=torch.float64).to(present.device)
    rank = present[:, order].cumsum(dim=1)
    masked = 1 + (draw * (present.sum(dim=1, keepdim=True) - 1)).floor()
    kept = torch.empty_like(present)
    kept[:, order] = present[:, order] & (rank > masked)
    return kept
