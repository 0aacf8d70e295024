"""Winograd's algorithm for weight gradients, accumulated in the transform domain.

Strides are taken as phases that count as channels, dilations as phases that count as images.
"""

from __future__ import annotations

import math

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, round_up
from nnpack.algorithms.weight_gradient_base import NO_WEIGHTS, merged_activation
from nnpack.algorithms.weight_gradient_tiles import (
    MAX_GROUPS,
    Kernels,
    Tiling,
    choose_blocking,
    estimate_seconds,
    gradient_stages,
)
from nnpack.codegen.target import Target
from nnpack.frozen import replace
from nnpack.geometry import Pair
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.winograd_shape import TileShape
from nnpack.maths.expectation import expected_winograd_error, output_amplifications
from nnpack.plan import Plan
from nnpack.problem import Problem

MAX_TAPS = 7
MAX_TILE = 10
MAX_LOADED_STEP = 4
# What blocks of single phases of a stride may waste of their lanes.
MOST_WASTE = 1.1
# Bytes and tiles of a block's transforms, and bytes of the sums.
BLOCK_BYTES = 4 << 20
LEAST_TILES = 64
MOST_TILES = 512
SUMS_BYTES = 128 << 20
TRANSFORM_CYCLES = 14.0


class WeightGradientWinograd:
    """F(r, m): r x r taps, of a phase of the stride, from tiles of m x m gradients."""

    def __init__(self, m: int) -> None:
        self.m = m
        self.name = f"winograd_{m}"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Strides with dilations, very many groups, kernels with too few or too many taps."""
        forward = problem.forward
        (kh, kw), stride = forward.kernel, forward.stride
        taps = max(_phase_taps(forward))
        if stride != (1, 1) and forward.dilation != (1, 1):
            return f"needs stride 1 or dilation 1, got {stride} and {forward.dilation}"
        if kh < stride[0] or kw < stride[1]:
            return f"needs a kernel no smaller than the stride, got {kh}x{kw} and {stride}"
        if forward.groups > MAX_GROUPS:
            return f"needs at most {MAX_GROUPS} groups for a weight gradient, got {forward.groups}"
        if not 2 <= taps <= MAX_TAPS:
            return f"needs 2 to {MAX_TAPS} taps a phase of the stride, got {taps}"
        if self.m + taps - 1 > MAX_TILE:
            return f"has no tiles of {self.m} gradients for {taps} taps"
        if forward.dilation[0] > forward.out_height or forward.dilation[1] > forward.out_width:
            return f"needs a dilation no larger than the output, got {forward.dilation}"
        return None

    def merges_activation(self, problem: WeightGradientProblem, target: Target) -> bool:
        """Where columns of a tile are loaded a register's width at a time."""
        return problem.forward.dilation[1] <= MAX_LOADED_STEP

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """Products, transforms of both sides, and the sums read and written for every block."""
        shape, tiling = self._shape(problem), self._tiling(problem, target.lanes)
        blocking = choose_blocking(problem, tiling, target)
        seconds = estimate_seconds(problem, tiling, blocking, target)
        down, across = (output_amplifications(r, m) for r, m in zip(shape.r, shape.m, strict=True))
        relative_l2, greatest = expected_winograd_error(down, across, blocking.chain)
        return Estimate(seconds, greatest, relative_l2)

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """Three stages a block of tiles, and one that transforms the sums back."""
        from nnpack.kernels.winograd_gradient import InverseTransform, TransformTiles

        shape, tiling = self._shape(problem), self._tiling(problem, target.lanes)
        blocking = choose_blocking(problem, tiling, target)
        seen = replace(
            shape,
            column_step=_loaded(problem.forward.stride[1] * problem.forward.dilation[1]),
            strided=problem.forward.stride != (1, 1),
            separated=tiling.separated,
        )
        taps = TileShape(shape.m, shape.r, strided=seen.strided)
        activation = merged_activation(problem)
        kernels = Kernels(
            lambda gradient: (
                TransformTiles(shape, True, activation) if gradient else TransformTiles(seen, False)
            ),
            lambda nv: InverseTransform(taps, nv, problem.accumulate),
        )
        return Plan(
            algorithm=self.name,
            stages=gradient_stages(problem, tiling, blocking, kernels, threads),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * blocking.places[-1],
            threads=threads,
            detail=(
                f"F({shape.r[0]}x{shape.r[1]}, {shape.m[0]}x{shape.m[1]}), "
                f"{blocking.tile.mr}x{blocking.width} tile, "
                f"{blocking.block_tiles} tiles a block"
            ),
        )

    def _shape(self, problem: WeightGradientProblem) -> TileShape:
        """The tiles of gradients."""
        forward = problem.forward
        r_h, r_w = _phase_taps(forward)
        m_h, m_w = (self.m if taps > 1 else 1 for taps in (r_h, r_w))
        return TileShape(
            (m_h, m_w),
            (r_h, r_w),
            column_step=_loaded(forward.dilation[1]),
            dilated=forward.dilation != (1, 1),
        )

    def _tiling(self, problem: WeightGradientProblem, lanes: int) -> Tiling:
        shape, forward = self._shape(problem), problem.forward
        phases, channels = math.prod(forward.stride), forward.group_in_channels
        # Blocks of single phases, unless they waste more than blocks of mixed phases.
        wasted = phases * round_up(channels, lanes) / round_up(phases * channels, lanes)
        loaded = _loaded(forward.stride[1]) is not None
        return Tiling(
            planes=shape.frequencies,
            m=shape.m,
            phases=forward.dilation,
            block_bytes=BLOCK_BYTES,
            least_tiles=LEAST_TILES,
            most_tiles=MOST_TILES,
            sums_bytes=SUMS_BYTES,
            cycles=TRANSFORM_CYCLES,
            stride=forward.stride,
            loaded=loaded,
            separated=phases > 1 and loaded and wasted <= MOST_WASTE,
        )


def _phase_taps(forward: Problem) -> Pair:
    """Taps of a phase of the stride, down and across."""
    h, w = (ceil_div(forward.kernel[n], forward.stride[n]) for n in range(2))
    return h, w


def _loaded(step: int) -> int | None:
    """The step of columns, where those between them are loaded as well."""
    return step if step <= MAX_LOADED_STEP else None
