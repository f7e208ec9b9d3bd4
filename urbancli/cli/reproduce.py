"""`urban reproduce`: a result from its lock, or from `urban.toml`, made again and compared."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbancli.cli._console import WITH_GAPS, print_json, progress_bar, say, workspace_of
from urbancli.errors import ReproductionError, UrbanError, UsageError

if TYPE_CHECKING:
    from urbancli.bench.run import BenchResult
    from urbancli.reproduction import Difference
    from urbancli.workspace import Workspace


def command(
    context: typer.Context,
    lock: Annotated[
        Path, typer.Argument(help="A result's lock, results/bench-….lock.json; or urban.toml.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the scores of the lock.")
    ] = False,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=T", help="How far scores may be apart; repeatable."),
    ] = None,
    same_versions: Annotated[
        bool, typer.Option("--same-versions", help="Refuse other versions of packages too.")
    ] = False,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on where data are not those of the lock.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what differs as JSON.")] = False,
) -> None:
    """Fetch, train and score again what a lock or urban.toml pins.

    What is there already is kept: give a new --workspace to make all of it anew. Exit code 5: with
    --check, a score is not that of the lock.
    """
    workspace = workspace_of(context)
    if lock.suffix == ".toml":
        if check or tolerance or same_versions or other_data:
            raise UsageError("urban.toml holds no scores to compare with: give a result's lock")
        _make(workspace, lock, as_json=json)
        return
    from urbancli.reproduction import read_lock, tolerances

    pinned = read_lock(lock)
    allowed = tolerances(pinned, tolerance or [])
    _check_versions(pinned, refuse=same_versions)
    _check_data(workspace, lock, pinned, go_on=other_data, as_json=json)
    result, anew = _again(workspace, pinned)
    if check:
        _compare(lock, pinned, result, allowed, anew, as_json=json)
        return
    say(f"made again, but not compared with {lock}: --check compares")
    if json:
        print_json({"rows": result.rows, "notes": result.notes})


def _again(workspace: "Workspace", pinned: dict[str, Any]) -> "tuple[BenchResult, set[str]]":
    """Return the result of a lock made again, and the runs in it that have other weights."""
    from urbancli.reproduction import bench_again, input_notes, train_again, trained_anew

    if kept := set(pinned["runs"]) & set(workspace.runs()):
        say(
            f"{len(kept)} runs are there and kept, as answers are: a new --workspace makes all anew"
        )
    with progress_bar() as progress:
        runs = train_again(workspace, pinned, progress, say)
    for note in input_notes(pinned, runs):
        say(note)
    anew = trained_anew(pinned, runs)
    if anew:
        say(f"{len(anew)} of {len(runs)} runs have other weights than the lock's, to the bit")
    with progress_bar() as progress:
        result = bench_again(workspace, pinned, runs, progress)
    say(f"rows: {result.path}")
    return result, anew


def _compare(
    lock: Path,
    pinned: dict[str, Any],
    result: "BenchResult",
    allowed: "dict[str, tuple[float, float]]",
    anew: set[str],
    *,
    as_json: bool,
) -> None:
    """Compare the scores with the lock's, and print what differs.

    Raises:
        ReproductionError: anything does.
    """
    from urbancli.reproduction import score_differences

    found, more = score_differences(pinned, result.rows, allowed, anew)
    if more:
        say(f"{more:,} rows here are not in the lock, and are not compared")
    compared = len(pinned["rows"])
    within = ", ".join(
        f"{metric} {same:g}" + (f", of other weights {other:g}" if anew else "")
        for metric, (same, other) in allowed.items()
    )
    if as_json:
        facts = {"within_tolerance": not found, "rows": compared, "tolerances": allowed}
        facts |= {"other_weights": sorted(anew), "result": str(result.path)}
        print_json({**facts, "differences": [asdict(one) for one in found]})
    elif found:
        _render(found)
    else:
        print(f"reproduced: {compared:,} rows of {pinned['result']} within tolerance ({within})")
    if found:
        apart = len({(one.what, one.where) for one in found})
        raise ReproductionError(
            f"{apart:,} of {compared:,} rows are not those of {lock} ({within}): the table names "
            "them; the notes above say what else is not as it was"
        )


def _render(found: "Sequence[Difference]") -> None:
    from urbancli.report.compared import render_differences

    render_differences(found)


# --- before anything is trained --------------------------------------------------------------


def _check_versions(pinned: dict[str, Any], *, refuse: bool) -> None:
    """Say which packages are of another version than the lock's.

    Raises:
        UrbanError: there are any, and that is refused.
    """
    from urbancli.reproduction import version_notes

    notes = version_notes(pinned)
    if notes and refuse:
        raise UrbanError(f"other versions than the lock's: {', '.join(notes)}: install those")
    if notes:
        say(f"other versions than the lock's: {', '.join(notes)}")


def _check_data(
    workspace: "Workspace", lock: Path, pinned: dict[str, Any], *, go_on: bool, as_json: bool
) -> None:
    """Make synthetic cities that are missing, and compare the checksums of all data.

    Raises:
        UrbanError: the data are not those of the lock.
    """
    from urbancli.reproduction import data_differences
    from urbancli.reproduction.again import MISSING

    found = data_differences(workspace, pinned)
    missing = {one.where for one in found if one.found == MISSING}
    recipes = {key: pin["recipe"] for key, pin in pinned["cities"].items() if pin["recipe"]}
    if made := missing & set(recipes):
        for key in sorted(made):
            _fetch_demo(workspace, key, recipes[key])
        found = data_differences(workspace, pinned)
    if not found:
        return
    if as_json and not go_on:
        print_json({"data": [asdict(one) for one in found]})
    elif not as_json:
        _render(found)
    cities = [key for key in pinned["cities"] if key in {one.where for one in found}]
    gone = sorted(one.what for one in found if one.where not in cities and one.found == MISSING)
    if go_on and not any(one.found == MISSING for one in found):
        say("the data are not those of the lock: going on with them")
        return
    remedy = "; ".join(f"`{pinned['cities'][key]['fetch']}`" for key in cities)
    remedy = f"fetch them into a workspace of their own: {remedy}" if remedy else ""
    files = f"put {', '.join(gone)} into {workspace.root}" if gone else ""
    raise UrbanError(
        f"the data are not those of {lock} ({len(found)} files): "
        f"{'; '.join(filter(None, [remedy, files])) or 'take the files of the lock'}"
    )


def _fetch_demo(workspace: "Workspace", key: str, recipe: dict[str, Any] | None = None) -> None:
    """Make a synthetic city and fetch it, of a recipe or of the files that are there."""
    from urbancli.cli._demo import demo_recipe, fetch_demo, make_demo_inputs
    from urbancli.demo.recipe import Recipe

    made = Recipe(**recipe) if recipe else demo_recipe(workspace, key)
    assert made is not None
    say(f"making the synthetic city {key}")
    fetch_demo(workspace, made, make_demo_inputs(workspace, made), quiet=True)


# --- from urban.toml -------------------------------------------------------------------------


def _make(workspace: "Workspace", path: Path, *, as_json: bool) -> None:
    """Fetch, train and score what a project pins, and write the lock of the result."""
    from urbancli.bench.run import BenchOptions, bench
    from urbancli.cli._encoders import encoders_of
    from urbancli.cli.train import train_all
    from urbancli.project import read_project_file
    from urbancli.reproduction import write_lock
    from urbancli.runs import RunOptions

    project = read_project_file(path)
    if not project.cities:
        raise UsageError(f"{path} pins no cities: name them in [project]")
    for key in project.cities:
        _ensure_city(workspace, key)
    options = RunOptions(encoders=encoders_of(project))
    runs = []
    if project.train.get("methods"):
        runs = train_all(workspace, project.cities, project.train, options)
    asked = BenchOptions(
        cities=project.cities, runs=tuple(run.name for run in runs), **project.bench
    )
    with progress_bar() as progress:
        result = bench(workspace, asked, progress)
    written = write_lock(workspace, asked, result)
    _tell(result, as_json=as_json)
    say(f"rows: {result.path}")
    say(f"lock: {written}")
    for gap in result.gaps:
        say(gap)
    if result.gaps:
        raise typer.Exit(WITH_GAPS)


def _tell(result: "BenchResult", *, as_json: bool) -> None:
    if as_json:
        print_json({"rows": result.rows, "notes": result.notes, "account": result.account})
    else:
        from urbancli.report.terminal import render

        render(result)


def _ensure_city(workspace: "Workspace", key: str) -> None:
    """Make a synthetic city that is not fetched.

    Raises:
        UsageError: another one is not.
    """
    from urbancli.cli._demo import demo_recipe
    from urbancli.layers import open_city

    if key not in workspace.cities() and demo_recipe(workspace, key) is not None:
        _fetch_demo(workspace, key)
    open_city(workspace, key)
