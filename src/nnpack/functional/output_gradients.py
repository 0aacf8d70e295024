"""Gradients in a convolution's sums, before activation and bias, and in the bias."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from nnpack.algorithms.output_gradient import plan_output_gradient
from nnpack.arguments import as_shape
from nnpack.arrays import Float32Array, as_float32, element_strides
from nnpack.epilogue import Activation
from nnpack.functional.gradient_arguments import check_gradient, gradient_output
from nnpack.functional.running import run_planned
from nnpack.output_gradient_problem import (
    OutputGradientProblem,
    TellingActivation,
    check_activation,
)
from nnpack.runtime.memory import empty_output
from nnpack.settings import resolve_num_threads

__all__ = ["behind_activation", "conv2d_bias_gradient", "conv2d_output_gradient", "dense_planes"]


def conv2d_output_gradient(
    grad_output: object,
    activation: Activation,
    output: object,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> tuple[Float32Array, Float32Array]:
    """The gradients in the sums of a convolution and in its bias, behind its activation.

    ``output`` (N, O, H, W) is what `conv2d` with ``activation`` gave, ``grad_output`` the gradient
    in it: returns ``grad_output * activation'(output)``, for `conv2d_input_gradient` and
    `conv2d_weight_gradient` of the same layer, and its sum (O,), in one pass over memory. Where
    the activation has a corner its derivative is that from the left; a NaN in ``output`` lets the
    gradient through. The gradient of a residual added before the activation is the first of the
    two as well.

    Raises ProblemError or DtypeError for malformed arguments, and when the output does not tell
    the derivative (those of Relu, Elu, Clip, Sigmoid and Tanh do, but
    for negative parameters).
    """
    grad = as_float32("grad_output", grad_output, 4)
    y = as_float32("output", output, 4)
    check_gradient("output", y, grad.shape)
    known = check_activation(activation, y.shape)
    masked = gradient_output(grad.shape, out, False, {"grad_output": grad, "output": y})
    sums = empty_output((grad.shape[1],))
    _run(grad, known, y, masked, sums, False, threads)
    return masked, sums


def conv2d_bias_gradient(
    grad_output: object,
    *,
    activation: Activation | None = None,
    output: object = None,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv2d` in its bias: ``grad_output`` (N, O, H, W) summed to (O,).

    With ``activation`` and what it gave, ``output``, the gradient is first multiplied by the
    activation's derivative. With ``accumulate`` the sums are added to ``out``, which must then be
    given. It is that of `conv_transpose2d` as well.

    Raises ProblemError or DtypeError for malformed arguments.
    """
    grad = as_float32("grad_output", grad_output, 4)
    y = None if output is None else as_float32("output", output, 4)
    known = check_activation(activation, None if y is None else y.shape)
    given = {"grad_output": grad}
    if y is not None:
        given["output"] = check_gradient("output", y, grad.shape)
    as_shape("grad_output", grad.shape, ("N", "O", "H", "W"))
    sums = gradient_output((grad.shape[1],), out, accumulate, given)
    _run(grad, known, y, None, sums, accumulate, threads)
    return sums


def behind_activation(
    grad: Float32Array,
    activation: Activation | None,
    output: object,
    threads: SupportsIndex | None,
) -> Float32Array:
    """``grad * activation'(output)``, or ``grad`` itself where there is no activation."""
    if activation is None and output is None:
        return grad
    y = None if output is None else as_float32("output", output, 4)
    known = check_activation(activation, None if y is None else y.shape)
    assert y is not None
    check_gradient("output", y, grad.shape)
    masked = empty_output(grad.shape)
    _run(grad, known, y, masked, None, False, threads)
    return masked


def dense_planes(array: Float32Array) -> Float32Array:
    """``array``, copied unless the pixels of each of its planes are consecutive."""
    _, _, height, width = array.shape
    item = array.itemsize
    rows = height == 1 or array.strides[2] == width * item
    columns = width == 1 or array.strides[3] == item
    return array if rows and columns else np.ascontiguousarray(array)


def _run(
    grad: Float32Array,
    activation: TellingActivation | None,
    output: Float32Array | None,
    masked: Float32Array | None,
    sums: Float32Array | None,
    accumulate: bool,
    threads: SupportsIndex | None,
) -> None:
    count = resolve_num_threads(threads)
    if grad.size == 0:
        if sums is not None and not accumulate:
            sums.fill(0.0)
        return
    arrays = {"grad": dense_planes(grad)}
    if output is not None:
        arrays["output"] = dense_planes(output)
    strides = {name: element_strides(array)[:2] for name, array in arrays.items()}
    arrays |= {n: a for n, a in (("masked", masked), ("sums", sums)) if a is not None}
    problem = OutputGradientProblem(
        shape=grad.shape,
        activation=activation,
        grad_strides=strides["grad"],
        output_strides=strides.get("output", (0, 0)),
        masked=masked is not None,
        sums=sums is not None,
        accumulate=accumulate,
    )
    run_planned(plan_output_gradient, problem, arrays, count)
