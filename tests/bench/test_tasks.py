"""Task families, transforms, and what becomes of rare classes."""

import numpy as np
import pytest

from urbancli import plugins
from urbancli.bench.splits.base import NotScored
from urbancli.bench.tasks.base import (
    Task,
    find_task,
    has_value,
    indicators,
    merge_classes,
    regression_target,
)
from urbancli.errors import UrbanError
from urbancli.labels.files import Label
from urbancli.layers import MODALITIES, MODALITY_GROUPS


def label(name: str, kind: str, value: list | None = None) -> Label:
    values = np.array(value or [], dtype=object if kind == "classification" else np.float64)
    return Label(name, kind, "point", values, values, values, {})


@pytest.mark.parametrize(
    ("name", "kind", "metric", "transform"),
    [
        ("population_density", "regression", "r2", "log1p"),
        ("crime", "regression", "r2", "log1p"),
        ("greenness", "regression", "r2", "identity"),
        ("land_use", "classification", "macro_f1", "identity"),
        ("house_price", "regression", "r2", "identity"),
        ("land_cover", "classification", "macro_f1", "identity"),
        ("crime", "classification", "macro_f1", "identity"),
    ],
)
def test_a_label_is_a_task(name: str, kind: str, metric: str, transform: str) -> None:
    task = find_task(label(name, kind))
    assert (task.name, task.kind, task.metric, task.transform) == (name, kind, metric, transform)


@pytest.mark.parametrize("family", plugins.names("bench.tasks"))
def test_every_family_keeps_the_contract(family: str) -> None:
    module = plugins.load("bench.tasks", family)
    assert isinstance(module.SPECIFICITY, int)
    for kind in ("regression", "classification"):
        for name in ("crime", "land_use", "population_density", "zzz"):
            task = module.task(label(name, kind))
            assert task is None or (task.name == name and task.kind == kind)
            if task is not None and task.shares_source:
                assert set(task.shares_source) <= {*MODALITIES, *MODALITY_GROUPS}


def test_leaks_are_what_method_and_label_share() -> None:
    task = find_task(label("population_density", "regression"))
    assert task.leak(("coords", "sentinel2", "entities", "pois")) == "sentinel2,entities"
    assert task.leak(("coords", "pois")) == ""
    assert find_task(label("crime", "regression")).leak(("sentinel2",)) == ""
    assert find_task(label("mine", "regression")).leak(("coords",)) == "unknown"


def test_what_has_a_value() -> None:
    assert has_value(label("x", "regression", [1, np.nan, 0])).tolist() == [True, False, True]
    assert has_value(label("x", "classification", ["a", None])).tolist() == [True, False]


def test_transforms() -> None:
    log = Task("x", 1, "regression", "r2", "log1p")
    np.testing.assert_allclose(regression_target(log, np.array([0.0, 9.0])), [0, np.log(10)])
    plain = Task("x", 1, "regression", "r2")
    assert regression_target(plain, np.array([3.0, -9.0])).tolist() == [3, -9]
    with pytest.raises(UrbanError, match="1 are negative"):
        regression_target(log, np.array([1.0, -0.5]))


def test_a_constant_target_is_an_error() -> None:
    with pytest.raises(UrbanError, match=r"same value 0\.1 in all 3"):
        regression_target(Task("x", 1, "regression", "r2"), np.array([0.1, 0.1, 0.1]))
    with pytest.raises(UrbanError, match="same class a in all 2"):
        task = Task("x", 1, "classification", "macro_f1")
        indicators(task, np.array(["a", "a"], dtype=object))


def classes(*counts: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(name, units, groups) → values and groups."""
    names = [name for name, units, _ in counts for _ in range(units)]
    groups = [f"g{i % number}" for _, units, number in counts for i in range(units)]
    return np.array(names, dtype=object), np.array(groups, dtype=object)


def test_common_classes_stay() -> None:
    values, groups = classes(("a", 20, 5), ("b", 30, 9))
    merged, notes = merge_classes(values, groups)
    assert (merged == values).all() and notes == ()


def test_rare_classes_become_other_where_that_is_not_rare() -> None:
    values, groups = classes(("a", 40, 8), ("b", 12, 6), ("c", 30, 4), ("d", 50, 9))
    merged, notes = merge_classes(values, groups)
    assert set(merged) == {"a", "d", "other"}
    assert (merged == "other").sum() == 42
    assert "b (12), c (30)" in notes[0] and "merged" in notes[0]


def test_rare_classes_are_left_out_where_other_would_be_rare() -> None:
    values, groups = classes(("a", 40, 8), ("b", 12, 6), ("c", 7, 4), ("d", 50, 9))
    merged, notes = merge_classes(values, groups)
    assert {name for name in merged if name} == {"a", "d"}
    assert [name is None for name in merged] == [name in "bc" for name in values]
    assert "left out: b (12), c (7)" in notes[0]


def test_rare_classes_join_an_other_that_is_there() -> None:
    values, groups = classes(("a", 40, 8), ("other", 25, 6), ("c", 3, 3))
    merged, _ = merge_classes(values, groups)
    assert (merged == "other").sum() == 28


def test_one_common_class_is_not_scored() -> None:
    values, groups = classes(("a", 40, 8), ("b", 5, 5))
    with pytest.raises(NotScored, match="only 1 of 2 classes"):
        merge_classes(values, groups)
