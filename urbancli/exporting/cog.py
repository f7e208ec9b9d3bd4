"""Imagery as a cloud-optimised GeoTIFF: the mosaic of its tiles on the city's own grid.

Samples are those of the layer, bit for bit. What is not valid is 0 and masked by the file's
internal mask: 0 can be a sample, so that no value is free to mean "no data".
"""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from urbancli.description import COMMON_NAMES
from urbancli.grid import cells_of_ids
from urbancli.layers import unpack_valid

BLOCK_PX = 512

COG_OPTIONS = {
    "compress": "deflate",
    "predictor": "yes",
    "blocksize": BLOCK_PX,
    "overview_resampling": "average",
    "bigtiff": "if_safer",
}

CACHE_BYTES = 256 << 20
"""For GDAL's cache of blocks: without it, it takes a share of the machine's memory."""

Progress = Callable[[str, int, int], None]


def write_cog(
    file: pq.ParquetFile, facts: dict[str, Any], said: dict[str, str], out: Path, progress: Progress
) -> int:
    """Write the mosaic of a layer's tiles and return how many there are.

    Args:
        file: of the layer.
        facts: its metadata.
        said: tags of the GeoTIFF: attribution, licence.
        out: the file; a plain GeoTIFF lies beside it meanwhile.
        progress: told of every row group.
    """
    import rasterio
    from rasterio.shutil import copy

    plain = out.with_name("plain.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_CACHEMAX=CACHE_BYTES):
        written = _write_plain(file, facts, said, plain, progress)
        with _heard():
            copy(plain, out, driver="COG", **COG_OPTIONS)
        plain.unlink()
        # GDAL tells nobody when the disk is full as it closes a file.
        if _read_back(out) != written:
            raise OSError(errno.EIO, "what was written is not what can be read: is the disk full?")
    return int(file.metadata.num_rows)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Keep back what libtiff, past GDAL and Python, writes to stderr where a disk is full.

    Raises:
        OSError: it did.
    """
    if sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        there = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(there, 2)
            os.close(there)
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines(keepends=True)
            of_libtiff = [line for line in lines if line.startswith("_tiff")]
            sys.stderr.writelines(line for line in lines if line not in of_libtiff)
            if any(os.strerror(errno.ENOSPC) in line for line in of_libtiff):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sum(samples: npt.NDArray[Any]) -> int:
    """Return the sum of samples as bits, the same whatever their order."""
    bits = np.ascontiguousarray(samples).view(f"u{samples.dtype.itemsize}")
    return int(bits.sum(dtype=np.uint64))


def _read_back(path: Path) -> tuple[int, int]:
    """Return the sum of the samples of a file, and how many pixels are valid."""
    import rasterio

    total = valid = 0
    with rasterio.open(path) as dataset:
        for _, window in dataset.block_windows(1):
            total += _sum(dataset.read(window=window))
            valid += int((dataset.dataset_mask(window=window) > 0).sum())
    return total % 2**64, valid


def _write_plain(
    file: pq.ParquetFile, facts: dict[str, Any], said: dict[str, str], out: Path, progress: Progress
) -> tuple[int, int]:
    """Write the mosaic; return the sum of its samples, and how many pixels are valid."""
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    tile_m, size = facts["tile_m"], facts["pixel_m"]
    side = round(tile_m / size)
    cells = cells_of_ids(file.read(columns=["place_id"]).column(0).combine_chunks())
    west, south = cells.min(axis=0)
    columns, rows = cells.max(axis=0) - (west, south) + 1
    north = int(south + rows)
    dtype = np.dtype(facts["dtype"])
    profile = {
        "driver": "GTiff", "width": int(columns) * side, "height": int(rows) * side,
        "count": len(facts["bands"]), "dtype": dtype.name, "crs": f"EPSG:{facts['epsg']}",
        "transform": Affine(size, 0, west * tile_m, 0, -size, north * tile_m),
        "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "bigtiff": "if_safer",
        "sparse_ok": True, "photometric": "minisblack", "interleave": "pixel",
    }  # fmt: skip
    shape = (len(facts["bands"]), side, side)
    _check_room(out, ((cells - (west, south)) * side, side), dtype.itemsize * shape[0])
    done = total = known = 0
    with rasterio.open(out, "w", **profile) as dataset:
        _name_bands(dataset, facts)
        dataset.update_tags(**said, **_copyright(said))
        for group in range(file.num_row_groups):
            progress("pixels", group, file.num_row_groups)
            for pixels, valid in _tiles(file, group, side):
                samples = np.frombuffer(pixels, dtype.newbyteorder("<")).reshape(shape)
                column, row = cells[done]
                window = Window((column - west) * side, (north - 1 - row) * side, side, side)
                dataset.write(samples.astype(dtype, copy=False), window=window)
                dataset.write_mask(valid, window=window)
                done, total, known = done + 1, total + _sum(samples), known + int(valid.sum())
        progress("pixels", file.num_row_groups, file.num_row_groups)
    return total % 2**64, known


def _check_room(out: Path, squares: tuple[npt.NDArray[np.int64], int], pixel_bytes: int) -> None:
    """Raise where there is no room for a sparse file without compression, whose size is known.

    Args:
        out: the file.
        squares: corners (N, 2) of the tiles in pixels, and their side.
        pixel_bytes: of all bands.

    Raises:
        OSError: the disk is too full.
    """
    corners, side = squares
    ends = [(corners + more) // BLOCK_PX for more in (0, side - 1)]
    blocks = np.unique(
        np.concatenate([np.stack([x[:, 0], y[:, 1]], axis=1) for x in ends for y in ends]), axis=0
    )
    # A mask has one bit a pixel.
    needed = len(blocks) * (BLOCK_PX**2 * pixel_bytes + BLOCK_PX**2 // 8)
    if shutil.disk_usage(out.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _tiles(
    file: pq.ParquetFile, group: int, side: int
) -> Iterator[tuple[Any, npt.NDArray[np.bool_]]]:
    """Yield bytes and validity of the tiles of a row group."""
    table = file.read_row_group(group, ["pixels", "valid", "valid_fraction"])
    names = ("valid", "valid_fraction")
    for index in range(table.num_rows):
        about = {name: table.column(name)[index].as_py() for name in names}
        yield table.column("pixels")[index].as_buffer(), unpack_valid(about, side)


def _name_bands(dataset: Any, facts: dict[str, Any]) -> None:
    from rasterio.enums import ColorInterp

    colours = {name: ColorInterp[name] for name in ("red", "green", "blue")}
    for number, name in enumerate(facts["bands"], start=1):
        dataset.set_band_description(number, name)
    dataset.colorinterp = [
        colours.get(COMMON_NAMES.get(name, ""), ColorInterp.undefined) for name in facts["bands"]
    ]
    if "scale" in facts:
        dataset.scales = [facts["scale"]] * len(facts["bands"])


def _copyright(said: dict[str, str]) -> dict[str, str]:
    """Return the tag in which TIFF readers look for an attribution."""
    text = "; ".join(said[name] for name in ("ATTRIBUTION", "LICENCE") if name in said)
    return {"TIFFTAG_COPYRIGHT": text.replace("©", "(c)")}  # the tag is ASCII
