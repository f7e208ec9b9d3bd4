"""The boosting probe against scikit-learn fitted by hand."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from urbancli.bench.probes import boosting
from urbancli.bench.probes.base import Fold, nested

UNITS = 240
TRAINING = np.arange(UNITS) < 160
FOLD = nested(TRAINING, ~TRAINING, np.arange(UNITS) // 8)


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(UNITS, 4)).astype(np.float32)
    y = np.where(x[:, 0] > 0, x[:, 1] > 0, x[:, 1] < 0) * 2.0 + 0.2 * rng.normal(size=UNITS)
    return x, y, (y > 1).astype(np.int64) + (x[:, 2] > 1)


def by_hand(make, x, y, fold: Fold) -> tuple[int, np.ndarray]:
    """Leaves and predictions with the last inner fold as scikit-learn's validation part."""
    out = fold.training & (fold.inner == fold.inner.max())
    learnt = fold.training & ~out
    found = []
    for leaves in boosting.LEAVES:
        settings = {"max_leaf_nodes": leaves, "max_bins": boosting.BINS, "random_state": 0}
        model = make(max_iter=500, early_stopping=True, **settings)
        model.fit(x[learnt], y[learnt], X_val=x[out], y_val=y[out])
        found.append((model.validation_score_.max(), model.validation_score_.argmax(), settings))
    _, trees, settings = max(found, key=lambda one: one[0])
    model = make(max_iter=trees, early_stopping=False, **settings)
    rows = fold.training if fold.refit else fold.training & (fold.inner < 0)
    predicted = model.fit(x[rows], y[rows]).predict(x[fold.testing])
    return settings["max_leaf_nodes"], predicted


@pytest.mark.parametrize("fixed", [False, True])
def test_equals_scikit_learn(fixed: bool) -> None:
    x, y, classes = data()
    fold = FOLD
    if fixed:
        fold = Fold(TRAINING, ~TRAINING, np.where(FOLD.inner == 1, 0, -1), refit=False)
    (found,) = boosting.fit_predict_folds(x, y, [fold])
    leaves, expected = by_hand(HistGradientBoostingRegressor, x, y, fold)
    assert found.chosen == (leaves,)
    np.testing.assert_allclose(found.values, expected)
    assert 1 - ((found.values - y[160:]) ** 2).mean() / y[160:].var() > 0.5
    (found,) = boosting.fit_predict_folds(x, classes + 3, [fold])
    leaves, expected = by_hand(HistGradientBoostingClassifier, x, classes, fold)
    assert found.chosen == (leaves,)
    assert (found.values == expected + 3).all()


def test_that_a_value_is_missing_may_say_something() -> None:
    x, y, _ = data()
    x[:, 3] = np.nan
    x[np.arange(UNITS) % 2 == 0, 3] = 1.0
    (found,) = boosting.fit_predict_folds(x, y + 5 * np.isnan(x[:, 3]), [FOLD])
    assert found.values[1::2].mean() - found.values[::2].mean() == pytest.approx(5, abs=0.5)


def test_what_cannot_be_learnt_is_left_at_its_mean() -> None:
    x, _, _ = data()
    y = np.random.default_rng(1).normal(size=UNITS)
    y[FOLD.inner == FOLD.inner.max()] *= -3.0  # whatever the others say is wrong of the judges
    (found,) = boosting.fit_predict_folds(np.round(x), np.round(y) + 40, [FOLD])
    assert np.ptp(found.values) < 2


def test_judges_of_an_unknown_class_are_not_asked() -> None:
    x, _, classes = data()
    classes[FOLD.inner == FOLD.inner.max()] = 7
    (found,) = boosting.fit_predict_folds(x, classes, [FOLD])
    common = np.bincount(classes[TRAINING]).argmax()
    assert (found.values == common).all()  # nobody is left to say after how many trees to stop
