"""Winograd's algorithm for weight gradients, accumulated in the transform domain."""

from __future__ import annotations

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, round_up
from nnpack.algorithms.cost import cache_bandwidth
from nnpack.algorithms.gemm_tiles import relative_rate
from nnpack.algorithms.weight_gradient_base import NO_WEIGHTS
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.winograd_shape import TileShape
from nnpack.maths.expectation import expected_winograd_error, output_amplifications
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.problem import dense_strides

MAX_TAPS = 7
MAX_TILE = 10
MAX_LOADED_STEP = 4
# Bytes of a block's transforms, and bounds of its tiles: enough that reading and writing the sums
# once a block costs little, and so few that the transforms stay in cache.
BLOCK_BYTES = 4 << 20
LEAST_TILES = 64
MOST_TILES = 512
TASKS_PER_THREAD = 4
# Each group has stages of its own; those with few channels waste most of their lanes anyway.
MAX_GROUPS = 16


@dataclass(frozen=True)
class _Blocking:
    """Tiles of all images, cut into blocks; channels, cut into blocks and panels."""

    tile: GemmTile
    tiles_h: int
    tiles_w: int
    tiles: int
    block_tiles: int
    channel_blocks: int
    panels: int
    lanes: int
    frequencies: int

    @property
    def blocks(self) -> int:
        """Blocks of tiles."""
        return ceil_div(self.tiles, self.block_tiles)

    @property
    def v_f(self) -> int:
        """Floats of V from one frequency to the next; a cache line more than needed."""
        return (self.channel_blocks * self.block_tiles + 1) * self.lanes

    @property
    def h_f(self) -> int:
        """The same for H."""
        return (self.panels * self.tile.nv * self.block_tiles + 1) * self.lanes

    @property
    def s_f(self) -> int:
        """The same for S."""
        panels = self.channel_blocks * self.panels
        return panels * self.lanes * self.tile.nv * self.lanes + self.lanes


