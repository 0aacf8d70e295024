"""Max and average pooling: sliding windows, whole planes, and windows that adapt."""

from __future__ import annotations

from typing import Literal, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from nnpack.algorithms.pooling import plan_pooling
from nnpack.arguments import IntOrPair, PaddingLike
from nnpack.arrays import (
    Float32Array,
    as_float32,
    check_out,
    element_strides,
    with_unit_column_stride,
)
from nnpack.functional.running import run_planned
from nnpack.pool_problem import PoolProblem
from nnpack.runtime.memory import empty_output

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "global_avg_pool2d",
    "global_max_pool2d",
    "max_pool2d",
]

WithIndices = tuple[Float32Array, npt.NDArray[np.int64]]


@overload
def max_pool2d(
    x: object,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array: ...


@overload
def max_pool2d(
    x: object,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> WithIndices: ...


def max_pool2d(
    x: object,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array | WithIndices:
    """The greatest pixel of every window: (N, C, H, W) -> (N, C, H', W').

    ``stride`` is ``kernel_size`` unless given. ``padding`` is as in `conv2d`, but less than what a
    window spans; padded pixels are never chosen. ``ceil_mode``: a last window that overhangs the
    padded image counts too, if it begins inside the image or before it. A window that holds a NaN
    gives NaN; one without any pixel of the image (a dilated one may be) gives -inf.

    With ``return_indices`` returns ``(y, indices)``, int64: the place of each maximum in its plane,
    counted row by row; the first of equal ones, the last NaN, -1 where there is no pixel.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    x = with_unit_column_stride(as_float32("x", x, 4))
    problem = PoolProblem.pool2d(
        "max",
        x.shape,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        indices=return_indices,
        x_strides=element_strides(x),
    )
    return _run_with_indices(problem, x, threads, out)


def avg_pool2d(
    x: object,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: SupportsIndex | None = None,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The mean of every window: (N, C, H, W) -> (N, C, H', W').

    Windows are those of `max_pool2d`. The sum of a window is divided by ``divisor_override``, or by
    the number of its pixels: with ``count_include_pad`` those in the padding count as zeros, those
    beyond it (``ceil_mode``) never count.

    Raises as `max_pool2d` does.
    """
    x = with_unit_column_stride(as_float32("x", x, 4))
    problem = PoolProblem.pool2d(
        "average",
        x.shape,
        kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_padding=count_include_pad,
        divisor=divisor_override,
        x_strides=element_strides(x),
    )
    return _run(problem, x, threads, out)


def global_avg_pool2d(
    x: object, *, threads: SupportsIndex | None = None, out: Float32Array | None = None
) -> Float32Array:
    """The mean of every plane: (N, C, H, W) -> (N, C, 1, 1). Raises as `max_pool2d` does."""
    return adaptive_avg_pool2d(x, 1, threads=threads, out=out)


def global_max_pool2d(
    x: object, *, threads: SupportsIndex | None = None, out: Float32Array | None = None
) -> Float32Array:
    """The greatest of every plane: (N, C, H, W) -> (N, C, 1, 1). Raises as `max_pool2d` does."""
    return adaptive_max_pool2d(x, 1, threads=threads, out=out)


def adaptive_avg_pool2d(
    x: object,
    output_size: IntOrPair,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """Means of windows that part the image evenly: (N, C, H, W) -> (N, C, H', W').

    ``output_size`` is (H', W') or one number for both. Window i of n covers rows ``floor(i*H/n)``
    to ``ceil((i+1)*H/n)``, columns likewise; n may be more than there are rows.

    Raises as `max_pool2d` does.
    """
    x = with_unit_column_stride(as_float32("x", x, 4))
    strides = element_strides(x)
    problem = PoolProblem.adaptive_pool2d("average", x.shape, output_size, x_strides=strides)
    return _run(problem, x, threads, out)


@overload
def adaptive_max_pool2d(
    x: object,
    output_size: IntOrPair,
    return_indices: Literal[False] = False,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array: ...


@overload
def adaptive_max_pool2d(
    x: object,
    output_size: IntOrPair,
    return_indices: Literal[True],
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> WithIndices: ...


def adaptive_max_pool2d(
    x: object,
    output_size: IntOrPair,
    return_indices: bool = False,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array | WithIndices:
    """The greatest of windows as in `adaptive_avg_pool2d`; NaN and indices as in `max_pool2d`."""
    x = with_unit_column_stride(as_float32("x", x, 4))
    problem = PoolProblem.adaptive_pool2d(
        "max", x.shape, output_size, indices=return_indices, x_strides=element_strides(x)
    )
    return _run_with_indices(problem, x, threads, out)


def _run(
    problem: PoolProblem,
    x: Float32Array,
    threads: SupportsIndex | None,
    out: Float32Array | None,
    indices: npt.NDArray[np.int64] | None = None,
) -> Float32Array:
    y = empty_output(problem.y_shape) if out is None else out
    if out is not None:
        check_out(out, problem.y_shape, [("x", x)])
    arrays = {"x": x, "y": y} if indices is None else {"x": x, "y": y, "indices": indices}
    if not problem.is_empty:
        run_planned(plan_pooling, problem, arrays, threads)
    return y


def _run_with_indices(
    problem: PoolProblem,
    x: Float32Array,
    threads: SupportsIndex | None,
    out: Float32Array | None,
) -> Float32Array | WithIndices:
    if not problem.indices:
        return _run(problem, x, threads, out)
    indices = np.empty(problem.y_shape, np.int64)
    return _run(problem, x, threads, out, indices), indices
