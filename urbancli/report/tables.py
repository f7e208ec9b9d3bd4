"""A result's rows as files for others: CSV of all rows and columns; markdown and LaTeX to read.

CSV tells an empty text from no value: texts stand in quotation marks, what is missing is nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from urbancli.bench.rows import SCHEMA, Row
from urbancli.city import SYNTHETIC
from urbancli.errors import UrbanError, unknown
from urbancli.report.latex import latex
from urbancli.report.markdown import markdown
from urbancli.report.sheets import Notes, marks
from urbancli.workspace import atomic_path, write_text

MARK = "synthetic"
"""The last column of a CSV with rows of a synthetic city; `read_csv` leaves it out."""

TEXTS: dict[str, tuple[str, Callable[[Sequence[Row], Notes], str]]] = {
    "latex": (".tex", latex),
    "markdown": (".md", markdown),
}

FORMATS = ("csv", *TEXTS)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format that cannot be written, before anything is scored.

    Raises:
        UsageError: there is none of that name.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)


def write_tables(
    rows: Sequence[Row], notes: Notes, stem: Path, formats: Sequence[str]
) -> list[Path]:
    """Write rows in some formats, each whole or not at all; return the files.

    Args:
        rows: of a bench.
        notes: of it.
        stem: path of the files without their ending.
        formats: of `FORMATS`.

    Raises:
        UsageError: an unknown format.
    """
    check_formats(formats)
    paths = []
    for name in dict.fromkeys(formats):
        if name == "csv":
            path = stem.with_name(f"{stem.name}.csv")
            write_csv(rows, notes, path)
        else:
            ending, text = TEXTS[name]
            path = stem.with_name(f"{stem.name}{ending}")
            write_text(path, text(rows, notes))
        paths.append(path)
    return paths


def write_csv(rows: Sequence[Row], notes: Notes, path: Path) -> None:
    """Write all rows and columns; one more column marks synthetic cities, where there are any."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    marked = [SYNTHETIC if marks(notes, row["city"]) else "" for row in rows]
    if any(marked):
        column = pa.array(marked, pa.string())
        table = table.append_column(MARK, column)
    with atomic_path(path) as temporary:
        csv.write_csv(table, temporary)


def read_csv(path: Path) -> list[Row]:
    """Return the rows of a CSV that `write_csv` wrote, equal to those that were written.

    Raises:
        UrbanError: it is missing or no such file.
    """
    kinds = {**{field.name: field.type for field in SCHEMA}, MARK: pa.string()}
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=kinds,
                include_columns=SCHEMA.names,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except (OSError, pa.ArrowException, KeyError) as err:
        raise UrbanError(
            f"{path} is not the CSV of a benchmark's rows ({str(err).splitlines()[0]}): "
            "`urban bench --format csv` writes one"
        ) from err
    found: list[Row] = table.to_pylist()
    return found
