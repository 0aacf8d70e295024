"""The plan of a 1x1 convolution by Strassen's algorithm."""

from __future__ import annotations

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, is_dense, round_up, weight_arguments
from nnpack.algorithms.cost import fits_last_level
from nnpack.algorithms.gemm_plan import convolution_arguments, known_stride, sum_pixels
from nnpack.algorithms.gemm_tiles import TileChoice
from nnpack.algorithms.sharing import share_out, share_pieces
from nnpack.codegen.target import Target
from nnpack.kernels.strassen import StrassenConvolution
from nnpack.kernels.strassen_sums import PIXEL_SUMS, PRODUCTS, PackWeightSums, panel_pitch
from nnpack.kernels.weights import consecutive_weights
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.problem import Problem


def strassen_plan(
    name: str, problem: Problem, target: Target, threads: int, choice: TileChoice, gathers: bool
) -> Plan:
    """The plan; ``gathers`` says whether pixels are brought together before they are added."""
    kernel = StrassenConvolution(
        choice.tile,
        choice.lanes,
        packed=True,
        dense=is_dense(problem),
        stride_w=known_stride(problem) if gathers else 1,
        epilogue=problem.epilogue.kind,
        gathers=gathers,
    )
    lanes, depth = target.lanes, problem.group_in_channels
    strip, panel = kernel.strip(lanes), kernel.panel(lanes)
    pixels = problem.out_height * problem.out_width
    images = problem.batch * problem.groups
    panels = ceil_div(problem.group_out_channels, panel)
    sums = PIXEL_SUMS * panel_pitch(depth, strip // 2, lanes)
    as_they_are = round_up(round_up(depth, 2) * strip + 2 * lanes, 16)
    most = _most_strips(sums + as_they_are, target)
    words = ceil_div(pixels, strip), most, panels, images, threads
    share, piece = share_out(*words, True), 1
    if problem.epilogue.statistics:
        share, piece = share_pieces(*words, True, strip)
    gathered = as_they_are * (share.strips if gathers else 1)
    scratch = round_up(gathered + share.strips * sums, 64)
    blocking: dict[str, Argument] = {
        "pixels": pixels,
        "block_pixels": strip * share.strips,
        "panels": panels,
        "chunk_panels": share.panels,
        "scratch": Slot("workspace"),
        "scratch_stride": scratch,
        "sums": gathered,
        "gathered": as_they_are if gathers else 0,
        "y_is_cold": int(not fits_last_level(problem, target)),
    }
    blocks = ceil_div(pixels, strip * share.strips)
    tasks = images * blocks * ceil_div(panels, share.panels)
    plan = Plan(
        algorithm=name,
        stages=(Stage(kernel, tasks, convolution_arguments(problem) | blocking),),
        weight_format=_weight_format(problem, kernel, panels, target),
        workspace_bytes=FLOAT_BYTES * scratch * threads,
        threads=threads,
        detail=f"2x2 tiles of {choice.tile.mr}x{choice.tile.nv * lanes}, "
        f"{choice.lanes} in the lanes",
    )
    return sum_pixels(plan, problem, strip * piece, target)


def _most_strips(strip_floats: int, target: Target) -> int:
    """Strips a task: their pixels and panels take half of the second-level cache."""
    return max(1, target.caches.l2 // 2 // (FLOAT_BYTES * strip_floats))


def _weight_format(
    problem: Problem, kernel: StrassenConvolution, panels: int, target: Target
) -> WeightFormat:
    """Seven panels of sums for each panel of channels."""
    width, in_lanes = kernel.panel(target.lanes) // 2, kernel.lanes == "channels"
    consecutive = consecutive_weights(problem.weights, problem.kernel)
    count = problem.groups * panels
    words = weight_arguments(problem) | {"panels": panels, "packed": Slot("packed")}
    stage = Stage(PackWeightSums(width, in_lanes, consecutive), count, words)
    floats = PRODUCTS * panel_pitch(problem.group_in_channels, width, target.lanes)
    return WeightFormat(("strassen", width, in_lanes), FLOAT_BYTES * count * floats, (stage,))
