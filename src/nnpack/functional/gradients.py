"""Input gradients of convolutions: arguments -> problem of the other direction -> one native call.

A gradient is named after the function it belongs to and takes the same parameters. What gradients
share (``accumulate``, the check of ``grad_output``) is in `gradient_arguments`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

from nnpack import wisdom
from nnpack.arguments import IntOrPair, PaddingLike
from nnpack.arrays import Float32Array, as_float32, element_strides, with_unit_column_stride
from nnpack.codegen.target import Target, host_target
from nnpack.epilogue import Activation, Epilogue
from nnpack.execution import Program, Runnable
from nnpack.explanation import Explanation
from nnpack.functional.gradient_arguments import check_gradient, gradient_output
from nnpack.functional.output_gradients import behind_activation
from nnpack.functional.residual import is_overwritten_early, readable_residual
from nnpack.functional.running import reported
from nnpack.functional.stating import stated
from nnpack.geometry import Shape
from nnpack.input_gradient import conv2d_transpose_of, conv_transpose2d_transpose_of
from nnpack.plan import packed_in_workspace
from nnpack.planner import AnyProblem, check_algorithm, explain, make_plan
from nnpack.problem import Accuracy, Problem, TransposedProblem
from nnpack.runtime.memory import address
from nnpack.settings import resolve_num_threads

__all__ = [
    "conv2d_input_gradient",
    "conv_transpose2d_input_gradient",
    "explain_conv2d_input_gradient",
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
    ``grad_output`` is the gradient in that and is first multiplied by the activation's derivative;
    `conv2d_output_gradient` does so once for all gradients of a layer. With ``accumulate`` the
    gradient is added to ``out``, which must then be given.

    Raises as `conv2d` does.
    """
    check_algorithm(algorithm)
    grad_output = as_float32("grad_output", grad_output, 4)
    weight = np.ascontiguousarray(as_float32("weight", weight, 4))
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
    given = {"grad_output": grad_output, "weight": weight}
    result = gradient_output(forward.x_shape, out, accumulate, given)
    grad_output = with_unit_column_stride(
        behind_activation(grad_output, activation, output, threads)
    )
    problem = conv2d_transpose_of(forward, element_strides(grad_output), _epilogue(accumulate))
    return _run(problem, grad_output, weight, algorithm, threads, result)


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
    weight = np.ascontiguousarray(as_float32("weight", weight, 4))
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
    given = {"grad_output": grad_output, "weight": weight}
    result = gradient_output(forward.x_shape, out, accumulate, given)
    grad_output = with_unit_column_stride(
        behind_activation(grad_output, activation, output, threads)
    )
    strides = element_strides(grad_output)
    problem = conv_transpose2d_transpose_of(forward, strides, _epilogue(accumulate))
    return _run(problem, grad_output, weight, algorithm, threads, result)


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
    grad_strides = _dense_rows(forward.y_shape)
    problem = conv2d_transpose_of(forward, grad_strides, Epilogue())
    check_algorithm(algorithm)
    count = resolve_num_threads(threads)
    return explain(problem, algorithm, host_target(), count, packs=True)


def _dense_rows(shape: Shape) -> tuple[int, int, int]:
    _, channels, height, width = shape
    return channels * height * width, height * width, width


def _epilogue(accumulate: bool) -> Epilogue:
    """What is added to a gradient as it is stored: the gradient that is there."""
    return Epilogue(residual="before") if accumulate else Epilogue()


def _run(
    problem: AnyProblem,
    grad_output: Float32Array,
    weight: Float32Array,
    algorithm: str,
    threads: SupportsIndex | None,
    result: Float32Array,
) -> Float32Array:
    """Pack the weights into the workspace and run, in one native call."""
    count = resolve_num_threads(threads)
    if problem.is_empty:
        return result
    program = _program(problem, algorithm, host_target(), count, wisdom.generation())
    places = {"x": grad_output, "weight": weight, "y": result}
    if problem.epilogue.residual:
        places["residual"] = readable_residual(result, result, is_overwritten_early(problem))
    program.run({name: address(array) for name, array in places.items()})
    return result


@functools.lru_cache(maxsize=256)
def _program(
    problem: AnyProblem, algorithm: str, target: Target, threads: int, _generation: int
) -> Runnable:
    plan = make_plan(problem, algorithm, target, threads, packs=True)
    stages, workspace_bytes = packed_in_workspace(plan)
    return reported(Program(stages, target, threads, workspace_bytes), problem, plan)
