"""Convolution by F(m, r) down the columns, for few input channels: see `kernels.cook_toom`."""

from __future__ import annotations

import functools

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    Estimate,
    ceil_div,
    image_arguments,
    is_dense,
    round_up,
    store_arguments,
    weight_arguments,
)
from nnpack.algorithms.channel_sums import with_merged_statistics
from nnpack.algorithms.cost import product_seconds
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.kernels.cook_toom_shape import Columns
from nnpack.maths.expectation import expected_winograd_error, output_amplifications
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.problem import Problem

TASKS_PER_THREAD = 4
MAX_STRIDE = 4
# Products of a channel and one tile, all of them unrolled: beyond, code takes long to compile.
MAX_UNROLLED = 400
MAX_PRODUCTS = 10
# Pixels that are summed together at most: those of a panel are still in the second-level cache.
PIECE_PIXELS = 8192


@dataclass(frozen=True)
class _Choice:
    """``mr`` channels of a tile, and the cycles of one image and group."""

    mr: int
    cycles: float


class CookToom:
    """F(m, r) down the columns, direct summation across."""

    def __init__(self, m: int) -> None:
        self.m = m
        self.name = f"cook_toom_{m}"

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Kernels of several rows a phase that can be unrolled; no dilation, rows without gaps."""
        columns = self._columns(problem)
        if columns.r < 2:
            return f"needs two rows of taps a phase of the stride, got {problem.kernel[0]}"
        if problem.dilation != (1, 1):
            return f"needs dilation 1, got {problem.dilation}"
        if problem.stride[0] > MAX_STRIDE or problem.stride[1] > MAX_STRIDE:
            return f"needs strides of at most {MAX_STRIDE}, got {problem.stride}"
        if columns.t > MAX_PRODUCTS:
            return f"has no tiles of {self.m} outputs for {columns.r} taps"
        if columns.products > MAX_UNROLLED or not _most_channels(columns, target):
            kh, kw = problem.kernel
            return f"needs a kernel that can be unrolled, got {kh}x{kw}"
        if FLOAT_BYTES * _tile_floats(columns, problem, target) > target.caches.l2:
            return "needs a row of tiles that fits the second-level cache"
        if problem.y_strides[3] != 1:
            return "needs output pixels side by side, not those of a transposed convolution"
        return None

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Tiles of an even number of rows."""
        return self.m % 2 == 0

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Where the pixels of an output plane are consecutive."""
        return is_dense(problem)

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """Products with their edges, transforms of input rows and of sums."""
        columns = self._columns(problem)
        steps = _choose(columns, problem, target).cycles * target.multiply_adds_per_cycle
        down = output_amplifications(self.m, columns.r)
        chain = problem.group_in_channels * len(columns.steps)
        relative_l2, error = expected_winograd_error(down, (1.0,), chain)
        return Estimate(product_seconds(problem, target, steps), error, relative_l2)

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One stage, and one that combines sums where there are statistics."""
        from nnpack.kernels.cook_toom import CookToomConvolution

        columns = self._columns(problem)
        choice = _choose(columns, problem, target)
        block_tiles = _block_tiles(columns, problem, target, threads)
        blocks = problem.batch * problem.groups
        blocks *= ceil_div(ceil_div(problem.out_height, self.m), block_tiles)
        panels = ceil_div(problem.group_out_channels, choice.mr)
        chunk = panels
        if threads > 1 and blocks < 2 * threads:
            chunks = ceil_div(TASKS_PER_THREAD * threads, max(1, blocks))
            chunk = ceil_div(panels, min(panels, chunks))
        pitch = _pitch(problem, target)
        zeros = round_up(problem.stride[1] * (pitch + target.lanes), 64)
        tiles = block_tiles * _tile_floats(columns, problem, target)
        # The last vectors of a row are read beyond its end.
        scratch = round_up(zeros + tiles + 2 * target.lanes, 64)
        words: dict[str, Argument] = {
            "scratch": Slot("workspace"),
            "scratch_stride": scratch,
            "zeros": zeros,
            "block_tiles": block_tiles,
            "pitch": pitch,
            "panels": panels,
            "chunk_panels": chunk,
        }
        kernel = CookToomConvolution(columns, choice.mr, problem.epilogue.kind)
        stage = Stage(kernel, blocks * ceil_div(panels, chunk), {**_arguments(problem), **words})
        plan = Plan(
            algorithm=self.name,
            stages=(stage,),
            weight_format=_weight_format(columns, choice.mr, panels, problem),
            workspace_bytes=FLOAT_BYTES * scratch * threads,
            threads=threads,
            detail=f"F({self.m}, {columns.r}) down the columns, "
            f"{choice.mr}x{target.lanes} tile, {block_tiles} rows of tiles a task",
        )
        if not problem.epilogue.statistics:
            return plan
        size = block_tiles * self.m * problem.out_width
        pieces = problem.batch * ceil_div(problem.out_height, block_tiles * self.m)
        return with_merged_statistics(plan, problem.out_channels, pieces, size, target)

    def _columns(self, problem: Problem) -> Columns:
        return Columns(self.m, problem.kernel, problem.stride)


