"""The file of a split: units with their group and fold, and what it depends on."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

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
    """Return the split of a file in the order of `units`."""
    table, facts = read_table(path)
    row_of = {unit: row for row, unit in enumerate(table.column("unit_id").to_pylist())}
    if set(row_of) != set(units.unit_id):
        raise UrbanError(f"{path} holds other units than its label: delete it and run again")
    rows = np.array([row_of[unit] for unit in units.unit_id])
    group = table.column("group").to_numpy(zero_copy_only=False).astype(object)[rows]
    cells = cells_of_ids(group)
    validation = None
    if "validation" in table.column_names:
        validation = table.column("validation").to_numpy(zero_copy_only=False).astype(bool)[rows]
    return Split(
        facts["kind"],
        group,
        hilbert_ranks(cells),
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
