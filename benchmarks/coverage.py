"""Do intervals hold what they should? Simulated cities through the benchmark's own path.

    python -m benchmarks.coverage [CITIES]      (default 1000)

The cities are those of `benchmarks/_simulated.py`, once per range of their fields and number of
groups. The probes are ridge for the labels and kNN for the classes, settings chosen on nested
folds. The truth of a cell is the mean over its cities of the score, or of the difference between
the two methods' scores: what the estimand says. Coverage is how many cities' intervals hold it, of
the label for which that is lowest; `alone` is that of the plain jackknife-t, no allowance made for
neighbours and for learning. `3 trainings`: of each method, more or less noisy by chance; the truth
is the mean over cities and trainings, the interval that of `over_seeds`.

Of few cities of ten groups nothing is scored in one: nobody is told an interval, and none counts.

CITIES are simulated where the range is at most half a group, half as many beyond; of classes, whose
probe is slow, as many only where the bar is, a quarter elsewhere, and fewer where groups are many.
`ratio` is the lowest coverage where it is promised (range ≤ ¼ group for a score, ≤ ½ for a
difference) over 0.90.

Squared-exponential fields were the harder of two: exponential ones were covered a little better. So
was a range estimated from each city's label, as `urban bench` has it, instead of the true one.
"""

import functools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

from benchmarks._result import finish
from benchmarks._simulated import RESIDUALS, City, Design, Floats, draw_city, make_design
from urbancli.bench import statistics, validity
from urbancli.bench.evaluation import (
    Answers,
    Exam,
    answer,
    answer_together,
    compare,
    group_sums,
    make_exam,
    metric_of,
    score,
    with_probe,
)
from urbancli.bench.splits.base import NotScored
from urbancli.bench.statistics import Interval
from urbancli.bench.tasks.base import Task

BEGAN = time.perf_counter()

SEEDS, SEED_SPREAD, SEEDS_AT = 3, 0.3, (25, 0.25)
"""Trainings of a method, deviation of the logarithm of their noise, and groups and range where they
are looked at."""

CHUNK = 50
"""Cities of one cell that a process simulates at a time."""

PROMISED = {False: 0.25, True: 0.5}
"""Longest range, in sides of a group, where the bar is promised: of a score, of a difference."""

CLASSES = {10: (1.0, 0.25), 16: (1.0, 0.25), 25: (1.0, 0.25), 49: (0.5, 0.25), 100: (0.15, 0.15)}
"""Groups → share of the cities whose classes are asked, where the bar is and elsewhere."""

Kind = tuple[str, bool]

REGRESSION = Task("simulated", 1, "regression", "r2", shares_source=())
CLASSIFICATION = Task("simulated", 1, "classification", "macro_f1", shares_source=())


def examine(design: Design, city: City, *, classes: bool) -> Iterator[tuple[str, Exam, Answers]]:
    """Yield (label, exam, answers) of the first method, then of the second, label by label."""
    features = [city.features(method) for method in range(2)]
    exams = [
        make_exam(REGRESSION, city.labels[name], design.split, design.touch) for name in RESIDUALS
    ]
    found = [answer_together(exams, one) for one in features]
    for number, name in enumerate(RESIDUALS):
        yield from ((name, exams[number], answers[number]) for answers in found)
    if classes:
        try:
            exam = make_exam(CLASSIFICATION, city.labels["classes"], design.split, design.touch)
        except NotScored:  # a city of one class
            return
        exam = with_probe(exam, "knn")
        yield from (("classes", exam, answer(exam, one)) for one in features)


# --- coverage --------------------------------------------------------------------------------


class Part(NamedTuple):
    """Some cities of a cell.

    Attributes:
        groups: per city.
        range_in_groups: of all fields.
        first: number of the first city.
        cities: how many.
        task: `labels`, `classes` (labels and classes) or `seeds`.
    """

    groups: int
    range_in_groups: float
    first: int
    cities: int
    task: str


@functools.cache
def _design(groups: int, range_in_groups: float) -> Design:
    return make_design(groups, range_in_groups)


