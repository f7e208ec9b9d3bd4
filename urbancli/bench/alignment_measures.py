"""How a method's embeddings of the same places through single modalities lie to each other.

A run embeds every place once from each modality alone. Of two modalities, over the places that have
both, rows brought to length 1 but for the last two:

- `recall@1`, `@5`, `@10` of `m→n`: how often a place's embedding through m has the same place's
  through n among its k nearest by cosine. All of the places are candidates; of equally near ones as
  many count as there is room for. By chance it would be k over their number.
- `alignment`: mean ‖a_i − b_i‖² (Wang and Isola 2020, arXiv 2005.10242, α = 2).
- `gap`: ‖mean a − mean b‖ (Liang et al. 2022, arXiv 2203.02053).
- `cka`: linear CKA, ‖AᵀB‖² / (‖AᵀA‖ ‖BᵀB‖) of columns less their mean (Kornblith et al. 2019, arXiv
  1905.00414). Of independent embeddings too it is above 0, the more the fewer places there are to a
  dimension.
- `cka_debiased`: the same from unbiased inner products, about 0 for independent embeddings (Song et
  al. 2012, equation 5; Nguyen et al. 2021, arXiv 2010.15327).

Of one modality, over the places that have it:

- `uniformity`: log mean_{i≠j} exp(−2 ‖a_i − a_j‖²), rows of length 1 (Wang and Isola, t = 2).
- `effective_rank`: RankMe (arXiv 2210.02885), as in `nn.monitors`.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.grid import Places
from urbancli.layers import CityLayers
from urbancli.runs import Run
from urbancli.spoiling import Spoiling

VERSION = 1
"""Raised whenever equal embeddings would measure otherwise."""

MOST_PLACES = 4096
"""Of more places so many are drawn: what is measured is among these."""

SEED = 0
"""Of the draw."""

RANKS = (1, 5, 10)

LEAST_PLACES = 4
"""Fewer say nothing, and have no unbiased CKA."""

EQUAL = 1e-9
"""Cosines that differ by no more are equal."""

CHUNK = 512
"""Rows compared with all others at a time."""

Floats = npt.NDArray[np.float64]
Features = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
Row = dict[str, Any]


def run_alignment(run: Run, city: CityLayers, places: Places) -> list[Row]:
    """Return the measures of a run, see `measures`; each modality is what is left of all it reads.

    Args:
        run: of this city, or one that fits it.
        city: a fetched city.
        places: its tiles.
    """
    read = [name for name in run.modalities if name in city.modalities()]
    embeddings = {}
    for name in read:
        others = tuple(other for other in run.modalities if other != name)
        embeddings[name] = run.embed(city, places, Spoiling(gone=others))
    return measures(embeddings)


def measures(embeddings: Mapping[str, Features]) -> list[Row]:
    """Return all measures of a method's embeddings through single modalities.

    Args:
        embeddings: modality → its embeddings (N, D) of the same N places, and where they are
            present (N,).

    Returns:
        Rows of `modality, quantity, value, chance, n`. `modality` is one, two as `m×n`, or `m→n`
        where through m it is asked and through n found. n are the places, and with recall the
        candidates; `chance` is of recall, else None. Fewer than 4 places have no rows.
    """
    rows = []
    for name, (values, present) in embeddings.items():
        (own,) = _common([values], present)
        rows += _rows(name, own, _of_one(own))
    for first, second in combinations(embeddings, 2):
        (a, has_a), (b, has_b) = embeddings[first], embeddings[second]
        one, other = _common([a, b], has_a & has_b)
        rows += _rows(f"{first}→{second}", one, _recalls(one, other))
        rows += _rows(f"{second}→{first}", one, _recalls(other, one))
        rows += _rows(f"{first}×{second}", one, _of_two(one, other))
    return rows


def _common(values: list[npt.NDArray[Any]], present: npt.NDArray[np.bool_]) -> list[Floats]:
    index = np.flatnonzero(present)
    if len(index) > MOST_PLACES:
        draw = np.random.default_rng(SEED)
        index = np.sort(draw.choice(index, MOST_PLACES, replace=False))
    return [np.asarray(one[index], dtype=np.float64) for one in values]


Found = Iterator[tuple[str, float, float | None]]
"""Quantity, value and chance."""


def _rows(modality: str, values: Floats, found: Found) -> list[Row]:
    if len(values) < LEAST_PLACES:
        return []
    names = ("quantity", "value", "chance")
    return [
        {"modality": modality, **dict(zip(names, one, strict=True)), "n": len(values)}
        for one in found
    ]


def _of_one(values: Floats) -> Found:
    yield "uniformity", uniformity(on_sphere(values)), None
    yield "effective_rank", effective_rank(values), None


def _recalls(asking: Floats, found: Floats) -> Found:
    recalls = recall(on_sphere(asking), on_sphere(found))
    for rank, value in zip(RANKS, recalls, strict=True):
        yield f"recall@{rank}", value, min(1.0, rank / len(found))


def _of_two(a: Floats, b: Floats) -> Found:
    first, second = on_sphere(a), on_sphere(b)
    yield "alignment", float(((first - second) ** 2).sum(axis=1).mean()), None
    yield "gap", float(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))), None
    yield "cka", cka(a, b), None
    yield "cka_debiased", cka_debiased(a, b), None


# --- the measures ----------------------------------------------------------------------------


def on_sphere(values: Floats) -> Floats:
    """Return rows (N, D) of length 1; a row of zeros stays one."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 0, length, 1.0))


