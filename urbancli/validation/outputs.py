"""Checks of what was made from cities: split files and results. Runs check themselves."""

import pyarrow as pa

from urbancli.validation.city import Unique, ids_of
from urbancli.validation.findings import FileCheck, Findings
from urbancli.validation.geoparquet import Geography, open_checked, row_groups
from urbancli.workspace import BBOX_TYPE, Workspace

SPLIT = pa.schema(
    [
        ("unit_id", pa.string()),
        ("group", pa.string()),
        ("bbox", BBOX_TYPE),
        ("geometry", pa.binary()),
    ]
)

RESULT = pa.schema([(name, pa.string()) for name in ("city", "task", "method")])

ACCOUNT = pa.schema([(name, pa.string()) for name in ("city", "task", "modality", "quantity")])


def check_outputs(workspace: Workspace, findings: Findings) -> None:
    """Check the split files, results and answers of a workspace."""
    for path in sorted(workspace.root.glob("splits/*.parquet")):
        check = FileCheck(path, findings, "delete it and run `urban bench --splits` again")
        if (opened := open_checked(check, SPLIT)) is None:
            continue
        with opened[0] as file:
            geography, unique = Geography(file, check), Unique(check)
            for table, geometry in row_groups(file):
                ids = ids_of(table, "unit_id")
                geography.add(table, geometry, ids)
                unique.add(ids)
            geography.close()
            check.close(file.metadata.num_rows)
    results, answers = workspace.results_dir(), workspace.answers_dir()
    anew = "delete it and run `urban bench` again"
    for paths, schema in (
        (results.glob("bench-*.parquet"), RESULT),
        (results.glob("account-*.parquet"), ACCOUNT),
        (answers.glob("*.parquet"), pa.schema([])),
    ):
        for path in sorted(paths):
            _check_rows(FileCheck(path, findings, anew), schema)


def _check_rows(check: FileCheck, schema: pa.Schema) -> None:
    """Check a file without geometry: that it is ours, whole, and holds some columns."""
    if (opened := open_checked(check, schema)) is None:
        return
    with opened[0] as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group)
        check.close(file.metadata.num_rows)
