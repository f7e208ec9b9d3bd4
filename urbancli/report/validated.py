"""What a validation found, as a terminal table and a list of faults."""

import sys

from urbancli.validation import Findings


def render_findings(findings: Findings) -> None:
    """Print the files that were checked, with notes; and the faults: file, fault, remedy."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("notes", overflow="fold")
    bad = {fault.file for fault in findings.faults}
    names = dict.fromkeys([*findings.rows, *bad, *(note.file for note in findings.notes)])
    for name in sorted(names):
        rows = findings.rows.get(name)
        notes = "; ".join(note.note for note in findings.notes if note.file == name)
        state = "[red]fault[/red]" if name in bad else "ok"
        table.add_row(name, "" if rows is None else f"{rows:,}", state, notes)
    console.print(table)
    for fault in findings.faults:
        text = f"{fault.file}: {fault.fault}: {fault.remedy}"
        console.print(text, markup=False, soft_wrap=True)
