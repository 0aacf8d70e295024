"""Element-wise functions of arrays of any shape, in place where ``out`` is an operand."""

from __future__ import annotations

import math
from typing import Literal, SupportsIndex

import numpy as np

from nnpack.algorithms.elementwise import plan_elementwise
from nnpack.arguments import as_axis
from nnpack.arrays import Float32Array, as_float32, check_out
from nnpack.elementwise_problem import ElementwiseProblem
from nnpack.epilogue import (
    Activation,
    Clip,
    Elu,
    Epilogue,
    Gelu,
    HardSigmoid,
    HardSwish,
    Mish,
    Prelu,
    Relu,
    Sigmoid,
    Silu,
    Tanh,
    activation_arrays,
    check_slopes,
)
from nnpack.errors import ProblemError
from nnpack.functional.running import run_planned
from nnpack.runtime.memory import empty_output

__all__ = [
    "add",
    "clip",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "mish",
    "prelu",
    "relu",
    "sigmoid",
    "silu",
    "tanh",
]


def relu(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``max(x, 0)`` of float32 numbers; a new array, or ``out``, which may be x; see `Relu`."""
    return _activated(x, Relu(), out, threads)


def leaky_relu(
    x: object,
    slope: float = 0.01,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x`` where ``x > 0``, else ``slope * x``; everything else as in `relu`."""
    return _activated(x, Relu(slope), out, threads)


def elu(
    x: object,
    alpha: float = 1.0,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x`` where ``x > 0``, else ``alpha * (exp(x) - 1)``; everything else as in `relu`."""
    return _activated(x, Elu(alpha), out, threads)


def clip(
    x: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``min(max(x, low), high)``; everything else as in `relu`."""
    return _activated(x, Clip(low, high), out, threads)


def sigmoid(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``1 / (1 + exp(-x))``; everything else as in `relu`."""
    return _activated(x, Sigmoid(), out, threads)


def tanh(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``tanh(x)``; everything else as in `relu`."""
    return _activated(x, Tanh(), out, threads)


def silu(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * sigmoid(x)``; everything else as in `relu`."""
    return _activated(x, Silu(), out, threads)


def hard_sigmoid(
    x: object,
    alpha: float = 1.0 / 6.0,
    beta: float = 0.5,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``min(max(alpha * x + beta, 0), 1)``; everything else as in `relu`."""
    return _activated(x, HardSigmoid(alpha, beta), out, threads)


def hard_swish(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * min(max(x + 3, 0), 6) / 6``; everything else as in `relu`."""
    return _activated(x, HardSwish(), out, threads)


def gelu(
    x: object,
    approximate: Literal["none", "tanh"] = "none",
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * Phi(x)``, or its approximation by tanh; see `Gelu`, and `relu` for all else."""
    return _activated(x, Gelu(approximate), out, threads)


def mish(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * tanh(log(1 + exp(x)))``; everything else as in `relu`."""
    return _activated(x, Mish(), out, threads)


def prelu(
    x: object,
    slope: object,
    *,
    axis: SupportsIndex = 1,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x`` where ``x > 0``, else ``slope[c] * x``, c being counted by ``axis``.

    ``slope`` is (x.shape[axis],). Everything else is as in `relu`.
    """
    array = as_float32("x", x)
    place, activation = as_axis("axis", axis, array.ndim), Prelu(slope)
    check_slopes(activation, array.shape[place])
    width = math.prod(array.shape[place + 1 :])
    return _activated(array, activation, out, threads, array.shape[place], width)


def add(
    a: object,
    b: object,
    activation: Activation | None = None,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``activation(a + b)`` of arrays of one shape; ``out`` may be either.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    first, second = as_float32("a", a), as_float32("b", b)
    if first.shape != second.shape:
        raise ProblemError(f"b.shape={second.shape} must be {first.shape}, that of a")
    if isinstance(activation, Prelu):
        raise ProblemError("activation=Prelu belongs to channels; pass the sum to prelu")
    epilogue = Epilogue(activation=activation, residual="before")
    y = _placed({"a": first, "b": second}, out)
    if y.size:
        arrays = {"x": np.ascontiguousarray(first), "residual": np.ascontiguousarray(second)}
        problem = ElementwiseProblem(y.size, epilogue)
        run_planned(plan_elementwise, problem, {**arrays, "y": y}, threads)
    return y


def _activated(
    x: object,
    activation: Activation,
    out: Float32Array | None,
    threads: SupportsIndex | None,
    channels: int = 1,
    width: int = 0,
) -> Float32Array:
    array = as_float32("x", x)
    y = _placed({"x": array}, out)
    if y.size:
        arrays = {"x": np.ascontiguousarray(array), "y": y, **activation_arrays(activation)}
        problem = ElementwiseProblem(y.size, Epilogue(activation=activation), channels, width)
        run_planned(plan_elementwise, problem, arrays, threads)
    return y


def _placed(operands: dict[str, Float32Array], out: Float32Array | None) -> Float32Array:
    shape = next(iter(operands.values())).shape
    if out is None:
        return empty_output(shape)
    return check_out(out, shape, operands.items(), in_place=True)
