"""Arrays as matrices: their last dimension, and all before it as rows."""

from __future__ import annotations

import numpy as np

from nnpack.arrays import Float32Array
from nnpack.linear_problem import MatrixStrides

__all__ = ["as_matrix", "matrix_strides"]


def as_matrix(array: Float32Array) -> Float32Array:
    """``array``, copied if it is no matrix whose rows or columns are consecutive."""
    if array.ndim == 0:
        return array
    return np.ascontiguousarray(array) if matrix_strides(array) is None else array


def matrix_strides(array: Float32Array) -> MatrixStrides | None:
    """Strides in elements from row to row and in a row, if one stride leads through all rows.

    None without such, and when neither is 1.
    """
    if array.ndim == 0:
        return None
    if array.flags.c_contiguous:  # what arrays nearly always are takes a tenth of the time
        return array.shape[-1], 1
    *outer, step = (stride // array.itemsize for stride in array.strides)
    row, count = None, 1
    for extent, stride in zip(array.shape[-2::-1], reversed(outer), strict=True):
        if extent == 1:
            continue
        if row is None:
            row = stride
        elif stride != row * count:
            return None
        count *= extent
    if array.shape[-1] == 1:
        step = 1
    row = array.shape[-1] if row is None else row
    return (row, step) if 1 in (row, step) else None
