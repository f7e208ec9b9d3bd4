"""Equations with one symmetric matrix and many penalties, at a third of the eigenvectors' cost.

A symmetric A is Q T Qᵀ with Q orthogonal and T tridiagonal (Householder 1958; LAPACK's `sytrd`,
the first step of every eigendecomposition). A + α = Q (T + α) Qᵀ, so that (A + α)⁻¹ B costs two
products with Q, which is never formed, and one pass along the diagonal for each α.
"""

import numpy as np

from urbancli.bench.probes._lapack import tridiagonal
from urbancli.bench.probes.base import Floats


class Tridiagonal:
    """A symmetric positive semi-definite matrix, ready to be solved with any penalty.

    Args:
        matrix: (K, K), its lower triangle is read.
    """

    def __init__(self, matrix: Floats) -> None:
        # The transpose of a symmetric matrix is itself, in the order of LAPACK.
        found = np.array(matrix.T, dtype=np.float64, order="F")
        self._diagonal, self._beside, self._factors = tridiagonal(found)
        # Q leaves the first coordinate as it is; below it, it is what `ormqr` multiplies with.
        self._reflectors = np.asfortranarray(found[1:, :-1])

    def path(self, right: Floats, penalties: Floats) -> Floats:
        """Return (A + α)⁻¹ B (K, P, C) for every penalty α (P,), with B (K, C)."""
        turned = self._turn(right, "T")
        width = right.shape[1]
        solved = np.empty((len(right), len(penalties) * width), order="F")
        for number, penalty in enumerate(penalties):
            part = slice(number * width, (number + 1) * width)
            solved[:, part] = self._solve(turned, float(penalty))
        return self._turn(solved, "N").reshape(len(right), len(penalties), width)

    def solve(self, right: Floats, penalties: Floats) -> Floats:
        """Return (A + α)⁻¹ B (K, C) with a penalty for each column (C,) of B (K, C)."""
        turned = self._turn(right, "T")
        solved = np.empty(right.shape, order="F")
        for penalty in np.unique(penalties):
            columns = np.flatnonzero(penalties == penalty)
            solved[:, columns] = self._solve(turned[:, columns], float(penalty))
        return self._turn(solved, "N")

    def _turn(self, right: Floats, how: str) -> Floats:
        """Return Q B, or Qᵀ B where `how` is T."""
        from scipy.linalg import lapack

        turned: Floats = np.array(right, order="F")
        if len(right) > 1:
            found, _, _ = lapack.dormqr(
                "L", how, self._reflectors, self._factors, turned[1:], 64 * right.shape[1]
            )
            turned[1:] = found
        return turned

    def _solve(self, right: Floats, penalty: float) -> Floats:
        """Return (T + α)⁻¹ B."""
        from scipy.linalg import lapack

        if len(right) == 1:  # `pttrf` wants something beside the diagonal
            return np.asarray(right / (self._diagonal + penalty))
        diagonal, beside, info = lapack.dpttrf(self._diagonal + penalty, self._beside)
        if info:
            raise ArithmeticError(f"a penalty of {penalty} is below the rounding of the matrix")
        solved, _ = lapack.dpttrs(diagonal, beside, right)
        return np.asarray(solved)
