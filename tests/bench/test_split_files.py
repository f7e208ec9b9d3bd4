"""Files of splits: the same bytes for the same input, and nothing broken is scored on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.bench.test_splits import scattered, tiles
from urbancli import plugins
from urbancli.bench.splits._files import split_file
from urbancli.embeddings import align
from urbancli.errors import UrbanError, UsageError
from urbancli.runs import held_out_places
from urbancli.workspace import geometries, read_table, write_table

UNITS = scattered(200, 3)
TARGET = np.random.default_rng(3).normal(size=(200, 1))
PINS = {"label": "b", "seed": 42}

Edit = Callable[[pa.Table], pa.Table]


def written(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.parquet"
    split_file(path, kind, UNITS, TARGET, PINS, 5)
    return path


@pytest.mark.parametrize("kind", plugins.names("bench.splits"))
def test_the_same_input_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    first = written(tmp_path / "a", kind).read_bytes()
    assert written(tmp_path / "b", kind).read_bytes() == first


def without(name: str) -> Edit:
    return lambda table: table.drop_columns([name])


def with_column(name: str, change: Callable[[list], list]) -> Edit:
    return lambda table: table.set_column(
        table.column_names.index(name), name, pa.array(change(table.column(name).to_pylist()))
    )


def torn(table: pa.Table) -> pa.Table:
    """One unit of a group that has several in another fold than the rest of it."""
    group, fold = table.column("group").to_pylist(), table.column("fold").to_pylist()
    row = next(number for number, name in enumerate(group) if group.count(name) > 1)
    moved = [(one + 1) % 5 if number == row else one for number, one in enumerate(fold)]
    return with_column("fold", lambda _: moved)(table)


BROKEN: list[tuple[str, Edit, str]] = [
    ("spatial", without("fold"), "no column 'fold'"),
    ("spatial", without("group"), "no column 'group'"),
    ("spatial", without("unit_id"), "no column 'unit_id'"),
    ("spatial", lambda table: table.slice(0, 195), "other units"),
    ("spatial", lambda table: pa.concat_tables([table, table.slice(0, 5)]), "in it twice"),
    ("spatial", with_column("fold", lambda old: [None, *old[1:]]), "no value in column 'fold'"),
    ("spatial", with_column("fold", lambda old: [float(one) for one in old]), "no whole numbers"),
    ("spatial", with_column("fold", lambda old: [one + 3 for one in old]), "5 folds and has other"),
    ("spatial", torn, "a group is in two folds"),
    ("buffered", torn, "a group is in two folds"),
    ("spatial", with_column("group", lambda old: ["here"] * len(old)), "a group is no square"),
    ("urbanfusion", without("validation"), "never tested, and none that choose"),
    ("cityrep", with_column("validation", lambda old: [int(one) for one in old]), "yes or no"),
    ("cityrep", with_column("validation", lambda old: [False] * len(old)), "no unit chooses"),
    ("cityrep", with_column("validation", lambda old: [True] * len(old)), "chooses .* is tested"),
    ("cityrep", with_column("fold", lambda old: [-1] * len(old)), "1 folds and has others"),
]


@pytest.mark.parametrize(("kind", "edit", "told"), BROKEN)
def test_a_broken_file_is_refused_in_one_line(
    kind: str, edit: Edit, told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, kind)
    table, facts = read_table(path)
    write_table(path, edit(table), facts)
    with pytest.raises(UrbanError, match=told) as caught:
        split_file(path, kind, UNITS, TARGET, PINS, 5)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text
    assert text.endswith("delete it and run again")


def test_a_random_split_may_part_a_group(tmp_path: Path) -> None:
    """The check of whole groups is of splits that promise them."""
    split = split_file(written(tmp_path, "random"), "random", UNITS, TARGET, PINS, 5)
    assert len(set(zip(split.group, split.fold, strict=True))) > len(set(split.group))


@pytest.mark.parametrize("kind", ["urbanfusion", "cityrep"])
def test_pre_training_can_hold_out_what_a_protocol_tests(kind: str, tmp_path: Path) -> None:
    path, places = written(tmp_path, kind), tiles(30, 30)
    table, _ = read_table(path)
    tested = geometries(table)[table.column("fold").to_numpy() == 0]
    wanted = np.asarray(align(tested, places).weights.sum(axis=0)).ravel() > 0
    held = held_out_places(path, 0, places, 0.0)
    assert held[wanted].all() and not held.all()
    # What is learnt from is no fold: it cannot be held out, nor is it offered.
    for number in (-1, 3):
        with pytest.raises(UsageError, match=f"unknown fold '{number}': choose from 0$"):
            held_out_places(path, number, places, 0.0)
