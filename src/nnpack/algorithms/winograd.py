"""Winograd convolution: kernels of two and more taps a phase of the stride, or dilated."""

from __future__ import annotations

import math

from nnpack.algorithms.base import FLOAT_BYTES, Algorithm, Estimate, ceil_div, round_up
from nnpack.algorithms.channel_sums import with_merged_statistics
from nnpack.algorithms.tile_plan import (
    BLOCK_SCALES,
    Blocking,
    Grid,
    choose_blocking,
    counted_steps,
    last_channels,
    tile_stages,
)
from nnpack.algorithms.winograd_plan import (
    MAX_LOADED_STEP,
    MAX_TILE,
    winograd_detail,
    winograd_estimate,
    winograd_format,
    winograd_seconds,
    winograd_storage,
    winograd_transforms,
)
from nnpack.codegen.target import Target
from nnpack.kernels.winograd_shape import TileShape
from nnpack.plan import Argument, Plan
from nnpack.problem import Problem

MAX_TAPS = 7


class WinogradAlgorithm:
    """F(m x m, r x r) with output tiles of m x m, for any square or oblong kernel.

    Strides are taken as phases that count as channels, dilations as phases that count as images.
    ``blocks`` is one of `BLOCK_SCALES`, or empty for blocks of the size that should be best.
    """

    def __init__(self, m: int, blocks: str = "") -> None:
        self.m = m
        self.name = f"winograd_{m}@{blocks}" if blocks else f"winograd_{m}"
        self._scale = BLOCK_SCALES.get(blocks, 1.0)

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """Other sizes of blocks."""
        return tuple(WinogradAlgorithm(self.m, blocks) for blocks in BLOCK_SCALES)

    def shape(self, problem: Problem, lanes: int) -> TileShape:
        """The tile: m outputs in a direction with two taps or more, one otherwise.

        Two rather than one where they are pooled.
        """
        taps = [ceil_div(problem.kernel[n], problem.stride[n]) for n in range(2)]
        strided, dilated = problem.stride != (1, 1), problem.dilation != (1, 1)
        step = problem.stride[1] * problem.dilation[1]
        m_h, m_w = (self.m if r > 1 else 1 for r in taps)
        if problem.epilogue.pool is not None:
            m_h, m_w = max(2, m_h), max(2, m_w)
        return TileShape(
            (m_h, m_w),
            (taps[0], taps[1]),
            column_step=step if step <= MAX_LOADED_STEP else None,
            strided=strided,
            separated=strided and step <= MAX_LOADED_STEP and _separates(problem, lanes),
            dilated=dilated,
            scattered=problem.y_strides[3] * problem.dilation[1] != 1,
        )

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Kernels with too few or too many taps a phase; strides together with dilations."""
        (kh, kw), stride = problem.kernel, problem.stride
        if stride != (1, 1) and problem.dilation != (1, 1):
            return f"needs stride 1 or dilation 1, got {stride} and {problem.dilation}"
        if kh < stride[0] or kw < stride[1]:
            return f"needs a kernel no smaller than the stride, got {kh}x{kw} and {stride}"
        if problem.dilation[0] > problem.out_height or problem.dilation[1] > problem.out_width:
            return f"needs a dilation no larger than the output, got {problem.dilation}"
        taps = max(ceil_div(kh, stride[0]), ceil_div(kw, stride[1]))
        if not 2 <= taps <= MAX_TAPS:
            return f"needs 2 to {MAX_TAPS} taps a phase of the stride, got {taps}"
        if self.m + taps - 1 > MAX_TILE:
            return f"has no tiles of {self.m} outputs for {taps} taps"
        return None

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Even tiles of neighbouring outputs: no dilation.

        Odd ones are not made even: 14x14 outputs take nine of 5x5, or 16 of 4x4, which costs more
        than a pass over what is in the cache. Where it does not, the planner takes the even ones.
        """
        return problem.dilation == (1, 1) and self.m % 2 == 0

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Rows of outputs side by side."""
        shape = self.shape(problem, target.lanes)
        return not (shape.dilated or shape.scattered)

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """Multiplications in the transform domain, transforms, and traffic of the weights."""
        shape, blocking = self.shape(problem, target.lanes), self._blocking(problem, target, 1)
        share = _depth_share(problem, shape, blocking, target.lanes)
        seconds = winograd_seconds(problem, shape, blocking, target, share)
        return winograd_estimate(problem, shape, blocking, target, seconds)

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One fused stage over blocks of tiles, or two when there are too few blocks."""
        shape = self.shape(problem, target.lanes)
        blocking = self._blocking(problem, target, threads)
        words = _step_arguments(problem, shape, blocking, target.lanes)
        transforms = winograd_transforms(problem, shape, blocking, words)
        stages, floats = tile_stages(problem, blocking, threads, transforms)
        plan = Plan(
            algorithm=self.name,
            stages=stages,
            weight_format=winograd_format(problem, shape, blocking, words),
            workspace_bytes=FLOAT_BYTES * floats,
            threads=threads,
            detail=winograd_detail(shape, blocking),
        )
        if not problem.epilogue.statistics:
            return plan
        pieces, size = blocking.pieces
        return with_merged_statistics(plan, problem.out_channels, pieces, size, target)

    def _blocking(self, problem: Problem, target: Target, threads: int) -> Blocking:
        shape, lanes = self.shape(problem, target.lanes), target.lanes
        phases_h, phases_w = problem.dilation
        channels, phases = problem.group_in_channels, math.prod(problem.stride)
        separated = phases * ceil_div(channels, lanes)
        grid = Grid(
            planes=shape.frequencies,
            fold=1,
            tiles_h=ceil_div(ceil_div(problem.out_height, phases_h), shape.m[0]),
            tiles_w=ceil_div(ceil_div(problem.out_width, phases_w), shape.m[1]),
            images=problem.batch * phases_h * phases_w,
            input_blocks=separated if shape.separated else ceil_div(channels * phases, lanes),
            last_channels=last_channels(channels * (1 if shape.separated else phases), lanes),
            shared_load=shape.column_phases,
            storage=winograd_storage(problem, shape, target),
        )
        return choose_blocking(grid, problem, target, threads, self._scale)


