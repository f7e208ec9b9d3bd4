"""The terminal table says what a row says, and what it may not say."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from urbancli.bench.run import SCHEMA, BenchResult
from urbancli.report.terminal import difference_text, render, verdict


def row(method: str, value: float | None, **more: Any) -> dict[str, Any]:
    scores = {} if value is None else {"low": value - 0.1, "high": value + 0.1, "n": 1234,
                                       "groups": 40, "too_few": False, "removed": 12.5,
                                       "imputed": 0, "group_m": 1200, "folds": "all",
                                       "note": ""}  # fmt: skip
    basis = {"city": "delhi", "task": "crime", "method": method, "preset": "", "run": "",
             "pretraining": "none", "split": "spatial", "probe": "ridge", "drop": "",
             "metric": "r2", "value": value, "leak": "", "note": ""}  # fmt: skip
    return {**dict.fromkeys(SCHEMA.names), **basis, **scores, **more}


def run_row(value: float | None, **more: Any) -> dict[str, Any]:
    about = {"preset": "small", "run": "urbanfusion-delhi", "pretraining": "transductive"}
    return row("urbanfusion", value, **{**about, **more})


def differences(low: float | None, high: float | None) -> dict[str, Any]:
    return {
        "difference_concatenation": 0.03,
        "difference_concatenation_low": low,
        "difference_concatenation_high": high,
    }


def text_of(rows: list[dict[str, Any]], notes: list[dict[str, str]] | None = None) -> str:
    out = io.StringIO()
    render(BenchResult(rows, notes or [], Path("x")), Console(file=out, width=100))
    return out.getvalue()


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, "better"),
        (-0.2, -0.01, "worse"),
        (-0.01, 0.07, "not distinguishable"),
        (None, None, "too few units or groups for an interval"),
    ],
)
def test_what_an_interval_allows_to_say(low: float | None, high: float | None, said: str) -> None:
    assert verdict(low, high) == said


def test_the_sentence() -> None:
    text = difference_text(run_row(0.5, **differences(-0.01, 0.07)), "concatenation")
    assert text == (
        "urbanfusion (small) − concatenation: +0.03 [−0.01, +0.07]: not distinguishable"
    )
    assert difference_text(run_row(0.5), "untrained") is None


def test_a_table_has_scores_intervals_and_counts() -> None:
    out = text_of([row("constant", 0.0), run_row(0.5, **differences(0.01, 0.05))])
    assert "delhi · crime" in out
    assert "constant (control)" in out and "0.000 [−0.100, 0.100]" in out.replace("\u00a0", " ")
    line = next(part for part in out.splitlines() if "0.500" in part)
    assert "urbanfusion (small)" in line and "1,234" in line and "40" in line
    assert "12.5 training units a fold were removed" in out
    assert max(len(part) for part in out.splitlines()) <= 100


def test_the_first_line_says_what_is_not_beaten() -> None:
    first = text_of([run_row(0.5, **differences(-0.01, 0.07))]).splitlines()[0]
    assert "urbanfusion (small) does NOT beat concatenation on 1 of 1 tasks: delhi/crime" in first
    first = text_of([run_row(0.5, **differences(0.01, 0.07))]).splitlines()[0]
    assert first == "urbanfusion (small) beats concatenation on all 1 tasks"
    first = text_of([run_row(0.5, **differences(None, None))]).splitlines()[0]
    assert "does NOT beat" in first
    assert "could not be compared" in text_of([run_row(0.5)]).splitlines()[0]


def test_too_few_stands_for_the_interval() -> None:
    out = text_of([run_row(0.5, low=None, high=None, too_few=True)])
    assert "0.500 too few" in out


def test_retention_stands_only_beside_drops() -> None:
    rows = [run_row(0.5), run_row(0.4, drop="satellite", retention=0.8),
            run_row(0.4, drop="pois")]  # fmt: skip
    out = text_of(rows).splitlines()
    full, satellite, pois = (part for part in out if part.startswith("urbanfusion (small) ")
                             and "[" in part)  # fmt: skip
    assert "80%" in satellite
    assert out[out.index(satellite) - 1].strip() == "without satellite:"
    assert "n/a" in pois and "%" not in pois
    assert "n/a" not in full


def test_what_is_not_applicable_says_why() -> None:
    rows = [
        row("coordinates", 0.1),
        row("coordinates", None, drop="osm", note="n/a: does not read osm"),
        row("concatenation", 0.3, drop="osm", retention=None),
        row("coordinates", None, drop="satellite", note="n/a: the city has no satellite"),
        row("concatenation", None, drop="satellite", note="n/a: the city has no satellite"),
    ]
    out = text_of(rows)
    assert "n/a: does not read osm" in out
    assert out.count("n/a: the city has no satellite") == 1


def test_a_task_without_scores_has_its_reason() -> None:
    reason = "not scored: only 1 of 4 classes has 20 units"
    rows = [row("constant", None, note=reason), run_row(None, note=reason)]
    out = text_of(rows, [{"city": "delhi", "task": "crime", "note": reason}])
    assert out.count(reason) == 1 and "constant (control)" not in out


def test_notes_imputation_and_leaks_are_printed() -> None:
    notes = [
        {"city": "delhi", "task": "crime", "note": "3 of 9 units without a value"},
        {"city": "delhi", "task": "", "note": "no run to score"},
        {"city": "", "task": "", "note": "without pois keeps 80%"},
    ]
    out = text_of([run_row(0.5, imputed=7, leak="sentinel2")], notes)
    assert "7 of 1,234 units miss features" in out
    assert "0.500† [" in out.replace("\u00a0", " ") and "† reads sentinel2" in out
    assert "--drop sentinel2 scores without" in " ".join(out.split())
    for note in notes:
        assert note["note"] in out
    assert "a leak cannot be excluded" in text_of([row("constant", 0.0, leak="unknown")])


def test_runs_of_one_method_are_told_apart() -> None:
    held = {"pretraining": "inductive", "folds": "2"}
    rows = [
        run_row(0.5, seed=0),
        run_row(0.4, seed=3, run="b", **held),
        run_row(0.3, run="c", preset="paper", settings="epochs=1, without osm, bf16"),
    ]
    out = text_of(rows)
    assert "urbanfusion (small) " in out and "urbanfusion (small, seed 3, inductive 2)" in out
    assert "urbanfusion (paper, epochs=1, without osm, bf16)" in out
    assert "urbanfusion (paper) " not in out


def test_a_transductive_drop_is_said_to_have_been_seen() -> None:
    said = "saw the dropped modality at the test places"
    assert said in text_of([run_row(0.5), run_row(0.4, drop="satellite")])
    assert said not in text_of([run_row(0.5)])
    held_out = {"pretraining": "inductive", "folds": "0"}
    assert said not in text_of([run_row(0.5, **held_out), run_row(0.4, drop="osm", **held_out)])
