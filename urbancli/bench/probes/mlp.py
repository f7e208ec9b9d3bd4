"""A small neural network: two hidden layers, stopped where an inner fold says.

The MLP probe of UrbanFusion (arXiv 2510.13774): 512 and 256 ReLU units, AdamW, a cosine
over 40 epochs, batches of 64, patience of 10 epochs. What learning rate and weight decay it had is
not known to us: 1e-3 and 1e-2 are PyTorch's own. Deviations:

- Units are not left for validation: the last inner fold of the training units judges every epoch,
  and a net with as many epochs as were best learns from all of them. One inner fold and not all,
  for a net costs what thousands of ridges cost.
- One net learns all targets, of deviation 1, together; it stops where their mean loss is least, and
  each target takes the epoch up to there of its own least squared error, or best macro-F1. What the
  net says of a target therefore depends, a little, on the targets beside it.
- The last layer starts at 0, so that epoch 0 is the training mean, or the commonest class: a net
  that nothing is gained by is not used.
- One seed a call.

A fold is fitted on one core, so that equal seeds give equal predictions on any number of them.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes._table import Singles, Table
from urbancli.bench.probes.base import (
    Floats,
    Fold,
    Integers,
    Predicted,
    in_threads,
    is_regression,
    macro_f1_of,
    scaling,
)

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("regression", "classification")
VERSION = 2  # the gradient by hand: other roundings

HIDDEN = (512, 256)
EPOCHS = 40
PATIENCE = 10
BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2


def fit_predict_folds(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    folds: Sequence[Fold],
    x_test: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> list[Predicted]:
    """Return predictions after the epochs, per target, that were best when judged.

    Args:
        x: (N, D) features, NaN where missing: the mean; D may be 0: the mean or commonest class.
        y: (N,) or (N, T) numbers, or (N,) classes.
        folds: see `Fold`.
        x_test: (N, D) features of units as they are predicted, where those differ.
        seed: of the first weights and the order of units.
    """
    import torch

    tested = x if x_test is None else x_test
    tasks = [(x, y, fold, tested, seed) for fold in folds]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return in_threads(_judged, tasks, then=_predicted)
    finally:
        torch.set_num_threads(threads)


def _judged(
    x: npt.NDArray[Any], y: npt.NDArray[Any], fold: Fold, tested: npt.NDArray[Any], seed: int
) -> Integers:
    """Return the best epoch (T,) of each target, 0 being before the first."""
    targets, _, make = _asked(y, fold)
    learnt, out = fold.last_judgement()
    goal, last = make(targets, learnt), 0
    errors, losses = list[Floats](), list[Floats]()
    for outputs in _epochs(x, learnt, goal, (x, out), seed):
        said = outputs()
        errors.append(goal.error(said, targets[out]))
        losses.append(goal.loss(said, targets[out]))
        # A target that cannot be learnt, and is left at its mean, stops nobody.
        last = int(np.minimum(losses, losses[0]).mean(axis=1).argmin())
        if len(losses) - 1 - last >= PATIENCE:
            break
    return np.asarray(np.argmin(errors[: last + 1], axis=0))


def _predicted(
    best: Integers,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    fold: Fold,
    tested: npt.NDArray[Any],
    seed: int,
) -> Predicted:
    """Return what a net that learns from all training units says after the best epochs."""
    targets, names, make = _asked(y, fold)
    goal = make(targets, fold.learnt())
    values = np.zeros((int(fold.testing.sum()), len(best)), dtype=targets.dtype)
    for epoch, outputs in enumerate(_epochs(x, fold.learnt(), goal, (tested, fold.tested()), seed)):
        own = best == epoch
        if own.any():
            values[:, own] = goal.meant(outputs()).reshape(len(values), -1)[:, own]
        if epoch == best.max():
            break
    found = values.reshape(-1, *y.shape[1:])
    chosen = tuple(float(epoch) for epoch in best)
    return Predicted(found if names is None else names[found], chosen, 0)


def _asked(
    y: npt.NDArray[Any], fold: Fold
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, "Callable[..., _Goal]"]:
    """Return targets (U, T) or class numbers (U,), the names of classes, and what makes a goal."""
    if is_regression(y):
        return y.reshape(len(y), -1), None, _numbers
    names = np.unique(y[fold.training])
    return np.searchsorted(names, y), names, _classes


class _Goal(NamedTuple):
    """What a net shall say of the units that it learns from.

    Attributes:
        wanted: (N, T) numbers in float32, or (N,) class numbers.
        bias: (K,) first outputs for every unit, those that say nothing.
        meant: the predictions (M, T) or (M,) of outputs (M, K).
        error: how wrong (T,) outputs are, given the truth: what an epoch is chosen by.
        loss: the same, (T,) or (1,), that training goes down: what it is stopped by.
    """

    wanted: npt.NDArray[Any]
    bias: Floats
    meant: Callable[[Singles], npt.NDArray[Any]]
    error: Callable[[Singles, npt.NDArray[Any]], Floats]
    loss: Callable[[Singles, npt.NDArray[Any]], Floats]


def _numbers(targets: Floats, learnt: Integers) -> _Goal:
    own = scaling(targets, learnt)
    spread = np.array([1 / inverse if inverse else 0.0 for inverse in own.inverse])

    def meant(outputs: Singles) -> Floats:
        return np.asarray(outputs * spread + own.mean)

    def error(outputs: Singles, truth: Floats) -> Floats:
        return np.asarray((((meant(outputs) - truth) * own.inverse) ** 2).mean(axis=0))

    wanted = own.of(targets[learnt]).astype(np.float32)
    return _Goal(wanted, np.zeros(targets.shape[1]), meant, error, error)


def _classes(classes: Integers, learnt: Integers) -> _Goal:
    count = int(classes.max()) + 1
    # A class that only judges know of is nearly, not quite, out of the question.
    shares = np.bincount(classes[learnt], minlength=count) + 1e-3

    def meant(outputs: Singles) -> Integers:
        return np.asarray(outputs.argmax(axis=1))

    def error(outputs: Singles, truth: Integers) -> Floats:
        return np.array([1 - macro_f1_of(truth, meant(outputs), count)])

    def loss(outputs: Singles, truth: Integers) -> Floats:
        scores = outputs - outputs.max(axis=1, keepdims=True)
        own = scores[np.arange(len(truth)), truth]
        return np.array([float((np.log(np.exp(scores).sum(axis=1)) - own).mean())])

    return _Goal(classes[learnt], np.log(shares / shares.sum()), meant, error, loss)


def _epochs(
    x: npt.NDArray[Any],
    learnt: Integers,
    goal: _Goal,
    asked: tuple[npt.NDArray[Any], Integers],
    seed: int,
) -> Iterator[Callable[[], Singles]]:
    """Yield what returns the outputs (M, K) for units asked, before the first epoch and after each.

    Args:
        x: (U, D).
        learnt: (N,) rows learnt from.
        goal: of these rows.
        asked: features (U, D) of units as they are predicted, and the rows (M,) predicted.
        seed: of the first weights and the order of units.
    """
    import torch

    own = scaling(x, learnt)
    table, other = Table(x, learnt, own), Table(*asked, own)
    rng = np.random.default_rng(seed)
    layers = _layers((x.shape[1], *HIDDEN), goal.bias, rng)
    optimiser = torch.optim.AdamW(layers, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    wanted = torch.from_numpy(goal.wanted)
    yield lambda: _outputs(layers, other)
    if not own.inverse.any():
        return  # features that do not vary say nothing
    for _ in range(EPOCHS):
        order = rng.permutation(len(learnt))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = torch.from_numpy(table.take(places))
            _descend(layers, batch, wanted[torch.from_numpy(places)])
            optimiser.step()
        plan.step()
        yield lambda: _outputs(layers, other)


def _layers(widths: Sequence[int], bias: Floats, rng: np.random.Generator) -> "list[Tensor]":
    """Return weights (in, out) and bias of each layer in turn, in PyTorch's ranges; the last 0.

    Each has a gradient, of 0.
    """
    import torch

    made = []
    for inside, outside in pairwise(widths):
        most = 1 / np.sqrt(max(inside, 1))
        made += [rng.uniform(-most, most, size) for size in ((inside, outside), (outside,))]
    made += [np.zeros((widths[-1], len(bias))), bias]
    layers = [torch.tensor(part, dtype=torch.float32, requires_grad=True) for part in made]
    for layer in layers:
        layer.grad = torch.zeros_like(layer)
    return layers


def _forward(layers: "Sequence[Tensor]", x: "Tensor") -> "list[Tensor]":
    """Return the input of each layer and the outputs of the last."""
    import torch

    kept = [x]
    for number in range(0, len(layers), 2):
        x = torch.addmm(layers[number + 1], kept[-1], layers[number])
        kept.append(x.relu_() if number + 2 < len(layers) else x)
    return kept


def _descend(layers: "Sequence[Tensor]", x: "Tensor", wanted: "Tensor") -> None:
    """Set every layer's gradient to that of the batch's mean loss.

    By hand, into the same arrays: PyTorch's autograd takes half as long again for nets so small.
    """
    import torch

    with torch.no_grad():
        kept = _forward(layers, x)
        slope = kept.pop()
        if wanted.is_floating_point():
            slope.sub_(wanted).mul_(2 / wanted.numel())
        else:
            slope = slope.softmax(dim=1)
            slope[torch.arange(len(wanted)), wanted] -= 1
            slope.div_(len(wanted))
        for number in range(len(layers) - 2, -1, -2):
            inputs = kept.pop()
            torch.mm(inputs.T, slope, out=layers[number].grad)
            torch.sum(slope, 0, out=layers[number + 1].grad)
            if number:
                slope = (slope @ layers[number].T).mul_(inputs > 0)


def _outputs(layers: "Sequence[Tensor]", table: Table) -> Singles:
    import torch

    with torch.no_grad():
        parts = [_forward(layers, torch.from_numpy(part))[-1].numpy() for _, part in table.parts()]
    return np.concatenate(parts)
