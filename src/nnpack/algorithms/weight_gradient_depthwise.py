"""Weight gradients of depthwise convolutions, straight on the planes."""

from __future__ import annotations

import math

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, direct_error, round_up
from nnpack.algorithms.gradient_chunks import Chunks, choose_chunks
from nnpack.algorithms.row_layout import Axis, shared_phases
from nnpack.algorithms.weight_gradient_base import NO_WEIGHTS, gradient_arguments
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Argument, Plan, Slot, Stage

# All taps are unrolled: beyond this, code outgrows the instruction cache.
MAX_TAPS = 128
# Bands are a share of the second-level cache: the next one is asked for while one is summed.
BAND_SHARE = 8
# Terms that a lane adds up in one chain, whatever the number of lanes: bands are added up in turn.
MOST_TERMS = 512
# Bytes of x and of gradients that a task reads in one piece: planes next to each other.
PIECE_BYTES = 512 << 10
# Bytes of the totals of a task and a chunk of images, which stay in the first-level cache.
TOTALS_BYTES = 16 << 10
# Least images of a chunk, and bytes of the totals of a task in all chunks.
CHUNK_IMAGES = 8
CHUNK_BYTES = 256 << 10
# Bytes of planes that a function sums: all its passes find them in the first-level cache.
CALL_BYTES = 16 << 10
# How far on the least planes are asked for.
AHEAD_BYTES = 4 << 10
TASKS_PER_THREAD = 4


@dataclass(frozen=True)
class _Layout:
    """Bands of rows, the last with those that are left over; columns whose taps are all inside."""

    vertical: Axis
    bands: int
    band_rows: int
    spacing: int
    lanes: int
    inner_first: int
    inner_last: int


