"""Is the truth of the demo city true? Probes on each modality's frozen tokens, over many cities.

    python -m benchmarks.demo_truth [FIRST_SEED [CITIES [TILES]]]      (default 100 20 40)

Every city is made, fetched by the ordinary sources and encoded by the default encoders; then ridge
regression on the pooled tokens of one modality predicts every factor, in the benchmark's own
spatial folds (groups held out, training units whose windows touch a test unit removed). The synergy
target has a probe of its own beside ridge, which can learn products. Seeds from 100 on were never
looked at while the city was made. `ratio` is the lowest mean R² of a factor that shows, over the
0.5 wanted.
"""

import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._result import finish
from urbancli.bench.contestants import Contestant, on_places
from urbancli.bench.evaluation import Exam, answer_together, score
from urbancli.bench.papers import set_exam
from urbancli.bench.preparation import Material, load_split, prepare
from urbancli.bench.probes.base import inner_folds, standardise
from urbancli.demo.factors import FACTORS, MODALITIES, SYNERGY, TARGETS
from urbancli.demo.recipe import Recipe
from urbancli.spoiling import WHOLE

Floats = npt.NDArray[np.float64]

COMPONENTS = (8, 16, 32, 64)
"""Principal components per modality that the probe of products chooses from."""

LARGEST = 4.0
"""Of a principal component, in standard deviations."""

WANTED, LOWEST, HIGHEST = 0.5, -0.05, 0.03
"""Mean R² wanted of a factor that shows; least and most of one that does not."""

SYNERGY_WANTED, SYNERGY_ALONE = 0.3, 0.05


def ignore(*_: Any) -> None:
    """Hear of progress and say nothing."""


