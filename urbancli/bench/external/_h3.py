"""H3 cells, by which CityRep's region tables name their rows, as polygons."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from urbancli.errors import UrbanError
from urbancli.workspace import Geometries

_CELL = re.compile(r"8[0-9a-f]{14}")


def are_cells(ids: npt.NDArray[np.object_]) -> bool:
    """Return whether all ids look like H3 cells: 15 hexadecimal digits, the first an 8."""
    return all(one is not None and _CELL.fullmatch(one) for one in ids.tolist())


def cell_polygons(path: Path, ids: npt.NDArray[np.object_]) -> Geometries:
    """Return the outlines of H3 cells, EPSG:4326, lon lat.

    Args:
        path: of the table, for errors.
        ids: (N,) of cells.

    Raises:
        UrbanError: the package `h3` is not installed, or an id is no cell.
    """
    try:
        import h3
    except ImportError as err:
        raise UrbanError(
            f"{path} goes by H3 cells, which need a package: `pip install h3`, or write their "
            "polygons as GeoParquet"
        ) from err
    for cell in ids.tolist():
        if not h3.is_valid_cell(cell):
            raise UrbanError(f"'{cell}' of {path} is no H3 cell: mend or leave out its row")
    rings = [[(lon, lat) for lat, lon in h3.cell_to_boundary(cell)] for cell in ids.tolist()]
    return np.array([shapely.Polygon(ring) for ring in rings], dtype=object)
