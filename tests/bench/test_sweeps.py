"""Rows of sweeps: the setting of each fold is the one its own training units judged best."""

import dataclasses

import numpy as np
import pytest

from tests.bench.test_bench_run import TINY, make_town
from tests.bench.test_evaluation import exam_of
from urbancli.bench.evaluation import Exam, answer, answer_together, make_exam, score, with_probe
from urbancli.bench.rows import NAMES, Row
from urbancli.bench.run import BenchOptions, bench
from urbancli.bench.scoring import Given
from urbancli.bench.sweeps import chosen_rows
from urbancli.layers import open_city
from urbancli.runs import RunOptions, create_run
from urbancli.workspace import Workspace


def swept(noises: list[float], probe: str = "ridge") -> tuple[list[Row], Exam]:
    """Rows of runs that differ in `noise`, and in nothing else."""
    task, values, split, touch, x = exam_of()
    exam = with_probe(make_exam(dataclasses.replace(task), values, split, touch), probe)
    rng = np.random.default_rng(0)
    rows = []
    for number, noise in enumerate(noises):
        given = Given(exam, answer(exam, x + noise * rng.normal(size=x.shape)))
        found = score(exam, given.answers)
        rows.append({
            **dict.fromkeys(NAMES), "method": "mine", "run": f"mine-{number}", "preset": "small",
            "settings": f"epochs=3, noise={noise:g}", "seed": 0, "folds": "all", "seconds": 2.0,
            "pretraining": "transductive", "drop": "", "drop_at": "", "imputation": "",
            "value": found.value, "difference_warning": "", "_given": given, "_beside": "",
            "_overrides": ("epochs=3", f"noise={noise:g}"), "_rest": "",
        })  # fmt: skip
    return rows, exam


def test_every_fold_has_the_setting_that_its_training_units_judged_best() -> None:
    rows, exam = swept([2.0, 1.5])
    every = [one["_given"].answers for one in rows]
    assert all(set(one.judged) == set(range(len(exam.folds))) for one in every)
    # Let one be the better judged in even folds, the other in odd ones.
    for number, one in enumerate(every):
        judged = {fold: float((fold + number) % 2) for fold in one.judged}
        answers = dataclasses.replace(one, judged=judged)
        rows[number]["_given"] = dataclasses.replace(rows[number]["_given"], answers=answers)
    (row,) = chosen_rows(rows, exam)
    every = [one["_given"].answers for one in rows]
    picked = []
    for number, fold in enumerate(exam.folds):
        best = int(np.argmin([one.judged[number] for one in every]))
        picked.append(best)
        chosen = row["_given"].answers.predicted[fold.testing]
        assert np.array_equal(chosen, every[best].predicted[fold.testing])
    assert picked == [0, 1] * (len(picked) // 2), "the choice is the fold's own"
    assert row["value"] == pytest.approx(score(exam, row["_given"].answers).value)
    assert row["settings"] == "noise chosen of 2, epochs=3"
    assert (row["run"], row["seed"], row["seconds"]) == ("mine-0+mine-1", 0, 4.0)
    first = picked.count(0)
    assert f"noise=2 in {first} of {len(picked)} folds" in row["note"]


def test_what_is_judged_is_never_a_test_unit() -> None:
    """Other values at a fold's test units leave what its setting was judged by as it was."""
    task, values, split, touch, x = exam_of()
    exam = make_exam(task, values, split, touch)
    before = answer(exam, x).judged
    for number, fold in enumerate(exam.folds):
        other = dataclasses.replace(exam, target=np.where(fold.testing, 99.0, exam.target))
        assert answer_together([other], x)[0].judged[number] == pytest.approx(before[number])


def test_one_setting_other_keys_or_a_silent_probe_make_no_row() -> None:
    rows, exam = swept([2.0, 1.5])
    assert not chosen_rows(rows[:1], exam)
    assert not chosen_rows([rows[0], {**rows[1], "_overrides": ("noise=1.5",)}], exam)
    assert not chosen_rows([rows[0], {**rows[1], "seed": 1}], exam)
    assert not chosen_rows([rows[0], {**rows[1], "_rest": "bf16"}], exam)
    assert not chosen_rows(*swept([2.0, 1.5], "knn"))


def test_a_sweep_stands_in_a_benchmark_and_again_from_the_book(tmp_path) -> None:
    made = Workspace(tmp_path / "workspace")
    make_town(made, tmp_path)
    city = open_city(made, "town")
    for weight in ("0", "0.5"):
        for seed in (0, 1):
            overrides = (*TINY, f"reconstruction_weight={weight}")
            create_run(made, city, "urbanfusion", RunOptions(overrides=overrides, seed=seed))
    options = BenchOptions(("town",), drop=("pois",))
    result = bench(made, options)
    chosen = [r for r in result.rows if "reconstruction_weight chosen of 2" in r["settings"]]
    whole = [r for r in chosen if (r["task"], r["drop"]) == ("liveliness", "")]
    assert [r["seed"] for r in whole] == [0, 1, None], "each seed's, and both together"
    assert whole[2]["value"] == pytest.approx(np.mean([r["value"] for r in whole[:2]]))
    for row in whole:
        assert row["difference_concatenation_low"] <= row["difference_concatenation"]
    dropped = [r for r in chosen if r["drop"] and r["seed"] == 0 and r["task"] == "liveliness"]
    assert [r["drop_at"] for r in dropped] == ["both", "test"]
    assert all(r["difference_full"] is not None for r in dropped)
    assert bench(made, options).rows == result.rows
