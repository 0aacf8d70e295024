"""Plans of transform-domain convolution: tiles cut into blocks, panels into chunks, and stages."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    ceil_div,
    image_arguments,
    round_up,
    store_arguments,
)
from nnpack.algorithms.cost import (
    COLD_RUNS,
    cache_bandwidth,
    memory_share,
    memory_stream,
    storing_seconds,
)
from nnpack.algorithms.gemm_tiles import relative_rate, tile_menu
from nnpack.algorithms.storage import STORAGE_BYTES, transformed_weight
from nnpack.algorithms.tile_sharing import TileCosts
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile
from nnpack.plan import Argument, Routine, Slot, Stage
from nnpack.problem import Problem, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.compiler import Specification

Pair = tuple[int, int]

# Blocks of other sizes that tuning looks at, by name.
BLOCK_SCALES: Mapping[str, float] = {"half": 0.5, "double": 2.0}

# Tiles a block for which T / 2 flops a byte of weights outrun the last-level cache, and memory.
LEAST_BLOCK_CACHED = 12
LEAST_BLOCK_STREAMED = 32
# Weights of more than this are streamed for blocks that are as large as memory wants them.
STREAMED_SHARE = 1 / 2
# What of the shorter of products and traffic of weights is not hidden behind the longer.
UNHIDDEN_SHARE = 0.25
# Cycles before the first multiply-add of a register tile, which then stores an accumulator each:
# a quarter of the product of 8 channels.
TILE_CYCLES = 20


@dataclass(frozen=True)
class Grid:
    """What there is to transform: tiles of all images, channel blocks, and their products.

    ``planes`` products of ``fold`` rows a tile and ``fold`` steps of depth a channel.
    ``input_blocks``: blocks of channels of the products, of which the last has ``last_channels``;
    ``shared_load``: as many of them are loaded together. ``storage``: what the transformed weights
    are kept as.
    """

    planes: int
    fold: int
    tiles_h: int
    tiles_w: int
    images: int
    input_blocks: int
    last_channels: int
    shared_load: int = 1
    storage: WeightStorage = "float32"

    @property
    def tiles(self) -> int:
        """Tiles of one group."""
        return self.images * self.tiles_h * self.tiles_w


def last_channels(channels: int, lanes: int) -> int:
    """The channels of the last of blocks of as many as lanes."""
    return (channels - 1) % lanes + 1


def counted_steps(blocks: int, last: int, lanes: int) -> int:
    """The depth of a product over ``blocks`` blocks of channels, of which the last has ``last``."""
    return (blocks - 1) * lanes + last


@dataclass(frozen=True)
class Blocking:
    """How tiles and panels are cut: everything in units of tiles, panels, and floats."""

    grid: Grid
    lanes: int
    tile: GemmTile
    panels: int
    block_tiles: int
    chunk_panels: int
    fused: bool

    @property
    def blocks(self) -> int:
        """Blocks of tiles, of one group."""
        return ceil_div(self.grid.tiles, self.block_tiles)

    @property
    def block_rows(self) -> int:
        """Rows of V and M a block."""
        return round_up(self.grid.fold * self.block_tiles, self.tile.mr)

    @property
    def pieces(self) -> tuple[int, int]:
        """Pieces of the outputs, and tiles of each: blocks are whole ones for any threads."""
        size = _whole_tiles(self.tile, self.grid.fold)
        return ceil_div(self.grid.tiles, size), size

    @property
    def chunks(self) -> int:
        """Chunks of panels."""
        return ceil_div(self.panels, self.chunk_panels)

    @property
    def v_f(self) -> int:
        """Floats from one plane of V to the next.

        A cache line more than needed, so that the planes of a tile do not share one cache set.
        """
        return (self.grid.fold * self.grid.input_blocks * self.block_rows + 1) * self.lanes

    @property
    def m_f(self) -> int:
        """Floats from one plane of M to the next, likewise."""
        return (self.chunk_panels * self.tile.nv * self.block_rows + 1) * self.lanes

    @property
    def v_floats(self) -> int:
        """Floats of V, for one block of tiles."""
        return round_up(self.grid.planes * self.v_f, 64)

    @property
    def m_floats(self) -> int:
        """Floats of M, for one block of tiles and chunk of panels."""
        return round_up(self.grid.planes * self.m_f, 64)

    @property
    def weight_floats(self) -> int:
        """Floats of the transformed weights of one group."""
        width = self.panels * self.tile.nv * self.lanes
        return self.grid.planes * width * self.grid.fold * self.grid.input_blocks * self.lanes

    @property
    def steps(self) -> int:
        """The depth of the products, as far as it counts."""
        grid = self.grid
        return counted_steps(grid.fold * grid.input_blocks, grid.last_channels, self.lanes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of them."""
        return STORAGE_BYTES[self.storage] * self.weight_floats

    @property
    def storage(self) -> WeightStorage:
        """What they are kept as."""
        return self.grid.storage

    @property
    def slowdown(self) -> float:
        """What products take because of the storage of the weights, to what they would take."""
        return _conversion(self.tile) if self.storage == "float16" else 1.0

    @property
    def rows(self) -> int:
        """Rows that are multiplied: those of every block up to a multiple of mr."""
        last = self.grid.tiles - (self.blocks - 1) * self.block_tiles
        return (self.blocks - 1) * self.block_rows + round_up(self.grid.fold * last, self.tile.mr)


