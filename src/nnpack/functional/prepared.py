"""Calls by the shapes and strides of their arrays, for callers that have checked these themselves.

PyTorch's layers know what they are given, and are given the same shapes thousands of times: one
look at a table of calls takes 1 us, where the arguments of a function take 4 to 10. What is
malformed is refused as the functions do, shapes at least; arrays are addresses (`Prepared.run_at`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

from nnpack import wisdom
from nnpack.algorithms.pooling import plan_pooling
from nnpack.algorithms.product import plan_product
from nnpack.algorithms.reshaping import plan_max_gradient
from nnpack.epilogue import Epilogue
from nnpack.functional.gradient_arguments import check_gradient_shape
from nnpack.functional.running import Prepared, packing_program, planned_program
from nnpack.gradient_planner import weight_gradient_planner
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.input_gradient import conv2d_transpose_of, conv_transpose2d_transpose_of
from nnpack.linear_problem import ProductProblem
from nnpack.pool_problem import PoolProblem
from nnpack.problem import Problem, RowStrides, TransposedProblem

__all__ = [
    "Place",
    "prepare_convolution",
    "prepare_input_gradient",
    "prepare_linear",
    "prepare_max_pool",
    "prepare_max_pool_gradient",
    "prepare_weight_gradient",
]

Shape = tuple[int, ...]
Strides = tuple[int, int, int, int]
Place = tuple[Shape, Strides]
"""Shape and strides, in elements, of images with consecutive columns."""
Words = tuple[Any, ...]
"""Of a convolution: stride, padding, output_padding, dilation, groups, transposed, accuracy."""

_CALLS = 1024


def prepare_convolution(
    x: Place, weight: Shape, bias: Shape | None, words: Words, threads: int
) -> Prepared:
    """`conv2d` or `conv_transpose2d`: slots x, weight, bias and y."""
    return _convolution(x, weight, bias, words, threads, wisdom.generation())


@functools.lru_cache(maxsize=_CALLS)
def _convolution(
    x: Place, weight: Shape, bias: Shape | None, words: Words, threads: int, _generation: int
) -> Prepared:
    shape, strides = x
    return _packing(_state(shape, weight, words, bias, strides[:3]), threads)


def prepare_input_gradient(
    grad: Place, weight: Shape, input_shape: Shape, words: Words, threads: int
) -> Prepared:
    """The input gradient of either: slots x, which is the gradient ``grad``, weight and y."""
    return _input_gradient(grad, weight, input_shape, words, threads, wisdom.generation())


@functools.lru_cache(maxsize=_CALLS)
def _input_gradient(
    grad: Place, weight: Shape, input_shape: Shape, words: Words, threads: int, _generation: int
) -> Prepared:
    forward = _state(input_shape, weight, words)
    check_gradient_shape("grad", grad[0], forward.y_shape)
    strides = grad[1][:3]
    if isinstance(forward, Problem):
        return _packing(conv2d_transpose_of(forward, strides, Epilogue()), threads)
    return _packing(conv_transpose2d_transpose_of(forward, strides, Epilogue()), threads)


@functools.lru_cache(maxsize=_CALLS)
def prepare_weight_gradient(
    x: Place, grad: Place, weight: Shape, words: Words, threads: int
) -> Prepared:
    """The weight gradient of either: slots x, grad and y.

    Of a transposed convolution, x and grad change places. What is called grad has dense planes.
    """
    forward = _state(x[0], weight, words, x_strides=x[1][:3])
    check_gradient_shape("grad", grad[0], forward.y_shape)
    if isinstance(forward, Problem):
        problem = WeightGradientProblem(forward=forward, grad_strides=grad[1][:2])
    else:
        transpose = conv_transpose2d_transpose_of(forward, grad[1][:3], Epilogue())
        problem = WeightGradientProblem(forward=transpose, grad_strides=x[1][:2], masks_x=True)
    planner, empty = weight_gradient_planner("auto"), problem.forward.is_empty
    program = None if empty else planned_program(planner, problem, threads)
    return Prepared(forward.weight_shape, program)


@functools.lru_cache(maxsize=_CALLS)
def prepare_linear(x: Shape, weight: Shape, bias: Shape | None, threads: int) -> Prepared:
    """`linear`, all arrays dense: slots x, weight, bias and y."""
    problem = ProductProblem.linear(x_shape=x, weight_shape=weight, bias_shape=bias)
    return Prepared(
        problem.y_shape,
        None if problem.is_empty else planned_program(plan_product, problem, threads),
    )


@functools.lru_cache(maxsize=_CALLS)
def prepare_max_pool(x: Place, words: Words, threads: int) -> Prepared:
    """`max_pool2d` with indices: slots x, y and indices.

    ``words``: kernel_size, stride, padding, dilation and ceil_mode.
    """
    shape, strides = x
    kernel_size, stride, padding, dilation, ceil_mode = words
    problem = PoolProblem.pool2d(
        "max",
        shape,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        indices=True,
        x_strides=strides[:3],
    )
    return Prepared(
        problem.y_shape,
        None if problem.is_empty else planned_program(plan_pooling, problem, threads),
    )


@functools.lru_cache(maxsize=_CALLS)
def prepare_max_pool_gradient(grad: Shape, x: Shape, threads: int) -> Prepared:
    """`max_pool2d_gradient`, all arrays dense: slots grad, indices and y; x has four extents.

    Indices that are no place in a plane are passed over.
    """
    problem = PoolProblem.adaptive_pool2d("max", x, grad[2:])
    check_gradient_shape("grad", grad, problem.y_shape)
    program = None if math.prod(x) == 0 else planned_program(plan_max_gradient, problem, threads)
    return Prepared(x, program)


def _state(
    x: Shape,
    weight: Shape,
    words: Words,
    bias: Shape | None = None,
    x_strides: RowStrides | None = None,
) -> Problem | TransposedProblem:
    """The problem of the forward direction."""
    stride, padding, output_padding, dilation, groups, transposed, accuracy = words
    given: dict[str, Any] = {
        "bias_shape": bias,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "accuracy": accuracy,
        "x_strides": x_strides,
    }
    if not transposed:
        return Problem.conv2d(x, weight, **given)
    return TransposedProblem.conv_transpose2d(x, weight, output_padding=output_padding, **given)


def _packing(problem: Problem | TransposedProblem, threads: int) -> Prepared:
    """The call that packs the weights and runs."""
    program = None if problem.is_empty else packing_program(problem, "auto", threads)
    return Prepared(problem.y_shape, program)
