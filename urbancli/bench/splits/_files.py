"""The file of a split: units with their group and fold, and what it depends on."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from urbancli import plugins
from urbancli.bench.splits.base import ALGORITHM, Floats, Split, Units, hilbert_ranks
from urbancli.errors import UrbanError
from urbancli.grid import cells_of_ids
from urbancli.workspace import geo_table, open_parquet, read_table, sha256, write_table


def load_kind(name: str) -> ModuleType:
    """Return the module of a kind of split.

    Raises:
        UsageError: there is none of that name.
    """
    return plugins.load("bench.splits", name)


def split_file(
    path: Path, kind: str, units: Units, target: Floats, pins: dict[str, Any], folds: int
) -> Split:
    """Return the split in a file, made anew where the file is missing or of other units.

    Args:
        path: `Workspace.split_file`.
        kind: name of the split's module.
        units: with a value and enough coverage.
        target: (U, K) see `correlation_range`.
        pins: JSON-able facts on which a split depends, `seed` among them; all are kept in the file.
        folds: wanted number of folds.

    Raises:
        NotScored: the units cannot be split so.
        UrbanError: the file is of other units, or not as it was written.
    """
    pins = {**pins, "kind": kind, "folds_wanted": folds, "algorithm": ALGORITHM}
    if path.is_file():
        facts = open_parquet(path)[1]
        if all(facts.get(key) == value for key, value in pins.items()):
            return _read_split(path, units)
    split = load_kind(kind).make(units, target, int(pins["seed"]), folds)
    columns = {
        "unit_id": pa.array(units.unit_id.tolist(), pa.string()),
        "group": pa.array(split.group.tolist(), pa.string()),
        "fold": pa.array(split.fold),
    }
    if split.validation is not None:
        columns["validation"] = pa.array(split.validation)
    facts = {
        **pins,
        "group_m": split.group_m,
        "folds": split.folds,
        "range_m": split.range_m,
        "warnings": list(split.warnings),
        "apart": split.apart,
        "buffer_m": split.buffer_m,
    }
    write_table(path, geo_table(columns, units.footprint), facts)
    return _read_split(path, units)


def _read_split(path: Path, units: Units) -> Split:
    """Return the split of a file in the order of `units`.

    Raises:
        UrbanError: the file is of other units, or not as it was written.
    """
    table, facts = read_table(path)
    if fault := _fault(table, facts):
        raise UrbanError(f"{path} is a broken split file ({fault}): delete it and run again")
    row_of = {unit: row for row, unit in enumerate(table.column("unit_id").to_pylist())}
    if set(row_of) != set(units.unit_id):
        raise UrbanError(f"{path} holds other units than its label: delete it and run again")
    rows = np.array([row_of[unit] for unit in units.unit_id])
    group = table.column("group").to_numpy(zero_copy_only=False).astype(object)[rows]
    validation = None
    if "validation" in table.column_names:
        validation = table.column("validation").to_numpy(zero_copy_only=False).astype(bool)[rows]
    return Split(
        facts["kind"],
        group,
        hilbert_ranks(cells_of_ids(group)),
        table.column("fold").to_numpy()[rows],
        validation,
        facts["apart"],
        facts["buffer_m"],
        facts["group_m"],
        facts["range_m"],
        facts["seed"],
        tuple(facts["warnings"]),
        sha256(path),
    )


def _fault(table: pa.Table, facts: dict[str, Any]) -> str:
    """Return in what a split file is not as it was written, or nothing.

    A score on such a file would look like any other: it might learn from what it tests.
    """
    if missing := sorted({"unit_id", "group", "fold"} - set(table.column_names)):
        return f"no column '{missing[0]}'"
    if empty := [name for name in table.column_names if table.column(name).null_count]:
        return f"no value in column '{empty[0]}'"
    if len(pc.unique(table.column("unit_id"))) < len(table):
        return "a unit stands in it twice"
    fold = table.column("fold")
    if not pa.types.is_integer(fold.type):
        return "folds are no whole numbers"
    folds = fold.to_numpy()
    if set(folds.tolist()) - {-1} != set(range(facts["folds"])):
        return f"it says {facts['folds']} folds and has others"
    group = table.column("group")
    try:
        cells_of_ids(group.combine_chunks())
    except UrbanError:
        return "a group is no square"
    if facts["apart"] and len(set(zip(group.to_pylist(), folds, strict=True))) > len(
        group.unique()
    ):
        return "a group is in two folds"
    return _fault_of_validation(table, folds)


def _fault_of_validation(table: pa.Table, folds: npt.NDArray[Any]) -> str:
    if "validation" not in table.column_names:
        return "units that are never tested, and none that choose" if (folds < 0).any() else ""
    column = table.column("validation")
    if not pa.types.is_boolean(column.type):
        return "column 'validation' says not yes or no"
    choosing = column.to_numpy(zero_copy_only=False)
    if not choosing.any():
        return "no unit chooses settings"
    return "a unit chooses settings and is tested" if (choosing & (folds >= 0)).any() else ""
