"""Losses, each a plain function of tensors, tested against a loop over its formula."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def symmetric_info_nce(first: Tensor, second: Tensor, scale: Tensor | float) -> Tensor:
    """Return the symmetric InfoNCE of paired rows, the other rows being the negatives.

    With s_ij = scale · a_i·b_j:
    ½ mean_i [−s_ii + log Σ_j exp s_ij] + ½ mean_i [−s_ii + log Σ_j exp s_ji]; zero without rows.

    Args:
        first: a, (B, D), L2-normalised rows.
        second: b, (B, D), likewise; row i is the positive of row i.
        scale: inverse temperature.
    """
    if len(first) == 0:
        return (first.sum() + second.sum()) * scale
    logits = scale * first @ second.T
    target = torch.arange(len(first), device=first.device)
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


def modality_mse(
    predicted: Tensor, target: Tensor, present: Tensor, widths: Sequence[int]
) -> Tensor:
    """Return the squared error averaged within each modality, then over the modalities.

    (1/M) Σ_m mean_{i: present_im} mean_j (p_imj − t_imj)²; a modality that no place has is left out
    of the sum and of M; zero where none is left.

    Args:
        predicted: (B, ΣD), the modalities side by side.
        target: (B, ΣD).
        present: (B, M) bool; targets of absent modalities may hold any finite number.
        widths: D of each modality, M of them.
    """
    errors = torch.split((predicted - target).square(), list(widths), dim=1)
    places = torch.stack([error.mean(dim=1) for error in errors], dim=1)
    weight = present.to(places.dtype)
    counts = weight.sum(dim=0)
    means = (places * weight).sum(dim=0) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)
