"""The neighbours probe against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from urbancli.bench.probes import knn
from urbancli.bench.probes.base import nested, standardise

UNITS = 180
LEARNT, ASKED = np.arange(130), np.arange(130, UNITS)
GROUPS = np.arange(UNITS) // 6


def data(missing: bool = False) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(UNITS, 4))
    x = factors @ rng.normal(size=(4, 9)) * np.logspace(-2, 2, 9) + 3.0
    if missing:
        x[rng.random(x.shape) < 0.15] = np.nan
    y = factors[:, :2] ** 2 + 0.1 * rng.normal(size=(UNITS, 2))
    return x, y, factors[:, :3].argmax(axis=1)


@pytest.mark.parametrize("missing", [False, True])
def test_every_k_equals_scikit_learn(missing: bool, monkeypatch) -> None:
    x, y, classes = data(missing)
    train, test = standardise(x[LEARNT], x[ASKED])
    numbers = knn.neighbour_path(x, y, LEARNT, x, ASKED, None)
    names = np.arange(3)
    guesses = knn.neighbour_path(x, classes[:, None], LEARNT, x, ASKED, names)
    for number, k in enumerate(knn.NEIGHBOURS):
        expected = KNeighborsRegressor(k, algorithm="brute").fit(train, y[LEARNT]).predict(test)
        np.testing.assert_allclose(numbers[number], expected, atol=1e-9)
        model = KNeighborsClassifier(k, algorithm="brute").fit(train, classes[LEARNT])
        assert (guesses[number, :, 0] == model.predict(test)).all()
    # In blocks of few units the same neighbours are found.
    monkeypatch.setattr(knn, "BLOCK", 7)
    monkeypatch.setattr("urbancli.bench.probes.base.CHUNK_BYTES", 11 * 8 * 28)
    np.testing.assert_allclose(knn.neighbour_path(x, y, LEARNT, x, ASKED, None), numbers)


def test_fewer_units_than_neighbours_are_all_asked() -> None:
    x, y, _ = data()
    path = knn.neighbour_path(x, y, LEARNT[:8], x, ASKED, None)
    np.testing.assert_allclose(path[0], np.tile(y[:8].mean(axis=0), (50, 1)))
    assert np.abs(path[-1] - path[0]).max() > 0.1


def test_the_choice_is_made_on_the_inner_folds() -> None:
    x, y, classes = data()
    training = np.arange(UNITS) < 130
    fold = nested(training, ~training, GROUPS)
    errors = np.zeros((len(knn.NEIGHBOURS), 2))
    guesses = np.zeros((len(knn.NEIGHBOURS), UNITS), dtype=np.int64)
    for learnt, out in fold.judgements():
        errors += ((knn.neighbour_path(x, y, learnt, x, out, None) - y[out]) ** 2).sum(axis=1)
        path = knn.neighbour_path(x, classes[:, None], learnt, x, out, np.arange(3))
        guesses[:, out] = path[:, :, 0]
    (found,) = knn.fit_predict_folds(x, y, [fold])
    best = errors.argmin(axis=0)
    assert found.chosen == tuple(knn.NEIGHBOURS[number] for number in best)
    final = knn.neighbour_path(x, y, LEARNT, x, ASKED, None)
    np.testing.assert_allclose(found.values, np.stack([final[best, :, [0, 1]]])[0].T)
    scores = [f1_score(classes[training], guess[training], average="macro") for guess in guesses]
    (found,) = knn.fit_predict_folds(x, np.array([4, 7, 9])[classes], [fold])
    assert found.chosen == (knn.NEIGHBOURS[int(np.argmax(scores))],)
    assert set(found.values.tolist()) <= {4, 7, 9}
