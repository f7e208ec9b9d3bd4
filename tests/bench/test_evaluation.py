"""One label, one exam: training units, predictions, comparisons, and labels answered together."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import f1_score

from urbancli.bench.evaluation import (
    answer,
    answer_spoilt,
    answer_together,
    at_random,
    compare,
    make_exam,
    plain_score,
    score,
)
from urbancli.bench.splits.base import NotScored, Split
from urbancli.bench.tasks.base import Task
from urbancli.embeddings import Alignment


def exam_of(kind: str = "regression", number: int = 120):
    rng = np.random.default_rng(0)
    group = np.arange(number) // 10
    split = Split(
        kind="spatial", group=group.astype(str).astype(object), order=group, fold=group % 4,
        validation=None, apart=True, buffer_m=0.0, group_m=600, range_m=450.0, seed=0,
        warnings=(), sha256="",
    )  # fmt: skip
    metric = "r2" if kind == "regression" else "macro_f1"
    x = rng.normal(size=(number, 6))
    values = x[:, 0] + rng.normal(size=number)
    if kind == "classification":
        values = np.where(values > 0, "up", "down").astype(object)
    touch = np.eye(number)
    touch[10, 20] = touch[20, 10] = 1
    return Task("t", 1, kind, metric, shares_source=()), values, split, touch, x


def test_units_that_touch_leave_the_training_fold() -> None:
    task, values, split, touch, _ = exam_of()
    exam = make_exam(task, values, split, touch)
    assert split.fold[10] == 1 and split.fold[20] == 2
    assert exam.removed == (0, 1, 1, 0)
    assert not exam.training[2][10] and exam.training[3][10]
    for fold, train in enumerate(exam.training):
        assert not (train & (split.fold == fold)).any()


def test_too_few_training_units_are_not_scored() -> None:
    task, values, split, _, _ = exam_of()
    with pytest.raises(NotScored, match="fold 0 keeps 0 of 90"):
        make_exam(task, values, split, np.ones((120, 120)))


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_predictions_never_see_their_own_fold(kind: str) -> None:
    task, values, split, touch, x = exam_of(kind)
    exam = make_exam(task, values, split, touch)
    before = answer(exam, x)
    test = split.fold == 2
    changed = exam.target.copy()
    changed[test] = 5.0 - changed[test] if kind == "regression" else 1 - changed[test]
    after = answer(dataclasses.replace(exam, target=changed), x)
    assert (before.predicted[test] == after.predicted[test]).all()
    assert (before.predicted[~test] != after.predicted[~test]).any()
    assert before.scored.all()


def test_missing_features_are_counted_and_stand_for_the_mean() -> None:
    task, values, split, touch, x = exam_of()
    exam = make_exam(task, values, split, touch)
    holes = x.copy()
    holes[[3, 50]] = np.nan
    found = answer(exam, holes)
    assert found.imputed == 2 and np.isfinite(found.predicted).all()
    assert found.scored.all()
    everything = answer(exam, np.full_like(x, np.nan))
    assert score(exam, everything).value == pytest.approx(0, abs=1e-12)
    assert everything.imputed == 120


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_spoilt_tables_are_answered_as_one_by_one(kind: str) -> None:
    task, values, split, touch, x = exam_of(kind)
    exam = make_exam(task, values, split, touch)
    rng = np.random.default_rng(2)
    tables = [x + rng.normal(size=x.shape), np.where(rng.uniform(size=x.shape) < 0.1, np.nan, x)]
    for folds in (None, [1, 2]):
        together = answer_spoilt([exam], x, tables, folds)
        for table, (found,) in zip(tables, together, strict=True):
            (alone,) = answer_together([exam], x, folds, table)
            np.testing.assert_allclose(found.predicted, alone.predicted, rtol=1e-9, atol=1e-9)
            np.testing.assert_array_equal(found.baseline, alone.baseline)
            np.testing.assert_array_equal(found.scored, alone.scored)
            assert (found.imputed, found.unconverged) == (alone.imputed, alone.unconverged)


def test_a_comparison_is_on_the_units_that_both_were_asked() -> None:
    task, values, split, touch, x = exam_of()
    exam = make_exam(task, values, split, touch)
    whole, part = answer(exam, x), answer(exam, x[:, 1:], [2])
    assert part.scored.sum() == 30
    there = dataclasses.replace(whole, scored=part.scored)
    expected = score(exam, there).value - score(exam, part).value
    assert compare(exam, whole, part).value == pytest.approx(expected)
    assert compare(exam, part, whole).value == pytest.approx(-expected)
    assert compare(exam, whole, part).n == 30


def test_a_classification_scores_as_scikit_learn() -> None:
    task, values, split, touch, x = exam_of("classification")
    exam = make_exam(task, values, split, touch)
    found = answer(exam, x)
    assert exam.classes == ("down", "up")
    expected = f1_score(exam.target, found.predicted, average="macro")
    assert score(exam, found).value == pytest.approx(expected)
    assert compare(exam, found, found).value == 0


def test_a_class_absent_from_training_is_a_warning() -> None:
    task, values, split, touch, _ = exam_of("classification")
    values[:] = np.where(np.arange(120) % 2, "a", "b")
    values[split.fold == 3] = "c"
    touch = np.eye(120)
    names = np.array([str(g) for g in np.arange(120)], dtype=object)
    exam = make_exam(task, values, dataclasses.replace(split, group=names), touch)
    assert "class 'c' is absent from the training units of fold 3" in exam.notes


def test_labels_of_one_sitting_are_answered_as_one_by_one() -> None:
    task, values, split, touch, x = exam_of()
    rng = np.random.default_rng(5)
    others = [values, rng.normal(size=120), values + rng.normal(0, 0.1, 120)]
    exams = [make_exam(task, each, split, touch) for each in others]
    joint = answer_together(exams, x)
    for exam, found in zip(exams, joint, strict=True):
        alone = answer(exam, x)
        np.testing.assert_allclose(found.predicted, alone.predicted, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.baseline, alone.baseline, rtol=1e-12)
        assert (found.scored == alone.scored).all()


def test_only_equal_units_folds_and_training_units_sit_together() -> None:
    task, values, split, touch, _ = exam_of()
    alignment = Alignment(csr_array(np.eye(120)), np.ones(120))
    exam = make_exam(task, values, split, touch)
    mark = exam.sitting(alignment)
    assert make_exam(task, values[::-1].copy(), split, touch).sitting(alignment) == mark
    turned = dataclasses.replace(split, fold=split.fold[::-1].copy())
    assert make_exam(task, values, turned, touch).sitting(alignment) != mark
    assert make_exam(task, values, split, np.eye(120)).sitting(alignment) != mark
    other = Alignment(csr_array(np.eye(120)[::-1]), np.ones(120))
    assert exam.sitting(other) != mark


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_random_folds_ask_the_same_of_the_same_units(kind: str) -> None:
    task, values, split, touch, x = exam_of(kind)
    exam = make_exam(task, values, split, touch)
    random = at_random(exam, 3)
    np.testing.assert_array_equal(random.target, exam.target)
    assert random.classes == exam.classes and random.probe == exam.probe
    assert np.bincount(random.split.fold).tolist() == [30, 30, 30, 30]
    assert (random.split.fold != exam.split.fold).any()
    for fold, train in enumerate(random.training):
        np.testing.assert_array_equal(train, random.split.fold != fold)
    np.testing.assert_array_equal(at_random(exam, 3).split.fold, random.split.fold)
    assert (at_random(exam, 4).split.fold != random.split.fold).any()
    answers = answer(random, x)
    assert answers.scored.all()
    assert plain_score(random, answers) == pytest.approx(score(random, answers).value, abs=1e-12)


def test_random_folds_flatter_what_only_knows_the_neighbours() -> None:
    """A target that is one number per group: near units tell it, far ones do not."""
    task, _, split, touch, _ = exam_of(number=400)
    rng = np.random.default_rng(5)
    values = rng.normal(size=40)[np.arange(400) // 10]
    position = np.eye(40)[np.arange(400) // 10] + rng.normal(scale=0.01, size=(400, 40))
    exam = make_exam(task, values, split, touch)
    random = at_random(exam, 0)
    assert score(exam, answer(exam, position)).value < 0.05
    assert score(random, answer(random, position)).value > 0.95
