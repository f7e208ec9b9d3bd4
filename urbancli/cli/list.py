"""`urban list`: the names of everything."""

from typing import TYPE_CHECKING, Annotated

import typer

from urbancli.cli._console import print_json, workspace_of
from urbancli.errors import unknown

if TYPE_CHECKING:
    from urbancli.workspace import Workspace

KINDS = (
    "cities",
    "fetched",
    "runs",
    "labels",
    "methods",
    "encoders",
    "modalities",
    "probes",
    "splits",
    "suites",
)


def command(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List cities, methods, encoders, … by the names the other commands take."""
    if kind == "encoders":
        _show_encoders(as_json=json)
        return
    names = _names(kind, workspace_of(context))
    if json:
        print_json(names)
    else:
        print("".join(f"{name}\n" for name in names), end="")


def _names(kind: str, workspace: "Workspace") -> list[str]:
    from urbancli import plugins

    if kind == "cities":
        from urbancli.city import known_cities

        return sorted([*known_cities(), "demo"])
    if kind == "fetched":
        return workspace.cities()
    if kind == "runs":
        return workspace.runs()
    if kind == "labels":
        return [f"{city}/{name}" for city in workspace.cities() for name in workspace.labels(city)]
    if kind == "suites":
        from urbancli.bench.tasks.base import suites

        return suites()
    if kind == "modalities":
        from urbancli.layers import MODALITIES, MODALITY_GROUPS

        groups = [f"{name} = {' + '.join(parts)}" for name, parts in MODALITY_GROUPS.items()]
        return [*MODALITIES, *groups]
    folders = {"methods": "methods", "probes": "bench.probes", "splits": "bench.splits"}
    if kind not in folders:
        raise unknown("kind", kind, KINDS)
    return plugins.names(folders[kind])


def _show_encoders(*, as_json: bool) -> None:
    """Print what each encoder needs."""
    from urbancli.encoding import described
    from urbancli.report.encoded import render_encoders

    found = described()
    if as_json:
        print_json(found)
    else:
        render_encoders(found)
