"""Sizes of windows that make sense: in metres, when they are set; in pixels, when they are read."""

from urbancli.configs import check_range
from urbancli.errors import UrbanError

LARGEST_M = 20_000.0
"""The side of the largest window. Of imagery and entities 2,560 m are fetched around every place:
a window that is far larger is a slip, and would not fit into memory."""

SMALLEST_IMAGE_M = 10.0
"""The side of the smallest map, or image for a model: a pixel of Sentinel-2."""

LARGEST_PX = 10_000
"""The side of the largest window in pixels: 100 million of them, of 4 bands 3 GB in float64."""


def check_window(window_m: float) -> None:
    """Refuse a side of a window, `window_m`, that is not above 0 or is too large.

    Raises:
        UsageError: it is out of range.
    """
    fits = 0 < window_m <= LARGEST_M
    check_range("window_m", window_m, f"above 0, at most {LARGEST_M:.0f}", fits)


def check_pixels(window_m: float, pixel_m: float, least: int = 1) -> None:
    """Refuse windows of too few or too many pixels.

    Args:
        window_m: side of the windows, metres.
        pixel_m: side of a pixel, metres.
        least: pixels that a side must have.

    Raises:
        UrbanError: a side has fewer than those, or more than LARGEST_PX.
    """
    side = round(window_m / pixel_m)
    if side < least:
        raise UrbanError(
            f"pixels of {pixel_m:g} m are too coarse for windows of {window_m:g} m: "
            f"bring imagery of {window_m / least:g} m or finer, or set a larger window_m"
        )
    if side > LARGEST_PX:
        raise UrbanError(
            f"pixels of {pixel_m:g} m are too fine for windows of {window_m:g} m ({side} a side): "
            f"set window_m={LARGEST_PX * pixel_m:g} or less"
        )
