"""Plans of matrix products: fully connected layers and their gradients."""

from __future__ import annotations

from collections.abc import Callable

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    Estimate,
    ceil_div,
    direct_error,
    epilogue_words,
    round_up,
)
from nnpack.algorithms.channel_sums import Counts, with_following_statistics
from nnpack.algorithms.cost import cache_bandwidth
from nnpack.algorithms.slices import pool_in_slices
from nnpack.algorithms.storage import STORAGE_BYTES
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass, replace
from nnpack.kernels.column_sums import VECTORS, ColumnSums
from nnpack.kernels.dots import MAX_ROWS, DotProducts
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.operands import Consecutive, PackPanels
from nnpack.kernels.product import MatrixProduct
from nnpack.linear_problem import ColumnSumProblem, MatrixStrides, ProductProblem
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat
from nnpack.pool_problem import PoolProblem
from nnpack.problem import WeightStorage

__all__ = ["estimate_product", "plan_column_sums", "plan_packed_product", "plan_product"]

# Vectors of columns a tile. The same for any number of rows: weights are packed once.
_VECTORS = 2
# Products summed in a register: where a panel is read once, and where it is read for each tile of
# rows, and must stay in the cache until then.
_STREAMED_CHAIN = 2048
_CACHED_CHAIN = 512
_TASKS_PER_THREAD = 4
# Sums of a task stay where the last-level cache has room for all workers.
_MAX_CHUNK_PANELS = 64


@dataclass(frozen=True)
class _Blocking:
    """How rows, panels and depth are cut; nothing but the panels of a task depends on threads."""

    tile: GemmTile
    block_rows: int
    slab: int
    chain: int
    panels: int
    chunk_panels: int
    tasks: int


def plan_product(problem: ProductProblem, target: Target, threads: int) -> Plan:
    """The plan that reads both operands where they stand: a is the slot ``x``, b ``weight``."""
    deep = consecutive(problem.a_strides) == consecutive(problem.b_strides) == "depth"

    def build(plain: ProductProblem) -> Plan:
        if deep and plain.rows <= MAX_ROWS:
            return _plan_dots(plain, target, threads)
        return _plan(plain, target, threads, packed=False)

    return _with_passes(build, problem, target, threads)


def plan_packed_product(problem: ProductProblem, target: Target, threads: int) -> Plan:
    """The plan with b, the slot ``weight``, packed ahead; a is the slot ``x``."""

    def build(plain: ProductProblem) -> Plan:
        return _plan(plain, target, threads, packed=True)

    return _with_passes(build, problem, target, threads)


def _with_passes(
    build: Callable[[ProductProblem], Plan], problem: ProductProblem, target: Target, threads: int
) -> Plan:
    """What ``build`` makes of ``problem``, and a pass over its outputs when they are pooled, in the
    workspace, or summed.
    """
    epilogue = problem.epilogue
    plain = replace(problem, epilogue=replace(epilogue, pool=None, statistics=False))
    if epilogue.pool is not None and problem.map_shape is not None:
        stated = PoolProblem.pool2d(epilogue.pool.kind, (problem.rows, *problem.map_shape), 2)

        def some(rows: int) -> Plan:
            return build(replace(plain, shape=(rows, problem.columns)))

        return pool_in_slices(some, stated, problem.a_strides[0], target, threads)
    plan = build(plain)
    if epilogue.statistics:
        return with_following_statistics(plan, Counts(problem.rows, problem.columns, 1), target)
    return plan


