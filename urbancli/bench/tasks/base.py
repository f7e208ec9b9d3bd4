"""The contract of a task family, and what every task does to a label before it is probed.

A family is one file with `SPECIFICITY` and `task(label) -> Task | None`. The most specific family
that knows a label defines its task. A family with `SUITE`, names of labels where `*` stands for any
text, is a suite too, under its file's name.
"""

import fnmatch
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from urbancli import plugins
from urbancli.bench.splits.base import MIN_CLASS_GROUPS, MIN_CLASS_UNITS, NotScored
from urbancli.errors import unknown
from urbancli.labels.files import Label
from urbancli.layers import expand_modalities

OTHER = "other"
"""What rare classes become together, where that is not rare itself."""


@dataclass(frozen=True)
class Task:
    """What is asked of a label.

    Attributes:
        name: of the task; the label's.
        version: raised whenever the same label would score otherwise.
        kind: `regression` or `classification`.
        metric: `r2` or `macro_f1`.
        transform: of the values before the probe sees them.
        shares_source: modalities or groups from which the label was made too, so that a method
            that reads them has an unfair advantage; None where nobody declared it.
    """

    name: str
    version: int
    kind: Literal["regression", "classification"]
    metric: Literal["r2", "macro_f1"]
    transform: Literal["identity", "log1p"] = "identity"
    shares_source: tuple[str, ...] | None = None

    def leak(self, modalities: tuple[str, ...]) -> str:
        """Return which of the modalities share the label's source, comma-separated.

        `unknown` where it was never declared.
        """
        if self.shares_source is None:
            return "unknown"
        shared = set(expand_modalities(self.shares_source))
        return ",".join(name for name in modalities if name in shared)


def find_task(label: Label) -> Task:
    """Return the task of a label, from the most specific family that knows it."""
    families = [plugins.load("bench.tasks", name) for name in plugins.names("bench.tasks")]
    for family in sorted(families, key=lambda module: -module.SPECIFICITY):
        task: Task | None = family.task(label)
        if task is not None:
            return task
    raise ValueError(f"no task family takes the label '{label.name}'")


def suites() -> list[str]:
    """Return the names of the suites."""
    names = plugins.names("bench.tasks")
    return [name for name in names if hasattr(plugins.load("bench.tasks", name), "SUITE")]


def in_suite(suite: str, label: str) -> bool:
    """Return whether a label of this name belongs to a suite.

    Raises:
        UsageError: there is no such suite.
    """
    if suite not in suites():
        raise unknown("suite", suite, suites())
    patterns = plugins.load("bench.tasks", suite).SUITE
    return any(fnmatch.fnmatchcase(label, pattern) for pattern in patterns)


def has_value(label: Label) -> npt.NDArray[np.bool_]:
    """Return which units (U,) have a value."""
    if label.kind == "classification":
        return np.array([value is not None and value == value for value in label.value], dtype=bool)
    return np.asarray(np.isfinite(label.value.astype(np.float64)))


def regression_target(task: Task, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return transformed values (U,), float64.

    Raises:
        NotScored: all values are equal, or log1p is asked of one below 0.
    """
    numbers = values.astype(np.float64)
    if task.transform == "log1p":
        if (numbers < 0).any():
            raise NotScored(
                f"task '{task.name}' takes log1p of its values, and {(numbers < 0).sum()} are "
                "negative: correct the label's file, or give the label another name"
            )
        numbers = np.log1p(numbers)
    if np.ptp(numbers) <= 1e-12 * np.abs(numbers).max():
        raise NotScored(
            f"task '{task.name}' has the same value {values[0]} in all {len(values)} units: "
            "nothing can be predicted, take another column"
        )
    return numbers


def indicators(task: Task, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return class indicators (U, K), 0 or 1.

    Raises:
        NotScored: all units are of one class.
    """
    names = np.unique(values.astype(str))
    if len(names) < 2:
        raise NotScored(
            f"task '{task.name}' has the same class {values[0]} in all {len(values)} units: "
            "nothing can be predicted, take another column"
        )
    return np.asarray(values.astype(str)[:, None] == names[None, :], dtype=np.float64)


def merge_classes(
    values: npt.NDArray[Any], groups: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.object_], tuple[str, ...]]:
    """Return the classes to score (U,), None where left out, and what was done, in words.

    Classes with fewer than 20 units or in fewer than 5 groups become `other`, where `other` then
    has enough of both; else they are left out.

    Args:
        values: (U,) class names.
        groups: (U,) the units' spatial groups.

    Raises:
        NotScored: fewer than two classes remain.
    """
    classes = values.astype(str).astype(object)
    counts = {name: int((classes == name).sum()) for name in np.unique(classes.astype(str))}
    rare = [name for name in counts if not _enough(classes == name, groups)]
    merged = np.isin(classes.astype(str), [*rare, OTHER])
    notes: tuple[str, ...] = ()
    if rare:
        listed = ", ".join(f"{name} ({counts[name]})" for name in rare)
        if _enough(merged, groups):
            classes[merged] = OTHER
            notes = (f"classes merged into '{OTHER}': {listed}",)
        else:
            classes[np.isin(classes.astype(str), rare)] = None
            notes = (f"classes left out: {listed}",)
        notes = (f"{notes[0]}; fewer than {MIN_CLASS_UNITS} units or {MIN_CLASS_GROUPS} groups",)
    left = {name for name in classes if name is not None}
    if len(left) < 2:
        raise NotScored(
            f"only {len(left)} of {len(counts)} classes has {MIN_CLASS_UNITS} units in "
            f"{MIN_CLASS_GROUPS} groups, nothing can be told apart: fetch a larger area or take "
            "coarser classes"
        )
    return classes, notes


def _enough(member: npt.NDArray[np.bool_], groups: npt.NDArray[Any]) -> bool:
    return bool(
        member.sum() >= MIN_CLASS_UNITS and len(set(groups[member].tolist())) >= MIN_CLASS_GROUPS
    )
