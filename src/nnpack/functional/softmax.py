"""Softmax, its logarithm, cross-entropy, and their gradients."""

from __future__ import annotations

from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from nnpack.algorithms.softmax import plan_softmax
from nnpack.arguments import check_one_of
from nnpack.arrays import Float32Array, as_float32
from nnpack.errors import DtypeError, ProblemError
from nnpack.execution import Call, Runnable
from nnpack.functional.running import planned_program, result, run
from nnpack.functional.stating import kept, kept_plain
from nnpack.runtime.memory import empty_output
from nnpack.settings import resolve_num_threads
from nnpack.softmax_problem import softmax_problem

__all__ = [
    "Reduction",
    "cross_entropy",
    "cross_entropy_gradient",
    "log_softmax",
    "log_softmax_gradient",
    "softmax",
    "softmax_gradient",
]

Reduction = Literal["mean", "sum", "none"]


def softmax(
    x: object,
    axis: SupportsIndex = -1,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """``exp(x) / sum(exp(x), axis)`` of a float32 array of any shape, computed from ``x - max``.

    Where a sum has a NaN, +inf, or nothing but -inf in it, all of it becomes NaN. ``out`` may be x.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    return _forward(x, axis, threads, out, logarithm=False)


def log_softmax(
    x: object,
    axis: SupportsIndex = -1,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """``log(softmax(x, axis))``, computed as ``x - max - log(sum(exp(x - max)))``.

    Raises as `softmax` does.
    """
    return _forward(x, axis, threads, out, logarithm=True)


def softmax_gradient(
    grad_output: object,
    y: object,
    axis: SupportsIndex = -1,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of x where ``y = softmax(x, axis)``: ``y * (g - sum(g * y, axis))``.

    ``grad_output`` has the shape of y; ``out`` may be either. Raises as `softmax` does.
    """
    return _backward(grad_output, y, axis, threads, out, logarithm=False)


def log_softmax_gradient(
    grad_output: object,
    y: object,
    axis: SupportsIndex = -1,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of x where ``y = log_softmax(x, axis)``: ``g - exp(y) * sum(g, axis)``.

    ``grad_output`` has the shape of y; ``out`` may be either. Raises as `softmax` does.
    """
    return _backward(grad_output, y, axis, threads, out, logarithm=True)


def cross_entropy(
    logits: object,
    labels: object,
    *,
    reduction: Reduction = "mean",
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """``-log_softmax(logits, 1)`` at the labels: (N, C, ...) and integers (N, ...) below C.

    The mean or the sum over all labels as a float32 array without dimensions, summed in float64, or
    with ``reduction="none"`` all of them. The mean of nothing is NaN.

    Raises ProblemError for labels out of range or of another shape, DtypeError for labels that are
    no integers or logits that are not float32.
    """
    x, classes = _as_logits(logits, labels)
    check_one_of("reduction", reduction, ("mean", "sum", "none"))
    y = _forward(x, 1, threads, None, logarithm=True)
    losses = -np.take_along_axis(y, classes, 1)[:, 0]
    if reduction == "none":
        return np.ascontiguousarray(losses)
    total = losses.sum(dtype=np.float64)
    if reduction == "mean":
        total = total / losses.size if losses.size else np.float64(np.nan)
    return np.asarray(total, np.float32)


def cross_entropy_gradient(
    logits: object,
    labels: object,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of the logits: ``softmax(logits, 1) - one_hot(labels)``, divided for a mean.

    Shapes and errors are those of `cross_entropy`; ``out`` may be ``logits``.
    """
    x, classes = _as_logits(logits, labels)
    check_one_of("reduction", reduction, ("mean", "sum"))
    share = 1.0 / max(1, classes.size) if reduction == "mean" else 1.0
    if out is not None and np.may_share_memory(out, classes):
        raise ProblemError("out overlaps labels; pass memory of its own")
    program = _program(x.shape, False, False, share, resolve_num_threads(threads), 1)
    y = result(x.shape, out, {"x": x}, in_place=True)
    if program is not None:
        run(program, {"x": np.ascontiguousarray(x), "y": y})
    own = np.take_along_axis(y, classes, 1)
    np.put_along_axis(y, classes, own - np.float32(share), 1)
    return y


def _forward(
    x: object,
    axis: SupportsIndex,
    threads: SupportsIndex | None,
    out: Float32Array | None,
    *,
    logarithm: bool,
) -> Float32Array:
    x = as_float32("x", x)
    count = resolve_num_threads(threads)
    if type(axis) is int:
        call = kept_plain(_forward_call, x.shape, logarithm, count, axis)
    else:
        call = kept(_forward_call, (x.shape, logarithm, count), axis)
    y = empty_output(x.shape) if out is None else result(x.shape, out, {"x": x}, in_place=True)
    if call is not None:
        call(np.ascontiguousarray(x), y)
    return y


def _forward_call(
    shape: tuple[int, ...], logarithm: bool, threads: int, axis: SupportsIndex
) -> Call | None:
    """What computes y of x, unless there is nothing to compute."""
    program = _program(shape, logarithm, False, 1.0, threads, axis)
    return None if program is None else program.bound("x", "y")


def _program(
    shape: tuple[int, ...],
    logarithm: bool,
    gradient: bool,
    factor: float,
    threads: int,
    axis: SupportsIndex,
) -> Runnable | None:
    """The program of a softmax, unless there is nothing to compute."""
    problem = softmax_problem(shape, axis, logarithm=logarithm, gradient=gradient, factor=factor)
    return None if problem.is_empty else planned_program(plan_softmax, problem, threads)


def _backward(
    grad_output: object,
    y: object,
    axis: SupportsIndex,
    threads: SupportsIndex | None,
    out: Float32Array | None,
    *,
    logarithm: bool,
) -> Float32Array:
    grad, y = as_float32("grad_output", grad_output), as_float32("y", y)
    if grad.shape != y.shape:
        raise ProblemError(f"grad_output.shape={grad.shape} must be that of y, {y.shape}")
    words = y.shape, logarithm, True, 1.0, resolve_num_threads(threads)
    program = kept(_program, words, axis)
    written = result(y.shape, out, {"grad_output": grad, "y": y}, in_place=True)
    if program is not None:
        arrays = {"grad": np.ascontiguousarray(grad), "y": np.ascontiguousarray(y)}
        run(program, {**arrays, "x": written})
    return written


def _as_logits(logits: object, labels: object) -> tuple[Float32Array, npt.NDArray[Any]]:
    """The logits, and the labels with an axis for the classes."""
    x, classes = as_float32("logits", logits), _as_labels(labels)
    if x.ndim < 2 or not x.shape[1]:
        raise ProblemError(f"logits.shape={x.shape} must be (N, C, ...) with C at least 1")
    if classes.shape != (x.shape[0], *x.shape[2:]):
        raise ProblemError(
            f"labels.shape={classes.shape} must be {(x.shape[0], *x.shape[2:])}, "
            "that of logits without its classes"
        )
    if classes.size and (classes.min() < 0 or classes.max() >= x.shape[1]):
        raise ProblemError(
            f"labels are from {classes.min()} to {classes.max()}; they must be from 0 to "
            f"{x.shape[1] - 1}, the classes of logits"
        )
    return x, np.expand_dims(classes, 1)


def _as_labels(labels: object) -> npt.NDArray[Any]:
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise DtypeError(f"labels are no array: {error}") from error
    if array.dtype.kind not in "iu":
        raise DtypeError(f"labels have dtype {array.dtype}; they must be integers")
    return array
