"""The files of a synthetic city: made once, whole or not at all, and checked when used again."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

from urbancli.city import City
from urbancli.demo.factors import Factors, draw_factors, truth
from urbancli.demo.recipe import GRID, Recipe
from urbancli.demo.town import Town, join_elements
from urbancli.errors import UrbanError, UsageError
from urbancli.workspace import read_json, sha256, write_json, write_manifest

VERSION = 1
"""Raised whenever the same recipe gives other files: those of another version are made anew."""

CATALOGUE = "catalogue/catalog.json"
OSM = "map.osm.pbf"
POIS = "pois.csv"
LABELS = "labels"
TRUTH = "truth.json"
"""Where things lie in a city's folder of inputs."""

INSET_M = 0.1
"""The area ends this much inside its outermost tiles, so that rounding adds no tile beyond."""

WRITERS = ("rasterio", "osmium", "pyogrio")
"""Packages that write files and raise what is no OSError."""

Progress = Callable[[str, int, int], None]


def make_inputs(folder: Path, recipe: Recipe, progress: Progress) -> str:
    """Write the files of a city into a folder, unless they are there.

    They are written beside it and moved in one step: the folder exists, so it is whole. A second
    process that wants the same city waits for the first. Only files that a manifest of ours lists
    are ever replaced.

    Args:
        folder: of this city's inputs.
        recipe: of the city.
        progress: told (what, done, total).

    Returns:
        A note on what was mended, or nothing.

    Raises:
        UsageError: the folder holds the files of another recipe.
        UrbanError: it holds files of others, or cannot be written.
    """
    if _whole(folder, recipe):
        return ""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{folder.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _whole(folder, recipe):
                return ""
            why = _why_anew(folder) if folder.exists() else ""
            partial = folder.parent / f".{folder.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            _check_space(folder.parent, recipe)
            _write(partial, recipe, progress)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            return f"{folder} {why}: made anew" if why else ""
    except UrbanError:
        raise
    except Exception as err:
        # GDAL and osmium have exceptions of their own for a disk that is full.
        if isinstance(err, OSError) or type(err).__module__.split(".")[0] in WRITERS:
            why = getattr(err, "strerror", None) or str(err) or type(err).__name__
            raise UrbanError(f"cannot write {folder}: {why}; is the disk full?") from err
        raise


def recipe_of(folder: Path) -> Recipe | None:
    """Return the recipe of the files in a folder, None where there are none.

    Raises:
        UrbanError: there are files, but no readable recipe among them.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        facts = read_json(folder / TRUTH)["recipe"]
        return Recipe(facts["seed"], facts["tiles"], facts["gsd_m"])
    except (KeyError, TypeError, UrbanError) as err:
        raise UrbanError(
            f"{folder} is not, or no longer, a whole city of ours ({TRUTH} cannot be read): move "
            "it away, then make the city with `urban demo`, with --tiles and --gsd if it had them"
        ) from err


def demo_city(recipe: Recipe) -> City:
    """Return the synthetic city as an area: its tiles and no others."""
    import shapely

    left, bottom, right, top = recipe.box_m
    box = shapely.box(left + INSET_M, bottom + INSET_M, right - INSET_M, top - INSET_M)
    area = GRID.unproject_geometry(shapely.segmentize(box, 1000.0))
    return City(recipe.key, area, GRID.epsg, "synthetic")


def make_town(factors: Factors) -> Town:
    """Return the city that factors shape: streets and water, then buildings, trees and POIs."""
    from urbancli.demo.buildings import build
    from urbancli.demo.pois import place_pois
    from urbancli.demo.streets import lay_streets
    from urbancli.demo.trees import plant

    skeleton = lay_streets(factors)
    cells = skeleton.cells
    pois = place_pois(factors, cells)
    # First the skeleton's: its relations count members from there.
    parts = [skeleton.elements, build(factors, cells), plant(factors, cells), pois.elements()]
    return Town(factors, cells, join_elements(parts), skeleton.relations, pois)


def _whole(folder: Path, recipe: Recipe) -> bool:
    """Return whether a folder holds all files of this recipe and version, as they were written.

    Raises:
        UsageError: those of another recipe.
    """
    found = recipe_of(folder)
    if found is not None and found != recipe:
        raise UsageError(
            f"{folder} holds {found.key} of {found.tiles} tiles a side with pixels of "
            f"{found.gsd_m:g} m: ask for the same, move it away, or give another --workspace"
        )
    return found is not None and not _why_anew(folder)


def _why_anew(folder: Path) -> str:
    """Return why a folder's files must be made anew; empty where they are whole.

    Raises:
        UrbanError: it holds files that its manifest does not list.
    """
    listed = read_json(folder / "manifest.json").get("files", {})
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    if foreign := sorted(there - set(listed) - {"manifest.json"}):
        raise UrbanError(f"{folder} holds {foreign[0]}, which is not ours: move it away")
    if read_json(folder / TRUTH).get("generator") != VERSION:
        return "was made by another version"
    damaged = [n for n, e in listed.items() if n not in there or sha256(folder / n) != e["sha256"]]
    return "was damaged" if damaged else ""


def _check_space(folder: Path, recipe: Recipe) -> None:
    """Refuse to begin what the disk cannot hold: noisy imagery packs to about its own size."""
    left, bottom, right, top = recipe.rendered_m
    area = (right - left) * (top - bottom)
    needed = area * (4 / recipe.gsd_m**2 + 0.5)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UrbanError(
            f"{recipe.key} needs about {needed / 1e6:,.0f} MB below {folder}, {free / 1e6:,.0f} MB "
            "are free: make room, or ask for fewer --tiles or a larger --gsd"
        )


def _write(folder: Path, recipe: Recipe, progress: Progress) -> None:
    from urbancli.demo.imagery import render
    from urbancli.demo.labels import write_labels
    from urbancli.demo.osm_file import write_pbf
    from urbancli.demo.pois import write_pois

    (folder / LABELS).mkdir(parents=True)
    what = f"making {recipe.key} (SYNTHETIC)"
    progress(what, 0, 5)
    town = make_town(draw_factors(recipe))
    progress(what, 1, 5)
    write_pbf(folder / OSM, town.elements, town.relations, recipe.rendered_m)
    write_pois(folder / POIS, town.pois)
    progress(what, 2, 5)
    write_labels(folder / LABELS, town)
    progress(what, 3, 5)
    render(folder / Path(CATALOGUE).parent, town)
    progress(what, 4, 5)
    write_json(folder / TRUTH, {**truth(recipe), "generator": VERSION})
    write_manifest(folder, sorted(path for path in folder.rglob("*") if path.is_file()))
    progress(what, 5, 5)
