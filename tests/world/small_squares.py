"""A city's imagery in COG tiles so small that a block of tiles has most of its own for itself.

A COG packs squares of pixels, and a reader brings whole squares. In a small city the usual 512
pixels are wider than a block: whatever few blocks are left to read, they need all of the file.
"""

import shutil
from pathlib import Path

SQUARE_PX = 128


def small_squares(inputs: Path, folder: Path) -> Path:
    """Copy a city's files, the imagery packed anew; its pixels are the same."""
    import rasterio.shutil

    shutil.copytree(inputs, folder)
    for file in sorted(folder.rglob("catalogue/**/*.tif")):
        whole = file.with_suffix(".whole")
        file.rename(whole)
        rasterio.shutil.copy(
            whole, file, driver="GTiff", tiled=True, blockxsize=SQUARE_PX, blockysize=SQUARE_PX,
            compress="deflate",
        )  # fmt: skip
        whole.unlink()
    return folder
