"""The logistic probe against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from urbancli.bench.probes import logistic
from urbancli.bench.probes.base import Predicted, inner_folds, nested, standardise


def data(number: int, width: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(number, 4))
    x = factors @ rng.normal(size=(4, width)) + rng.normal(size=(number, width)) + 2.0
    noisy = factors[:, :3] + 0.7 * rng.normal(size=(number, 3))
    return x, noisy.argmax(axis=1), np.arange(number) // 8


def alone(x_train, y_train, groups, x_test) -> Predicted:
    """The probe on one fold by itself."""
    learnt, asked = len(x_train), len(x_test)
    training = np.arange(learnt + asked) < learnt
    y = np.concatenate([y_train, np.full(asked, y_train[0])])
    fold = nested(training, ~training, np.concatenate([groups, np.full(asked, -1)]))
    (found,) = logistic.fit_predict_folds(np.concatenate([x_train, x_test]), y, [fold])
    return found


def path_of(x, y, learnt) -> tuple[np.ndarray, int]:
    """All penalties, learnt from some units, for the others."""
    rows = np.flatnonzero(learnt), np.flatnonzero(~learnt)
    return logistic.logistic_path(x, y, rows[0], x, rows[1], 6)


def test_rotation_keeps_inner_products() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(20, 90)), rng.normal(size=(7, 90))
    rotated, other, squares = logistic.rotate(train, test)
    assert rotated.shape == (20, 20)
    np.testing.assert_allclose(rotated @ rotated.T, train @ train.T, atol=1e-9)
    np.testing.assert_allclose(other @ rotated.T, test @ train.T, atol=1e-9)
    np.testing.assert_allclose(rotated.T @ rotated, np.diag(squares), atol=1e-9)


@pytest.mark.parametrize("width", [6, 150])
def test_path_equals_scikit_learn(width: int) -> None:
    x, y, _ = data(160, width)
    path, unconverged = path_of(x, y, np.arange(160) < 110)
    assert unconverged == 0
    train, test = standardise(x[:110], x[110:])
    for penalty, found in zip(logistic.PENALTIES, path, strict=True):
        model = LogisticRegression(C=1 / (110 * penalty), tol=1e-8, max_iter=5000)
        expected = model.fit(train, y[:110]).predict(test)
        # Two classes may tie to within the tolerance in a unit or so.
        assert (found != expected).sum() <= 1


def test_choice_is_the_best_macro_f1_over_inner_folds() -> None:
    x, y, groups = data(200, 40, 1)
    inner = inner_folds(groups)
    guesses = np.zeros((6, 200), dtype=int)
    for fold in np.unique(inner):
        out = inner == fold
        guesses[:, out] = path_of(x, y, ~out)[0]
    scores = [f1_score(y, guess, average="macro") for guess in guesses]
    result = alone(x, np.array(list("abc"))[y], groups, x[:9])
    assert result.chosen == (logistic.PENALTIES[int(np.argmax(scores))],)
    assert set(result.values) <= set("abc")


def test_no_features_predict_the_commonest_class() -> None:
    y = np.array(["a"] * 30 + ["b"] * 20)
    result = alone(np.zeros((50, 0)), y, np.arange(50) // 5, np.zeros((4, 0)))
    assert result.values.tolist() == ["a"] * 4


def test_a_class_may_be_missing_from_an_inner_fold() -> None:
    x, y, groups = data(80, 5)
    y[:] = np.where(np.arange(80) < 16, y, 0)  # classes 1 and 2 in two groups only
    result = alone(x, y, groups, x)
    assert set(result.values.tolist()) <= set(y.tolist())


def test_fits_that_stop_early_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    x, y, groups = data(100, 30)
    assert alone(x, y, groups, x).unconverged > 0


def test_learns_what_can_be_learnt() -> None:
    x, y, groups = data(400, 60, 2)
    result = alone(x[:300], y[:300], groups[:300], x[300:])
    assert f1_score(y[300:], result.values, average="macro") > 0.6
    assert result.unconverged == 0


@pytest.mark.parametrize("missing", [False, True])
def test_units_too_many_to_hold_are_fitted_in_parts(missing: bool, monkeypatch) -> None:
    x, y, groups = data(240, 12, 3)
    x = (x * 100 + 5000).astype(np.float32)
    if missing:
        x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
    apart = np.arange(240) % 3 == 0
    fold = nested(~apart, apart, groups)
    (whole,) = logistic.fit_predict_folds(x, y, [fold])
    monkeypatch.setattr("urbancli.bench.probes._table.HELD_BYTES", 0)
    monkeypatch.setattr("urbancli.bench.probes._table.PART_BYTES", 4 * 12 * 7)
    (parts,) = logistic.fit_predict_folds(x, y, [fold])
    assert parts.chosen == whole.chosen and parts.unconverged == whole.unconverged == 0
    assert (parts.values != whole.values).sum() <= 1
    assert f1_score(y[apart], parts.values, average="macro") > 0.5
