"""Tables of a result: CSV that is read back, markdown and LaTeX that render as they are meant."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from urbancli.bench.run import SCHEMA
from urbancli.city import SYNTHETIC
from urbancli.errors import UrbanError, UsageError
from urbancli.report.latex import NEEDS, escaped, latex
from urbancli.report.markdown import markdown
from urbancli.report.sheets import tied_with_best
from urbancli.report.tables import read_csv, write_tables

NOTES = [
    {"city": "", "task": "", "note": f"demo is {SYNTHETIC}"},
    {"city": "", "task": "", "note": "without pois keeps 80%"},
    {"city": "delhi", "task": "crime", "note": "3 of 9 units without a value"},
]


def row(method: str, value: float | None, reach: float | None = 0.1, **more: Any) -> dict[str, Any]:
    known = value is not None and reach is not None
    scores = {
        "value": value,
        "low": value - reach if known else None,
        "high": value + reach if known else None,
        "n": None if value is None else 1234,
        "groups": None if value is None else 40,
        "too_few": None if value is None else reach is None,
        "folds": None if value is None else "all",
        "group_m": 1200,
    }
    basis = {
        "city": "delhi", "task": "crime", "method": method, "preset": "", "run": "", "settings": "",
        "pretraining": "none", "train_city": "", "split": "spatial", "split_seed": 0,
        "probe": "ridge", "drop": "",
        "drop_at": "", "imputation": "", "metric": "r2", "leak": "", "note": "", "warning": "",
    }  # fmt: skip
    return {**dict.fromkeys(SCHEMA.names), **basis, **scores, **more}


def run_row(value: float | None, reach: float | None = 0.1, **more: Any) -> dict[str, Any]:
    about = {"preset": "small", "run": "urbanfusion-delhi", "pretraining": "transductive"}
    return row("urbanfusion", value, reach, **{**about, **more})


NASTY = r"50 % of A_B & C#1 {x} ~ ^ \alpha $y$ | <b> `q` *z* [l](u) − ² R² × …" + "\nnew"

ROWS = [
    row("constant", 0.0, 0.0, inflation=0.0),
    run_row(0.5, inflation=-0.2, difference_concatenation=0.03,
            difference_concatenation_low=-0.01, difference_concatenation_high=0.07),
    row("concatenation", 0.47, warning="the correlation range exceeds the groups", n=99),
    row("tags", 0.3, None, leak="entities,pois"),
    run_row(0.1, drop="satellite", drop_at="both", retention=0.2),
    row("coordinates", None, drop="satellite", drop_at="both", note="n/a: does not read satellite"),
    row("subset", 0.3, drop="naip+pois", drop_at="both"),
    row("odd", 0.2, task="a_b", settings=NASTY, note=NASTY, metric="macro_f1"),
    row("constant", 0.0, city="demo", imputed=3),
    *(row("coords", 0.1, city="demo", split="city", train_city="delhi", few_shot=few, metric=metric)
      for few in (0, 10) for metric in ("r2", "r2_free")),
]  # fmt: skip


# --- CSV -------------------------------------------------------------------------------------


def test_a_csv_is_read_back_as_it_was(tmp_path: Path) -> None:
    rows = [*ROWS, row("tiny", 1 / 3 * 1e-17, split_sha256="", too_few=False, seed=2**53 + 1)]
    (path,) = write_tables(rows, NOTES, tmp_path / "bench-1", ["csv"])
    assert path == tmp_path / "bench-1.csv"
    assert read_csv(path) == rows
    lines = path.read_text().splitlines()
    assert lines[0].endswith('"synthetic"') and lines[-2].endswith(SYNTHETIC + '"')
    assert lines[1].endswith(',""')


def test_a_csv_of_real_cities_has_no_mark(tmp_path: Path) -> None:
    (path,) = write_tables(ROWS[:3], NOTES, tmp_path / "bench", ["csv"])
    assert "synthetic" not in path.read_text().lower()
    assert read_csv(path) == ROWS[:3]


def test_what_is_no_csv_of_ours_says_so(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("other.csv", "none.csv"):
        with pytest.raises(UrbanError, match="urban bench --format csv"):
            read_csv(tmp_path / name)


def test_unknown_formats_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean latex"):
        write_tables(ROWS, NOTES, tmp_path / "bench", ["csv", "latx"])
    assert not list(tmp_path.iterdir())


# --- who is best -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 0.05), (0.3, 0.05)], {0}),
        ([(0.3, 0.05), (0.5, 0.05), (0.42, 0.05)], {1, 2}),
        ([(0.5, None), (0.3, 0.05), (0.1, 0.05)], {1}),
        ([(0.5, None), (None, None)], set()),
    ],
)
def test_best_is_who_stands_alone_or_all_who_tie(
    scores: list[tuple[float | None, float | None]], best: set[int]
) -> None:
    assert tied_with_best([row("m", value, reach) for value, reach in scores]) == best


def test_who_is_scored_on_one_fold_is_not_called_best() -> None:
    rows = [row("a", 0.3, 0.01), row("b", 0.2, 0.01), row("c", 0.9, 0.01, folds="0", n=200)]
    assert tied_with_best(rows) == {0}


# --- markdown --------------------------------------------------------------------------------


def rendered() -> str:
    html: str = MarkdownIt("commonmark").enable("table").render(markdown(ROWS, NOTES))
    return html


def test_markdown_renders_as_tables() -> None:
    html = rendered()
    tables = re.findall(r"<table>.*?</table>", html, re.DOTALL)
    assert len(tables) == html.count("<h2>") == 5
    for table in tables:
        widths = {line.count("<t") for line in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}
        assert len(widths) == 1, widths
    first = tables[0]
    assert "<strong>0.500 [0.400, 0.600]</strong>" in first
    assert "<strong>0.470 [0.370, 0.570]</strong>" not in first  # on other units
    assert "+0.030" not in first and "0.030 [−0.010, 0.070]" in first
    assert "<em>without satellite</em>" in first and ">20%<" in first
    assert "R², ridge probe, learnt in another city" in html and "squared correlation" in html
    for table in tables[-2:]:
        for few in (0, 10):
            assert table.count(f"<em>learnt in delhi, and on {few} units here</em>") == 1
    assert "subset" not in html and "1 rows with several modalities missing" in html


def test_markdown_shows_every_letter_of_a_name() -> None:
    html = rendered()
    text = NASTY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert text.replace("\nnew", " new") in html


def test_markdown_says_doubts_below_the_table() -> None:
    html = rendered()
    for said in (
        "the correlation range exceeds the groups", "scored on 99 units in 40 groups",
        "too few units or groups for an interval", "does not read satellite",
        "reads entities or pois, of which the label may be made too",
        "3 units miss features, the training mean stands for them", "3 of 9 units without a value",
        "without pois keeps 80%",
    ):  # fmt: skip
        assert html.count(said) == 1, said
    for marked in html.split("<h2>demo")[1:]:
        assert SYNTHETIC in marked
    assert SYNTHETIC not in html.split("<h2>")[1]


# --- LaTeX -----------------------------------------------------------------------------------


def cells_of(line: str) -> int:
    """Return how many columns a table's line fills."""
    spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
    return 1 + len(re.findall(r"(?<!\\)&", line)) + spans


