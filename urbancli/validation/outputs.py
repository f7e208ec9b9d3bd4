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


def check_outputs(workspace: Workspace, findings: Findings) -> None:
    """Check the split files and results of a workspace."""
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
    for path in sorted(workspace.results_dir().glob("*.parquet")):
        check = FileCheck(path, findings, "delete it and run `urban bench` again")
        if (opened := open_checked(check, RESULT)) is None:
            continue
        with opened[0] as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
            check.close(file.metadata.num_rows)
