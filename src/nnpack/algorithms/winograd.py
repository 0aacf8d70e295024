"""Winograd convolution: stride 1, dilation 1, kernels of two and more taps a side."""

from __future__ import annotations

from dataclasses import dataclass

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    Estimate,
    ceil_div,
    round_up,
    store_arguments,
    weight_arguments,
)
from nnpack.algorithms.cost import traffic_seconds
from nnpack.codegen.target import Target
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.winograd import PackWinogradWeights, TileShape, Winograd
from nnpack.maths.accuracy import expected_error
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.problem import Problem

MAX_TAPS = 7
MAX_TILE = 12


@dataclass(frozen=True)
class Blocking:
    """How tiles and panels are cut: everything in units of tiles, panels, and floats.

    ``v_f`` and ``m_f`` are the distances between frequencies, a cache line more than they need be,
    so that the frequencies of one tile do not all fall into one cache set.
    """

    tile: GemmTile
    channel_blocks: int
    panels: int
    tiles_h: int
    tiles_w: int
    tiles: int
    block_tiles: int
    chunk_panels: int
    v_f: int
    m_f: int

    @property
    def blocks(self) -> int:
        """Blocks of tiles."""
        return ceil_div(self.tiles, self.block_tiles)


class WinogradAlgorithm:
    """F(m x m, r x r) with output tiles of m x m, for any square or oblong kernel."""

    def __init__(self, m: int) -> None:
        self.m = m
        self.name = f"winograd_{m}"

    def shape(self, problem: Problem) -> TileShape:
        """The tile: m outputs in a direction with two taps or more, one otherwise."""
        r_h, r_w = problem.kernel
        return TileShape((self.m if r_h > 1 else 1, self.m if r_w > 1 else 1), (r_h, r_w))

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Strides, dilation, kernels without or with too many taps, scattered outputs."""
        kh, kw = problem.kernel
        if problem.stride != (1, 1) or problem.dilation != (1, 1):
            return f"needs stride 1 and dilation 1, got {problem.stride} and {problem.dilation}"
        if max(kh, kw) < 2 or max(kh, kw) > MAX_TAPS:
            return f"needs a kernel of 2 to {MAX_TAPS} taps, got {kh}x{kw}"
        if max(self.shape(problem).t) > MAX_TILE:
            return f"has no tiles of {self.m} outputs for a {kh}x{kw} kernel"
        if problem.y_strides[3] != 1:
            return "needs the columns of the output one behind the other"
        return None

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """Multiplications in the transform domain, transforms, and traffic of the weights."""
        shape = self.shape(problem)
        blocking = self._blocking(problem, target, 1)
        groups, lanes = problem.groups, target.lanes
        rows = round_up(blocking.tiles, blocking.tile.mr)
        steps = rows * blocking.panels * blocking.tile.nv * blocking.channel_blocks * lanes
        product = groups * shape.frequencies * steps / (0.93 * target.multiply_adds)
        out_blocks = ceil_div(problem.group_out_channels, lanes)
        vectors = shape.frequencies * (blocking.channel_blocks + out_blocks)
        # Loading, turning, transforming twice, storing: cycles a vector, measured on Zen 4.
        transforms = groups * blocking.tiles * vectors * 8.0 / target.clock
        weights = FLOAT_BYTES * groups * shape.frequencies * blocking.panels * blocking.tile.nv
        weights *= lanes * lanes * blocking.channel_blocks
        stream = weights * blocking.blocks / _weight_bandwidth(weights, target)
        seconds = max(product, stream) + 0.2 * min(product, stream) + transforms
        error = expected_error(shape.rows, shape.columns, problem.group_in_channels)[1]
        return Estimate(max(seconds, traffic_seconds(problem, target)), error)

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One fused stage over blocks of tiles, or two when there are too few blocks."""
        shape, blocking = self.shape(problem), self._blocking(problem, target, threads)
        words = _arguments(problem, target, shape, blocking)
        blocks = problem.groups * blocking.blocks
        v_floats = round_up(shape.frequencies * blocking.v_f, 64)
        m_floats = round_up(shape.frequencies * blocking.m_f, 64)
        kind = problem.epilogue.kind
        words["v_block"] = v_floats
        if threads == 1 or blocks >= 2 * threads:
            words |= {"scratch_stride": v_floats + m_floats, "v": 0, "scratch": Slot("workspace")}
            kernel = Winograd(shape, blocking.tile, "all", kind)
            stages: tuple[Stage, ...] = (Stage(kernel, blocks, words),)
            floats = threads * (v_floats + m_floats)
        else:
            shared = blocks * v_floats
            words |= {"scratch_stride": m_floats, "v": Slot("workspace")}
            words["scratch"] = Slot("workspace", FLOAT_BYTES * shared)
            chunks = ceil_div(blocking.panels, blocking.chunk_panels)
            first = Winograd(shape, blocking.tile, "input", kind)
            second = Winograd(shape, blocking.tile, "output", kind)
            stages = (
                Stage(first, blocks * blocking.channel_blocks, words),
                Stage(second, blocks * chunks, words),
            )
            floats = shared + threads * m_floats
        tile = blocking.tile
        return Plan(
            algorithm=self.name,
            stages=stages,
            weight_format=self._weight_format(problem, target, shape, blocking),
            workspace_bytes=FLOAT_BYTES * floats,
            threads=threads,
            detail=(
                f"F({shape.m[0]}x{shape.m[1]}, {shape.r[0]}x{shape.r[1]}), "
                f"{tile.mr}x{tile.nv * target.lanes} tile, {blocking.block_tiles} tiles a block"
            ),
        )

    def _blocking(self, problem: Problem, target: Target, threads: int) -> Blocking:
        shape, lanes = self.shape(problem), target.lanes
        tiles_h = ceil_div(problem.out_height, shape.m[0])
        tiles_w = ceil_div(problem.out_width, shape.m[1])
        tiles = problem.batch * tiles_h * tiles_w
        tile = choose_multiply_tile(tiles, problem.group_out_channels, target)
        channel_blocks = ceil_div(problem.group_in_channels, lanes)
        panels = ceil_div(problem.group_out_channels, tile.nv * lanes)
        block = choose_block_tiles(shape, tile, tiles, channel_blocks, target)
        chunk = choose_chunk_panels(shape, tile, block, channel_blocks, panels, target)
        blocks = problem.groups * ceil_div(tiles, block)
        if threads > 1 and blocks < 2 * threads:
            chunk = min(chunk, max(1, ceil_div(panels * blocks, 4 * threads)))
        return Blocking(
            tile,
            channel_blocks,
            panels,
            tiles_h,
            tiles_w,
            tiles,
            block,
            chunk,
            v_f=channel_blocks * block * lanes + lanes,
            m_f=chunk * tile.nv * block * lanes + lanes,
        )

    def _weight_format(
        self, problem: Problem, target: Target, shape: TileShape, blocking: Blocking
    ) -> WeightFormat:
        lanes, nv = target.lanes, blocking.tile.nv
        words = weight_arguments(problem)
        words |= {"panels": blocking.panels, "channel_blocks": blocking.channel_blocks}
        words["packed"] = Slot("packed")
        floats = shape.frequencies * blocking.panels * nv * lanes * blocking.channel_blocks * lanes
        stage = Stage(PackWinogradWeights(shape, nv), problem.groups * blocking.panels, words)
        nbytes = FLOAT_BYTES * problem.groups * floats
        return WeightFormat(("winograd", shape, nv), nbytes, (stage,))


