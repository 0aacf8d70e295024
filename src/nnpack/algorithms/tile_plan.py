"""Plans of transform-domain convolution: tiles cut into blocks, panels into chunks, and stages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    ceil_div,
    round_up,
    store_arguments,
)
from nnpack.algorithms.cost import CACHE_BANDWIDTH, MEMORY_BANDWIDTH
from nnpack.algorithms.gemm_tiles import relative_rate, tile_menu
from nnpack.codegen.target import Target
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.stage import Kernel
from nnpack.kernels.tile_stage import Part
from nnpack.plan import Argument, Slot, Stage
from nnpack.problem import Problem

Pair = tuple[int, int]

# Multiplications a float of transformed weights that outrun the last-level cache.
LEAST_BLOCK = 12


@dataclass(frozen=True)
class Blocking:
    """How tiles and panels are cut: everything in units of tiles, panels, and floats.

    The products of a plane have ``fold`` rows a tile and ``fold`` steps of depth a channel.
    """

    planes: int
    fold: int
    lanes: int
    tile: GemmTile
    input_blocks: int
    panels: int
    tiles_h: int
    tiles_w: int
    tiles: int
    block_tiles: int
    chunk_panels: int

    @property
    def blocks(self) -> int:
        """Blocks of tiles, of one group."""
        return ceil_div(self.tiles, self.block_tiles)

    @property
    def block_rows(self) -> int:
        """Rows of V and M a block."""
        return round_up(self.fold * self.block_tiles, self.tile.mr)

    @property
    def chunks(self) -> int:
        """Chunks of panels."""
        return ceil_div(self.panels, self.chunk_panels)

    @property
    def v_f(self) -> int:
        """Floats from one plane of V to the next.

        A cache line more than needed, so that the planes of a tile do not share one cache set.
        """
        return (self.fold * self.input_blocks * self.block_rows + 1) * self.lanes

    @property
    def m_f(self) -> int:
        """Floats from one plane of M to the next, likewise."""
        return (self.chunk_panels * self.tile.nv * self.block_rows + 1) * self.lanes

    @property
    def v_floats(self) -> int:
        """Floats of V, for one block of tiles."""
        return round_up(self.planes * self.v_f, 64)

    @property
    def m_floats(self) -> int:
        """Floats of M, for one block of tiles and chunk of panels."""
        return round_up(self.planes * self.m_f, 64)

    @property
    def weight_floats(self) -> int:
        """Floats of the transformed weights of one group."""
        width = self.panels * self.tile.nv * self.lanes
        return self.planes * width * self.fold * self.input_blocks * self.lanes

    @property
    def rows(self) -> int:
        """Rows that are multiplied: those of every block up to a multiple of mr."""
        last = self.tiles - (self.blocks - 1) * self.block_tiles
        return (self.blocks - 1) * self.block_rows + round_up(self.fold * last, self.tile.mr)


def choose_blocking(
    planes: int, fold: int, m: Pair, problem: Problem, target: Target, threads: int
) -> Blocking:
    """The blocking of ``problem`` in tiles of m outputs, ``planes`` products of ``fold`` rows."""
    lanes = target.lanes
    tiles_h, tiles_w = ceil_div(problem.out_height, m[0]), ceil_div(problem.out_width, m[1])
    tiles = problem.batch * tiles_h * tiles_w
    tile = choose_multiply_tile(fold * tiles, problem.group_out_channels, target)
    input_blocks = ceil_div(problem.group_in_channels, lanes)
    panels = ceil_div(problem.group_out_channels, tile.nv * lanes)
    v_bytes = FLOAT_BYTES * planes * fold * fold * input_blocks * lanes
    block = choose_block_tiles(tile, fold, tiles, v_bytes, target)
    m_bytes = FLOAT_BYTES * planes * fold * tile.nv * lanes
    chunk = _chunk_panels(block * v_bytes, block * m_bytes, panels, target)
    blocks = problem.groups * ceil_div(tiles, block)
    if threads > 1 and blocks < 2 * threads:
        chunk = min(chunk, max(1, ceil_div(panels * blocks, 4 * threads)))
    return Blocking(
        planes, fold, lanes, tile, input_blocks, panels, tiles_h, tiles_w, tiles, block, chunk
    )


def choose_multiply_tile(tiles: int, channels: int, target: Target) -> GemmTile:
    """The register tile of the products: ``tiles`` rows by ``channels`` in the lanes."""
    vectors = ceil_div(channels, target.lanes)

    def cost(tile: GemmTile) -> tuple[float, int]:
        rows = round_up(tiles, tile.mr)
        columns = round_up(vectors, tile.nv)
        return round(rows * columns / relative_rate(tile, target), 3), -tile.mr * tile.nv

    return min(tile_menu(target), key=cost)


def choose_block_tiles(
    tile: GemmTile, fold: int, tiles: int, tile_bytes: int, target: Target
) -> int:
    """Tiles a block, ``fold`` rows each, that fill multiples of mr; V has ``tile_bytes`` a tile.

    Enough that a pass over the transformed weights is paid for (T/2 flops a byte), and so few
    that V stays in half the second-level cache when that leaves enough.
    """
    fitting = target.caches.l2 // 2 // tile_bytes
    step = tile.mr // math.gcd(tile.mr, fold)
    most = round_up(min(tiles, max(fitting, LEAST_BLOCK)), step)
    blocks = ceil_div(tiles, most)
    return round_up(ceil_div(tiles, blocks), step)


def _chunk_panels(v_bytes: int, panel_bytes: int, panels: int, target: Target) -> int:
    """Panels whose products stay in cache beside V until they are transformed."""
    room = max(target.caches.l2 - v_bytes, target.caches.l2 // 2)
    chunks = ceil_div(panels, max(1, room // panel_bytes))
    return ceil_div(panels, chunks)


def weight_bandwidth(floats: float, target: Target) -> float:
    """Bytes a second at which that many floats are streamed again and again."""
    nbytes = FLOAT_BYTES * floats
    if nbytes <= target.caches.l2 // 2:
        return 1e12
    return CACHE_BANDWIDTH if nbytes <= target.caches.l3 else MEMORY_BANDWIDTH


def tile_stages(
    problem: Problem, blocking: Blocking, threads: int, kernel: Callable[[Part], Kernel]
) -> tuple[tuple[Stage, ...], int]:
    """One fused stage over blocks of tiles, or two when there are too few; and their floats."""
    words = _arguments(problem, blocking)
    blocks = problem.groups * blocking.blocks
    v_floats, m_floats = blocking.v_floats, blocking.m_floats
    if threads == 1 or blocks >= 2 * threads:
        scratch = v_floats + m_floats
        words |= {"scratch_stride": scratch, "v": 0, "scratch": Slot("workspace")}
        return (Stage(kernel("all"), blocks, words),), threads * scratch
    shared = blocks * v_floats
    words |= {"scratch_stride": m_floats, "v": Slot("workspace")}
    words["scratch"] = Slot("workspace", FLOAT_BYTES * shared)
    stages = (
        Stage(kernel("input"), blocks * blocking.input_blocks, words),
        Stage(kernel("output"), blocks * blocking.chunks, words),
    )
    return stages, shared + threads * m_floats


def _arguments(problem: Problem, blocking: Blocking) -> dict[str, Argument]:
    n, c, h = problem.x_strides
    return {
        "x": Slot("x"),
        "x_n": n,
        "x_c": c,
        "x_h": h,
        "weight": Slot("packed"),
        "groups": problem.groups,
        "channels": problem.group_in_channels,
        "channel_blocks": blocking.fold * blocking.input_blocks,
        "input_blocks": blocking.input_blocks,
        "group_out_channels": problem.group_out_channels,
        "panels": blocking.panels,
        "chunk_panels": blocking.chunk_panels,
        "height": problem.height,
        "width": problem.width,
        "out_height": problem.out_height,
        "out_width": problem.out_width,
        "tiles_h": blocking.tiles_h,
        "tiles_w": blocking.tiles_w,
        "tiles": blocking.tiles,
        "block_tiles": blocking.block_rows,
        "stage_tiles": blocking.block_tiles,
        "pad_top": problem.padding[0],
        "pad_left": problem.padding[2],
        "v_f": blocking.v_f,
        "m_f": blocking.m_f,
        "v_block": blocking.v_floats,
        **store_arguments(problem),
    }
