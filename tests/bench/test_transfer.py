"""From one city to another: who learns from whom, against scikit-learn and numpy by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from tests.bench.test_bench_run import make_town
from tests.bench.test_evaluation import exam_of
from urbancli.bench.evaluation import answer, make_exam
from urbancli.bench.run import BenchOptions, BenchResult, bench
from urbancli.bench.splits.base import NotScored
from urbancli.bench.transfer import (
    cross,
    draw,
    products,
    squared_correlation,
    transfer_scores,
)
from urbancli.errors import UrbanError
from urbancli.workspace import Workspace


def exams(kind: str = "regression"):
    task, values, split, touch, x = exam_of(kind)
    return make_exam(task, values, split, touch), make_exam(task, values, split, touch), x


def test_all_of_one_city_is_learnt_and_all_of_the_other_asked() -> None:
    learnt, asked, x = exams()
    crossing = cross(learnt, asked, 0, 0)
    (fold,) = crossing.exam.folds
    np.testing.assert_array_equal(fold.training, np.arange(240) < 120)
    np.testing.assert_array_equal(fold.testing, np.arange(240) >= 120)
    assert (fold.inner[fold.training] >= 0).all() and (fold.inner[~fold.training] == -1).all()
    # The second city's features are shifted: the target's mean there is not known to the probe.
    features = np.concatenate([x, x + 0.5])
    found = transfer_scores(crossing, answer(crossing.exam, features))
    scale = x.std(axis=0)
    model = Ridge(alpha=1e-6 * 120).fit((x - x.mean(axis=0)) / scale, learnt.target)
    guess = model.predict((x + 0.5 - x.mean(axis=0)) / scale)
    y = asked.target
    close = 1 - ((y - guess) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert found["r2"].value == pytest.approx(close, abs=0.05)
    assert found["r2_free"].value == pytest.approx(np.corrcoef(y, guess)[0, 1] ** 2, abs=0.02)
    assert found["r2"].value < found["r2_free"].value


def test_few_units_of_the_other_city_are_learnt_too_but_never_tested() -> None:
    learnt, asked, _ = exams()
    crossing = cross(learnt, asked, 10, 0)
    assert len(crossing.exam.folds) == 4
    tested = np.zeros(240, dtype=int)
    for number, fold in enumerate(crossing.exam.folds):
        assert fold.training[:120].all() and fold.training[120:].sum() == 10
        assert not (fold.training & fold.testing).any()
        assert (fold.inner[120:] == -1).all()
        # None of them touches a test unit: they are of the fold's own training units.
        assert not (fold.training[120:] & ~asked.folds[number].training).any()
        tested += fold.testing
    assert tested[:120].sum() == 0 and (tested[120:] == 1).all()
    with pytest.raises(NotScored, match="units to give, not 100"):
        cross(learnt, asked, 100, 0)


@given(st.integers(0, 100), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_draws_add_up_and_cover_groups(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.integers(0, 12, 90)
    available = rng.uniform(size=90) < 0.7
    chosen = draw(available, order, count, seed)
    assert chosen.sum() == count and not (chosen & ~available).any()
    assert (draw(available, order, count, seed) == chosen).all()
    assert not (chosen & ~draw(available, order, count + 1, seed)).any()
    groups = len(np.unique(order[available]))
    assert len(np.unique(order[chosen])) == min(count, groups)


def test_classes_of_one_city_alone_are_left_out_and_named() -> None:
    task, values, split, touch, _ = exam_of("classification")
    here = values.copy()
    here[::3] = "sideways"
    learnt, asked = make_exam(task, here, split, touch), make_exam(task, values, split, touch)
    crossing = cross(learnt, asked, 0, 0)
    assert crossing.exam.classes == ("down", "up")
    assert "sideways" in crossing.notes[0]
    assert crossing.exam.folds[0].training.sum() == (here != "sideways").sum()
    names = np.array(["down", "up"])
    np.testing.assert_array_equal(names[crossing.exam.target[120:]], values)
    lone = dataclasses.replace(asked, classes=("left", "right"))
    with pytest.raises(NotScored, match="share 0 classes"):
        cross(learnt, lone, 0, 0)


def test_the_squared_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    y, guess = rng.normal(size=90), rng.normal(size=90)
    guess += y
    sums = products(y, guess, np.arange(90) % 7)
    assert squared_correlation(sums.sum(axis=0)) == pytest.approx(np.corrcoef(y, guess)[0, 1] ** 2)
    without = np.arange(90) % 7 != 2
    left = squared_correlation(sums.sum(axis=0) - sums[2])
    assert left == pytest.approx(np.corrcoef(y[without], guess[without])[0, 1] ** 2)
    flat = products(y, np.zeros(90), np.zeros(90, dtype=int))
    assert squared_correlation(flat.sum(axis=0)) == 0


# --- two towns -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def towns(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("towns")
    made = Workspace(folder / "workspace")
    make_town(made, folder, "town", 0)
    make_town(made, folder, "village", 1)
    return made


@pytest.fixture(scope="module")
def result(towns: Workspace) -> BenchResult:
    cities = ("town", "village")
    return bench(towns, BenchOptions(cities, transfer=True, few_shot=(10,)))


def test_the_matrix_has_every_pair_contestant_and_count(result: BenchResult) -> None:
    rows = [row for row in result.rows if row["train_city"]]
    found = {(r["train_city"], r["city"], r["task"], r["method"], r["few_shot"]) for r in rows}
    methods = ("constant", "concatenation", "untrained", "urbanfusion")
    assert found == {
        (a, b, task, method, few)
        for a, b in (("town", "village"), ("village", "town"))
        for task in ("liveliness", "land_use")
        for method in methods
        for few in (0, 10)
    }
    assert all(row["split"] == "city" and row["value"] is not None for row in rows)
    mine = [row for row in rows if row["run"]]
    assert {row["pretraining"] for row in mine} == {"other-city"}
    within = [row for row in result.rows if not row["train_city"]]
    assert {row["city"] for row in within} == {"town", "village"}


def test_what_holds_in_both_cities_is_carried_over(result: BenchResult) -> None:
    """The number of POIs is in the features, and means the same in both towns."""
    rows = {
        (row["method"], row["metric"]): row["value"]
        for row in result.rows
        if (row["train_city"], row["task"], row["few_shot"]) == ("town", "liveliness", 0)
    }
    assert rows["concatenation", "r2"] > 0.7 and rows["concatenation", "r2_free"] > 0.8
    assert rows["constant", "r2"] <= 0 and rows["constant", "r2_free"] == 0


def test_one_city_has_nowhere_to_go(towns: Workspace) -> None:
    with pytest.raises(UrbanError, match="two cities"):
        bench(towns, BenchOptions(("town",), transfer=True))
