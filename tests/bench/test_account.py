"""The account on arrays whose truth is known: shared, unique and synergistic factors."""

import dataclasses

import numpy as np
import pytest

from tests.bench.test_evaluation import exam_of
from urbancli.bench.account import account, combined
from urbancli.bench.evaluation import Exam, answer, compare, make_exam, score

UNITS = 600


def planted(noise: float = 0.3) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return blocks of three modalities, and the factors they are made of.

    `shared` is in all, `a`, `b` and `c` each in one; the synergy is a × b, in none alone.
    """
    rng = np.random.default_rng(3)
    factors = {name: rng.normal(size=UNITS) for name in ("shared", "a", "b", "c")}
    blocks = {}
    for name in ("a", "b", "c"):
        core = np.column_stack([factors["shared"], factors[name]])
        mixed = core @ rng.normal(size=(2, 12))
        blocks[name] = (mixed + noise * rng.normal(size=mixed.shape)).astype(np.float32)
    factors["synergy"] = factors["a"] * factors["b"]
    return blocks, factors


def exams_on(factors: dict[str, np.ndarray]) -> list[Exam]:
    task, _, split, touch, _ = exam_of(number=UNITS)
    return [
        make_exam(dataclasses.replace(task, name=name), values, split, touch)
        for name, values in factors.items()
    ]


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str, str, str], dict]:
    blocks, factors = planted()
    keeps = np.column_stack([factors["shared"], factors["a"]]).astype(np.float32)
    loses = factors["shared"][:, None].astype(np.float32)
    rows = account(exams_on(factors), blocks, {"keeps": keeps, "loses": loses})
    return {(r["task"], r["modality"], r["quantity"], r["run"]): r for r in rows}


def value(found: dict, *key: str, run: str = "") -> float:
    return float(found[(*key, run)]["value"])


def test_what_is_shared_is_redundant(found: dict) -> None:
    for name in "abc":
        assert value(found, "shared", name, "alone") > 0.9
        assert value(found, "shared", name, "without") > 0.9
        assert abs(value(found, "shared", name, "unique")) < 0.02
        assert value(found, "shared", name, "redundant") > 0.85
    assert value(found, "shared", "all", "all") > 0.95


def test_what_is_unique_is_of_one_modality(found: dict) -> None:
    for factor in "abc":
        for name in "abc":
            mine = factor == name
            assert (value(found, factor, name, "alone") > 0.9) == mine
            assert (value(found, factor, name, "unique") > 0.9) == mine
            assert abs(value(found, factor, name, "redundant")) < 0.08
        row = found[factor, factor, "unique", ""]
        assert row["low"] > 0.8 and row["n"] == UNITS


def test_a_product_is_synergy_of_its_two_modalities(found: dict) -> None:
    assert value(found, "synergy", "all", "all") < 0.05
    assert value(found, "synergy", "a×b", "synergistic") > 0.6
    assert found["synergy", "a×b", "synergistic", ""]["low"] > 0.4
    for pair in ("a×c", "b×c"):
        assert abs(value(found, "synergy", pair, "synergistic")) < 0.05
    assert value(found, "synergy", "a", "synergistic") > 0.6
    assert abs(value(found, "synergy", "c", "synergistic")) < 0.05
    for factor in ("shared", "a", "b", "c"):
        assert abs(value(found, factor, "a×b", "synergistic")) < 0.03


def test_a_run_retains_what_it_holds(found: dict) -> None:
    assert value(found, "shared", "c", "retained", run="loses") > 0.9
    assert value(found, "a", "a", "retained", run="keeps") > 0.85
    assert value(found, "a", "a", "retained unique", run="keeps") > 0.85
    assert value(found, "a", "a", "retained", run="loses") < 0.1
    # What a modality does not tell cannot be retained.
    assert ("b", "a", "retained", "keeps") not in found
    assert ("shared", "a", "retained unique", "keeps") not in found


def test_differences_are_those_of_the_scores(found: dict) -> None:
    for factor in ("shared", "a", "synergy"):
        whole = value(found, factor, "all", "all")
        for name in "abc":
            alone, rest = (value(found, factor, name, which) for which in ("alone", "without"))
            assert value(found, factor, name, "unique") == pytest.approx(whole - rest)
            redundant = value(found, factor, name, "redundant")
            assert redundant == pytest.approx(alone + rest - whole)


def test_a_combination_of_one_is_the_score_and_of_two_the_difference() -> None:
    blocks, factors = planted()
    exam = exams_on(factors)[0]
    first, second = answer(exam, blocks["a"]), answer(exam, blocks["b"])
    plain, mine = score(exam, first), combined(exam, [first], (1,))
    assert (mine.value, mine.low, mine.high) == pytest.approx((plain.value, plain.low, plain.high))
    pair, gap = combined(exam, [first, second], (1, -1)), compare(exam, first, second)
    assert (pair.value, pair.low, pair.high) == pytest.approx((gap.value, gap.low, gap.high))


def test_classes_have_an_account_without_products() -> None:
    task, values, split, touch, x = exam_of("classification", 300)
    exam = make_exam(task, values, split, touch)
    blocks = {"a": x[:, :1].astype(np.float32), "b": x[:, 1:].astype(np.float32)}
    rows = account([exam], blocks, {"run": x})
    quantities = {(row["modality"], row["quantity"]) for row in rows}
    expected = {(m, q) for m in "ab" for q in ("alone", "without", "unique", "redundant")}
    assert quantities == expected | {("all", "all")}
    assert all(row["metric"] == "macro_f1" for row in rows)


def test_one_modality_is_all_there_is() -> None:
    blocks, factors = planted()
    rows = account(exams_on(factors)[:1], {"a": blocks["a"]}, {})
    assert [(row["modality"], row["quantity"]) for row in rows] == [("all", "all"), ("a", "alone")]


def test_no_fold_sees_its_test_units() -> None:
    """Other values in a fold change no prediction there: products and leftovers are nested."""
    from urbancli.bench._products import Products
    from urbancli.bench.account import _left_over

    blocks, factors = planted()
    exams = exams_on({"synergy": factors["synergy"]})
    first = exams[0].folds[1]
    changed = exams[0].target.copy()
    changed[first.testing] += 5.0
    others = [dataclasses.replace(exams[0], target=changed)]
    x = np.concatenate(list(blocks.values()), axis=1)
    products = Products(exams[0].folds, blocks)
    before, after = (
        products.predict(_left_over(one, x), "a", "b")[first.testing] for one in (exams, others)
    )
    np.testing.assert_array_equal(before, after)
