"""The plan of direct convolution with output channels in the lanes, and the choice of its tile."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    ceil_div,
    is_dense,
    round_up,
)
from nnpack.algorithms.channel_sums import with_merged_statistics
from nnpack.algorithms.cost import CACHE_SHARE, met_share
from nnpack.algorithms.gemm_plan import convolution_arguments
from nnpack.algorithms.gemm_tiles import step_cycles, turn_cycles
from nnpack.algorithms.sharing import share_vectors
from nnpack.algorithms.storage import packed_storage, panel_format
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.problem import Problem

# Vectors of a panel: more leave too few registers for pixels.
MAX_VECTORS = 4
# A vector of fewer channels runs at the rate of a full one of so many lanes, two an instruction.
NARROW_LANES = 8
_LINE_FLOATS = 16


@dataclass(frozen=True)
class ChannelsChoice:
    """``rows`` by ``columns`` pixels and ``nv`` vectors of ``lanes`` channels; cycles of an image.

    Cycles are those of one image and group.
    """

    rows: int
    columns: int
    nv: int
    lanes: int
    cycles: float

    @property
    def tile(self) -> GemmTile:
        """The tile of the product."""
        return GemmTile(self.rows * self.columns, self.nv)


@functools.lru_cache(maxsize=4096)
def choose_channels(problem: Problem, target: Target) -> ChannelsChoice | None:
    """The tile that wastes least; None where y is pooled, or its rows are too long to be copied."""
    if problem.epilogue.pool or 0 in problem.y_shape:
        return None
    choices = [
        _with_cycles(problem, target, choice)
        for choice in _menu(problem, target)
        if not _copies(problem) or _plane(problem, choice.rows) <= _fitting_floats(problem, target)
    ]
    return min(choices, key=lambda choice: choice.cycles, default=None)


def _menu(problem: Problem, target: Target) -> Iterator[ChannelsChoice]:
    """Tiles that fit the registers: whole rows, several of them where they are short, or parts."""
    channels = problem.group_out_channels
    for lanes in {target.lanes, min(target.lanes, NARROW_LANES)}:
        for nv in range(1, min(MAX_VECTORS, ceil_div(channels, lanes)) + 1):
            most = (target.registers - 1 - GemmTile(0, nv).registers(target)) // nv
            for rows, columns in _shapes(problem, most):
                yield ChannelsChoice(rows, columns, nv, lanes, 0.0)


def _shapes(problem: Problem, most: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of up to ``most`` pixels."""
    width, height = problem.out_width, problem.out_height
    least = ceil_div(width, most)
    for parts in range(least, least + 3):
        if parts <= width:
            yield 1, ceil_div(width, parts)
    for rows in range(2, min(most // width, height) + 1):
        yield rows, width


def _with_cycles(problem: Problem, target: Target, choice: ChannelsChoice) -> ChannelsChoice:
    """Cycles of multiplying, of beginning and storing tiles, and of copying rows."""
    (kh, kw), channels = problem.kernel, problem.group_in_channels
    depth = channels * kh * kw * met_share(problem, choice.rows)
    down, across = ceil_div(problem.out_height, choice.rows), _across(problem, choice)
    whole, rest = divmod(_vectors(problem, choice), choice.nv)
    product = 0.0
    for nv, panels in ((choice.nv, whole), (rest, 1)):
        if nv:
            product += panels * _panel_cycles(problem, target, choice, nv, depth)
    copied = 0.0
    if _copies(problem):
        rows = down * choice.rows * problem.stride[0] + kh * problem.dilation[0]
        copied = channels * (20 + rows * (1 + 2.5 * ceil_div(_pitch(problem), choice.lanes)))
    cycles = down * across * product + copied
    return ChannelsChoice(choice.rows, choice.columns, choice.nv, choice.lanes, cycles)


def _panel_cycles(
    problem: Problem, target: Target, choice: ChannelsChoice, nv: int, depth: float
) -> float:
    """Cycles of one tile and panel of ``nv`` vectors."""
    tile = GemmTile(choice.rows * choice.columns, nv)
    step = step_cycles(tile, target, choice.lanes)
    panel = FLOAT_BYTES * depth * nv * choice.lanes
    if panel > target.caches.l2 // 2:
        rate = CACHE_SHARE * target.rates.l3_bandwidth / target.clock
        step = max(step, FLOAT_BYTES * nv * choice.lanes / rate)
    taps = problem.kernel[0] * problem.kernel[1]
    return depth * step + 6 * taps + turn_cycles(tile, choice.lanes)


def _vectors(problem: Problem, choice: ChannelsChoice) -> int:
    return ceil_div(problem.group_out_channels, choice.lanes)


def _across(problem: Problem, choice: ChannelsChoice) -> int:
    return ceil_div(problem.out_width, choice.columns)


def _copies(problem: Problem) -> bool:
    """Whether x is padded anywhere."""
    return max(problem.padding) > 0


def _pitch(problem: Problem) -> int:
    """Floats of a padded row: whole lines, for stores across lines take twice as long."""
    reach = (problem.kernel[1] - 1) * problem.dilation[1] + 1
    return round_up((problem.out_width - 1) * problem.stride[1] + reach, _LINE_FLOATS)


def _plane(problem: Problem, out_rows: int) -> int:
    """Floats of the padded rows of a channel: an odd number of lines, which use all of a cache."""
    reach = (problem.kernel[0] - 1) * problem.dilation[0] + 1
    rows = (out_rows - 1) * problem.stride[0] + reach
    return _LINE_FLOATS * (ceil_div(rows * _pitch(problem), _LINE_FLOATS) | 1)


def channels_plan(
    name: str, problem: Problem, target: Target, threads: int, choice: ChannelsChoice
) -> Plan:
    """One stage; a task is a block of rows of tiles."""
    from nnpack.kernels.window_channels import ChannelConvolution

    kernel = ChannelConvolution(
        choice.rows,
        choice.columns,
        choice.nv,
        choice.lanes,
        problem.stride[1],
        is_dense(problem),
        problem.epilogue.kind,
        packed_storage(problem, target),
    )
    copies, images = _copies(problem), problem.batch * problem.groups
    tiles = ceil_div(problem.out_height, choice.rows)
    panels = ceil_div(problem.group_out_channels, kernel.panel)
    most, vectors = _most_tiles(problem, target, choice), _vectors(problem, choice)
    share = share_vectors(tiles, most, vectors, choice.nv, images, threads, copies)
    block, chunk = share.strips, share.vectors
    plane = _plane(problem, min(block * choice.rows, problem.out_height))
    scratch = round_up(problem.group_in_channels * plane + target.lanes, 64) if copies else 0
    words: dict[str, Argument] = {
        "scratch": Slot("workspace") if copies else 0,
        "scratch_stride": scratch,
        "out_height": problem.out_height,
        "copies": int(copies),
        "pitch": _pitch(problem) if copies else problem.x_strides[2],
        "plane": plane if copies else problem.x_strides[1],
        "block_tiles": block,
        "panels": panels,
        "chunk_vectors": chunk,
    }
    tasks = images * ceil_div(tiles, block) * ceil_div(vectors, chunk)
    plan = Plan(
        algorithm=name,
        stages=(Stage(kernel, tasks, convolution_arguments(problem) | words),),
        weight_format=panel_format(problem, kernel.panel, panels, kernel.storage),
        workspace_bytes=FLOAT_BYTES * scratch * threads,
        threads=threads,
        detail=f"{choice.rows}x{choice.columns} pixels by {kernel.panel} channels in the lanes",
    )
    if not problem.epilogue.statistics:
        return plan
    pieces, size = problem.batch * tiles * _across(problem, choice), choice.tile.mr
    return with_merged_statistics(plan, problem.out_channels, pieces, size, target)


def _most_tiles(problem: Problem, target: Target, choice: ChannelsChoice) -> int:
    """Rows of tiles a task: rows of half the second-level cache.

    Rows of half the first-level cache were no faster: they are copied from the second either way.
    """
    tiles = ceil_div(problem.out_height, choice.rows)
    while tiles > 1 and _plane(problem, tiles * choice.rows) > _fitting_floats(problem, target):
        tiles = ceil_div(tiles, 2)
    return tiles


def _fitting_floats(problem: Problem, target: Target) -> int:
    """Floats of each channel in half the second-level cache."""
    return target.caches.l2 // 2 // FLOAT_BYTES // problem.group_in_channels
