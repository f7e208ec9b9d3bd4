"""The account on arrays whose truth is known: shared, unique and synergistic factors."""

import dataclasses

import numpy as np
import pytest

from tests.bench.test_evaluation import exam_of
from urbancli.bench._products import Products
from urbancli.bench._sets import Sets
from urbancli.bench.account import account, combined
from urbancli.bench.evaluation import Exam, answer, compare, make_exam, score
from urbancli.bench.probes import ridge
from urbancli.bench.probes.base import Fold

UNITS = 400


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
    factors["where"] = rng.normal(size=UNITS)
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
    assert value(found, "shared", "c", "retained", run="loses") > 0.95
    assert value(found, "a", "a", "retained", run="keeps") > 0.95
    assert value(found, "a", "a", "retained unique", run="keeps") > 0.95
    assert abs(value(found, "a", "a", "retained", run="loses")) < 0.02
    assert abs(value(found, "a", "a", "retained unique", run="loses")) < 0.02
    # What a modality does not tell cannot be retained.
    assert ("b", "a", "retained", "keeps") not in found
    assert ("shared", "a", "retained unique", "keeps") not in found


def test_what_others_tell_too_is_retained_through_them() -> None:
    """Of a label of shared and own factors an embedding that has the shared one keeps its share."""
    blocks, factors = planted(0.1)
    exams = exams_on({"both": factors["shared"] + factors["a"]})
    loses = factors["shared"][:, None].astype(np.float32)
    rows = account(exams, blocks, {"run": loses})
    kept = {(row["modality"], row["quantity"]): row for row in rows if row["run"]}
    assert set(kept) == {(m, "retained") for m in "abc"} | {("a", "retained unique")}
    assert kept["a", "retained"]["value"] == pytest.approx(0.5, abs=0.08)
    assert kept["a", "retained"]["low"] < 0.5 < kept["a", "retained"]["high"]
    assert abs(kept["a", "retained unique"]["value"]) < 0.02
    assert kept["b", "retained"]["value"] > 0.98


def test_differences_are_those_of_the_scores(found: dict) -> None:
    for factor in ("shared", "a", "synergy"):
        whole = value(found, factor, "all", "all")
        for name in "abc":
            alone, rest = (value(found, factor, name, which) for which in ("alone", "without"))
            assert value(found, factor, name, "unique") == pytest.approx(whole - rest)
            redundant = value(found, factor, name, "redundant")
            assert redundant == pytest.approx(alone + rest - whole)
            assert redundant + value(found, factor, name, "unique") == pytest.approx(alone)


def test_blank_features_beside_one_that_matters_are_no_redundancy() -> None:
    """A probe on all would lose by them what the modality alone has."""
    blocks, factors = planted(1.0)
    rng = np.random.default_rng(5)
    blank = rng.normal(size=(2, UNITS, 80)).astype(np.float32)
    wide = {"a": blocks["a"], "blank": blank[0], "void": blank[1]}
    exams = exams_on({"a": factors["a"]})
    rows = account(exams, wide, {"run": blank[1]})
    told = {(row["modality"], row["quantity"]): row["value"] for row in rows}
    mixed = answer(exams[0], np.concatenate(list(wide.values()), axis=1))
    alone = told["a", "alone"]
    assert alone - score(exams[0], mixed).value > 0.03
    assert abs(told["a", "redundant"]) < 0.01
    assert told["a", "unique"] == pytest.approx(alone, abs=0.01)
    assert abs(told["a", "retained"]) < 0.02


def test_what_a_modality_tells_by_a_square_is_no_synergy() -> None:
    blocks, factors = planted()
    rows = account(exams_on({"square": factors["shared"] ** 2}), blocks, {})
    found = {row["modality"]: row["value"] for row in rows if row["quantity"] == "synergistic"}
    assert set(found) == {"all", *"abc", "a×b", "a×c", "b×c"}
    assert max(found.values()) < 0.08
    # A probe of products would tell most of it from any two.
    exams = exams_on({"square": factors["shared"] ** 2})
    left = [exam_target(exams[0]) for _ in exams[0].folds]
    told = Products(exams[0].folds, blocks, left).predict([("a", "b")])
    assert np.corrcoef(told[:, 0], factors["shared"] ** 2)[0, 1] > 0.8


