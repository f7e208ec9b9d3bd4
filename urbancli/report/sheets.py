"""What the printed table of a task says, before it has a form: markdown and LaTeX share it."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from urbancli.bench.rows import Row, described
from urbancli.city import SYNTHETIC
from urbancli.report.terminal import (
    METRICS,
    in_detail,
    is_run,
    paper_of,
    signed,
    split_text,
    without_text,
)

Notes = Sequence[Mapping[str, str]]
"""`{city, task, note}`; city and task are empty where a note is about all."""

MINUS = "−"

MEASURES = {**METRICS, "r2_free": "squared correlation"}

BOLD_MEANS = (
    "bold: the best, and all whose intervals overlap with its own, so that they are not told apart"
)


@dataclass(frozen=True)
class Line:
    """A contestant in a table.

    Attributes:
        name: with what tells it from others.
        score: value and interval, or n/a.
        best: whether it is the best, or not told from it.
        marks: letters of footnotes.
        beside: minus the concatenation of the frozen features, with interval.
        random: what random folds would add.
        kept: retention.
    """

    name: str
    score: str
    best: bool
    marks: tuple[str, ...]
    beside: str
    random: str
    kept: str


@dataclass(frozen=True)
class Sheet:
    """The table of a city, task, split and probe; or of what was learnt elsewhere and asked here.

    Attributes:
        city: key.
        task: name.
        about: metric, probe, split and units in words.
        parts: (what is missing, or where it was learnt; the lines). Nothing is said of the first
            where nothing is missing.
        footnotes: letter → text.
        remarks: what is said of the task, in whole sentences.
    """

    city: str
    task: str
    about: str
    parts: tuple[tuple[str, tuple[Line, ...]], ...]
    footnotes: Mapping[str, str]
    remarks: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """Headings of the columns that any line fills, after the method's."""
        lines = [line for _, part in self.parts for line in part]
        shown = {
            "− concatenation": any(line.beside for line in lines),
            "random": any(line.random for line in lines),
            "retention": any(line.kept for line in lines),
        }
        return ["score", *(name for name, filled in shown.items() if filled)]

    def cells(self, line: Line) -> list[str]:
        """Return a line's text for each of `columns`."""
        every = {
            "score": line.score,
            "− concatenation": line.beside,
            "random": line.random,
            "retention": line.kept,
        }
        return [every[name] for name in self.columns]


def sheets(rows: Sequence[Row], notes: Notes) -> list[Sheet]:
    """Return the tables of a result: all rows with nothing or one modality or group missing.

    Args:
        rows: of a bench.
        notes: of it.
    """
    said: set[tuple[str, str]] = set()
    found = []
    # A transfer's rows alternate between two metrics, each a table of its own.
    order = ("city", "task", "probe", "metric", "train_city", "few_shot")
    here = [row for row in rows if not row["train_city"]]
    from_elsewhere = [row for row in rows if row["train_city"]]
    rows = here + sorted(from_elsewhere, key=lambda row: tuple(row[name] for name in order))
    for (city, task, *_), group in itertools.groupby(rows, key=_paper_of):
        remarks = () if (city, task) in said else tuple(notes_on(notes, city, task))
        said.add((city, task))
        part = [row for row in group if in_detail(row)]
        if part:
            found.append(_sheet(part, remarks))
    return found


def left_out(rows: Sequence[Row]) -> int:
    """Return how many rows `sheets` leaves to the files of all rows."""
    return sum(not in_detail(row) for row in rows)


def notes_on(notes: Notes, city: str, task: str) -> Iterator[str]:
    """Yield the notes on a city and task, as their text."""
    for note in notes:
        if (note["city"], note["task"]) == (city, task):
            yield note["note"]


def _sheet(rows: Sequence[Row], remarks: tuple[str, ...]) -> Sheet:
    scored = [row for row in rows if row["value"] is not None]
    usual = _usual(scored)
    footnotes: dict[str, str] = {}
    parts = []
    for said, group in itertools.groupby(rows, key=_condition_text):
        part = list(group)
        best = tied_with_best(part)
        lines = tuple(
            _line(row, number in best, usual, footnotes) for number, row in enumerate(part)
        )
        parts.append((said, lines))
    about = [MEASURES[rows[0]["metric"]], f"{rows[0]['probe']} probe"]
    if scored:
        about += ["learnt in another city"] if rows[0]["train_city"] else [split_text(scored[0])]
        about.append(f"{usual[0]:,} units in {usual[1]:,} groups")
    letters = {letter: text for text, letter in footnotes.items()}
    return Sheet(rows[0]["city"], rows[0]["task"], ", ".join(about), tuple(parts), letters, remarks)


