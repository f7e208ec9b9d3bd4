"""Any GeoParquet file of ours: metadata that agrees with the rows, the columns that it must have.

The rules are GeoParquet 1.1's (encoding, geometry types, bbox, covering, CRS) and our own: degrees
of EPSG:4326 in the order lon, lat, and no row without a geometry.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from urbancli.errors import UrbanError
from urbancli.validation.findings import FileCheck
from urbancli.workspace import GEOMETRY_TYPES, Geometries, geometries, open_parquet

AXES = ("xmin", "ymin", "xmax", "ymax")


def open_checked(
    check: FileCheck, schema: pa.Schema
) -> tuple[pq.ParquetFile, dict[str, Any]] | None:
    """Open a file that is to have the columns of a schema, perhaps more; None where it cannot be.

    The caller closes it.
    """
    try:
        file, facts = open_parquet(check.path)
    except (UrbanError, ValueError) as err:
        check.fault(_without_path(str(err), check))
        return None
    there = file.schema_arrow
    wrong = [
        f"{field.name} is {there.field(field.name).type}, not {field.type}"
        if field.name in there.names
        else f"no column {field.name} ({field.type})"
        for field in schema
        if field.name not in there.names or there.field(field.name).type != field.type
    ]
    if wrong:
        check.fault(f"columns: {'; '.join(wrong)}")
        file.close()
        return None
    return file, facts


def _without_path(text: str, check: FileCheck) -> str:
    """Return what an error of ours says without path and remedy: both stand beside it."""
    return text.replace(str(check.path), "the file").split(": ")[0]


def row_groups(file: pq.ParquetFile) -> Iterator[tuple[pa.Table, Geometries]]:
    """Yield a file's rows group by group, with their geometries."""
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        yield table, geometries(table)


class Geography:
    """Compares the `geo` metadata of a file with its rows."""

    def __init__(self, file: pq.ParquetFile, check: FileCheck) -> None:
        self._check = check
        self._types: set[str] = set()
        self._bounds: list[np.ndarray[Any, Any]] = []
        self._said = self._metadata(file)

    def _metadata(self, file: pq.ParquetFile) -> dict[str, Any]:
        """Return what is said of the column `geometry`; faults where it cannot be used."""
        try:
            geo = json.loads((file.schema_arrow.metadata or {})[b"geo"])
            said: dict[str, Any] = geo["columns"]["geometry"]
        except (KeyError, ValueError, TypeError):
            self._check.fault("no GeoParquet metadata of a column 'geometry'")
            return {}
        wanted = {
            "version": (geo.get("version"), "1.1.0"),
            "primary column": (geo.get("primary_column"), "geometry"),
            "encoding": (said.get("encoding"), "WKB"),
            "covering": (said.get("covering"), {"bbox": {axis: ["bbox", axis] for axis in AXES}}),
        }
        for name, (found, right) in wanted.items():
            if found != right:
                self._check.fault(f"GeoParquet {name} is {json.dumps(found)}, not {_brief(right)}")
        if not _is_wgs84(said.get("crs")):
            self._check.fault("the CRS of its metadata is not EPSG:4326")
        return said

    def add(self, table: pa.Table, geometry: Geometries, ids: list[Any]) -> None:
        """Look at the rows of a group."""
        bounds = shapely.bounds(geometry).reshape(-1, 4)
        self._check.rows("no geometry", ~np.isfinite(bounds).all(axis=1), ids)
        beyond = (np.abs(bounds[:, ::2]) > 180).any(axis=1)
        beyond |= (np.abs(bounds[:, 1::2]) > 90).any(axis=1)
        self._check.rows("coordinates beyond the globe", beyond, ids)
        column = table.column("bbox").combine_chunks()
        boxes = np.column_stack(
            [column.field(axis).to_numpy(zero_copy_only=False) for axis in AXES]
        )
        differs = ~((boxes == bounds) | (np.isnan(boxes) & np.isnan(bounds))).all(axis=1)
        self._check.rows("bbox differs from the geometry's", differs, ids)
        self._types |= {GEOMETRY_TYPES[kind] for kind in shapely.get_type_id(geometry) if kind >= 0}
        if np.isfinite(bounds).any():
            self._bounds.append(
                np.concatenate([np.nanmin(bounds[:, :2], 0), np.nanmax(bounds[:, 2:], 0)])
            )

    def close(self) -> None:
        """Compare what was seen with what is said."""
        if not self._said:
            return
        said, found = sorted(self._said.get("geometry_types", [])), sorted(self._types)
        if said != found:
            self._check.fault(f"geometry_types are said to be {said}, the rows have {found}")
        if self._bounds:
            each = np.array(self._bounds)
            bounds = [*each[:, :2].min(axis=0).tolist(), *each[:, 2:].max(axis=0).tolist()]
            if self._said.get("bbox") != bounds:
                self._check.fault(f"bbox is said to be {self._said.get('bbox')}, it is {bounds}")


def _brief(right: Any) -> str:
    return json.dumps(right) if isinstance(right, str) else "that of the column 'bbox'"


def _is_wgs84(crs: Any) -> bool:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return bool(CRS.from_json_dict(crs).to_epsg() == 4326)
    except (CRSError, TypeError, AttributeError, ValueError):
        return False
