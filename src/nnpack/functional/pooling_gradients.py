"""Gradients of max and average pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from nnpack.algorithms.reshaping import plan_average_gradient, plan_max_gradient
from nnpack.arguments import IntOrPair, PaddingLike, as_flag, as_shape
from nnpack.arrays import Float32Array, as_float32, check_out
from nnpack.errors import DtypeError, ProblemError
from nnpack.execution import Runnable
from nnpack.functional.pooling import max_pool2d
from nnpack.functional.running import Prepared, planned_program, result, run
from nnpack.functional.stating import kept
from nnpack.pool_problem import PoolProblem
from nnpack.resampling import average_gradient_tables, table_arrays
from nnpack.settings import resolve_num_threads

__all__ = [
    "adaptive_avg_pool2d_gradient",
    "avg_pool2d_gradient",
    "max_pool2d_gradient",
    "max_pool2d_input_gradient",
]

_AXES = ("N", "C", "H", "W")


def max_pool2d_gradient(
    grad_output: object,
    indices: object,
    input_shape: Sequence[SupportsIndex],
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of x, of ``input_shape``, from the ``indices`` of `max_pool2d` or its kin.

    ``indices`` is int64 of the shape of ``grad_output``; what belongs to a place is added there, in
    order; to -1 belongs nothing. Serves `adaptive_max_pool2d` and `global_max_pool2d` as well.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    grad = as_float32("grad_output", grad_output, 4)
    known = grad.shape, resolve_num_threads(threads)
    shape, program = kept(_max_gradient, known, input_shape)
    places = _as_indices(indices, grad.shape, shape)
    y = result(shape, out, {"grad_output": grad, "indices": places})
    if program is not None:
        run(program, {"grad": np.ascontiguousarray(grad), "indices": places, "y": y})
    return y


def _max_gradient(
    grad: tuple[int, ...], threads: int, input_shape: Sequence[SupportsIndex]
) -> tuple[tuple[int, ...], Runnable | None]:
    """The shape of x, and the program unless it is empty."""
    shape = as_shape("x", input_shape, _AXES)
    problem = PoolProblem.adaptive_pool2d("max", shape, _outputs(grad, shape))
    empty = math.prod(shape) == 0
    return shape, None if empty else planned_program(plan_max_gradient, problem, threads)


def max_pool2d_input_gradient(
    grad_output: object,
    x: object,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of x by finding its maxima again, for when no indices were kept.

    ``grad_output`` is the gradient of ``max_pool2d(x, ...)`` with the same arguments.

    Raises as `max_pool2d_gradient` does.
    """
    images = as_float32("x", x, 4)
    words = kernel_size, stride, padding, dilation, ceil_mode
    grad = as_float32("grad_output", grad_output, 4)
    y, indices = max_pool2d(images, *words, return_indices=True, threads=threads)
    _check_shape(grad.shape, y.shape)
    if out is not None:
        check_out(out, images.shape, [("x", images)])
    return max_pool2d_gradient(grad, indices, images.shape, threads=threads, out=out)


def avg_pool2d_gradient(
    grad_output: object,
    input_shape: Sequence[SupportsIndex],
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
    """The gradient of x, of ``input_shape``, behind `avg_pool2d` with the same arguments.

    Raises as `max_pool2d_gradient` does.
    """
    grad = as_float32("grad_output", grad_output, 4)
    flags = as_flag("ceil_mode", ceil_mode), as_flag("count_include_pad", count_include_pad)
    known = grad.shape, *flags, resolve_num_threads(threads)
    words = input_shape, kernel_size, stride, padding, divisor_override
    return kept(_sliding_gradient, known, *words).run("grad_output", grad, out)


def _sliding_gradient(
    grad: tuple[int, ...],
    ceil_mode: bool,
    count_padding: bool,
    threads: int,
    input_shape: Sequence[SupportsIndex],
    kernel_size: IntOrPair,
    stride: IntOrPair | None,
    padding: PaddingLike,
    divisor: SupportsIndex | None,
) -> Prepared:
    problem = PoolProblem.pool2d(
        "average",
        input_shape,
        kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_padding=count_padding,
        divisor=divisor,
    )
    return _average_gradient(problem, grad, threads)


def adaptive_avg_pool2d_gradient(
    grad_output: object,
    input_shape: Sequence[SupportsIndex],
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of x behind `adaptive_avg_pool2d` or, from (N, C, 1, 1), `global_avg_pool2d`.

    Raises as `max_pool2d_gradient` does.
    """
    grad = as_float32("grad_output", grad_output, 4)
    known = grad.shape, resolve_num_threads(threads)
    return kept(_adaptive_gradient, known, input_shape).run("grad_output", grad, out)


def _adaptive_gradient(
    grad: tuple[int, ...], threads: int, input_shape: Sequence[SupportsIndex]
) -> Prepared:
    shape = as_shape("x", input_shape, _AXES)
    problem = PoolProblem.adaptive_pool2d("average", shape, _outputs(grad, shape))
    return _average_gradient(problem, grad, threads)


def _average_gradient(problem: PoolProblem, grad: tuple[int, ...], threads: int) -> Prepared:
    _check_shape(grad, problem.y_shape)
    shape = problem.batch, problem.channels, problem.height, problem.width
    if math.prod(shape) == 0:
        return Prepared(shape, None)
    program = planned_program(plan_average_gradient, problem, threads)
    return Prepared(shape, program, table_arrays(*average_gradient_tables(problem)))


def _outputs(grad: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the pooled planes, which belong to as many of x."""
    if grad[:2] != shape[:2] or min(grad[2:]) < 1:
        raise ProblemError(
            f"grad_output.shape={grad} must have N and C of input_shape={shape}, and pixels"
        )
    return grad[2], grad[3]


def _as_indices(
    indices: object, shape: tuple[int, ...], image: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    if not isinstance(indices, np.ndarray) or indices.dtype != np.int64:
        raise DtypeError("indices must be a numpy.ndarray of int64, as max_pool2d returns them")
    if indices.shape != shape:
        raise ProblemError(f"indices.shape={indices.shape} must be that of grad_output, {shape}")
    pixels = image[2] * image[3]
    if indices.size and not -1 <= indices.min() <= indices.max() < pixels:
        raise ProblemError(
            f"indices are from {indices.min()} to {indices.max()}; they must be from -1 to "
            f"{pixels - 1}, places in the {image[2]}x{image[3]} pixels of a plane"
        )
    return np.require(indices, requirements=["C", "A"])


def _check_shape(grad: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if grad != shape:
        raise ProblemError(f"grad_output.shape={grad} must be {shape}, that of the pooled x")
