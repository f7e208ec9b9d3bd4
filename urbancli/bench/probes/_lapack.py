"""What SciPy's own wrappers of BLAS and LAPACK do, without keeping other threads of Python waiting.

`scipy.linalg.lapack.dsytrd` and `scipy.linalg.blas.dtrsm` hold the GIL as long as they take, so
that folds in threads would take turns. The same routines of the same library are reached through
the functions that SciPy offers to Cython (`scipy.linalg.cython_lapack`, `cython_blas`).
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np

from urbancli.bench.probes.base import Floats


def tridiagonal(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """Make a symmetric matrix (K, K) tridiagonal in place: LAPACK's `dsytrd`.

    Args:
        matrix: in Fortran's order; of it the lower triangle is read, and then holds the reflectors.

    Returns:
        The diagonal (K,), what lies beside it (K − 1,) and the factors of the reflectors (K − 1,).
    """
    from scipy.linalg.lapack import dsytrd_lwork

    _check(matrix.flags.f_contiguous, matrix)
    size = len(matrix)
    work = np.empty(max(1, int(dsytrd_lwork(size, lower=1)[0])))
    made = np.empty(size), np.empty(max(0, size - 1)), np.empty(max(0, size - 1))
    info = ctypes.c_int(0)
    _routine("cython_lapack", "dsytrd")(
        b"L", _int(size), _data(matrix), _int(size), *map(_data, made), _data(work),
        _int(len(work)), ctypes.byref(info),
    )  # fmt: skip
    if info.value:
        raise ArithmeticError(f"LAPACK's dsytrd ended with {info.value}")
    return made


def cholesky(matrix: Floats) -> Floats:
    """Return the lower triangle L of a positive definite matrix L Lᵀ (K, K): LAPACK's `dpotrf`.

    Args:
        matrix: symmetric, and overwritten: L is in its lower triangle, above which nothing is set.
    """
    _check(matrix.flags.c_contiguous, matrix)
    info = ctypes.c_int(0)
    size = _int(len(matrix))
    _routine("cython_lapack", "dpotrf")(b"U", size, _data(matrix), size, ctypes.byref(info))
    if info.value:
        raise ArithmeticError(f"LAPACK's dpotrf ended with {info.value}: not positive definite")
    return matrix


def triangular(factor: Floats, right: Floats, transposed: bool = False) -> Floats:
    """Return L⁻¹ B (K, C), or L⁻ᵀ B where it is transposed: BLAS's `dtrsm`.

    Args:
        factor: L (K, K), its lower triangle is read.
        right: B (K, C).
        transposed: whether by Lᵀ.
    """
    solved = np.array(right, dtype=np.float64, order="C")
    _check(factor.flags.c_contiguous, factor)
    size, width = solved.shape
    # In Fortran's order the arrays are Lᵀ and Bᵀ: Bᵀ (Lᵀ)⁻¹ = (L⁻¹ B)ᵀ.
    _routine("cython_blas", "dtrsm")(
        b"R", b"U", b"T" if transposed else b"N", b"N", _int(width), _int(size),
        ctypes.byref(ctypes.c_double(1.0)), _data(factor), _int(size), _data(solved), _int(width),
    )  # fmt: skip
    return solved


def _check(ordered: bool, matrix: Floats) -> None:
    if not ordered or matrix.dtype != np.float64 or matrix.shape != (len(matrix),) * 2:
        raise ValueError(f"not a square float64 matrix in order: {matrix.dtype} {matrix.shape}")


def _int(number: int) -> Any:
    return ctypes.byref(ctypes.c_int(number))


def _data(array: Floats) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@cache
def _routine(library: str, name: str) -> Any:
    import scipy.linalg.cython_blas
    import scipy.linalg.cython_lapack

    api, capsule = ctypes.pythonapi, getattr(scipy.linalg, library).__pyx_capi__[name]
    signature = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    return ctypes.CFUNCTYPE(None)(address(capsule, signature(capsule)))
