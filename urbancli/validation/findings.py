"""What a validation found: faults, each with its remedy, and notes on what is as it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FEW = 3
"""So many of the rows at fault are named."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file, and what to do about it.

    Attributes:
        file: relative to the workspace.
        fault: what is wrong.
        remedy: what to do.
    """

    file: str
    fault: str
    remedy: str


@dataclass(frozen=True)
class Note:
    """What a user should know of a file, though nothing is wrong with it."""

    file: str
    note: str


@dataclass
class Findings:
    """What was found so far.

    Attributes:
        root: of the workspace.
        rows: the files that were looked at, and their rows; None of what is no table.
        faults: in the order of the files.
        notes: likewise.
    """

    root: Path
    rows: dict[str, int | None] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """Return a path as it is shown."""
        return path.relative_to(self.root).as_posix()

    def seen(self, path: Path, rows: int | None = None) -> None:
        """Note that a file was looked at."""
        self.rows[self.name(path)] = rows

    def fault(self, path: Path, fault: str, remedy: str) -> None:
        """Note a fault, once."""
        found = Fault(self.name(path), fault, remedy)
        if found not in self.faults:
            self.faults.append(found)

    def note(self, path: Path, note: str) -> None:
        """Note what is as it is."""
        self.notes.append(Note(self.name(path), note))


@dataclass
class FileCheck:
    """A file under check; what is wrong with it is counted over its row groups.

    Attributes:
        path: the file.
        findings: where its faults go at the end.
        remedy: for all of them.
    """

    path: Path
    findings: Findings
    remedy: str
    _wrong: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def fault(self, fault: str) -> None:
        """Note a fault of the file as a whole."""
        self.findings.fault(self.path, fault, self.remedy)

    def rows(self, fault: str, wrong: Any, ids: Sequence[Any]) -> None:
        """Count the rows at fault.

        Args:
            fault: what is wrong with them; `rows(…)` of one text add up.
            wrong: (N,) bool.
            ids: (N,) names of the rows.
        """
        named = [str(each) for each, is_wrong in zip(ids, wrong, strict=True) if is_wrong]
        if named:
            count, first = self._wrong.get(fault, (0, []))
            self._wrong[fault] = (count + len(named), (first + named)[:FEW])

    def note(self, note: str) -> None:
        """Note what is as it is."""
        self.findings.note(self.path, note)

    def close(self, rows: int) -> None:
        """Hand over the counted faults."""
        self.findings.seen(self.path, rows)
        for fault, (count, first) in self._wrong.items():
            more = ", …" if count > len(first) else ""
            self.fault(f"{fault}: {count:,} of {rows:,} rows ({', '.join(first)}{more})")
