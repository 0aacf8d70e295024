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
from nnpack.algorithms.cost import CACHE_BANDWIDTH, MEMORY_BANDWIDTH, traffic_seconds
from nnpack.codegen.target import Target
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.tiles import CHAIN_CHANNELS
from nnpack.kernels.winograd import Winograd
from nnpack.kernels.winograd_shape import TileShape
from nnpack.kernels.winograd_weights import PackWinogradWeights
from nnpack.maths.accuracy import expected_error
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.problem import Problem

MAX_TAPS = 7
MAX_TILE = 12

# Columns further apart are gathered one by one rather than loaded with those between them.
MAX_LOADED_STEP = 4

# The share of peak that the products reach, on Zen 4 with weights from the last-level cache.
PRODUCT_EFFICIENCY = 0.88


@dataclass(frozen=True)
class Blocking:
    """How tiles and panels are cut: everything in units of tiles, panels, and floats.

    ``v_f`` and ``m_f`` are the distances between frequencies, a cache line more than they need be,
    so that the frequencies of one tile do not all fall into one cache set.
    """

    tile: GemmTile
    depth: int
    phase_blocks: int
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
    """F(m x m, r x r) with output tiles of m x m, for any square or oblong kernel.

    Strides are taken as phases that count as channels, dilations as phases that count as images.
    """

    def __init__(self, m: int) -> None:
        self.m = m
        self.name = f"winograd_{m}"

    def shape(self, problem: Problem, lanes: int) -> TileShape:
        """The tile: m outputs in a direction with two taps or more, one otherwise."""
        taps = [ceil_div(problem.kernel[n], problem.stride[n]) for n in range(2)]
        strided, dilated = problem.stride != (1, 1), problem.dilation != (1, 1)
        step = problem.stride[1] * problem.dilation[1]
        m_h, m_w = (self.m if r > 1 else 1 for r in taps)
        return TileShape(
            (m_h, m_w),
            (taps[0], taps[1]),
            column_step=step if step <= MAX_LOADED_STEP else None,
            strided=strided,
            separated=strided and step <= MAX_LOADED_STEP and _separates(problem, lanes),
            dilated=dilated,
            scattered=problem.y_strides[3] * problem.dilation[1] != 1,
        )

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Kernels with too few or too many taps a phase; strides together with dilations."""
        (kh, kw), stride = problem.kernel, problem.stride
        if stride != (1, 1) and problem.dilation != (1, 1):
            return f"needs stride 1 or dilation 1, got {stride} and {problem.dilation}"
        if kh < stride[0] or kw < stride[1]:
            return f"needs a kernel no smaller than the stride, got {kh}x{kw} and {stride}"
        taps = max(self.shape(problem, target.lanes).r)
        if not 2 <= taps <= MAX_TAPS:
            return f"needs 2 to {MAX_TAPS} taps a phase of the stride, got {taps}"
        if max(self.shape(problem, target.lanes).t) > MAX_TILE:
            return f"has no tiles of {self.m} outputs for {taps} taps"
        return None

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """Multiplications in the transform domain, transforms, and traffic of the weights."""
        shape, blocking = self.shape(problem, target.lanes), self._blocking(problem, target, 1)
        lanes, images = target.lanes, problem.groups
        rows = sum(
            round_up(min(blocking.block_tiles, blocking.tiles - start), blocking.tile.mr)
            for start in range(0, blocking.tiles, blocking.block_tiles)
        )
        columns = blocking.panels * blocking.tile.nv
        steps = shape.frequencies * rows * columns * blocking.channel_blocks * lanes
        product = images * steps / (PRODUCT_EFFICIENCY * target.multiply_adds)
        floats = images * shape.frequencies * columns * lanes * blocking.channel_blocks * lanes
        stream = FLOAT_BYTES * floats * blocking.blocks / weight_bandwidth(floats, target)
        transforms = images * blocking.tiles * self._transform_cycles(problem, target, blocking)
        seconds = max(product, stream) + 0.2 * min(product, stream) + transforms / target.clock
        chain = min(blocking.depth, CHAIN_CHANNELS) + blocking.depth // CHAIN_CHANNELS
        relative_l2, error = expected_error(shape.rows, shape.columns, chain)
        return Estimate(max(seconds, traffic_seconds(problem, target)), error, relative_l2)

    def _transform_cycles(self, problem: Problem, target: Target, blocking: Blocking) -> float:
        """Cycles a tile: loading, turning, transforming twice and storing, a vector at a time.

        Measured on Zen 4: 12 cycles a vector while V and M stay in the second-level cache, 25
        beyond; loads that skip columns cost more.
        """
        shape = self.shape(problem, target.lanes)
        held = FLOAT_BYTES * shape.frequencies * (blocking.v_f + blocking.m_f)
        cycles = 12.0 if held <= 1.25 * target.caches.l2 else 25.0
        loads = {1: 0.0, 2: 4.0, None: 40.0}.get(shape.column_step, 12.0)
        scatter = 12.0 if shape.scattered else 0.0
        out_blocks = ceil_div(problem.group_out_channels, target.lanes)
        vectors_in = shape.frequencies * blocking.channel_blocks
        return vectors_in * (cycles + loads) + shape.frequencies * out_blocks * (cycles + scatter)

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One fused stage over blocks of tiles, or two when there are too few blocks."""
        shape, blocking = self.shape(problem, target.lanes), self._blocking(problem, target, threads)
        words = _arguments(problem, blocking, shape.separated, target.lanes)
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
                Stage(first, blocks * blocking.channel_blocks // shape.column_phases, words),
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
        shape, lanes = self.shape(problem, target.lanes), target.lanes
        phases_h, phases_w = problem.dilation
        tiles_h = ceil_div(ceil_div(problem.out_height, phases_h), shape.m[0])
        tiles_w = ceil_div(ceil_div(problem.out_width, phases_w), shape.m[1])
        tiles = problem.batch * phases_h * phases_w * tiles_h * tiles_w
        tile = choose_multiply_tile(tiles, problem.group_out_channels, target)
        phases = problem.stride[0] * problem.stride[1]
        depth = problem.group_in_channels * phases
        phase_blocks = ceil_div(problem.group_in_channels, lanes)
        channel_blocks = phases * phase_blocks if shape.separated else ceil_div(depth, lanes)
        panels = ceil_div(problem.group_out_channels, tile.nv * lanes)
        block = choose_block_tiles(shape, tile, tiles, channel_blocks, target)
        chunk = choose_chunk_panels(shape, tile, block, channel_blocks, panels, target)
        blocks = problem.groups * ceil_div(tiles, block)
        if threads > 1 and blocks < 2 * threads:
            chunk = min(chunk, max(1, ceil_div(panels * blocks, 4 * threads)))
        return Blocking(
            tile,
            depth,
            phase_blocks,
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
        words |= {
            "panels": blocking.panels,
            "channel_blocks": blocking.channel_blocks,
            "phase_blocks": blocking.phase_blocks,
        }
        words |= _steps(problem) | {"packed": Slot("packed")}
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


def weight_bandwidth(floats: float, target: Target) -> float:
    """Bytes a second at which that many floats are streamed again and again."""
    nbytes = FLOAT_BYTES * floats
    if nbytes <= target.caches.l2 // 2:
        return 1e12
    return CACHE_BANDWIDTH if nbytes <= target.caches.l3 else MEMORY_BANDWIDTH


def _steps(problem: Problem) -> dict[str, Argument]:
    """Rows and columns of the image from one of a tile to the next."""
    return {
        "step_h": problem.stride[0] * problem.dilation[0],
        "step_w": problem.stride[1] * problem.dilation[1],
    }


def _separates(problem: Problem, lanes: int) -> bool:
    """Whether channel blocks of single phases waste little, against blocks of mixed phases."""
    channels, phases = problem.group_in_channels, problem.stride[0] * problem.stride[1]
    return phases * round_up(channels, lanes) <= 1.1 * round_up(phases * channels, lanes)


def _depths(problem: Problem, blocking: Blocking, separated: bool, lanes: int) -> dict[str, Argument]:
    """Channel blocks that count where a transformed kernel is its last tap: in the last row, the
    last column, and the corner of frequencies."""
    full = [(problem.kernel[n] - 1) % problem.stride[n] + 1 for n in range(2)]
    step_h, step_w = problem.stride
    if separated:
        row, column = full[0] * step_w, full[1] * step_h
        corner = full[0] if full[1] == 1 else column
        blocks = [n * blocking.phase_blocks for n in (row, column, corner)]
    else:
        row = ceil_div(full[0] * step_w * problem.group_in_channels, lanes)
        blocks = [row, blocking.channel_blocks, row]
    names = ("blocks_row", "blocks_column", "blocks_corner")
    return dict(zip(names, blocks, strict=True))


def _arguments(
    problem: Problem, blocking: Blocking, separated: bool, lanes: int
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
        "depth": blocking.depth,
        "channel_blocks": blocking.channel_blocks,
        "phase_blocks": blocking.phase_blocks,
        **_steps(problem),
        **_depths(problem, blocking, separated, lanes),
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
