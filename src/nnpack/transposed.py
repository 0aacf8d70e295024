"""Transposed convolution as forward convolutions, one for every phase of the output.

Along one axis, output o of a transposed convolution with stride s, dilation d sums the taps p with
``o + top - p*d = s*i``. Outputs of one phase ``o = phase + s*t`` share their taps, which are
P = s / gcd(s, d) apart, and read inputs ``i = t + c - j*D`` for the j-th of them,
D = d / gcd(s, d): a forward convolution of stride 1 with the taps in reverse order.
"""

from __future__ import annotations

import math

from nnpack.frozen import dataclass
from nnpack.problem import Problem, TransposedProblem, WeightLayout, dense_strides

__all__ = ["Phase", "has_gaps", "is_one_phase", "transposed_phases"]


@dataclass(frozen=True)
class Phase:
    """The forward problem of one phase, and where its output starts in y, in elements."""

    problem: Problem
    y_offset: int


@dataclass(frozen=True)
class _AxisPhase:
    """One phase along one axis, in the words of a forward convolution."""

    start: int
    outputs: int
    taps: int
    first_tap: int
    tap_step: int
    dilation: int
    padding: tuple[int, int]


def transposed_phases(problem: TransposedProblem) -> tuple[Phase, ...]:
    """The forward problems that together compute ``problem``, as far as taps reach its outputs."""
    rows = _axis_phases(problem, 0)
    columns = _axis_phases(problem, 1)
    return tuple(_phase(problem, row, column) for row in rows for column in columns)


def is_one_phase(problem: TransposedProblem) -> bool:
    """Whether a single forward problem computes all of y, whatever its epilogue."""
    return problem.stride == (1, 1)


def has_gaps(problem: TransposedProblem) -> bool:
    """Whether there are outputs that no tap reaches: sums of nothing.

    These are written first, and some of y's other outputs with them: see `algorithms.fill`.
    """
    return any(len(_axis_phases(problem, axis)) < _phase_count(problem, axis) for axis in range(2))


def _phase_count(problem: TransposedProblem, axis: int) -> int:
    return min(problem.stride[axis], problem.conv_shape[2 + axis])


def _axis_phases(problem: TransposedProblem, axis: int) -> list[_AxisPhase]:
    """The phases that taps reach, by the first output of each."""
    stride, dilation = problem.stride[axis], problem.dilation[axis]
    taps = range(problem.kernel[axis])
    reached = {(p * dilation - problem.padding[2 * axis]) % stride for p in taps}
    starts = sorted(start for start in reached if start < _phase_count(problem, axis))
    if not starts:
        # Nothing reaches y, which has fewer outputs than phases: one tap sees nothing but padding.
        size = problem.x_shape[2 + axis]
        return [_AxisPhase(0, 1, 1, 0, 1, 1, (1, -size))]
    return [_axis_phase(problem, axis, start) for start in starts]


def _axis_phase(problem: TransposedProblem, axis: int, start: int) -> _AxisPhase:
    size = problem.x_shape[2 + axis]
    stride, dilation = problem.stride[axis], problem.dilation[axis]
    before = problem.padding[2 * axis]
    outputs = -(-(problem.conv_shape[2 + axis] - start) // stride)
    common = math.gcd(stride, dilation)
    step, spread = stride // common, dilation // common
    taps = [p for p in range(problem.kernel[axis]) if (start + before - p * dilation) % stride == 0]
    shift = (start + before - taps[0] * dilation) // stride
    reach = (len(taps) - 1) * spread
    padding = reach - shift, outputs - size + shift
    return _AxisPhase(start, outputs, len(taps), taps[-1], -step, spread, padding)


def _phase(problem: TransposedProblem, row: _AxisPhase, column: _AxisPhase) -> Phase:
    channel, out, tap_row, tap_column = dense_strides(problem.weight_shape)
    layout = WeightLayout(
        offset=row.first_tap * tap_row + column.first_tap * tap_column,
        group=problem.group_in_channels * channel,
        out=out,
        channel=channel,
        row=row.tap_step * tap_row,
        column=column.tap_step * tap_column,
    )
    n, c, h, w = problem.y_strides
    forward = Problem(
        batch=problem.batch,
        in_channels=problem.in_channels,
        height=problem.height,
        width=problem.width,
        out_channels=problem.out_channels,
        kernel=(row.taps, column.taps),
        padding=(*row.padding, *column.padding),
        dilation=(row.dilation, column.dilation),
        groups=problem.groups,
        epilogue=problem.epilogue,
        accuracy=problem.accuracy,
        weight_storage=problem.weight_storage,
        x_strides=problem.x_strides,
        y_strides=(n, c, h * problem.stride[0], w * problem.stride[1]),
        weight_layout=layout,
    )
    return Phase(forward, row.start * h + column.start * w)
