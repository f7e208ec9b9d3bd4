"""Any other label: numbers are a regression as they stand, words are classes."""

from urbancli.bench.tasks.base import Task
from urbancli.labels.files import Label

SPECIFICITY = 0
"""Below every family that knows a label by its name."""


def task(label: Label) -> Task | None:
    """Return the task of any label; from which modalities it was made, nobody told us."""
    if label.kind == "classification":
        return Task(label.name, 1, "classification", "macro_f1")
    return Task(label.name, 1, "regression", "r2")
