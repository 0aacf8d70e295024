"""Weight gradients from rows of x that are copied once: few input channels, narrow outputs."""

from __future__ import annotations

from nnpack.algorithms.base import Estimate, ceil_div, direct_error
from nnpack.algorithms.gemm_tiles import relative_rate
from nnpack.algorithms.row_blocks import (
    TiledSums,
    choose_row_blocks,
    rows_plan,
    rows_refusal,
)
from nnpack.algorithms.turned_tiles import choose_turned_tile
from nnpack.algorithms.weight_gradient_base import merged_activation, waiting_seconds
from nnpack.codegen.target import Target
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.gemm import GemmTile
from nnpack.plan import Plan


class WeightGradientRows:
    """Products of turned gradients with rows of x, copied once for each column of taps."""

    name = "direct_rows"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """When not even one row of outputs sees rows that fit the second-level cache."""
        return rows_refusal(problem, target, phased=False)

    def merges_activation(self, problem: WeightGradientProblem, target: Target) -> bool:
        """Always, as it turns the gradient."""
        return True

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """The product, a pass of copying rows and turning each gradient, and the store."""
        (tile, tiles), lanes, forward = _tiles(problem, target), target.lanes, problem.forward
        blocking, vectors = (
            choose_row_blocks(problem, target, phased=False),
            tiles.out_panels * tile.nv,
        )
        steps = tiles.row_panels * tile.mr * vectors * problem.depth
        product = steps / relative_rate(tile, target)
        copying = forward.group_in_channels * blocking.copy_cycles(problem, lanes)
        turning = 5.0 * vectors * problem.depth
        storing = 0.7 * problem.rows * vectors * lanes
        calls = blocking.blocks * tiles.row_panels * tiles.out_panels
        adding = calls * (30 + 2.0 * tile.mr * tile.nv)
        cycles = forward.groups * (copying + turning + storing + adding)
        seconds = forward.groups * product / target.multiply_adds + cycles / target.clock
        copying_seconds = forward.groups * copying / target.clock
        first_products = forward.groups * product / tiles.row_panels / target.multiply_adds
        seconds += waiting_seconds(problem, copying_seconds, first_products, target)
        chunks = tiles.chunks(problem, blocking.blocks)
        return Estimate(seconds, direct_error(blocking.steps(forward.out_width) + chunks.chain))

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """The products into sums of chunks, the sum of these, and the store."""
        from nnpack.kernels.weight_gradient import StoreWeightGradient
        from nnpack.kernels.weight_gradient_rows import WeightGradientRows as RowsKernel

        (tile, tiles), forward = _tiles(problem, target), problem.forward
        blocking = choose_row_blocks(problem, target, phased=False)
        kernel = RowsKernel(tile, merged_activation(problem))
        store = StoreWeightGradient(tile, problem.accumulate)
        stores = forward.groups * ceil_div(forward.group_out_channels, target.lanes)
        panel_floats = (blocking.steps(forward.out_width) + target.lanes) * tile.nv * target.lanes
        return rows_plan(
            self.name,
            problem,
            blocking,
            tiles,
            (kernel, store),
            stores,
            panel_floats,
            threads,
        )


def _tiles(problem: WeightGradientProblem, target: Target) -> tuple[GemmTile, TiledSums]:
    vectors = ceil_div(problem.forward.group_out_channels, target.lanes)
    tile = choose_turned_tile(problem.rows, vectors, target)
    return tile, TiledSums(
        tile.mr,
        ceil_div(problem.rows, tile.mr),
        ceil_div(vectors, tile.nv),
        tile.mr * tile.nv * target.lanes,
    )
