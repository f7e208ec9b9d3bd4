"""What a set of embeddings says about collapse."""

import torch
from torch import Tensor


def collapse_monitors(embeddings: Tensor) -> dict[str, float]:
    """Return how far embeddings (N, D) fill their space.

    `effective_rank` is RankMe (arXiv 2210.02885): exp of the entropy of the singular values over
    their sum, not centred, in [1, min(N, D)]. `embedding_std` is the mean over dimensions of the
    standard deviation over places. `mean_cosine` is the mean over pairs i ≠ j of cos(e_i, e_j).
    """
    values = embeddings.double()
    count = len(values)
    shares = torch.linalg.svdvals(values)
    shares = shares / shares.sum().clamp(min=1e-300)
    entropy = -(shares * shares.clamp(min=1e-300).log()).sum()
    unit = values / values.norm(dim=1, keepdim=True).clamp(min=1e-300)
    cosines = unit.sum(dim=0).square().sum() - unit.square().sum()
    return {
        "effective_rank": float(entropy.exp()),
        "embedding_std": float(values.std(dim=0, correction=0).mean()),
        "mean_cosine": float(cosines / (count * (count - 1))),
    }


def collapsed(monitors: dict[str, float]) -> bool:
    """Return whether embeddings are all but one point, or lie all but on one line."""
    return monitors["mean_cosine"] > 0.995 or monitors["effective_rank"] < 1.5
