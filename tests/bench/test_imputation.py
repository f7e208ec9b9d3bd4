"""Imputation: equal to a plain loop, from training units alone, and better than the mean."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from urbancli.bench.imputation import PENALTIES, Imputer
from urbancli.bench.probes.base import Fold

Blocks = dict[str, np.ndarray]


def material(seed: int = 0, units: int = 90) -> tuple[list[Fold], Blocks]:
    """Three blocks of five hidden factors; some units lack one, and a column is constant."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(units, 5))
    blocks = {}
    for name, width in (("sentinel2", 120), ("pois", 6), ("entities", 20)):
        loads = rng.normal(size=(5, width)) * rng.uniform(0.1, 30, width)
        noise = rng.normal(size=(units, width)) * np.abs(loads).mean(axis=0)
        blocks[name] = (hidden @ loads + noise + 40).astype(np.float32)
    blocks["entities"][:, 3] = 7.0
    blocks["pois"][rng.random(units) < 0.1] = np.nan
    outer, inner = rng.integers(0, 4, units), rng.integers(-1, 3, units)
    outer[-3:] = -1
    folds = [
        Fold((outer != f) & (outer >= 0), outer == f, np.where(outer != f, inner, -1))
        for f in range(4)
    ]
    return folds, blocks


def holes(blocks: Blocks, rate: float = 0.4) -> Blocks:
    rng = np.random.default_rng(5)
    size = len(next(iter(blocks.values())))
    return {name: np.where(rng.random((size, 1)) < rate, np.nan, block)
            for name, block in blocks.items()}  # fmt: skip


# --- the plain loop --------------------------------------------------------------------------