def choose_multiply_tile(tiles: int, channels: int, target: Target) -> GemmTile:
    """The register tile of the products: ``tiles`` rows by ``channels`` in the lanes."""
    from nnpack.algorithms.gemm_tiles import relative_rate, tile_menu

    vectors = ceil_div(channels, target.lanes)

    def cost(tile: GemmTile) -> tuple[float, int]:
        rows = round_up(tiles, tile.mr)
        columns = round_up(vectors, tile.nv)
        return round(rows * columns / relative_rate(tile, target), 3), -tile.mr * tile.nv

    return min(tile_menu(target), key=cost)


def choose_block_tiles(
    shape: TileShape, tile: GemmTile, tiles: int, channel_blocks: int, target: Target
) -> int:
    """Tiles a block, a multiple of mr.

    Enough that a pass over the transformed weights is paid for (T/2 flops a byte), and so few
    that V stays in half the second-level cache when that leaves enough.
    """
    per_tile = FLOAT_BYTES * shape.frequencies * channel_blocks * target.lanes
    fitting = target.caches.l2 // 2 // per_tile
    wanted = max(fitting, 24)
    most = round_up(min(tiles, wanted), tile.mr)
    blocks = ceil_div(tiles, most)
    return round_up(ceil_div(tiles, blocks), tile.mr)


def choose_chunk_panels(
    shape: TileShape,
    tile: GemmTile,
    block: int,
    channel_blocks: int,
    panels: int,
    target: Target,
) -> int:
    """Panels whose products stay in cache beside V until they are transformed."""
    panel_bytes = FLOAT_BYTES * shape.frequencies * tile.nv * target.lanes * block
    v_bytes = FLOAT_BYTES * shape.frequencies * channel_blocks * target.lanes * block
    room = max(target.caches.l2 - v_bytes, target.caches.l2 // 2)
    chunks = ceil_div(panels, max(1, room // panel_bytes))
    return ceil_div(panels, chunks)


def _weight_bandwidth(nbytes: int, target: Target) -> float:
    if nbytes <= target.caches.l2 // 2:
        return 1e12
    return 40e9 if nbytes <= target.caches.l3 else 14e9


def _arguments(
    problem: Problem, target: Target, shape: TileShape, blocking: Blocking
) -> dict[str, Argument]:
    n, c, h = problem.x_strides
    return {
        "x": Slot("x"),
        "x_n": n,
        "x_c": c,
        "x_h": h,
        "weight": Slot("packed"),
        "groups": problem.groups,
        "channels": problem.group_in_channels,
        "channel_blocks": blocking.channel_blocks,
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
        "block_tiles": blocking.block_tiles,
        "pad_top": problem.padding[0],
        "pad_left": problem.padding[2],
        "v_f": blocking.v_f,
        "m_f": blocking.m_f,
        **store_arguments(problem),
    }
