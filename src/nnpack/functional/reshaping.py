"""Padding, upsampling and concatenation, and the gradients of the first two."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import numpy as np

from nnpack.algorithms.reshaping import plan_concat, plan_pad, plan_resample
from nnpack.arguments import (
    PaddingLike,
    as_axis,
    as_flag,
    as_number,
    as_paddings,
    as_shape,
    check_one_of,
)
from nnpack.arrays import Float32Array, as_float32
from nnpack.errors import DtypeError, ProblemError
from nnpack.execution import Runnable
from nnpack.functional.running import Prepared, planned_program, result, run
from nnpack.functional.stating import kept
from nnpack.geometry import Padding, Pair
from nnpack.resampling import axis_table, table_arrays
from nnpack.reshaping_problem import (
    AxisKind,
    ConcatProblem,
    Interpolation,
    PadMode,
    PadProblem,
    ResampleProblem,
    check_pad_mode,
    resampled_size,
)
from nnpack.settings import resolve_num_threads

__all__ = ["concat", "pad2d", "pad2d_gradient", "upsample2d", "upsample2d_gradient"]

_AXES = ("N", "C", "H", "W")


def pad2d(
    x: object,
    padding: PaddingLike,
    mode: PadMode = "constant",
    value: float = 0.0,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """X within borders: (N, C, H, W) -> (N, C, top + H + bottom, left + W + right).

    ``padding`` is an int, (h, w) or (top, bottom, left, right). Borders are ``value`` (which may be
    infinite), the image mirrored at its outermost pixels ("reflect"; less than the image), or
    these repeated ("replicate").

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    x = as_float32("x", x, 4)
    known = x.shape, resolve_num_threads(threads)
    return kept(_padding, known, padding, mode, value).run("x", x, out)


def _padding(
    shape: tuple[int, ...], threads: int, padding: PaddingLike, mode: PadMode, value: float
) -> Prepared:
    as_shape("x", shape, _AXES)
    borders = as_paddings("padding", padding)
    top, bottom, left, right = borders
    kind = check_pad_mode(mode, borders, (shape[2], shape[3]))
    number = as_number("value", value, infinite=True)
    outputs = (*shape[:2], shape[2] + top + bottom, shape[3] + left + right)
    if kind != "constant":
        return _resampling(shape, outputs, kind, threads, padding=borders)
    problem = PadProblem(math.prod(shape[:2]), shape[2], shape[3], borders, number)
    empty = math.prod(outputs) == 0
    return Prepared(outputs, None if empty else planned_program(plan_pad, problem, threads))


