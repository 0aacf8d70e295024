"""Products of a few rows with a matrix read where it stands: dot products, depth in the lanes.

Packing the matrix would cost more than multiplying by it. Rows of B are read from beginning to end,
a few at a time, against all rows of A. The sums of as many columns as there are lanes are
turned over together, so that columns stand in the lanes when they are stored.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import Epilogue, epilogue_fields
from nnpack.kernels.gemm import PREFETCH_BYTES
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.transpose import emit_load_transposed
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnpack.codegen.assembler import Assembler, Mask, Value

_FIELDS = {
    **dict.fromkeys(("a", "b", "y"), "pointer"),
    **dict.fromkeys(("a_row", "b_column", "y_row", "columns", "depth", "chunk"), "index"),
}

# Sums that hide the latency of a multiply-add: 4 cycles, at up to 2 a cycle.
_SUMS = 8
_FLOAT_BYTES = 4

MAX_ROWS = 6


@dataclass(frozen=True)
class DotProducts:
    """The stage ``y[m, n] = epilogue(sum_k a[m, k] * b[n, k])`` for all of ``rows`` rows m.

    The depth of both is consecutive. A task is ``chunk`` columns n, a multiple of the lanes, which
    are read ``together`` (a power of two) at a time. Sum
    number l runs over the steps k with ``k // lanes % chains`` and ``k % lanes`` in common.
    """

    rows: int
    together: int
    epilogue: EpilogueKind

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**_FIELDS, **epilogue_fields(self.epilogue)}

    @property
    def chains(self) -> int:
        """Sums for each row and column."""
        return max(1, _SUMS // (self.rows * self.together))

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _emit_dots_function(asm, self)
        with emit_stage(asm, self.fields) as (args, first, last, _):
            columns, chunk = args.load("columns", "chunk")
            end = asm.minimum(last * chunk, columns)
            with asm.loop(end, start=first * chunk, step=asm.lanes) as column:
                self._emit_columns(args, column, asm.minimum(end - column, asm.lanes))

    def _emit_columns(self, args: Arguments, column: Value, count: Value) -> None:
        """As many columns as there are lanes: sums first, then all of them turned and stored."""
        asm, lanes = args.asm, args.asm.lanes
        buffer = asm.local_floats(self.rows * lanes * lanes)
        with asm.loop(count, step=self.together) as n:
            asm.call("dots", args.block, args["b"] + column * args["b_column"], n, count, buffer)
        epilogue = Epilogue(asm, self.epilogue, args)
        mask = asm.lanes_below(count)
        terms = epilogue.of_lanes(column, mask)
        for m in range(self.rows):
            place = buffer + m * lanes * lanes
            vectors = emit_load_transposed(asm, lanes, functools.partial(_sums_of, place))
            target = args["y"] + m * args["y_row"] + column
            value = epilogue.prepare(_sum(vectors), terms)
            epilogue.store(value, target, mask=mask, terms=terms)


def _sums_of(buffer: Value, column: int, lanes: int) -> Value:
    """The sums of one column that are yet to be added up."""
    return buffer.asm.load(buffer, column * lanes)


def _sum(vectors: Sequence[Value]) -> Value:
    """The sum of all, pairwise."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        vectors = [vectors[n] + vectors[half + n] for n in range(half)]
    return vectors[0]


def _emit_dots_function(asm: Assembler, kernel: DotProducts) -> None:
    """Define ``dots``: the sums of the columns from n on, of ``count``, into ``buffer``.

    ``buffer[m][n]`` is a vector of sums yet to be added up. A column beyond the last is the last.
    """
    lanes, together = asm.lanes, kernel.together
    with asm.function(
        "dots", block="pointer", b="pointer", n="index", count="index", buffer="pointer"
    ) as (block, b, n, count, buffer):
        args = Arguments(asm, block, kernel.fields)
        columns = [asm.minimum(n + r, count - 1) for r in range(together)]
        sources = [b + column * args["b_column"] for column in columns]
        rows = [args["a"] + m * args["a_row"] for m in range(kernel.rows)]
        depth, step = args["depth"], kernel.chains * lanes
        sums = {
            (chain, m, r): asm.zeros()
            for chain in range(kernel.chains)
            for m in range(kernel.rows)
            for r in range(together)
        }
        whole = depth - depth % step
        with asm.loop(whole, step=step, carry=sums) as k:
            ahead = _ahead(asm, kernel, args, k)
            for chain in range(kernel.chains):
                for source in sources:
                    asm.prefetch(source + ahead, chain * lanes)
                _emit_step(asm, rows, sources, k + chain * lanes, chain, None, sums)
        with asm.loop(depth, start=whole, step=lanes, carry=sums) as k:
            _emit_step(asm, rows, sources, k, 0, asm.lanes_below(depth - k), sums)
        for m in range(kernel.rows):
            for r in range(together):
                total = sums[0, m, r]
                for chain in range(1, kernel.chains):
                    total = total + sums[chain, m, r]
                place = buffer + (n + r) * lanes
                asm.store(total, place, m * lanes * lanes)


def _ahead(asm: Assembler, kernel: DotProducts, args: Arguments, k: Value) -> Value:
    """What is asked for while step k is read: behind a column's end, the columns that follow."""
    ahead = k + PREFETCH_BYTES // _FLOAT_BYTES
    beyond = args["b_column"] * kernel.together - args["depth"]
    return asm.select(ahead >= args["depth"], ahead + beyond, ahead)


def _emit_step(
    asm: Assembler,
    rows: Sequence[Value],
    sources: Sequence[Value],
    k: Value,
    chain: int,
    mask: Mask,
    sums: dict[tuple[int, int, int], Value],
) -> None:
    """A vector of steps of every row and column."""
    b = [asm.load(source, k, mask=mask) for source in sources]
    for m, row in enumerate(rows):
        a = asm.load(row, k, mask=mask)
        for r, vector in enumerate(b):
            sums[chain, m, r] = asm.fma(a, vector, sums[chain, m, r])
