"""Weight gradients by Fourier tiles, summed in the transform domain: large kernels above all."""

from __future__ import annotations

from typing import Literal

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
from nnpack.kernels.fourier_shape import FourierShape
from nnpack.maths.expectation import expected_fourier_error
from nnpack.maths.form import Form
from nnpack.plan import Plan

# Bytes and tiles of a block's transforms, and bytes of the sums: together they fill the last-level
# cache. On Zen 4 twice or half of any of them changes the time by less than 10 %.
BLOCK_BYTES = 8 << 20
LEAST_TILES = 32
MOST_TILES = 512
SUMS_BYTES = 32 << 20
# Cycles a vector of V or H takes, fitted to 16 layers on Zen 4: estimates are within 1.4.
TRANSFORM_CYCLES = {8: 13.0, 16: 17.0}


class WeightGradientFourier:
    """Tiles of n x n inputs and n - r + 1 gradients either way; complex products by 3 real ones.

    Three rather than four, for here no weights are streamed: it is arithmetic that counts.
    """

    def __init__(self, n: Literal[8, 16]) -> None:
        self.n = n
        self.name = f"fourier_{n}"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Strides, dilation, very many groups, kernels of one tap or larger than the tile."""
        forward = problem.forward
        if forward.stride != (1, 1) or forward.dilation != (1, 1):
            return f"needs stride 1 and dilation 1, got {forward.stride} and {forward.dilation}"
        if forward.groups > MAX_GROUPS:
            return f"needs at most {MAX_GROUPS} groups for a weight gradient, got {forward.groups}"
        if not 2 <= max(forward.kernel) <= self.n:
            kh, kw = forward.kernel
            return f"needs a kernel of 2 to {self.n} taps, got {kh}x{kw}"
        return None

    def merges_activation(self, problem: WeightGradientProblem, target: Target) -> bool:
        """Always, as it transforms the gradient."""
        return True

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """Products, transforms of both sides, and the sums read and written for every block."""
        tiling = self._tiling(problem)
        blocking = choose_blocking(problem, tiling, target)
        seconds = estimate_seconds(problem, tiling, blocking, target)
        relative_l2, greatest = expected_fourier_error(self.n, blocking.chain)
        return Estimate(seconds, greatest, relative_l2)

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """Three stages a block of tiles, and one that transforms the sums back."""
        from nnpack.kernels.fourier_gradient import InverseFourierTransform, TransformFourierTiles

        shape, tiling = self._shape(problem), self._tiling(problem)
        blocking = choose_blocking(problem, tiling, target)
        activation = merged_activation(problem)
        kernels = Kernels(
            lambda gradient: TransformFourierTiles(
                shape, gradient, activation if gradient else None
            ),
            lambda nv: InverseFourierTransform(shape, nv, problem.accumulate),
        )
        return Plan(
            algorithm=self.name,
            stages=gradient_stages(problem, tiling, blocking, kernels, threads),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * blocking.places[-1],
            threads=threads,
            detail=(
                f"{self.n}x{self.n} for {shape.m[0]}x{shape.m[1]} gradients, "
                f"{blocking.tile.mr}x{blocking.width} tile, "
                f"{blocking.block_tiles} tiles a block"
            ),
        )

    def _shape(self, problem: WeightGradientProblem) -> FourierShape:
        return FourierShape(Form(self.n, 3), problem.forward.kernel)

    def _tiling(self, problem: WeightGradientProblem) -> Tiling:
        shape = self._shape(problem)
        return Tiling(
            planes=shape.form.planes,
            m=shape.m,
            phases=(1, 1),
            block_bytes=BLOCK_BYTES,
            least_tiles=LEAST_TILES,
            most_tiles=MOST_TILES,
            sums_bytes=SUMS_BYTES,
            cycles=TRANSFORM_CYCLES[self.n],
        )