def simulate(part: Part) -> dict[tuple[str, str], Floats]:
    """Return (label, first | second | difference) → value and the ends of intervals, (cities, 5).

    The columns: value, low, high, and low and high of the plain jackknife-t.
    """
    design = _design(part.groups, part.range_in_groups)
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for number in range(part.first, part.first + part.cities):
        seed = [part.groups, round(1000 * part.range_in_groups), number]
        rng = np.random.default_rng(seed)
        city = draw_city(design, rng)
        found = _of_seeds if part.task == "seeds" else _of_labels
        for key, one, kind in found(part, design, city, rng):
            if one.too_few:
                continue  # ten groups, one of them of classes that are left out: no interval
            rows.setdefault(key, []).append(_ends(one, kind, part.range_in_groups))
    return {key: np.array(each) for key, each in rows.items()}


Found = Iterator[tuple[tuple[str, str], Interval, Kind]]


def _of_labels(part: Part, design: Design, city: City, rng: np.random.Generator) -> Found:
    """Yield the intervals of both methods and of their difference."""
    taken = list(examine(design, city, classes=part.task == "classes"))
    for (name, exam, one), (_, _, other) in zip(taken[::2], taken[1::2], strict=True):
        metric = statistics.metric_name(metric_of(exam))
        yield (name, "first"), score(exam, one), (metric, False)
        yield (name, "second"), score(exam, other), (metric, False)
        yield (name, "difference"), compare(exam, one, other), (metric, True)


def _of_seeds(part: Part, design: Design, city: City, rng: np.random.Generator) -> Found:
    """Yield the intervals over trainings of the first method, and of the difference."""
    exams = [
        make_exam(REGRESSION, city.labels[name], design.split, design.touch) for name in RESIDUALS
    ]
    sums: dict[tuple[int, int], list[Floats]] = {}
    for method in range(2):
        for louder in np.exp(SEED_SPREAD * rng.normal(size=SEEDS)):
            answers = answer_together(exams, city.features(method, louder))
            for label, one in enumerate(answers):
                parts = group_sums(exams[label], one, one.scored)
                sums.setdefault((label, method), []).append(parts)
    how = statistics.r_squared, len(design.units), part.range_in_groups
    for label, name in enumerate(RESIDUALS):
        first, second = sums[label, 0], sums[label, 1]
        yield (name, "first"), statistics.over_seeds(first, *how), ("r2", False)
        found = statistics.difference_over_seeds(first, second, *how)
        yield (name, "difference"), found, ("r2", True)


def _ends(found: Interval, kind: Kind, range_in_groups: float) -> tuple[float, ...]:
    """Return value, interval and, at the same cost of computation, that of the plain jackknife."""
    from scipy.special import stdtrit

    assert found.low is not None and found.high is not None and found.error is not None
    factor = statistics.widening(kind, found.groups, range_in_groups)[0]
    half = float(stdtrit(found.groups - 1, 0.975)) * found.error / np.sqrt(factor)
    return found.value, found.low, found.high, found.value - half, found.value + half


def covered(cities: Floats) -> tuple[float, float]:
    """Return how many intervals hold the mean of the values: ours, and the plain jackknife's."""
    truth = cities[:, 0].mean()
    ours = (cities[:, 1] <= truth) & (truth <= cities[:, 2])
    plain = (cities[:, 3] <= truth) & (truth <= cities[:, 4])
    return float(ours.mean()), float(plain.mean())


