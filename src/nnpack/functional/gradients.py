"""Input gradients of convolutions: arguments -> problem of the other direction -> one native call.

A gradient is named after the function it belongs to and takes the same parameters. What gradients
share (``accumulate``, the check of ``grad_output``) is in `gradient_arguments`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import SupportsIndex

import numpy as np

from nnpack.arguments import IntOrPair, PaddingLike
from nnpack.arrays import Float32Array, as_float32, with_unit_column_stride
from nnpack.codegen.target import host_target
from nnpack.epilogue import Activation, Epilogue
from nnpack.explanation import Explanation
from nnpack.functional.gradient_arguments import check_gradient, gradient_output
from nnpack.functional.output_gradients import Masking, masking_of
from nnpack.functional.residual import readable_residual
from nnpack.functional.running import packing_program
from nnpack.functional.stating import stated
from nnpack.geometry import dense_strides
from nnpack.input_gradient import conv2d_transpose_of, conv_transpose2d_transpose_of
from nnpack.planner import AnyProblem, check_algorithm, explain, writes_early
from nnpack.problem import Accuracy, Problem, RowStrides, TransposedProblem
from nnpack.runtime.memory import address
from nnpack.settings import resolve_num_threads

__all__ = [
    "conv2d_input_gradient",
    "conv_transpose2d_input_gradient",
    "explain_conv2d_input_gradient",
    "explain_conv_transpose2d_input_gradient",
]


def conv2d_input_gradient(
    grad_output: object,
    weight: object,
    input_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    activation: Activation | None = None,
    output: object = None,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv2d` in x, (N, O, H', W'), (O, C/groups, kh, kw) -> (N, C, H, W).

    ``grad_output`` is the gradient in the convolution's sums, of the shape that ``conv2d`` of an x
    of ``input_shape`` with these arguments has. It is computed as the transposed convolution that
    it is, by the algorithms of the forward direction, so ``algorithm`` and ``accuracy`` mean the
    same. Pixels of x that no output sees get 0. With ``activation`` and what it gave, ``output``,
    ``grad_output`` is the gradient in that and is first multiplied by the activation's derivative,
    some images at a time, in cache. For more than one gradient of a layer,
    `conv2d_output_gradient` does so once, and sums the bias as it goes. With ``accumulate`` the
    gradient is added to ``out``, which must then be given.

    Raises as `conv2d` does.
    """
    check_algorithm(algorithm)
    grad_output = as_float32("grad_output", grad_output, 4)
    weight = as_float32("weight", weight, 4)
    forward = stated(
        Problem.conv2d,
        x_shape=input_shape,
        weight_shape=weight.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    check_gradient("grad_output", grad_output, forward.y_shape)
    masking = masking_of(with_unit_column_stride(grad_output), activation, output)
    given = masking.given | {"grad_output": grad_output, "weight": weight}
    result = gradient_output(forward.x_shape, out, accumulate, given)
    state = functools.partial(conv2d_transpose_of, forward)
    return _run(state, masking, weight, result, accumulate, algorithm, threads)


def conv_transpose2d_input_gradient(
    grad_output: object,
    weight: object,
    input_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    activation: Activation | None = None,
    output: object = None,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv_transpose2d` in x.

    (N, O, H', W'), (I, O/groups, kh, kw) -> (N, I, H, W).

    It is the convolution of ``grad_output`` with the same weights. Everything else is as in
    `conv2d_input_gradient`.

    Raises as `conv2d` does.
    """
    check_algorithm(algorithm)
    grad_output = as_float32("grad_output", grad_output, 4)
    weight = as_float32("weight", weight, 4)
    forward = stated(
        TransposedProblem.conv_transpose2d,
        x_shape=input_shape,
        weight_shape=weight.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    check_gradient("grad_output", grad_output, forward.y_shape)
    masking = masking_of(with_unit_column_stride(grad_output), activation, output)
    given = masking.given | {"grad_output": grad_output, "weight": weight}
    result = gradient_output(forward.x_shape, out, accumulate, given)
    state = functools.partial(conv_transpose2d_transpose_of, forward)
    return _run(state, masking, weight, result, accumulate, algorithm, threads)


def explain_conv2d_input_gradient(
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
    """Which algorithm `conv2d_input_gradient` uses for arrays of these shapes, and why.

    Raises as `conv2d_input_gradient` does.
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
    problem = conv2d_transpose_of(forward, dense_strides(forward.y_shape)[:3], Epilogue())
    return _explain(problem, algorithm, threads)


def explain_conv_transpose2d_input_gradient(
    weight_shape: Sequence[SupportsIndex],
    input_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
) -> Explanation:
    """Which algorithm `conv_transpose2d_input_gradient` uses for arrays of these shapes, and why.

    Raises as `conv_transpose2d_input_gradient` does.
    """
    forward = TransposedProblem.conv_transpose2d(
        input_shape,
        weight_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    strides = dense_strides(forward.y_shape)[:3]
    return _explain(conv_transpose2d_transpose_of(forward, strides, Epilogue()), algorithm, threads)


def _explain(problem: AnyProblem, algorithm: str, threads: SupportsIndex | None) -> Explanation:
    check_algorithm(algorithm)
    count = resolve_num_threads(threads)
    return explain(problem, algorithm, host_target(), count, packs=True)


def _run(
    state: Callable[[RowStrides, Epilogue], AnyProblem],
    masking: Masking,
    weight: Float32Array,
    result: Float32Array,
    accumulate: bool,
    algorithm: str,
    threads: SupportsIndex | None,
) -> Float32Array:
    """Pack the weights into the workspace and run, in one native call.

    ``state`` makes the problem of the strides of the gradient that is read, and of what is added
    to the result as it is stored: the gradient that is there.
    """
    masked, arrays, strides = masking.read_as("x")
    problem = state(strides, Epilogue(residual="before") if accumulate else Epilogue())
    count = resolve_num_threads(threads)
    if problem.is_empty:
        return result
    arrays |= {"weight": np.ascontiguousarray(weight), "y": result}
    program = packing_program(problem, algorithm, count, masked)
    if problem.epilogue.residual:
        early = writes_early(problem, algorithm, host_target())
        arrays["residual"] = readable_residual(result, result, early)
    program.run({name: address(array) for name, array in arrays.items()})
    return result