def exam_target(exam: Exam) -> np.ndarray:
    return exam.target[:, None]


def test_a_modality_beside_the_others_is_in_no_set_of_theirs() -> None:
    blocks, factors = planted()
    exams = exams_on({"shared": factors["shared"], "where": factors["where"]})
    del blocks["c"]
    where = factors["where"][:, None].astype(np.float32)
    rows = account(exams, blocks, {"run": where}, {"coords": where})
    plain = account(exams, blocks, {"run": where})
    assert [row for row in rows if row["modality"] != "coords"] == plain
    told = {(row["task"], row["quantity"], row["run"]): row["value"]
            for row in rows if row["modality"] == "coords"}  # fmt: skip
    assert told["where", "alone", ""] > 0.99 and told["where", "unique", ""] > 0.99
    assert abs(told["where", "redundant", ""]) < 0.02
    assert told["where", "retained", "run"] > 0.99 < told["where", "retained unique", "run"]
    assert abs(told["shared", "alone", ""]) < 0.05 > abs(told["shared", "unique", ""])
    assert told["shared", "without", ""] > 0.9
    assert {quantity for _, quantity, _ in told} == {
        "alone", "without", "unique", "redundant", "retained", "retained unique",
    }  # fmt: skip


def test_combinations_are_of_the_scores() -> None:
    blocks, factors = planted()
    exam = exams_on(factors)[0]
    first, second = answer(exam, blocks["a"]), answer(exam, blocks["b"])
    plain, gap = score(exam, first), compare(exam, first, second)
    assert combined([exam], [[first]]) == plain
    pair = combined([exam], [[first], [second]], np.subtract)
    assert (pair.value, pair.low, pair.high) == pytest.approx((gap.value, gap.low, gap.high))
    ratio = combined([exam], [[first], [second]], np.divide)
    assert ratio.value == pytest.approx(plain.value / score(exam, second).value)
    assert ratio.low < ratio.value < ratio.high
    # Of two regressions that are one question the squared errors add up.
    both = combined([exam, exam], [[first, second]])
    assert both.value == pytest.approx((plain.value + score(exam, second).value) / 2)


def test_of_classes_the_account_is_of_their_probabilities() -> None:
    rng = np.random.default_rng(0)
    blocks, factors = planted()
    del blocks["c"]
    task, _, split, touch, _ = exam_of("classification", UNITS)
    corner = np.select([factors["a"] > 0.5, factors["a"] < -0.5], ["up", "down"], "level")
    quarter = np.where(factors["a"] * factors["b"] > 0, "same", "other")
    void = rng.normal(size=(UNITS, 4)).astype(np.float32)
    told = {}
    for name, classes in {"corner": corner, "quarter": quarter}.items():
        task = dataclasses.replace(task, name=name)
        exam = make_exam(task, classes.astype(object), split, touch)
        rows = account([exam], blocks, {"void": void, "keeps": blocks["a"]})
        told |= {(name, r["modality"], r["quantity"], r["run"]): r["value"] for r in rows}
        assert {row["metric"] for row in rows} == {"brier_skill"}
    for name in "ab":
        unique = told["corner", name, "unique", ""]
        assert unique > 0.3 if name == "a" else abs(unique) < 0.02
        assert abs(told["corner", name, "redundant", ""]) < 0.05
    assert abs(told["corner", "a", "retained", "void"]) < 0.05
    assert told["corner", "a", "retained", "keeps"] == pytest.approx(1.0, abs=0.02)
    assert told["quarter", "all", "all", ""] < 0.05
    assert told["quarter", "a×b", "synergistic", ""] > 0.25
    assert abs(told["corner", "a×b", "synergistic", ""]) < 0.05


