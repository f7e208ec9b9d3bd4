"""`urban bench`: all runs × labels × splits × probes, with controls, intervals and gaps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbancli.cli._console import (
    WITH_GAPS,
    print_json,
    progress_bar,
    say,
    wanted_cities,
    workspace_of,
)
from urbancli.errors import UsageError

RESULTS = (".parquet", ".csv", ".md", ".tex")
"""How files of results end."""

if TYPE_CHECKING:
    from urbancli.bench.run import BenchOptions, BenchResult
    from urbancli.workspace import Workspace


def command(
    context: typer.Context,
    city: Annotated[
        list[str] | None, typer.Option(help="Fetched city; repeatable; default all.")
    ] = None,
    run: Annotated[list[str] | None, typer.Option(help="Run; repeatable; default all.")] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="Score again with a modality or group missing; repeatable."),
    ] = None,
    subsets: Annotated[
        bool, typer.Option("--subsets", help="Score every non-empty subset of the modalities.")
    ] = False,
    drop_rate: Annotated[
        list[float] | None,
        typer.Option(help="Share of places that each modality misses, e.g. 0.3; repeatable."),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODALITY=]S", help="Noise on frozen features, in deviations."),
    ] = None,
    stale: Annotated[
        list[str] | None,
        typer.Option(metavar="MODALITY=CITY", help="Read it from another fetch of the tiles."),
    ] = None,
    embeddings: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FILE", help="Score anybody's embeddings too; repeatable."),
    ] = None,
    append_coords: Annotated[
        bool, typer.Option("--append-coords", help="Score once more with coordinates appended.")
    ] = False,
    suite: Annotated[
        str | None, typer.Option(help="Score only its tasks: cookie, urbanfusion, demo.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="spatial (default), buffered, random, urbanfusion, cityrep; repeatable."),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(help="ridge and logistic (default), knn, mlp, boosting; repeatable."),
    ] = None,
    account: Annotated[
        bool, typer.Option("--account", help="Say what each modality tells, alone and with others.")
    ] = False,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Learn in each city, be asked in each other one.")
    ] = False,
    few_shot: Annotated[
        list[int] | None,
        typer.Option(help="With --transfer: units of the other city to learn from; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the folds; default 0.")] = None,
    splits: Annotated[
        bool, typer.Option("--splits", help="Write the split files and stop.")
    ] = False,
    format_: Annotated[
        list[str] | None,
        typer.Option("--format", help="Write the rows as csv, markdown or latex too; repeatable."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two result files, or two methods or runs of this result."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Score every run and the controls on every label of the fetched cities.

    What no option says, `urban.toml` of the workspace does.
    """
    from urbancli.bench.run import BenchOptions, bench, write_splits
    from urbancli.project import fill, read_project

    workspace = workspace_of(context)
    files = [name for name in compare or () if Path(name).suffix in RESULTS]
    if files and not (len(files) == 2 and all(name.endswith(".parquet") for name in files)):
        raise UsageError("--compare takes two .parquet files of results, or two methods or runs")
    if files and compare is not None:
        _compare_files(Path(compare[0]), Path(compare[1]), json=json)
        return
    project = read_project(workspace)
    given = {
        "runs": tuple(run) if run else None,
        "drop": tuple(drop or ()),
        "seed": seed,
        "suite": suite,
        "splits": tuple(split or ()),
        "probes": tuple(probe or ()),
        "subsets": subsets,
        "drop_rates": tuple(drop_rate or ()),
        "noise": tuple(noise or ()),
        "stale": tuple(stale or ()),
        "embeddings": tuple(embeddings or ()),
        "append_coords": append_coords,
        "account": account,
        "transfer": transfer,
        "few_shot": tuple(few_shot or ()),
    }
    wanted, said = fill(given, project.bench)
    if said:
        say(f"{project.path}: {said}")
    cities = wanted_cities(workspace, city, project.cities, "scoring")
    options = BenchOptions(cities=tuple(cities), **wanted)
    if splits:
        for key in cities:
            for path in write_splits(workspace, key, options):
                print(path)
        return
    formats = tuple(format_ or ())
    if formats:
        from urbancli.report.tables import check_formats

        check_formats(formats)
    with progress_bar() as progress:
        result = bench(workspace, options, progress)
    if compare is not None:
        _compare_contestants(result, compare, json=json)
    else:
        _tell(result, json=json)
    _leave(workspace, options, result, formats)


def _tell(result: "BenchResult", *, json: bool) -> None:
    if json:
        from urbancli.bench.places import places

        facts = {"notes": result.notes, "account": result.account, "places": places(result)}
        facts["alignment"] = result.alignment
        print_json({"rows": result.rows, **facts})
    else:
        from urbancli.report.terminal import render

        render(result)


def _leave(
    workspace: "Workspace",
    options: "BenchOptions",
    result: "BenchResult",
    formats: tuple[str, ...],
) -> None:
    """Write the lock and other formats, and say what lies where and what has no score."""
    from urbancli.reproduction import write_lock

    say(f"rows: {result.path}")
    say(f"lock: {write_lock(workspace, options, result)}")
    if formats:
        from urbancli.report.tables import write_tables

        stem = result.path.with_suffix("")
        for path in write_tables(result.rows, result.notes, stem, formats):
            say(f"rows: {path}")
    for gap in result.gaps:
        say(gap)
    if result.gaps:
        raise typer.Exit(WITH_GAPS)


def _compare_files(first: Path, second: Path, *, json: bool) -> None:
    from urbancli.bench.comparison import compare_results
    from urbancli.bench.run import read_result
    from urbancli.report.compared import render_compared

    rows = compare_results(read_result(first), read_result(second))
    if json:
        print_json(rows)
    else:
        render_compared(rows)


def _compare_contestants(result: "BenchResult", names: tuple[str, str], *, json: bool) -> None:
    from urbancli.bench.comparison import compare_contestants
    from urbancli.report.compared import render_paired

    answered = [row for number, row in enumerate(result.rows) if number in result.given]
    rows = compare_contestants(answered, *names, result.difference)
    if json:
        print_json(rows)
    else:
        render_paired(rows)
