"""Implicit GEMM for weight gradients: any convolution, summed over the pixels of all images."""

from __future__ import annotations

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, direct_error, round_up
from nnpack.algorithms.gemm_tiles import relative_rate, tile_menu
from nnpack.algorithms.weight_gradient_base import NO_WEIGHTS, gradient_arguments
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.plan import Plan, Slot, Stage

# Steps of depth a block: a panel of X stays in the first-level cache, and a tile of sums is read
# and written so much more seldom than it is added to. Less when the panels of G would not fit.
BLOCKS = (256, 128)
# Chunks of depth: they are what threads share when the gradient itself is small, and what keeps
# the error of long sums down. All chunks' sums together stay within the bytes.
MOST_CHUNKS = 16
CHUNK_BLOCKS = 4
CHUNK_BYTES = 4 << 20
TASKS_PER_THREAD = 4


@dataclass(frozen=True)
class _Blocking:
    """A tile, the steps of depth a block, and how many chunks of how many blocks there are."""

    tile: GemmTile
    block: int
    chunks: int
    chunk_blocks: int
    row_panels: int
    out_panels: int


class WeightGradientGemm:
    """The algorithm for every weight gradient."""

    name = "implicit_gemm"

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Never refuses."""
        return None

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """The product, one pass of packing over every patch, and one of turning each gradient."""
        blocking, lanes = _blocking(problem, target), target.lanes
        tile, forward = blocking.tile, problem.forward
        vectors = blocking.out_panels * tile.nv
        steps = blocking.row_panels * tile.mr * vectors * problem.depth
        product = steps / relative_rate(tile, target)
        runs = forward.batch * forward.out_height
        copies = problem.depth / lanes + runs / 2
        packing = problem.rows * (3.0 * forward.stride[1] * copies + 10 * runs / tile.mr)
        turning = 5.0 * vectors * problem.depth
        cycles = forward.groups * (packing + turning)
        seconds = forward.groups * product / target.multiply_adds + cycles / target.clock
        chain = min(problem.depth, blocking.block) + blocking.chunk_blocks + blocking.chunks
        return Estimate(seconds, direct_error(chain))

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """The product into sums of chunks, and their sum."""
        from nnpack.kernels.weight_gradient import StoreWeightGradient, WeightGradientProduct

        blocking, forward = _blocking(problem, target), problem.forward
        stride = forward.stride[1] if forward.stride[1] <= MAX_SHUFFLED_STRIDE else None
        pointwise = forward.kernel == (1, 1) and forward.stride == (1, 1)
        ahead = ceil_div(blocking.tile.mr, blocking.out_panels) if pointwise else 0
        kernel = WeightGradientProduct(blocking.tile, blocking.block, stride, ahead)
        scratch = round_up(kernel.scratch_floats(target.lanes, blocking.out_panels), 64)
        parts = _parts(blocking, forward.groups, threads)
        tile_floats = blocking.tile.mr * blocking.tile.nv * target.lanes
        tiles = forward.groups * blocking.row_panels * blocking.out_panels
        sums = round_up(blocking.chunks * tiles * tile_floats, 64)
        words = gradient_arguments(problem) | {
            "sums": Slot("workspace"),
            "scratch": Slot("workspace", FLOAT_BYTES * sums),
            "scratch_stride": scratch,
            "depth": problem.depth,
            "chunks": blocking.chunks,
            "chunk_blocks": blocking.chunk_blocks,
            "row_panels": blocking.row_panels,
            "task_panels": ceil_div(blocking.row_panels, parts),
            "out_panels": blocking.out_panels,
            "y": Slot("y"),
        }
        parts = ceil_div(blocking.row_panels, ceil_div(blocking.row_panels, parts))
        vectors = ceil_div(forward.group_out_channels, target.lanes)
        return Plan(
            algorithm=self.name,
            stages=(
                Stage(kernel, forward.groups * blocking.chunks * parts, words),
                Stage(
                    StoreWeightGradient(blocking.tile, problem.accumulate),
                    forward.groups * vectors,
                    words,
                ),
            ),
            weight_format=NO_WEIGHTS,
            workspace_bytes=FLOAT_BYTES * (sums + threads * scratch),
            threads=threads,
            detail=(
                f"{blocking.tile.mr}x{blocking.tile.nv * target.lanes} tile, "
                f"{blocking.chunks} chunks of {blocking.chunk_blocks} blocks of {blocking.block}"
            ),
        )


def _blocking(problem: WeightGradientProblem, target: Target) -> _Blocking:
    """Tile, block and chunks; they must not depend on the number of threads."""
    forward, lanes = problem.forward, target.lanes
    vectors = ceil_div(forward.group_out_channels, lanes)
    tile = min(_tiles(target), key=lambda tile: _cost(tile, problem.rows, vectors, target))
    row_panels, out_panels = ceil_div(problem.rows, tile.mr), ceil_div(vectors, tile.nv)
    panel_bytes = FLOAT_BYTES * out_panels * tile.nv * lanes
    fitting = (block for block in BLOCKS if block * panel_bytes <= target.caches.l2 // 2)
    block = next(fitting, BLOCKS[-1])
    blocks = ceil_div(problem.depth, block)
    sums_bytes = panel_bytes * row_panels * tile.mr * forward.groups
    most = max(1, min(MOST_CHUNKS, CHUNK_BYTES // sums_bytes, blocks // CHUNK_BLOCKS))
    chunk_blocks = ceil_div(blocks, most)
    return _Blocking(
        tile, block, ceil_div(blocks, chunk_blocks), chunk_blocks, row_panels, out_panels
    )


def _tiles(target: Target) -> list[GemmTile]:
    """Tiles whose broadcasts are operands of the multiply-adds, where there are such operands.

    With registers to spare the compiler broadcasts ahead, into more than there are: 12x32 and
    13x32 ran at 65 to 72 GFLOP/s where 16x16 did 98 to 107 and 14x32 95 to 104 (Zen 4, AVX-512).
    """
    if not target.broadcast_operand:
        return list(tile_menu(target))
    full = target.registers - 2
    return [tile for tile in tile_menu(target) if tile.nv == 1 or _is_full(tile, target, full)]


def _is_full(tile: GemmTile, target: Target, registers: int) -> bool:
    return tile.nv == 2 and tile.registers(target) >= registers


def _cost(tile: GemmTile, rows: int, vectors: int, target: Target) -> tuple[float, int]:
    """What is multiplied, at the tile's rate; among equals, more accumulators."""
    area = round_up(rows, tile.mr) * round_up(vectors, tile.nv)
    return round(area / relative_rate(tile, target), 3), -tile.mr * tile.nv


def _parts(blocking: _Blocking, groups: int, threads: int) -> int:
    """Parts of the row panels, each a task: as few as give all threads enough to do.

    Each part turns the gradients anew.
    """
    tasks = groups * blocking.chunks
    if threads == 1 or tasks >= TASKS_PER_THREAD * threads or tasks % threads == 0:
        return 1
    return min(blocking.row_panels, ceil_div(TASKS_PER_THREAD * threads, tasks))
