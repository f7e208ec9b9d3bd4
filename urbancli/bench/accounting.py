"""The information account of a city's tasks, from its contestants; kept as answers are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from urbancli.bench.account import Row, account
from urbancli.bench.controls import CONCATENATION
from urbancli.bench.papers import Paper
from urbancli.bench.scoring import Stage
from urbancli.bench.stress import Condition
from urbancli.errors import UrbanError
from urbancli.spoiling import WHOLE
from urbancli.workspace import fingerprint, read_table, write_table

VERSION = 2
"""Raised whenever equal inputs would give another account."""

_TEXT, _NUMBER, _WHOLE = pa.string(), pa.float64(), pa.int64()

SCHEMA = pa.schema(
    {
        "city": _TEXT, "task": _TEXT, "split": _TEXT, "probe": _TEXT, "metric": _TEXT,
        "modality": _TEXT, "quantity": _TEXT, "run": _TEXT, "value": _NUMBER, "low": _NUMBER,
        "high": _NUMBER, "n": _WHOLE, "groups": _WHOLE, "too_few": pa.bool_(), "warning": _TEXT,
    }
)  # fmt: skip
"""A row of the account, see `account`. The modalities are those of the default encoders' frozen
features: coordinates are not among them, they stand in the benchmark's rows as a control."""


def accounts(stage: Stage, papers: Sequence[Paper]) -> list[Row]:
    """Return the account of every paper with a default probe on a spatial split.

    Raises:
        UrbanError: the city has no frozen features.
    """
    whole = next((one for one in stage.contestants if one.method == CONCATENATION), None)
    if whole is None or whole.blocks is None:
        raise UrbanError(
            f"'{stage.city.key}' has no modality but coordinates: fetch imagery, OSM or POIs for "
            "an account"
        )
    sittings: dict[str, list[Paper]] = {}
    for paper in papers:
        if paper.exam is not None and paper.usual and paper.kind == "spatial":
            mark = paper.exam.sitting(paper.material.alignment)
            sittings.setdefault(mark, []).append(paper)
    runs = [one for one in stage.contestants if one.trained and not one.mismatch]
    runs = [
        one for one in runs if one.hold_out is None and not one.settings.endswith("coordinates")
    ]
    rows: list[Row] = []
    for done, (mark, together) in enumerate(sittings.items()):
        stage.progress(f"account {stage.city.key}", done, len(sittings))
        exams = [paper.exam for paper in together if paper.exam is not None]
        who = [stage.identity(one, Condition()) for one in (whole, *runs)]
        versions = [VERSION, exams[0].module.VERSION]
        key = fingerprint([versions, who, mark, [exam.question for exam in exams]])
        path = stage.city.workspace.answers_dir() / f"account-{key}.parquet"
        found = _read(path)
        if found is None:
            material = together[0].material
            blocks = whole.blocks(material, WHOLE)
            embeddings = {one.run: one.on_units(material, WHOLE) for one in runs}
            found = [
                {"city": stage.city.key, "split": "spatial", **row}
                for row in account(exams, blocks, embeddings)
            ]
            write_table(path, pa.Table.from_pylist(found, schema=SCHEMA), {})
        rows += found
    stage.progress(f"account {stage.city.key}", len(sittings), len(sittings))
    order = {paper.name: number for number, paper in enumerate(papers)}
    return sorted(rows, key=lambda row: order[row["task"]])


def _read(path: Path) -> list[Row] | None:
    """Return a kept account; None where there is none that is whole."""
    try:
        table, _ = read_table(path)
    except UrbanError:
        return None
    found: list[dict[str, Any]] = table.to_pylist()
    return found if table.schema.names == SCHEMA.names else None