def _pitch(problem: Problem, target: Target) -> int:
    """Floats from one transformed row to the next: whole vectors."""
    halo = (problem.kernel[1] - 1) // problem.stride[1]
    return round_up(problem.out_width + halo, target.lanes)


def _tile_floats(columns: Columns, problem: Problem, target: Target) -> int:
    """Floats of a row of tiles, transformed: all channels and phases."""
    planes = problem.group_in_channels * len(columns.phases) * columns.t
    return planes * _pitch(problem, target)


def _block_tiles(columns: Columns, problem: Problem, target: Target, threads: int) -> int:
    """Rows of tiles a task: what a quarter of the second-level cache holds, transformed."""
    row = FLOAT_BYTES * _tile_floats(columns, problem, target)
    tiles = ceil_div(problem.out_height, columns.m)
    most = max(1, min(tiles, target.caches.l2 // 4 // row))
    if problem.epilogue.statistics:
        # A block is a piece that is summed, whatever the threads.
        return max(1, min(most, PIECE_PIXELS // (columns.m * problem.out_width)))
    if threads > 1:
        wanted = TASKS_PER_THREAD * threads
        most = max(1, min(most, ceil_div(tiles * problem.batch * problem.groups, wanted)))
    return ceil_div(tiles, ceil_div(tiles, most))


def _most_channels(columns: Columns, target: Target) -> int:
    """Channels of a tile whose sums fit the registers, beside a vector and a weight."""
    free = target.registers - 1 - (0 if target.broadcast_operand else 1)
    return min(free // columns.t, MAX_UNROLLED // columns.products)


@functools.lru_cache(maxsize=4096)
def _choose(columns: Columns, problem: Problem, target: Target) -> _Choice:
    """The fastest tile on one thread.

    Of one vector: tiles of two, of half as many channels, took 8 to 20 % longer.
    """
    channels, most = problem.group_out_channels, _most_channels(columns, target)
    panels = ceil_div(channels, min(most, channels))
    heights = {ceil_div(channels, panels + more) for more in range(2)}
    return min((_evaluate(columns, problem, target, mr) for mr in heights), key=_cycles)


def _cycles(choice: _Choice) -> float:
    return choice.cycles


def _evaluate(columns: Columns, problem: Problem, target: Target, mr: int) -> _Choice:
    """Cycles of the products, of both transforms, and of what tiles take to begin and store.

    Most vectors of input cross a cache line and take two loads. The constants fit first layers and
    small groups with strides 1 and 2 within a tenth (Zen 4, AVX-512).
    """
    channels, wide = problem.group_in_channels, max(1.0, target.lanes / 8)
    step = max(mr / target.multiply_adds_per_cycle, wide + mr / 2) / 0.96
    tile = channels * columns.products * step + 15 + mr * (0.6 * columns.m + 0.4 * columns.t)
    tiles = ceil_div(problem.out_width, target.lanes) * ceil_div(problem.group_out_channels, mr)
    loaded = len(columns.phases) * (_pitch(problem, target) // target.lanes) * columns.t
    transform = channels * (loaded * (2.0 * problem.stride[1] + 2.0) + 10)
    return _Choice(mr, ceil_div(problem.out_height, columns.m) * (tiles * tile + transform))


def _arguments(problem: Problem) -> dict[str, Argument]:
    return {
        **image_arguments(problem),
        **weight_arguments(problem),
        "weight": Slot("packed"),
        "groups": problem.groups,
        **store_arguments(problem),
    }


def _weight_format(columns: Columns, mr: int, panels: int, problem: Problem) -> WeightFormat:
    from nnpack.kernels.cook_toom_weights import PackCookToomWeights

    kernel = PackCookToomWeights(columns, mr)
    words = weight_arguments(problem) | {"panels": panels, "packed": Slot("packed")}
    count = problem.groups * panels
    floats = count * problem.group_in_channels * columns.products * mr
    stage = Stage(kernel, count, words)
    return WeightFormat(("cook_toom", kernel), FLOAT_BYTES * floats, (stage,))
