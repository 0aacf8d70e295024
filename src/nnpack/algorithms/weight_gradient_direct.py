"""Weight gradients with pixels in the lanes: few output channels, or few rows of patches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, direct_error, round_up
from nnpack.algorithms.gemm_tiles import FMA_LATENCY
from nnpack.algorithms.gradient_chunks import Chunks, choose_chunks, sum_stages
from nnpack.algorithms.weight_gradient_base import (
    NO_WEIGHTS,
    masked_load_words,
    merged_activation,
    packing_cycles,
    product_arguments,
    share_rows,
)
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Argument, Plan, Slot, Stage

if TYPE_CHECKING:
    from nnpack.kernels.weight_gradient_direct import DotTile, WeightGradientDots

# Output channels and rows of a register tile, at most.
MOST_OUTPUTS = 5
MOST_ROWS = 14
# Steps of depth a block: a panel of X takes some three quarters of the first-level cache.
BLOCKS = (1024, 640, 384, 256)
PANEL_BYTES = 24 << 10
# As in implicit GEMM; beyond the bytes of the sums, which are vectors, there are better ways.
CHUNK_BLOCKS = 2
CHUNK_BYTES = 4 << 20
# Cycles in which a vector of sums is added to those of the blocks before, and its lanes are.
ADD_CYCLES = 2.0
STORE_CYCLES = 25.0


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
        count = problem.rows * problem.forward.out_channels
        most = CHUNK_BYTES // (FLOAT_BYTES * target.lanes)
        if count > most:
            return f"needs a gradient of at most {most} numbers, got {count}"
        return None

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
        product = sums * vectors / _relative_rate(tile, target) / target.multiply_adds
        packing = packing_cycles(problem, tile.mr, lanes) / target.clock
        adding = sums * (ADD_CYCLES * blocks + STORE_CYCLES) / target.clock
        seconds = forward.groups * (product + packing + adding)
        first_products = forward.groups * product / blocking.row_panels
        seconds += _waiting(problem, forward.groups * packing, first_products, target)
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


def _waiting(
    problem: WeightGradientProblem, packing: float, first_products: float, target: Target
) -> float:
    """Seconds that memory takes beyond what reads it: packing x, and the first rows' products.

    Whatever the size: between a forward and a backward pass there is much else in the caches.
    """
    forward, bandwidth = problem.forward, target.rates.memory_bandwidth
    x_bytes = FLOAT_BYTES * math.prod(forward.x_shape)
    grad_bytes = FLOAT_BYTES * math.prod(forward.y_shape)
    # Gradients are asked for a block ahead, which hides half of the rest (Zen 4).
    waiting = max(0.0, grad_bytes / bandwidth - first_products) / 2
    return max(0.0, x_bytes / bandwidth - packing) + waiting


def _dots(problem: WeightGradientProblem, blocking: _Blocking) -> WeightGradientDots:
    from nnpack.kernels.weight_gradient_direct import WeightGradientDots

    stride_w = problem.forward.stride[1]
    stride = stride_w if stride_w <= MAX_SHUFFLED_STRIDE else None
    return WeightGradientDots(blocking.tile, blocking.block, stride, merged_activation(problem))


def _blocking(problem: WeightGradientProblem, target: Target) -> _Blocking:
    """Tile, block and chunks; they must not depend on the number of threads."""
    rows, outputs = problem.rows, problem.forward.group_out_channels
    tile = min(_tiles(target), key=lambda tile: _cost(tile, rows, outputs, target))
    fitting = (block for block in BLOCKS if FLOAT_BYTES * block * tile.mr <= PANEL_BYTES)
    block = next(fitting, BLOCKS[-1])
    row_panels, out_panels = ceil_div(rows, tile.mr), ceil_div(outputs, tile.nk)
    sums = row_panels * tile.mr * out_panels * tile.nk * problem.forward.groups
    blocks, sums_bytes = ceil_div(problem.depth, block), FLOAT_BYTES * target.lanes * sums
    chunks = choose_chunks(blocks, CHUNK_BLOCKS, sums_bytes, CHUNK_BYTES)
    return _Blocking(tile, block, chunks, row_panels, out_panels)


def _tiles(target: Target) -> list[DotTile]:
    """For each number of channels the most rows that registers hold."""
    from nnpack.kernels.weight_gradient_direct import DotTile

    room = target.registers - 1
    return [DotTile(min(MOST_ROWS, (room - nk) // nk), nk) for nk in range(1, MOST_OUTPUTS + 1)]


def _cost(tile: DotTile, rows: int, outputs: int, target: Target) -> tuple[float, int]:
    """What is multiplied, at the tile's rate; among equals, more sums."""
    area = round_up(rows, tile.mr) * round_up(outputs, tile.nk)
    return round(area / _relative_rate(tile, target), 3), -tile.mr * tile.nk


def _relative_rate(tile: DotTile, target: Target) -> float:
    """The share of peak at which a tile runs: a vector of each row and channel is loaded."""
    wide = max(1, target.lanes // 8)
    loads, arithmetic = (tile.mr + tile.nk) * wide / 2, tile.mr * tile.nk * wide / 2
    return arithmetic / max(arithmetic, loads + 0.04 * arithmetic, FMA_LATENCY) * 0.96
