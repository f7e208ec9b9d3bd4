"""From a label's file to an exam: which units count, how they are split, who touches whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.evaluation import Exam, make_exam
from urbancli.bench.splits import NotScored, Split, Units, make_units, split_file, touching
from urbancli.bench.tasks.base import Task, find_task, has_value, indicators, regression_target
from urbancli.embeddings import Alignment, align
from urbancli.grid import Places
from urbancli.labels.files import Label, load_label
from urbancli.layers import CityLayers
from urbancli.workspace import fingerprint, sha256

MIN_COVERAGE = 0.5
"""A unit counts where the city's tiles cover at least this share of it, for all methods alike."""

LISTED = 5
"""How many units left out are named."""


@dataclass(frozen=True)
class Material:
    """A label's units with a value and enough coverage.

    Attributes:
        task: what is asked.
        units: U units.
        values: (U,) as in the label.
        alignment: of these units to the city's tiles.
        pins: what their split depends on, beside the number of folds.
        notes: what was left out.
    """

    task: Task
    units: Units
    values: npt.NDArray[Any]
    alignment: Alignment
    pins: dict[str, Any]
    notes: tuple[str, ...]


def prepare(city: CityLayers, places: Places, name: str, seed: int) -> Material:
    """Return what a label offers to be scored on.

    Args:
        city: a fetched city.
        places: its tiles.
        name: of the label.
        seed: of the folds.

    Raises:
        UrbanError: two units have the same id.
    """
    label = load_label(city.workspace, city.key, name)
    task = find_task(label)
    alignment = align(label.geometry, places)
    known = has_value(label)
    covered = alignment.coverage >= MIN_COVERAGE
    kept = np.flatnonzero(known & covered)
    notes = [
        *_left_out("without a value", label, ~known),
        *_left_out("covered by tiles less than half", label, known & ~covered),
    ]
    pins = {
        "city": city.key,
        "label": name,
        "seed": seed,
        "label_sha256": sha256(city.workspace.label_file(city.key, name)),
        "places": fingerprint([places.grid.epsg, *places.place_id.tolist()]),
        "task_version": task.version,
        "transform": task.transform,
        **city.marks(),
    }
    units = make_units(places.grid, label.unit_id[kept], label.geometry[kept], name)
    used = Alignment(alignment.weights[kept], alignment.coverage[kept])
    return Material(task, units, label.value[kept], used, pins, tuple(notes))


def _left_out(why: str, label: Label, mask: npt.NDArray[np.bool_]) -> list[str]:
    count = int(mask.sum())
    if not count:
        return []
    listed = [str(unit) for unit in label.unit_id[mask][:LISTED]]
    more = ", …" if count > LISTED else ""
    return [f"{count:,} of {len(mask):,} units {why}, left out: {', '.join(listed)}{more}"]


def load_split(city: CityLayers, material: Material, folds: int) -> Split:
    """Return the split of a label's units from its file, which is made where it does not fit.

    Raises:
        NotScored: the target is constant, or there are no two groups.
    """
    task, values = material.task, material.values
    if not len(values):
        raise NotScored(
            "none of its units has a value and lies half in the city's tiles: fetch a larger area"
        )
    if task.kind == "classification":
        target = indicators(task, values)
    else:
        target = regression_target(task, values)[:, None]
    return split_file(split_path(city, material), material.units, target, material.pins, folds)


def split_path(city: CityLayers, material: Material) -> Path:
    """Return the split file of a label and seed."""
    pins = material.pins
    return city.workspace.split_file(city.key, str(pins["label"]), int(pins["seed"]))


def set_exam(material: Material, split: Split, places: Places, windows_m: Sequence[float]) -> Exam:
    """Return the exam on a label.

    Args:
        material: its units.
        split: of these.
        places: the city's tiles.
        windows_m: of the encoders of all compared methods, metres: the largest counts.

    Raises:
        NotScored: too little is left to learn from.
    """
    weights = material.alignment.weights
    touch = touching(material.units, places, weights, max(windows_m, default=0.0))
    return make_exam(material.task, material.values, split, touch)
