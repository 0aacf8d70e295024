"""Winograd's algorithm for weight gradients, accumulated in the transform domain."""

from __future__ import annotations

from nnpack.algorithms.base import FLOAT_BYTES, Estimate
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
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.winograd_shape import TileShape
from nnpack.maths.expectation import expected_winograd_error, output_amplifications
from nnpack.plan import Plan

MAX_TAPS = 7
MAX_TILE = 10
MAX_LOADED_STEP = 4
# Bytes and tiles of a block's transforms, and bytes of the sums.
BLOCK_BYTES = 4 << 20
LEAST_TILES = 64
MOST_TILES = 512
SUMS_BYTES = 128 << 20
TRANSFORM_CYCLES = 14.0


class WeightGradientWinograd:
    """F(r, m): r x r taps from tiles of m x m gradients; dilations as images of their own."""

    def __init__(self, m: int) -> None:
        self.m = m
        self.name = f"winograd_{m}"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Strides, very many groups, kernels with too few or too many taps."""
        forward = problem.forward
        taps = max(forward.kernel)
        if forward.stride != (1, 1):
            return f"needs stride 1 for a weight gradient, got {forward.stride}"
        if forward.groups > MAX_GROUPS:
            return f"needs at most {MAX_GROUPS} groups for a weight gradient, got {forward.groups}"
        if not 2 <= taps <= MAX_TAPS:
            return f"needs 2 to {MAX_TAPS} taps, got {taps}"
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
        shape, tiling = self._shape(problem), self._tiling(problem)
        blocking = choose_blocking(problem, tiling, target)
        seconds = estimate_seconds(problem, tiling, blocking, target)
        down, across = (output_amplifications(r, m) for r, m in zip(shape.r, shape.m, strict=True))
        relative_l2, greatest = expected_winograd_error(down, across, blocking.chain)
        return Estimate(seconds, greatest, relative_l2)

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """Three stages a block of tiles, and one that transforms the sums back."""
        from nnpack.kernels.winograd_gradient import InverseTransform, TransformTiles

        shape, tiling = self._shape(problem), self._tiling(problem)
        blocking = choose_blocking(problem, tiling, target)
        activation = merged_activation(problem)
        kernels = Kernels(
            lambda gradient: TransformTiles(shape, gradient, activation if gradient else None),
            lambda nv: InverseTransform(shape, nv, problem.accumulate),
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
        forward = problem.forward
        m_h, m_w = (self.m if taps > 1 else 1 for taps in forward.kernel)
        step = forward.dilation[1]
        return TileShape(
            (m_h, m_w),
            forward.kernel,
            column_step=step if step <= MAX_LOADED_STEP else None,
            dilated=forward.dilation != (1, 1),
        )

    def _tiling(self, problem: WeightGradientProblem) -> Tiling:
        shape = self._shape(problem)
        return Tiling(
            planes=shape.frequencies,
            m=shape.m,
            phases=problem.forward.dilation,
            block_bytes=BLOCK_BYTES,
            least_tiles=LEAST_TILES,
            most_tiles=MOST_TILES,
            sums_bytes=SUMS_BYTES,
            cycles=TRANSFORM_CYCLES,
        )
