"""From a label's file to what can be asked: which units count, how they are split, who touches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.splits._files import split_file
from urbancli.bench.splits.base import NotScored, Split, Units, make_units, near, touching
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
        name: of the label.
        task: what is asked.
        units: U units.
        values: (U,) as in the label.
        alignment: of these units to the city's tiles.
        pins: what their split depends on, beside the number of folds.
        notes: what was left out.
    """

    name: str
    task: Task
    units: Units
    values: npt.NDArray[Any]
    alignment: Alignment
    pins: dict[str, Any]
    notes: tuple[str, ...]


def prepare(city: CityLayers, places: Places, name: str) -> Material:
    """Return what a label offers to be scored on.

    Args:
        city: a fetched city.
        places: its tiles.
        name: of the label.

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
        "label_sha256": sha256(city.workspace.label_file(city.key, name)),
        "places": fingerprint([places.grid.epsg, *places.place_id.tolist()]),
        "task_version": task.version,
        "transform": task.transform,
        **city.marks(),
    }
    units = make_units(places.grid, label.unit_id[kept], label.geometry[kept], name)
    used = Alignment(alignment.weights[kept], alignment.coverage[kept])
    return Material(name, task, units, label.value[kept], used, pins, tuple(notes))


def _left_out(why: str, label: Label, mask: npt.NDArray[np.bool_]) -> list[str]:
    count = int(mask.sum())
    if not count:
        return []
    listed = [str(unit) for unit in label.unit_id[mask][:LISTED]]
    more = ", …" if count > LISTED else ""
    return [f"{count:,} of {len(mask):,} units {why}, left out: {', '.join(listed)}{more}"]


def load_split(city: CityLayers, material: Material, kind: str, seed: int, folds: int) -> Split:
    """Return the split of a label's units from its file, which is made where it does not fit.

    Args:
        city: of the label.
        material: its units.
        kind: of the split, a file of `bench.splits`.
        seed: of the split.
        folds: wanted number of folds, where the kind does not say.

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
    path = city.workspace.split_file(city.key, material.name, seed, kind)
    return split_file(path, kind, material.units, target, {**material.pins, "seed": seed}, folds)


def touching_units(
    material: Material, split: Split, places: Places, windows_m: Sequence[float]
) -> Any:
    """Return which units (U, U) must not be learnt from where others are predicted, sparse.

    Args:
        material: its units.
        split: says whether units that touch must go, and how near others may be.
        places: the city's tiles.
        windows_m: of the encoders of all compared methods, metres: the largest counts.
    """
    touch: Any = None
    if split.apart:
        weights = material.alignment.weights
        touch = touching(material.units, places, weights, max(windows_m, default=0.0))
    if split.buffer_m:
        close = near(material.units, split.buffer_m)
        touch = close if touch is None else (touch + close) > 0
    return touch
