"""Answers that were given once are kept: a benchmark that was killed, or is asked more, goes on.

A file of answers is named by everything that its predictions depend on, and by nothing else: what
the contestant is, the data it reads, what was done to them, units, folds, probe. A label that
comes, goes or changes touches its own columns alone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from urbancli.bench.evaluation import Answers, Exam
from urbancli.errors import UrbanError
from urbancli.workspace import fingerprint, read_table, write_table

VERSION = 2
"""Raised whenever equal inputs would be answered otherwise for a reason that no other version
names."""


class AnswerBook:
    """The answers kept in a folder.

    Args:
        folder: `Workspace.answers_dir`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def answers(
        self,
        facts: Any,
        exams: Sequence[Exam],
        give: Callable[[Sequence[Exam]], Sequence[Answers]],
    ) -> list[Answers]:
        """Return the answers to exams of one sitting; only those not in the book are given anew.

        Args:
            facts: JSON-able, all that they depend on beside the targets.
            exams: of one sitting.
            give: exams → their answers.
        """
        path = self._folder / f"{fingerprint([VERSION, facts])}.parquet"
        known = _read(path, len(exams[0].target))
        missing = [exam for exam in exams if exam.question not in known]
        if missing:
            found = give(missing)
            known |= {exam.question: one for exam, one in zip(missing, found, strict=True)}
            _write(path, known)
        return [known[exam.question] for exam in exams]


def _read(path: Path, units: int) -> dict[str, Answers]:
    """Return question → answers of a file; nothing where there is none, or none of this form."""
    if not path.is_file():
        return {}
    try:
        table, facts = read_table(path)
    except UrbanError:
        return {}
    if table.num_rows != units:
        return {}
    column = {name: table.column(name).to_numpy() for name in table.column_names}
    return {
        question: Answers(
            column[f"predicted:{question}"],
            column[f"baseline:{question}"],
            column[f"scored:{question}"].astype(bool),
            counts["imputed"],
            counts["unconverged"],
            {int(fold): error for fold, error in counts["judged"].items()},
        )
        for question, counts in facts["questions"].items()
    }


def _write(path: Path, answers: Mapping[str, Answers]) -> None:
    columns: dict[str, Any] = {}
    for question, one in answers.items():
        columns[f"predicted:{question}"] = pa.array(np.ascontiguousarray(one.predicted))
        columns[f"baseline:{question}"] = pa.array(np.ascontiguousarray(one.baseline))
        columns[f"scored:{question}"] = pa.array(one.scored)
    counts = {
        question: {
            "imputed": one.imputed,
            "unconverged": one.unconverged,
            "judged": {str(fold): error for fold, error in one.judged.items()},
        }
        for question, one in answers.items()
    }
    write_table(path, pa.table(columns), {"questions": counts})
