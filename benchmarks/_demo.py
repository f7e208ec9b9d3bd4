"""The demo city for a benchmark, made and fetched by the ordinary sources."""

from pathlib import Path
from typing import Any

from urbancli.layers import CityLayers, open_city
from urbancli.workspace import Workspace


def _ignore(*_: Any) -> None:
    """Hear of progress and say nothing."""


def demo_layers(folder: Path, tiles: int = 40) -> CityLayers:
    """Return the layers of the demo city of seed 0, without labels; as they are where a folder
    holds it already.

    Args:
        folder: a workspace.
        tiles: along a side.
    """
    from urbancli.cli._demo import demo_sources
    from urbancli.demo.files import demo_city, make_inputs
    from urbancli.demo.recipe import Recipe
    from urbancli.fetching import fetch

    workspace, recipe = Workspace(folder), Recipe(tiles=tiles)
    if recipe.key not in workspace.cities():
        make_inputs(workspace.inputs_dir(recipe.key), recipe, _ignore)
        sources = demo_sources(workspace.inputs_dir(recipe.key))
        fetch(workspace, demo_city(recipe), sources, [])
    return open_city(workspace, recipe.key)
