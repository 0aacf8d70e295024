"""Pointwise convolution: 1x1, stride 1, as a matrix product on the NCHW data itself.

Where outputs are pooled, the pixels of windows are brought together by packing, as implicit GEMM
does with patches.
"""

from __future__ import annotations

from nnpack.algorithms.base import Algorithm, Estimate, direct_error, is_dense
from nnpack.algorithms.cost import packing_seconds, product_seconds
from nnpack.algorithms.gemm_tiles import (
    TileChoice,
    alternative_tiles,
    choose_tile,
    extents_of,
    store_cycles,
    variant_name,
)
from nnpack.codegen.target import Target
from nnpack.frozen import replace
from nnpack.plan import Plan
from nnpack.problem import Problem


class Pointwise:
    """Packs nothing but the weights unless it pools; with the tile ``choice``, or the best."""

    def __init__(self, choice: TileChoice | None = None) -> None:
        self._choice = choice
        self.name = "pointwise" if choice is None else variant_name("pointwise", choice)

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Only 1x1 kernels with stride 1, no padding, and whole planes without gaps."""
        if problem.kernel != (1, 1):
            return f"needs a 1x1 kernel, got {problem.kernel[0]}x{problem.kernel[1]}"
        if problem.stride != (1, 1):
            return f"needs stride 1, got {problem.stride}"
        if problem.padding != (0, 0, 0, 0):
            return f"needs no padding, got {problem.padding}"
        if problem.height > 1 and problem.x_strides[2] != problem.width:
            return "needs the rows of x one behind the other"
        if not is_dense(problem):
            return "needs the rows of the output one behind the other"
        return None

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Always: the image is then packed, in pairs of rows."""
        return True

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Always: planes have no gaps."""
        return True

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """The product, the beginning and the storing of its tiles, and packing if it pools."""
        depth, choice = problem.group_in_channels, self._tile(problem, target)
        pixels = problem.height * problem.width
        stored = store_cycles(choice, pixels, problem.group_out_channels, target)
        steps = choice.steps * depth + stored * target.multiply_adds_per_cycle
        seconds = product_seconds(problem, target, steps)
        if problem.epilogue.pool is not None:
            seconds += packing_seconds(problem, target)
        return Estimate(seconds, direct_error(depth))

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One stage over each plane as a single row, or in pairs of rows."""
        from nnpack.algorithms.gemm_plan import gemm_plan

        choice = self._tile(problem, target)
        if problem.epilogue.pool is not None:
            return gemm_plan(self.name, problem, target, threads, choice, packed=True)
        pixels = problem.height * problem.width
        flat = replace(
            problem,
            height=1,
            width=pixels,
            x_strides=(*problem.x_strides[:2], pixels),
            y_strides=(*problem.y_strides[:2], pixels, 1),
        )
        return gemm_plan(self.name, flat, target, threads, choice, packed=False)

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """Other tiles."""
        return tuple(Pointwise(choice) for choice in alternative_tiles(extents_of(problem), target))

    def _tile(self, problem: Problem, target: Target) -> TileChoice:
        return self._choice or choose_tile(extents_of(problem), target)
