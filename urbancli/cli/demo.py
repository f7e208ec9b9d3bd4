"""`urban demo`: the whole path on a SYNTHETIC city, offline: make, fetch, train, bench, look."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from urbancli.cli._console import print_json, progress_bar, say, workspace_of
from urbancli.errors import UrbanError

if TYPE_CHECKING:
    from urbancli.bench.run import BenchResult
    from urbancli.demo.recipe import Recipe
    from urbancli.workspace import Workspace

DROPS = ("satellite", "osm", "pois")
"""What the benchmark scores again without."""

METHODS = ("urbanfusion", "melt")
"""What is trained, for six minutes have no room for all: a fusion, and a location encoder alone."""

MEASURED_TILES = 40
"""The size at which the truth was measured; smaller cities have too few tiles to show it well."""


def command(
    context: typer.Context,
    seed: Annotated[int, typer.Option(min=0, help="Of the city: `demo` is 0, `demo-7` is 7.")] = 0,
    tiles: Annotated[int, typer.Option(help="Tiles of 300 m along a side of the city.")] = 40,
    gsd: Annotated[
        float, typer.Option("--gsd", help="Pixels of the NAIP-like imagery, metres.")
    ] = 2.5,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a SYNTHETIC city with known truth, fetch it, train methods on it, and score them."""
    from urbancli.city import SYNTHETIC
    from urbancli.cli._demo import fetch_demo, make_demo_inputs
    from urbancli.demo.recipe import Recipe

    recipe = Recipe(seed, tiles, gsd)
    workspace = workspace_of(context)
    started = time.monotonic()

    def step(what: str) -> None:
        say(f"[{time.monotonic() - started:5.1f} s] {what}")

    say(f"{recipe.key} is {SYNTHETIC}")
    if tiles < MEASURED_TILES:
        say(f"{tiles}² tiles cannot show all of the truth: it was measured on {MEASURED_TILES}²")
    _check_area(workspace, recipe)
    step(f"files of the city → {workspace.inputs_dir(recipe.key)}")
    folder = make_demo_inputs(workspace, recipe)
    step(f"urban fetch --city {recipe.key}")
    fetch_demo(workspace, recipe, folder, quiet=json)
    step(f"a picture → {workspace.picture_file(recipe.key)}")
    _draw(workspace, recipe)
    runs = _train(workspace, recipe, step)
    drops = " ".join(f"--drop {name}" for name in DROPS)
    step(f"urban bench --city {recipe.key} --suite demo {drops}")
    result = _bench(workspace, recipe, runs)
    step("done")
    if json:
        print_json({"city": recipe.key, "synthetic": SYNTHETIC, "rows": result.rows})
        return
    from urbancli.report.demo import render_demo

    render_demo(result.rows, SYNTHETIC)
    print("synergy is a product, of which a linear probe sees nothing: a probe of products and")
    print("20 other cities are in the repository, file benchmarks/results/demo_truth.json")
    print(f"picture: {workspace.picture_file(recipe.key)}")
    print(f"truth:   {folder / 'truth.json'}")
    print(f"rows:    {result.path}")


def _check_area(workspace: "Workspace", recipe: "Recipe") -> None:
    """Refuse before anything is made what the fetch would refuse after it.

    Raises:
        UrbanError: the city was fetched with another size or area.
    """
    from urbancli.demo.files import demo_city
    from urbancli.grid import TILE_M
    from urbancli.lock import area_fingerprint, city_entry, fetched_city

    found = fetched_city(workspace, recipe.key)
    if found is None:
        return
    marks = {area_fingerprint(city_entry(city, TILE_M)) for city in (found, demo_city(recipe))}
    if len(marks) > 1:
        raise UrbanError(
            f"{workspace.city_dir(recipe.key)} holds {recipe.key} of another size or area: move it "
            "away, or give another --workspace"
        )


def _draw(workspace: "Workspace", recipe: "Recipe") -> None:
    from urbancli.city import SYNTHETIC
    from urbancli.layers import open_city
    from urbancli.report.picture import draw_city

    city = open_city(workspace, recipe.key)
    draw_city(workspace, city, workspace.picture_file(recipe.key), f"{recipe.key}: {SYNTHETIC}")


def _train(workspace: "Workspace", recipe: "Recipe", step: Callable[[str], None]) -> list[str]:
    """Train the demo's methods with the preset `small`, and return the runs' names."""
    from urbancli.layers import open_city
    from urbancli.runs import RunOptions, create_run

    runs = []
    for method in METHODS:
        step(f"urban train --city {recipe.key} --method {method} --preset small")
        with progress_bar() as progress:
            city = open_city(workspace, recipe.key)
            runs.append(create_run(workspace, city, method, RunOptions(), progress, say).name)
    return runs


def _bench(workspace: "Workspace", recipe: "Recipe", runs: list[str]) -> "BenchResult":
    from urbancli.bench.run import BenchOptions, bench

    options = BenchOptions((recipe.key,), tuple(runs), DROPS, suite="demo")
    with progress_bar() as progress:
        return bench(workspace, options, progress)
