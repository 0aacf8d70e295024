"""Fully connected layers and their gradients: arguments -> problem -> plan -> one native call."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, SupportsIndex, overload

import numpy as np

from nnpack.algorithms.product import plan_column_sums, plan_product
from nnpack.arrays import (
    Float32Array,
    WithMoments,
    as_float32,
    optional_vector,
    undefined_moments,
)
from nnpack.epilogue import activation_arrays
from nnpack.functional.gradient_arguments import gradient_output
from nnpack.functional.matrices import as_matrix, matrix_strides
from nnpack.functional.residual import placed_output
from nnpack.functional.running import run_planned
from nnpack.linear_problem import ColumnSumProblem, MatrixStrides, ProductProblem
from nnpack.problem import Accuracy, Activation, Pooling, ResidualPosition

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
    arrays = {
        "x": as_matrix(as_float32("x", x)),
        "weight": as_matrix(as_float32("weight", weight, 2)),
        "scale": optional_vector("scale", scale),
        "bias": optional_vector("bias", bias),
        "residual": None if residual is None else as_float32("residual", residual),
    }
    given = {name: array for name, array in arrays.items() if array is not None}
    shapes = tuple((f"{name}_shape", array.shape) for name, array in given.items())
    strides = matrix_strides(given["x"]), matrix_strides(given["weight"])
    places = tuple(map_shape) if isinstance(map_shape, Iterable) else map_shape
    words = activation, residual_position, places, pool, statistics, accuracy
    try:
        problem = _state(shapes, strides, words)
    except TypeError:  # an argument that cannot be a key is malformed: say how
        problem = _state.__wrapped__(shapes, strides, words)
    y, read = placed_output(problem, given | activation_arrays(activation), out)
    moments = undefined_moments(problem.columns) if statistics else {}
    if not problem.is_empty:
        run_planned(plan_product, problem, {**read, **moments, "y": y}, threads)
    return (y, moments["mean"], moments["variance"]) if moments else y


@functools.lru_cache(maxsize=256)
def _state(
    shapes: tuple[tuple[str, Any], ...],
    strides: tuple[MatrixStrides | None, MatrixStrides | None],
    words: tuple[Any, ...],
) -> ProductProblem:
    """The problem of a call, kept: stating one takes longer than a small layer."""
    activation, residual_position, map_shape, pool, statistics, accuracy = words
    return ProductProblem.linear(
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
    gradient = as_matrix(as_float32("grad_output", grad_output))
    matrix = as_matrix(as_float32("weight", weight, 2))
    problem = ProductProblem.input_gradient(
        gradient.shape,
        matrix.shape,
        accuracy=accuracy,
        accumulate=accumulate,
        grad_output_strides=matrix_strides(gradient),
        weight_strides=matrix_strides(matrix),
    )
    inputs = {"grad_output": gradient, "weight": matrix}
    y = gradient_output(problem.y_shape, out, accumulate, inputs)
    if not problem.is_empty:
        arrays = {"x": gradient, "weight": matrix, "y": y, "residual": y}
        run_planned(plan_product, problem, arrays, threads)
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
    matrix = as_matrix(as_float32("x", x))
    gradient = as_matrix(as_float32("grad_output", grad_output))
    problem = ProductProblem.weight_gradient(
        matrix.shape,
        gradient.shape,
        accuracy=accuracy,
        accumulate=accumulate,
        x_strides=matrix_strides(matrix),
        grad_output_strides=matrix_strides(gradient),
    )
    inputs = {"x": matrix, "grad_output": gradient}
    y = gradient_output(problem.y_shape, out, accumulate, inputs)
    if problem.depth:
        arrays = {"x": gradient, "weight": matrix, "y": y, "residual": y}
        run_planned(plan_product, problem, arrays, threads)
    elif not accumulate:
        y.fill(0)
    return y


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
    gradient = as_matrix(as_float32("grad_output", grad_output))
    strides = matrix_strides(gradient)
    if strides is not None and strides[1] != 1:
        gradient = np.ascontiguousarray(gradient)
        strides = None
    problem = ColumnSumProblem.bias_gradient(
        gradient.shape, accumulate=accumulate, row_stride=None if strides is None else strides[0]
    )
    inputs = {"grad_output": gradient}
    y = gradient_output((problem.columns,), out, accumulate, inputs)
    run_planned(plan_column_sums, problem, {"x": gradient, "y": y, "residual": y}, threads)
    return y
