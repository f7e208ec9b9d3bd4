"""Cloud-optimised GeoTIFFs, written by GDAL: tiled, compressed, with overviews."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbancli.city import SYNTHETIC
from urbancli.demo.recipe import GRID

TILE_PX = 512

_COG = {
    "driver": "COG",
    "compress": "DEFLATE",
    "level": 6,
    "predictor": "YES",
    "blocksize": TILE_PX,
    "overview_compress": "DEFLATE",
    "num_threads": 1,
}


def write_cog(
    path: Path,
    samples: npt.NDArray[Any],
    left_top: tuple[float, float],
    pixel_m: float,
    name: str,
    nodata: int,
) -> None:
    """Write one band as a COG.

    Args:
        path: of the new file; its folder is made.
        samples: (H, W) uint8 or uint16, rows from the north.
        left_top: upper left corner, metres in `recipe.GRID`'s CRS.
        pixel_m: side of a pixel, metres.
        name: of the band.
        nodata: value that stands for no data.
    """
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    # A classification must not be averaged.
    averaged = "AVERAGE" if samples.dtype == np.uint16 else "MODE"
    profile = _profile(samples.shape, left_top, pixel_m)
    with rasterio.open(
        path, "w", **_COG, **profile, count=1, dtype=samples.dtype.name, nodata=nodata,
        overview_resampling=averaged,
    ) as dataset:  # fmt: skip
        dataset.write(samples, 1)
        dataset.set_band_description(1, name)
        dataset.update_tags(TIFFTAG_IMAGEDESCRIPTION=SYNTHETIC)


class Mosaic:
    """A COG of several bands of bytes, filled part by part; use it as a context.

    The parts are kept in a plain file beside it, so that memory does not grow with the city.
    """

    def __init__(
        self,
        path: Path,
        box_m: tuple[float, float, float, float],
        pixel_m: float,
        names: Sequence[str],
    ) -> None:
        """Open a mosaic over (left, bottom, right, top), metres in `recipe.GRID`'s CRS."""
        import rasterio
        from rasterio.enums import ColorInterp

        self.path, self._box_m, self._pixel_m = path, box_m, pixel_m
        self._parts = path.with_suffix(".parts.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        left, bottom, right, top = box_m
        shape = (round((top - bottom) / pixel_m), round((right - left) / pixel_m))
        self._dataset = rasterio.open(
            self._parts, "w", driver="GTiff", tiled=True, blockxsize=TILE_PX, blockysize=TILE_PX,
            bigtiff="IF_SAFER", count=len(names), dtype="uint8", photometric="RGB", alpha="YES",
            **_profile(shape, (left, top), pixel_m),
        )  # fmt: skip
        # As in files from the agency, near infrared comes labelled as alpha.
        self._dataset.colorinterp = [
            ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha,
        ]  # fmt: skip
        for number, name in enumerate(names, start=1):
            self._dataset.set_band_description(number, name)
        self._dataset.update_tags(TIFFTAG_IMAGEDESCRIPTION=SYNTHETIC)

    def write(
        self, samples: npt.NDArray[np.uint8], box_m: tuple[float, float, float, float]
    ) -> None:
        """Write samples (bands, H, W) of a box in metres, as far as the mosaic reaches."""
        from rasterio.windows import Window

        left, bottom = (max(a, b) for a, b in zip(box_m[:2], self._box_m[:2], strict=True))
        right, top = (min(a, b) for a, b in zip(box_m[2:], self._box_m[2:], strict=True))
        if left >= right or bottom >= top:
            return

        def pixels(metres: float) -> int:
            return round(metres / self._pixel_m)

        height, width = pixels(top - bottom), pixels(right - left)
        row, column = pixels(box_m[3] - top), pixels(left - box_m[0])
        window = Window(pixels(left - self._box_m[0]), pixels(self._box_m[3] - top), width, height)
        self._dataset.write(samples[:, row : row + height, column : column + width], window=window)

    def __enter__(self) -> "Mosaic":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        from rasterio.shutil import copy

        self._dataset.close()
        if kind is None:
            # NEAREST: any other resampling would weigh samples by the band labelled alpha.
            copy(self._parts, self.path, overview_resampling="NEAREST", **_COG)
        self._parts.unlink()


def _profile(
    shape: tuple[int, ...], left_top: tuple[float, float], pixel_m: float
) -> dict[str, Any]:
    from rasterio.transform import from_origin

    return {
        "height": shape[0],
        "width": shape[1],
        "crs": f"EPSG:{GRID.epsg}",
        "transform": from_origin(*left_top, pixel_m, pixel_m),
    }
