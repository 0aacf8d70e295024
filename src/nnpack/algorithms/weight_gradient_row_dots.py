"""Weight gradients as dot products of gradients and rows of x that are copied once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, direct_error
from nnpack.algorithms.dot_tiles import (
    STORE_CYCLES,
    add_cycles,
    choose_dot_tile,
    dot_rate,
    dots_refusal,
)
from nnpack.algorithms.row_blocks import (
    TiledSums,
    choose_row_blocks,
    known_stride,
    rows_plan,
    rows_refusal,
)
from nnpack.algorithms.weight_gradient_base import merged_activation, waiting_seconds
from nnpack.codegen.target import Target
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.plan import Plan

if TYPE_CHECKING:
    from nnpack.kernels.weight_gradient_direct import DotTile


class WeightGradientRowDots:
    """Dot products of gradients as they stand with rows of x, copied once for each tap column."""

    name = "direct_dots"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Large gradients, whose vectors of sums are too many; rows that outgrow the cache."""
        return dots_refusal(problem, target) or rows_refusal(problem, target, phased=True)

    def merges_activation(self, problem: WeightGradientProblem, target: Target) -> bool:
        """Always, as it loads the gradient in whole vectors."""
        return True

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """The products, a pass of copying rows, the sums of each block, and the store."""
        (tile, tiles), lanes, forward = _tiles(problem, target), target.lanes, problem.forward
        blocking = choose_row_blocks(problem, target, phased=True)
        sums = tiles.group_floats // lanes
        # Each image and each band ends with a vector that is not whole.
        vectors = problem.depth / lanes + forward.batch * blocking.bands / 2
        product = sums * vectors / dot_rate(tile, target) / target.multiply_adds
        copying = forward.group_in_channels * blocking.copy_cycles(problem, lanes)
        calls = blocking.blocks * tiles.row_panels * tiles.out_panels
        each = add_cycles(FLOAT_BYTES * lanes * sums, target)
        adding = sums * (each * blocking.blocks + STORE_CYCLES) + 30 * calls
        seconds = forward.groups * (product + (copying + adding) / target.clock)
        copying_seconds = forward.groups * copying / target.clock
        first_products = forward.groups * product / tiles.row_panels
        seconds += waiting_seconds(problem, copying_seconds, first_products, target)
        chunks = tiles.chunks(problem, blocking.blocks)
        chain = ceil_div(blocking.steps(forward.out_width), lanes) + chunks.chain
        return Estimate(seconds, direct_error(chain + lanes.bit_length()))

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """The products into sums of chunks, the sum of these, and that of their lanes."""
        from nnpack.kernels.weight_gradient_direct import StoreDots
        from nnpack.kernels.weight_gradient_row_dots import WeightGradientRowDots as DotsKernel

        tile, tiles = _tiles(problem, target)
        kernel = DotsKernel(tile, known_stride(problem), merged_activation(problem))
        return rows_plan(
            self.name,
            problem,
            choose_row_blocks(problem, target, phased=True),
            tiles,
            (kernel, StoreDots(tile, problem.accumulate)),
            problem.forward.out_channels,
            0,
            threads,
        )


def _tiles(problem: WeightGradientProblem, target: Target) -> tuple[DotTile, TiledSums]:
    outputs = problem.forward.group_out_channels
    tile = choose_dot_tile(problem.rows, outputs, target)
    return tile, TiledSums(
        tile.mr,
        ceil_div(problem.rows, tile.mr),
        ceil_div(outputs, tile.nk),
        tile.mr * tile.nk * target.lanes,
    )