def examine(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return R² per modality and target, and of the synergy per set of modalities.

    Args:
        recipe: of the city.
        folder: where its files and workspace go.
    """
    from urbancli.cli._demo import demo_labels, demo_sources
    from urbancli.demo.files import demo_city, make_inputs
    from urbancli.encoding import choose, encode_cached, fit_encoders, reach_of
    from urbancli.fetching import fetch
    from urbancli.layers import open_city
    from urbancli.workspace import Workspace

    workspace = Workspace(folder)
    inputs = workspace.inputs_dir(recipe.key)
    make_inputs(inputs, recipe, ignore)
    labels = [spec for spec in demo_labels(inputs) if spec.name.startswith("factor_")]
    fetch(workspace, demo_city(recipe), demo_sources(inputs), labels)
    city = open_city(workspace, recipe.key)
    places = city.tiles()
    contestants = {}
    for modality in MODALITIES:
        encoders = choose()[modality]
        state = fit_encoders(city, modality, places, encoders)
        tokens = encode_cached(city, modality, places, encoders, *state)
        contestants[modality] = _contestant(modality, tokens.pooled(), tokens.present)
    windows = [reach_of(choose()[name], name) for name in MODALITIES]
    papers: dict[str, list[tuple[str, Material, Exam]]] = {}
    for target in TARGETS:
        material = prepare(city, places, f"factor_{target}")
        split = load_split(city, material, "spatial", 0, 5)
        exam = set_exam(material, split, places, windows)
        papers.setdefault(exam.sitting(material.alignment), []).append((target, material, exam))
    scores: dict[str, dict[str, float]] = {name: {} for name in MODALITIES}
    synergy: dict[str, float] = {}
    for sitting in papers.values():
        exams = [exam for _, _, exam in sitting]
        features = {
            name: contestant.on_units(sitting[0][1], WHOLE)
            for name, contestant in contestants.items()
        }
        for name, values in features.items():
            found = answer_together(exams, values)
            for (target, _, exam), answers in zip(sitting, found, strict=True):
                scores[name][target] = score(exam, answers).value
        for target, _, exam in sitting:
            if target == "synergy":
                synergy = products(exam, features)
    return {"seed": recipe.seed, "scores": scores, "synergy": synergy}


def _contestant(name: str, pooled: npt.NDArray[Any], present: npt.NDArray[np.bool_]) -> Contestant:
    return Contestant(name, on_places(name, lambda spoiling: [(pooled, present)]), (name,))


# --- the probe of products -------------------------------------------------------------------


def products(exam: Exam, features: dict[str, npt.NDArray[Any]]) -> dict[str, float]:
    """Return R² of the probe of products on the synergy's two modalities, together and alone."""
    owner = {factor.name: factor.shows_in[0] for factor in FACTORS}
    first, second = (owner[name] for name in SYNERGY)
    both = (features[first], features[second])
    alone = {name: (features[name], features[name]) for name in (first, second)}
    found = {}
    for name, blocks in {f"{first} and {second}": both, **alone}.items():
        predicted = np.zeros(len(exam.target))
        baseline = np.zeros(len(exam.target))
        for fold in range(exam.split.folds):
            train, test = exam.training[fold], exam.split.fold == fold
            order = exam.split.order[train]
            predicted[test] = fit_product(blocks, exam.target, train, test, order)
            baseline[test] = exam.target[train].mean()
        errors = ((exam.target - predicted) ** 2).sum()
        found[name] = float(1 - errors / ((exam.target - baseline) ** 2).sum())
    return found


def fit_product(
    blocks: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    target: Floats,
    train: npt.NDArray[np.bool_],
    test: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
) -> Floats:
    """Return predictions (test units,) of target ≈ c + β (u·a)(v·b), fitted on training units.

    a and b are whitened principal components of the two blocks; u and v are the leading singular
    vectors of the mean of (y − ȳ) a bᵀ. The number of components and β come from predictions on
    inner spatial folds, so that where there is no product β is about 0.
    """
    inner = inner_folds(order)
    index = np.flatnonzero(train)
    best, chosen, beta = np.inf, COMPONENTS[0], 0.0
    centred = target - target[train].mean()
    for count in COMPONENTS:
        out = np.zeros(len(target))
        for fold in np.unique(inner):
            held = np.zeros(len(target), dtype=bool)
            held[index[inner == fold]] = True
            out[held] = _product(blocks, target, train & ~held, held, count)
        slope = max(0.0, float(out[train] @ centred[train] / max(out[train] @ out[train], 1e-12)))
        error = float(((centred[train] - slope * out[train]) ** 2).sum())
        if error < best:
            best, chosen, beta = error, count, slope
    along = _product(blocks, target, train, test, chosen)
    return np.asarray(target[train].mean() + beta * along, dtype=np.float64)


def _product(
    blocks: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    target: Floats,
    train: npt.NDArray[np.bool_],
    test: npt.NDArray[np.bool_],
    count: int,
) -> Floats:
    (a, a_test), (b, b_test) = (_whitened(block[train], block[test], count) for block in blocks)
    y = target[train] - target[train].mean()
    moment = (a * y[:, None]).T @ b / len(y)
    left, values, right = np.linalg.svd(moment)
    along: Floats = values[0] * (a_test @ left[:, 0]) * (b_test @ right[0])
    return along


def _whitened(train: npt.NDArray[Any], test: npt.NDArray[Any], count: int) -> tuple[Floats, Floats]:
    """Return the leading principal components of standardised columns at unit variance.

    Cut off at ±LARGEST: of two heavy tails the product would be all that a fit sees.
    """
    x, z = standardise(train, test)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    axes = vectors[:, ::-1][:, :count] / np.sqrt(np.maximum(values[::-1][:count], 1e-9))
    return (x @ axes).clip(-LARGEST, LARGEST), (z @ axes).clip(-LARGEST, LARGEST)


# --- many cities -----------------------------------------------------------------------------


def examine_seed(seed: int, tiles: int) -> dict[str, Any]:
    """Return what `examine` finds in the city of a seed, its files thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        return examine(Recipe(seed, tiles), Path(folder))


def examine_cities(seeds: list[int], tiles: int, processes: int = 2) -> dict[str, Any]:
    """Return the means over cities, and whether each bar of the demo city is met.

    Args:
        seeds: of the cities.
        tiles: along a side.
        processes: cities made at a time.
    """
    # A spawned process has one thread for BLAS: cities are what runs side by side.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        cities = list(pool.map(examine_seed, seeds, [tiles] * len(seeds)))
    table = {
        name: {t: [city["scores"][name][t] for city in cities] for t in TARGETS}
        for name in MODALITIES
    }
    synergy = {name: [city["synergy"][name] for city in cities] for name in cities[0]["synergy"]}
    shows = {factor.name: factor.shows_in for factor in FACTORS}
    shown: list[tuple[float, str]] = []
    hidden: list[tuple[float, str]] = []
    for name in MODALITIES:
        for target in shows:
            mean = float(np.mean(table[name][target]))
            (shown if name in shows[target] else hidden).append((mean, f"{target} in {name}"))
    together, *alone = (float(np.mean(values)) for values in synergy.values())
    linear = max(float(np.mean(table[name]["synergy"])) for name in MODALITIES)
    return {
        "cities": len(seeds),
        "tiles": tiles,
        "least_shown": min(shown),
        "hidden_range": [min(hidden), max(hidden)],
        "synergy_together": round(together, 3),
        "synergy_alone": [round(value, 3) for value in alone],
        "synergy_linear": round(linear, 3),
        "met": {
            "shown": min(shown)[0] >= WANTED,
            "hidden": min(hidden)[0] >= LOWEST and max(hidden)[0] <= HIGHEST,
            "synergy": together >= SYNERGY_WANTED and max(*alone, linear) <= SYNERGY_ALONE,
        },
        "mean": {
            n: {t: round(float(np.mean(v)), 3) for t, v in s.items()} for n, s in table.items()
        },
        "sd": {n: {t: round(float(np.std(v)), 3) for t, v in s.items()} for n, s in table.items()},
    }


def show(found: dict[str, Any]) -> None:
    """Print means ± standard deviations over cities, what shows in capitals of its own column."""
    shows = {factor.name: factor.shows_in for factor in FACTORS}
    print(f"R² over {found['cities']} cities of {found['tiles']}² tiles, mean ± sd; * shows there")
    print(f"{'':12}" + "".join(f"{name:>18}" for name in MODALITIES))
    for target in TARGETS:
        cells = []
        for name in MODALITIES:
            star = "*" if name in shows.get(target, ()) else " "
            cell = f"{found['mean'][name][target]:.2f} ± {found['sd'][name][target]:.2f}{star}"
            cells.append(f"{cell:>18}")
        print(f"{target:12}" + "".join(cells))
    print(
        f"synergy with a probe of products: {found['synergy_together']:.2f} with both, "
        f"{found['synergy_alone']} with either"
    )
    print(json.dumps(found["met"]))


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    first, count, tiles = (*numbers, *(100, 20, 40)[len(numbers) :])
    result = examine_cities(list(range(first, first + count)), tiles)
    show(result)
    finish("demo_truth", {"ratio": round(result["least_shown"][0] / WANTED, 2), **result})
