"""Convolutions as functions: arguments -> problem -> plan -> one native call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, SupportsIndex, overload

import numpy as np

from nnpack import wisdom
from nnpack.arguments import IntOrPair, PaddingLike
from nnpack.arrays import (
    Float32Array,
    WithMoments,
    as_float32,
    element_strides,
    slice_stride,
    undefined_moments,
    with_unit_column_stride,
)
from nnpack.codegen.target import host_target
from nnpack.epilogue import activation_arrays
from nnpack.execution import Runnable
from nnpack.functional.residual import placed_in, placed_output
from nnpack.functional.running import packing_program, run
from nnpack.functional.stating import kept
from nnpack.planner import AnyProblem, check_algorithm, writes_early
from nnpack.problem import (
    Accuracy,
    Activation,
    Pooling,
    Problem,
    ResidualPosition,
    TransposedProblem,
)
from nnpack.settings import resolve_num_threads

__all__ = ["conv2d", "conv_transpose2d"]


@overload
def conv2d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    pool: Pooling | None = None,
    statistics: Literal[False] = False,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array: ...


@overload
def conv2d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    pool: None = None,
    statistics: Literal[True],
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> WithMoments: ...


def conv2d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    pool: Pooling | None = None,
    statistics: bool = False,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array | WithMoments:
    """``pool(activation(scale * conv(x, weight) + bias + residual))``.

    (N, C, H, W), (O, C/groups, kh, kw) -> (N, O, H', W'), all float32: ndarrays, or objects with
    the buffer protocol or DLPack. ``scale`` and ``bias`` have shape (O,). ``padding`` is an int,
    (h, w), (top, bottom, left, right), "valid" or "same". ``residual`` has the shape of the result
    (before a pool) and is added to what the activation is applied to, or with
    ``residual_position="after"`` to what it gives. ``pool``: `MaxPool` or `AveragePool` of 2x2
    values, 2 apart, an odd last row or column dropped. The weights are packed at every call:
    `Conv2d` packs them once.
    Returns a C-contiguous array, or ``out``, which may be ``residual`` itself, or some channels of
    a larger array, ``features[:, 16:32]``, whose other channels may be read. With ``statistics``
    returns ``(y, mean, variance)``: (O,) each, of all values of y in a channel, the variance biased
    (divided by their number); NaN of an empty batch. There is no pool then.

    Raises ProblemError (a ValueError) or DtypeError (a TypeError) for malformed arguments, and
    AlgorithmError when a named algorithm cannot do the problem, before anything is written.
    """
    words = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "activation": activation,
        "residual_position": residual_position,
        "pool": pool,
        "statistics": statistics,
        "accuracy": accuracy,
    }
    operands = _Operands(x, weight, bias, scale, residual, activation)
    return _run_cold(Problem.conv2d, operands, words, algorithm, threads, out)


@overload
def conv_transpose2d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    pool: Pooling | None = None,
    statistics: Literal[False] = False,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array: ...


@overload
def conv_transpose2d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    pool: None = None,
    statistics: Literal[True],
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> WithMoments: ...


def conv_transpose2d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    pool: Pooling | None = None,
    statistics: bool = False,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array | WithMoments:
    """The transpose of `conv2d` in x: (N, I, H, W), (I, O/groups, kh, kw) -> (N, O, H', W').

    H' = (H - 1) * stride - top - bottom + dilation * (kh - 1) + 1 + output_padding. Everything else
    is as in `conv2d`; the epilogue applies to the result.

    Raises as `conv2d` does.
    """
    words = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "dilation": dilation,
        "groups": groups,
        "activation": activation,
        "residual_position": residual_position,
        "pool": pool,
        "statistics": statistics,
        "accuracy": accuracy,
    }
    operands = _Operands(x, weight, bias, scale, residual, activation)
    return _run_cold(TransposedProblem.conv_transpose2d, operands, words, algorithm, threads, out)


class _Operands:
    """What a call is given, and reads: arrays that are dense but for x and the residual."""

    def __init__(
        self,
        x: object,
        weight: object,
        bias: object,
        scale: object,
        residual: object,
        activation: Activation | None,
    ) -> None:
        arrays = {
            "x": as_float32("x", x, 4),
            "weight": as_float32("weight", weight, 4),
            "bias": None if bias is None else as_float32("bias", bias, 1),
            "scale": None if scale is None else as_float32("scale", scale, 1),
            "residual": None if residual is None else as_float32("residual", residual, 4),
        }
        self.given = {name: array for name, array in arrays.items() if array is not None}
        self.read = self.given | activation_arrays(activation)
        self.read["x"] = with_unit_column_stride(self.given["x"])
        for name in ("weight", "bias", "scale"):
            if name in self.read:
                self.read[name] = np.ascontiguousarray(self.read[name])


def _run_cold(
    statement: Callable[..., AnyProblem],
    operands: _Operands,
    words: Mapping[str, object],
    algorithm: str,
    threads: SupportsIndex | None,
    out: Float32Array | None,
) -> Float32Array | WithMoments:
    """Pack the weights into the workspace and run, in one native call."""
    given = operands.given
    shapes = tuple([(f"{name}_shape", array.shape) for name, array in given.items()])
    strides, values = element_strides(operands.read["x"]), tuple(words.values())
    places = strides, slice_stride(out)
    known = statement, shapes, places, tuple(words), wisdom.generation()
    # What can be looked up is neither stated nor planned again: 10 us of the time of a call.
    words_of_call = (*known, resolve_num_threads(threads))
    problem, early, program = kept(_prepare, words_of_call, algorithm, *values)
    y, read = placed_output(problem, given, operands.read, out, early)
    moments = undefined_moments(problem.out_channels) if problem.epilogue.statistics else {}
    if program is not None:
        run(program, {**read, **moments, "y": y})
    if out is not None and y is not out:
        out[...] = y
        y = out
    return (y, moments["mean"], moments["variance"]) if moments else y


def _prepare(
    statement: Callable[..., AnyProblem],
    shapes: tuple[tuple[str, Any], ...],
    places: tuple[tuple[int, int, int], int | None],
    names: tuple[str, ...],
    _generation: int,
    threads: int,
    algorithm: str,
    *values: Any,
) -> tuple[AnyProblem, bool, Runnable | None]:
    """The problem that ``statement`` makes of shapes and arguments, and its program if any.

    Between them whether that writes what it is to add; see `planner.writes_early`.
    ``places``: the strides of x, and that between the images of y if it is not dense.
    """
    words = dict(zip(names, values, strict=True))
    problem = placed_in(statement(**dict(shapes), **words, x_strides=places[0]), places[1])
    check_algorithm(algorithm)
    if problem.is_empty:
        return problem, False, None
    early = writes_early(problem, algorithm, host_target())
    return problem, early, packing_program(problem, algorithm, threads)
