"""Weight and bias gradients of convolutions: arguments -> problem -> plan -> one native call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

from nnpack.arguments import IntOrPair, PaddingLike
from nnpack.arrays import Float32Array, as_float32, element_strides, with_unit_column_stride
from nnpack.codegen.target import host_target
from nnpack.epilogue import Epilogue
from nnpack.explanation import Explanation
from nnpack.functional.gradient_arguments import check_gradient, gradient_output
from nnpack.functional.running import run_planned
from nnpack.gradient_planner import explain_weight_gradient, weight_gradient_planner
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.input_gradient import conv_transpose2d_transpose_of
from nnpack.problem import Accuracy, Problem, TransposedProblem, dense_strides
from nnpack.settings import resolve_num_threads

__all__ = [
    "conv2d_weight_gradient",
    "conv_transpose2d_weight_gradient",
    "explain_conv2d_weight_gradient",
]


def conv2d_weight_gradient(
    x: object,
    grad_output: object,
    weight_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv2d` in its weights.

    (N, C, H, W), (N, O, H', W') -> (O, C/groups, kh, kw).

    ``grad_output`` is the gradient in the convolution's sums. It is summed over images and pixels
    in an order that does not depend on the threads. ``algorithm`` is auto, implicit_gemm or
    another that `explain_conv2d_weight_gradient` lists. With ``accumulate`` the gradient is added
    to ``out``, which must then be given. No images give zeros.

    Raises as `conv2d` does.
    """
    x, grad_output = as_float32("x", x, 4), as_float32("grad_output", grad_output, 4)
    x = with_unit_column_stride(x)
    forward = Problem.conv2d(
        x.shape,
        weight_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
        x_strides=element_strides(x),
    )
    check_gradient("grad_output", grad_output, forward.y_shape)
    given = {"x": x, "grad_output": grad_output}
    return _run(forward, x, grad_output, given, algorithm, threads, out, accumulate)


def conv_transpose2d_weight_gradient(
    x: object,
    grad_output: object,
    weight_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv_transpose2d` in its weights.

    (N, I, H, W), (N, O, H', W') -> (I, O/groups, kh, kw): that of the convolution which takes
    ``grad_output`` to the shape of x. Everything else is as in `conv2d_weight_gradient`.

    Raises as `conv2d` does.
    """
    x, grad_output = as_float32("x", x, 4), as_float32("grad_output", grad_output, 4)
    grad_output = with_unit_column_stride(grad_output)
    transposed = TransposedProblem.conv_transpose2d(
        x.shape,
        weight_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    check_gradient("grad_output", grad_output, transposed.y_shape)
    forward = conv_transpose2d_transpose_of(transposed, element_strides(grad_output), Epilogue())
    given = {"x": x, "grad_output": grad_output}
    return _run(forward, grad_output, x, given, algorithm, threads, out, accumulate)


def explain_conv2d_weight_gradient(
    weight_shape: Sequence[SupportsIndex],
    input_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
) -> Explanation:
    """Which algorithm `conv2d_weight_gradient` uses for arrays of these shapes, and why.

    Raises as `conv2d_weight_gradient` does.
    """
    forward = Problem.conv2d(
        input_shape,
        weight_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    strides = dense_strides(forward.y_shape)[:2]
    problem = WeightGradientProblem(forward=forward, grad_strides=strides)
    return explain_weight_gradient(problem, algorithm, host_target(), resolve_num_threads(threads))


def _run(
    forward: Problem,
    x: Float32Array,
    grad: Float32Array,
    given: dict[str, Float32Array],
    algorithm: str,
    threads: SupportsIndex | None,
    out: Float32Array | None,
    accumulate: bool,
) -> Float32Array:
    """The weight gradient of ``forward``, whose input is ``x`` and whose output's gradient is g."""
    planner, count = weight_gradient_planner(algorithm), resolve_num_threads(threads)
    result = gradient_output(forward.weight_shape, out, accumulate, given)
    if forward.is_empty:
        if not accumulate:
            result.fill(0.0)
        return result
    grad = _with_dense_planes(grad)
    strides = element_strides(grad)[:2]
    problem = WeightGradientProblem(forward=forward, grad_strides=strides, accumulate=accumulate)
    run_planned(planner, problem, {"x": x, "grad": grad, "y": result}, count)
    return result


def _with_dense_planes(grad: Float32Array) -> Float32Array:
    """``grad``, copied unless the pixels of each of its planes are consecutive."""
    _, _, height, width = grad.shape
    item = grad.itemsize
    rows = height == 1 or grad.strides[2] == width * item
    columns = width == 1 or grad.strides[3] == item
    return grad if rows and columns else np.ascontiguousarray(grad)
