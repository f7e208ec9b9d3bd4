"""The contract of every probe in the folder, and its shared parts."""

import numpy as np
import pytest

from benchmarks.probes_memory import measure
from urbancli import plugins
from urbancli.bench.probes import boosting, mlp
from urbancli.bench.probes.base import DEFAULTS, Fold, load_probe, nested, probes_of
from urbancli.errors import UsageError

CASES = [(name, kind) for kind in DEFAULTS for name in probes_of(kind)]
every = pytest.mark.parametrize(("name", "kind"), CASES)

UNITS = 150
GROUPS = np.arange(UNITS) // 5
RUNS = [np.arange(UNITS) * 3 // UNITS == one for one in range(3)]
FOLDS = [nested(~run, run, GROUPS) for run in RUNS]


@pytest.fixture(autouse=True)
def sooner(monkeypatch) -> None:
    """Fewer hidden units, epochs and trees: the same steps."""
    monkeypatch.setattr(mlp, "HIDDEN", (48, 24))
    monkeypatch.setattr(mlp, "LEARNING_RATE", 0.01)
    monkeypatch.setattr(boosting, "MOST_TREES", 40)


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    factors = rng.normal(size=(UNITS, 3))
    x = factors @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(UNITS, 6)) + 2.0
    if kind == "classification":
        return x.astype(np.float32), factors.argmax(axis=1)
    return x.astype(np.float32), factors[:, :2] + 5.0


def judged_by(fold: Fold, number: int, *, refit: bool) -> Fold:
    """A fold whose settings one of its inner folds chooses."""
    return fold._replace(inner=np.where(fold.inner == number, 0, -1), refit=refit)


def spoilt(y: np.ndarray, units: np.ndarray, kind: str) -> np.ndarray:
    """Targets that say something else of some units."""
    other = y.copy()
    other[units] = (y[units] + 1) % 3 if kind == "classification" else -9 * y[units]
    return other


def test_every_kind_has_a_default_among_its_probes() -> None:
    for kind, name in DEFAULTS.items():
        assert name in probes_of(kind)
    assert {name for name, _ in CASES} == set(plugins.names("bench.probes"))
    with pytest.raises(UsageError, match="ridge"):
        load_probe("rigde")


@every
def test_predicts_every_tested_unit_of_every_fold(name: str, kind: str) -> None:
    x, y = data(kind)
    found = load_probe(name).fit_predict_folds(x, y, FOLDS)
    assert len(found) == 3
    for fold, result in zip(FOLDS, found, strict=True):
        truth = y[fold.testing]
        assert result.values.shape == truth.shape
        assert result.values.dtype == (np.int64 if kind == "classification" else np.float64)
        assert len(result.chosen) == (1 if kind == "classification" else 2)
        if kind == "classification":
            assert (result.values == truth).mean() > 0.6
        else:
            spread = ((truth - y[fold.training].mean(axis=0)) ** 2).mean(axis=0)
            assert (((result.values - truth) ** 2).mean(axis=0) < 0.6 * spread).all()


@every
def test_a_fold_is_predicted_alike_in_any_company(name: str, kind: str) -> None:
    x, y = data(kind)
    probe = load_probe(name)
    together = probe.fit_predict_folds(x, y, FOLDS)
    (single,) = probe.fit_predict_folds(x, y, FOLDS[1:2])
    assert single.chosen == together[1].chosen
    np.testing.assert_allclose(single.values, together[1].values, atol=1e-6)


@every
def test_no_test_value_is_seen(name: str, kind: str) -> None:
    x, y = data(kind)
    probe, fold = load_probe(name), FOLDS[0]
    (plain,) = probe.fit_predict_folds(x, y, [fold])
    # Units that neither train nor are tested, such as those that touch, say nothing either.
    apart = fold._replace(testing=fold.testing & (np.arange(UNITS) % 2 == 0))
    other = spoilt(y, ~fold.training, kind)
    (found,) = probe.fit_predict_folds(x, other, [apart])
    assert found.chosen == plain.chosen
    np.testing.assert_allclose(found.values, plain.values[::2], atol=1e-6)
    moved = x.copy()
    moved[~fold.training] *= 3
    (again,) = probe.fit_predict_folds(moved, y, [fold], x_test=x)
    np.testing.assert_allclose(again.values, plain.values, atol=1e-6)


@every
def test_features_may_differ_where_they_are_predicted(name: str, kind: str) -> None:
    x, y = data(kind)
    probe, fold = load_probe(name), FOLDS[2]
    differing = x.copy()
    differing[:, :4] = np.nan
    (found,) = probe.fit_predict_folds(x, y, [fold], x_test=differing)
    placed = x.copy()
    placed[fold.testing] = differing[fold.testing]
    (expected,) = probe.fit_predict_folds(placed, y, [fold])
    (plain,) = probe.fit_predict_folds(x, y, [fold])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    assert np.abs(found.values - plain.values).max() > 1e-3


@every
def test_units_only_learnt_from_do_not_judge(name: str, kind: str) -> None:
    x, y = data(kind)
    probe, fold = load_probe(name), judged_by(FOLDS[0], 3, refit=True)
    (found,) = probe.fit_predict_folds(x, y, [fold])
    assert found.values.shape == y[fold.testing].shape
    # They are learnt from all the same.
    (other,) = probe.fit_predict_folds(x, spoilt(y, fold.training & (fold.inner < 0), kind), [fold])
    assert np.abs(found.values - other.values).max() > 1e-3


@every
def test_without_refit_those_that_judged_are_not_learnt_from(name: str, kind: str) -> None:
    x, y = data(kind)
    probe, fold = load_probe(name), judged_by(FOLDS[0], 3, refit=False)
    (found,) = probe.fit_predict_folds(x, y, [fold])
    (refitted,) = probe.fit_predict_folds(x, y, [fold._replace(refit=True)])
    assert found.chosen == refitted.chosen
    if kind == "regression":
        assert np.abs(found.values - refitted.values).max() > 1e-6


@every
def test_no_features_predict_the_middle(name: str, kind: str) -> None:
    _, y = data(kind)
    fold = FOLDS[0]
    (found,) = load_probe(name).fit_predict_folds(np.zeros((UNITS, 0), dtype=np.float32), y, [fold])
    known = y[fold.training]
    if kind == "classification":
        assert (found.values == np.bincount(known).argmax()).all()
    else:
        np.testing.assert_allclose(found.values, np.tile(known.mean(axis=0), (50, 1)), atol=1e-6)


@every
def test_equal_seeds_predict_alike(name: str, kind: str) -> None:
    x, y = data(kind)
    probe = load_probe(name)
    first, second = (probe.fit_predict_folds(x, y, FOLDS[:1], seed=3)[0] for _ in range(2))
    assert (first.values == second.values).all() and first.chosen == second.chosen


@every
def test_one_target_is_a_column(name: str, kind: str) -> None:
    x, y = data(kind)
    if kind == "classification":
        return
    (found,) = load_probe(name).fit_predict_folds(x, y[:, 0], FOLDS[:1])
    assert found.values.shape == (50,) and len(found.chosen) == 1


@pytest.mark.soak
@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_features_are_not_copied(name: str) -> None:
    small, large = (measure(name, units, 256) for units in (150_000, 400_000))
    more_mb = 250_000 * 256 * 4 / 1e6
    assert large["beyond_mb"] - small["beyond_mb"] < 0.5 * more_mb
    assert large["beyond_mb"] < 1000
