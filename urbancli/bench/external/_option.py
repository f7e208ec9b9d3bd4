"""What a user writes to name a file of embeddings: `[NAME=]FILE[:TAIL]`."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from urbancli import plugins
from urbancli.errors import UrbanError, UsageError

FORMAT = "[NAME=]FILE, with :key=COLUMN, or after an .npy :KEYS.csv or :units=LABEL"

PARQUET, TEXT, RASTER = (
    (".parquet", ".geoparquet"),
    (".csv", ".tsv", ".txt"),
    (".tif", ".tiff", ".vrt"),
)
ARRAY = ".npy"

_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Option:
    """A file of embeddings as the user named it.

    Attributes:
        name: of the method column.
        path: of the file.
        key: the column that holds the units' ids, where the user says so.
        companion: of an array: the table that says where its rows belong.
        units: of an array: the label whose units its rows follow.
    """

    name: str
    path: Path
    key: str | None = None
    companion: Path | None = None
    units: str | None = None


def parse_option(text: str) -> Option:
    """Return what `--embeddings` names; the longest path that is a file wins.

    Raises:
        UsageError: it is not of the form, or its name is taken by a method or control.
        UrbanError: there is no such file, or it is of a kind that is not read.
    """
    name, path, tail = _split(text)
    _check_kind(path)
    if not name and not _NAME.fullmatch(path.stem):
        raise UsageError(f"'{path.stem}' cannot be a method's name: give one, NAME={path}")
    return _with_tail(Option(_checked(name or path.stem, path), path), tail)


def _split(text: str) -> tuple[str, Path, str]:
    """Return name (or nothing), path and what follows its colon."""
    head, _, rest = text.partition("=")
    named = [("", text)] + ([(head, rest)] if rest and _NAME.fullmatch(head) else [])
    for name, full in named:
        cuts = [len(full), *(i for i in range(len(full) - 1, 0, -1) if full[i] == ":")]
        for cut in cuts:
            if os.path.isfile(full[:cut]):
                return name, Path(full[:cut]), full[cut + 1 :]
    wanted = named[-1][1]
    if os.path.isdir(wanted):
        raise UrbanError(
            f"{wanted} is a folder: make one file of it, of rasters by `gdalbuildvrt all.vrt "
            f"{Path(wanted) / '*.tif'}`"
        )
    raise UrbanError(f"--embeddings '{text}': no file {wanted}; give {FORMAT}")


def _check_kind(path: Path) -> None:
    if path.suffix.lower() not in {*PARQUET, *TEXT, *RASTER, ARRAY}:
        known = ", ".join([*PARQUET, *TEXT, ARRAY, *RASTER])
        raise UrbanError(
            f"{path} is none of the files that embeddings are read from ({known}): write it as one "
            "of these"
        )


def _checked(name: str, path: Path) -> str:
    """Return a name that no method and no control has."""
    from urbancli.bench.contestants import UNTRAINED
    from urbancli.bench.controls import NAMES

    taken = {*plugins.names("methods"), *NAMES, UNTRAINED}
    if name.lower() in taken:
        raise UsageError(
            f"'{name}' is the name of a method or control: give these embeddings another, e.g. "
            f"my-{name}={path}"
        )
    return name


def _with_tail(option: Option, tail: str) -> Option:
    """Return an option with what follows its path."""
    path, suffix = option.path, option.path.suffix.lower()
    word, _, value = tail.partition("=")
    if not tail:
        return option
    if suffix == ARRAY and word == "units" and value:
        return replace(option, units=value)
    if suffix in {*PARQUET, *TEXT} and word == "key" and value:
        return replace(option, key=value)
    if suffix == ARRAY and word != "key":
        companion = Path(tail)
        if not companion.is_file():
            raise UrbanError(f"no file {companion} that says where the rows of {path} belong")
        return replace(option, companion=companion)
    raise UsageError(f"'{path}:{tail}' is not {FORMAT}")
