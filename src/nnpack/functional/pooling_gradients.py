"""Gradients of max and average pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from nnpack.algorithms.reshaping import plan_average_gradient, plan_max_gradient
from nnpack.arguments import IntOrPair, PaddingLike, as_flag, as_shape
from nnpack.arrays import Float32Array, as_float32, check_out
from nnpack.errors import DtypeError, ProblemError
from nnpack.functional.pooling import max_pool2d
from nnpack.functional.running import run_planned
from nnpack.pool_problem import PoolProblem
from nnpack.resampling import average_gradient_tables
from nnpack.runtime.memory import empty_output

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
    shape = as_shape("x", input_shape, _AXES)
    places = _as_indices(indices, grad.shape, shape)
    problem = PoolProblem.adaptive_pool2d("max", shape, _outputs(grad, shape))
    y = _result(shape, out, grad_output=grad, indices=places)
    if y.size:
        dense = np.ascontiguousarray(grad)
        arrays: dict[str, npt.NDArray[Any]] = {"grad": dense, "indices": places, "y": y}
        run_planned(plan_max_gradient, problem, arrays, threads)
    return y


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
    _check_shape(grad, y.shape)
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
    problem = PoolProblem.pool2d(
        "average",
        input_shape,
        kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=as_flag("ceil_mode", ceil_mode),
        count_padding=as_flag("count_include_pad", count_include_pad),
        divisor=divisor_override,
    )
    return _average_gradient(problem, as_float32("grad_output", grad_output, 4), threads, out)


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
    shape = as_shape("x", input_shape, _AXES)
    problem = PoolProblem.adaptive_pool2d("average", shape, _outputs(grad, shape))
    return _average_gradient(problem, grad, threads, out)


def _average_gradient(
    problem: PoolProblem,
    grad: Float32Array,
    threads: SupportsIndex | None,
    out: Float32Array | None,
) -> Float32Array:
    _check_shape(grad, problem.y_shape)
    shape = problem.batch, problem.channels, problem.height, problem.width
    y = _result(shape, out, grad_output=grad)
    if not y.size:
        return y
    rows, columns = average_gradient_tables(problem)
    arrays: dict[str, npt.NDArray[Any]] = {
        "x": np.ascontiguousarray(grad),
        "y": y,
        "row_places": rows.places,
        "column_places": columns.places,
    }
    for name, table in (("row_weights", rows), ("column_weights", columns)):
        if table.weights is not None:
            arrays[name] = table.weights
    run_planned(plan_average_gradient, problem, arrays, threads)
    return y


def _outputs(grad: Float32Array, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the pooled planes, which belong to as many of x."""
    if grad.shape[:2] != shape[:2] or min(grad.shape[2:]) < 1:
        raise ProblemError(
            f"grad_output.shape={grad.shape} must have N and C of input_shape={shape}, and pixels"
        )
    return grad.shape[2], grad.shape[3]


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


def _check_shape(grad: Float32Array, shape: tuple[int, ...]) -> None:
    if grad.shape != shape:
        raise ProblemError(f"grad_output.shape={grad.shape} must be {shape}, that of the pooled x")


def _result(
    shape: tuple[int, ...], out: Float32Array | None, **inputs: npt.NDArray[Any]
) -> Float32Array:
    return empty_output(shape) if out is None else check_out(out, shape, inputs.items())
