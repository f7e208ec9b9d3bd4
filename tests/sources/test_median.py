"""The median over dates, against numpy's of what is known."""

import itertools

import numpy as np
import pytest

from urbancli.sources import sentinel1, sentinel2
from urbancli.sources._median import comparators, sort_dates


@pytest.mark.parametrize("count", range(1, 13))
def test_the_network_sorts(count: int) -> None:
    """By the 0-1 principle a network that sorts zeros and ones sorts anything."""
    every = np.array(list(itertools.product([0, 1], repeat=count)), dtype=np.uint8).T
    assert (sort_dates(every.copy()) == np.sort(every, axis=0)).all()
    assert all(lower < upper < count for lower, upper in comparators(count))


@pytest.mark.parametrize("dates", [0, 1, 2, 5, 12])
def test_medians_are_of_what_is_known(dates: int) -> None:
    random = np.random.default_rng(dates)
    stack = random.integers(1, 1 << 16, (dates, 3, 9, 9), np.uint16)
    unknown = random.random((dates, 1, 9, 9)) < 0.4
    stack = np.where(unknown, np.uint16(0), stack)
    optical = sentinel2.median(stack.copy())
    radar, known = sentinel1.median_db(stack.astype(np.float32) / 1000)
    for row, column in np.ndindex(9, 9):
        values = stack[~unknown[:, 0, row, column], :, row, column].astype(float)
        assert known[row, column] == (len(values) > 0)
        if not len(values):
            assert not optical[:, row, column].any() and not radar[:, row, column].any()
            continue
        expected = np.median(values, axis=0)
        assert optical[:, row, column].tolist() == np.floor(expected + 0.5).tolist()
        np.testing.assert_allclose(radar[:, row, column], 10 * np.log10(expected / 1000), atol=1e-4)
