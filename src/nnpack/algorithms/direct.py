"""Direct convolution: no patch is packed; input rows are read as they are, or copied once.

Pixels stand in the lanes and weights are broadcast, for few channels (first layers, small groups),
where packing a patch matrix costs as much as multiplying with it; or output channels stand in the
lanes and pixels are broadcast, for small images. It does any problem.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    VARIANT_MARK,
    Algorithm,
    Estimate,
    ceil_div,
    direct_error,
    image_arguments,
    is_dense,
    round_up,
    store_arguments,
    weight_arguments,
)
from nnpack.algorithms.channel_sums import with_merged_statistics
from nnpack.algorithms.cost import (
    gathering_seconds,
    product_seconds,
    skipping_rows,
    tap_share,
)
from nnpack.algorithms.row_layout import RowLayout, choose_layout
from nnpack.algorithms.storage import packed_storage, panel_format
from nnpack.algorithms.window_channels import ChannelsChoice, channels_plan, choose_channels
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.problem import Problem

if TYPE_CHECKING:
    from nnpack.kernels.convolve import Lanes

TASKS_PER_THREAD = 4
# Pixels that are summed together at most: those of a panel are still in the second-level cache.
PIECE_PIXELS = 8192
INDEX_FLOATS = 2  # an index takes the room of two floats


@dataclass(frozen=True)
class _Choice:
    """A tile, the layout of the rows, and the cycles of one image and group."""

    tile: GemmTile
    layout: RowLayout
    cycles: float


class Direct:
    """Direct convolution; with ``lanes`` in the lanes, or whatever is faster."""

    def __init__(self, lanes: Lanes | None = None) -> None:
        self._lanes = lanes
        self.name = "direct" if lanes is None else f"direct{VARIANT_MARK}{lanes}"

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Never refuses, but with channels in the lanes to pool or to part rows."""
        if self._lanes == "channels" and choose_channels(problem, target) is None:
            return "needs rows that fit the second-level cache, and no pool"
        return None

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Always: a strip then has two rows."""
        return True

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Where tasks store whole rows, one behind the other, or channels stand in the lanes.

        There what is added to y is added after outputs have been turned.
        """
        if self._turned(problem, target) is not None:
            return problem.epilogue.residual is None
        layout = _choose(problem, target).layout
        return is_dense(problem) and layout.block_columns == problem.out_width

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """The product with its edges, and one pass of copying rows."""
        turned = self._turned(problem, target)
        choice = turned or _choose(problem, target)
        steps = choice.cycles * target.multiply_adds_per_cycle
        seconds = product_seconds(problem, target, steps)
        if turned is None:
            seconds += gathering_seconds(problem, target)
        return Estimate(seconds, direct_error(_depth(problem)))

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One stage, and one that combines sums where there are statistics."""
        from nnpack.kernels.window import WindowConvolution

        turned = self._turned(problem, target)
        if turned is not None:
            return channels_plan(self.name, problem, target, threads, turned)
        choice = _choose(problem, target)
        tile, layout = choice.tile, _layout(problem, target, threads, choice)
        depth, images = _depth(problem), problem.batch * problem.groups
        panels = ceil_div(problem.group_out_channels, tile.mr)
        blocks = images * layout.blocks(problem)
        chunk = _chunk_panels(blocks, panels, threads)
        table = round_up(INDEX_FLOATS * depth, target.lanes)
        widened = table + round_up(layout.scratch(problem.group_in_channels, target), 64)
        storage = packed_storage(problem, target)
        scratch = widened + (round_up(depth * tile.mr, 64) if storage == "float16" else 0)
        words: dict[str, Argument] = {
            "scratch": Slot("workspace"),
            "scratch_stride": scratch,
            "table_size": table,
            "widened": widened,
            "panels": panels,
            "chunk_panels": chunk,
        }
        kernel = WindowConvolution(
            tile, problem.y_strides[3] != 1, _known_stride(problem), problem.epilogue.kind, storage
        )
        arguments = {**_arguments(problem), **layout.arguments(), **words}
        width = tile.nv * target.lanes
        plan = Plan(
            algorithm=self.name,
            stages=(Stage(kernel, blocks * ceil_div(panels, chunk), arguments),),
            weight_format=panel_format(problem, tile.mr, panels, storage),
            workspace_bytes=FLOAT_BYTES * scratch * threads,
            threads=threads,
            detail=f"{tile.mr}x{width} tile, {layout.block_rows} rows a task"
            + (", side by side" if layout.flat else ""),
        )
        if not problem.epilogue.statistics:
            return plan
        pieces, size = problem.batch * layout.blocks(problem), layout.block_rows * problem.out_width
        return with_merged_statistics(plan, problem.out_channels, pieces, size, target)

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """The other way round."""
        if choose_channels(problem, target) is None:
            return ()
        return (Direct("channels" if self._turned(problem, target) is None else "pixels"),)

    def _turned(self, problem: Problem, target: Target) -> ChannelsChoice | None:
        """The tile with channels in the lanes, where that is asked for or faster."""
        turned = choose_channels(problem, target) if self._lanes != "pixels" else None
        if turned is None or self._lanes == "channels":
            return turned
        return turned if turned.cycles < _choose(problem, target).cycles else None


def _depth(problem: Problem) -> int:
    return problem.group_in_channels * problem.kernel[0] * problem.kernel[1]


def _known_stride(problem: Problem) -> int | None:
    from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE

    stride = problem.stride[1]
    return stride if stride <= MAX_SHUFFLED_STRIDE else None


@functools.lru_cache(maxsize=4096)
def _choose(problem: Problem, target: Target) -> _Choice:
    """The fastest tile and layout on one thread."""
    step = _rows_a_strip(problem)
    menu = _tile_menu(problem.group_out_channels, target)
    tiles = [tile for tile in menu if tile.nv % step == 0]
    choices = []
    for nv in {tile.nv for tile in tiles}:
        strip = nv // step * target.lanes
        flats = (False, True) if step == 1 and is_dense(problem) else (False,)
        heights = {problem.out_height, min(problem.out_height, skipping_rows(problem))}
        for flat, height in itertools.product(flats, sorted(heights)):
            layout = choose_layout(problem, target, strip, flat, height)
            floats = layout.scratch(problem.group_in_channels, target)
            if layout.flat and FLOAT_BYTES * floats > target.caches.l2:
                continue  # rows so long that parts of them do better
            choices += [_evaluate(problem, target, t, layout) for t in tiles if t.nv == nv]
    return min(choices, key=lambda choice: choice.cycles)


def _rows_a_strip(problem: Problem) -> int:
    return 2 if problem.epilogue.pool else 1


def _layout(problem: Problem, target: Target, threads: int, choice: _Choice) -> RowLayout:
    """The layout with blocks enough for all threads."""
    if problem.epilogue.statistics:
        # A block is a piece that is summed, whatever the threads.
        wanted = PIECE_PIXELS // problem.out_width
    elif threads == 1:
        return choice.layout
    else:
        rows = problem.out_height * problem.batch * problem.groups
        wanted = ceil_div(rows, TASKS_PER_THREAD * threads)
    most = max(1, min(choice.layout.block_rows, wanted))
    strip = choice.tile.nv // _rows_a_strip(problem) * target.lanes
    return choose_layout(problem, target, strip, choice.layout.flat, most)


def _tile_menu(channels: int, target: Target) -> list[GemmTile]:
    """For each width the three highest tiles that fit the registers, one left free.

    Of tiles that take equally many panels, only the lowest; for few channels there are wide ones.
    """
    tiles = []
    for nv in range(1, 9 if channels <= 4 else 5):
        most = (target.registers - GemmTile(0, nv).registers(target) - 1) // nv
        panels = ceil_div(channels, max(1, min(most, channels)))
        heights = {ceil_div(channels, panels + more) for more in range(3)}
        tiles += [GemmTile(mr, nv) for mr in sorted(heights) if mr <= most]
    return tiles


def _step_cycles(tile: GemmTile, target: Target) -> float:
    """Cycles of one step of the product: ``mr * nv`` multiply-adds and what they read.

    Most vectors of B cross a cache line and take two loads; a sum is there for the next
    multiply-add after 4 cycles.
    """
    arithmetic = tile.mr * tile.nv / target.multiply_adds_per_cycle
    loads = tile.nv * max(1.0, target.lanes / 8) + tile.mr / 2
    return max(arithmetic, loads, 4.0) / 0.96


def _evaluate(problem: Problem, target: Target, tile: GemmTile, layout: RowLayout) -> _Choice:
    """Cycles of multiplying, of beginning and storing tiles, and of copying rows.

    The constants fit first layers, small groups and odd sizes (Zen 4, AVX-512) within a quarter.
    """
    step = _rows_a_strip(problem)
    strip = tile.nv // step * target.lanes
    blocks, columns = layout.blocks(problem), layout.block_columns
    if layout.flat:
        length, runs = layout.block_rows * columns, blocks
    else:
        length, runs = columns, problem.out_height * ceil_div(problem.out_width, columns)
    vectors, tiles = runs * ceil_div(length, target.lanes), runs // step * ceil_div(length, strip)
    panels = ceil_div(problem.group_out_channels, tile.mr)
    share = tap_share(problem, layout.block_rows)
    steps = panels * _depth(problem) * vectors / tile.nv * share
    product = steps * _step_cycles(tile, target)
    starts = panels * tiles * (30 + 1.0 * tile.mr * tile.nv)
    rows = blocks * layout.vertical.places(layout.block_rows) * problem.group_in_channels
    copied = rows * layout.horizontal.phases * ceil_div(layout.pitch, target.lanes)
    copying = copied * (2.0 + 2.0 * problem.stride[1]) + 10 * rows * layout.horizontal.phases
    return _Choice(tile, layout, product + starts + copying)


def _chunk_panels(blocks: int, panels: int, threads: int) -> int:
    """Panels a task: all of them, unless there are too few blocks for the threads."""
    if threads == 1 or blocks >= 2 * threads:
        return panels
    return ceil_div(panels, min(panels, ceil_div(TASKS_PER_THREAD * threads, max(1, blocks))))


def _arguments(problem: Problem) -> dict[str, Argument]:
    return {
        **image_arguments(problem),
        **weight_arguments(problem),
        "weight": Slot("packed"),
        "groups": problem.groups,
        "stride_h": problem.stride[0],
        "stride_w": problem.stride[1],
        "dilation_h": problem.dilation[0],
        "dilation_w": problem.dilation[1],
        **store_arguments(problem),
    }
