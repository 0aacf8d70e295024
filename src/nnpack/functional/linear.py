"""Fully connected layers and their gradients: arguments -> problem -> plan -> one native call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, SupportsIndex, overload

import numpy as np

from nnpack.algorithms.product import plan_column_sums, plan_product
from nnpack.arrays import (
    Float32Array,
    WithMoments,
    as_float32,
    undefined_moments,
)
from nnpack.epilogue import activation_arrays
from nnpack.execution import Runnable
from nnpack.functional.gradient_arguments import gradient_output
from nnpack.functional.matrices import as_matrix, matrix_strides
from nnpack.functional.residual import placed_output
from nnpack.functional.running import planned_program, run
from nnpack.functional.stating import kept
from nnpack.linear_problem import ColumnSumProblem, MatrixStrides, ProductProblem
from nnpack.problem import Accuracy, Activation, Pooling, ResidualPosition
from nnpack.settings import resolve_num_threads

__all__ = [
    "linear",
    "linear_bias_gradient",
    "linear_input_gradient",
    "linear_weight_gradient",
]


@overload
def linear(
    x: object,
    weight: object,
    bias: object = None,
    *,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    map_shape: Sequence[SupportsIndex] | None = None,
    pool: Pooling | None = None,
    statistics: Literal[False] = False,
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array: ...


@overload
def linear(
    x: object,
    weight: object,
    bias: object = None,
    *,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    map_shape: Sequence[SupportsIndex] | None = None,
    pool: None = None,
    statistics: Literal[True],
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> WithMoments: ...


def linear(
    x: object,
    weight: object,
    bias: object = None,
    *,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    map_shape: Sequence[SupportsIndex] | None = None,
    pool: Pooling | None = None,
    statistics: bool = False,
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array | WithMoments:
    """``activation(scale * (x @ weight.T) + bias + residual)``: (..., I), (O, I) -> (..., O).

    ``x`` has any dimensions before its last, none of them too. ``scale`` and ``bias`` have shape
    (O,), ``residual`` that of the result; it is added before or after the activation, as
    ``residual_position`` says. Few rows of x read the weights once, where they stand; nothing of
    their size is ever copied, unless neither their rows nor their columns are consecutive. `Linear`
    packs them once, and is faster.

    ``map_shape``: the outputs form a map (c, h, w), the result is (..., c, h, w), or with ``pool``,
    a `MaxPool` or an `AveragePool`, (..., c, h // 2, w // 2); a residual has the shape before it.
    With ``statistics`` returns ``(y, mean, variance)``: (O,) each, over all rows, the variance
    biased; NaN where there are no rows; without a pool. Either ``accuracy`` is met. Returns a
    C-contiguous float32 array, or ``out``, which may be ``residual`` itself.

    Raises ProblemError (a ValueError) or DtypeError (a TypeError) for malformed arguments, before
    anything is written.
    """
    possible = {
        "x": as_float32("x", x),
        "weight": as_float32("weight", weight, 2),
        "scale": None if scale is None else as_float32("scale", scale, 1),
        "bias": None if bias is None else as_float32("bias", bias, 1),
        "residual": None if residual is None else as_float32("residual", residual),
    }
    given = {name: array for name, array in possible.items() if array is not None}
    shapes = tuple((f"{name}_shape", array.shape) for name, array in given.items())
    read = given | activation_arrays(activation)
    for name in ("x", "weight"):
        read[name] = as_matrix(given[name])
    for name in ("scale", "bias"):
        if name in given:
            read[name] = np.ascontiguousarray(given[name])
    strides = matrix_strides(read["x"]), matrix_strides(read["weight"])
    places = tuple(map_shape) if isinstance(map_shape, Iterable) else map_shape
    words = activation, residual_position, pool, statistics, accuracy, places
    known = shapes, strides, resolve_num_threads(threads)
    problem, program = kept(_prepare, known, *words)
    y, arrays = placed_output(problem, given, read, out)
    moments = undefined_moments(problem.columns) if statistics else {}
    if program is not None:
        run(program, {**arrays, **moments, "y": y})
    return (y, moments["mean"], moments["variance"]) if moments else y


def _prepare(
    shapes: tuple[tuple[str, Any], ...],
    strides: tuple[MatrixStrides | None, MatrixStrides | None],
    threads: int,
    activation: Activation | None,
    residual_position: ResidualPosition,
    pool: Pooling | None,
    statistics: bool,
    accuracy: Accuracy,
    map_shape: Any,
) -> tuple[ProductProblem, Runnable | None]:
    """The problem of a call, and its program unless it is empty."""
    problem = ProductProblem.linear(
        **dict(shapes),
        activation=activation,
        residual_position=residual_position,
        map_shape=map_shape,
        pool=pool,
        statistics=statistics,
        accuracy=accuracy,
        x_strides=strides[0],
        weight_strides=strides[1],
    )
    return problem, None if problem.is_empty else planned_program(plan_product, problem, threads)


def linear_input_gradient(
    grad_output: object,
    weight: object,
    *,
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `linear` in x, ``grad_output @ weight``: (..., O), (O, I) -> (..., I).

    ``grad_output`` is the gradient in ``x @ weight.T``. With ``accumulate`` the gradient is added
    to ``out``, which must then be given. Everything else is as in `linear`.

    Raises as `linear` does.
    """
    given = {
        "grad_output": as_float32("grad_output", grad_output),
        "weight": as_float32("weight", weight, 2),
    }
    gradient, matrix = map(as_matrix, given.values())
    words = _gradient_words(ProductProblem.input_gradient, gradient, matrix, threads)
    shape, program = kept(_prepare_gradient, words, accuracy, accumulate)
    y = gradient_output(shape, out, accumulate, given)
    if program is not None:
        run(program, {"x": gradient, "weight": matrix, "y": y, "residual": y})
    return y


def linear_weight_gradient(
    x: object,
    grad_output: object,
    *,
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `linear` in weight, summed over all rows: (..., I), (..., O) -> (O, I).

    ``grad_output`` is the gradient in ``x @ weight.T``. With ``accumulate`` the gradient is added
    to ``out``, which must then be given. Everything else is as in `linear`.

    Raises as `linear` does.
    """
    given = {"x": as_float32("x", x), "grad_output": as_float32("grad_output", grad_output)}
    matrix, gradient = map(as_matrix, given.values())
    words = _gradient_words(ProductProblem.weight_gradient, matrix, gradient, threads)
    shape, program = kept(_prepare_gradient, words, accuracy, accumulate)
    y = gradient_output(shape, out, accumulate, given)
    if program is not None:
        run(program, {"x": gradient, "weight": matrix, "y": y, "residual": y})
    elif not accumulate:
        y.fill(0)
    return y


def _gradient_words(
    statement: Callable[..., ProductProblem],
    first: Float32Array,
    second: Float32Array,
    threads: SupportsIndex | None,
) -> tuple[Any, ...]:
    """What a gradient is known by: its arrays, in the order of ``statement``."""
    shapes = first.shape, second.shape
    strides = matrix_strides(first), matrix_strides(second)
    return statement, shapes, strides, resolve_num_threads(threads)


def _prepare_gradient(
    statement: Callable[..., ProductProblem],
    shapes: tuple[Any, Any],
    strides: tuple[MatrixStrides | None, MatrixStrides | None],
    threads: int,
    accuracy: Accuracy,
    accumulate: bool,
) -> tuple[tuple[int, ...], Runnable | None]:
    """The shape of a gradient, and its program unless there is nothing to sum."""
    problem = statement(*shapes, *strides, accuracy=accuracy, accumulate=accumulate)
    nothing = problem.is_empty or not problem.depth
    program = None if nothing else planned_program(plan_product, problem, threads)
    return problem.y_shape, program


def linear_bias_gradient(
    grad_output: object,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `linear` in bias: ``grad_output`` (..., O), summed over all rows -> (O,).

    With ``accumulate`` the gradient is added to ``out``, which must then be given.

    Raises as `linear` does.
    """
    given = as_float32("grad_output", grad_output)
    gradient = as_matrix(given)
    strides = matrix_strides(gradient)
    if strides is not None and strides[1] != 1:
        gradient = np.ascontiguousarray(gradient)
        strides = None
    words = gradient.shape, None if strides is None else strides[0], resolve_num_threads(threads)
    columns, program = kept(_prepare_sums, words, accumulate)
    y = gradient_output((columns,), out, accumulate, {"grad_output": given})
    run(program, {"x": gradient, "y": y, "residual": y})
    return y


def _prepare_sums(
    shape: tuple[int, ...], row_stride: int | None, threads: int, accumulate: bool
) -> tuple[int, Runnable]:
    """The columns of a gradient of a bias, and its program."""
    problem = ColumnSumProblem.bias_gradient(shape, accumulate=accumulate, row_stride=row_stride)
    return problem.columns, planned_program(plan_column_sums, problem, threads)
