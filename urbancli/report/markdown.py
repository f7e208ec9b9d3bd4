"""Tables of a result as markdown, to be pasted where people read."""

from collections.abc import Sequence

from urbancli.bench.rows import Row
from urbancli.report.sheets import Line, Notes, Sheet, general_notes, legend, marks, sheets

SPECIAL = "\\`*_{}<>|#~$&"
"""What may mean something in a cell."""


def markdown(rows: Sequence[Row], notes: Notes) -> str:
    """Return a document: a heading and a table per city, task, split and probe.

    Args:
        rows: of a bench.
        notes: of it.
    """
    cities = dict.fromkeys(row["city"] for row in rows)
    said = [mark for city in cities for mark in marks(notes, city)]
    said += [legend(rows), *general_notes(rows, notes)]
    blocks = [_list(said)]
    for sheet in sheets(rows, notes):
        blocks.append(_block(sheet, marks(notes, sheet.city)))
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Return a text in which nothing is taken for markup."""
    safe = "".join(
        f"\\{letter}" if letter in SPECIAL else letter for letter in text.replace("\n", " ")
    )
    return safe.replace("](", "]\\(")  # a link


def _list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(text)}" for text in texts)


def _block(sheet: Sheet, said: Sequence[str]) -> str:
    titles = ["method", *sheet.columns]
    about = "; ".join([sheet.about, *said])
    lines = [f"## {escaped(f'{sheet.city} · {sheet.task}')}", "", escaped(about), ""]
    lines += [_row(titles), _row([":--", *["--:"] * len(sheet.columns)])]
    for without, part in sheet.parts:
        if without:
            lines.append(_row([f"*{escaped(without)}*", *[""] * len(sheet.columns)]))
        lines += [_row(_cells(sheet, line)) for line in part]
    below = [f"- <sup>{letter}</sup> {escaped(text)}" for letter, text in sheet.footnotes.items()]
    below += [_list(sheet.remarks)] if sheet.remarks else []
    return "\n".join([*lines, *(["", *below] if below else [])])


def _cells(sheet: Sheet, line: Line) -> list[str]:
    first, *others = map(escaped, sheet.cells(line))
    score = f"**{first}**" if line.best else first
    if line.marks:
        score += f" <sup>{','.join(line.marks)}</sup>"
    return [escaped(line.name), score, *others]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
