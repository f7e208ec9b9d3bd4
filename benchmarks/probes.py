"""The probes against scikit-learn: every fold, penalty and target, with the choice of penalties.

    python -m benchmarks.probes [ROUNDS [UNITS [WIDTH]]]      (default 3 20000 512)

Ridge: 41 targets, 5 folds, 13 penalties, chosen per target on 4 inner folds. Peer: scikit-learn's
multi-target `Ridge` as it is, fitted on the same inner folds for every penalty, and on the whole
training set for every penalty that some target chose, once each. Logistic: 8 classes, 6 penalties
from strong to weak, chosen on 4 inner folds by macro-F1. Peer: `LogisticRegression` with
`warm_start` along the penalties, at the same tolerance, as it is with float64 and once with
float32; the faster counts.

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
from urbancli.bench.probes.base import inner_folds
from urbancli.bench.statistics import confusion, macro_f1

TARGETS, CLASSES, FOLDS, GROUPS = 41, 8, 5, 200
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


def peer_ridge(x: Array, y: Array, groups: Array, train: Array, test: Array) -> Array:
    """Return the predictions of scikit-learn's Ridge for one fold."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    def fits(inside: Array, outside: Array, penalties: Array) -> Array:
        scaler = StandardScaler().fit(x[inside])
        own, other = scaler.transform(x[inside]), scaler.transform(x[outside])
        alphas = penalties * len(own)
        return np.stack([Ridge(alpha=a).fit(own, y[inside]).predict(other) for a in alphas])

    rows, inner = np.flatnonzero(train), inner_folds(groups[train])
    errors = np.zeros((len(ridge.PENALTIES), y.shape[1]))
    for fold in np.unique(inner):
        inside, outside = rows[inner != fold], rows[inner == fold]
        errors += ((fits(inside, outside, ridge.PENALTIES) - y[outside]) ** 2).sum(axis=1)
    best = errors.argmin(axis=0)
    used, place = np.unique(best, return_inverse=True)
    found = fits(rows, np.flatnonzero(test), ridge.PENALTIES[used])
    return np.asarray(found[place, :, np.arange(y.shape[1])].T)


def peer_logistic(
    x: Array, classes: Array, groups: Array, train: Array, test: Array, kind: str
) -> Array:
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

    rows, inner = np.flatnonzero(train), inner_folds(groups[train])
    guesses = np.zeros((len(logistic.PENALTIES), len(rows)), dtype=np.int64)
    for fold in np.unique(inner):
        out = inner == fold
        guesses[:, out] = path(rows[~out], rows[out], len(guesses))
    best = int(np.argmax([_f1(classes[rows], guess) for guess in guesses]))
    return np.asarray(path(rows, np.flatnonzero(test), best + 1)[best])


def _f1(truth: Array, guess: Array) -> float:
    one = np.zeros(len(truth), dtype=np.int64)
    return float(macro_f1(confusion(truth, guess, one, CLASSES).sum(axis=0)))


def _r2(y: Array, predicted: Array) -> Array:
    return np.asarray(
        1 - ((y - predicted) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    )


def measure(rounds: int, units: int, width: int) -> dict[str, Any]:
    """Return seconds, ratios and agreement."""
    x, y, classes, groups = make(units, width)
    fold = groups * FOLDS // GROUPS
    training = [fold != one for one in range(FOLDS)]
    testing = [fold == one for one in range(FOLDS)]

    def folds(one: Callable[[Array, Array], Array]) -> Array:
        return np.concatenate([one(*pair) for pair in zip(training, testing, strict=True)])

    def ours(module: Any, target: Array) -> Array:
        found = module.fit_predict_folds(x, target, groups, training, testing)
        return np.concatenate([one.values for one in found])

    contestants: dict[str, Callable[[], Array]] = {
        "ridge": lambda: ours(ridge, y),
        "scikit-learn ridge": lambda: folds(lambda a, b: peer_ridge(x, y, groups, a, b)),
        "logistic": lambda: ours(logistic, classes),
        "scikit-learn logistic": lambda: folds(
            lambda a, b: peer_logistic(x, classes, groups, a, b, "float64")
        ),
        "scikit-learn logistic float32": lambda: folds(
            lambda a, b: peer_logistic(x, classes, groups, a, b, "float32")
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
        "seconds": {name: [round(each, 2) for each in times] for name, times in seconds.items()},
    }


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of penalties near none
        result = measure(*(arguments + [3, 20_000, 512][len(arguments) :]))
    for contestant, times in result["seconds"].items():
        print(f"{contestant:32}{statistics.median(times):10.2f} s")
    print(
        f"ridge {result['ratio']} x (wanted {BAR}), R² apart by {result['r2_apart']:.1e}; logistic "
        f"{result['ratio_logistic']} x (wanted {BAR_LOGISTIC}), macro-F1 {result['macro_f1']}"
    )
    finish("probes", result)
