"""The plan of a convolution as a matrix product, shared by implicit GEMM and pointwise."""

from __future__ import annotations

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    ceil_div,
    is_dense,
    round_up,
    store_arguments,
)
from nnpack.algorithms.cost import fits_last_level, skipping_rows
from nnpack.algorithms.gemm_tiles import TileChoice
from nnpack.algorithms.storage import packed_storage, panel_format
from nnpack.codegen.target import Target
from nnpack.kernels.convolve import GemmConvolution
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.problem import Problem

# Tasks a thread should have to choose from, so that threads finish together.
TASKS_PER_THREAD = 4


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
    block = _block_pixels(problem, strip, target, threads, packed)
    chunk = chunk_panels(ceil_div(pixels, block) * images, panels, threads)
    patches = round_up(depth * round_up(block, strip) + target.lanes, 64) if packed else 0
    scratch = patches + (round_up(depth * panel, 64) if kernel.widens else 0)
    tasks = images * ceil_div(pixels, block) * ceil_div(panels, chunk)
    blocking: dict[str, Argument] = {
        "pixels": pixels,
        "block_pixels": block,
        "panels": panels,
        "chunk_panels": chunk,
        "scratch": Slot("workspace") if scratch else 0,
        "scratch_stride": scratch,
        "widened": patches,
        "y_is_cold": int(not fits_last_level(problem, target)),
    }
    stage = Stage(kernel, tasks, convolution_arguments(problem) | blocking)
    return Plan(
        algorithm=name,
        stages=(stage,),
        weight_format=panel_format(problem, panel, panels, kernel.storage),
        workspace_bytes=FLOAT_BYTES * scratch * threads,
        threads=threads,
        detail=(
            f"{choice.tile.mr}x{choice.tile.nv * target.lanes} tile, {choice.lanes} in the lanes"
        ),
    )


def known_stride(problem: Problem) -> int | None:
    """The horizontal stride, if kernels are compiled for it."""
    stride = problem.stride[1]
    return stride if stride <= MAX_SHUFFLED_STRIDE else None


def _block_pixels(problem: Problem, strip: int, target: Target, threads: int, packed: bool) -> int:
    """Pixels a task: patches of half the second-level cache, yet tasks enough for all threads.

    Half of it again where the image itself is read, since the next block is asked for meanwhile;
    and no more rows than can leave out the taps in the padding.
    """
    pixels, images = problem.out_height * problem.out_width, problem.batch * problem.groups
    depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    share = 2 if packed else 4
    in_cache = target.caches.l2 // share // (FLOAT_BYTES * depth * strip)
    in_rows = skipping_rows(problem) * problem.out_width // strip
    strips = ceil_div(pixels, strip)
    wanted = ceil_div(strips * images, TASKS_PER_THREAD * threads) if threads > 1 else strips
    blocks = ceil_div(strips, max(1, min(in_cache, in_rows, wanted, strips)))
    return strip * ceil_div(strips, blocks)


def chunk_panels(blocks: int, panels: int, threads: int) -> int:
    """Panels a task: all of them, unless there are too few blocks for the threads."""
    if threads == 1 or blocks >= 2 * threads:
        return panels
    return ceil_div(panels, min(panels, ceil_div(TASKS_PER_THREAD * threads, max(1, blocks))))


def convolution_arguments(problem: Problem) -> dict[str, Argument]:
    """The words of x, of the weights and of y."""
    n, c, h = problem.x_strides
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
        "stride_h": problem.stride[0],
        "stride_w": problem.stride[1],
        "dilation_h": problem.dilation[0],
        "dilation_w": problem.dilation[1],
        "pad_top": problem.padding[0],
        "pad_left": problem.padding[2],
        **store_arguments(problem),
    }
