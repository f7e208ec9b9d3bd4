"""A benchmark's result as terminal tables: one per city and task, the doubts in words below it."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from urbancli.bench.contestants import title
from urbancli.bench.places import places
from urbancli.bench.rows import Row, described
from urbancli.bench.run import BenchResult
from urbancli.report.account import render_account, render_alignment
from urbancli.report.ranking import render_ranking
from urbancli.report.stress import render_stress
from urbancli.report.transfer import render_transfer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHARED = "†"
"""Behind a score whose label shares its source with a modality that was read."""

DOUBTED = "‡"
"""Behind a score whose interval lies outside the range where simulated cities bear it out."""

METRICS = {"r2": "R²", "macro_f1": "macro-F1"}


def render(result: BenchResult, console: "Console | None" = None) -> None:
    """Print what a run does not beat, then a table per task, split and probe with all doubts.

    Args:
        result: of `bench`.
        console: where to; default stdout.
    """
    from rich.console import Console

    console = console or Console(file=sys.stdout, highlight=False)
    for line in _verdicts(result.rows):
        console.print(line, highlight=False, markup=False)
    for note in _notes(result, "", ""):
        console.print(note, highlight=False, markup=False)
    render_ranking(places(result), console)
    told: set[tuple[str, str]] = set()
    within = [row for row in result.rows if not row["train_city"]]
    for (city, task, *_), part in itertools.groupby(within, key=paper_of):
        notes = [] if (city, task) in told else _notes(result, city, task)
        told.add((city, task))
        _render_task(list(part), notes, console)
    render_stress(within, console)
    render_account(result.account, console)
    render_alignment(result.alignment, console)
    render_transfer([row for row in result.rows if row["train_city"]], console)
    for city in dict.fromkeys(row["city"] for row in result.rows):
        for note in _notes(result, city, ""):
            console.print(f"{city}: {note}", highlight=False, markup=False)


def paper_of(row: Row) -> tuple[Any, ...]:
    """Return what rows of one table share."""
    return tuple(row[name] for name in ("city", "task", "split", "split_seed", "probe"))


def in_detail(row: Row) -> bool:
    """Return whether a row stands in its task's table: whole, or without one modality or group.

    Subsets and rates are told over all tasks, see `report.stress`.
    """
    return not set(row["drop"]) & set("+=:")


def _notes(result: BenchResult, city: str, task: str) -> list[str]:
    return [n["note"] for n in result.notes if (n["city"], n["task"]) == (city, task)]


# --- in words --------------------------------------------------------------------------------


def verdict(low: float | None, high: float | None) -> str:
    """Return what an interval of a difference allows to say."""
    if low is None or high is None:
        return "too few units or groups for an interval"
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def signed(value: float) -> str:
    """Return a difference with its sign, two decimals."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text in {"+0.00", "−0.00"} else text


