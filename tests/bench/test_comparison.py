"""Rows find their counterparts in another result, and contestants each other in one."""

from typing import Any

import pytest

from urbancli.bench.comparison import compare_contestants, compare_results, keyed
from urbancli.bench.rows import NAMES
from urbancli.bench.statistics import Interval
from urbancli.errors import UsageError


def row(method: str, value: float | None, **more: Any) -> dict[str, Any]:
    ends = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
    basis = {
        "city": "delhi", "task": "crime", "method": method, "preset": "", "run": "", "settings": "",
        "pretraining": "none", "train_city": "", "split": "spatial", "split_seed": 0,
        "probe": "ridge", "drop": "",
        "drop_at": "", "imputation": "", "metric": "r2", "task_version": 1, "split_sha256": "aa",
        "group_m": 1200, "n": 100, "groups": 20, "folds": "all",
    }  # fmt: skip
    return {**dict.fromkeys(NAMES), **basis, "value": value, **ends, **more}


def trained(method: str, value: float | None, **more: Any) -> dict[str, Any]:
    about = {"preset": "small", "run": f"{method}-delhi-small-s0", "seed": 0}
    return row(method, value, **{**about, "pretraining": "transductive", **more})


FIRST = [
    row("constant", 0.0),
    trained("untrained", 0.2, run="a-delhi"),
    trained("a", 0.5, run="a-delhi"),
    trained("untrained", 0.3, run="b-delhi"),
    trained("b", 0.6, run="b-delhi"),
    trained("a", None, run="a-delhi", drop="osm"),
]


def test_each_row_finds_its_own_counterpart() -> None:
    second = [{**row, "value": None if row["value"] is None else row["value"] + 0.05}
              for row in reversed(FIRST)]  # fmt: skip
    rows = compare_results(FIRST, second)
    assert [r["method"] for r in rows] == [r["method"] for r in FIRST]
    assert [r["difference"] for r in rows[:5]] == pytest.approx([0.05] * 5)
    assert rows[5]["difference"] is None and rows[5]["only_in"] == ""
    assert all(r["inputs"] == "" for r in rows)


def test_names_of_runs_are_no_identity_but_their_methods_are() -> None:
    moved = [{**one, "run": one["run"] and one["run"] + "-x"} for one in FIRST]
    assert set(keyed(moved)) == set(keyed(FIRST))
    other = [{**one, "method": "c" if one["method"] == "b" else one["method"]} for one in FIRST]
    gone = {key: one for key, one in keyed(FIRST).items() if key not in keyed(other)}
    assert [one["method"] for one in gone.values()] == ["untrained", "b"]


def test_whether_the_intervals_hold_each_others_value() -> None:
    (one,) = compare_results([row("a", 0.5)], [row("a", 0.58, low=0.57, high=0.6)])
    assert one["second_in_first"] and not one["first_in_second"]
    (one,) = compare_results([row("a", 0.7)], [row("a", 0.5)])
    assert not one["second_in_first"] and not one["first_in_second"]
    (one,) = compare_results([row("a", 0.5)], [row("a", 0.58, low=None, high=None)])
    assert one["second_in_first"] and one["first_in_second"] is None


def test_what_is_only_in_one_and_what_else_was_asked() -> None:
    first = [row("a", 0.5), row("b", 0.5)]
    second = [row("b", 0.5, split_sha256="bb", n=99), row("c", 0.1)]
    rows = {r["method"]: r for r in compare_results(first, second)}
    assert [rows[name]["only_in"] for name in "abc"] == ["first", "", "second"]
    assert rows["b"]["inputs"] == "split_sha256,n"
    assert rows["c"]["second"] == 0.1 and rows["c"]["first"] is None


def test_equal_rows_are_told_apart_by_their_order() -> None:
    """Runs that held out other labels have rows without a score, all alike."""
    held = {"pretraining": "inductive", "folds": None}
    rows = [trained("a", None, run="x", **held), trained("a", None, run="y", **held)]
    assert len(keyed(rows)) == 2
    assert not any(one["only_in"] for one in compare_results(rows, rows))


# --- contestants -----------------------------------------------------------------------------


def difference(first: dict[str, Any], second: dict[str, Any]) -> Interval:
    assert first["task"] == second["task"] and first["drop"] == second["drop"]
    value = first["value"] - second["value"]
    return Interval(value, value - 0.01, value + 0.01, first["n"], first["groups"], False)


RESULT = [
    *FIRST,
    row("constant", 0.1, task="income"),
    trained("a", 0.4, run="a-delhi", task="income"),
    trained("b", 0.1, run="b-delhi", task="income"),
    trained("b", 0.1, run="b-delhi", drop="osm"),
]


@pytest.mark.parametrize("name", ["a", "a (small)", "a-delhi"])
def test_a_contestant_is_named_by_method_title_or_run(name: str) -> None:
    rows = compare_contestants(RESULT, name, "b", difference)
    assert [(r["task"], r["drop"]) for r in rows] == [("crime", ""), ("income", "")]
    assert [r["difference"] for r in rows] == pytest.approx([-0.1, 0.3])
    assert rows[0]["first"] == "a (small)" and rows[0]["second_value"] == 0.6
    assert rows[0]["low"] < rows[0]["difference"] < rows[0]["high"]


def test_wrong_names_say_what_there_is() -> None:
    for names, remedy in (
        (("aa (small)", "b"), "did you mean a"),
        (("a", "a-delhi"), "are the same"),
        (("untrained", "a"), "names several: give one of a-delhi, b-delhi"),
    ):
        with pytest.raises(UsageError, match=remedy):
            compare_contestants(RESULT, *names, difference)
    with pytest.raises(UsageError, match="no task on which both"):
        compare_contestants([row("a", 0.1), row("b", 0.1, task="income")], "a", "b", difference)
