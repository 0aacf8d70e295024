"""Element-wise functions of arrays of any shape, in place where ``out`` is an operand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
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
from nnpack.execution import Call
from nnpack.functional.running import planned_program, result, run_planned
from nnpack.functional.stating import kept
from nnpack.runtime.memory import empty_output
from nnpack.settings import resolve_num_threads

__all__ = [
    "add",
    "clip",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "mish",
    "multiply",
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
    """``max(x, 0)`` of a float32 array of any shape: a new one, or ``out``, which may be x.

    NaN stays; see `Relu`. Raises ProblemError or DtypeError for malformed arguments, before
    anything is written.
    """
    return _activated(x, Relu, (), out, threads)


def leaky_relu(
    x: object,
    slope: float = 0.01,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x`` where ``x > 0``, else ``slope * x``; everything else as in `relu`."""
    return _activated(x, Relu, (slope,), out, threads)


def elu(
    x: object,
    alpha: float = 1.0,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x`` where ``x > 0``, else ``alpha * (exp(x) - 1)``; everything else as in `relu`."""
    return _activated(x, Elu, (alpha,), out, threads)


def clip(
    x: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``min(max(x, low), high)``; everything else as in `relu`."""
    return _activated(x, Clip, (low, high), out, threads)


def sigmoid(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``1 / (1 + exp(-x))``; everything else as in `relu`."""
    return _activated(x, Sigmoid, (), out, threads)


def tanh(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``tanh(x)``; everything else as in `relu`."""
    return _activated(x, Tanh, (), out, threads)


def silu(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * sigmoid(x)``; everything else as in `relu`."""
    return _activated(x, Silu, (), out, threads)


def hard_sigmoid(
    x: object,
    alpha: float = 1.0 / 6.0,
    beta: float = 0.5,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``min(max(alpha * x + beta, 0), 1)``; everything else as in `relu`."""
    return _activated(x, HardSigmoid, (alpha, beta), out, threads)


def hard_swish(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * min(max(x + 3, 0), 6) / 6``; everything else as in `relu`."""
    return _activated(x, HardSwish, (), out, threads)


def gelu(
    x: object,
    approximate: Literal["none", "tanh"] = "none",
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * Phi(x)``, or its approximation by tanh; see `Gelu`, and `relu` for all else."""
    return _activated(x, Gelu, (approximate,), out, threads)


def mish(
    x: object,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``x * tanh(log(1 + exp(x)))``; everything else as in `relu`."""
    return _activated(x, Mish, (), out, threads)


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
    slopes = slope if isinstance(slope, tuple) else as_float32("Prelu: slope", slope, 1)
    place, activation = as_axis("axis", axis, array.ndim), Prelu(slopes)
    check_slopes(activation, array.shape[place])
    width = math.prod(array.shape[place + 1 :])
    epilogue = Epilogue(activation=activation)
    problem = ElementwiseProblem(array.size, epilogue, array.shape[place], width)
    count = resolve_num_threads(threads)
    inputs = {"x": array} if isinstance(slopes, tuple) else {"x": array, "slope": slopes}
    y = result(array.shape, out, inputs, in_place="x")
    if array.size:
        read = {"x": np.ascontiguousarray(array), **activation_arrays(activation)}
        run_planned(plan_elementwise, problem, {**read, "y": y}, count)
    return y


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
    return _combined("residual", a, b, activation, out, threads)


def multiply(
    a: object,
    b: object,
    activation: Activation | None = None,
    *,
    out: Float32Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``activation(a * b)`` of arrays of one shape; everything else as in `add`."""
    return _combined("factor", a, b, activation, out, threads)


def _combined(
    slot: Literal["residual", "factor"],
    a: object,
    b: object,
    activation: Activation | None,
    out: Float32Array | None,
    threads: SupportsIndex | None,
) -> Float32Array:
    """``activation`` of a and b combined; b is the slot ``slot``, which says how."""
    first, second = as_float32("a", a), as_float32("b", b)
    if first.shape != second.shape:
        raise ProblemError(f"b.shape={second.shape} must be {first.shape}, that of a")
    count = resolve_num_threads(threads)
    if activation is None:
        call = _combining_plain(slot, first.size, count, None)
    else:
        call = kept(_combining, (slot, first.size, count), activation)
    if out is None:
        y = empty_output(first.shape)
    else:
        y = check_out(out, first.shape, (("a", first), ("b", second)), in_place=True)
    if call is not None:
        call(np.ascontiguousarray(first), np.ascontiguousarray(second), y)
    return y


def _activated(
    x: object,
    activation: Callable[..., Activation],
    numbers: tuple[object, ...],
    out: Float32Array | None,
    threads: SupportsIndex | None,
) -> Float32Array:
    """``activation(*numbers)`` of x; programs are kept for numbers that were seen before."""
    array = as_float32("x", x)
    count = resolve_num_threads(threads)
    if numbers:
        call = kept(_activating, (activation, array.size, count), *numbers)
    else:
        call = _activating_plain(activation, array.size, count)
    if out is None:
        y = empty_output(array.shape)
    else:
        y = check_out(out, array.shape, (("x", array),), in_place=True)
    if call is not None:
        call(np.ascontiguousarray(array), y)
    return y


def _activating(
    activation: Callable[..., Activation], count: int, threads: int, *numbers: object
) -> Call | None:
    """What applies an activation to x and writes y, unless there are no numbers."""
    problem = ElementwiseProblem(count, Epilogue(activation=activation(*numbers)))
    return _call(problem, threads, "x", "y")


def _combining(
    slot: Literal["residual", "factor"], count: int, threads: int, activation: Activation | None
) -> Call | None:
    """What combines two arrays and writes y, unless there are no numbers."""
    if isinstance(activation, Prelu):
        raise ProblemError("activation=Prelu belongs to channels; pass the result to prelu")
    position: Literal["before"] | None = "before" if slot == "residual" else None
    epilogue = Epilogue(activation=activation, residual=position)
    problem = ElementwiseProblem(count, epilogue, product=slot == "factor")
    return _call(problem, threads, "x", slot, "y")


# Of arguments that are looked up as they are: half the time of `kept`.
_activating_plain = functools.lru_cache(maxsize=1024)(_activating)
_combining_plain = functools.lru_cache(maxsize=1024)(_combining)


def _call(problem: ElementwiseProblem, threads: int, *slots: str) -> Call | None:
    if not problem.count:
        return None
    return planned_program(plan_elementwise, problem, threads).bound(*slots)