def standard(block: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own = block[training].astype(np.float64)
    mean, scale = np.nanmean(own, axis=0), np.nanstd(own, axis=0)
    return mean, np.where(scale > 1e-6 * np.abs(mean), scale, np.inf)


def axes_of(block: np.ndarray, training: np.ndarray) -> np.ndarray:
    mean, scale = standard(block, training)
    own = (block[training] - mean) / scale
    _, sizes, right = np.linalg.svd(own[~np.isnan(own).any(axis=1)], full_matrices=False)
    return right[sizes > 1e-4][:64].T


def scores_of(blocks: Blocks, like: Blocks, fold: Fold, names: list[str]) -> np.ndarray:
    parts = []
    for name in names:
        mean, scale = standard(like[name], fold.training)
        parts.append((blocks[name] - mean) / scale @ axes_of(like[name], fold.training))
    return np.concatenate(parts, axis=1)


def guessed(fold: Fold, known: Blocks, spoilt: Blocks, unit: int, name: str) -> np.ndarray:
    """What the formula says of one missing block of one unit."""
    mean, scale = standard(known[name], fold.training)
    present = [other for other in known if not np.isnan(spoilt[other][unit]).any()]
    if not present:
        return mean
    x, y = scores_of(known, known, fold, present), scores_of(known, known, fold, [name])
    use = fold.training & ~np.isnan(x).any(axis=1) & ~np.isnan(y).any(axis=1)
    x, y = x - x[use].mean(axis=0), y
    centre = y[use].mean(axis=0)
    errors = []
    for penalty in PENALTIES:
        total = 0.0
        for number in range(3):
            out = use & (fold.inner == number)
            learn = use & ~out
            model = Ridge(alpha=penalty * learn.sum(), fit_intercept=False)
            model.fit(x[learn], y[learn] - centre)
            total += ((model.predict(x[out]) + centre - y[out]) ** 2).sum()
        errors.append(total)
    model = Ridge(alpha=PENALTIES[np.argmin(errors)] * use.sum(), fit_intercept=False)
    model.fit(x[use], y[use] - centre)
    own = scores_of(spoilt, known, fold, present)[[unit]]
    own -= scores_of(known, known, fold, present)[use].mean(axis=0)
    found = (model.predict(own) + centre) @ axes_of(known[name], fold.training).T
    return mean + found[0] * np.where(np.isinf(scale), 0.0, scale)


def test_gaps_are_filled_as_a_plain_loop_does() -> None:
    folds, known = material()
    spoilt = holes(known)
    found = {how: Imputer(folds, known).fill(spoilt, how) for how in ("mean", "regression")}
    filled = 0
    for fold in folds[:1]:
        for unit in np.flatnonzero(fold.testing):
            start = 0
            for name, block in spoilt.items():
                part = slice(start, start := start + block.shape[1])
                wanted = {"mean": block[unit], "regression": block[unit]}
                if np.isnan(block[unit]).any():
                    filled += 1
                    wanted["mean"] = standard(known[name], fold.training)[0]
                    wanted["regression"] = guessed(fold, known, spoilt, unit, name)
                for how, values in wanted.items():
                    np.testing.assert_allclose(found[how][unit, part], values, rtol=1e-4, atol=1e-4)
    assert filled > 15
    never = ~np.logical_or.reduce([fold.testing for fold in folds])
    assert never.sum() == 3 and np.isnan(found["mean"][never]).all()
    assert not np.isnan(found["regression"][~never]).any()


@pytest.mark.parametrize("how", ["mean", "regression"])
def test_nothing_of_a_fold_tested_is_learnt_from(how: str) -> None:
    """Poisoned with NaN, and with other numbers: not a digit changes."""
    folds, known = material(1)
    spoilt = holes(known)
    whole = Imputer(folds, known).fill(spoilt, how)
    for fold in folds[:1]:
        wanted = whole[fold.testing]
        for poison in (np.nan, 1e6):
            others = {n: np.where(fold.training[:, None], b, poison) for n, b in known.items()}
            found = Imputer([fold], others).fill(spoilt, how)[fold.testing]
            assert np.array_equal(found, wanted)


def test_what_is_there_stays_and_one_imputer_serves_every_gap() -> None:
    folds, known = material(2)
    whole = np.concatenate(list(known.values()), axis=1)
    tested = np.logical_or.reduce([fold.testing for fold in folds])
    both = Imputer(folds, known)
    for gone in (["pois"], ["sentinel2", "entities"], list(known)):
        spoilt = {n: np.full_like(b, np.nan) if n in gone else b for n, b in known.items()}
        for how in ("regression", "mean"):
            found = both.fill(spoilt, how)
            assert np.array_equal(found, Imputer(folds, known).fill(spoilt, how), equal_nan=True)
            kept = np.concatenate([np.full(b.shape[1], n not in gone) for n, b in known.items()])
            there = tested[:, None] & kept & ~np.isnan(whole)
            assert np.array_equal(found[there], whole[there])
    assert np.array_equal(both.fill(spoilt, "regression"), found, equal_nan=True), (
        "nothing to go by"
    )


def test_a_regression_comes_nearer_than_the_mean_where_blocks_share_factors() -> None:
    folds, known = material(3, 400)
    tested = np.logical_or.reduce([fold.testing for fold in folds]) & ~np.isnan(known["pois"][:, 0])
    spoilt = {**known, "pois": np.full_like(known["pois"], np.nan)}
    errors = {}
    for how in ("mean", "regression"):
        guess = Imputer(folds, known).fill(spoilt, how)[tested, 120:126]
        errors[how] = ((guess - known["pois"][tested]) ** 2 / known["pois"][tested].var()).mean()
    assert errors["regression"] < 0.75 * errors["mean"]
    # Of a block that has nothing to do with the rest the mean is all there is to say.
    alone = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    others = {"sentinel2": known["sentinel2"], "alone": alone}
    spoilt = {**others, "alone": np.full_like(alone, np.nan)}
    guess = Imputer(folds, others).fill(spoilt, "regression")[tested, 120:]
    assert np.abs(guess - alone.mean(axis=0)).max() < 0.5


def test_too_few_units_and_a_block_that_nobody_has_get_the_mean() -> None:
    folds, known = material(4)
    known["pois"][9:] = np.nan
    known["nothing"] = np.full((90, 3), np.nan, np.float32)
    spoilt = {**known, "pois": np.full_like(known["pois"], np.nan)}
    found = Imputer(folds, known).fill(spoilt, "regression")
    for fold in folds:
        mean = np.nanmean(known["pois"][fold.training].astype(np.float64), axis=0)
        tested = found[fold.testing]
        np.testing.assert_allclose(tested[:, 120:126], np.tile(mean, (len(tested), 1)), rtol=1e-6)
        assert not tested[:, -3:].any()
