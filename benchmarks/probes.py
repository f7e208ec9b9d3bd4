"""The probes against scikit-learn: every fold, penalty and target, with the choice of penalties.

    python -m benchmarks.probes [ROUNDS [UNITS [WIDTH]]]      (default 3 20000 512)

Ridge: 41 targets, 5 folds, 13 penalties, chosen per target on 4 inner folds. Peer: scikit-learn's
multi-target `Ridge` as it is, fitted on the same inner folds for every penalty, and on the whole
training set for every penalty that some target chose, once each. Logistic: 8 classes, 6 penalties
from strong to weak, chosen on 4 inner folds by macro-F1. Peer: `LogisticRegression` with
`warm_start` along the penalties, at the same tolerance, as it is with float64 and once with
float32; the faster counts.

Beside them, ours alone: every probe on tables as they are in a city, 1,600 units with 13 targets,
of 200 features and, for ridge and logistic, of 2,000, more than there are units.

Both sides get the same SYNTHETIC features (float32, 20 factors and noise), scale them in the fold,
and use what threads they take by themselves. Seconds are medians of rounds in turn. `ratio` is the
peer's over ours for ridge, `ratio_logistic` for logistic; beside them the largest difference in R²
of any target, and both macro-F1.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._result import finish
from urbancli.bench.probes import logistic, ridge
from urbancli.bench.probes.base import DEFAULTS, Fold, load_probe, nested, probes_of
from urbancli.bench.statistics import confusion, macro_f1

TARGETS, CLASSES, FOLDS, GROUPS = 41, 8, 5, 200
CITY_UNITS, CITY_TARGETS, CITY_WIDTH, CITY_WIDE = 1600, 13, 200, 2000
BAR, BAR_LOGISTIC = 25.0, 1.5

Array = npt.NDArray[Any]


def make(units: int, width: int) -> tuple[Array, Array, Array, Array]:
    """Return features (N, D) float32, targets (N, 41), classes (N,) and ranks of groups (N,)."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(units, 20))
    x = factors @ rng.normal(size=(20, width)) + 2 * rng.normal(size=(units, width)) + 3.0
    y = factors @ rng.normal(size=(20, TARGETS)) / 4 + rng.normal(size=(units, TARGETS))
    scores = factors[:, :6] @ rng.normal(size=(6, CLASSES)) + 1.5 * rng.gumbel(
        size=(units, CLASSES)
    )
    return x.astype(np.float32), y, scores.argmax(axis=1), np.arange(units) * GROUPS // units


def folds_of(groups: Array) -> list[Fold]:
    """Return folds of neighbouring groups, each with its inner folds."""
    member = groups * FOLDS // GROUPS
    return [nested(member != one, member == one, groups) for one in range(FOLDS)]


def peer_ridge(x: Array, y: Array, fold: Fold) -> Array:
    """Return the predictions of scikit-learn's Ridge for one fold."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    def fits(inside: Array, outside: Array, penalties: Array) -> Array:
        scaler = StandardScaler().fit(x[inside])
        own, other = scaler.transform(x[inside]), scaler.transform(x[outside])
        alphas = penalties * len(own)
        return np.stack([Ridge(alpha=a).fit(own, y[inside]).predict(other) for a in alphas])

    errors = np.zeros((len(ridge.PENALTIES), y.shape[1]))
    for inside, outside in fold.judgements():
        errors += ((fits(inside, outside, ridge.PENALTIES) - y[outside]) ** 2).sum(axis=1)
    best = errors.argmin(axis=0)
    used, place = np.unique(best, return_inverse=True)
    found = fits(fold.learnt(), fold.tested(), ridge.PENALTIES[used])
    return np.asarray(found[place, :, np.arange(y.shape[1])].T)


def peer_logistic(x: Array, classes: Array, fold: Fold, kind: str) -> Array:
    """Return the predictions of scikit-learn's LogisticRegression for one fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    def path(inside: Array, outside: Array, length: int) -> Array:
        scaler = StandardScaler().fit(x[inside])
        own = scaler.transform(x[inside]).astype(kind)
        other = scaler.transform(x[outside]).astype(kind)
        model = LogisticRegression(
            warm_start=True, tol=logistic.TOLERANCE, max_iter=logistic.MAX_ITERATIONS
        )
        guesses = []
        for penalty in logistic.PENALTIES[:length]:
            model.C = 1 / (len(own) * penalty)
            guesses.append(model.fit(own, classes[inside]).predict(other))
        return np.stack(guesses)

    guesses = np.zeros((len(logistic.PENALTIES), len(x)), dtype=np.int64)
    for inside, outside in fold.judgements():
        guesses[:, outside] = path(inside, outside, len(guesses))
    rows = fold.learnt()
    best = int(np.argmax([_f1(classes[rows], guess[rows]) for guess in guesses]))
    return np.asarray(path(rows, fold.tested(), best + 1)[best])


