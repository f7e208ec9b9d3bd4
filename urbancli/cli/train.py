"""`urban train`: encodes what is not yet encoded, trains, embeds; one run per city."""

from typing import Annotated

import typer

from urbancli.cli._console import city_key, print_json, progress_bar, say, workspace_of
from urbancli.cli._encoders import encoder_options
from urbancli.errors import UsageError


def command(
    context: typer.Context,
    method: Annotated[str, typer.Option(help="A method (`urban list methods`) or ./mine.py.")],
    city: Annotated[
        list[str] | None, typer.Option(help="Fetched city; repeatable; default all.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="small (two cores) or paper (as published).")
    ] = "small",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the Config.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Train without a modality or group; repeatable.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=ENCODER[:MODEL][,KEY=VALUE…]",
            help="Read a modality or group through another encoder (`urban list encoders`) than "
            "its default; several for one are used together; repeatable.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32 or bf16.")] = "float32",
    resume: Annotated[
        bool, typer.Option(help="Go on from the last checkpoint of the same run.")
    ] = True,
    hold_out_split: Annotated[
        str | None,
        typer.Option(metavar="FILE[:FOLD]", help="Keep a fold's windows out of training."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the runs as JSON.")] = False,
) -> None:
    """Train a method on each fetched city and embed its tiles."""
    from urbancli.layers import expand_modalities, open_city
    from urbancli.runs import RunOptions, create_run, parse_hold_out

    workspace = workspace_of(context)
    options = RunOptions(
        preset=preset,
        seed=seed,
        overrides=tuple(set_ or ()),
        without=tuple(expand_modalities(without or ())),
        device=device,
        precision=precision,
        resume=resume,
        encoders=encoder_options(workspace, encoder or []),
        hold_out=None if hold_out_split is None else parse_hold_out(hold_out_split),
    )
    cities = list(dict.fromkeys(map(city_key, city))) if city else workspace.cities()
    if not cities:
        raise UsageError("no city is fetched yet: run `urban fetch --city NAME` first")
    if not city:
        say(f"training on every fetched city: {', '.join(cities)}")
    runs = []
    for key in cities:
        with progress_bar() as progress:
            opened = open_city(workspace, key)
            for mark in opened.marks().values():
                say(f"{key} is {mark}")
            runs.append(create_run(workspace, opened, method, options, progress, say))
    if json:
        print_json([run.facts for run in runs])
        return
    for run in runs:
        print(
            f"{run.name}: {run.method} ({run.preset}) on {run.city}, {run.pretraining}, "
            f"{run.parameters:,} parameters, {', '.join(run.modalities)}"
        )
