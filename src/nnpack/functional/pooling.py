"""Max and average pooling: sliding windows, whole planes, and windows that adapt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from nnpack.algorithms.base import FLOAT_BYTES
from nnpack.algorithms.pooling import plan_pooling
from nnpack.arguments import IntOrPair, PaddingLike, as_flag
from nnpack.arrays import (
    Float32Array,
    as_float32,
    with_unit_column_stride,
)
from nnpack.execution import Call
from nnpack.functional.running import planned_program, result
from nnpack.functional.stating import kept
from nnpack.pool_problem import PoolKind, PoolProblem, RowStrides
from nnpack.runtime.memory import empty_indices, empty_output
from nnpack.settings import resolve_num_threads

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
    numbers = kernel_size, stride, padding, dilation, None
    flags = as_flag("ceil_mode", ceil_mode), True, as_flag("return_indices", return_indices)
    return _pool(_state_sliding, "max", numbers, flags, x, threads, out)


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
    numbers = kernel_size, stride, padding, 1, divisor_override
    ceil, padding_counts = (
        as_flag("ceil_mode", ceil_mode),
        as_flag("count_include_pad", count_include_pad),
    )
    flags = ceil, padding_counts, False
    return _result(_pool(_state_sliding, "average", numbers, flags, x, threads, out))


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
    return _result(_pool(_state_adaptive, "average", (output_size,), (False,), x, threads, out))


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
    flags = (as_flag("return_indices", return_indices),)
    return _pool(_state_adaptive, "max", (output_size,), flags, x, threads, out)


Numbers = tuple[object, ...]
Flags = tuple[bool, ...]
Statement = Callable[[PoolKind, Sequence[int], RowStrides, Any, Any], PoolProblem]


def _state_sliding(
    kind: PoolKind, shape: Sequence[int], strides: RowStrides, numbers: Any, flags: Any
) -> PoolProblem:
    kernel_size, stride, padding, dilation, divisor = numbers
    ceil_mode, count_padding, indices = flags
    return PoolProblem.pool2d(
        kind,
        shape,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        count_padding=count_padding,
        divisor=divisor,
        indices=indices,
        x_strides=strides,
    )


def _state_adaptive(
    kind: PoolKind, shape: Sequence[int], strides: RowStrides, numbers: Any, flags: Any
) -> PoolProblem:
    return PoolProblem.adaptive_pool2d(kind, shape, numbers[0], indices=flags[0], x_strides=strides)


def _pool(
    state: Statement,
    kind: PoolKind,
    numbers: Numbers,
    flags: Flags,
    x: object,
    threads: SupportsIndex | None,
    out: Float32Array | None,
) -> Float32Array | WithIndices:
    """State the problem, and run it: both are kept for arguments that were seen before."""
    given = as_float32("x", x, 4)
    x = with_unit_column_stride(given)
    words = state, kind, x.shape, x.strides, flags, resolve_num_threads(threads)
    shape, call = kept(_prepare, words, *numbers)
    y = empty_output(shape) if out is None else result(shape, out, {"x": given})
    if not flags[-1]:
        if call is not None:
            call(x, y)
        return y
    indices = empty_indices(shape)
    if call is not None:
        call(x, y, indices)
    return y, indices


def _prepare(
    state: Statement,
    kind: PoolKind,
    shape: Sequence[int],
    strides: Sequence[int],
    flags: Flags,
    threads: int,
    *numbers: object,
) -> tuple[tuple[int, ...], Call | None]:
    """The shape of y; what computes it, and the indices if there are any, unless it is empty.

    ``strides`` are of x, in bytes.
    """
    n, c, h = (stride // FLOAT_BYTES for stride in strides[:3])
    problem = state(kind, shape, (n, c, h), numbers, flags)
    if problem.is_empty:
        return problem.y_shape, None
    names = ("x", "y", "indices") if problem.indices else ("x", "y")
    return problem.y_shape, planned_program(plan_pooling, problem, threads).bound(*names)


def _result(pooled: Float32Array | WithIndices) -> Float32Array:
    """The result of a pool that returns no indices."""
    assert not isinstance(pooled, tuple)
    return pooled
