"""Fixtures shared by all tests: where the real data lies."""

import os
from pathlib import Path

import pytest

# Before torch and OpenBLAS load: their threads spin, and beside any other process that costs more
# than a second core gives to work as small as the tests'.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout; a test that asks for it skips without it."""
    folder = (ROOT / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder
