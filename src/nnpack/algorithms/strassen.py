"""Strassen's algorithm for 1x1 convolutions: seven products of halves where there were eight.

One level of it, in Winograd's form, within two by two register tiles (`kernels.strassen`).
"""

from __future__ import annotations

from nnpack.algorithms.base import Algorithm, Estimate, ceil_div, is_dense
from nnpack.algorithms.cost import packing_seconds, product_seconds, summing_seconds
from nnpack.algorithms.gemm_tiles import (
    Extents,
    TileChoice,
    alternative_tiles,
    choose_tile,
    store_cycles,
    variant_name,
)
from nnpack.codegen.target import Target
from nnpack.maths.expectation import expected_strassen_error
from nnpack.plan import Plan
from nnpack.problem import Problem

# Cycles for a vector of each of four quarters: loads, additions, and the stores of seven sums.
_SUM_CYCLES = 30.0
# Cycles a vector of outputs: copies of sums that go on, and the stack between product and store.
_KEPT_CYCLES = 4.0


class Strassen:
    """Packs sums of weights ahead and sums of pixels in each task; with ``choice``, or the best."""

    def __init__(self, choice: TileChoice | None = None) -> None:
        self._choice = choice
        self.name = "strassen" if choice is None else variant_name("strassen", choice)

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Only 1x1 kernels, of any stride, with weights in float32: their sums are no halves."""
        if problem.kernel != (1, 1):
            return f"needs a 1x1 kernel, got {problem.kernel[0]}x{problem.kernel[1]}"
        if problem.weight_storage != "float32":
            return f"needs weight_storage='float32', got {problem.weight_storage!r}"
        return None

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Where tasks store pixels that are consecutive."""
        return is_dense(problem)

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """Seven products of a quarter each, and what is done to make and to combine them."""
        depth, choice = problem.group_in_channels, self._tile(problem, target)
        steps = 7 * ceil_div(depth, 2) * choice.steps
        steps += _cycles_beside(problem, choice, target) * target.multiply_adds_per_cycle
        seconds = product_seconds(problem, target, steps, packed_share=7 / 4)
        seconds += summing_seconds(problem, target)
        if gathers(problem):
            seconds += packing_seconds(problem, target)
        relative_l2, greatest = expected_strassen_error(depth)
        return Estimate(seconds, greatest, relative_l2)

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One stage, and one that combines sums where there are statistics."""
        from nnpack.algorithms.strassen_plan import strassen_plan

        choice = self._tile(problem, target)
        return strassen_plan(self.name, problem, target, threads, choice, gathers(problem))

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """Other tiles."""
        return tuple(Strassen(choice) for choice in alternative_tiles(_halves(problem), target))

    def _tile(self, problem: Problem, target: Target) -> TileChoice:
        return self._choice or choose_tile(_halves(problem), target)


def gathers(problem: Problem) -> bool:
    """Whether pixels are packed as they are: unless planes have no gaps and an even number."""
    if problem.stride != (1, 1) or problem.padding != (0, 0, 0, 0):
        return True
    if problem.group_in_channels % 2:
        return True
    return problem.height > 1 and problem.x_strides[2] != problem.width


def _halves(problem: Problem) -> Extents:
    """Pixels and output channels of a quarter."""
    pixels = problem.out_height * problem.out_width
    return Extents(ceil_div(pixels, 2), ceil_div(problem.group_out_channels, 2))


def _cycles_beside(problem: Problem, choice: TileChoice, target: Target) -> float:
    """Cycles an image of all work besides the products."""
    pixels, channels = problem.out_height * problem.out_width, problem.group_out_channels
    tile = choice.tile
    width = tile.mr if choice.lanes == "channels" else tile.nv * target.lanes
    strips = ceil_div(pixels, 2 * width)
    depths = ceil_div(problem.group_in_channels, 2)
    sums = _SUM_CYCLES * strips * ceil_div(width, target.lanes) * depths
    kept = _KEPT_CYCLES * strips * 2 * width * channels / target.lanes
    return sums + kept + store_cycles(choice, pixels, channels, target)
