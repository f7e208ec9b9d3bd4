"""Tables of a result as LaTeX: one long table per city, to be `\\input` into a paper."""

import itertools
from collections.abc import Sequence

from urbancli.bench.rows import Row
from urbancli.report.sheets import Line, Notes, Sheet, general_notes, legend, marks, sheets

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}",
    "−": "$-$", "–": "--", "×": r"$\times$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$",
    "²": r"\textsuperscript{2}", "·": r"$\cdot$", "…": r"\ldots{}", "†": r"\textdagger{}",
    "½": "1/2", "¼": "1/4", "→": r"$\to$", "°": r"\textdegree{}", "\u00a0": "~",
    "R²": r"$R^2$", "\n": " ",
}  # fmt: skip
"""Letters that mean something to LaTeX, or that its usual fonts lack. Brackets are guarded: behind
`\\\\` they would be read as an argument."""

NEEDS = r"% needs \usepackage{array,booktabs,longtable}"


def latex(rows: Sequence[Row], notes: Notes) -> str:
    """Return the tables, without a preamble.

    Args:
        rows: of a bench.
        notes: of it.
    """
    parts = [NEEDS]
    for city, group in itertools.groupby(sheets(rows, notes), key=lambda sheet: sheet.city):
        said = [*marks(notes, city), legend(rows)]
        parts.append(_table(city, list(group), said))
    below = [rf"\noindent {escaped(text)}.\par" for text in general_notes(rows, notes)]
    parts += [r"{\scriptsize", *below, "}"] if below else []
    return "\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text in which nothing is taken for a command."""
    pieces = text.split("R²")
    return SPECIAL["R²"].join("".join(SPECIAL.get(c, c) for c in piece) for piece in pieces)


def _table(city: str, mine: Sequence[Sheet], said: Sequence[str]) -> str:
    columns = list(dict.fromkeys(name for sheet in mine for name in sheet.columns))
    width = len(columns) + 1
    room = 0.52 - 0.075 * len(columns)  # of the names, beside the columns in scriptsize
    names, spread = (
        rf">{{\raggedright\arraybackslash}}p{{{room:.2f}\linewidth}}",
        "r" * len(columns),
    )
    titles = " & ".join(map(escaped, ["method", *columns])) + r" \\"
    caption = ". ".join(map(escaped, [city, *said]))
    lines = [
        r"\begingroup\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{@{{}}{names}{spread}@{{}}}}",
        rf"\caption{{{caption}.}}\label{{tab:urban-{city}}}\\",
        r"\toprule", titles, r"\midrule", r"\endfirsthead",
        r"\toprule", titles, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot",
    ]  # fmt: skip
    for number, sheet in enumerate(mine):
        lines += [r"\midrule"] if number else []
        lines += _rows(sheet, columns, width)
    return "\n".join([*lines, r"\end{longtable}", r"\endgroup"])


def _rows(sheet: Sheet, columns: Sequence[str], width: int) -> list[str]:
    lines = [_whole(rf"\textbf{{{escaped(sheet.task)}}}: {escaped(sheet.about)}", width) + r" \\*"]
    for without, part in sheet.parts:
        if without:
            lines.append(_whole(rf"\textit{{{escaped(without)}}}", width) + r" \\*")
        lines += [_line(sheet, line, columns) for line in part]
    below = [
        rf"\textsuperscript{{{letter}}} {escaped(text)}" for letter, text in sheet.footnotes.items()
    ]
    below += [escaped(text) for text in sheet.remarks]
    return lines + [_whole(text, width) + r" \\" for text in below]


def _line(sheet: Sheet, line: Line, columns: Sequence[str]) -> str:
    cells = dict(zip(sheet.columns, map(escaped, sheet.cells(line)), strict=True))
    if line.best:
        cells["score"] = rf"\textbf{{\boldmath {cells['score']}}}"
    if line.marks:
        cells["score"] += rf"\,\textsuperscript{{{','.join(line.marks)}}}"
    return " & ".join([escaped(line.name), *(cells.get(name, "") for name in columns)]) + r" \\"


def _whole(text: str, width: int) -> str:
    """Return a text as a cell over all columns."""
    return rf"\multicolumn{{{width}}}{{@{{}}p{{\linewidth}}@{{}}}}{{{text}}}"
