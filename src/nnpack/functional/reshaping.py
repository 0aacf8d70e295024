"""Padding, upsampling and concatenation, and the gradients of the first two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from nnpack.algorithms.reshaping import plan_concat, plan_pad, plan_resample
from nnpack.arguments import PaddingLike, as_axis, as_flag, as_number, as_paddings, as_shape
from nnpack.arrays import Float32Array, as_float32, check_out
from nnpack.errors import DtypeError, ProblemError
from nnpack.functional.running import run_planned
from nnpack.geometry import Padding
from nnpack.resampling import axis_table
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
from nnpack.runtime.memory import empty_output

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
    x = _as_images("x", x)
    borders = as_paddings("padding", padding)
    kind = check_pad_mode(mode, borders, (x.shape[2], x.shape[3]))
    number = as_number("value", value, infinite=True)
    y = _result(_padded(x.shape, borders), out, {"x": x})
    if kind == "constant":
        problem = PadProblem(math.prod(x.shape[:2]), x.shape[2], x.shape[3], borders, number)
        if y.size:
            run_planned(plan_pad, problem, {"x": np.ascontiguousarray(x), "y": y}, threads)
        return y
    return _resample(x, y, kind, threads, padding=borders)


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
    grad = _as_images("grad_output", grad_output)
    borders = as_paddings("padding", padding)
    top, bottom, left, right = borders
    height, width = grad.shape[2] - top - bottom, grad.shape[3] - left - right
    if min(height, width) < 1:
        raise ProblemError(
            f"padding={padding!r} leaves {height}x{width} of grad_output.shape={grad.shape}; it "
            "must leave the image that was padded"
        )
    kind = check_pad_mode(mode, borders, (height, width))
    result = _result((*grad.shape[:2], height, width), out, {"grad_output": grad})
    if kind == "constant":
        result[...] = grad[:, :, top : top + height, left : left + width]
        return result
    return _resample(grad, result, kind, threads, padding=borders, gradient=True)


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
    x = _as_images("x", x)
    kind = _axis_kind(mode, align_corners)
    outputs = resampled_size((x.shape[2], x.shape[3]), scale_factor, size)
    y = _result((*x.shape[:2], *outputs), out, {"x": x})
    return _resample(x, y, kind, threads)


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
    grad = _as_images("grad_output", grad_output)
    shape = as_shape("x", input_shape, _AXES)
    if shape[:2] != grad.shape[:2]:
        raise ProblemError(
            f"input_shape={shape} must have N and C of grad_output.shape={grad.shape}"
        )
    result = _result(shape, out, {"grad_output": grad})
    return _resample(grad, result, _axis_kind(mode, align_corners), threads, gradient=True)


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
    if not given or not given[0].ndim:
        raise ProblemError("concat needs one array or more, of 1 dimension or more")
    number = as_axis("axis", axis, given[0].ndim)
    others = {(*a.shape[:number], -1, *a.shape[number + 1 :]) for a in given}
    if len(others) > 1:
        raise ProblemError(
            f"arrays of the shapes {[a.shape for a in given]} differ in more than axis {number}"
        )
    shape = list(given[0].shape)
    shape[number] = sum(a.shape[number] for a in given)
    rows = math.prod(shape[:number])
    ends = np.cumsum([a.shape[number] for a in given]).tolist()
    moved = [not _is_part(a, out, number, end) for a, end in zip(given, ends, strict=True)]
    if out is None:
        y: Float32Array = empty_output(tuple(shape))
    else:
        inputs = [(f"arrays[{n}]", a) for n, a in enumerate(given) if moved[n]]
        y = check_out(out, shape, inputs)
    if y.size and any(moved):
        widths = tuple(a.size // rows for a in given)
        slots = {f"x{n}": np.ascontiguousarray(a) for n, a in enumerate(given) if moved[n]}
        problem = ConcatProblem(rows, widths, tuple(moved))
        run_planned(plan_concat, problem, {**slots, "y": y}, threads)
    return y


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


def _as_images(name: str, value: object) -> Float32Array:
    array = as_float32(name, value, 4)
    as_shape(name, array.shape, _AXES)
    return array


def _padded(shape: tuple[int, ...], padding: Padding) -> tuple[int, ...]:
    top, bottom, left, right = padding
    return (*shape[:2], shape[2] + top + bottom, shape[3] + left + right)


def _axis_kind(mode: object, align_corners: bool) -> AxisKind:
    if mode not in ("nearest", "bilinear"):
        raise ProblemError(f'mode={mode!r} must be "nearest" or "bilinear"')
    align_corners = as_flag("align_corners", align_corners)
    if mode == "nearest" and align_corners:
        raise ProblemError('align_corners=True goes with mode="bilinear" only')
    if align_corners:
        return "corners"
    return "nearest" if mode == "nearest" else "bilinear"


def _result(
    shape: tuple[int, ...], out: Float32Array | None, inputs: dict[str, Float32Array]
) -> Float32Array:
    return empty_output(shape) if out is None else check_out(out, shape, inputs.items())


def _resample(
    x: Float32Array,
    y: Float32Array,
    kind: AxisKind,
    threads: SupportsIndex | None,
    *,
    padding: Padding = (0, 0, 0, 0),
    gradient: bool = False,
) -> Float32Array:
    image, outputs = (y, x) if gradient else (x, y)
    planes = math.prod(x.shape[:2])
    sizes = (image.shape[2], image.shape[3]), (outputs.shape[2], outputs.shape[3])
    problem = ResampleProblem(planes, *sizes, kind, padding, gradient)
    if not y.size:
        return y
    rows, columns = axis_table(problem, 0), axis_table(problem, 1)
    arrays: dict[str, npt.NDArray[Any]] = {
        "x": np.ascontiguousarray(x),
        "y": y,
        "row_places": rows.places,
        "column_places": columns.places,
    }
    if rows.weights is not None:
        arrays["row_weights"] = rows.weights
    if columns.weights is not None:
        arrays["column_weights"] = columns.weights
    run_planned(plan_resample, problem, arrays, threads)
    return y