def difference_text(row: Row, other: str) -> str | None:
    """Return one sentence: the row's score minus a control's, with its interval.

    Args:
        row: of a run.
        other: `concatenation` or `untrained`.
    """
    value, low, high = (row[f"difference_{other}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return None
    within = "" if low is None else f" [{signed(low)}, {signed(high)}]"
    dropped = f"{without_text(row)}: " if row["drop"] else ""
    doubt = f" {DOUBTED}" if row["difference_warning"] else ""
    said = f"{signed(value)}{within}: {verdict(low, high)}{doubt}"
    return f"{dropped}{title(row)} − {other}: {said}"


def _verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """Yield, for every run, where it does not beat concatenation with its interval."""
    first: dict[tuple[str, str], Any] = {}
    rows = [row for row in rows if not row["train_city"]]
    for row in rows:
        first.setdefault((row["city"], row["task"]), paper_of(row))
    whole = [r for r in rows if is_run(r) and not r["drop"]]
    # Of several splits and probes the first counts: the default ones, where they are among them.
    whole = [row for row in whole if first[row["city"], row["task"]] == paper_of(row)]
    for name in dict.fromkeys(title(row) for row in whole):
        mine = [row for row in whole if title(row) == name]
        compared = [row for row in mine if row["difference_concatenation"] is not None]
        if not compared:
            yield f"{name} could not be compared with concatenation on any task"
            continue
        lost = [row for row in compared if not (row["difference_concatenation_low"] or 0) > 0]
        tasks = ", ".join(f"{row['city']}/{row['task']}" for row in lost)
        if lost:
            yield (
                f"{name} does NOT beat concatenation on {len(lost)} of {len(compared)} tasks: "
                f"{tasks}"
            )
        else:
            yield f"{name} beats concatenation on all {len(compared)} tasks"


def without_text(row: Row) -> str:
    """Return what a row is without, in words."""
    return f"without {row['drop']}" + (" at test only" if row["drop_at"] == "test" else "")


def is_run(row: Row) -> bool:
    """Return whether a row is of a run as it was trained."""
    return bool(row["run"]) and row["method"] != "untrained"


# --- one task --------------------------------------------------------------------------------


def _render_task(rows: Sequence[Row], notes: Sequence[str], console: "Console") -> None:
    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    rows = [row for row in rows if in_detail(row)]
    scored = [row for row in rows if row["value"] is not None]
    first = rows[0]
    say(f"\n{first['city']} · {first['task']}", "bold")
    if scored:
        some = scored[0]
        say(
            f"{METRICS[some['metric']]}, {some['probe']}, {split_text(some)}; 95 % intervals; "
            "transductive where not marked inductive; random: what random folds would add",
            "dim",
        )
    shown, nowhere = [], []
    for _, part in itertools.groupby(rows, key=without_text):
        found = list(part)
        reasons = {row["note"] for row in found if row["value"] is None}
        if len(reasons) == 1 and all(row["value"] is None for row in found):
            without = f"{without_text(found[0])}: " if found[0]["drop"] and scored else ""
            nowhere.append(without + reasons.pop())
        else:
            shown += found
    if shown:
        console.print(_table(shown))
    for row in shown if scored else []:
        for other in ("concatenation", "untrained"):
            if text := difference_text(row, other):
                say(text)
    said = [*_counts(scored), *notes]
    for text in dict.fromkeys([*(said if scored else notes), *(nowhere if scored else [])]):
        say(f"· {text}", "dim" if scored else "")


def split_text(row: Row) -> str:
    """Return how the units of a row were split."""
    if row["split"] in {"spatial", "buffered"}:
        return f"{row['split']} split in groups of {row['group_m']:,} m"
    return f"{row['split']} split, seed {row['split_seed']}"


def _table(rows: Sequence[Row]) -> "Table":
    from rich.table import Table

    dropped = any(row["drop"] for row in rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("method")
    table.add_column("score", min_width=22)
    table.add_column("random", justify="right", no_wrap=True)
    table.add_column("n/groups", justify="right", no_wrap=True)
    if dropped:
        table.add_column("retention", justify="right", no_wrap=True)
    for without, part in itertools.groupby(rows, key=without_text):
        for number, row in enumerate(part):
            drop = row["drop"]
            if drop and not number:
                table.add_row(f"{without}:", style="dim")
            counts = "" if row["n"] is None else f"{row['n']:,}/{row['groups']:,}"
            inflated = "" if row["inflation"] is None else signed(row["inflation"])
            cells = [described(row), _score(row), inflated, counts]
            if dropped:
                cells.append("" if not drop or row["value"] is None else _percent(row))
            table.add_row(*cells, style="bold" if is_run(row) else "")
    return table


def _score(row: Row) -> str:
    if row["value"] is None:
        return str(row["note"])
    value = f"{row['value']:.3f}".replace("-", "−")
    if row["leak"] not in {"", "unknown"}:
        value += SHARED
    if row["warning"]:
        value += DOUBTED
    if row["too_few"]:
        return f"{value} too few"
    low, high = (f"{row[end]:.3f}".replace("-", "−") for end in ("low", "high"))
    return f"{value} [{low}, {high}]".replace(" ", "\u00a0")


def _percent(row: Row) -> str:
    if row["retention"] is None:
        return "n/a"
    return f"{row['retention']:.0%}".replace("-", "−")


def _remedy(shared: Sequence[str]) -> str:
    """Return how to score without what shares a label's source."""
    if len(shared) == 1:
        return f"--drop {shared[0]} scores without"
    return "--subsets scores without all of them"


def _counts(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what was removed, imputed and not converged, with who and how many."""
    removed: dict[Any, None] = dict.fromkeys((row["folds"], row["removed"]) for row in rows)
    for folds, number in removed:
        where = "a fold" if folds == "all" else f"for fold {folds}"
        yield (
            f"{number:,.1f} training units {where} were removed: they touch a test unit or its "
            "windows"
        )
    if any(is_run(row) and row["drop"] and row["pretraining"] == "transductive" for row in rows):
        yield (
            "transductive runs saw the dropped modality at the test places before it was dropped: "
            "`urban train --hold-out-split` shows what is kept where they did not"
        )
    for row in rows:
        without = f" {without_text(row)}" if row["drop"] else ""
        if row["imputed"] and not row["imputation"]:
            yield (
                f"{title(row)}{without}: {row['imputed']:,} of {row['n']:,} units miss features, "
                "the training mean stands for them"
            )
        if row["note"]:
            yield f"{title(row)}{without}: {row['note']}"
    for name in ("warning", "difference_warning"):
        yield from dict.fromkeys(f"{DOUBTED} {row[name]}" for row in rows if row[name])
    shared = {name for row in rows if not row["drop"] for name in row["leak"].split(",")}
    if named := sorted(shared - {"", "unknown"}):
        yield (
            f"{SHARED} reads {' or '.join(named)}, from which the label may have been made too: an "
            f"unfair advantage; {_remedy(named)}"
        )
    if "unknown" in shared:
        yield "from which modalities the label was made is unknown: a leak cannot be excluded"