def pad2d_gradient(
    grad_output: object,
    padding: PaddingLike,
    mode: PadMode = "constant",
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of x where ``grad_output`` is that of ``pad2d(x, padding, mode)``.

    Raises as `pad2d` does.
    """
    grad = as_float32("grad_output", grad_output, 4)
    known = grad.shape, resolve_num_threads(threads)
    reshaping, corner = kept(_padding_gradient, known, padding, mode)
    if reshaping.program is not None or corner is None:
        return reshaping.run("grad_output", grad, out)
    y = result(reshaping.shape, out, {"grad_output": grad})
    top, left = corner
    y[...] = grad[:, :, top : top + y.shape[2], left : left + y.shape[3]]
    return y


def _padding_gradient(
    shape: tuple[int, ...], threads: int, padding: PaddingLike, mode: PadMode
) -> tuple[Prepared, Pair | None]:
    """What gives the gradient; or for constant borders where it begins in what is given."""
    as_shape("grad_output", shape, _AXES)
    borders = as_paddings("padding", padding)
    top, bottom, left, right = borders
    height, width = shape[2] - top - bottom, shape[3] - left - right
    if min(height, width) < 1:
        raise ProblemError(
            f"padding={padding!r} leaves {height}x{width} of grad_output.shape={shape}; it "
            "must leave the image that was padded"
        )
    kind = check_pad_mode(mode, borders, (height, width))
    image = (*shape[:2], height, width)
    if kind == "constant":
        return Prepared(image, None), (top, left)
    return _resampling(shape, image, kind, threads, padding=borders, gradient=True), None


def upsample2d(
    x: object,
    scale_factor: float | Sequence[float] | None = None,
    mode: Interpolation = "nearest",
    align_corners: bool = False,
    *,
    size: Any = None,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """X at another size: (N, C, H, W) -> (N, C, H', W'), larger or smaller.

    ``size`` is (H', W'), ``scale_factor`` a number or a pair: (floor(H * scale), floor(W * scale)).
    "nearest" takes pixel ``floor(i * H / H')``; "bilinear" weighs the four pixels round
    ``(i + 1/2) * H / H' - 1/2``, or with ``align_corners`` round ``i * (H - 1) / (H' - 1)``. A
    smaller image is not smoothed before.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    x = as_float32("x", x, 4)
    known = x.shape, resolve_num_threads(threads)
    words = scale_factor, mode, align_corners, size
    return kept(_upsampling, known, *words).run("x", x, out)


def _upsampling(
    shape: tuple[int, ...],
    threads: int,
    scale_factor: Any,
    mode: Interpolation,
    align_corners: bool,
    size: Any,
) -> Prepared:
    as_shape("x", shape, _AXES)
    kind = _axis_kind(mode, align_corners)
    outputs = resampled_size((shape[2], shape[3]), scale_factor, size)
    return _resampling(shape, (*shape[:2], *outputs), kind, threads)


def upsample2d_gradient(
    grad_output: object,
    input_shape: Sequence[SupportsIndex],
    mode: Interpolation = "nearest",
    align_corners: bool = False,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The gradient of x, of ``input_shape``, where ``grad_output`` is that of ``upsample2d(x)``.

    Raises as `upsample2d` does.
    """
    grad = as_float32("grad_output", grad_output, 4)
    known = grad.shape, resolve_num_threads(threads)
    words = input_shape, mode, align_corners
    return kept(_upsampling_gradient, known, *words).run("grad_output", grad, out)


def _upsampling_gradient(
    grad: tuple[int, ...],
    threads: int,
    input_shape: Sequence[SupportsIndex],
    mode: Interpolation,
    align_corners: bool,
) -> Prepared:
    as_shape("grad_output", grad, _AXES)
    shape = as_shape("x", input_shape, _AXES)
    if shape[:2] != grad[:2]:
        raise ProblemError(f"input_shape={shape} must have N and C of grad_output.shape={grad}")
    return _resampling(grad, shape, _axis_kind(mode, align_corners), threads, gradient=True)


def concat(
    arrays: Iterable[object],
    axis: SupportsIndex = 1,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """float32 arrays one behind the other along ``axis``; all other extents are the same.

    An array that is the part of ``out`` it would become is not copied: where all extents before
    ``axis`` are 1, layers can write such parts through their own ``out``.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    if not isinstance(arrays, Iterable):
        raise DtypeError(f"arrays of type {type(arrays).__name__} must be a list of arrays")
    given = [as_float32(f"arrays[{n}]", array) for n, array in enumerate(arrays)]
    shapes = tuple([array.shape for array in given])
    number, shape, ends = kept(_concatenated, (shapes,), axis)
    moved: tuple[bool, ...] = (True,) * len(given)
    if out is not None:
        parts = zip(given, ends, strict=True)
        moved = tuple([not _is_part(a, out, number, end) for a, end in parts])
    inputs = {f"arrays[{n}]": a for n, a in enumerate(given) if moved[n]}
    y = result(shape, out, inputs)
    program = kept(_concatenating, (shapes, number, moved, resolve_num_threads(threads)))
    if program is not None:
        slots = {f"x{n}": np.ascontiguousarray(a) for n, a in enumerate(given) if moved[n]}
        run(program, {**slots, "y": y})
    return y


def _concatenated(
    shapes: tuple[tuple[int, ...], ...], axis: SupportsIndex
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """The axis, the shape of the whole, and where each array ends along the axis."""
    if not shapes or not shapes[0]:
        raise ProblemError("concat needs one array or more, of 1 dimension or more")
    number = as_axis("axis", axis, len(shapes[0]))
    others = {(*shape[:number], -1, *shape[number + 1 :]) for shape in shapes}
    if len(others) > 1:
        raise ProblemError(f"arrays of the shapes {[*shapes]} differ in more than axis {number}")
    ends = tuple(itertools.accumulate(shape[number] for shape in shapes))
    return number, (*shapes[0][:number], ends[-1], *shapes[0][number + 1 :]), ends


def _concatenating(
    shapes: tuple[tuple[int, ...], ...], axis: int, moved: tuple[bool, ...], threads: int
) -> Runnable | None:
    """The program that moves those arrays, unless there is nothing to move."""
    widths = tuple(math.prod(shape[axis:]) for shape in shapes)
    rows = math.prod(shapes[0][:axis])
    if not rows * sum(widths) or not any(moved):
        return None
    return planned_program(plan_concat, ConcatProblem(rows, widths, moved), threads)


def _is_part(array: Float32Array, out: object, axis: int, end: int) -> bool:
    """Whether ``array`` is the part of ``out`` that ends at ``end`` of ``axis``, in its place."""
    if not isinstance(out, np.ndarray) or out.ndim != array.ndim or out.dtype != array.dtype:
        return False
    part = out[(slice(None),) * axis + (slice(end - array.shape[axis], end),)]
    return bool(
        part.shape == array.shape
        and part.strides == array.strides
        and part.__array_interface__["data"] == array.__array_interface__["data"]
    )


def _axis_kind(mode: object, align_corners: bool) -> AxisKind:
    check_one_of("mode", mode, ("nearest", "bilinear"))
    align_corners = as_flag("align_corners", align_corners)
    if mode == "nearest" and align_corners:
        raise ProblemError('align_corners=True goes with mode="bilinear" only')
    if align_corners:
        return "corners"
    return "nearest" if mode == "nearest" else "bilinear"


def _resampling(
    given: tuple[int, ...],
    shape: tuple[int, ...],
    kind: AxisKind,
    threads: int,
    *,
    padding: Padding = (0, 0, 0, 0),
    gradient: bool = False,
) -> Prepared:
    """What makes an array of ``shape`` of a given one."""
    image, outputs = (shape, given) if gradient else (given, shape)
    sizes = (image[2], image[3]), (outputs[2], outputs[3])
    problem = ResampleProblem(math.prod(given[:2]), *sizes, kind, padding, gradient)
    if math.prod(shape) == 0:
        return Prepared(shape, None)
    tables = table_arrays(axis_table(problem, 0), axis_table(problem, 1))
    return Prepared(shape, planned_program(plan_resample, problem, threads), tables)
