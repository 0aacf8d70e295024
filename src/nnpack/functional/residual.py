"""Results that are written where a residual may be read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnpack.arrays import Float32Array, are_same, check_out, slice_stride
from nnpack.frozen import replace
from nnpack.linear_problem import ProductProblem
from nnpack.planner import AnyProblem
from nnpack.runtime.memory import empty_output

__all__ = [
    "placed_in",
    "placed_output",
    "readable_residual",
    "stores_slices",
]


def placed_output(
    problem: AnyProblem | ProductProblem,
    given: Mapping[str, Float32Array],
    read: Mapping[str, Float32Array],
    out: Float32Array | None,
    early: bool = False,
) -> tuple[Float32Array, Mapping[str, Float32Array]]:
    """Where the result goes, and what is ``read`` with a residual that lies as the result does.

    What is read are arrays of ``given`` or copies of them. ``out`` may be channels of a larger
    array if the problem is of images; where its results cannot be stored there, they go to an array
    of their own, of which the caller copies them. ``early``: see `planner.writes_early`.

    Raises ProblemError or DtypeError when ``out`` cannot be written while ``given`` is read.
    """
    if out is None:
        y = empty_output(problem.y_shape)
    else:
        slices = not isinstance(problem, ProductProblem)
        y = check_out(out, problem.y_shape, given.items(), in_place="residual", slices=slices)
        if slice_stride(y) is not None and not stores_slices(problem):
            y = empty_output(problem.y_shape)
    if "residual" not in given:
        return y, read
    residual = readable_residual(given["residual"], y, early)
    return y, {**read, "residual": residual}


def readable_residual(residual: Float32Array, y: Float32Array, early: bool) -> Float32Array:
    """``residual`` as y lies before a pool: itself, or a copy.

    Copied as well if it is ``y`` and some of y is written ``early``, before it is read.
    """
    same = are_same(y, residual)
    if same and not early:
        return residual
    stride = slice_stride(y)
    if stride is None:
        return residual.copy("C") if same else np.ascontiguousarray(residual)
    images = np.empty((len(y), stride), np.float32)
    copied = np.ndarray(residual.shape, np.float32, images, strides=y.strides)
    copied[...] = residual
    return copied


def placed_in(problem: AnyProblem, stride: int | None) -> AnyProblem:
    """``problem`` with ``stride`` floats between the images of y, where it can store so."""
    if stride is None or not stores_slices(problem):
        return problem
    return replace(problem, y_strides=(stride, *problem.y_strides[1:]))


def stores_slices(problem: AnyProblem | ProductProblem) -> bool:
    """Whether results are stored where ``out`` has them if that is channels of a larger array."""
    return problem.epilogue.pool is None and not problem.epilogue.statistics
