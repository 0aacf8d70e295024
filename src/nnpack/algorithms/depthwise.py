"""Depthwise convolution: as many groups as input channels, straight on the planes."""

from __future__ import annotations

import math

from nnpack.algorithms.base import (
    FLOAT_BYTES,
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
from nnpack.algorithms.cost import met_share, product_seconds
from nnpack.algorithms.plane_tiles import PlanesChoice, choose_planes
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass, replace
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.problem import Problem

# All taps are unrolled: beyond this, code outgrows the instruction cache.
MAX_TAPS = 128
MAX_STRIDE = 4
# Output rows of a tile: more save few loads and waste more on short planes.
MAX_ROWS = 8
# Multiply-adds of a tile, but for four rows, which hide their latency: beyond, tiles were no
# faster and took longer to compile (7x7: 8 rows a tile in nine tenths of the time of 14).
MAX_UNROLLED = 400
TASKS_PER_THREAD = 4
# What must fall into the padding of all rows of taps, so that they are left out one by one.
LEAST_SKIPPED = 0.05


@dataclass(frozen=True)
class _Choice:
    """Rows and lanes of a tile, rows that share input being ``spacing`` apart; bands a plane."""

    rows: int
    lanes: int
    spacing: int
    row_step: int
    bands: int
    walks: bool
    cycles: float


class Depthwise:
    """Depthwise convolution."""

    name = "depthwise"

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Groups of one channel, kernels that can be unrolled, output rows without gaps."""
        kh, kw = problem.kernel
        if problem.groups != problem.in_channels:
            return f"needs groups={problem.in_channels}, one a channel, got {problem.groups}"
        if kh * kw > MAX_TAPS:
            return f"needs a kernel of at most {MAX_TAPS} taps, got {kh}x{kw}"
        if problem.stride[1] > MAX_STRIDE or _row_step(problem) > MAX_STRIDE:
            return f"needs strides of at most {MAX_STRIDE}, got {problem.stride}"
        if problem.y_strides[3] != 1:
            return "needs output pixels side by side, not those of a transposed convolution"
        return None

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Tiles of rows that follow each other: no dilation, but one that divides the stride."""
        return _spacing(problem) == 1

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Where the pixels of an output plane are consecutive."""
        return is_dense(problem)

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """Multiply-adds and loads of all tiles, or the traffic of the planes."""
        narrow = choose_planes(problem, target)
        cycles = _choose(problem, target, 1).cycles
        if narrow is not None:
            cycles = min(cycles, narrow.cycles)
        steps = cycles * problem.group_out_channels * target.multiply_adds_per_cycle
        seconds = product_seconds(problem, target, steps)
        return Estimate(seconds, direct_error(problem.kernel[0] * problem.kernel[1]))

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One stage, and one that combines sums.

        A task is a group of narrow planes, or a band of rows of one plane.
        """
        summed = problem.epilogue.statistics
        # Kernels add up the taps in orders of their own: which it is, no number of threads changes.
        narrow, choice = choose_planes(problem, target), _choose(problem, target, 1)
        if narrow is not None and narrow.cycles < choice.cycles:
            plan, pieces = self._build_planes(problem, threads, narrow), problem.batch
        else:
            if not summed:  # whose bands are what is summed together
                choice = _choose(problem, target, threads, choice.walks)
            plan = self._build_bands(problem, target, threads, choice)
            pieces = problem.batch * choice.bands
        if not summed:
            return plan
        pixels = problem.out_height * problem.out_width
        return with_merged_statistics(plan, problem.out_channels, pieces, pixels, target)

    def _build_planes(self, problem: Problem, threads: int, choice: PlanesChoice) -> Plan:
        from nnpack.kernels.depthwise_planes import DepthwisePlanes

        kernel = DepthwisePlanes(
            problem.kernel,
            problem.stride,
            problem.padding[2],
            choice.rows,
            choice.planes,
            choice.span,
            choice.vectors,
            choice.skips,
            problem.epilogue.kind,
        )
        zeros = round_up(kernel.row_floats, 16)
        groups = ceil_div(problem.out_channels, choice.planes)
        words: dict[str, Argument] = {
            "scratch": Slot("workspace"),
            "scratch_stride": zeros,
            "groups": groups,
            "out_channels": problem.out_channels,
            "span": choice.span,
        }
        return Plan(
            algorithm=self.name,
            stages=(Stage(kernel, problem.batch * groups, {**_arguments(problem), **words}),),
            weight_format=_weight_format(problem),
            workspace_bytes=FLOAT_BYTES * zeros * threads,
            threads=threads,
            detail=f"{choice.rows}x{choice.span} tile of {choice.planes} planes",
        )

    def _build_bands(self, problem: Problem, target: Target, threads: int, choice: _Choice) -> Plan:
        from nnpack.kernels.depthwise import ZEROS_MARGIN, DepthwiseConvolution

        columns = _parted_columns(problem, choice)
        kernel = DepthwiseConvolution(
            problem.kernel,
            choice.rows,
            choice.row_step,
            choice.spacing > 1,
            problem.stride[1],
            problem.dilation[1] == 1,
            choice.lanes,
            _rest_lanes(problem, choice),
            choice.walks,
            not choice.walks and columns["inner_last"] == 0,
            not choice.walks and _skips(problem, target),
            problem.epilogue.kind,
        )
        zeros = round_up(problem.width + 2 * ZEROS_MARGIN, 64)
        words: dict[str, Argument] = {
            "scratch": Slot("workspace"),
            "scratch_stride": zeros,
            "bands": choice.bands,
            "band_rows": _band_rows(problem, choice.bands),
            "spacing": choice.spacing,
        }
        tasks = problem.batch * problem.out_channels * choice.bands
        arguments = {**_arguments(problem), **columns, **words}
        return Plan(
            algorithm=self.name,
            stages=(Stage(kernel, tasks, arguments),),
            weight_format=_weight_format(problem),
            workspace_bytes=FLOAT_BYTES * zeros * threads,
            threads=threads,
            detail=f"{choice.rows}x{choice.lanes} tile{' that walks' if choice.walks else ''}",
        )


def _row_step(problem: Problem) -> int:
    return problem.stride[0] // math.gcd(problem.stride[0], problem.dilation[0])


def _spacing(problem: Problem) -> int:
    return problem.dilation[0] // math.gcd(problem.stride[0], problem.dilation[0])


def _together(problem: Problem) -> int:
    """Output rows that are not parted."""
    return 2 if problem.epilogue.pool else 1


def _band_rows(problem: Problem, bands: int) -> int:
    """Output rows of a band, of which the last may have more."""
    step = _together(problem)
    return problem.out_height // step // bands * step


def _choose(problem: Problem, target: Target, threads: int, walks: bool | None = None) -> _Choice:
    """The tile that wastes least, of those that walk or do not where ``walks`` says."""
    spacing, step = _spacing(problem), _together(problem)
    planes = problem.batch * problem.out_channels
    wanted = ceil_div(TASKS_PER_THREAD * threads, planes) if threads > 1 else 1
    # The edges of a band are visited after its inside: both should be within the second level.
    row_bytes = FLOAT_BYTES * problem.width * problem.stride[0]
    fitting = max(1, target.caches.l2 // 4 // row_bytes)
    bands = max(wanted, ceil_div(problem.out_height, fitting))
    least = min(problem.out_height, 2 * MAX_ROWS * spacing)
    bands = max(1, min(bands, problem.out_height // least))
    band_rows = _band_rows(problem, bands)
    unrolled = max(4, MAX_UNROLLED // (problem.kernel[0] * problem.kernel[1]))
    most = max(1, min(MAX_ROWS, unrolled, band_rows // spacing))
    choices = [
        _Choice(rows, lanes, spacing, _row_step(problem), bands, way, 0.0)
        for rows in range(step, most + 1, step)
        for lanes in {target.lanes, min(target.lanes, 8)}
        for way in _ways(problem, lanes)
        if walks in (None, way)
    ]
    return min((_with_cycles(problem, target, c, band_rows) for c in choices), key=_cycles)


def _ways(problem: Problem, lanes: int) -> tuple[bool, ...]:
    """Whether tiles walk: never, or either way.

    With stride 1 loads across cache lines are cheaper than the shuffles instead of them: 10.6
    cycles a vector of outputs against 13 (3x3).
    """
    from nnpack.kernels.walk import can_walk

    taps, stride, left = problem.kernel[1], problem.stride[1], problem.padding[2]
    strided = stride == 2 and problem.dilation[1] == 1 and lanes >= 8
    return (False, True) if strided and can_walk(taps, stride, left, lanes) else (False,)


def _cycles(choice: _Choice) -> float:
    return choice.cycles


def _with_cycles(problem: Problem, target: Target, choice: _Choice, band_rows: int) -> _Choice:
    """Cycles of one output plane."""
    blocks = choice.bands * choice.spacing * ceil_div(band_rows, choice.rows * choice.spacing)
    tiles = ceil_div(problem.out_width, choice.lanes)
    if choice.walks:
        rows = _in_rows(problem, choice)
        cycles = blocks * (tiles * _walking_cycles(problem, target, choice) + 4.0 * rows)
    else:
        cycles = blocks * tiles * _standing_cycles(problem, target, choice)
        rest = replace(choice, lanes=_rest_lanes(problem, choice))
        if rest.lanes < choice.lanes:
            whole = cycles / tiles
            cycles += blocks * _standing_cycles(problem, target, rest) - whole
    return replace(choice, cycles=cycles + 60)


def _in_rows(problem: Problem, choice: _Choice) -> int:
    return (choice.rows - 1) * choice.row_step + problem.kernel[0]


def _standing_cycles(problem: Problem, target: Target, choice: _Choice) -> float:
    """Cycles of a tile that loads whatever it needs.

    A vector that crosses cache lines takes two loads. Whatever takes longer counts, arithmetic or
    memory, and a part of the other; the constants fit 3x3 to 9x9 kernels on planes of 7x7 to
    112x112 (Zen 4, AVX-512) within a tenth with stride 1, within a third with stride 2.
    """
    from nnpack.kernels.depthwise import MAX_KEPT_WEIGHTS

    kh, kw = problem.kernel
    wide = _wide(choice, target)
    arithmetic = choice.rows * kh * kw * wide / target.multiply_adds_per_cycle
    if _skips(problem, target):
        arithmetic *= met_share(problem, 1)
    kept = kh * kw <= MAX_KEPT_WEIGHTS
    adjacent = problem.stride[1] > 1 and problem.dilation[1] == 1
    loads = _in_rows(problem, choice) * (kw + 1 if adjacent else kw)
    broadcasts = 0 if kept else kh * kw
    # Sums, weights of the tap columns that are loaded together, a few vectors on their way.
    together = problem.stride[1] if adjacent else 1
    live = choice.rows + (kh * kw if kept else kh * together) + 3
    memory = 1.5 * kw * max(0, live - target.registers)
    if problem.stride[1] > 1:
        # Each tap column is shuffled out of its vectors, beside as many multiply-adds.
        memory += 1.3 * _in_rows(problem, choice) * kw * wide
        memory += 1.5 * max(0, loads + kh * kw - target.registers) if kept else 0.0
    memory += loads * (0.5 + wide) + 0.5 * broadcasts
    return max(arithmetic, memory) + 0.3 * min(arithmetic, memory) + choice.rows + 6


def _skips(problem: Problem, target: Target) -> bool:
    """Whether rows outside the image are left out, with weights as operands in memory.

    Where weights fit no registers anyway, and enough is outside: an eighth of what 7x7 taps of 14
    rows read (98 us to 87, 384 channels); of 56 rows it is 3 %, and took 8 % longer.
    """
    many = problem.kernel[0] * problem.kernel[1] > target.registers
    return many and target.broadcast_operand and met_share(problem, 1) < 1 - LEAST_SKIPPED


def _wide(choice: _Choice, target: Target) -> float:
    """The time of a vector relative to a full register: half takes half the multipliers."""
    return 1.0 if choice.lanes == target.lanes else 0.53


def _walking_cycles(problem: Problem, target: Target, choice: _Choice) -> float:
    """Cycles of a tile that keeps what the next needs, and has parted phases to turn.

    The constants fit 3x3 and 5x5 with stride 2, rows of 28 to 240 outputs (Zen 4, AVX-512) within
    a fifth.
    """
    from nnpack.kernels.depthwise import MAX_KEPT_WEIGHTS

    kh, kw = problem.kernel
    rows, in_rows = choice.rows, _in_rows(problem, choice)
    wide = 1.0 if choice.lanes == target.lanes else 0.6
    arithmetic = rows * kh * kw * wide / target.multiply_adds_per_cycle
    kept = kh * kw if kh * kw <= MAX_KEPT_WEIGHTS else kw
    carried = in_rows * min(problem.stride[1], max(0, kw - problem.stride[1]))
    spilled = max(0, carried + kept + rows + 9 - target.registers)
    turned = in_rows * max(1.0, 2.6 * kw - 4.4) * wide
    return arithmetic + turned + 4.0 * spilled + 8


def _rest_lanes(problem: Problem, choice: _Choice) -> int:
    """Lanes of the vectors of the last columns: half where that is enough.

    A vector of eight lanes takes half the time of one of sixteen, but that of one of four.
    """
    half, rest = choice.lanes // 2, problem.out_width % choice.lanes
    return half if 0 < rest <= half and half >= 8 and not choice.walks else choice.lanes


def _parted_columns(problem: Problem, choice: _Choice) -> dict[str, Argument]:
    """Where output columns are inside the image, and where narrower vectors begin."""
    rest = problem.out_width
    if _rest_lanes(problem, choice) < choice.lanes:
        rest = rest // choice.lanes * choice.lanes
    return {**_inner_columns(problem, choice), "rest_first": rest}


def _inner_columns(problem: Problem, choice: _Choice) -> dict[str, Argument]:
    """The output columns, whole vectors, all of whose taps are inside the image."""
    left, stride, lanes = problem.padding[2], problem.stride[1], choice.lanes
    if choice.walks:
        from nnpack.kernels.walk import walk_reach

        # Every block is loaded whole.
        reach = walk_reach(problem.kernel[1], stride) - left
        inside = min(problem.out_width, (problem.width - reach) // stride)
        return {"inner_first": 0, "inner_last": max(inside, 0) // lanes * lanes}
    reach = (problem.kernel[1] - 1) * problem.dilation[1]
    first = round_up(ceil_div(max(left, 0), stride), lanes)
    # A column c is inside when c * stride - left + reach <= width - 1.
    inside = min(problem.out_width, (problem.width - 1 + left - reach) // stride + 1)
    last = max(inside, 0) // lanes * lanes
    if last <= first:
        return {"inner_first": 0, "inner_last": 0}
    return {"inner_first": first, "inner_last": last}


def _arguments(problem: Problem) -> dict[str, Argument]:
    return {
        **image_arguments(problem),
        **store_arguments(problem),
        "weight": Slot("packed"),
        "channels": problem.in_channels,
        "multiplier": problem.group_out_channels,
        "stride_h": problem.stride[0],
        "dilation_h": problem.dilation[0],
        "dilation_w": problem.dilation[1],
    }


def _weight_format(problem: Problem) -> WeightFormat:
    """The taps of one output channel after the other."""
    from nnpack.kernels.weights import PackWeights

    panels = problem.group_out_channels
    arguments = weight_arguments(problem) | {"panels": panels, "packed": Slot("packed")}
    nbytes = FLOAT_BYTES * problem.out_channels * problem.kernel[0] * problem.kernel[1]
    pack = Stage(PackWeights(1), problem.out_channels, arguments)
    return WeightFormat(("panels", 1), nbytes, (pack,))
