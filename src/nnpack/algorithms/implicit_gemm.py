"""Implicit GEMM: any convolution, as a product of packed weights with packed patches.

The patch matrix is never materialised: a task packs the columns of its block of pixels into the
microkernel's panels and multiplies them while they are in cache (Chetlur et al., 2014).
"""

from __future__ import annotations

from nnpack.algorithms.base import Algorithm, Estimate, direct_error, direct_relative_l2, is_dense
from nnpack.algorithms.cost import (
    gathering_seconds,
    packing_seconds,
    product_seconds,
    skipping_rows,
    tap_share,
)
from nnpack.algorithms.gemm_tiles import (
    TileChoice,
    alternative_tiles,
    choose_tile,
    extents_of,
    store_cycles,
    variant_name,
)
from nnpack.algorithms.segment_plan import (
    longest_chain,
    rectangle_share,
    takes_rectangles,
    takes_segments,
)
from nnpack.codegen.target import Target
from nnpack.plan import Plan
from nnpack.problem import Problem


class ImplicitGemm:
    """The algorithm for everything; with the tile ``choice``, or the best."""

    def __init__(self, choice: TileChoice | None = None) -> None:
        self._choice = choice
        self.name = "implicit_gemm" if choice is None else variant_name("implicit_gemm", choice)

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Never refuses."""
        return None

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Always: patches are packed in pairs of rows."""
        return True

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Where tasks store pixels that are consecutive."""
        choice = self._tile(problem, target)
        parted = takes_segments(problem, choice, target) and takes_rectangles(
            problem, choice, target
        )
        return is_dense(problem) and not parted

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """The product, the storing of its tiles, and one pass of packing over every patch."""
        depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
        choice = self._tile(problem, target)
        chain = depth
        if takes_segments(problem, choice, target):
            share = min(1.0, rectangle_share(problem, choice, target))
            chain = min(depth, longest_chain(problem))
        else:
            share = tap_share(problem, skipping_rows(problem))
        pixels = problem.out_height * problem.out_width
        stored = store_cycles(choice, pixels, problem.group_out_channels, target)
        steps = choice.steps * depth * share + stored * target.multiply_adds_per_cycle
        seconds = product_seconds(problem, target, steps) + packing_seconds(problem, target)
        seconds += gathering_seconds(problem, target)
        return Estimate(seconds, direct_error(chain), direct_relative_l2(chain))

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One stage, and one that combines sums where there are statistics."""
        from nnpack.algorithms.gemm_plan import gemm_plan
        from nnpack.algorithms.segment_plan import segment_plan

        choice = self._tile(problem, target)
        if takes_segments(problem, choice, target):
            return segment_plan(self.name, problem, target, threads, choice)
        return gemm_plan(self.name, problem, target, threads, choice, packed=True)

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """Other tiles."""
        return tuple(
            ImplicitGemm(choice) for choice in alternative_tiles(extents_of(problem), target)
        )

    def _tile(self, problem: Problem, target: Target) -> TileChoice:
        return self._choice or choose_tile(extents_of(problem), target)
