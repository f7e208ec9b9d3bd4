"""What `urban fetch --city demo` and `urban demo` share: a SYNTHETIC city's files as inputs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urbancli.cli._console import progress_bar, say
from urbancli.errors import UrbanError

if TYPE_CHECKING:
    from urbancli.demo.recipe import Recipe
    from urbancli.workspace import Workspace


def demo_recipe(workspace: "Workspace", key: str) -> "Recipe | None":
    """Return the recipe of a city's key: that of the files already made, or the default.

    None for every city that is not a synthetic one.

    Raises:
        UrbanError: the files made are another city's.
    """
    from urbancli.demo.recipe import Recipe, demo_seed

    seed = demo_seed(key)
    if seed is None:
        return None
    from urbancli.demo.files import recipe_of

    folder = workspace.inputs_dir(key)
    found = recipe_of(folder) or Recipe(seed)
    if found.seed != seed:
        raise UrbanError(f"{folder} holds {found.key}, not {key}: rename or move it")
    return found


def make_demo_inputs(workspace: "Workspace", recipe: "Recipe") -> Path:
    """Make a synthetic city's files unless they are there, and return their folder."""
    from urbancli.demo.files import make_inputs

    folder = workspace.inputs_dir(recipe.key)
    with progress_bar() as progress:
        note = make_inputs(folder, recipe, progress)
    if note:
        say(note)
    return folder


def fetch_demo(
    workspace: "Workspace", recipe: "Recipe", folder: Path, *, quiet: bool = False
) -> None:
    """Fetch a synthetic city from its files.

    Args:
        workspace: where to.
        recipe: of the city.
        folder: of `make_demo_inputs`.
        quiet: whether no table is printed.
    """
    from urbancli.cli.fetch import run_fetch
    from urbancli.demo.files import demo_city
    from urbancli.planning import Engine
    from urbancli.workers import Threads

    engine = Engine(workers=Threads(os.cpu_count() or 1))
    inputs = (demo_sources(folder), demo_labels(folder))
    run_fetch(workspace, demo_city(recipe), *inputs, engine, quiet=quiet)


def demo_sources(folder: Path) -> list[Any]:
    """Return the ordinary sources, pointed at the files in a folder."""
    from urbancli import plugins
    from urbancli.demo.files import CATALOGUE, OSM, POIS

    catalogue = str(folder / CATALOGUE)
    return [
        plugins.load("sources", "sentinel2").Source(catalogue),
        plugins.load("sources", "naip").Source(catalogue),
        plugins.load("sources", "osm").Source(folder / OSM),
        plugins.load("sources", "pois").Source(folder / POIS),
    ]


def demo_labels(folder: Path) -> list[Any]:
    """Return the labels that lie in a folder, as `--label` would name them."""
    from urbancli.demo.files import LABELS
    from urbancli.demo.labels import LABELS as FILES
    from urbancli.labels.files import parse_label

    return [parse_label(f"{name}={folder / LABELS / file}") for name, file in FILES.items()]
