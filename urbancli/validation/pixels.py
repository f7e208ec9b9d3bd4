"""Checks of an imagery layer: row group by row group, so that a large one is no large memory."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from urbancli.layers import PIXEL_SCHEMA, unpack_valid
from urbancli.validation.city import City, Unique, check_blocks, check_facts, check_tiles, ids_of
from urbancli.validation.findings import FileCheck
from urbancli.validation.geoparquet import Geography, open_checked, row_groups

FACTS = (
    "layer", "licence", "attribution", "epsg", "tile_m", "provenance", "plan_fingerprint",
    "bands", "dtype", "pixel_m", "native_m",
)  # fmt: skip

DTYPES = {"sentinel2": "uint16", "naip": "uint8", "sentinel1": "float32"}
"""What the sources of these names write."""

BRIGHTEST = 20_000
"""Reflectance 2.0: beyond it there are glints and broken scenes only."""

BACKSCATTER_DB = (-80.0, 60.0)
"""Beyond it lies neither a calm lake nor a corner reflector."""

FIRST_YEAR = 2000
"""NAIP began in 2003, its trials a little before."""

FEW_BRIGHT = 1e-3
"""Share of samples beyond it that is taken for glints."""


def check_pixels(city: City, layer: str) -> set[str]:
    """Check an imagery layer and return the ids of the tiles it has pixels of."""
    check = city.check(city.workspace.layer_file(city.key, layer))
    opened = open_checked(check, PIXEL_SCHEMA)
    if opened is None:
        return set()
    file, facts = opened
    with file:
        geography, unique = Geography(file, check), Unique(check)
        samples = None
        if check_facts(check, city, facts, FACTS):
            samples = _Samples(check, facts, city.grid.tile_m)
        for table, geometry in row_groups(file):
            ids = ids_of(table, "place_id")
            geography.add(table, geometry, ids)
            unique.add(ids)
            check_tiles(check, city, ids, geometry)
            check_blocks(check, city, ids, ids_of(table, "block"))
            _years(check, table, ids)
            if samples is not None:
                samples.add(table, ids)
        geography.close()
        if samples is not None:
            samples.close()
            _coverage(check, city, samples.shares)
        check.close(file.metadata.num_rows)
    return unique.seen


def _coverage(check: FileCheck, city: City, shares: dict[str, float]) -> None:
    """Note how many of the city's tiles have no pixel, or only some."""
    found = np.array([shares.get(place, 0.0) for place in city.places.place_id])
    if none := int((found == 0).sum()):
        check.note(f"{none:,} of the city's {len(found):,} tiles have no pixel")
    if some := int(((found > 0) & (found < 1)).sum()):
        check.note(f"{some:,} of the city's {len(found):,} tiles are valid in part")


def _years(check: FileCheck, table: pa.Table, ids: list[str]) -> None:
    """Check what a layer says of the images its tiles come from, where it does."""
    if not {"year", "year_share", "native_m"} <= set(table.column_names):
        return
    year, share, native_m = (
        table.column(name).to_numpy().astype(float) for name in ("year", "year_share", "native_m")
    )
    check.rows(f"year is not in {FIRST_YEAR} … 2100", ~((year >= FIRST_YEAR) & (year < 2100)), ids)
    check.rows("year_share is not in (0, 1]", ~((share > 0) & (share <= 1)), ids)
    check.rows("native_m is not above 0", ~(native_m > 0), ids)


class _Samples:
    """Looks at the samples and validity of tiles."""

    def __init__(self, check: FileCheck, facts: dict[str, Any], tile_m: int) -> None:
        self._check = check
        self._dtype = np.dtype(facts["dtype"]).newbyteorder("<")
        side = tile_m / facts["pixel_m"]
        self._shape = (len(facts["bands"]), round(side), round(side))
        self._source = facts["provenance"].get("source")
        self._bright = self._count = 0
        self.shares: dict[str, float] = {}
        if abs(side - round(side)) > 1e-6 or not facts["bands"]:
            check.fault(f"{len(facts['bands'])} bands of {facts['pixel_m']} m do not fill a tile")
        right = DTYPES.get(str(self._source))
        if right is not None and self._dtype != right:
            check.fault(f"samples are {facts['dtype']}, not {right}")

    def add(self, table: pa.Table, ids: list[str]) -> None:
        """Look at the tiles of a row group, one at a time."""
        share = table.column("valid_fraction").to_numpy()
        self._check.rows("valid_fraction is not in (0, 1]", ~((share > 0) & (share <= 1)), ids)
        self.shares.update(zip(ids, share.tolist(), strict=True))
        length = int(np.prod(self._shape)) * self._dtype.itemsize
        bits = -(-(self._shape[1] ** 2) // 8)
        found = [self._look(row, length, bits) for row in _rows(table)]
        for fault in dict.fromkeys(name for names in found for name in names):
            self._check.rows(fault, [fault in names for names in found], ids)

    def _look(self, row: dict[str, Any], length: int, bits: int) -> set[str]:
        if len(row["pixels"]) != length:
            return {f"pixels are not {length:,} bytes"}
        if len(row["valid"]) not in {0, bits}:
            return {f"valid is not {bits:,} bytes"}
        side = self._shape[1]
        valid = unpack_valid(row, side)
        faults = set()
        if abs(valid.mean() - row["valid_fraction"]) > 1e-12:
            faults.add("valid_fraction differs from the valid bits")
        samples = np.frombuffer(row["pixels"], self._dtype).reshape(self._shape)
        if samples[:, ~valid].any():
            faults.add("a sample where nothing is valid is not 0")
        return faults | self._ranges(samples[:, valid])

    def _ranges(self, samples: npt.NDArray[Any]) -> set[str]:
        if samples.dtype.kind == "f" and not np.isfinite(samples).all():
            return {"a valid sample is not finite"}
        low, high = BACKSCATTER_DB
        if self._source == "sentinel1" and ((samples < low) | (samples > high)).any():
            return {f"a valid sample is not in {low:g} … {high:g} dB"}
        if self._source == "naip" and samples.size and not samples.any():
            return {"all valid samples are 0"}
        if self._source != "sentinel2":
            return set()
        self._bright += int((samples > BRIGHTEST).sum())
        self._count += samples.size
        return {"a valid sample is 0, which is no reflectance"} if not samples.all() else set()

    def close(self) -> None:
        """Judge what is counted over the whole layer."""
        if self._bright > FEW_BRIGHT * self._count:
            share = self._bright / self._count
            self._check.fault(f"{share:.1%} of the samples are above {BRIGHTEST:,}, twice white")
        elif self._bright:
            self._check.note(f"{self._bright:,} samples are above {BRIGHTEST:,}, as glints are")


def _rows(table: pa.Table) -> Any:
    """Yield the rows without copying all pixels into Python at once."""
    columns = [table.column(name) for name in ("pixels", "valid", "valid_fraction")]
    for index in range(table.num_rows):
        pixels, valid, share = (column[index] for column in columns)
        yield {
            "pixels": pixels.as_buffer() or b"",
            "valid": valid.as_buffer() or b"",
            "valid_fraction": share.as_py(),
        }
