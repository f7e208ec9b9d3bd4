"""`urban train`: encodes what is not yet encoded, trains, embeds; one run per city."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbancli.cli._console import (
    print_json,
    progress_bar,
    say,
    wanted_cities,
    workspace_of,
)
from urbancli.cli._encoders import encoder_options
from urbancli.errors import UsageError

if TYPE_CHECKING:
    from urbancli.runs import Run, RunOptions
    from urbancli.workspace import Workspace


def command(
    context: typer.Context,
    method: Annotated[
        str | None, typer.Option(help="A method (`urban list methods`) or ./mine.py.")
    ] = None,
    city: Annotated[
        list[str] | None, typer.Option(help="Fetched city; repeatable; default all.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="small (default: two cores) or paper (as published).")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default 0.")] = None,
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
    precision: Annotated[str | None, typer.Option(help="float32 (default) or bf16.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the last checkpoint of the same run.")
    ] = True,
    hold_out_split: Annotated[
        str | None,
        typer.Option(metavar="FILE[:FOLD]", help="Keep a fold's windows out of training."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the runs as JSON.")] = False,
) -> None:
    """Train a method on each fetched city and embed its tiles.

    What no option says, `urban.toml` of the workspace does: cities, methods, presets, seeds.
    """
    from urbancli.project import fill, read_project
    from urbancli.runs import RunOptions, parse_hold_out

    workspace = workspace_of(context)
    project = read_project(workspace)
    given = {
        "methods": (method,) if method else None,
        "presets": (preset,) if preset else None,
        "seeds": None if seed is None else (seed,),
        "set": tuple(set_ or ()),
        "without": tuple(without or ()),
        "precision": precision,
    }
    wanted, said = fill(given, project.train)
    if said:
        say(f"{project.path}: {said}")
    if "methods" not in wanted:
        raise UsageError("no method: give --method, or name methods in [train] of urban.toml")
    options = RunOptions(
        device=device,
        resume=resume,
        encoders=encoder_options(workspace, encoder or []),
        hold_out=None if hold_out_split is None else parse_hold_out(hold_out_split),
    )
    cities = wanted_cities(workspace, city, project.cities, "training on")
    runs = train_all(workspace, cities, wanted, options)
    if json:
        print_json([run.facts for run in runs])
        return
    for run in runs:
        print(
            f"{run.name}: {run.method} ({run.preset}) on {run.city}, {run.pretraining}, "
            f"{run.parameters:,} parameters, {', '.join(run.modalities)}"
        )


def train_all(
    workspace: "Workspace",
    cities: Sequence[str],
    wanted: Mapping[str, Any],
    options: "RunOptions",
) -> "list[Run]":
    """Return the runs of every city, method, preset and seed; those that are there are kept.

    Args:
        workspace: with the cities.
        cities: their keys.
        wanted: `methods`, and what else of `project.TRAIN` is said.
        options: the rest.
    """
    from urbancli.layers import expand_modalities, open_city
    from urbancli.runs import create_run

    more = {name: wanted[name] for name in ("precision",) if name in wanted}
    options = replace(
        options,
        overrides=tuple(wanted.get("set", ())),
        without=tuple(expand_modalities(wanted.get("without", ()))),
        **more,
    )
    runs = []
    for key in cities:
        opened = open_city(workspace, key)
        for mark in opened.marks().values():
            say(f"{key} is {mark}")
        every = product(
            wanted["methods"],
            wanted.get("presets", (options.preset,)),
            wanted.get("seeds", (options.seed,)),
        )
        for method, preset, seed in every:
            one = replace(options, preset=preset, seed=seed)
            with progress_bar() as progress:
                runs.append(create_run(workspace, opened, method, one, progress, say))
    return runs
