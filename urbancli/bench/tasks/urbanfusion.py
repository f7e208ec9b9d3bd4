"""Tasks of the UrbanFusion paper (arXiv 2510.13774) that a user's own label file can bring.

Land cover, its task 39, is made from satellite imagery (NLCD; WorldCover elsewhere).
"""

from urbancli.bench.tasks.base import Task
from urbancli.labels.files import Label

SPECIFICITY = 1

LAND_COVER = Task("land_cover", 1, "classification", "macro_f1", "identity", ("satellite",))

SUITE = (LAND_COVER.name,)


def task(label: Label) -> Task | None:
    """Return the task of a label called `land_cover` that holds classes."""
    return LAND_COVER if (label.name, label.kind) == ("land_cover", "classification") else None
