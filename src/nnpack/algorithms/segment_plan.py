"""The plan of an implicit GEMM whose depth is taken in segments, over rectangles of the output.

For many channels. Under strong dilation most outputs see padding through some of the taps; which
taps those are changes along a few lines only. They part the output into rectangles, a stage each,
so that nothing is multiplied with padding.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, is_dense, round_up
from nnpack.algorithms.cost import LEAST_SAVING, fits_last_level
from nnpack.algorithms.gemm_plan import (
    convolution_arguments,
    known_stride,
    sum_pixels,
)
from nnpack.algorithms.gemm_tiles import TileChoice
from nnpack.algorithms.sharing import share_out, share_pieces
from nnpack.algorithms.storage import packed_storage, panel_format
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.plan import Plan, Slot, Stage, shifted
from nnpack.problem import Problem

if TYPE_CHECKING:
    from nnpack.kernels.segments import SegmentedConvolution

# Fewer channels than this make segments too short for what adding them up costs.
LEAST_CHANNELS = 64

# Exact sums: the longest for which direct summation is expected to stay within what is promised
# (`admission`), and the channels of a segment where they are longer.
_LONGEST_EXACT = 1536
_EXACT_CHANNELS = 512
# What longer exact sums pay for segments as short as that, nothing else gives them.
_LEAST_EXACT_CHANNELS = 16

Span = tuple[int, int]


def takes_segments(problem: Problem, choice: TileChoice, target: Target) -> bool:
    """Whether rectangles pay, a strip and a panel far outgrow the second-level cache, or accuracy.

    A little beyond it, segments lose more on their sums than they gain.
    """
    channels, tile = problem.group_in_channels, choice.tile
    if _is_too_long(problem):
        return True
    if channels < LEAST_CHANNELS or problem.kernel == (1, 1):
        return False
    depth = _depth(problem)
    steps = FLOAT_BYTES * (tile.mr + tile.nv * target.lanes)
    too_deep = depth * steps > target.caches.l2 * 3 // 2
    return too_deep or takes_rectangles(problem, choice, target)


def longest_chain(problem: Problem) -> int:
    """Terms in a chain of additions, at most, where the depth is taken in segments.

    Those of a segment, and then of the segments; which may be shorter, and more, for the caches.
    """
    channels, taps = problem.group_in_channels, math.prod(problem.kernel)
    if not _is_too_long(problem):
        return channels + taps
    segment = min(channels, _EXACT_CHANNELS)
    return segment + taps * ceil_div(channels, segment)


def _is_too_long(problem: Problem) -> bool:
    """Whether direct summation in a single chain is not as exact as is asked for."""
    long = problem.accuracy == "exact" and _depth(problem) > _LONGEST_EXACT
    return long and problem.group_in_channels >= _LEAST_EXACT_CHANNELS


def _depth(problem: Problem) -> int:
    return problem.group_in_channels * math.prod(problem.kernel)


def takes_rectangles(problem: Problem, choice: TileChoice, target: Target) -> bool:
    """Whether parting the output saves enough, with what it wastes at the edges of tiles."""
    return rectangle_share(problem, choice, target) < 1 - LEAST_SAVING


def rectangle_share(problem: Problem, choice: TileChoice, target: Target) -> float:
    """Multiplications over rectangles that see no padding, of those over the whole output.

    Pixels are counted in whole vectors, or rows of tiles.
    """
    granule = choice.tile.mr if choice.lanes == "channels" else target.lanes
    return _share(problem, granule)


@functools.lru_cache(maxsize=1024)
def _share(problem: Problem, granule: int) -> float:
    def cost(rows: Span, columns: Span) -> int:
        taps = _meeting(problem, 0, rows) * _meeting(problem, 1, columns)
        pixels = (rows[1] - rows[0]) * (columns[1] - columns[0])
        return taps * round_up(pixels, granule)

    parts = itertools.product(_parts(problem, 0), _parts(problem, 1))
    whole = cost((0, problem.out_height), (0, problem.out_width))
    return sum(itertools.starmap(cost, parts)) / whole


def _meeting(problem: Problem, axis: int, part: Span) -> int:
    """Taps of an axis through which some output of ``part`` sees the image; at least one."""
    spans = _tap_spans(problem, axis)
    return max(1, sum(low < part[1] and high > part[0] and low < high for low, high in spans))


def _tap_spans(problem: Problem, axis: int) -> list[Span]:
    """For each tap of an axis the outputs that see the image through it."""
    extent = (problem.height, problem.width)[axis]
    outputs = (problem.out_height, problem.out_width)[axis]
    stride, dilation = problem.stride[axis], problem.dilation[axis]
    before = problem.padding[2 * axis]
    spans = []
    for tap in range(problem.kernel[axis]):
        low = max(0, ceil_div(before - tap * dilation, stride))
        high = min(outputs, ceil_div(extent + before - tap * dilation, stride))
        spans.append((low, max(low, high)))
    return spans


def _parts(problem: Problem, axis: int) -> list[Span]:
    """The outputs of an axis, parted where the taps that see the image change.

    Pairs of outputs that are pooled stay together.
    """
    outputs, step = (problem.out_height, problem.out_width)[axis], 2 if problem.epilogue.pool else 1
    places = itertools.chain.from_iterable(_tap_spans(problem, axis))
    edges = sorted({0, outputs, *(p // step * step for p in places if 0 < p < outputs)})
    return list(itertools.pairwise(edges))


@dataclass(frozen=True)
class _Blocking:
    """Pixels and panels of a task, channels of a segment, and pixels that are summed together."""

    pixels: int
    panels: int
    channels: int
    piece: int


def segment_plan(
    name: str, problem: Problem, target: Target, threads: int, choice: TileChoice
) -> Plan:
    """The plan: a stage for each rectangle, all with the same packed weights."""
    from nnpack.kernels.segments import SegmentedConvolution

    rows, columns = [(0, problem.out_height)], [(0, problem.out_width)]
    if takes_rectangles(problem, choice, target):
        rows, columns = _parts(problem, 0), _parts(problem, 1)
    whole = len(rows) == len(columns) == 1
    kernel = SegmentedConvolution(
        choice.tile,
        choice.lanes,
        packed=True,
        dense=whole and is_dense(problem),
        stride_w=known_stride(problem),
        epilogue=problem.epilogue.kind,
        storage=packed_storage(problem, target),
    )
    parts = [
        _rectangle(problem, kernel, target, threads, down, across)
        for down, across in itertools.product(rows, columns)
    ]
    scratch = max(size for _, size, _ in parts)
    stages = [
        Stage(stage.kernel, stage.tasks, {**stage.arguments, "scratch_stride": scratch})
        for stage, _, _ in parts
    ]
    panel = kernel.panel(target.lanes)
    panels = ceil_div(problem.group_out_channels, panel)
    width = choice.tile.nv * target.lanes
    plan = Plan(
        algorithm=name,
        stages=tuple(stages),
        weight_format=panel_format(problem, panel, panels, kernel.storage),
        workspace_bytes=FLOAT_BYTES * scratch * threads,
        threads=threads,
        detail=f"{choice.tile.mr}x{width} tile, {choice.lanes} in the lanes, depth in segments"
        + ("" if whole else f", {len(parts)} rectangles"),
    )
    return sum_pixels(plan, problem, parts[0][2], target)


def _rectangle(
    problem: Problem,
    kernel: SegmentedConvolution,
    target: Target,
    threads: int,
    down: Span,
    across: Span,
) -> tuple[Stage, int, int]:
    """The stage of one rectangle, the floats a thread needs for it, and the pixels of a piece."""
    panel = kernel.panel(target.lanes)
    pixels = (down[1] - down[0]) * (across[1] - across[0])
    images = problem.batch * problem.groups
    panels = ceil_div(problem.group_out_channels, panel)
    blocking = _choose_blocking(problem, kernel, target, threads, pixels)
    patches = round_up(blocking.channels * blocking.pixels + target.lanes, 64)
    sums = round_up(blocking.panels * panel * blocking.pixels, 64)
    widened = round_up(blocking.channels * panel, 64) if kernel.widens else 0
    arguments = {
        **convolution_arguments(problem),
        "out_width": across[1] - across[0],
        "pad_top": problem.padding[0] - down[0] * problem.stride[0],
        "pad_left": problem.padding[2] - across[0] * problem.stride[1],
        "pixels": pixels // kernel.rows,
        "block_pixels": blocking.pixels // kernel.rows,
        "panels": panels,
        "chunk_panels": blocking.panels,
        "segment_channels": blocking.channels,
        "scratch": Slot("workspace"),
        "sums": patches,
        "widened": patches + sums,
        "y_is_cold": int(not fits_last_level(problem, target)),
    }
    tasks = images * ceil_div(pixels, blocking.pixels) * ceil_div(panels, blocking.panels)
    _, _, y_h, y_w = problem.y_strides
    offset = FLOAT_BYTES * (down[0] // kernel.rows * y_h + across[0] // kernel.rows * y_w)
    offsets = {"y": offset, "residual": offset}
    if problem.epilogue.residual_strides is not None:
        _, _, row = problem.epilogue.residual_strides
        offsets["residual"] = FLOAT_BYTES * (down[0] * row + across[0])
    stage = shifted(Stage(kernel, tasks, arguments), offsets)
    return stage, patches + sums + widened, blocking.piece


def _choose_blocking(
    problem: Problem, kernel: SegmentedConvolution, target: Target, threads: int, pixels: int
) -> _Blocking:
    """Blocks whose sums and patches take a quarter of the second-level cache each.

    Weights are read once a block: the larger, the better. Segments, which part the sums, are those
    of one thread for any number of them.
    """
    strip, panel = kernel.strip(target.lanes), kernel.panel(target.lanes)
    images, channels = problem.batch * problem.groups, problem.group_in_channels
    panels, strips = ceil_div(problem.group_out_channels, panel), ceil_div(pixels, strip)
    floats = target.caches.l2 // 4 // FLOAT_BYTES
    fitting = max(1, min(floats // (panels * panel * strip), strips))
    longest = max(LEAST_CHANNELS, floats // (strip * fitting))
    if _is_too_long(problem):
        longest = min(longest, _EXACT_CHANNELS)
    segments = ceil_div(channels, longest)
    words = strips, fitting, panels, images, threads, True
    share, piece = share_out(*words), 1
    if problem.epilogue.statistics:
        share, piece = share_pieces(*words, strip)
    pixels = strip * share.strips
    return _Blocking(pixels, share.panels, ceil_div(channels, segments), strip * piece)
