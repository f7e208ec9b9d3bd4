"""`urban bench`: all runs × labels × probes, with controls, intervals and the drop."""

from typing import Annotated

import typer

from urbancli.cli._console import city_key, print_json, progress_bar, say, workspace_of
from urbancli.errors import UsageError


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
    suite: Annotated[
        str | None, typer.Option(help="Score only its tasks: cookie, urbanfusion, demo.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    splits: Annotated[
        bool, typer.Option("--splits", help="Write the split files and stop.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Score every run and the controls on every label of the fetched cities."""
    from urbancli.bench.run import BenchOptions, bench, write_splits

    workspace = workspace_of(context)
    cities = list(dict.fromkeys(map(city_key, city))) if city else workspace.cities()
    if not cities:
        raise UsageError("no city is fetched yet: run `urban fetch --city NAME` first")
    if splits:
        for key in cities:
            for path in write_splits(workspace, key, seed):
                print(path)
        return
    if not city:
        say(f"scoring every fetched city: {', '.join(cities)}")
    options = BenchOptions(
        cities=tuple(cities),
        runs=tuple(run) if run else None,
        drop=tuple(drop or ()),
        seed=seed,
        suite=suite,
    )
    with progress_bar() as progress:
        result = bench(workspace, options, progress)
    if json:
        print_json({"rows": result.rows, "notes": result.notes})
    else:
        from urbancli.report.terminal import render

        render(result)
    say(f"rows: {result.path}")