def _paper_of(row: Row) -> tuple[Any, ...]:
    return (*paper_of(row), row["metric"], bool(row["train_city"]))


def _condition_text(row: Row) -> str:
    """Return where a row was learnt, or what it is without; nothing of a whole one of its city."""
    if row["train_city"]:
        return f"learnt in {row['train_city']}, and on {row['few_shot']:,} units here"
    return without_text(row) if row["drop"] else ""


def _usual(rows: Sequence[Row]) -> tuple[int, int]:
    """Return the units and groups that most rows are scored on."""
    counts = [(row["n"], row["groups"]) for row in rows]
    return max(dict.fromkeys(counts), key=counts.count, default=(0, 0))


def tied_with_best(rows: Sequence[Row]) -> set[int]:
    """Return the numbers of the rows that are the best, or whose interval overlaps with its.

    Rows that are scored on other folds than most are not compared, nor are those without an
    interval: none of these is ever called best.

    Args:
        rows: of one task, split and probe, with the same missing.
    """
    shown = [(row["folds"], row["n"]) for row in rows if row["low"] is not None]
    if not shown:
        return set()
    usual = max(dict.fromkeys(shown), key=shown.count)
    compared = {
        number: row
        for number, row in enumerate(rows)
        if row["low"] is not None and (row["folds"], row["n"]) == usual
    }
    best = max(compared.values(), key=lambda row: float(row["value"]))
    return {number for number, row in compared.items() if row["high"] >= best["low"]}


def _line(row: Row, best: bool, usual: tuple[int, int], footnotes: dict[str, str]) -> Line:
    """Return a row as a line; what must be said of it goes into the footnotes, text → letter."""
    texts = list(_doubts(row, usual))
    marks = tuple(footnotes.setdefault(text, _letter(len(footnotes))) for text in texts)
    name = described(row)
    if row["value"] is None:
        return Line(name, "n/a", False, marks, "", "", "")
    beside = interval_text(
        *(row[f"difference_concatenation{end}"] for end in ("", "_low", "_high"))
    )
    random = "" if row["inflation"] is None else signed(row["inflation"])
    kept = ""
    if row["drop"]:
        kept = "n/a" if row["retention"] is None else f"{row['retention']:.0%}"
    score = interval_text(row["value"], row["low"], row["high"])
    return Line(
        name, score, best, marks, beside if is_run(row) else "", random, kept.replace("-", MINUS)
    )


def _doubts(row: Row, usual: tuple[int, int]) -> Iterator[str]:
    """Yield what a reader of a row's score must know."""
    if row["value"] is None:
        yield str(row["note"]).removeprefix("n/a: ")
        return
    if row["too_few"]:
        yield "too few units or groups for an interval"
    if (row["n"], row["groups"]) != usual:
        yield f"scored on {row['n']:,} units in {row['groups']:,} groups"
    if row["leak"] == "unknown":
        yield "the modalities that the label was made from are not known: a leak is possible"
    elif row["leak"]:
        yield f"reads {row['leak'].replace(',', ' or ')}, of which the label may be made too"
    if row["imputed"] and not row["imputation"]:
        yield f"{row['imputed']:,} units miss features, the training mean stands for them"
    yield from (text for text in (row["warning"], row["note"]) if text)


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """Return a value with its interval, three decimals; nothing where there is none."""
    if value is None:
        return ""
    within = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{within}".replace("-", MINUS)


def _letter(number: int) -> str:
    """Return a, b, …, z, aa, ab, … for 0, 1, …"""
    first, last = divmod(number, 26)
    return (_letter(first - 1) if first else "") + "abcdefghijklmnopqrstuvwxyz"[last]


def marks(notes: Notes, city: str) -> list[str]:
    """Return what every output of a city must say, that it is synthetic; or nothing."""
    return [text for text in notes_on(notes, "", "") if text == f"{city} is {SYNTHETIC}"]


def legend(rows: Sequence[Row]) -> str:
    """Return what the columns of the tables are."""
    text = (
        f"Scores with 95 % intervals; {BOLD_MEANS}; random: what random folds would add; methods "
        "are transductive where not marked inductive"
    )
    if number := left_out(rows):
        text += (
            f"; {number:,} rows with several modalities missing, at random, noisy or of another "
            "date stand in the file of all rows"
        )
    return text


def general_notes(rows: Sequence[Row], notes: Notes) -> list[str]:
    """Return the notes that are on no single task; what marks a city is not among them."""
    cities = list(dict.fromkeys(row["city"] for row in rows))
    every = [mark for city in cities for mark in marks(notes, city)]
    found = [text for text in notes_on(notes, "", "") if text not in every]
    return found + [f"{city}: {text}" for city in cities for text in notes_on(notes, city, "")]
