"""Sums of the columns of a matrix whose columns are consecutive: the gradient of a bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import Epilogue, epilogue_fields
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnpack.codegen.assembler import Assembler, Mask, Value

_FIELDS = {
    **dict.fromkeys(("a", "y"), "pointer"),
    **dict.fromkeys(("a_row", "rows", "columns", "chunk"), "index"),
}

# Vectors side by side: the longer the pieces of rows that are read, the more comes at once.
VECTORS = 8
# Rows are asked for ahead, for nothing else can tell what a stride of many pages leads to.
_ROWS_AHEAD = 8
_LINE = 16
# Rows added up in one chain; longer sums are sums of such chains.
_CHAIN = 256


@dataclass(frozen=True)
class ColumnSums:
    """The stage ``y[n] = epilogue(sum_m a[m, n])``; a task is ``chunk`` columns.

    ``chunk`` is a multiple of ``VECTORS`` vectors.
    """

    epilogue: EpilogueKind

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**_FIELDS, **epilogue_fields(self.epilogue)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            columns, chunk = args.load("columns", "chunk")
            width = VECTORS * asm.lanes
            end = asm.minimum(last * chunk, columns)
            with asm.loop(end, start=first * chunk, step=width) as column:
                rest = end - column
                with asm.when(rest >= width):
                    self._emit_columns(args, column, [None] * VECTORS)
                with asm.when(rest < width):
                    starts = range(0, width, asm.lanes)
                    self._emit_columns(args, column, [asm.lanes_below(rest - n) for n in starts])

    def _emit_columns(self, args: Arguments, column: Value, masks: Sequence[Mask]) -> None:
        asm = args.asm
        rows, a_row = args.load("rows", "a_row")
        totals = {n: asm.zeros() for n in range(VECTORS)}
        with asm.loop(rows, step=_CHAIN, carry=totals) as start:
            sums: dict[object, Value] = {n: asm.zeros() for n in range(VECTORS)}
            sums["a"] = args["a"] + column + start * a_row
            with asm.loop(asm.minimum(rows - start, _CHAIN), carry=sums):
                ahead = sums["a"] + a_row * _ROWS_AHEAD
                for n, mask in enumerate(masks):
                    if n * asm.lanes % _LINE == 0:
                        asm.prefetch(ahead, n * asm.lanes)
                    sums[n] = sums[n] + asm.load(sums["a"], n * asm.lanes, mask=mask)
                sums["a"] = sums["a"] + a_row
            for n in range(VECTORS):
                totals[n] = totals[n] + sums[n]
        epilogue = Epilogue(asm, self.epilogue, args)
        for n, mask in enumerate(masks):
            terms = epilogue.of_lanes(column + n * asm.lanes, mask)
            value = epilogue.prepare(totals[n], terms)
            epilogue.store(value, args["y"] + column, n * asm.lanes, mask=mask, terms=terms)