def _plan(problem: ProductProblem, target: Target, threads: int, *, packed: bool) -> Plan:
    blocking = _choose_blocking(problem, target, threads)
    storage: WeightStorage = "float32"
    if packed and target.half_conversions:
        storage = problem.weight_storage
    kernel = MatrixProduct(
        blocking.tile,
        consecutive(problem.a_strides),
        "packed" if packed else consecutive(problem.b_strides),
        problem.epilogue.kind,
        storage,
    )
    places, scratch = _scratch(problem, target, blocking, packed)
    words: dict[str, Argument] = {
        **_operand("a", "x", problem.a_strides, "row"),
        **_operand("b", "packed" if packed else "weight", problem.b_strides, "column"),
        "y": Slot("y"),
        "y_row": problem.columns,
        "rows": problem.rows,
        "columns": problem.columns,
        "depth": problem.depth,
        "block_rows": blocking.block_rows,
        "slab": blocking.slab,
        "chain": blocking.chain,
        "panels": blocking.panels,
        "chunk_panels": blocking.chunk_panels,
        "scratch": Slot("workspace"),
        "scratch_stride": scratch,
        **places,
        **epilogue_words(problem.epilogue),
    }
    width = blocking.tile.nv * target.lanes
    return Plan(
        algorithm="product",
        stages=(Stage(kernel, blocking.tasks, words),),
        weight_format=_format(problem, target, width, storage) if packed else _NO_WEIGHTS,
        workspace_bytes=FLOAT_BYTES * scratch * threads,
        threads=threads,
        detail=f"{blocking.tile.mr}x{width} tile",
    )


def _plan_dots(problem: ProductProblem, target: Target, threads: int) -> Plan:
    groups = ceil_div(problem.columns, target.lanes)
    group_chunk = ceil_div(groups, min(groups, _TASKS_PER_THREAD * threads))
    chunk = group_chunk * target.lanes
    words: dict[str, Argument] = {
        "a": Slot("x"),
        "b": Slot("weight"),
        "y": Slot("y"),
        "a_row": problem.a_strides[0],
        "b_column": problem.b_strides[0],
        "y_row": problem.columns,
        "columns": problem.columns,
        "depth": problem.depth,
        "chunk": chunk,
        **epilogue_words(problem.epilogue),
    }
    kernel = DotProducts(problem.rows, _together(problem.rows, target), problem.epilogue.kind)
    return Plan(
        algorithm="dot_products",
        stages=(Stage(kernel, ceil_div(problem.columns, chunk), words),),
        weight_format=_NO_WEIGHTS,
        workspace_bytes=0,
        threads=threads,
        detail=f"{kernel.together} columns at a time",
    )


def plan_column_sums(problem: ColumnSumProblem, target: Target, threads: int) -> Plan:
    """The plan of sums of columns: slots ``x`` and ``y``."""
    width = VECTORS * target.lanes
    groups = ceil_div(problem.columns, width)
    chunk = width * ceil_div(groups, min(groups, _TASKS_PER_THREAD * threads))
    words: dict[str, Argument] = {
        "a": Slot("x"),
        "y": Slot("y"),
        "a_row": problem.row_stride,
        "rows": problem.rows,
        "columns": problem.columns,
        "chunk": chunk,
        **epilogue_words(problem.epilogue),
    }
    stage = Stage(ColumnSums(problem.epilogue.kind), ceil_div(problem.columns, chunk), words)
    return Plan("column_sums", (stage,), _NO_WEIGHTS, 0, threads, f"{width} columns at a time")


def estimate_product(problem: ProductProblem, target: Target) -> Estimate:
    """What a product of packed weights costs; its error is that of the longest chain of sums."""
    rows, columns, depth = problem.rows, problem.columns, problem.depth
    mr = _tallest(target)
    steps = ceil_div(rows, mr) * mr * ceil_div(columns, target.lanes) * depth
    weight_bytes = STORAGE_BYTES[problem.weight_storage if target.half_conversions else "float32"]
    nbytes = FLOAT_BYTES * rows * (depth + columns) + weight_bytes * columns * depth
    fits = nbytes < target.caches.l3 // 2
    rate = cache_bandwidth(target) if fits else target.rates.memory_bandwidth
    arithmetic, traffic = steps / target.multiply_adds, nbytes / rate
    seconds = max(arithmetic, traffic) + 0.2 * min(arithmetic, traffic)
    return Estimate(seconds, direct_error(min(depth, _STREAMED_CHAIN)))


