"""What the checks of a city's files share: its grid, tiles and lock, and where faults go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.errors import UrbanError
from urbancli.grid import Grid, Places, parse_tile_id
from urbancli.licences import USER_SUPPLIED, known_licences
from urbancli.validation.findings import FileCheck, Findings
from urbancli.workspace import Geometries, Workspace

TOLERANCE = 1e-9
"""Degrees: a tenth of a millimetre, far above what a projection there and back changes."""


@dataclass(frozen=True)
class City:
    """A fetched city under check.

    Attributes:
        workspace: where it lies.
        key: its key.
        grid: its grid, as the lock says.
        lock: its content.
        places: its tiles, made from the lock's area.
        findings: where faults go.
    """

    workspace: Workspace
    key: str
    grid: Grid
    lock: dict[str, Any]
    places: Places
    findings: Findings

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.workspace.city_dir(self.key)

    def again(self, path: Path) -> str:
        """Return how a file is made anew."""
        what = {"layers": "with its input", "labels": "with its --label"}.get(path.parent.name, "")
        return f"delete it and run `urban fetch --city {self.key}` {what}".strip()

    def check(self, path: Path) -> FileCheck:
        """Return the check of one of its files."""
        return FileCheck(path, self.findings, self.again(path))


def check_tiles(
    check: FileCheck, city: City, ids: list[str], geometry: Geometries
) -> npt.NDArray[np.bool_]:
    """Return which (N,) are ids of tiles of the city's grid; their squares are compared.

    Args:
        check: of the file.
        city: whose grid it is.
        ids: (N,) what should be ids of tiles.
        geometry: (N,) EPSG:4326, lon lat.
    """
    cells = cells_of(city.grid, ids)
    named = np.array([cell is not None for cell in cells], dtype=bool)
    check.rows("no tile of the city's grid", ~named, ids)
    if named.any():
        boxes = city.grid.tile_boxes(np.array([cell for cell in cells if cell], dtype=np.int64))
        right = np.asarray(city.grid.unproject_geometry(boxes), dtype=object)
        same = shapely.equals_exact(
            shapely.normalize(geometry[named]), shapely.normalize(right), TOLERANCE
        )
        check.rows("geometry is not the square of its tile", ~same,
                   np.array(ids, dtype=object)[named].tolist())  # fmt: skip
    return named


def cells_of(grid: Grid, ids: list[str]) -> list[tuple[int, int] | None]:
    """Return (column, row) of tiles by their ids, None for what is no tile of the grid."""
    cells: list[tuple[int, int] | None] = []
    for place in ids:
        try:
            own, column, row = parse_tile_id(place or "")
        except UrbanError:
            cells.append(None)
            continue
        cells.append((column, row) if own == grid else None)
    return cells


def check_blocks(check: FileCheck, city: City, ids: list[str], blocks: list[str]) -> None:
    """Compare the block that rows name with the one their tile lies in."""
    cells = cells_of(city.grid, ids)
    wrong = [
        cell is not None and city.grid.block_of(*cell).block_id != block
        for cell, block in zip(cells, blocks, strict=True)
    ]
    check.rows("block is not the tile's", wrong, ids)


def check_facts(check: FileCheck, city: City, facts: dict[str, Any], keys: tuple[str, ...]) -> bool:
    """Return whether a file's metadata says what it must; faults on licence and grid."""
    if lacking := [key for key in keys if key not in facts]:
        check.fault(f"its metadata lack {', '.join(lacking)}")
        return False
    for key, right in (("epsg", city.grid.epsg), ("tile_m", city.grid.tile_m)):
        if facts.get(key, right) != right:
            check.fault(f"its {key} is {facts[key]}, the lock says {right}")
    if "licence" in keys:
        _check_licence(check, facts)
    if ("synthetic" in facts) != (city.lock["city"].get("origin") == "synthetic"):
        check.fault("it does not agree with the lock on whether the city is synthetic")
    return True


def _check_licence(check: FileCheck, facts: dict[str, Any]) -> None:
    licence = facts["licence"]
    if not licence:
        check.fault("it has no licence")
    elif known_licences(licence) is None:
        check.fault(f"licence '{licence}' is unknown")
    elif licence != USER_SUPPLIED and "layer" in facts and not facts.get("attribution"):
        check.fault(f"no attribution, which {licence} wants")


def ids_of(table: Any, column: str) -> list[Any]:
    """Return a column as a list."""
    values: list[Any] = table.column(column).to_pylist()
    return values


class Unique:
    """Finds ids that come twice over the row groups of a file.

    Attributes:
        seen: all of them.
    """

    def __init__(self, check: FileCheck) -> None:
        self._check = check
        self.seen: set[str] = set()

    def add(self, ids: list[Any]) -> None:
        """Look at the ids of a group."""
        twice = []
        for each in ids:
            twice.append(each in self.seen or not each)
            self.seen.add(each)
        self._check.rows("no id, or one that stands twice", twice, ids)
