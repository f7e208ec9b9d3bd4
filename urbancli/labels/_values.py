"""The values of a label file: which column, and whether it is an amount or a class."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.errors import UsageError, unknown
from urbancli.labels._units import Units, looks_like_id
from urbancli.vector import LATITUDES, LONGITUDES

NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")
TEXTS = ("string", "boolean", "categorical", "mixed-integer", "empty")
"""What pandas' `infer_dtype` calls columns that are amounts, and columns that are classes."""

MISSING = ("na", "n/a", "nan", "null", "none")
"""What stands for an empty cell among the numbers of a text table, lower case."""


@dataclass(frozen=True)
class Values:
    """One value per row.

    Attributes:
        column: where they come from; `PREFIX*` for a class by the largest share.
        kind: `regression` or `classification`.
        value: (R,) float64 with NaN, or object (strings) with None, where there is no value.
        tied: (R,) bool; which classes are the first of several with the same largest share.
    """

    column: str
    kind: str
    value: npt.NDArray[Any]
    tied: npt.NDArray[np.bool_]


def read_values(units: Units, column: str | None) -> Values:
    """Return the values of a column, of the only one there is, or of the columns `PREFIX*`.

    Raises:
        UsageError: no such column, several to choose from, or neither number nor text.
    """
    names = [str(name) for name in units.columns.columns]
    if column is None:
        column = _only_column(names)
    if column.endswith("*"):
        return _largest_share(units, column, names)
    if column not in names:
        raise unknown("column", column, names)
    value = _column_values(units, column)
    kind = "regression" if value.dtype == np.float64 else "classification"
    return Values(column, kind, value, np.zeros(len(value), dtype=bool))


def _only_column(names: list[str]) -> str:
    positions = {*LATITUDES, *LONGITUDES, "bbox"}
    free = [name for name in names if name.lower() not in positions and not looks_like_id(name)]
    if len(free) == 1:
        return free[0]
    listed = ", ".join(free[:12]) + (", …" if len(free) > 12 else "")
    raise UsageError(
        f"which column is the label? Write FILE:COLUMN with one of {listed or ', '.join(names)}"
    )


def _column_values(units: Units, name: str) -> npt.NDArray[Any]:
    """Return a column as float64 with NaN, or as an object array of strings with None."""
    import pandas as pd

    column = units.columns[name]
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if not units.typed:
        numbers = pd.to_numeric(column, errors="coerce")
        odd = column[numbers.isna() & column.notna() & ~column.str.lower().isin(MISSING)]
        if 0 < len(odd) < column.notna().sum() / 2:
            raise UsageError(
                f"column '{name}' mixes numbers and text ('{odd.iloc[0]}' in row "
                f"{odd.index[0]}): leave the cell empty where there is no value"
            )
        kind, column = ("string", column) if len(odd) else ("floating", numbers)
    if kind in NUMBERS:
        value = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(value), value, np.nan)
    if kind not in TEXTS:
        raise UsageError(f"column '{name}' holds {kind} values: a label is a number or a text")
    texts = column.astype(object)
    return np.array(
        [None if pd.isna(text) else str(text).strip() or None for text in texts], dtype=object
    )


def _largest_share(units: Units, pattern: str, names: list[str]) -> Values:
    prefix = pattern.removesuffix("*")
    chosen = sorted(name for name in names if name.startswith(prefix))
    if not chosen:
        raise unknown("column", pattern, names)
    columns = [_column_values(units, name) for name in chosen]
    for name, column in zip(chosen, columns, strict=True):
        if column.dtype != np.float64:
            raise UsageError(f"column '{name}' of '{pattern}' is no number: shares are wanted")
    shares = np.nan_to_num(np.stack(columns, axis=1), nan=-np.inf)
    largest = shares.max(axis=1)
    classes = np.array([name.removeprefix(prefix) for name in chosen], dtype=object)
    value = classes[shares.argmax(axis=1)]
    value[~(largest > 0)] = None
    tied = (largest > 0) & ((shares == largest[:, None]).sum(axis=1) > 1)
    return Values(pattern, "classification", value, tied)