def _separates(problem: Problem, lanes: int) -> bool:
    """Whether channel blocks of single phases waste little, against blocks of mixed phases."""
    channels, phases = problem.group_in_channels, math.prod(problem.stride)
    return phases * round_up(channels, lanes) <= 1.1 * round_up(phases * channels, lanes)


def _end_depths(
    problem: Problem, shape: TileShape, blocking: Blocking, lanes: int
) -> tuple[int, int, int]:
    """Channels that count where a transformed kernel is its last tap.

    In the last row, the last column and the corner of frequencies.
    """
    (step_h, step_w), channels = problem.stride, problem.group_in_channels
    full_h, full_w = ((problem.kernel[n] - 1) % problem.stride[n] + 1 for n in range(2))
    if not shape.separated:
        row = full_h * step_w * channels
        return row, blocking.steps, row
    blocks, last = ceil_div(channels, lanes), last_channels(channels, lanes)
    corner = full_h if full_w == 1 else full_w * step_h
    row, column, both = (
        counted_steps(phases * blocks, last, lanes)
        for phases in (full_h * step_w, full_w * step_h, corner)
    )
    return row, column, both


def _depth_share(problem: Problem, shape: TileShape, blocking: Blocking, lanes: int) -> float:
    """The share of all steps that count, over all frequencies."""
    steps, (t_h, t_w) = blocking.steps, shape.t
    if not shape.strided:
        return 1.0
    row, column, corner = _end_depths(problem, shape, blocking, lanes)
    counted = (t_h - 1) * (t_w - 1) * steps + (t_w - 1) * row + (t_h - 1) * column + corner
    return counted / (t_h * t_w * steps)


def _step_arguments(
    problem: Problem, shape: TileShape, blocking: Blocking, lanes: int
) -> dict[str, Argument]:
    """Rows and columns of the image from one of a tile to the next, and what follows from them."""
    row, column, corner = _end_depths(problem, shape, blocking, lanes)
    return {
        "step_h": problem.stride[0] * problem.dilation[0],
        "step_w": problem.stride[1] * problem.dilation[1],
        "phases_h": problem.dilation[0],
        "phases_w": problem.dilation[1],
        "depth": problem.group_in_channels * math.prod(problem.stride),
        "phase_blocks": ceil_div(problem.group_in_channels, lanes),
        "steps_row": row,
        "steps_column": column,
        "steps_corner": corner,
    }