def test_brier_skill_is_that_of_its_formula() -> None:
    blocks, factors = planted()
    task, _, split, touch, _ = exam_of("classification", UNITS)
    classes = np.select([factors["a"] > 0.5, factors["a"] < -0.5], ["up", "down"], "level")
    exam = make_exam(task, classes.astype(object), split, touch)
    (row,) = (r for r in account([exam], {"a": blocks["a"]}, {}) if r["quantity"] == "alone")
    wrong = shares = 0.0
    for name in ("up", "down", "level"):
        for fold in exam.folds:
            truth = (classes == name).astype(float)
            ((values, *_),) = ridge.fit_predict_folds(blocks["a"], truth, [fold])
            wrong += ((truth[fold.testing] - values) ** 2).sum()
            shares += ((truth[fold.testing] - truth[fold.training].mean()) ** 2).sum()
    assert row["value"] == pytest.approx(1 - wrong / shares)


def test_one_modality_is_all_there_is() -> None:
    blocks, factors = planted()
    rows = account(exams_on(factors)[:1], {"a": blocks["a"]}, {})
    assert [(row["modality"], row["quantity"]) for row in rows] == [("all", "all"), ("a", "alone")]


def test_a_set_is_asked_through_the_one_that_was_judged_best() -> None:
    blocks, factors = planted(1.0)
    exams = exams_on({"a": factors["a"], "b": factors["b"]})
    sets, candidates = Sets(exams, blocks), [("a",), ("b",), ("b", "c")]
    found, chosen = sets.best(candidates), sets.chosen(candidates)
    for number, fold in enumerate(exams[0].folds):
        for target, exam in enumerate(exams):
            errors = [judged_error(exam, fold, sets.joined(names)) for names in candidates]
            assert chosen[number, target] == np.argmin(errors)
            own = answer(exam, sets.joined(candidates[int(np.argmin(errors))]))
            told = found[target].predicted[fold.testing]
            np.testing.assert_allclose(told, own.predicted[fold.testing], atol=1e-9)
    assert (chosen[:, 0] == 0).all() and (chosen[:, 1] > 0).all()


def judged_error(exam: Exam, fold: Fold, x: np.ndarray) -> float:
    """The least squared error of a penalty, summed over the inner folds by a loop."""
    total = 0.0
    for number in np.unique(fold.inner[fold.training]):
        out = fold.training & (fold.inner == number)
        path = ridge.ridge_path(
            x[fold.training & ~out], exam.target[fold.training & ~out, None], x[out]
        )
        total += ((path[:, :, 0] - exam.target[out]) ** 2).sum(axis=1)
    return float(np.min(total))


def test_what_is_left_over_is_of_fits_that_saw_no_such_unit() -> None:
    blocks, factors = planted()
    exams = exams_on({"synergy": factors["synergy"], "a": factors["a"]})
    left = Sets(exams, blocks).left_over([("a",), ("a", "b")])
    fold = exams[0].folds[0]
    out = fold.training & (fold.inner == 1)
    changed = exams[1].target.copy()
    changed[out] += 0.01
    after = Sets([exams[0], dataclasses.replace(exams[1], target=changed)], blocks)
    moved = after.left_over([("a",), ("a", "b")])[0] - left[0]
    # Only the penalty, which all inner folds choose, hears of a unit's own value.
    assert np.abs(moved[out, 1] - 0.01).max() < 0.02
    assert np.abs(moved[fold.training & ~out, 1]).max() > 1e-4
    assert (moved[:, 0] == 0).all() and (left[0][fold.testing] == 0).all()
    assert left[0][:, 1].var() < 0.2 * factors["a"].var()


def test_no_fold_sees_its_test_units() -> None:
    """Other values in a fold change no prediction there: products and leftovers are nested."""
    blocks, factors = planted()
    exams = exams_on({"synergy": factors["synergy"]})
    first = exams[0].folds[1]
    changed = exams[0].target.copy()
    changed[first.testing] += 5.0
    others = [dataclasses.replace(exams[0], target=changed)]
    told = []
    for one in (exams, others):
        left = Sets(one, blocks).left_over([("a",), ("a", "b", "c")])
        products = Products(one[0].folds, blocks, left)
        told.append(products.predict([("a", "a"), ("a", "b")])[first.testing])
    np.testing.assert_array_equal(told[0], told[1])
    assert np.abs(told[0]).max() > 0.1