def plan(cities: int) -> list[Part]:
    """Return what is simulated, the longest parts first."""
    parts = []
    for groups in reversed(validity.GROUPS):
        for reach in validity.RANGES:
            wanted = cities if reach <= 0.5 else cities // 2
            asked = min(wanted, int(cities * CLASSES[groups][reach not in PROMISED.values()]))
            for task, start, end in (("classes", 0, asked), ("labels", asked, wanted)):
                for first in range(start, end, CHUNK):
                    parts.append(Part(groups, reach, first, min(CHUNK, end - first), task))
    for first in range(0, cities // 2, CHUNK):
        parts.append(Part(*SEEDS_AT, first, min(CHUNK, cities // 2 - first), "seeds"))
    return parts


Cells = dict[tuple[str, int, float, str, str], Floats]


def run(parts: list[Part]) -> Cells:
    """Return (seeds or labels, groups, range, label, whose) → intervals of all cities."""
    cells: dict[tuple[str, int, float, str, str], list[Floats]] = {}
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for number, (part, found) in enumerate(zip(parts, pool.map(simulate, parts), strict=True)):
            what = "seeds" if part.task == "seeds" else "labels"
            for (label, whose), rows in found.items():
                key = (what, part.groups, part.range_in_groups, label, whose)
                cells.setdefault(key, []).append(rows)
            print(f"\r{number + 1} of {len(parts)} parts", end="", file=sys.stderr)
    return {key: np.concatenate(rows) for key, rows in cells.items()}


# --- what is published -----------------------------------------------------------------------


def tabulate(cells: Cells) -> dict[str, Any]:
    """Return metric and kind → range → groups → coverage, its error, that alone, each label's."""
    laws: dict[tuple[str, str, str], dict[str, list[Floats]]] = {}
    for (what, groups, reach, label, whose), rows in cells.items():
        metric = "macro_f1" if label == "classes" else "r2"
        kind = "difference" if whose == "difference" else "score"
        name = f"{metric} {kind}" if what == "labels" else f"{metric} {kind}, {SEEDS} trainings"
        laws.setdefault((name, f"{reach:g}", f"{groups}"), {}).setdefault(label, []).append(rows)
    tables: dict[str, Any] = {}
    for (name, where, number), by_label in laws.items():
        tables.setdefault(name, {}).setdefault(where, {})[number] = _cell(by_label)
    return tables


def _cell(by_label: dict[str, list[Floats]]) -> dict[str, Any]:
    """Return what is published of a cell; both methods' scores are pooled."""
    shares = {
        label: np.mean([covered(rows) for rows in each], axis=0) for label, each in by_label.items()
    }
    cities = min(len(rows) for each in by_label.values() for rows in each)
    low, alone = (min(float(share[i]) for share in shares.values()) for i in range(2))
    return {
        "coverage": round(low, 4),
        "error": round(float(np.sqrt(low * (1 - low) / cities)), 4),
        "alone": round(alone, 4),
        "cities": cities,
        "labels": {label: round(float(share[0]), 4) for label, share in shares.items()},
        "mean": {
            label: [round(float(rows[:, 0].mean()), 3) for rows in each]
            for label, each in by_label.items()
        },
        "half_width": {
            label: [round(float(np.median(rows[:, 2] - rows[:, 1]) / 2), 3) for rows in each]
            for label, each in by_label.items()
        },
    }


def lowest(tables: dict[str, Any]) -> float:
    """Return the lowest coverage where the bar is promised."""
    promised = [
        float(cell["coverage"])
        for name, table in tables.items()
        for reach, row in table.items()
        if float(reach) <= PROMISED["difference" in name]
        for cell in row.values()
    ]
    return min(promised)


def show(tables: dict[str, Any]) -> None:
    """Print coverage in per cent, plain jackknife-t in brackets: ranges down, groups across."""
    for name in sorted(tables):
        print(f"\n{name}: % of 95 % intervals that hold the truth (jackknife alone)")
        columns = sorted({int(groups) for row in tables[name].values() for groups in row})
        print("range/group " + "".join(f"{groups:>14} " for groups in columns) + "groups")
        for reach, row in sorted(tables[name].items(), key=lambda item: float(item[0])):
            cells = [row.get(str(groups)) for groups in columns]
            print(f"{reach:>11} " + "".join(
                f"{100 * cell['coverage']:6.1f} ({100 * cell['alone']:4.1f}) " if cell else " " * 15
                for cell in cells
            ))  # fmt: skip


def main(cities: int) -> None:
    """Simulate, print the tables and write them."""
    tables = tabulate(run(plan(cities)))
    show(tables)
    least = lowest(tables)
    print(f"\nlowest where the bar of {validity.BAR} is promised: {least:.3f}")
    finish("coverage", {
        "ratio": round(least / validity.BAR, 3),
        "bar": 1.0,
        "met": bool(least >= validity.BAR),
        "lowest": least,
        "cities": cities,
        "coverage": tables,
        "learning": {f"{metric} {'difference' if paired else 'score'}": list(added)
                     for (metric, paired), added in statistics.LEARNING.items()},
        "seconds": round(time.perf_counter() - BEGAN),
    })  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