def recall(asking: Floats, found: Floats) -> list[float]:
    """Return the share of rows whose partner is among the nearest, for each of `RANKS`.

    Of candidates as near as the partner, each is as likely to come first: where all are alike the
    recall is that of chance.

    Args:
        asking: (N, D) rows of length 1.
        found: (N, D), likewise; row i is the partner of row i.
    """
    hits = np.zeros(len(RANKS))
    for start in range(0, len(asking), CHUNK):
        near = asking[start : start + CHUNK] @ found.T
        own = near[np.arange(len(near)), start + np.arange(len(near))][:, None]
        before = (near > own + EQUAL).sum(axis=1)
        alike = (np.abs(near - own) <= EQUAL).sum(axis=1)
        hits += [np.clip((rank - before) / alike, 0.0, 1.0).sum() for rank in RANKS]
    return [float(value) for value in hits / len(asking)]


def uniformity(values: Floats) -> float:
    """Return log mean_{i≠j} exp(−2 ‖v_i − v_j‖²) of rows (N, D) of length 1."""
    total = 0.0
    for start in range(0, len(values), CHUNK):
        cosines = values[start : start + CHUNK] @ values.T
        total += float(np.exp(-4.0 * (1.0 - cosines)).sum())
    count = len(values)
    return float(np.log((total - count) / (count * (count - 1))))


def effective_rank(values: Floats) -> float:
    """Return exp of the entropy of the singular values' shares of their sum, of (N, D)."""
    small = np.linalg.qr(values, mode="r") if len(values) > values.shape[1] else values
    found = np.linalg.svd(small, compute_uv=False)
    shares = found / max(found.sum(), 1e-300)
    return float(np.exp(-(shares * np.log(np.maximum(shares, 1e-300))).sum()))


def cka(a: Floats, b: Floats) -> float:
    """Return linear CKA of rows (N, D) and (N, E) in [0, 1]; 0 where either is constant."""
    first, second = a - a.mean(axis=0), b - b.mean(axis=0)
    return _cosine(
        ((first.T @ second) ** 2).sum(), ((first.T @ first) ** 2).sum(),
        ((second.T @ second) ** 2).sum(),
    )  # fmt: skip


def cka_debiased(a: Floats, b: Floats) -> float:
    """Return linear CKA of unbiased inner products, at most 1; 0 where either is constant.

    Of K = A Aᵀ and L = B Bᵀ without their diagonals, N rows: tr KL + (1ᵀK1)(1ᵀL1) / ((N−1)(N−2)) −
    2/(N−2) 1ᵀKL1, from products of features, no (N, N).
    """
    first, second = a - a.mean(axis=0), b - b.mean(axis=0)

    def product(x: Floats, y: Floats) -> float:
        n = len(x)
        # Of centred rows, a row of K sums to 0 with the diagonal.
        own, other = (x**2).sum(axis=1), (y**2).sum(axis=1)
        trace = ((x.T @ y) ** 2).sum() - own @ other
        sums = own.sum() * other.sum() / ((n - 1) * (n - 2))
        return float(trace + sums - 2 / (n - 2) * (own @ other))

    return _cosine(product(first, second), product(first, first), product(second, second))


def _cosine(both: float, first: float, second: float) -> float:
    return float(both / np.sqrt(first * second)) if first > 0 and second > 0 else 0.0
