"""Schedules over the steps of a stage."""

import math


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Return the factor of a learning rate: a linear rise, then half a cosine to zero.

    Args:
        step: counted from 0.
        total: steps of the stage.
        warmup: share of them that rises.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
