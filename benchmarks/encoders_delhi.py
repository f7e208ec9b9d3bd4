"""Is the default image encoder the one to argue for? Encoders × logistic score on real data.

    python -m benchmarks.encoders_delhi [WORKSPACE]      (default a temporary one)

Delhi's Sentinel-2 mosaic (`sentinel2_rgb.tif`, three bands of relative radiometry) and the majority
ESA WorldCover class of 841 overlapping squares of 1.28 km (`landcover_patches.csv`, fetched as
circles of 640 m), as `urban fetch` reads them. Every image encoder without weights, with settings
that were chosen before any score was seen, is put to the benchmark's own exam beside the controls:
units in spatial groups, training units that touch a test unit in no fold, one logistic probe with
nested selection, macro-F1 with 95 % jackknife intervals over groups.

The exam is one for all: the largest window of any encoder decides which training units leave, so
the differences to the default (`rcf`) are paired. `inflation` is what a random split of the same
units, nobody removed, adds to the same score; units overlap, so it flatters. `seconds` are of
fitting and encoding, in a workspace that has no tokens yet. `ratio` is the default's score over the
best of all encoders: 1 says that none is better. Nothing here was tuned on these labels.

Land cover in WorldCover was itself made from Sentinel-2: the table compares encoders with each
other, it does not say how well land use can be known.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._result import DATA, finish
from urbancli import plugins
from urbancli.bench.contestants import Contestant, on_places
from urbancli.bench.controls import constant, coordinates, position_features
from urbancli.bench.evaluation import Answers, answer, at_random, compare, score
from urbancli.bench.papers import set_exam
from urbancli.bench.preparation import load_split, prepare
from urbancli.bench.statistics import Interval
from urbancli.encoding import encode_cached, fit_encoders, load_encoder, reach_of
from urbancli.errors import UrbanError
from urbancli.grid import Places
from urbancli.layers import CityLayers, open_city
from urbancli.spoiling import WHOLE
from urbancli.workspace import Workspace

FETCH = [
    "fetch", "--city", "delhi",
    "--imagery", f"sentinel2={DATA}/delhi/sentinel2_rgb.tif",
    "--label", f"land_cover={DATA}/delhi/landcover_patches.csv:class_name@640m",
]  # fmt: skip

LABEL, MODALITY, FOLDS, SEED = "land_cover", "sentinel2", 5, 0

DEFAULT = "rcf"

CANDIDATES = (
    ("rcf",),
    ("rcf,filters=1024",),
    ("rcf,patch_px=5",),
    ("rcf,window_m=1200",),
    ("rcf,tokens=patches",),
    ("rcf,tokens=both",),
    ("spectral",),
    ("rcf", "spectral"),
)
"""Encoders of the modality, several of one line joined; what the package does not have is left
out and named."""


@dataclass(frozen=True)
class Candidate:
    """An encoder, or several joined, that is scored.

    Attributes:
        contestant: what it gives.
        width: of its pooled vector.
        seconds: of fitting and encoding; None of a control.
    """

    contestant: Contestant
    width: int
    seconds: float | None = None


def encoded(city: CityLayers, places: Places, names: Sequence[str]) -> Candidate:
    """Return encoders, encoded.

    Raises:
        UrbanError: the package has no such encoder or setting, or the imagery does not suit it.
    """
    chosen = []
    for text in names:
        name, *overrides = text.split(",")
        chosen.append(load_encoder(name, overrides))
    encoders = tuple(chosen)
    started = time.perf_counter()
    state = fit_encoders(city, MODALITY, places, encoders, SEED)
    tokens = encode_cached(city, MODALITY, places, encoders, *state)
    seconds = time.perf_counter() - started
    title = " + ".join(one.title for one in encoders)
    pooled, present = tokens.pooled(), tokens.present
    reach_m = reach_of(encoders, MODALITY)
    contestant = Contestant(
        title, on_places(title, lambda spoiling: [(pooled, present)]), (MODALITY,),
        pretraining="transductive", reach_m=reach_m,
    )  # fmt: skip
    return Candidate(contestant, pooled.shape[1], seconds)


def candidates(city: CityLayers, places: Places) -> tuple[list[Candidate], dict[str, str]]:
    """Return the controls and encoders, and why some are left out."""
    where = coordinates(places)
    width = position_features(places).shape[1]
    found = [Candidate(constant(), 0), Candidate(where, width)]
    left_out, alone = {}, dict[str, float]()
    for names in CANDIDATES:
        missing = {text.split(",")[0] for text in names} - set(plugins.names("encoders"))
        if missing:
            left_out[" + ".join(names)] = f"no encoder {', '.join(sorted(missing))}"
            continue
        try:
            one = encoded(city, places, names)
        except UrbanError as err:
            left_out[" + ".join(names)] = str(err)
            continue
        # What is joined was encoded before, alone, and is taken from the cache.
        seconds = (one.seconds or 0.0) + sum(alone.get(text, 0.0) for text in names)
        alone[" + ".join(names)] = seconds
        found.append(replace(one, seconds=seconds))
    return found, left_out


def numbers(found: Interval) -> dict[str, float | None]:
    """Return a score and its interval as they are printed."""
    ends = {"value": found.value, "low": found.low, "high": found.high}
    return {name: None if end is None else round(end, 4) for name, end in ends.items()}


def examine(city: CityLayers) -> dict[str, Any]:
    """Return what every candidate scores, against the default and in a random split."""
    places = city.tiles()
    entrants, left_out = candidates(city, places)
    material = prepare(city, places, LABEL)
    windows = [one.contestant.reach_m for one in entrants]
    exam = set_exam(material, load_split(city, material, "spatial", SEED, FOLDS), places, windows)
    flattering = at_random(exam, SEED)
    spatial: dict[str, Answers] = {}
    rows: dict[str, dict[str, Any]] = {}
    for one in entrants:
        name = one.contestant.method
        features: npt.NDArray[np.float32] = one.contestant.on_units(material, WHOLE)
        spatial[name], flattered = answer(exam, features), answer(flattering, features)
        rows[name] = {
            **numbers(score(exam, spatial[name])),
            "random": round(score(flattering, flattered).value, 4),
            "inflation": numbers(compare(exam, flattered, spatial[name])),
            "width": one.width,
            "seconds": None if one.seconds is None else round(one.seconds, 1),
            "window_m": one.contestant.reach_m,
            "imputed": spatial[name].imputed,
            "unconverged": spatial[name].unconverged,
        }
    for name, row in rows.items():
        row["over_default"] = numbers(compare(exam, spatial[name], spatial[DEFAULT]))
    return {
        "rows": rows,
        "left_out": left_out,
        "units": len(exam.target),
        "scored": int(exam.kept.sum()),
        "classes": {
            name: int((exam.target == number).sum()) for number, name in enumerate(exam.classes)
        },
        "group_m": exam.split.group_m,
        "removed_per_fold": exam.removed,
        "notes": [*material.notes, *exam.notes],
    }


def show(found: dict[str, Any]) -> None:
    """Print the table."""

    def text(part: dict[str, float | None], sign: str = "") -> str:
        if part["low"] is None:
            return f"{part['value']:{sign}.3f}"
        return f"{part['value']:{sign}.3f} [{part['low']:{sign}.3f}, {part['high']:{sign}.3f}]"

    print(
        f"Delhi, land cover: macro-F1 of {found['scored']} units in groups of {found['group_m']} "
        f"m, classes {found['classes']}, training units removed per fold "
        f"{list(found['removed_per_fold'])}"
    )
    print(f"{'':24}{'macro-F1':>22}{'over rcf':>26}{'inflation':>26}{'width':>7}{'s':>7}")
    for name, row in found["rows"].items():
        over = "" if name == DEFAULT else text(row["over_default"], "+")
        seconds = "" if row["seconds"] is None else row["seconds"]
        print(
            f"{name:24}{text(row):>22}{over:>26}{text(row['inflation'], '+'):>26}"
            f"{row['width']:>7}{seconds:>7}"
        )
    for name, why in found["left_out"].items():
        print(f"left out: {name}: {why}")
    for note in found["notes"]:
        print(f"note: {note}")


def main(folder: Path) -> None:
    """Fetch Delhi where it is not there, examine it, and print."""
    workspace = Workspace(folder)
    if "delhi" not in workspace.cities():
        command = [sys.executable, "-m", "urbancli", "--workspace", str(folder), *FETCH]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = examine(open_city(workspace, "delhi"))
    show(found)
    encoders = {name: row for name, row in found["rows"].items() if row["seconds"] is not None}
    best = max(encoders, key=lambda name: encoders[name]["value"])
    gaps = {n: row["over_default"] for n, row in encoders.items() if n != DEFAULT}
    better = [name for name, gap in gaps.items() if (gap["low"] or 0.0) > 0]
    worse = [name for name, gap in gaps.items() if (gap["high"] or 0.0) < 0]
    finish("encoders_delhi", {
        "ratio": round(encoders[DEFAULT]["value"] / encoders[best]["value"], 3),
        "best": best,
        "surely_better_than_default": better,
        "surely_worse_than_default": worse,
        **found,
    })  # fmt: skip


if __name__ == "__main__":
    if not DATA.is_dir():
        raise SystemExit(f"needs the real data in {DATA}")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
