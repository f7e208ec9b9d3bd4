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
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Train so many seeds, from --seed on.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE…",
            help="Train every value; several: every combination. `urban bench` chooses among them "
            "inside the training folds.",
        ),
    ] = None,
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
    missing: Annotated[
        float | None,
        typer.Option(help="Share of places that training misses each modality of, e.g. 0.3."),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Represent so many places of a batch at a time: large batches, little "
            "memory, the gradient of the whole batch."
        ),
    ] = None,
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
        "seeds": _seeds(seed, seeds),
        "set": tuple(set_ or ()),
        "sweep": tuple(sweep or ()),
        "without": tuple(without or ()),
        "precision": precision,
        "missing": missing,
        "chunk": chunk,
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

    more = {name: wanted[name] for name in ("precision", "missing", "chunk") if name in wanted}
    settings = swept(wanted.get("set", ()), wanted.get("sweep", ()))
    options = replace(
        options,
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
            settings,
            wanted.get("seeds", (options.seed,)),
        )
        for method, preset, overrides, seed in every:
            one = replace(options, preset=preset, seed=seed, overrides=overrides)
            with progress_bar() as progress:
                runs.append(create_run(workspace, opened, method, one, progress, say))
    return runs


def swept(fixed: Sequence[str], sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the overrides of every combination of the values that are swept.

    Args:
        fixed: `key=value` that all have.
        sweeps: `key=value,value…`.

    Raises:
        UsageError: a sweep without a key or values, or of a key that is there twice.
    """
    named = [one.partition("=")[0].strip() for one in (*fixed, *sweeps)]
    choices = []
    for text, key in zip(sweeps, named[len(fixed) :], strict=True):
        values = list(dict.fromkeys(part.strip() for part in text.partition("=")[2].split(",")))
        if not key or not all(values):
            raise UsageError(f"'{text}' is no KEY=VALUE,VALUE…, e.g. reconstruction_weight=0,0.1")
        if named.count(key) > 1:
            raise UsageError(f"{key} is set more than once: sweep it, or set it")
        choices.append([f"{key}={value}" for value in values])
    return [(*fixed, *combination) for combination in product(*choices)]


def _seeds(first: int | None, count: int | None) -> tuple[int, ...] | None:
    """Return the seeds asked for; None where nothing says them."""
    if first is None and count is None:
        return None
    return tuple(range(first or 0, (first or 0) + (count or 1)))