def _f1(truth: Array, guess: Array) -> float:
    one = np.zeros(len(truth), dtype=np.int64)
    return float(macro_f1(confusion(truth, guess, one, CLASSES).sum(axis=0)))


def _r2(y: Array, predicted: Array) -> Array:
    return np.asarray(
        1 - ((y - predicted) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    )


def city_seconds() -> dict[str, float]:
    """Return the seconds of every probe on tables as they are in a city, by probe and task."""
    taken = {}
    for width, probes in ((CITY_WIDTH, None), (CITY_WIDE, list(DEFAULTS.values()))):
        x, y, classes, groups = make(CITY_UNITS, width)
        for kind in DEFAULTS:
            for name in probes_of(kind):
                if probes is not None and name not in probes:
                    continue
                target = y[:, :CITY_TARGETS] if kind == "regression" else classes
                began = time.perf_counter()
                load_probe(name).fit_predict_folds(x, target, folds_of(groups))
                taken[f"{name} {kind} {width}"] = round(time.perf_counter() - began, 2)
    return taken


def measure(rounds: int, units: int, width: int) -> dict[str, Any]:
    """Return seconds, ratios and agreement."""
    x, y, classes, groups = make(units, width)
    every = folds_of(groups)

    def folds(one: Callable[[Fold], Array]) -> Array:
        return np.concatenate([one(fold) for fold in every])

    def ours(module: Any, target: Array) -> Array:
        return np.concatenate([one.values for one in module.fit_predict_folds(x, target, every)])

    contestants: dict[str, Callable[[], Array]] = {
        "ridge": lambda: ours(ridge, y),
        "scikit-learn ridge": lambda: folds(lambda fold: peer_ridge(x, y, fold)),
        "logistic": lambda: ours(logistic, classes),
        "scikit-learn logistic": lambda: folds(
            lambda fold: peer_logistic(x, classes, fold, "float64")
        ),
        "scikit-learn logistic float32": lambda: folds(
            lambda fold: peer_logistic(x, classes, fold, "float32")
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, Array] = {}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            answers[name] = run()
            seconds[name].append(time.perf_counter() - began)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    peer = min(middle["scikit-learn logistic"], middle["scikit-learn logistic float32"])
    apart = np.abs(_r2(y, answers["ridge"]) - _r2(y, answers["scikit-learn ridge"])).max()
    ratio, other = middle["scikit-learn ridge"] / middle["ridge"], peer / middle["logistic"]
    return {
        "units": units,
        "width": width,
        "rounds": rounds,
        "ratio": round(ratio, 2),
        "ratio_logistic": round(other, 2),
        "met": bool(ratio >= BAR and other >= BAR_LOGISTIC and apart <= 1e-4),
        "r2_apart": float(apart),
        "macro_f1": {
            name: round(_f1(classes, answers[name]), 4) for name in answers if "log" in name
        },
        "city_seconds": city_seconds(),
        "seconds": {name: [round(each, 2) for each in times] for name, times in seconds.items()},
    }


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of penalties near none
        result = measure(*(arguments + [3, 20_000, 512][len(arguments) :]))
    for contestant, times in result["seconds"].items():
        print(f"{contestant:32}{statistics.median(times):10.2f} s")
    for contestant, taken in result["city_seconds"].items():
        print(f"{contestant:32}{taken:10.2f} s on a city's table")
    print(
        f"ridge {result['ratio']} x (wanted {BAR}), R² apart by {result['r2_apart']:.1e}; logistic "
        f"{result['ratio_logistic']} x (wanted {BAR_LOGISTIC}), macro-F1 {result['macro_f1']}"
    )
    finish("probes", result)
