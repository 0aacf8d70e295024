"""Convolutions as functions: arguments -> problem -> plan -> one native call."""

from __future__ import annotations

import functools
from typing import SupportsIndex

import numpy as np

from nnpack import wisdom
from nnpack.arguments import IntOrPair, PaddingLike
from nnpack.arrays import (
    Float32Array,
    as_float32,
    check_out,
    element_strides,
    optional_vector,
    with_unit_column_stride,
)
from nnpack.codegen.target import Target, host_target
from nnpack.execution import Program, Runnable
from nnpack.functional.running import reported
from nnpack.plan import packed_in_workspace
from nnpack.planner import AnyProblem, check_algorithm, make_plan
from nnpack.problem import Accuracy, Activation, Problem, TransposedProblem
from nnpack.runtime.memory import address, empty_output
from nnpack.settings import resolve_num_threads

__all__ = ["conv2d", "conv_transpose2d"]


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
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """``activation(scale * conv(x, weight) + bias)``.

    (N, C, H, W), (O, C/groups, kh, kw) -> (N, O, H', W'), all float32: ndarrays, or objects with
    the buffer protocol or DLPack. ``scale`` and ``bias`` have shape (O,). ``padding`` is an int,
    (h, w), (top, bottom, left, right), "valid" or "same". The weights are packed at every call:
    `Conv2d` packs them once.
    Returns a C-contiguous array, or ``out``.

    Raises ProblemError (a ValueError) or DtypeError (a TypeError) for malformed arguments, and
    AlgorithmError when a named algorithm cannot do the problem, before anything is written.
    """
    x, weight = as_float32("x", x, 4), np.ascontiguousarray(as_float32("weight", weight, 4))
    bias, scale = optional_vector("bias", bias), optional_vector("scale", scale)
    x = with_unit_column_stride(x)
    problem = Problem.conv2d(
        x.shape,
        weight.shape,
        bias_shape=None if bias is None else bias.shape,
        scale_shape=None if scale is None else scale.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
        accuracy=accuracy,
        x_strides=element_strides(x),
    )
    return _run_cold(problem, x, weight, bias, scale, algorithm, threads, out)


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
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The transpose of `conv2d` in x: (N, I, H, W), (I, O/groups, kh, kw) -> (N, O, H', W').

    H' = (H - 1) * stride - top - bottom + dilation * (kh - 1) + 1 + output_padding. Everything else
    is as in `conv2d`; the epilogue applies to the result.

    Raises as `conv2d` does.
    """
    x, weight = as_float32("x", x, 4), np.ascontiguousarray(as_float32("weight", weight, 4))
    bias, scale = optional_vector("bias", bias), optional_vector("scale", scale)
    x = with_unit_column_stride(x)
    problem = TransposedProblem.conv_transpose2d(
        x.shape,
        weight.shape,
        bias_shape=None if bias is None else bias.shape,
        scale_shape=None if scale is None else scale.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
        accuracy=accuracy,
        x_strides=element_strides(x),
    )
    return _run_cold(problem, x, weight, bias, scale, algorithm, threads, out)


def _run_cold(
    problem: AnyProblem,
    x: Float32Array,
    weight: Float32Array,
    bias: Float32Array | None,
    scale: Float32Array | None,
    algorithm: str,
    threads: SupportsIndex | None,
    out: Float32Array | None,
) -> Float32Array:
    """Pack the weights into the workspace and run, in one native call."""
    count = resolve_num_threads(threads)
    check_algorithm(algorithm)
    inputs = {"x": x, "weight": weight, "bias": bias, "scale": scale}
    given = {name: array for name, array in inputs.items() if array is not None}
    y = empty_output(problem.y_shape) if out is None else out
    if out is not None:
        check_out(out, problem.y_shape, given.items())
    if not problem.is_empty:
        target = host_target()
        program = _cold_program(problem, algorithm, target, count, wisdom.generation())
        program.run({name: address(array) for name, array in given.items()} | {"y": address(y)})
    return y


@functools.lru_cache(maxsize=256)
def _cold_program(
    problem: AnyProblem, algorithm: str, target: Target, threads: int, _generation: int
) -> Runnable:
    plan = make_plan(problem, algorithm, target, threads)
    stages, workspace_bytes = packed_in_workspace(plan)
    return reported(Program(stages, target, threads, workspace_bytes), problem, plan)
