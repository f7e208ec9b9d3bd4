"""The ridge probe against scikit-learn, and what must happen inside the fold."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from urbancli.bench.probes import ridge
from urbancli.bench.probes.base import Predicted, inner_folds, nested, standardise
from urbancli.bench.splits.base import NotScored

RNG = np.random.default_rng(0)


def data(number: int, width: int, targets: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(number * width)
    factors = rng.normal(size=(number, 5))
    x = factors @ rng.normal(size=(5, width)) + rng.normal(size=(number, width)) + 3.0
    y = factors[:, :targets] + 0.5 * rng.normal(size=(number, targets)) + 7.0
    return x, y, np.arange(number) // 6


def alone(x_train, y_train, groups, x_test) -> Predicted:
    """The probe on one fold by itself."""
    learnt, asked = len(x_train), len(x_test)
    training = np.arange(learnt + asked) < learnt
    unknown = np.full((asked, *y_train.shape[1:]), np.nan)
    order = np.concatenate([groups, np.full(asked, -1)])
    fold = nested(training, ~training, order)
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, unknown])
    (found,) = ridge.fit_predict_folds(x, y, [fold])
    return found


def sklearn_choice(x, y, groups, test) -> tuple[np.ndarray, float]:
    """The same choice with scikit-learn, one target, one penalty, one fold at a time."""
    inner = inner_folds(groups)
    errors = []
    for penalty in ridge.PENALTIES:
        error = 0.0
        for fold in np.unique(inner):
            inside = inner != fold
            mean, scale = x[inside].mean(axis=0), x[inside].std(axis=0)
            model = Ridge(alpha=penalty * inside.sum()).fit((x[inside] - mean) / scale, y[inside])
            error += ((model.predict((x[~inside] - mean) / scale) - y[~inside]) ** 2).sum()
        errors.append(error)
    penalty = ridge.PENALTIES[int(np.argmin(errors))]
    mean, scale = x.mean(axis=0), x.std(axis=0)
    model = Ridge(alpha=penalty * len(x)).fit((x - mean) / scale, y)
    return model.predict((test - mean) / scale), penalty


@pytest.mark.parametrize(("number", "width"), [(90, 12), (60, 140)])
def test_equals_scikit_learn(number: int, width: int) -> None:
    x, y, groups = data(number + 30, width, 3)
    train, test = slice(0, number), slice(number, None)
    result = alone(x[train], y[train], groups[train], x[test])
    for column in range(3):
        expected, penalty = sklearn_choice(x[train], y[train, column], groups[train], x[test])
        assert result.chosen[column] == penalty
        np.testing.assert_allclose(result.values[:, column], expected, atol=1e-6)
        single = alone(x[train], y[train, column], groups[train], x[test])
        np.testing.assert_allclose(single.values, result.values[:, column], atol=1e-9)


@pytest.mark.parametrize(("number", "width"), [(50, 7), (40, 90)])
def test_every_penalty_equals_scikit_learn(number: int, width: int) -> None:
    x, y, _ = data(number, width, 2)
    train, test = standardise(x[:30], x[30:])
    path = ridge.ridge_path(x[:30], y[:30], x[30:])
    for penalty, found in zip(ridge.PENALTIES, path, strict=True):
        # The `svd` solver: with hardly a penalty scikit-learn's default (Cholesky) loses digits.
        model = Ridge(alpha=30 * penalty, solver="svd").fit(train, y[:30])
        np.testing.assert_allclose(found, model.predict(test), atol=1e-6)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("number", "width"), [(150, 20), (60, 40), (90, 0)])
def test_all_folds_at_once_are_each_fold_alone(number: int, width: int, missing: bool) -> None:
    x, y, groups = data(number, width, 3)
    rng = np.random.default_rng(1)
    if missing:
        x[rng.random(number) < 0.2, : width // 2] = np.nan
    x[:, :1] = 4.0  # a column that never varies, and one that does in no training unit of fold 0
    x[: number // 5, 1:2] += 1000.0
    x[number // 5 :, 1:2] = 1.5
    fold = np.arange(number) * 5 // number
    # Units that touch the fold leave it: the training sets are not complements of the folds.
    training = [(fold != one) & (rng.random(number) < 0.9) for one in range(4)]
    testing = [fold == one for one in range(4)]
    folds = [nested(*masks, groups) for masks in zip(training, testing, strict=True)]
    found = ridge.fit_predict_folds(x, y, folds)
    for result, train, test in zip(found, training, testing, strict=True):
        single = alone(x[train], y[train], groups[train], x[test])
        assert result.chosen == single.chosen
        np.testing.assert_allclose(result.values, single.values, atol=1e-9)
    (single,) = ridge.fit_predict_folds(x, y[:, 0], folds[:1])
    np.testing.assert_allclose(single.values, found[0].values[:, 0], atol=1e-9)


def test_folds_are_fitted_in_parts_of_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = data(120, 10, 2)
    fold = np.arange(120) * 3 // 120
    folds = [nested(fold != one, fold == one, groups) for one in range(3)]
    whole = ridge.fit_predict_folds(x, y, folds)
    monkeypatch.setattr("urbancli.bench.probes.base.CHUNK_BYTES", 7 * 8 * 10)
    parts = ridge.fit_predict_folds(x, y, folds)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-9)


def test_no_features_predict_the_mean() -> None:
    y = RNG.normal(size=40)
    result = alone(np.zeros((40, 0)), y, np.arange(40) // 5, np.zeros((3, 0)))
    np.testing.assert_allclose(result.values, [y.mean()] * 3)


def test_units_of_features_do_not_matter() -> None:
    x, y, groups = data(80, 9, 1)
    scaled = x * np.logspace(-3, 3, 9) + 100
    plain = alone(x[:60], y[:60, 0], groups[:60], x[60:]).values
    other = alone(scaled[:60], y[:60, 0], groups[:60], scaled[60:]).values
    np.testing.assert_allclose(plain, other, atol=1e-6)


def test_test_units_change_nothing_for_each_other() -> None:
    x, y, groups = data(80, 9, 1)
    both = alone(x[:60], y[:60, 0], groups[:60], x[60:]).values
    one = alone(x[:60], y[:60, 0], groups[:60], x[60:61]).values
    np.testing.assert_allclose(both[0], one[0], atol=1e-9)


# --- scaling and imputation ------------------------------------------------------------------


def test_missing_becomes_the_training_mean() -> None:
    train = np.array([[1.0, 5.0], [3.0, np.nan], [5.0, 5.0]])
    test = np.array([[np.nan, 9.0], [3.0, np.nan]])
    first, second = standardise(train, test)
    np.testing.assert_allclose(first[:, 0], np.array([-2, 0, 2]) / np.sqrt(8 / 3))
    assert (first[:, 1] == 0).all()
    assert (second[:, 1] == 0).all()  # did not vary in training: says nothing
    assert second[0, 0] == 0 and second[1, 0] == 0


def test_rounding_of_a_constant_column_is_not_signal() -> None:
    column = np.full(50, 0.1, dtype=np.float32)
    column[::2] = np.nextafter(np.float32(0.1), np.float32(1))
    train, _ = standardise(column[:, None], column[:, None])
    assert (train == 0).all()


def test_a_column_without_any_value_is_zero() -> None:
    train, test = standardise(np.full((5, 1), np.nan), np.ones((2, 1)))
    assert (train == 0).all() and (test == 0).all()


# --- inner folds -----------------------------------------------------------------------------


def test_inner_folds_keep_groups_together() -> None:
    groups = np.random.default_rng(0).integers(0, 17, 200)
    inner = inner_folds(groups)
    assert set(inner) == {0, 1, 2, 3}
    for group in set(groups):
        assert len(set(inner[groups == group])) == 1
    assert (np.diff(inner[np.argsort(groups, kind="stable")]) >= 0).all()


def test_one_group_is_not_scored() -> None:
    with pytest.raises(NotScored, match="one group"):
        inner_folds(np.zeros(20))