def _together(rows: int, target: Target) -> int:
    """Columns whose sums, with a vector of each and one of A, leave a register free."""
    return next(n for n in (4, 2, 1) if n * rows + n + 1 < target.registers)


_NO_WEIGHTS = WeightFormat((), 0, ())


def consecutive(strides: MatrixStrides) -> Consecutive:
    """What of an operand with these strides is consecutive."""
    return "depth" if strides[1] == 1 else "rows"


def _operand(name: str, slot: str, strides: MatrixStrides, outer: str) -> dict[str, Argument]:
    stride = strides[0] if consecutive(strides) == "depth" else strides[1]
    return {
        name: Slot(slot),
        f"{name}_{outer}": strides[0],
        f"{name}_step": strides[1],
        f"{name}_stride": stride,
    }


def _choose_blocking(problem: ProductProblem, target: Target, threads: int) -> _Blocking:
    tallest = _tallest(target)
    tiles = ceil_div(problem.rows, tallest)
    # Rows in even tiles: 64 are five of 13, not four of 14 and a rest of 8.
    tile = GemmTile(ceil_div(problem.rows, tiles), _VECTORS)
    lanes = target.lanes
    chain = _even_part(problem.depth, _STREAMED_CHAIN if tiles == 1 else _CACHED_CHAIN, lanes)
    slab = round_up(problem.depth, lanes) if tiles == 1 else chain
    in_cache = max(1, target.caches.l2 // 2 // (FLOAT_BYTES * slab * tile.mr))
    blocks = ceil_div(tiles, in_cache) if tiles > 1 else 1
    block_rows = ceil_div(tiles, blocks) * tile.mr
    blocks = ceil_div(problem.rows, block_rows)
    panels = ceil_div(problem.columns, _VECTORS * lanes)
    chunk = min(panels, _MAX_CHUNK_PANELS)
    if threads > 1:
        chunks = ceil_div(_TASKS_PER_THREAD * threads, blocks)
        chunk = min(chunk, ceil_div(panels, chunks))
    return _Blocking(tile, block_rows, slab, chain, panels, chunk, blocks * ceil_div(panels, chunk))


def _tallest(target: Target) -> int:
    """The most rows of a tile; one register stays free, for the compiler needs one at times."""
    mr = 1
    while GemmTile(mr + 1, _VECTORS).registers(target) < target.registers:
        mr += 1
    return mr


def _even_part(depth: int, most: int, multiple: int) -> int:
    """The depth cut into as few even parts as have at most ``most``."""
    return round_up(ceil_div(depth, ceil_div(depth, most)), multiple)


def _scratch(
    problem: ProductProblem, target: Target, blocking: _Blocking, packed: bool
) -> tuple[dict[str, Argument], int]:
    """The places in a worker's scratch, and its floats."""
    width = blocking.tile.nv * target.lanes
    panel_place = round_up(blocking.block_rows * blocking.slab, 16)
    sums_place = panel_place + (0 if packed else blocking.slab * width)
    sums = 0
    if problem.depth > blocking.chain:
        sums = blocking.block_rows * width * blocking.chunk_panels
    places: dict[str, Argument] = {"panel_place": panel_place, "sums_place": sums_place}
    return places, round_up(sums_place + sums, 16)


def _format(
    problem: ProductProblem, target: Target, width: int, storage: WeightStorage
) -> WeightFormat:
    panels = ceil_div(problem.columns, width)
    words: dict[str, Argument] = {
        "b": Slot("weight"),
        "b_stride": problem.b_strides[0],
        "columns": problem.columns,
        "depth": problem.depth,
        "packed": Slot("packed"),
    }
    stage = Stage(PackPanels(width, storage), panels, words)
    nbytes = STORAGE_BYTES[storage] * panels * width * round_up(problem.depth, target.lanes)
    return WeightFormat(("product", width), nbytes, (stage,), storage)
