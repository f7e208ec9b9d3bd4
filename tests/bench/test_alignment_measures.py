"""Measures of alignment against loops over their formulas, and where their truth is known."""

import numpy as np
import pytest
import torch

from urbancli.bench import alignment_measures
from urbancli.bench.alignment_measures import (
    cka,
    cka_debiased,
    effective_rank,
    measures,
    on_sphere,
    recall,
    uniformity,
)
from urbancli.nn.monitors import collapse_monitors

RNG = np.random.default_rng(2)
A = RNG.normal(size=(30, 5)) + 0.5
B = A @ RNG.normal(size=(5, 5)) + RNG.normal(size=(30, 5))
EVERY = np.ones(30, dtype=bool)


def test_recall_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment_measures, "CHUNK", 7)
    asking, found = on_sphere(A), on_sphere(B)
    hits = {1: 0, 5: 0, 10: 0}
    for row in range(30):
        order = sorted(range(30), key=lambda other: -float(asking[row] @ found[other]))
        for rank in hits:
            hits[rank] += order.index(row) < rank
    assert recall(asking, found) == pytest.approx([count / 30 for count in hits.values()])
    assert 0 < hits[1] < hits[5] < hits[10] < 30


def test_recall_of_equals_and_of_one_point() -> None:
    assert recall(on_sphere(A), on_sphere(A)) == [1.0, 1.0, 1.0]
    same = np.ones((30, 4)) / 2
    assert recall(same, same) == pytest.approx([1 / 30, 5 / 30, 10 / 30])
    # Pairs that are alike share their places.
    twice = on_sphere(np.repeat(A[:15], 2, axis=0))
    assert recall(twice, twice) == pytest.approx([0.5, 1.0, 1.0])


def test_uniformity_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment_measures, "CHUNK", 7)
    rows = on_sphere(A)
    terms = [
        np.exp(-2 * ((rows[i] - rows[j]) ** 2).sum())
        for i in range(30)
        for j in range(30)
        if i != j
    ]
    assert uniformity(rows) == pytest.approx(np.log(np.mean(terms)))
    assert uniformity(np.tile(rows[:1], (9, 1))) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(30, 5), (5, 30)])
def test_effective_rank_is_that_of_training(shape: tuple[int, int]) -> None:
    values = RNG.normal(size=shape) * np.arange(1, shape[1] + 1)
    theirs = collapse_monitors(torch.from_numpy(values))["effective_rank"]
    assert effective_rank(values) == pytest.approx(theirs)
    one = np.outer(np.arange(1.0, 31), np.ones(5))
    assert effective_rank(one) == pytest.approx(1.0)


def test_cka_is_that_of_its_kernels() -> None:
    centring = np.eye(30) - 1 / 30
    k, l = (centring @ x @ x.T @ centring for x in (A, B))  # noqa: E741
    expected = (k * l).sum() / np.sqrt((k**2).sum() * (l**2).sum())
    assert cka(A, B) == pytest.approx(expected)
    turn = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    assert cka(A, 3 * A @ turn + 1) == pytest.approx(1.0)
    assert cka(A, np.ones((30, 2))) == 0.0


def test_debiased_cka_is_that_of_its_kernels() -> None:
    n, ones = 30, np.ones(30)

    def hsic(x: np.ndarray, y: np.ndarray) -> float:
        k, l = x @ x.T, y @ y.T  # noqa: E741
        np.fill_diagonal(k, 0.0)
        np.fill_diagonal(l, 0.0)
        middle = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
        return float(np.trace(k @ l) + middle - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))

    expected = hsic(A, B) / np.sqrt(hsic(A, A) * hsic(B, B))
    assert cka_debiased(A, B) == pytest.approx(expected)
    assert cka_debiased(A, 3 * A + 1) == pytest.approx(1.0)
    assert cka_debiased(A, np.ones((30, 2))) == 0.0


def test_independent_embeddings_have_no_debiased_cka() -> None:
    first, second = RNG.normal(size=(2, 40, 60))
    assert cka(first, second) > 0.5
    assert abs(cka_debiased(first, second)) < 0.1


def test_rows_are_of_the_places_that_both_have() -> None:
    some = EVERY.copy()
    some[:9] = False
    spoilt = B.copy()
    spoilt[~some] = np.nan
    rows = measures({"naip": (A, EVERY), "pois": (spoilt, some)})
    found = {(row["modality"], row["quantity"]): row for row in rows}
    singles = {(m, q) for m in ("naip", "pois") for q in ("uniformity", "effective_rank")}
    recalls = {(m, f"recall@{k}") for m in ("naip→pois", "pois→naip") for k in (1, 5, 10)}
    pairs = {("naip×pois", q) for q in ("alignment", "gap", "cka", "cka_debiased")}
    assert set(found) == singles | recalls | pairs
    assert found["naip", "uniformity"]["n"] == 30 and found["pois", "uniformity"]["n"] == 21
    a, b = A[some], B[some]
    for (modality, quantity), row in found.items():
        if modality in ("naip→pois", "pois→naip"):
            assert row["n"] == 21
            assert row["chance"] == pytest.approx(int(quantity.removeprefix("recall@")) / 21)
        else:
            assert row["chance"] is None
    forth = recall(on_sphere(a), on_sphere(b))
    assert [found["naip→pois", f"recall@{k}"]["value"] for k in (1, 5, 10)] == forth
    back = recall(on_sphere(b), on_sphere(a))
    assert [found["pois→naip", f"recall@{k}"]["value"] for k in (1, 5, 10)] == back != forth
    assert found["naip×pois", "cka"]["value"] == cka(a, b)
    distances, first, second = [], np.zeros(5), np.zeros(5)
    for one, other in zip(a, b, strict=True):
        one, other = one / np.sqrt(one @ one), other / np.sqrt(other @ other)
        distances.append((one - other) @ (one - other))
        first, second = first + one / 21, second + other / 21
    assert found["naip×pois", "alignment"]["value"] == pytest.approx(np.mean(distances))
    gap = np.sqrt((first - second) @ (first - second))
    assert found["naip×pois", "gap"]["value"] == pytest.approx(gap)


def test_few_places_have_no_rows_and_many_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    few = np.arange(30) < 3
    assert {row["modality"] for row in measures({"a": (A, EVERY), "b": (B, few)})} == {"a"}
    monkeypatch.setattr(alignment_measures, "MOST_PLACES", 12)
    rows = measures({"a": (A, EVERY), "b": (A, EVERY)})
    assert {row["n"] for row in rows} == {12}
    assert {row["value"] for row in rows if row["quantity"] == "recall@1"} == {1.0}