def choose_blocking(
    grid: Grid, problem: Problem, target: Target, threads: int, scale: float = 1.0
) -> Blocking:
    """The blocking of one problem; its blocks have ``scale`` times the tiles, where that can be."""
    lanes, fold, tiles = target.lanes, grid.fold, grid.tiles
    v_bytes = FLOAT_BYTES * grid.planes * fold * fold * grid.input_blocks * lanes
    most = _most_tiles(v_bytes, target)
    tile = choose_multiply_tile(grid, problem.group_out_channels, target, most)
    panels = ceil_div(problem.group_out_channels, tile.nv * lanes)
    weight_bytes = v_bytes // fold * panels * tile.nv * lanes * problem.groups
    weight_bytes = weight_bytes * STORAGE_BYTES[grid.storage] // FLOAT_BYTES
    block = choose_block_tiles(tile, fold, tiles, v_bytes, weight_bytes, target)
    if scale != 1.0:
        step = _whole_tiles(tile, fold)
        bound = min(round_up(tiles, step), max(step, most // step * step))
        block = min(round_up(max(1, int(scale * block)), step), bound)
    costs = TileCosts(
        target=target,
        tiles=tiles,
        step=_whole_tiles(tile, fold),
        fold=fold,
        mr=tile.mr,
        units=grid.input_blocks // grid.shared_load,
        panels=panels,
        v_bytes=v_bytes,
        m_bytes=FLOAT_BYTES * grid.planes * fold * tile.nv * lanes,
        panel_bytes=weight_bytes // (problem.groups * panels),
        weight_bandwidth=weight_bandwidth(weight_bytes, target),
        product_cycles=v_bytes / (FLOAT_BYTES * fold) * tile.nv / target.multiply_adds_per_cycle,
    )
    cut = costs.cut_for(block, problem.groups, threads)
    return Blocking(grid, lanes, tile, panels, cut.block_tiles, cut.chunk_panels, cut.fused)


def _whole_tiles(tile: GemmTile, fold: int) -> int:
    """The least number of tiles, ``fold`` rows each, whose rows are a multiple of mr."""
    return tile.mr // math.gcd(tile.mr, fold)


def choose_multiply_tile(grid: Grid, channels: int, target: Target, most: int) -> GemmTile:
    """The register tile of the products: all rows by ``channels`` in the lanes.

    Of those that a block of ``most`` tiles fills, or of the lowest.
    """
    rows, halves = grid.fold * grid.tiles, grid.storage == "float16"
    options = _multiply_tiles(ceil_div(channels, target.lanes), grid.fold, target, halves)
    # Where channels are so many that none fits, the lowest: workspace is bounded before all.
    lowest = max(most, min(option[1] for option in options))
    fitting = [option for option in options if option[1] <= lowest]
    costs = []
    for n, (tile, _, area, rate) in enumerate(fitting):
        passes = -(-rows // tile.mr)
        # Among equals few passes, for only the first of them streams the weights.
        costs.append((round(passes * area / rate, 3), passes, -tile.mr * tile.nv, n))
    return fitting[min(costs)[-1]][0]


@functools.lru_cache(maxsize=1024)
def _multiply_tiles(
    vectors: int, fold: int, target: Target, halves: bool
) -> list[tuple[GemmTile, int, int, float]]:
    """All tiles: the least number of whole ones, what a pass multiplies, and its relative rate.

    Kept, for a plan asks for it a dozen times, and the next image size for the same again.
    """
    return [
        (
            tile,
            _whole_tiles(tile, fold),
            tile.mr * round_up(vectors, tile.nv),
            relative_rate(tile, target) / (_conversion(tile) if halves else 1.0),
        )
        for tile in tile_menu(target)
    ]


def _conversion(tile: GemmTile) -> float:
    """The time of a product of halves to that of floats (Zen 4, AVX-512: 1.14 for 7x32).

    A vector takes as long to convert as to multiply, which it is by all rows.
    """
    return (tile.mr + 1) / tile.mr


def choose_block_tiles(
    tile: GemmTile, fold: int, tiles: int, v_bytes: int, weight_bytes: int, target: Target
) -> int:
    """Tiles a block, ``fold`` rows each, that fill multiples of mr; V has ``v_bytes`` a tile.

    Enough that a pass over the transformed weights is paid for (T/2 flops a byte), and so few
    that V stays in half the second-level cache when that leaves enough.
    """
    fitting = target.caches.l2 // 2 // v_bytes
    least = LEAST_BLOCK_CACHED if _stay_cached(weight_bytes, target) else LEAST_BLOCK_STREAMED
    step = _whole_tiles(tile, fold)
    bound = max(1, _most_tiles(v_bytes, target) // step) * step
    most = min(round_up(min(tiles, max(fitting, least)), step), bound)
    blocks = ceil_div(tiles, most)
    return round_up(ceil_div(tiles, blocks), step)


def _most_tiles(v_bytes: int, target: Target) -> int:
    """Tiles a block that keep V and M in a quarter of the last-level cache, V in 3/16 of it.

    That bounds the workspace, whatever the batch and the image.
    """
    return max(1, _most_v_bytes(target) // v_bytes)


def _most_v_bytes(target: Target) -> int:
    return target.caches.l3 * 3 // 16


def tiles_seconds(
    blocking: Blocking,
    problem: Problem,
    target: Target,
    efficiency: float,
    tile_cycles: tuple[float, float],
    share: float = 1.0,
    unhidden: float = UNHIDDEN_SHARE,
) -> float:
    """One run on one thread: products, the traffic of their weights, and the transforms.

    ``efficiency``: what the products reach of the peak. ``tile_cycles``: the input and the
    output transform of one tile. ``share``: what of the steps counts, over all frequencies.
    ``unhidden``: what of the shorter of products and traffic counts.
    """
    share *= blocking.steps / (blocking.grid.fold * blocking.grid.input_blocks * blocking.lanes)
    steps = blocking.slowdown * blocking.rows * share * (blocking.weight_floats // blocking.lanes)
    groups = problem.groups
    product = groups * steps / (efficiency * target.multiply_adds)
    register_tiles = blocking.rows // blocking.tile.mr * blocking.panels * blocking.grid.planes
    starts = groups * register_tiles * (TILE_CYCLES + blocking.tile.mr * blocking.tile.nv)
    nbytes = groups * share * blocking.weight_bytes
    multiplied = _streamed_seconds(product, nbytes, blocking.blocks, unhidden, target)
    loading, storing = (groups * blocking.grid.tiles * n / target.clock for n in tile_cycles)
    transforms = loading + max(storing, storing_seconds(problem, target))
    return multiplied + starts / target.clock + transforms


def _streamed_seconds(
    product: float, nbytes: float, passes: int, unhidden: float, target: Target
) -> float:
    """``product`` seconds of products while ``nbytes`` of weights are read ``passes`` times.

    The mean of runs whose weights are where they stay between calls, and of those (`COLD_RUNS`)
    whose first pass finds them in memory.
    """
    again = nbytes / weight_bandwidth(nbytes, target)

    def seconds(first: float) -> float:
        stream = first + (passes - 1) * again
        return max(product, stream) + unhidden * min(product, stream)

    from_memory = nbytes / memory_stream(target)
    return (1 - COLD_RUNS) * seconds(again) + COLD_RUNS * seconds(from_memory)


def weight_bandwidth(nbytes: float, target: Target) -> float:
    """Bytes a second at which that many bytes are streamed again and again."""
    if nbytes <= target.caches.l2 // 2:
        return 1e12
    share = memory_share(nbytes, target)
    return 1 / ((1 - share) / cache_bandwidth(target) + share / memory_stream(target))


def _stay_cached(nbytes: float, target: Target) -> bool:
    return nbytes <= STREAMED_SHARE * target.caches.l3


@dataclass(frozen=True)
class Transforms:
    """The routines of both sides of tiles, and the words they have besides."""

    input: Specification
    output: Specification
    words: Mapping[str, Argument]
    strided: bool = False


def tile_stages(
    problem: Problem, blocking: Blocking, threads: int, transforms: Transforms
) -> tuple[tuple[Stage, ...], int]:
    """One fused stage over blocks of tiles, or two when there are too few; and their floats."""
    from nnpack.kernels.tile_stage import Part, TileStage

    words = {**_arguments(problem, blocking), **_routines(blocking, transforms)}
    blocks, grid = problem.groups * blocking.blocks, blocking.grid

    def kernel(part: Part) -> TileStage:
        return TileStage(part, grid.fold, problem.epilogue.kind, blocking.storage)

    v_floats, m_floats = blocking.v_floats, blocking.m_floats
    if blocking.fused:
        scratch = v_floats + m_floats
        words |= {"scratch_stride": scratch, "v": 0, "scratch": Slot("workspace")}
        return (Stage(kernel("all"), blocks, words),), threads * scratch
    shared = blocks * v_floats
    words |= {"scratch_stride": m_floats, "v": Slot("workspace")}
    words["scratch"] = Slot("workspace", FLOAT_BYTES * shared)
    stages = (
        Stage(kernel("input"), blocks * (grid.input_blocks // grid.shared_load), words),
        Stage(kernel("output"), blocks * blocking.chunks, words),
    )
    return stages, shared + threads * m_floats


# Words of strides and dilations.
STEP_WORDS = (
    *("step_h", "step_w", "phases_h", "phases_w", "depth"),
    *("phase_blocks", "steps_row", "steps_column", "steps_corner"),
)


def _routines(blocking: Blocking, transforms: Transforms) -> dict[str, Argument]:
    """The words of the routines, and their own."""
    from nnpack.kernels.tiles import TileProduct

    product = TileProduct(blocking.tile, blocking.storage, transforms.strided)
    return {
        "transform_input": Routine(transforms.input),
        "multiply": Routine(product),
        "transform_output": Routine(transforms.output),
        **dict.fromkeys(STEP_WORDS, 0),
        **transforms.words,
    }


def _arguments(problem: Problem, blocking: Blocking) -> dict[str, Argument]:
    grid = blocking.grid
    return {
        **image_arguments(problem),
        **transformed_weight(blocking.storage, "weight"),
        "groups": problem.groups,
        "channels": problem.group_in_channels,
        "channel_blocks": grid.fold * grid.input_blocks,
        "steps": blocking.steps,
        "input_units": grid.input_blocks // grid.shared_load,
        "group_out_channels": problem.group_out_channels,
        "planes": grid.planes,
        "panels": blocking.panels,
        "panel_vectors": blocking.tile.nv,
        "chunk_panels": blocking.chunk_panels,
        "tiles_h": grid.tiles_h,
        "tiles_w": grid.tiles_w,
        "tiles": grid.tiles,
        "block_tiles": blocking.block_rows,
        "stage_tiles": blocking.block_tiles,
        "v_f": blocking.v_f,
        "m_f": blocking.m_f,
        "v_block": blocking.v_floats,
        **store_arguments(problem),
    }
