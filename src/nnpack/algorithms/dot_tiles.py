"""Register tiles of weight gradients with pixels in the lanes: rows times output channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, round_up
from nnpack.algorithms.gemm_tiles import FMA_LATENCY
from nnpack.codegen.target import Target
from nnpack.gradient_problem import WeightGradientProblem

if TYPE_CHECKING:
    from nnpack.kernels.weight_gradient_direct import DotTile

# Output channels and rows of a register tile, at most.
MOST_OUTPUTS = 5
MOST_ROWS = 14
# Beyond these bytes of sums, which are vectors, there are better ways.
CHUNK_BYTES = 4 << 20

# Cycles in which the lanes of a vector of sums are added, and stored.
STORE_CYCLES = 25.0


def add_cycles(sums_bytes: int, target: Target) -> float:
    """Cycles in which a vector of sums is added to those of the blocks before.

    From the first, the second or the last level of caches (Zen 4).
    """
    caches = target.caches
    return 2.0 if sums_bytes <= caches.l1 else 4.0 if sums_bytes <= caches.l2 // 2 else 9.0


def dots_refusal(problem: WeightGradientProblem, target: Target) -> str | None:
    """Large gradients, whose vectors of sums are too many."""
    count = problem.rows * problem.forward.out_channels
    most = CHUNK_BYTES // (FLOAT_BYTES * target.lanes)
    if count > most:
        return f"needs a gradient of at most {most} numbers, got {count}"
    return None


def choose_dot_tile(rows: int, outputs: int, target: Target) -> DotTile:
    """The tile that multiplies ``rows`` rows of patches by ``outputs`` channels soonest."""
    return min(_tiles(rows, target), key=lambda tile: _cost(tile, rows, outputs, target))


def _tiles(rows: int, target: Target) -> list[DotTile]:
    """For each number of channels the most rows that registers hold, of ``rows``."""
    from nnpack.kernels.weight_gradient_direct import DotTile

    room = target.registers - 1
    most = [min(MOST_ROWS, (room - nk) // nk) for nk in range(1, MOST_OUTPUTS + 1)]
    return [DotTile(min(mr, rows), nk) for nk, mr in enumerate(most, 1)]


def _cost(tile: DotTile, rows: int, outputs: int, target: Target) -> tuple[float, int]:
    """What is multiplied, at the tile's rate; among equals, more sums."""
    area = round_up(rows, tile.mr) * round_up(outputs, tile.nk)
    return round(area / dot_rate(tile, target), 3), -tile.mr * tile.nk


def dot_rate(tile: DotTile, target: Target) -> float:
    """The share of peak at which a tile runs: a vector of each row and channel is loaded.

    At most 0.87, for gradients come from the second-level cache, and from anywhere in it (Zen 4).
    """
    wide = max(1, target.lanes // 8)
    loads, arithmetic = (tile.mr + tile.nk) * wide / 2, tile.mr * tile.nk * wide / 2
    return arithmetic / max(arithmetic, loads + 0.04 * arithmetic, FMA_LATENCY) * 0.87
