"""The neural network against its formulas, one unit and one weight at a time."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import f1_score

from urbancli.bench.probes import mlp
from urbancli.bench.probes.base import nested

UNITS = 300
TRAINING = np.arange(UNITS) < 220
FOLD = nested(TRAINING, ~TRAINING, np.arange(UNITS) // 5)


@pytest.fixture(autouse=True)
def narrow(monkeypatch) -> None:
    """Fewer hidden units: the same steps, sooner."""
    monkeypatch.setattr(mlp, "HIDDEN", (96, 48))


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(UNITS, 5)).astype(np.float32) * 3 + 7
    z = (x - 7) / 3
    y = np.stack([z[:, 0] * z[:, 1] + z[:, 2], rng.normal(size=UNITS)], axis=1) * [10, 1] + [90, -4]
    return x, y


def naive_epochs(x, wanted, epochs: int, seed: int, bias: np.ndarray) -> list[np.ndarray]:
    """Outputs before the first epoch and after each, in float64, the gradient by hand."""
    rng = np.random.default_rng(seed)
    widths = [x.shape[1], *mlp.HIDDEN]
    layers = []
    for inside, outside in pairwise(widths):
        most = 1 / np.sqrt(inside)
        layers += [rng.uniform(-most, most, (inside, outside)), rng.uniform(-most, most, outside)]
    layers += [np.zeros((widths[-1], len(bias))), bias.copy()]
    first, second = ([np.zeros_like(part) for part in layers] for _ in range(2))

    def forward(rows):
        kept = [rows]
        for number in (0, 2, 4):
            out = kept[-1] @ layers[number] + layers[number + 1]
            kept.append(np.maximum(out, 0) if number < 4 else out)
        return kept

    found, step = [forward(x)[-1]], 0
    for epoch in range(epochs):
        rate = mlp.LEARNING_RATE * (1 + np.cos(np.pi * epoch / mlp.EPOCHS)) / 2
        order = rng.permutation(len(x))
        for start in range(0, len(x), mlp.BATCH):
            batch = order[start : start + mlp.BATCH]
            kept = forward(x[batch])
            if wanted.ndim == 2:
                slope = 2 * (kept[-1] - wanted[batch]) / wanted[batch].size
            else:
                slope = np.exp(kept[-1]) / np.exp(kept[-1]).sum(axis=1, keepdims=True)
                slope[np.arange(len(batch)), wanted[batch]] -= 1
                slope /= len(batch)
            gradients = [None] * 6
            for number in (4, 2, 0):
                gradients[number] = kept[number // 2].T @ slope
                gradients[number + 1] = slope.sum(axis=0)
                slope = (slope @ layers[number].T) * (kept[number // 2] > 0)
            step += 1
            for number, gradient in enumerate(gradients):
                layers[number] *= 1 - rate * mlp.WEIGHT_DECAY
                first[number] += 0.1 * (gradient - first[number])
                second[number] += 0.001 * (gradient**2 - second[number])
                change = first[number] / (1 - 0.9**step)
                layers[number] -= (
                    rate * change / (np.sqrt(second[number] / (1 - 0.999**step)) + 1e-8)
                )
        found.append(forward(x)[-1])
    return found


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_epochs_equal_the_formulas(kind: str, monkeypatch) -> None:
    monkeypatch.setattr(mlp, "HIDDEN", (6, 5))
    x, y = data()
    rows = np.flatnonzero(TRAINING)
    if kind == "regression":
        goal = mlp._numbers(y, rows)
        np.testing.assert_allclose(goal.wanted.std(axis=0), 1, atol=1e-5)
    else:
        goal = mlp._classes((y[:, 0] > 90).astype(np.int64), rows)
    found = [outputs() for outputs in mlp._epochs(x, rows, goal, (x, rows), seed=4)]
    scaled = (x[rows] - x[rows].mean(axis=0)) / x[rows].std(axis=0)
    expected = naive_epochs(scaled, goal.wanted, mlp.EPOCHS, 4, goal.bias)
    assert len(found) == mlp.EPOCHS + 1
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    assert np.abs(found[-1] - found[0]).max() > 0.1


def test_learns_interplay_and_leaves_noise_alone() -> None:
    x, y = data()
    (found,) = mlp.fit_predict_folds(x, y, [FOLD])
    truth = y[~TRAINING]
    explained = 1 - ((found.values - truth) ** 2).mean(axis=0) / truth.var(axis=0)
    assert explained[0] > 0.7
    assert explained[1] > -0.2
    assert found.chosen[0] > found.chosen[1]
    classes = (y[:, 0] > 90).astype(np.int64)
    (found,) = mlp.fit_predict_folds(x, classes, [FOLD])
    assert f1_score(classes[~TRAINING], found.values, average="macro") > 0.75


def test_the_epochs_chosen_are_those_the_last_inner_fold_is_best_with() -> None:
    x, y = data()
    (found,) = mlp.fit_predict_folds(x, y[:, 0], [FOLD], seed=1)
    out = FOLD.inner == FOLD.inner.max()
    learnt, judges = np.flatnonzero(TRAINING & ~out), np.flatnonzero(out)
    goal = mlp._numbers(y[:, :1], learnt)
    outputs = mlp._epochs(x, learnt, goal, (x, judges), seed=1)
    errors = [((goal.meant(one()) - y[judges, :1]) ** 2).mean() for one in outputs]
    assert len(errors) == mlp.EPOCHS + 1
    first = next(n for n in range(len(errors)) if min(errors[n : n + 11]) == errors[n])
    assert found.chosen == (first,)
    rows = np.flatnonzero(TRAINING)
    goal = mlp._numbers(y[:, :1], rows)
    outputs = mlp._epochs(x, rows, goal, (x, np.flatnonzero(~TRAINING)), seed=1)
    said = [one() for one in outputs]
    np.testing.assert_allclose(found.values, goal.meant(said[first])[:, 0], atol=1e-4)


def test_another_seed_is_another_net() -> None:
    x, y = data()
    one, other = (mlp.fit_predict_folds(x, y, [FOLD], seed=seed)[0].values for seed in (0, 1))
    assert np.abs(one - other).max() > 1e-3


def test_units_too_many_to_hold_are_read_in_batches(monkeypatch) -> None:
    x, y = data()
    x[::7, 1] = np.nan
    (held,) = mlp.fit_predict_folds(x, y, [FOLD])
    monkeypatch.setattr("urbancli.bench.probes._table.HELD_BYTES", 0)
    (read,) = mlp.fit_predict_folds(x, y, [FOLD])
    assert held.chosen == read.chosen
    np.testing.assert_allclose(held.values, read.values, atol=1e-3)
