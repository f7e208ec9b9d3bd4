"""The four tasks of the CooKIE paper (arXiv 2505.18178): a label of such a name is such a task.

Sources follow the suite's usual label files: WorldPop's population is modelled from building
footprints and land cover, greenness is an index of multispectral imagery, and WorldCover and IO
LULC are made from Sentinel. The user's own file may come from elsewhere, which a name cannot tell:
a leak is declared rather than overlooked.
"""

from urbancli.bench.tasks.base import Task
from urbancli.labels.files import Label

SPECIFICITY = 1

TASKS = {
    task.name: task
    for task in (
        # `entities` are OSM's, and hold the buildings.
        Task("population_density", 1, "regression", "r2", "log1p",
             ("buildings", "entities", "satellite")),
        Task("crime", 1, "regression", "r2", "log1p", ()),
        Task("greenness", 1, "regression", "r2", "identity", ("sentinel2", "naip")),
        Task("land_use", 1, "classification", "macro_f1", "identity", ("satellite",)),
    )
}  # fmt: skip

SUITE = tuple(TASKS)


def task(label: Label) -> Task | None:
    """Return the task of a label with one of the four names and the right kind of values."""
    known = TASKS.get(label.name)
    return known if known and known.kind == label.kind else None
