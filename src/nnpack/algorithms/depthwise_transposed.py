"""Transposed depthwise convolution with a stride, all phases at once."""

from __future__ import annotations

import math

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    Estimate,
    ceil_div,
    direct_error,
    epilogue_words,
    round_up,
)
from nnpack.codegen.target import Target
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.problem import TransposedProblem

MAX_STRIDE = 4
# All taps are unrolled, and the rows of x that one output sees stay in registers or nearby.
MAX_TAPS = 64
# Floats before and behind the row of zeros: masked lanes that fall onto a page that is not there
# take an assist.
ZEROS_MARGIN = 128


class TransposedDepthwise:
    """One channel a group; any epilogue but what follows the store."""

    name = "depthwise"

    def refusal(self, problem: TransposedProblem, target: Target) -> str | None:
        """Groups of one channel, a stride that shuffles undo, and instructions with masks."""
        (kh, kw), (top, _, left, _) = problem.kernel, problem.padding
        if problem.groups != problem.in_channels:
            return f"needs groups={problem.in_channels}, one a channel, got {problem.groups}"
        if problem.stride == (1, 1) or max(problem.stride) > MAX_STRIDE:
            return f"needs a stride of 2 to {MAX_STRIDE}, got {problem.stride}"
        if problem.dilation != (1, 1):
            return f"needs no dilation, got {problem.dilation}"
        if kh * kw > MAX_TAPS:
            return f"needs a kernel of at most {MAX_TAPS} taps, got {kh}x{kw}"
        if not target.masks:
            return f"needs instructions with masks, which {target.name} has not"
        if min(top, left) < 0 or problem.y_strides[3] != 1:
            return "needs outputs side by side, and none beyond the kernel's reach"
        return None

    def estimate(self, problem: TransposedProblem, target: Target) -> Estimate:
        """Multiply-adds and stores of every row and vector, or the traffic."""
        (kh, kw), (sh, sw) = problem.kernel, problem.stride
        batch, channels, height, width = problem.y_shape
        rows = ceil_div(height, sh) * ceil_div(ceil_div(width, sw), target.lanes)
        cycles = batch * channels * (rows * (1.2 * kh * kw + 4.0 * sh * sw + 8) + 60)
        floats = math.prod(problem.x_shape) + 2 * math.prod(problem.y_shape)
        memory = FLOAT_BYTES * floats / target.rates.memory_bandwidth
        return Estimate(max(cycles / target.clock, memory), direct_error(kh * kw))

    def build(self, problem: TransposedProblem, target: Target, threads: int) -> Plan:
        """One stage; a task is a plane."""
        from nnpack.kernels.depthwise_transposed import DepthwiseTransposed

        batch, channels, out_height, out_width = problem.y_shape
        columns = ceil_div(out_width, problem.stride[1])
        lanes = min(target.lanes, 8) if columns <= 8 else target.lanes
        kernel = DepthwiseTransposed(problem.kernel, problem.stride, lanes, problem.epilogue.kind)
        scratch = round_up(problem.width + 2 * ZEROS_MARGIN, 64)
        x_n, x_c, x_h = problem.x_strides
        words: dict[str, Argument] = {
            "x": Slot("x"),
            "weight": Slot("packed"),
            "y": Slot("y"),
            "scratch": Slot("workspace"),
            "scratch_stride": scratch,
            "zeros_margin": ZEROS_MARGIN,
            "out_channels": channels,
            "multiplier": problem.group_out_channels,
            "height": problem.height,
            "width": problem.width,
            "out_height": out_height,
            "out_width": out_width,
            "pad_top": problem.padding[0],
            "pad_left": problem.padding[2],
            "x_n": x_n,
            "x_c": x_c,
            "x_h": x_h,
            "y_n": problem.y_strides[0],
            "y_c": problem.y_strides[1],
            "y_h": problem.y_strides[2],
            **epilogue_words(problem.epilogue),
        }
        return Plan(
            algorithm=self.name,
            stages=(Stage(kernel, batch * channels, words),),
            weight_format=_weight_format(problem),
            workspace_bytes=FLOAT_BYTES * scratch * threads,
            threads=threads,
            detail=f"{problem.stride[0]}x{problem.stride[1]} phases of {lanes} columns at once",
        )


def _weight_format(problem: TransposedProblem) -> WeightFormat:
    """The weights as they are, copied some at a time."""
    from nnpack.kernels.weights import PackWeights

    width = 64
    floats = math.prod(problem.weight_shape)
    panels = ceil_div(floats, width)
    words: dict[str, Argument] = {
        **dict.fromkeys(("weight_group", "weight_channel", "weight_row", "weight_column"), 0),
        **dict.fromkeys(("weight_out", "channels", "kernel_h", "kernel_w"), 1),
        "weight": Slot("weight"),
        "group_out_channels": floats,
        "panels": panels,
        "packed": Slot("packed"),
    }
    stage = Stage(PackWeights(width, consecutive="out"), panels, words)
    return WeightFormat(("as they are",), FLOAT_BYTES * panels * width, (stage,))