def test_latex_tables_are_well_formed() -> None:
    text = latex(ROWS, NOTES)
    assert text.startswith(NEEDS) and text.isascii()
    bare = re.sub(r"\\[{}\\]", "", text)
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 2
    for table in re.findall(r"\\begin\{longtable\}.*?\\end\{longtable\}", text, re.DOTALL):
        columns = 1 + re.search(r"linewidth\}(r+)@", table)[1].count("r")  # type: ignore[index]
        lines = [
            x for x in table.splitlines() if x.endswith((r"\\", r"\\*")) and "caption" not in x
        ]
        assert len(lines) > 3 and {cells_of(line) for line in lines} == {columns}
    assert r"\textbf{\boldmath 0.500 {[}0.400, 0.600{]}}" in text
    assert SYNTHETIC in text.split(r"\begin{longtable}")[2].split(r"\label")[0]
    assert SYNTHETIC not in text.split(r"\begin{longtable}")[1]


def test_no_letter_of_a_name_is_a_command() -> None:
    text = escaped(NASTY)
    assert r"50 \% of A\_B \& C\#1 \{x\}" in text
    assert r"\textbackslash{}alpha \$y\$" in text and "$-$" in text and "$R^2$" in text
    assert "\n" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    write_tables(ROWS, NOTES, tmp_path / "bench", ["latex"])
    packages = NEEDS.removeprefix("% needs ")
    document = (
        rf"\documentclass{{article}}{packages}\begin{{document}}\input{{bench}}\end{{document}}"
    )
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
