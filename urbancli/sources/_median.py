"""The median over dates of images in which not every date knows every pixel."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[Any]


@functools.cache
def comparators(count: int) -> tuple[tuple[int, int], ...]:
    """Return the pairs (lower, upper) that, put in order one after another, sort `count` values.

    Batcher's odd-even merge sort; Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M.
    """

    def pairs() -> Iterator[tuple[int, int]]:
        top = 1 << max(count - 1, 0).bit_length() >> 1
        step = top
        while step:
            most, remainder, distance = top, 0, step
            while distance:
                for first in range(count - distance):
                    if first & step == remainder:
                        yield first, first + distance
                distance = most - step if most > step else 0
                most, remainder = most >> 1, step
            step >>= 1

    return tuple(pairs())


def sort_dates(stack: Images) -> Images:
    """Sort (dates, …) along dates, in place, and return it.

    By whole images: numpy's sort would walk through memory one pixel at a time.
    """
    spare = np.empty_like(stack[0])
    for lower, upper in comparators(len(stack)):
        np.minimum(stack[lower], stack[upper], out=spare)
        np.maximum(stack[lower], stack[upper], out=stack[upper])
        stack[lower] = spare
    return stack


def middle(stack: Images) -> Iterator[tuple[npt.NDArray[np.bool_], Images, Images]]:
    """Yield, by how many dates know a pixel, where (S, S) it is and the two in the middle there.

    They are images (bands, S, S) of the smaller and the larger one, of an odd number the same.

    Args:
        stack: (dates, bands, S, S) of numbers above 0, and 0 in all bands where a date knows
            nothing; it is sorted in place.
    """
    known = (stack[:, 0] > 0).sum(axis=0)
    sort_dates(stack)  # unknown ones, 0, come first
    for count in np.unique(known[known > 0]).tolist():
        first = len(stack) - count
        yield known == count, stack[first + (count - 1) // 2], stack[first + count // 2]
