"""Files of embeddings that anybody brings: `urban bench --embeddings [NAME=]FILE`.

- **Tables**: GeoParquet of points, tiles or polygons, Parquet, CSV or TSV (`.parquet`,
  `.geoparquet`, `.csv`, `.tsv`, `.txt`). Which columns are the embedding, and which say where a row
  belongs, is told in `_columns`. A file that `urban embed` wrote is one of them: its rows are tiles
  or points. `FILE:key=COLUMN` says that a column holds the ids of the label's units.
- **Arrays** (`.npy`, N × D) with a table that says where their rows belong: `FILE.csv` or
  `FILE.parquet` beside it, or `FILE.npy:KEYS.csv`. `FILE.npy:units=LABEL` says that the rows follow
  the units of a label, as its file `data/CITY/labels/LABEL.parquet` lists them; so many they must
  be.
- **Rasters** of D bands (`.tif`, `.tiff`, `.vrt`), as of AlphaEarth (64) and TESSERA (128), in any
  CRS: see `_rasters`. Scale and offset in the file's metadata are applied. AlphaEarth's own int8
  codes are not linear and are to be de-quantised first; a note says so.

CityRep (arXiv 2605.26036) takes own embeddings as raster, region or entity files, and all three
are read. What our reference does not state of them [?] was taken from its public repository: a
region table names H3 cells of resolution 8, an entity table has an id, lon and lat, and all its
other numbers are the embedding. Here the numbers must be numbered, and a missing value is refused
where CityRep writes 0. Of entities it takes the one of the unit's id, else the nearest however
far; here a unit is the mean of the points in it, and a point takes the one at its very spot.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.bench.external._option import ARRAY, PARQUET, RASTER, TEXT, Option, parse_option
from urbancli.bench.external._rasters import Raster, open_raster
from urbancli.bench.external._tables import Table, read_array, read_table
from urbancli.bench.external._whereabouts import Whereabouts, whereabouts
from urbancli.errors import UrbanError, UsageError
from urbancli.workspace import sha256


@dataclass(frozen=True)
class External:
    """Embeddings from a file.

    Attributes:
        name: of the method column.
        path: of the file.
        kind: `tiles`, `points`, `polygons`, `keys`, `units` or `raster`.
        d: how wide a vector is.
        rows: of a table; of a raster its pixels.
        sha256: of all files that it consists of.
        licence: as the file says; None where it does not.
        notes: what a reader must know.
        values: (N, D) float32 of a table or array; None of a raster.
        where: where its rows belong; None of a raster, and of an array that follows a label.
        units: the label whose units an array's rows follow.
        raster: the raster.
    """

    name: str
    path: Path
    kind: str
    d: int
    rows: int
    sha256: str
    licence: str | None = None
    notes: tuple[str, ...] = ()
    values: npt.NDArray[np.float32] | None = None
    where: Whereabouts | None = None
    units: str | None = None
    raster: Raster | None = None

    @property
    def identity(self) -> list[Any]:
        """JSON-able, all that its features depend on beside the units."""
        keys = sorted(self.where.keys) if self.where is not None else []
        return ["external", self.sha256, self.kind, keys, self.units]


def load_externals(texts: Sequence[str]) -> list[External]:
    """Return the files that `--embeddings` names, each under a name of its own.

    Raises:
        UsageError: two have the same name.
        UrbanError: see `load_external`.
    """
    names = [parse_option(text).name for text in texts]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two files of embeddings are called '{name}': give each a name, "
                "--embeddings NAME=FILE"
            )
    return [load_external(text) for text in texts]


def files_of(text: str) -> tuple[Option, list[Path]]:
    """Return what `[NAME=]FILE` names, and all files that its embeddings are read from.

    Raises:
        UsageError: the text is not of that form, or names what is not there.
        UrbanError: nothing says where the rows of an array belong.
    """
    option = parse_option(text)
    suffix = option.path.suffix.lower()
    if suffix in RASTER:
        return option, list(open_raster(option.path).files)
    if suffix == ARRAY and option.units is None:
        return option, [option.path, option.companion or _companion(option.path)]
    return option, [option.path]


def load_external(text: str) -> External:
    """Return the embeddings of a file `[NAME=]FILE`; a raster's pixels stay in it.

    Raises:
        UsageError: the text is not of that form, or names what is not there.
        UrbanError: the file cannot be read, or its embeddings are not whole: see `_tables`,
            `_whereabouts` and `_rasters`.
    """
    option = parse_option(text)
    suffix = option.path.suffix.lower()
    if suffix in RASTER:
        return _load_raster(option)
    if suffix == ARRAY:
        return _load_array(option)
    table = read_table(option.path, key=option.key)
    where = whereabouts(option.path, table, keyed=option.key is not None)
    return _external(option, [option.path], table.values, where, table)


def _load_raster(option: Option) -> External:
    raster = open_raster(option.path)
    return External(
        option.name, option.path, "raster", len(raster.bands), raster.pixels,
        _sha256(raster.files), raster.licence, raster.notes, raster=raster,
    )  # fmt: skip


def _load_array(option: Option) -> External:
    values = read_array(option.path)
    if option.units is not None:
        whole = _external(option, [option.path], values, None)
        return replace(whole, kind="units", units=option.units)
    companion = option.companion or _companion(option.path)
    table = read_table(companion, vectors=False)
    if len(table.values) != len(values):
        raise UrbanError(
            f"{companion} has {len(table.values):,} rows and {option.path} {len(values):,}: give "
            "one row for each vector"
        )
    return _external(option, [option.path, companion], values, whereabouts(companion, table))


def _companion(path: Path) -> Path:
    """Return the table beside an array.

    Raises:
        UrbanError: there is none.
    """
    beside = [path.with_suffix(suffix) for suffix in (*TEXT, *PARQUET)]
    found = next((one for one in beside if one.is_file()), None)
    if found is None:
        raise UrbanError(
            f"nothing says where the rows of {path} belong: put {path.with_suffix('.csv').name} "
            f"with lat and lon or the units' ids beside it, or give {path}:KEYS.csv, or "
            f"{path}:units=LABEL where the rows follow that label's units"
        )
    return found


def _external(
    option: Option,
    files: Sequence[Path],
    values: npt.NDArray[np.float32],
    where: Whereabouts | None,
    table: Table | None = None,
) -> External:
    notes = list(where.notes) if where is not None else []
    if table is not None and table.columns.left_out:
        left = table.columns.left_out
        more = ", …" if len(left) > 5 else ""
        notes.append(f"columns that are no part of the embedding: {', '.join(left[:5])}{more}")
    return External(
        option.name, option.path, where.kind if where is not None else "units", values.shape[1],
        len(values), _sha256(files), None, tuple(notes), values, where,
    )  # fmt: skip


def _sha256(files: Sequence[Path]) -> str:
    """Return the checksum of a file, or of the checksums of several in their order."""
    sums = [sha256(path) for path in files]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