class WeightGradientDepthwise:
    """Sums of single taps, pixels in the lanes; for one channel a group."""

    name = "depthwise"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Groups of one channel, kernels that can be unrolled, outputs as high as kernels."""
        forward = problem.forward
        kh, kw = forward.kernel
        if forward.groups != forward.in_channels:
            return f"needs groups={forward.in_channels}, one a channel, got {forward.groups}"
        if kh * kw > MAX_TAPS:
            return f"needs a kernel of at most {MAX_TAPS} taps, got {kh}x{kw}"
        if forward.out_height // _spacing(problem) < _tap_rows(problem) - 1:
            return f"needs an output as high as the kernel, got {forward.out_height} rows"
        return None

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """Loads and multiply-adds of every row and tap column, or the traffic."""
        forward, layout = problem.forward, _layout(problem, target)
        kh, kw = forward.kernel
        vectors = ceil_div(forward.out_width, layout.lanes)
        planes = forward.batch * forward.out_channels
        loads = kw * min(forward.stride[1], MAX_SHUFFLED_STRIDE) + 1
        phases = layout.vertical.phases
        rows = forward.out_height * vectors * (kh * kw + 0.8 * phases * loads)
        walks = layout.bands * phases * (30.0 + vectors * 15.0) + 2.0 * kh * kw
        cycles = planes * (rows + walks)
        nbytes = FLOAT_BYTES * planes * (forward.height * forward.width + problem.pixels)
        memory = nbytes / target.rates.memory_bandwidth if nbytes > target.caches.l3 // 2 else 0.0
        chunks = _chunks(problem, kh * kw * layout.lanes)
        added = layout.bands * chunks.blocks + chunks.levels
        chain = min(problem.depth, MOST_TERMS + added)
        return Estimate(max(cycles / target.clock, memory), direct_error(chain))

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """One stage; a task is some output channels."""
        from nnpack.kernels.depthwise_gradient import DepthwiseWeightGradient

        forward, layout = problem.forward, _layout(problem, target)
        stride = forward.stride[1] if forward.stride[1] <= MAX_SHUFFLED_STRIDE else None
        kernel = DepthwiseWeightGradient(
            forward.kernel,
            layout.vertical.phases,
            stride,
            forward.dilation[1] == 1,
            layout.lanes,
            target.registers,
            problem.accumulate,
        )
        totals = kernel.taps * layout.lanes
        channels = _task_channels(problem, totals, threads)
        chunks = _chunks(problem, totals)
        scratch = round_up(chunks.count * channels * totals, 64)
        words: dict[str, Argument] = {
            **gradient_arguments(problem),
            "y": Slot("y"),
            "scratch": Slot("workspace"),
            "scratch_stride": scratch,
            "batch": forward.batch,
            **chunks.words,
            "chunk_images": chunks.blocks,
            "out_channels": forward.out_channels,
            "task_channels": channels,
            "call_channels": _call_channels(problem, layout),
            "multiplier": forward.group_out_channels,
            "bands": layout.bands,
            "band_rows": layout.band_rows,
            "spacing": layout.spacing,
            "inner_first": layout.inner_first,
            "inner_last": layout.inner_last,
            **_ahead(problem, layout),
        }
        return Plan(
            algorithm=self.name,
            stages=(Stage(kernel, ceil_div(forward.out_channels, channels), words),),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * scratch * threads,
            threads=threads,
            detail=(
                f"{layout.lanes} pixels in the lanes, {layout.band_rows} rows a band, "
                f"{channels} channels a task"
            ),
        )


def _chunks(problem: WeightGradientProblem, totals: int) -> Chunks:
    """Chunks of images, with the room for tasks of one thread: those of more are no larger."""
    totals_bytes = FLOAT_BYTES * totals * _task_channels(problem, totals, 1)
    return choose_chunks(problem.forward.batch, CHUNK_IMAGES, totals_bytes, CHUNK_BYTES)


def _spacing(problem: WeightGradientProblem) -> int:
    """Copied rows from one tap row of a phase to the next."""
    stride, dilation = problem.forward.stride[0], problem.forward.dilation[0]
    return dilation // math.gcd(stride, dilation)


def _tap_rows(problem: WeightGradientProblem) -> int:
    """Tap rows of the first phase, which has most."""
    forward = problem.forward
    vertical = shared_phases(forward.kernel[0], forward.stride[0], forward.dilation[0])
    return ceil_div(forward.kernel[0], vertical.phases)


def _layout(problem: WeightGradientProblem, target: Target) -> _Layout:
    forward = problem.forward
    vertical = shared_phases(forward.kernel[0], forward.stride[0], forward.dilation[0])
    lanes = min(target.lanes, 8) if forward.out_width <= 8 else target.lanes
    row_bytes = FLOAT_BYTES * (forward.stride[0] * forward.width + forward.out_width)
    fitting = target.caches.l2 // BAND_SHARE // row_bytes
    fitting = max(1, min(fitting, MOST_TERMS * lanes // forward.out_width))
    spacing = _spacing(problem)
    least = max(1, spacing * _tap_rows(problem))
    bands = max(1, min(ceil_div(forward.out_height, fitting), forward.out_height // least))
    inner = _inner_columns(problem, lanes)
    return _Layout(vertical, bands, forward.out_height // bands, spacing, lanes, *inner)


def _inner_columns(problem: WeightGradientProblem, lanes: int) -> tuple[int, int]:
    """The output columns, whole vectors, all of whose taps are inside the image."""
    forward = problem.forward
    left, stride = forward.padding[2], forward.stride[1]
    reach = (forward.kernel[1] - 1) * forward.dilation[1]
    first = round_up(ceil_div(max(left, 0), stride), lanes)
    # A column c is inside when c * stride - left + reach <= width - 1.
    inside = min(forward.out_width, (forward.width - 1 + left - reach) // stride + 1)
    last = max(inside, 0) // lanes * lanes
    return (first, last) if first < last else (0, 0)


def _ahead(problem: WeightGradientProblem, layout: _Layout) -> dict[str, Argument]:
    """How far on the next band is read: of this plane, or of the next."""
    forward = problem.forward
    if layout.bands == 1:
        planes = ceil_div(AHEAD_BYTES, _plane_bytes(problem))
        strides = problem.x_strides[1], problem.grad_strides[1]
        return {"x_ahead": planes * strides[0], "grad_ahead": planes * strides[1]}
    rows = layout.band_rows
    return {
        "x_ahead": rows * forward.stride[0] * problem.x_strides[2],
        "grad_ahead": rows * forward.out_width,
    }


def _plane_bytes(problem: WeightGradientProblem) -> int:
    """Bytes of a plane of x and of one of gradients."""
    forward = problem.forward
    return FLOAT_BYTES * (forward.height * forward.width + problem.pixels)


def _call_channels(problem: WeightGradientProblem, layout: _Layout) -> int:
    """Planes that a function is called for; one where they are not next to each other."""
    if layout.bands > 1 or problem.forward.group_out_channels > 1:
        return 1
    return max(1, CALL_BYTES // _plane_bytes(problem))


def _task_channels(problem: WeightGradientProblem, totals: int, threads: int) -> int:
    """Output channels a task, with ``totals`` floats each: enough for long pieces.

    Yet tasks enough for all threads.
    """
    out_channels = problem.forward.out_channels
    wanted = ceil_div(PIECE_BYTES, _plane_bytes(problem))
    fair = out_channels // (TASKS_PER_THREAD * threads) if threads > 1 else wanted
    return max(1, min(wanted, TOTALS_BYTES // (FLOAT_BYTES * totals), fair, out_channels))
