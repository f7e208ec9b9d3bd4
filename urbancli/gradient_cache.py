"""Large batches in little memory: a batch is represented a chunk at a time.

Gradient caching (Gao et al. 2021, arXiv 2101.06983): without a graph first; once the objective's
gradients lie at the representations, every chunk is represented again, with the same chance, and
they go on to the parameters. Memory is that of one chunk and of the representations; the gradient
is the whole batch's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from urbancli.methods.base import Representations
from urbancli.tokens import Batch

Redo = Callable[[Sequence[Tensor]], None]
"""Given parameters: adds to their gradients what lies at the representations."""


def represent_in_chunks(
    represent: Callable[[Batch], Representations],
    batch: Batch,
    size: int,
    masks: torch.Generator,
) -> tuple[Representations, Redo]:
    """Return the representations of a batch, as leaves, and what takes their gradients on.

    Draws from the masks' generator are the same in every chunk: what is drawn once for a batch is
    drawn once for all its chunks.

    Args:
        represent: of some places.
        batch: of all.
        size: places of a chunk.
        masks: what masks and augmentations draw from.
    """
    begin = masks.get_state()
    chunks = [batch.take(start, start + size) for start in range(0, batch.size, size)]
    chances, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            masks.set_state(begin)
            chances.append(_chance())
            parts.append(represent(chunk))
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for value in whole.values():
        value.requires_grad_(value.is_floating_point())

    def redo(parameters: Sequence[Tensor]) -> None:
        for number, chunk in enumerate(chunks):
            masks.set_state(begin)
            _take(chances[number])
            again = represent(chunk)
            rows = slice(number * size, number * size + chunk.size)
            pairs = [
                (value, gradient[rows])
                for name, value in again.items()
                if value.requires_grad and (gradient := whole[name].grad) is not None
            ]
            if not pairs:
                return  # the objective asks nothing of them
            values, gradients = zip(*pairs, strict=True)
            torch.autograd.backward(values, gradients, inputs=list(parameters))

    return whole, redo


def _chance() -> list[Tensor]:
    """Return the states of the generators that dropout draws from."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *cuda]


def _take(states: Sequence[Tensor]) -> None:
    """Let dropout draw what it drew from these states."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
