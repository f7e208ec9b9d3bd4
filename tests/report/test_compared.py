"""What differs is told: largest first, in words a reader can act on."""

import io
from typing import Any

from rich.console import Console

from tests.bench.test_comparison import FIRST, RESULT, difference, row
from urbancli.bench.comparison import compare_contestants, compare_results
from urbancli.report.compared import (
    LISTED,
    render_compared,
    render_differences,
    render_paired,
)
from urbancli.reproduction import Difference


def text_of(render: Any, found: Any) -> str:
    out = io.StringIO()
    render(found, Console(file=out, width=120, highlight=False, markup=False))
    return out.getvalue()


def test_differences_of_scores_come_first_and_largest_first() -> None:
    found = [
        Difference("tags (control)", "demo crime spatial ridge", "n", 100, 101),
        Difference("a (small)", "demo crime spatial ridge", "value", 0.5, 0.53, 0.02),
        Difference("b (small)", "demo crime spatial ridge", "low", -0.2, -0.3, 0.02),
        Difference("c (small)", "demo crime spatial ridge", "value", 0.5, "missing"),
    ]
    lines = text_of(render_differences, found).splitlines()
    assert [line.split()[0] for line in lines] == ["what", "b", "a", "tags", "c"]
    assert lines[1].split()[-4:] == ["−0.20000", "−0.30000", "−1.0e−01", "0.02"]
    assert lines[4].split()[-2:] == ["0.50000", "missing"]


def test_files_are_told_by_the_first_digits_of_their_checksums() -> None:
    out = text_of(
        render_differences, [Difference("places.parquet", "demo", "checksum", "ab" * 32, "missing")]
    )
    assert "abababababab…" in out and "ab" * 7 not in out and "allowed" not in out
    many = [Difference(f"f{n}", "demo", "checksum", "a", "b") for n in range(LISTED + 3)]
    assert text_of(render_differences, many).splitlines()[-1] == "… and 3 more"


def test_two_results_are_counted_and_what_parts_is_listed() -> None:
    second = [{**one, "split_sha256": "bb"} for one in FIRST[1:]]
    second[1] |= {"value": 0.8, "low": 0.7, "high": 0.9}
    out = text_of(render_compared, compare_results(FIRST, [*second, row("new", 0.1)]))
    assert "4 scores of both; 1 lie outside the other's interval" in out
    assert "largest difference: +0.3000 a (small): delhi crime spatial ridge" in out
    assert "1 rows are only in the first" in out and "1 rows are only in the second" in out
    assert "5 rows were asked something else: split_sha256 differ" in out
    last = out.splitlines()[-1]
    assert "0.500 [0.400, 0.600]" in last and "0.800 [0.700, 0.900]" in last
    assert last.endswith("+0.300")


def test_equal_results_have_no_table() -> None:
    out = text_of(render_compared, compare_results(FIRST, FIRST))
    assert "0 lie outside" in out and len(out.splitlines()) == 2


def test_paired_differences_say_what_they_allow() -> None:
    out = text_of(render_paired, compare_contestants(RESULT, "a", "b", difference))
    lines = out.splitlines()
    assert lines[0] == "a (small) minus b (small), paired; 95 % intervals"
    crime = next(line for line in lines if "crime" in line)
    assert "worse" in crime and "−0.100 [−0.110, −0.090]" in crime and "0.600" in crime
    assert "better" in next(line for line in lines if "income" in line)
