"""The hidden factors of the SYNTHETIC demo city, and beside them CooKIE's four tasks on it.

A factor was drawn before there was any modality: none shares its source.
"""

from urbancli.bench.tasks import cookie
from urbancli.bench.tasks.base import Task
from urbancli.labels.files import Label

SPECIFICITY = 1

SUITE = (*cookie.SUITE, "factor_*")


def task(label: Label) -> Task | None:
    """Return the task of a label called `factor_…` that holds numbers."""
    if not label.name.startswith("factor_") or label.kind != "regression":
        return None
    return Task(label.name, 1, "regression", "r2", "identity", ())
