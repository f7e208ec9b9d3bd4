"""Losses, each a plain function of tensors, tested against a loop over its formula."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HELD_LOGITS = 1 << 22
"""So many logits are held at a time: 2,048 pairs, or 16 MiB, with two more such arrays beside."""


def info_nce(rows: Tensor, columns: Tensor, positive: Tensor, scale: Tensor | float) -> Tensor:
    """Return the InfoNCE of rows that look for their own among columns: one direction.

    With s_ij = scale · a_i·b_j and p(i) the positive of row i: mean_i [log Σ_j exp s_ij − s_ip(i)];
    zero without rows.

    Of more than `HELD_LOGITS` logits a block of rows is held at a time, and its part of the
    gradient is taken at once: the same numbers to rounding, for twice the products where the
    gradient is asked for and once where it is not.

    Args:
        rows: a, (R, D).
        columns: b, (C, D).
        positive: p, (R,) int64, the column of each row.
        scale: inverse temperature, one for all.
    """
    if len(rows) == 0:
        return (rows.sum() + columns.sum()) * scale * 0.0
    if len(rows) * len(columns) <= HELD_LOGITS:
        return functional.cross_entropy(scale * rows @ columns.T, positive)
    factor = torch.as_tensor(scale, dtype=rows.dtype, device=rows.device)
    found: Tensor = _Streamed.apply(rows, columns, positive, factor)  # type: ignore[no-untyped-call]
    return found


class _Streamed(torch.autograd.Function):
    """`info_nce` by blocks of rows; the gradients are made going forward and scaled going back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        by_rows = torch.empty_like(rows) if wanted else rows
        by_columns = torch.zeros_like(columns) if wanted else columns
        value, by_scale = rows.new_zeros((), dtype=torch.float64), torch.zeros_like(scale)
        step = max(1, HELD_LOGITS // len(columns))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            logits = rows[part] @ columns.T
            mine = positive[part, None]
            own = logits.gather(1, mine)
            shares = logits * scale
            total = torch.logsumexp(shares, dim=1, keepdim=True)
            value += (total - scale * own).sum(dtype=torch.float64)
            if wanted:
                shares = shares.sub_(total).exp_()
                shares.scatter_add_(1, mine, torch.full_like(own, -1.0))
                by_scale += (shares * logits).sum()
                by_rows[part] = shares @ columns
                by_columns.addmm_(shares.T, rows[part])
        if wanted:
            ctx.save_for_backward(
                by_rows * (scale / len(rows)), by_columns * (scale / len(rows)),
                by_scale / len(rows),
            )  # fmt: skip
        return (value / len(rows)).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        by_rows, by_columns, by_scale = ctx.saved_tensors
        (slope,) = slopes
        return by_rows * slope, by_columns * slope, None, by_scale * slope


def symmetric_info_nce(first: Tensor, second: Tensor, scale: Tensor | float) -> Tensor:
    """Return the symmetric InfoNCE of paired rows, the other rows being the negatives.

    With s_ij = scale · a_i·b_j:
    ½ mean_i [−s_ii + log Σ_j exp s_ij] + ½ mean_i [−s_ii + log Σ_j exp s_ji]; zero without rows.

    Args:
        first: a, (B, D), L2-normalised rows.
        second: b, (B, D), likewise; row i is the positive of row i.
        scale: inverse temperature.
    """
    own = torch.arange(len(first), device=first.device)
    return (info_nce(first, second, own, scale) + info_nce(second, first, own, scale)) / 2


def barlow_twins(first: Tensor, second: Tensor, redundancy: float) -> Tensor:
    """Return the Barlow Twins loss of paired rows (Zbontar et al. 2021, arXiv 2103.03230).

    With C the correlation, over the rows, of each dimension of one with each of the other:
    Σ_d (1 − C_dd)² + redundancy · Σ_{d ≠ e} C_de²; zero of fewer than two rows.

    A dimension that does not vary correlates with nothing.

    Args:
        first: (B, D), not normalised.
        second: (B, D); row i is of the same place as row i.
        redundancy: what the published λ is, 0.005.
    """
    if len(first) < 2:
        return (first.sum() + second.sum()) * 0.0
    one, other = (_standardised(part) for part in (first, second))
    correlation = one.T @ other / len(first)
    on = torch.diagonal(correlation)
    off = correlation.square().sum() - on.square().sum()
    return (1 - on).square().sum() + redundancy * off


def _standardised(values: Tensor) -> Tensor:
    centred = values - values.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + 1e-12).sqrt()


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
