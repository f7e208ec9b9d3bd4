"""Intervals hold what they should: the short form of `benchmarks.coverage`, and its long one."""

import json

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks._result import RESULTS
from urbancli.bench import validity

KINDS = {(metric, paired): f"{metric} {'difference' if paired else 'score'}"
         for metric in ("r2", "macro_f1") for paired in (False, True)}  # fmt: skip


def test_most_intervals_of_simulated_cities_hold_the_mean() -> None:
    """Of 60 at 95 % at least 51: of a true coverage of 0.92 less than one run in thirty has not."""
    found = coverage.simulate(coverage.Part(25, 0.25, 0, 60, "labels"))
    assert {whose for _, whose in found} == {"first", "second", "difference"}
    for key, rows in found.items():
        assert len(rows) == 60
        ours, plain = coverage.covered(rows)
        assert ours >= 51 / 60 and ours >= plain, key
        # An interval of a quarter of the width does not: the count can fail.
        narrow = np.copy(rows)
        for low, high in ((1, 2), (3, 4)):
            narrow[:, [low, high]] = rows[:, :1] + (rows[:, [low, high]] - rows[:, :1]) / 4
        assert coverage.covered(narrow)[0] < 51 / 60, key


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_reader_is_warned_by_is_what_was_simulated(kind: tuple[str, bool]) -> None:
    published = json.loads((RESULTS / "coverage.json").read_text())
    assert published["cities"] >= 1000
    table = published["coverage"][KINDS[kind]]
    for row, reach in zip(validity.HELD[kind], validity.RANGES, strict=True):
        for share, groups in zip(row, validity.GROUPS, strict=True):
            assert share == table[f"{reach:g}"][str(groups)]["coverage"], (reach, groups)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("reach", "whose"), [(0.25, "first"), (0.25, "second"), (0.5, "difference")]
)
def test_a_thousand_cities(reach: float, whose: str) -> None:
    parts = [coverage.Part(25, reach, first, 50, "labels") for first in range(0, 1000, 50)]
    cells = coverage.run(parts)
    for label in ("strong", "weak"):
        rows = cells["labels", 25, reach, label, whose]
        assert len(rows) == 1000 and coverage.covered(rows)[0] >= validity.BAR
