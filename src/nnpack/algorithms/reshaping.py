"""Padding, resampling and concatenation: one stage, or one for each array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div
from nnpack.algorithms.elementary import TASK_FLOATS, block_of, simple_plan
from nnpack.codegen.target import Target
from nnpack.geometry import Pair
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.pool_problem import PoolProblem
from nnpack.reshaping_problem import ConcatProblem, PadProblem, ResampleProblem

if TYPE_CHECKING:
    from nnpack.resampling import AxisTable

__all__ = [
    "plan_average_gradient",
    "plan_concat",
    "plan_max_gradient",
    "plan_pad",
    "plan_resample",
]


def plan_pad(problem: PadProblem, _target: Target, threads: int) -> Plan:
    """Slots x and y."""
    from nnpack.kernels.resampling import PadConstant

    top, bottom, left, right = problem.padding
    out_height, out_width = problem.height + top + bottom, problem.width + left + right
    count, block = problem.planes * out_height, block_of(out_width)
    words: dict[str, Argument] = {
        "x": Slot("x"),
        "y": Slot("y"),
        "height": problem.height,
        "width": problem.width,
        "out_height": out_height,
        "out_width": out_width,
        "top": top,
        "left": left,
        "block": block,
        "count": count,
        "value": problem.value,
    }
    return simple_plan("pad", (Stage(PadConstant(), ceil_div(count, block), words),), threads)


def plan_resample(problem: ResampleProblem, _target: Target, threads: int) -> Plan:
    """Slots x, y, and the tables ``row_places``, ``row_weights`` and those of columns.

    Tables of one entry without weights have none of the latter. ``nnpack.resampling`` makes them.
    """
    from nnpack.resampling import axis_table

    image, outputs = problem.image, problem.outputs
    if problem.gradient:
        image, outputs = outputs, image
    tables = axis_table(problem, 0), axis_table(problem, 1)
    return _plan_tables(problem.planes, image, outputs, tables, threads)


def plan_average_gradient(problem: PoolProblem, _target: Target, threads: int) -> Plan:
    """The gradient of an average pool: slots as in `plan_resample`, x being the gradient of y."""
    from nnpack.resampling import average_gradient_tables

    image, outputs = (problem.out_height, problem.out_width), (problem.height, problem.width)
    planes = problem.batch * problem.channels
    return _plan_tables(planes, image, outputs, average_gradient_tables(problem), threads)


def plan_max_gradient(problem: PoolProblem, _target: Target, threads: int) -> Plan:
    """The gradient of a max pool: slots grad and indices, of y's shape, and y, of x's."""
    from nnpack.kernels.scatter import ScatterPlanes

    words: dict[str, Argument] = {
        "grad": Slot("grad"),
        "indices": Slot("indices"),
        "y": Slot("y"),
        "count": problem.out_height * problem.out_width,
        "pixels": problem.height * problem.width,
    }
    stage = Stage(ScatterPlanes(), problem.batch * problem.channels, words)
    return simple_plan("max_gradient", (stage,), threads)


def _plan_tables(
    planes: int,
    image: Pair,
    outputs: Pair,
    tables: tuple[AxisTable, AxisTable],
    threads: int,
) -> Plan:
    """The plan of images of ``image`` pixels to ``outputs`` by tables of rows and of columns."""
    from nnpack.kernels.resampling import Resample

    rows, columns = tables
    count, block = planes * outputs[0], block_of(outputs[1] * columns.taps)
    words: dict[str, Argument] = {
        "x": Slot("x"),
        "y": Slot("y"),
        "row_places": Slot("row_places"),
        "column_places": Slot("column_places"),
        "height": image[0],
        "width": image[1],
        "out_height": outputs[0],
        "out_width": outputs[1],
        "row_taps": rows.taps,
        "column_taps": columns.taps,
        "block": block,
        "count": count,
    }
    scratch = 0
    if rows.weights is not None:
        words |= {"row_weights": Slot("row_weights"), "rows": Slot("workspace")}
        scratch = FLOAT_BYTES * threads * image[1]
    if columns.weights is not None:
        words["column_weights"] = Slot("column_weights")
    kernel = Resample(rows.weights is not None, columns.weights is not None)
    return simple_plan(
        "resample", (Stage(kernel, ceil_div(count, block), words),), threads, scratch
    )


def plan_concat(problem: ConcatProblem, _target: Target, threads: int) -> Plan:
    """Slots y, and x0, x1, ... of the arrays that are moved."""
    from nnpack.kernels.resampling import CopyRows

    stages, offset, whole = [], 0, sum(problem.widths)
    for number, width in enumerate(problem.widths):
        parts = ceil_div(width, TASK_FLOATS)
        words: dict[str, Argument] = {
            "x": Slot(f"x{number}"),
            "y": Slot("y", FLOAT_BYTES * offset),
            "x_stride": width,
            "y_stride": whole,
            "width": width,
            "part": TASK_FLOATS,
            "parts": parts,
        }
        if problem.moved[number] and width:
            stages.append(Stage(CopyRows(), problem.rows * parts, words))
        offset += width
    return simple_plan("concat", tuple(stages), threads)
