"""Weight gradients with pixels in the lanes: few output channels, or few rows of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, direct_error, round_up
from nnpack.algorithms.dot_tiles import (
    CHUNK_BYTES,
    STORE_CYCLES,
    add_cycles,
    choose_dot_tile,
    dot_rate,
    dots_refusal,
)
from nnpack.algorithms.gradient_chunks import Chunks, choose_chunks, sum_stages
from nnpack.algorithms.weight_gradient_base import (
    NO_WEIGHTS,
    masked_load_words,
    merged_activation,
    packing_cycles,
    product_arguments,
    share_rows,
    waiting_seconds,
)
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Argument, Plan, Slot, Stage

if TYPE_CHECKING:
    from nnpack.kernels.weight_gradient_direct import DotTile, WeightGradientDots

# Steps of depth a block: a panel of X takes some three quarters of the first-level cache.
BLOCKS = (1024, 640, 384, 256)
PANEL_BYTES = 24 << 10
# As in implicit GEMM.
CHUNK_BLOCKS = 2


@dataclass(frozen=True)
class _Blocking:
    """A tile, the steps of depth a block, and the chunks of blocks."""

    tile: DotTile
    block: int
    chunks: Chunks
    row_panels: int
    out_panels: int

    def sums_floats(self, groups: int, lanes: int) -> int:
        """Floats of the sums of one chunk."""
        return groups * self.row_panels * self.tile.mr * self.out_panels * self.tile.nk * lanes


class WeightGradientDirect:
    """Dot products of rows of patches and gradients as they stand."""

    name = "direct"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Large gradients, whose vectors of sums are too many."""
        return dots_refusal(problem, target)

    def merges_activation(self, problem: WeightGradientProblem, target: Target) -> bool:
        """Always, as it loads the gradient in whole vectors."""
        return True

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """The product, a pass of packing every patch, the sums of each block, and the store."""
        blocking, lanes, forward = _blocking(problem, target), target.lanes, problem.forward
        tile, blocks = blocking.tile, ceil_div(problem.depth, blocking.block)
        sums = blocking.sums_floats(1, lanes) // lanes
        # Each image and each block ends with a vector that is not whole.
        vectors = problem.depth / lanes + (blocks + forward.batch) / 2
        product = sums * vectors / dot_rate(tile, target) / target.multiply_adds
        packing = packing_cycles(problem, tile.mr, lanes) / target.clock
        each = add_cycles(FLOAT_BYTES * lanes * sums, target)
        adding = sums * (each * blocks + STORE_CYCLES) / target.clock
        seconds = forward.groups * (product + packing + adding)
        first_products = forward.groups * product / blocking.row_panels
        seconds += waiting_seconds(problem, forward.groups * packing, first_products, target)
        chain = ceil_div(min(problem.depth, blocking.block), lanes) + blocking.chunks.chain
        return Estimate(seconds, direct_error(chain + lanes.bit_length()))

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """The products into sums of chunks, the sum of these, and that of their lanes."""
        from nnpack.kernels.weight_gradient_direct import StoreDots

        blocking, forward = _blocking(problem, target), problem.forward
        chunks, groups = blocking.chunks, forward.groups
        kernel = _dots(problem, blocking)
        floats = blocking.sums_floats(groups, target.lanes)
        sums = round_up(chunks.count * floats, 64)
        scratch = round_up(kernel.scratch_floats(target.lanes), 64)
        task_panels, row_parts = share_rows(blocking.row_panels, groups * chunks.count, threads)
        words: dict[str, Argument] = product_arguments(problem) | {
            **masked_load_words(problem, 0),
            "y": Slot("y"),
            "sums": Slot("workspace"),
            "scratch": Slot("workspace", FLOAT_BYTES * sums),
            "scratch_stride": scratch,
            "depth": problem.depth,
            "chunks": chunks.count,
            "chunk_blocks": chunks.blocks,
            "row_panels": blocking.row_panels,
            "task_panels": task_panels,
            "out_panels": blocking.out_panels,
        }
        return Plan(
            algorithm=self.name,
            stages=(
                Stage(kernel, groups * chunks.count * row_parts, words),
                *sum_stages(chunks, Slot("workspace"), floats, floats),
                Stage(StoreDots(blocking.tile, problem.accumulate), forward.out_channels, words),
            ),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * (sums + threads * scratch),
            threads=threads,
            detail=(
                f"{blocking.tile.mr}x{blocking.tile.nk} tile, pixels in the lanes, "
                f"{chunks.count} chunks of {chunks.blocks} blocks of {blocking.block}"
            ),
        )


def _dots(problem: WeightGradientProblem, blocking: _Blocking) -> WeightGradientDots:
    from nnpack.kernels.weight_gradient_direct import WeightGradientDots

    stride_w = problem.forward.stride[1]
    stride = stride_w if stride_w <= MAX_SHUFFLED_STRIDE else None
    return WeightGradientDots(blocking.tile, blocking.block, stride, merged_activation(problem))


def _blocking(problem: WeightGradientProblem, target: Target) -> _Blocking:
    """Tile, block and chunks; they must not depend on the number of threads."""
    rows, outputs = problem.rows, problem.forward.group_out_channels
    tile = choose_dot_tile(rows, outputs, target)
    fitting = (block for block in BLOCKS if FLOAT_BYTES * block * tile.mr <= PANEL_BYTES)
    block = next(fitting, BLOCKS[-1])
    row_panels, out_panels = ceil_div(rows, tile.mr), ceil_div(outputs, tile.nk)
    sums = row_panels * tile.mr * out_panels * tile.nk * problem.forward.groups
    blocks, sums_bytes = ceil_div(problem.depth, block), FLOAT_BYTES * target.lanes * sums
    chunks = choose_chunks(blocks, CHUNK_BLOCKS, sums_bytes, CHUNK_BYTES)
    return _Blocking(tile, block, chunks, row_panels, out_panels)
