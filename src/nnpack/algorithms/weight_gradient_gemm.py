"""Implicit GEMM for weight gradients: any convolution, summed over the pixels of all images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, direct_error, round_up
from nnpack.algorithms.gemm_tiles import relative_rate
from nnpack.algorithms.gradient_chunks import Chunks, choose_chunks, sum_stages
from nnpack.algorithms.turned_tiles import choose_turned_tile
from nnpack.algorithms.weight_gradient_base import (
    NO_WEIGHTS,
    masked_load_words,
    merged_activation,
    packing_cycles,
    product_arguments,
    share_rows,
)
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.geometry import Pair
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Plan, Slot, Stage
from nnpack.problem import Problem

if TYPE_CHECKING:
    from nnpack.kernels.weight_gradient import WeightGradientProduct

# Steps of depth a block: a panel of X stays in the first-level cache, and a tile of sums is read
# and written so much more seldom than it is added to. Less when the panels of G would not fit.
BLOCKS = (256, 128)
# Least blocks of a chunk: chunks are what threads share when the gradient itself is small. All
# chunks' sums together stay within the bytes.
CHUNK_BLOCKS = 4
CHUNK_BYTES = 4 << 20
# The workspace of a thread is a part of the last-level cache.
CACHE_SHARE = 4


@dataclass(frozen=True)
class _Blocking:
    """A tile, the steps of depth a block, and the chunks of blocks."""

    tile: GemmTile
    block: int
    chunks: Chunks
    row_panels: int
    out_panels: int


@dataclass(frozen=True)
class _Part:
    """Groups from ``group`` on, and ``outputs`` output channels of each, from ``output`` on."""

    group: int
    groups: int
    output: int
    outputs: int


class WeightGradientGemm:
    """The algorithm for every weight gradient."""

    name = "implicit_gemm"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Never refuses."""
        return None

    def merges_activation(self, problem: WeightGradientProblem, target: Target) -> bool:
        """Always, as it turns the gradient."""
        return True

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """The product, passes of packing every patch and turning each gradient, and the store."""
        blocking, lanes = _blocking(problem, target), target.lanes
        tile, forward = blocking.tile, problem.forward
        vectors = blocking.out_panels * tile.nv
        steps = blocking.row_panels * tile.mr * vectors * problem.depth
        product = steps / relative_rate(tile, target)
        packing = packing_cycles(problem, tile.mr, lanes)
        turning = 5.0 * vectors * problem.depth
        storing = 0.7 * problem.rows * vectors * lanes
        cycles = forward.groups * (packing + turning + storing)
        seconds = forward.groups * product / target.multiply_adds + cycles / target.clock
        chain = min(problem.depth, blocking.block) + blocking.chunks.chain
        return Estimate(seconds, direct_error(chain))

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """The product into sums of chunks, and their sum; for each part of the outputs."""
        blocking = _blocking(problem, target)
        chunks = blocking.chunks
        kernel = _product(problem, blocking)
        scratch = round_up(kernel.scratch_floats(target.lanes, blocking.out_panels), 64)
        room = threads * (target.caches.l3 // CACHE_SHARE // FLOAT_BYTES - scratch)
        parts = _parts(problem.forward, blocking, target, room)
        most = max(_sums_floats(blocking, part, target) for part in parts)
        sums = round_up(chunks.count * most, 64)
        stages: list[Stage] = []
        for part in parts:
            stages += _stages(problem, blocking, part, (sums, scratch), target, threads)
        return Plan(
            algorithm=self.name,
            stages=tuple(stages),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * (sums + threads * scratch),
            threads=threads,
            detail=(
                f"{blocking.tile.mr}x{blocking.tile.nv * target.lanes} tile, "
                f"{chunks.count} chunks of {chunks.blocks} blocks of {blocking.block}"
                + (f", {len(parts)} parts" if len(parts) > 1 else "")
            ),
        )


def _product(problem: WeightGradientProblem, blocking: _Blocking) -> WeightGradientProduct:
    from nnpack.kernels.weight_gradient import WeightGradientProduct

    forward = problem.forward
    stride = forward.stride[1] if forward.stride[1] <= MAX_SHUFFLED_STRIDE else None
    pointwise = forward.kernel == (1, 1) and forward.stride == (1, 1)
    ahead = ceil_div(blocking.tile.mr, blocking.out_panels) if pointwise else 0
    activation = merged_activation(problem)
    return WeightGradientProduct(blocking.tile, blocking.block, stride, ahead, activation)


def _parts(forward: Problem, blocking: _Blocking, target: Target, room: int) -> list[_Part]:
    """Groups, or output channels of one, as many as have their sums in ``room`` floats.

    At least a panel of output channels. Each part packs x anew, and no sum depends on the parts.
    """
    width = blocking.tile.nv * target.lanes
    panel = blocking.chunks.count * blocking.row_panels * blocking.tile.mr * width
    outputs, groups = forward.group_out_channels, forward.groups
    fitting = max(1, room // panel)
    together = min(groups, max(1, fitting // blocking.out_panels))
    step = outputs
    if together == 1:
        step = width * ceil_div(blocking.out_panels, ceil_div(blocking.out_panels, fitting))
    return [
        _Part(group, min(together, groups - group), k, min(step, outputs - k))
        for group in range(0, groups, together)
        for k in range(0, outputs, step)
    ]


def _sums_floats(blocking: _Blocking, part: _Part, target: Target) -> int:
    """Floats of the sums of one chunk of a part."""
    width = blocking.tile.nv * target.lanes
    columns = ceil_div(part.outputs, width) * width
    return part.groups * blocking.row_panels * blocking.tile.mr * columns


def _stages(
    problem: WeightGradientProblem,
    blocking: _Blocking,
    part: _Part,
    places: Pair,
    target: Target,
    threads: int,
) -> tuple[Stage, ...]:
    """The product, the sum of chunks and the store of one part.

    ``places``: floats of the sums, and of the scratch of a worker.
    """
    from nnpack.kernels.weight_gradient import StoreWeightGradient

    forward, chunks, (sums, scratch) = problem.forward, blocking.chunks, places
    task_panels, row_parts = share_rows(blocking.row_panels, part.groups * chunks.count, threads)
    output = part.group * forward.group_out_channels + part.output
    channel = part.group * forward.group_in_channels
    words = product_arguments(problem) | {
        "x": Slot("x", FLOAT_BYTES * channel * problem.x_strides[1]),
        "grad": Slot("grad", FLOAT_BYTES * output * problem.grad_strides[1]),
        **masked_load_words(problem, output),
        "y": Slot("y", FLOAT_BYTES * output * problem.rows),
        "groups": part.groups,
        "group_out_channels": part.outputs,
        "sums": Slot("workspace"),
        "scratch": Slot("workspace", FLOAT_BYTES * sums),
        "scratch_stride": scratch,
        "depth": problem.depth,
        "chunks": chunks.count,
        "chunk_blocks": chunks.blocks,
        "row_panels": blocking.row_panels,
        "task_panels": task_panels,
        "out_panels": ceil_div(part.outputs, blocking.tile.nv * target.lanes),
    }
    vectors = ceil_div(part.outputs, target.lanes)
    store = StoreWeightGradient(blocking.tile, problem.accumulate)
    floats = _sums_floats(blocking, part, target)
    return (
        Stage(_product(problem, blocking), part.groups * chunks.count * row_parts, words),
        *sum_stages(chunks, Slot("workspace"), floats, floats),
        Stage(store, part.groups * vectors, words),
    )


def _blocking(problem: WeightGradientProblem, target: Target) -> _Blocking:
    """Tile, block and chunks; they must not depend on the number of threads."""
    forward, lanes = problem.forward, target.lanes
    vectors = ceil_div(forward.group_out_channels, lanes)
    tile = choose_turned_tile(problem.rows, vectors, target)
    row_panels, out_panels = ceil_div(problem.rows, tile.mr), ceil_div(vectors, tile.nv)
    panel_bytes = FLOAT_BYTES * out_panels * tile.nv * lanes
    fitting = (block for block in BLOCKS if block * panel_bytes <= target.caches.l2 // 2)
    block = next(fitting, BLOCKS[-1])
    blocks = ceil_div(problem.depth, block)
    sums_bytes = panel_bytes * row_panels * tile.mr * forward.groups
    chunks = choose_chunks(blocks, CHUNK_BLOCKS, sums_bytes, CHUNK_BYTES)
    return _Blocking(tile, block, chunks, row_panels, out_panels)
