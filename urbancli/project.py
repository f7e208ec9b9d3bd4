"""`urban.toml`: what a workspace's project is: cities, methods, seeds, encoders, what is scored.

    [project]
    cities = ["demo"]

    [train]
    methods = ["urbanfusion", "mean_pooling.py"]
    presets = ["small"]
    seeds = [0, 1]
    set = ["epochs=5"]

    [encoders]
    satellite = ["rcf", "spectral"]

    [bench]
    suite = "demo"
    drop = ["satellite"]

Options of a command come before it. What it names of files lies beside it.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urbancli.bench.run import BenchOptions
from urbancli.city import slug
from urbancli.errors import UrbanError, UsageError, unknown
from urbancli.workspace import Workspace

FILE = "urban.toml"

NAMES = tuple[str, ...]

TRAIN: dict[str, Any] = {
    "methods": NAMES,
    "presets": NAMES,
    "seeds": tuple[int, ...],
    "set": NAMES,
    "without": NAMES,
    "precision": str,
    "missing": float,
    "chunk": int,
    "sweep": NAMES,
}
"""What `[train]` may hold; of methods, presets and seeds every combination is trained."""

NOT_PINNED = ("cities", "runs")
"""Fields of `BenchOptions` that follow from `[project]` and `[train]`."""


@dataclass(frozen=True)
class Project:
    """The content of an `urban.toml`; empty where there is none.

    Attributes:
        path: of the file.
        cities: their keys.
        train: see `TRAIN`; a method's file is found from anywhere.
        bench: fields of `BenchOptions`, likewise.
        encoders: modality or group → name of an encoder, or a list of names, unchecked.
    """

    path: Path
    cities: tuple[str, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)
    bench: Mapping[str, Any] = field(default_factory=dict)
    encoders: Mapping[str, Any] = field(default_factory=dict)


def read_project(workspace: Workspace) -> Project:
    """Return what the `urban.toml` of a workspace pins; an empty project without one."""
    path = workspace.root / FILE
    return read_project_file(path) if path.is_file() else Project(path)


def read_project_file(path: Path) -> Project:
    """Return what a file pins.

    Raises:
        UrbanError: it is broken.
        UsageError: it holds what is not known, with the near misses, or a value of another kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UrbanError(f"{path} cannot be read: {err}: mend it") from err
    tables = {"project": {"cities": NAMES}, "train": TRAIN, "bench": bench_fields()}
    known = (*tables, "encoders")
    for table, entries in content.items():
        if table not in known or not isinstance(entries, dict):
            raise unknown(f"table of {FILE}", table, known)
    read = {name: _entries(name, content.get(name, {}), kinds) for name, kinds in tables.items()}
    for name, table, located in (("methods", "train", _beside), ("embeddings", "bench", _named)):
        if name in read[table]:
            read[table][name] = tuple(located(path, one) for one in read[table][name])
    cities = tuple(map(_key, read["project"].get("cities", ())))
    return Project(path, cities, read["train"], read["bench"], content.get("encoders", {}))


def bench_fields() -> dict[str, Any]:
    """Return the kind of each field of `BenchOptions` that a file may pin."""
    kinds = typing.get_type_hints(BenchOptions)
    names = [one.name for one in dataclasses.fields(BenchOptions)]
    return {name: kinds[name] for name in names if name not in NOT_PINNED}


def _entries(table: str, entries: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's entries as values of their kinds."""
    found = {}
    for key, value in entries.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise unknown(f"key of [{table}] in {FILE}", key, kinds)
        if value == []:
            raise UsageError(f"{FILE}: {table}.{key} is empty: name something, or leave it out")
        try:
            found[name] = _value(value, kinds[name])
        except ValueError as err:
            raise UsageError(
                f"{FILE}: {table}.{key} is not {_words(kinds[name])}: mend it"
            ) from err
    return found


def _value(value: Any, kind: Any) -> Any:
    """Return a value of a TOML file as one of a kind; ValueError where it is none."""
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(_value(one, inner) for one in (value if isinstance(value, list) else [value]))
    if isinstance(kind, types.UnionType):  # `str | None`: TOML has no null
        return _value(value, typing.get_args(kind)[0])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        str: isinstance(value, str) or number,  # e.g. the noise 1 beside coords=0.5
        float: number,
        int: number and isinstance(value, int),
        bool: isinstance(value, bool),
    }
    if not fits[kind]:
        raise ValueError(value)
    return kind(value)


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        inner = {str: "names", int: "whole numbers", float: "numbers"}[typing.get_args(kind)[0]]
        return f"a list of {inner}"
    if isinstance(kind, types.UnionType):
        kind = typing.get_args(kind)[0]
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]


def _key(city: str) -> str:
    if key := slug(city):
        return key
    raise UsageError(f"{FILE}: project.cities: '{city}' names no city: use letters or digits")


def _beside(path: Path, name: str) -> str:
    """Return a name that is a file's path, from the folder of `urban.toml`."""
    return str(path.parent / name) if (path.parent / name).is_file() else name


def _named(path: Path, text: str) -> str:
    """Return `[NAME=]FILE` with the file found from the folder of `urban.toml`."""
    name, equals, file = text.rpartition("=")
    return f"{name}{equals}{_beside(path, file)}"


# --- options before it -----------------------------------------------------------------------


def fill(given: Mapping[str, Any], pinned: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the values of options: those given, else those pinned; and in words what was taken.

    Args:
        given: name → value, None (or False) where the option was not given.
        pinned: name → value.

    Returns:
        The values of all names that have one, and e.g. `methods urbanfusion; seeds 0, 1`, or
        nothing.
    """
    values = {name: value for name, value in given.items() if not _absent(value)}
    taken = {name: value for name, value in pinned.items() if name not in values}
    words = [
        " ".join(filter(None, [name.replace("_", " "), _text(value)]))
        for name, value in taken.items()
        if not _absent(value)
    ]
    return {**taken, **values}, "; ".join(words)


def _absent(value: Any) -> bool:
    return value is None or value is False or value == ()


def _text(value: Any) -> str:
    if value is True:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
