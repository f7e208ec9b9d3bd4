"""Rows of several trainings: the mean of their scores, a spread that knows them, differences."""

import dataclasses

import numpy as np
import pytest

from tests.bench.test_bench_run import TINY, make_town
from tests.bench.test_evaluation import exam_of
from urbancli.bench.evaluation import answer, make_exam, score
from urbancli.bench.rows import NAMES, Row
from urbancli.bench.run import BenchOptions, bench
from urbancli.bench.scoring import Given
from urbancli.bench.seeds import seed_rows
from urbancli.layers import open_city
from urbancli.runs import RunOptions, create_run
from urbancli.workspace import Workspace


def rows_of(noises: list[float]) -> tuple[list[Row], object]:
    task, values, split, touch, x = exam_of()
    exam = make_exam(dataclasses.replace(task), values, split, touch)
    rows = []
    rng = np.random.default_rng(0)
    for number, noise in enumerate([0.0, *noises]):
        features = x + noise * rng.normal(size=x.shape)
        given = Given(exam, answer(exam, features))
        found = score(exam, given.answers)
        rows.append({
            **dict.fromkeys(NAMES), "method": "mine" if number else "concatenation",
            "run": f"mine-s{number}" if number else "", "preset": "small", "settings": "",
            "seed": number or None, "folds": "all", "pretraining": "transductive", "drop": "",
            "drop_at": "", "imputation": "", "value": found.value, "low": found.low,
            "high": found.high, "n": found.n, "imputed": 0, "_given": given, "_beside": "",
            "_overrides": (), "_rest": "",
        })  # fmt: skip
    return rows, exam


def test_the_row_of_seeds_is_their_mean_and_knows_their_spread() -> None:
    rows, exam = rows_of([0.2, 0.5, 1.5])
    (row,) = seed_rows(rows, exam)
    scores = [one["value"] for one in rows[1:]]
    assert row["value"] == pytest.approx(np.mean(scores))
    assert (row["seed"], row["settings"]) == (None, "3 seeds")
    assert row["run"] == "mine-s1+mine-s2+mine-s3"
    assert row["difference_concatenation"] == pytest.approx(np.mean(scores) - rows[0]["value"])
    assert row["difference_concatenation_low"] < row["difference_concatenation"]
    calm = seed_rows(rows_of([0.2, 0.2, 0.2])[0], exam)[0]
    assert row["high"] - row["low"] > calm["high"] - calm["low"]


def test_the_row_of_seeds_says_whose_a_note_is() -> None:
    rows, exam = rows_of([0.2, 0.5])
    assert seed_rows(rows, exam)[0]["note"] == ""
    for row in rows:
        row["note"] = "chosen: a in 4 of 4 folds"
    assert seed_rows(rows, exam)[0]["note"] == "chosen: a in 4 of 4 folds"
    rows[1]["note"] = "chosen: b in 4 of 4 folds"
    wanted = "seed 1: chosen: b in 4 of 4 folds. seed 2: chosen: a in 4 of 4 folds"
    assert seed_rows(rows, exam)[0]["note"] == wanted


def test_an_interval_over_seeds_ends_where_scores_end() -> None:
    (row,) = seed_rows(*rows_of([0.01, 4.0]))
    assert row["high"] == 1.0


def test_one_seed_or_other_settings_make_no_row() -> None:
    rows, exam = rows_of([0.2, 0.5])
    assert not seed_rows(rows[:2], exam)
    rows[2]["settings"] = "epochs=9"
    assert not seed_rows(rows, exam)


def test_two_trainings_stand_in_a_benchmark_alone_and_together(tmp_path) -> None:
    made = Workspace(tmp_path / "workspace")
    make_town(made, tmp_path)
    city = open_city(made, "town")
    create_run(made, city, "urbanfusion", RunOptions(overrides=TINY, seed=1))
    result = bench(made, BenchOptions(("town",), drop=("pois",)))
    mine = [row for row in result.rows if row["method"] == "urbanfusion"]
    whole = [r for r in mine if (r["task"], r["drop"]) == ("liveliness", "")]
    assert len(whole) == 3
    (both,) = [row for row in whole if "2 seeds" in row["settings"]]
    assert both["value"] == pytest.approx(np.mean([r["value"] for r in whole if r is not both]))
    assert both["difference_untrained"] is not None
    dropped = [r for r in mine if "2 seeds" in r["settings"] and r["drop"]]
    assert {(row["task"], row["drop_at"]) for row in dropped} == {
        (task, at) for task in ("liveliness", "land_use") for at in ("both", "test")
    }
