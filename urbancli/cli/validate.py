"""`urban validate`: checks of every file, and a list of what is wrong with which."""

from typing import TYPE_CHECKING, Annotated

import typer

from urbancli.cli._console import city_key, print_json, progress_bar, say, workspace_of
from urbancli.errors import UrbanError

if TYPE_CHECKING:
    from urbancli.validation import Findings
    from urbancli.workspace import Workspace


def command(
    context: typer.Context,
    city: Annotated[
        list[str] | None,
        typer.Option(help="Fetched city; repeatable. Default: the whole workspace."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check files against schema, metadata, checksums, lock and ranges; exit code 1 on a fault."""
    from dataclasses import asdict

    from urbancli.report.validated import render_findings
    from urbancli.validation import check_outputs, validate

    workspace = workspace_of(context)
    keys = [city_key(name) for name in city or ()] or _all_cities(workspace)
    with progress_bar() as progress:
        findings = validate(workspace, list(dict.fromkeys(keys)), progress)
        if not city:
            check_outputs(workspace, findings)
            _check_runs(workspace, findings)
    if json:
        faults = [asdict(fault) for fault in findings.faults]
        notes = [asdict(note) for note in findings.notes]
        print_json({"files": findings.rows, "faults": faults, "notes": notes})
    else:
        render_findings(findings)
    say(f"{len(findings.rows):,} files checked, {len(findings.faults):,} faults")
    if findings.faults:
        raise typer.Exit(1)


def _all_cities(workspace: "Workspace") -> list[str]:
    """Return the cities of a workspace, those without a manifest too.

    Raises:
        UrbanError: there is none.
    """
    found = sorted(path.name for path in workspace.root.glob("data/*") if path.is_dir())
    if not found:
        raise UrbanError(
            f"no city lies in {workspace.root}: run `urban fetch`, or give --workspace"
        )
    return found


def _check_runs(workspace: "Workspace", findings: "Findings") -> None:
    """Compare the files of every finished run with what its `run.json` lists."""
    if not workspace.runs():
        return
    from urbancli.runs.run import damage
    from urbancli.workspace import read_json

    for name in workspace.runs():
        path = workspace.run_dir(name) / "run.json"
        remedy = f"delete {workspace.run_dir(name).name} and train it again"
        try:
            clause = damage(path.parent, read_json(path))
        except UrbanError as err:
            clause = str(err).split(": ")[0]
        findings.seen(path)
        if clause:
            findings.fault(path, clause, remedy)