class WeightGradientWinograd:
    """F(r, m): r x r taps from tiles of m x m gradients; dilations as images of their own."""

    def __init__(self, m: int) -> None:
        self.m = m
        self.name = f"winograd_{m}"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Strides, very many groups, kernels with too few or too many taps."""
        forward = problem.forward
        taps = max(forward.kernel)
        if forward.stride != (1, 1):
            return f"needs stride 1 for a weight gradient, got {forward.stride}"
        if forward.groups > MAX_GROUPS:
            return f"needs at most {MAX_GROUPS} groups for a weight gradient, got {forward.groups}"
        if not 2 <= taps <= MAX_TAPS:
            return f"needs 2 to {MAX_TAPS} taps, got {taps}"
        if self.m + taps - 1 > MAX_TILE:
            return f"has no tiles of {self.m} gradients for {taps} taps"
        if forward.dilation[0] > forward.out_height or forward.dilation[1] > forward.out_width:
            return f"needs a dilation no larger than the output, got {forward.dilation}"
        return None

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """Products, transforms of both sides, and the sums read and written for every block."""
        shape, blocking = self._shape(problem), self._blocking(problem, target)
        vectors = blocking.panels * blocking.tile.nv
        rows = blocking.channel_blocks * target.lanes
        steps = shape.frequencies * blocking.tiles * rows * vectors
        product = steps / relative_rate(blocking.tile, target) / target.multiply_adds
        passes = shape.frequencies * blocking.tiles * (blocking.channel_blocks + vectors)
        transforms = 14.0 * passes / target.clock
        sums_bytes = FLOAT_BYTES * shape.frequencies * blocking.s_f
        in_cache = sums_bytes <= target.caches.l3 // 2
        rate = cache_bandwidth(target) if in_cache else target.rates.memory_bandwidth
        traffic = 2 * blocking.blocks * sums_bytes / rate
        seconds = max(product, traffic) + 0.3 * min(product, traffic) + transforms
        # The last stage transforms 16 kernels at a time and scatters them.
        seconds += 4.0 * shape.frequencies * rows * vectors / target.clock
        seconds *= problem.forward.groups
        down, across = (output_amplifications(r, m) for r, m in zip(shape.r, shape.m, strict=True))
        chain = min(blocking.tiles, blocking.block_tiles) + blocking.blocks
        relative_l2, greatest = expected_winograd_error(down, across, chain)
        return Estimate(seconds, greatest, relative_l2)

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """Three stages a block of tiles, and one that transforms the sums back; for each group."""
        shape, blocking = self._shape(problem), self._blocking(problem, target)
        floats = [round_up(shape.frequencies * step, 64) for step in _plane_floats(blocking)]
        places = [FLOAT_BYTES * sum(floats[:n]) for n in range(3)]
        v, h, sums = (Slot("workspace", place) for place in places)
        words: dict[str, Argument] = {
            "h": h,
            "sums": sums,
            "v_f": blocking.v_f,
            "h_f": blocking.h_f,
            "s_f": blocking.s_f,
            "block_tiles": blocking.block_tiles,
            "channel_blocks": blocking.channel_blocks,
            "panels": blocking.panels,
        }
        stages: list[Stage] = []
        for group in range(problem.forward.groups):
            for start in range(0, blocking.tiles, blocking.block_tiles):
                block_words = words | {"v": v}
                stages += _block_stages(
                    problem, shape, blocking, block_words, group, start, threads
                )
            stages.append(_inverse_stage(problem, shape, blocking, words, group))
        return Plan(
            algorithm=self.name,
            stages=tuple(stages),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * sum(floats),
            threads=threads,
            detail=(
                f"F({shape.r[0]}x{shape.r[1]}, {shape.m[0]}x{shape.m[1]}), "
                f"{blocking.tile.mr}x{blocking.tile.nv * target.lanes} tile, "
                f"{blocking.block_tiles} tiles a block"
            ),
        )

    def _shape(self, problem: WeightGradientProblem) -> TileShape:
        forward = problem.forward
        m_h, m_w = (self.m if taps > 1 else 1 for taps in forward.kernel)
        step = forward.dilation[1]
        return TileShape(
            (m_h, m_w),
            forward.kernel,
            column_step=step if step <= MAX_LOADED_STEP else None,
            dilated=forward.dilation != (1, 1),
        )

    def _blocking(self, problem: WeightGradientProblem, target: Target) -> _Blocking:
        """Must not depend on the number of threads."""
        shape, forward, lanes = self._shape(problem), problem.forward, target.lanes
        phases_h, phases_w = forward.dilation
        tiles_h = ceil_div(ceil_div(forward.out_height, phases_h), shape.m[0])
        tiles_w = ceil_div(ceil_div(forward.out_width, phases_w), shape.m[1])
        tiles = forward.batch * phases_h * phases_w * tiles_h * tiles_w
        vectors = ceil_div(forward.group_out_channels, lanes)
        tile = min(_tiles(target), key=lambda tile: _cost(tile, vectors, target))
        panels, blocks = ceil_div(vectors, tile.nv), ceil_div(forward.group_in_channels, lanes)
        tile_bytes = FLOAT_BYTES * shape.frequencies * (blocks + panels * tile.nv) * lanes
        most = min(MOST_TILES, max(LEAST_TILES, BLOCK_BYTES // tile_bytes))
        block_tiles = ceil_div(tiles, max(1, ceil_div(tiles, most)))
        return _Blocking(
            tile, tiles_h, tiles_w, tiles, block_tiles, blocks, panels, lanes, shape.frequencies
        )


def _tiles(target: Target) -> list[GemmTile]:
    """Register tiles whose rows divide a block of channels."""
    rows = [mr for mr in (target.lanes, target.lanes // 2) if mr >= 4]
    tiles = [GemmTile(mr, nv) for mr in rows for nv in range(1, 5)]
    fitting = [tile for tile in tiles if tile.registers(target) < target.registers]
    return fitting or [GemmTile(4, 1)]


def _cost(tile: GemmTile, vectors: int, target: Target) -> tuple[float, int]:
    # Fewer than 10 accumulators do not hide the latency of the multiply-adds.
    busy = min(1.0, tile.mr * tile.nv / 10)
    area = round_up(vectors, tile.nv) / (busy * relative_rate(tile, target))
    return round(area, 3), -tile.mr * tile.nv


def _plane_floats(blocking: _Blocking) -> tuple[int, int, int]:
    return blocking.v_f, blocking.h_f, blocking.s_f


def _block_stages(
    problem: WeightGradientProblem,
    shape: TileShape,
    blocking: _Blocking,
    words: dict[str, Argument],
    group: int,
    start: int,
    threads: int,
) -> list[Stage]:
    """Both transforms and the products of one block of tiles."""
    from nnpack.kernels.winograd_gradient import MultiplyTiles, TransformTiles

    forward = problem.forward
    tiles = min(blocking.block_tiles, blocking.tiles - start)
    words = words | {
        "first_tile": start,
        "tiles": tiles,
        "done": start,
        "step_h": forward.dilation[0],
        "step_w": forward.dilation[1],
        "tiles_h": blocking.tiles_h,
        "tiles_w": blocking.tiles_w,
    }
    to_h = {"v": words["h"], "v_f": blocking.h_f}
    sides = (
        (False, _input_words(problem, group), forward.group_in_channels),
        (True, _gradient_words(problem, group) | to_h, forward.group_out_channels),
    )
    stages = []
    for gradient, side, channels in sides:
        count = ceil_div(channels, blocking.lanes)
        parts = 1 if threads == 1 else min(tiles, ceil_div(TASKS_PER_THREAD * threads, count))
        task_tiles = ceil_div(tiles, parts)
        arguments = words | side | {"channels": channels, "task_tiles": task_tiles}
        kernel = TransformTiles(shape, gradient)
        stages.append(Stage(kernel, count * ceil_div(tiles, task_tiles), arguments))
    task_blocks = blocking.channel_blocks if shape.frequencies >= 2 * threads else 1
    parts = ceil_div(blocking.channel_blocks, task_blocks)
    arguments = words | {"task_blocks": task_blocks}
    return [*stages, Stage(MultiplyTiles(blocking.tile), shape.frequencies * parts, arguments)]


def _inverse_stage(
    problem: WeightGradientProblem,
    shape: TileShape,
    blocking: _Blocking,
    words: dict[str, Argument],
    group: int,
) -> Stage:
    """The sums of one group transformed back into its part of the gradient."""
    from nnpack.kernels.winograd_gradient import InverseTransform

    forward = problem.forward
    words = words | {
        "y": Slot("y", FLOAT_BYTES * group * forward.group_out_channels * problem.rows),
        "channels": forward.group_in_channels,
        "group_out_channels": forward.group_out_channels,
    }
    kernel = InverseTransform(shape, blocking.tile.nv, problem.accumulate)
    return Stage(kernel, blocking.channel_blocks * blocking.panels, words)


def _input_words(problem: WeightGradientProblem, group: int) -> dict[str, Argument]:
    forward = problem.forward
    x_n, x_c, x_h = problem.x_strides
    return {
        "x": Slot("x", FLOAT_BYTES * group * forward.group_in_channels * x_c),
        "x_n": x_n,
        "x_c": x_c,
        "x_h": x_h,
        "height": forward.height,
        "width": forward.width,
        "pad_top": forward.padding[0],
        "pad_left": forward.padding[2],
    }


def _gradient_words(problem: WeightGradientProblem, group: int) -> dict[str, Argument]:
    forward, (grad_n, grad_c) = problem.forward, problem.grad_strides
    return {
        "x": Slot("grad", FLOAT_BYTES * group * forward.group_out_channels * grad_c),
        "x_n": grad_n,
        "x_c": grad_c,
        "x_h": dense_strides(forward.y_shape)[2],
        "height": forward.out_height,
        "width": forward.out_width,
        "pad_top": 0,
        "pad_left": 0,
    }
