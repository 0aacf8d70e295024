"""Weight gradients of depthwise convolutions, straight on the planes."""

from __future__ import annotations

import math

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, direct_error, round_up
from nnpack.algorithms.row_layout import Axis, shared_phases
from nnpack.algorithms.weight_gradient_base import NO_WEIGHTS, gradient_arguments
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Argument, Plan, Slot, Stage

# All taps are unrolled: beyond this, code outgrows the instruction cache.
MAX_TAPS = 128
# Bytes of the copied rows of a band, which are read again by every pass over them.
BAND_BYTES = 24 << 10


@dataclass(frozen=True)
class _Layout:
    """The phases of the copied rows, and bands: the last has the rows that are left over."""

    vertical: Axis
    horizontal: Axis
    columns: int
    bands: int
    band_rows: int
    spacing: int
    lanes: int

    @property
    def pitch(self) -> int:
        """Floats from one copied row to the next."""
        return self.columns + self.horizontal.halo

    def plane(self, out_height: int) -> int:
        """Floats of one phase of the greatest band."""
        rows = out_height - (self.bands - 1) * self.band_rows
        return (rows + self.vertical.halo) * self.pitch


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
        """Copies of rows, and multiply-adds with a load for every row and tap column."""
        forward, layout = problem.forward, _layout(problem, target)
        kh, kw = forward.kernel
        vectors = layout.columns // layout.lanes
        planes = forward.batch * forward.out_channels
        rows = forward.out_height * vectors
        sums = rows * (1.2 * kh * kw + kw + 1)
        copies = (
            (forward.out_height + layout.bands * layout.vertical.halo)
            * layout.vertical.phases
            * layout.horizontal.phases
            * (vectors + 1)
            * (2.0 + 2.0 * forward.stride[1])
        )
        calls = layout.bands * (150.0 + 4.0 * kh * kw)
        cycles = planes * (sums + copies + calls)
        nbytes = FLOAT_BYTES * planes * (forward.height * forward.width + problem.pixels)
        memory = nbytes / target.rates.memory_bandwidth if nbytes > target.caches.l3 // 2 else 0.0
        return Estimate(max(cycles / target.clock, memory), direct_error(problem.depth))

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """One stage; a task is an output channel."""
        from nnpack.kernels.depthwise_gradient import DepthwiseWeightGradient

        forward, layout = problem.forward, _layout(problem, target)
        stride = forward.stride[1] if forward.stride[1] <= MAX_SHUFFLED_STRIDE else None
        phases = layout.vertical.phases, layout.horizontal.phases
        kernel = DepthwiseWeightGradient(
            forward.kernel, phases, stride, layout.lanes, target.registers, problem.accumulate
        )
        plane = layout.plane(forward.out_height)
        taps = forward.kernel[0] * forward.kernel[1]
        floats = taps * layout.lanes + phases[0] * phases[1] * plane + 2 * layout.lanes
        scratch = round_up(floats, 64)
        words: dict[str, Argument] = {
            **gradient_arguments(problem),
            "y": Slot("y"),
            "scratch": Slot("workspace"),
            "scratch_stride": scratch,
            "batch": forward.batch,
            "channels": 1,
            "multiplier": forward.group_out_channels,
            "phases_h": phases[0],
            "phases_w": phases[1],
            "modulus_h": layout.vertical.modulus,
            "modulus_w": layout.horizontal.modulus,
            "halo_h": layout.vertical.halo,
            "halo_w": layout.horizontal.halo,
            "pitch": layout.pitch,
            "plane": plane,
            "columns": layout.columns,
            "bands": layout.bands,
            "band_rows": layout.band_rows,
            "spacing": layout.spacing,
        }
        return Plan(
            algorithm=self.name,
            stages=(Stage(kernel, forward.out_channels, words),),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * scratch * threads,
            threads=threads,
            detail=f"{layout.lanes} pixels in the lanes, {layout.band_rows} rows a band",
        )


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
    (kh, kw), (sh, sw), (dh, dw) = forward.kernel, forward.stride, forward.dilation
    vertical, horizontal = shared_phases(kh, sh, dh), shared_phases(kw, sw, dw)
    lanes = min(target.lanes, 8) if forward.out_width <= 8 else target.lanes
    columns = round_up(forward.out_width, lanes)
    spacing = _spacing(problem)
    row_bytes = FLOAT_BYTES * (columns + horizontal.halo) * vertical.phases * horizontal.phases
    fitting = max(1, BAND_BYTES // row_bytes - vertical.halo)
    least = max(1, spacing * _tap_rows(problem))
    bands = max(1, min(ceil_div(forward.out_height, fitting), forward.out_height // least))
    return _Layout(
        vertical, horizontal, columns, bands, forward.out_height // bands, spacing, lanes
    )
