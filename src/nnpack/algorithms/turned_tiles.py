"""Register tiles of weight gradients whose output channels stand in the lanes."""

from __future__ import annotations

from nnpack.algorithms.base import round_up
from nnpack.algorithms.gemm_tiles import relative_rate, tile_menu
from nnpack.codegen.target import Target
from nnpack.kernels.gemm import GemmTile


def choose_turned_tile(rows: int, vectors: int, target: Target) -> GemmTile:
    """The tile that multiplies ``rows`` rows of patches by ``vectors`` of channels soonest."""
    return min(_tiles(target), key=lambda tile: _cost(tile, rows, vectors, target))


def _tiles(target: Target) -> list[GemmTile]:
    """Tiles whose broadcasts are operands of the multiply-adds, where there are such operands.

    With registers to spare the compiler broadcasts ahead, into more than there are: 12x32 and
    13x32 ran at 65 to 72 GFLOP/s where 16x16 did 98 to 107 and 14x32 95 to 104 (Zen 4, AVX-512).
    """
    if not target.broadcast_operand:
        return list(tile_menu(target))
    full = target.registers - 2
    return [tile for tile in tile_menu(target) if tile.nv == 1 or _is_full(tile, target, full)]


def _is_full(tile: GemmTile, target: Target, registers: int) -> bool:
    return tile.nv == 2 and tile.registers(target) >= registers


def _cost(tile: GemmTile, rows: int, vectors: int, target: Target) -> tuple[float, int]:
    """What is multiplied, at the tile's rate; among equals, more accumulators."""
    area = round_up(rows, tile.mr) * round_up(vectors, tile.nv)
    return round(area / relative_rate(tile, target), 3), -tile.mr * tile.nv
