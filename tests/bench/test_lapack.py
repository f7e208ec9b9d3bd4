"""The routines reached past the GIL do what NumPy's do."""

import numpy as np
import pytest

from urbancli.bench.probes._lapack import cholesky, triangular, tridiagonal


@pytest.fixture(name="matrix", params=[1, 2, 7, 150])
def made(request: pytest.FixtureRequest) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((request.param, request.param + 5))
    return rows @ rows.T


def test_the_factor_is_the_lower_triangle(matrix: np.ndarray) -> None:
    assert np.tril(cholesky(matrix.copy())) == pytest.approx(np.linalg.cholesky(matrix))


@pytest.mark.parametrize("columns", [1, 3])
def test_triangles_are_solved_and_the_right_side_is_left(matrix: np.ndarray, columns: int) -> None:
    factor = cholesky(matrix.copy())  # above the diagonal it holds what it did
    lower = np.tril(factor)
    right = np.random.default_rng(1).standard_normal((len(matrix), columns))
    kept = right.copy()
    assert lower @ triangular(factor, right) == pytest.approx(right)
    assert lower.T @ triangular(factor, right, transposed=True) == pytest.approx(right)
    assert np.array_equal(kept, right)


def test_a_tridiagonal_matrix_keeps_the_eigenvalues(matrix: np.ndarray) -> None:
    diagonal, beside, factors = tridiagonal(np.asfortranarray(matrix))
    assert len(factors) == len(matrix) - 1
    found = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    assert np.linalg.eigvalsh(found) == pytest.approx(np.linalg.eigvalsh(matrix), abs=1e-9)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ArithmeticError, match="not positive definite"):
        cholesky(-np.eye(3))
    with pytest.raises(ValueError, match="order"):
        cholesky(np.eye(3, 4))
    with pytest.raises(ValueError, match="order"):
        tridiagonal(np.ones((4, 4), dtype=np.float32, order="F"))
    with pytest.raises(ValueError, match="order"):
        triangular(np.asfortranarray(np.arange(9.0).reshape(3, 3)), np.ones((3, 1)))
