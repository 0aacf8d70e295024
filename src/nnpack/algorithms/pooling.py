"""Pools: windows rows first, whole planes at once, or window by window for the indices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, round_up
from nnpack.codegen.target import Target
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.pool_problem import PoolProblem

if TYPE_CHECKING:
    from nnpack.kernels.stage import Kernel

TASKS_PER_THREAD = 8
# Pixels a task: below, taking it takes longer than doing it.
LEAST_TASK_PIXELS = 4096


def plan_pooling(problem: PoolProblem, target: Target, threads: int) -> Plan:
    """The plan for at most ``threads`` threads; slots x, y, ``indices`` and workspace."""
    kernel, words, scratch = _kernel(problem, target)
    return Plan(
        algorithm="pooling",
        stages=(pool_stage(problem, kernel, words, threads),),
        weight_format=WeightFormat((), 0, ()),
        workspace_bytes=FLOAT_BYTES * scratch * threads,
        threads=threads,
        detail="whole planes" if problem.is_global else "rows first",
    )


def pool_stage(
    problem: PoolProblem, kernel: Kernel, words: dict[str, Argument], threads: int
) -> Stage:
    """The stage of a pool, some planes a task."""
    planes = problem.batch * problem.channels
    wanted = ceil_div(planes, TASKS_PER_THREAD * threads)
    least = ceil_div(LEAST_TASK_PIXELS, problem.height * problem.width)
    size = max(1, min(planes, max(wanted, least)))
    words = {**_plane_words(problem), **words, "task_planes": size}
    return Stage(kernel, ceil_div(planes, size), words)


def _kernel(problem: PoolProblem, target: Target) -> tuple[Kernel, dict[str, Argument], int]:
    """The kernel, its own argument words, and the floats of scratch a thread."""
    if problem.indices:
        return _with_indices(problem)
    if problem.is_global:
        return _whole_planes(problem)
    return _rows_first(problem, target)


def _with_indices(problem: PoolProblem) -> tuple[Kernel, dict[str, Argument], int]:
    from nnpack.kernels.pooling_indices import PoolWithIndices

    kernel = PoolWithIndices(_known_stride(problem), problem.kernel is None)
    return kernel, {**_window_words(problem), "indices": Slot("indices")}, 0


def _whole_planes(problem: PoolProblem) -> tuple[Kernel, dict[str, Argument], int]:
    """Planes without gaps are one row."""
    from nnpack.kernels.global_pooling import PIECE, GlobalPool

    rows, columns = problem.height, problem.width
    if rows == 1 or problem.x_strides[2] == columns:
        rows, columns = 1, rows * columns
    factor = 1.0 / (problem.divisor or problem.height * problem.width)
    kernel = GlobalPool(problem.kind, columns > PIECE)
    return kernel, {"rows": rows, "columns": columns, "factor": factor}, 0


def _rows_first(problem: PoolProblem, target: Target) -> tuple[Kernel, dict[str, Argument], int]:
    from nnpack.kernels.pooling import MAX_UNROLLED, Pool

    kh, kw = problem.kernel or (MAX_UNROLLED + 1, MAX_UNROLLED + 1)
    stride = _known_stride(problem)
    equal = problem.kind == "max" or problem.has_equal_counts
    kernel = Pool(
        problem.kind,
        (
            kh if kh <= MAX_UNROLLED else None,
            kw if kw <= MAX_UNROLLED and stride is not None else None,
        ),
        stride,
        problem.dilation[1] == 1,
        equal,
        problem.kernel is None,
        _are_apart(problem),
    )
    words, scratch = _lines(problem, target)
    counted = problem.padding if problem.count_padding else (0, 0, 0, 0)
    words |= {
        "factor": 1.0 / (problem.divisor or kh * kw),
        "count_top": -counted[0],
        "count_bottom": problem.height + counted[1],
        "count_left": -counted[2],
        "count_right": problem.width + counted[3],
    }
    return kernel, {**_window_words(problem), **words}, scratch


def _are_apart(problem: PoolProblem) -> bool:
    """Whether windows share no columns, and all of them are columns of the image."""
    from nnpack.kernels.pooling import MAX_UNROLLED

    if problem.kernel is None or max(problem.kernel) > MAX_UNROLLED:
        return False
    last = (problem.out_width - 1) * problem.stride[1] + problem.kernel[1]
    inside = problem.padding[2] == 0 and last <= problem.width and problem.dilation[1] == 1
    return inside and problem.kernel[1] <= problem.stride[1] and _known_stride(problem) is not None


def _lines(problem: PoolProblem, target: Target) -> tuple[dict[str, Argument], int]:
    """The parts of the scratch memory, and its floats.

    Lines of half the first-level cache; every float that a vector of outputs may read is in them.
    """
    lanes, left, stride = target.lanes, problem.padding[2], problem.stride[1]
    margin = round_up(left, lanes)
    taps = (problem.kernel or (1, 1))[1]
    last = (max(problem.out_width, lanes) - 1) * stride - left + (taps - 1) * problem.dilation[1]
    pitch = margin + round_up(max(problem.width, last + 1), lanes) + lanes
    rows = max(1, min(problem.out_height, target.caches.l1 // 2 // (FLOAT_BYTES * pitch)))
    rows = ceil_div(problem.out_height, ceil_div(problem.out_height, rows))
    inverses = round_up(problem.width, lanes)
    lines = inverses + round_up(problem.out_width, lanes)
    scratch = round_up(lines + rows * pitch, 64)
    words: dict[str, Argument] = {
        "scratch": Slot("workspace"),
        "scratch_stride": scratch,
        "inverses": inverses,
        "lines": lines + margin,
        "block_rows": rows,
        "pitch": pitch,
    }
    return words, scratch


def _known_stride(problem: PoolProblem) -> int | None:
    """The stride of vectors of outputs; None where they are computed one by one."""
    from nnpack.kernels.pooling import MAX_SHUFFLED_STRIDE

    stride = problem.stride[1]
    return stride if problem.kernel is not None and stride <= MAX_SHUFFLED_STRIDE else None


def _plane_words(problem: PoolProblem) -> dict[str, Argument]:
    (x_n, x_c, x_h), (y_n, y_c, y_h, _) = problem.x_strides, problem.y_strides
    return {
        "x": Slot("x"),
        "y": Slot("y"),
        "planes": problem.batch * problem.channels,
        "channels": problem.channels,
        "x_n": x_n,
        "x_c": x_c,
        "x_h": x_h,
        "y_n": y_n,
        "y_c": y_c,
        "y_h": y_h,
    }


def _window_words(problem: PoolProblem) -> dict[str, Argument]:
    kernel = problem.kernel or (1, 1)
    return {
        "height": problem.height,
        "width": problem.width,
        "out_height": problem.out_height,
        "out_width": problem.out_width,
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": problem.stride[0],
        "stride_w": problem.stride[1],
        "dilation_h": problem.dilation[0],
        "dilation_w": problem.dilation[1],
        "pad_top": problem.padding[0],
        "pad_left": problem.padding[2],
    }
