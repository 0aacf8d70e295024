"""The plan of a convolution as a matrix product, shared by implicit GEMM and pointwise."""

from __future__ import annotations

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    ceil_div,
    is_dense,
    round_up,
    store_arguments,
)
from nnpack.algorithms.channel_sums import with_merged_statistics
from nnpack.algorithms.cost import fits_last_level, skipping_rows
from nnpack.algorithms.gemm_tiles import TileChoice
from nnpack.algorithms.sharing import share_out, share_pieces
from nnpack.algorithms.storage import packed_storage, panel_format
from nnpack.codegen.target import Target
from nnpack.kernels.convolve import GemmConvolution
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.problem import Problem


def gemm_plan(
    name: str, problem: Problem, target: Target, threads: int, choice: TileChoice, packed: bool
) -> Plan:
    """The plan; ``packed`` says whether patches are packed or the image is read as it is."""
    kernel = GemmConvolution(
        choice.tile,
        choice.lanes,
        packed,
        is_dense(problem),
        known_stride(problem),
        problem.epilogue.kind,
        packed_storage(problem, target),
    )
    strip, panel = kernel.strip(target.lanes), kernel.panel(target.lanes)
    pixels = problem.out_height * problem.out_width
    images = problem.batch * problem.groups
    panels = ceil_div(problem.group_out_channels, panel)
    depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    most = _most_strips(problem, strip, target, packed)
    words = ceil_div(pixels, strip), most, panels, images, threads, packed
    share, piece = share_out(*words), 1
    if problem.epilogue.statistics:
        share, piece = share_pieces(*words, strip)
    block, chunk = strip * share.strips, share.panels
    patches = round_up(depth * round_up(block, strip) + target.lanes, 64) if packed else 0
    scratch = patches + (round_up(depth * panel, 64) if kernel.widens else 0)
    tasks = images * ceil_div(pixels, block) * ceil_div(panels, chunk)
    blocking: dict[str, Argument] = {
        "pixels": pixels // kernel.rows,
        "block_pixels": block // kernel.rows,
        "panels": panels,
        "chunk_panels": chunk,
        "scratch": Slot("workspace") if scratch else 0,
        "scratch_stride": scratch,
        "widened": patches,
        "y_is_cold": int(not fits_last_level(problem, target)),
    }
    stage = Stage(kernel, tasks, convolution_arguments(problem) | blocking)
    plan = Plan(
        algorithm=name,
        stages=(stage,),
        weight_format=panel_format(problem, panel, panels, kernel.storage),
        workspace_bytes=FLOAT_BYTES * scratch * threads,
        threads=threads,
        detail=(
            f"{choice.tile.mr}x{choice.tile.nv * target.lanes} tile, {choice.lanes} in the lanes"
        ),
    )
    return sum_pixels(plan, problem, strip * piece, target)


def sum_pixels(plan: Plan, problem: Problem, size: int, target: Target) -> Plan:
    """``plan`` as it is, or, with statistics, summing pieces of ``size`` pixels of an image."""
    if not problem.epilogue.statistics:
        return plan
    pieces = problem.batch * ceil_div(problem.out_height * problem.out_width, size)
    return with_merged_statistics(plan, problem.out_channels, pieces, size, target)


def known_stride(problem: Problem) -> int | None:
    """The horizontal stride, if kernels are compiled for it."""
    stride = problem.stride[1]
    return stride if stride <= MAX_SHUFFLED_STRIDE else None


def _most_strips(problem: Problem, strip: int, target: Target, packed: bool) -> int:
    """Strips a task: patches of half the second-level cache.

    Half of it again where the image itself is read, since the next block is asked for meanwhile;
    and no more rows than can leave out the taps in the padding.
    """
    depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    share = 2 if packed else 4
    in_cache = target.caches.l2 // share // (FLOAT_BYTES * depth * strip)
    in_rows = skipping_rows(problem) * problem.out_width // strip
    return max(1, min(in_cache, in_rows))


def convolution_arguments(problem: Problem) -> dict[str, Argument]:
    """The words of x, of the weights and of y."""
    n, c, h = problem.x_strides
    pooled = problem.epilogue.pool is not None
    lower: dict[str, Argument] = {"lower": problem.stride[0]} if pooled else {}
    return {
        "x": Slot("x"),
        "x_n": n,
        "x_c": c,
        "x_h": h,
        "weight": Slot("packed"),
        "groups": problem.groups,
        "channels": problem.group_in_channels,
        "group_out_channels": problem.group_out_channels,
        "height": problem.height,
        "width": problem.width,
        "out_width": problem.out_width,
        "kernel_h": problem.kernel[0],
        "kernel_w": problem.kernel[1],
        "stride_h": problem.stride[0] * (2 if pooled else 1),
        **lower,
        "stride_w": problem.stride[1],
        "dilation_h": problem.dilation[0],
        "dilation_w": problem.dilation[1],
        "pad_top": problem.padding[0],
        "pad_left": problem.padding[2],
        **store_arguments(problem),
    }
