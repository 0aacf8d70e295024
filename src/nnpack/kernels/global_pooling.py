"""Global pooling: the greatest or the mean of whole planes, a vector at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.pooling import PLANE_FIELDS, emit_planes
from nnpack.kernels.reduction import Reduction
from nnpack.kernels.stage import emit_stage
from nnpack.pool_problem import PoolKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

# Vectors that are reduced side by side: as many hide the latency of an addition.
_CHAINS = 4


@dataclass(frozen=True)
class GlobalPool:
    """The stage ``y[n, c] = factor * sum x[n, c, :]``, or the greatest; a task is some planes.

    A plane is ``rows`` rows of ``columns`` pixels, ``x_h`` apart. Lanes and chains of a plane are
    combined in an order that only its extents and the target decide.
    """

    kind: PoolKind

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**PLANE_FIELDS, "rows": "index", "columns": "index", "factor": "float"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        reduce = Reduction(asm, self.kind)
        with emit_stage(asm, self.fields) as (args, first, last, _):
            rows, columns, x_h = args.load("rows", "columns", "x_h")
            mask = asm.lanes_below(columns % asm.lanes)
            with emit_planes(asm, args, first, last) as place:
                state = {n: asm.splat(reduce.neutral) for n in range(_CHAINS)}
                with asm.loop(rows, carry=state) as i:
                    _emit_row(asm, reduce, place.x + i * x_h, columns, mask, state)
                value = asm.extract(reduce.lanes(reduce([*state.values()])), 0)
                if self.kind == "average":
                    value = value * args["factor"]
                asm.store(value, place.y)


def _emit_row(
    asm: Assembler,
    reduce: Reduction,
    row: Value,
    columns: Value,
    mask: Value,
    state: dict[int, Value],
) -> None:
    """Reduce a row into the chains; its rest, the lanes of ``mask``, into the last of them."""
    lanes = asm.lanes
    whole, most = columns // lanes * lanes, columns // (_CHAINS * lanes) * (_CHAINS * lanes)
    with asm.loop(most, step=_CHAINS * lanes, carry=state) as v:
        for n in range(_CHAINS):
            state[n] = reduce([state[n], asm.load(row, v + n * lanes)])
    with asm.loop(whole, start=most, step=lanes, carry=state) as v:
        state[0] = reduce([state[0], asm.load(row, v)])
    last = {_CHAINS - 1: state[_CHAINS - 1]}
    with asm.loop(columns, start=whole, step=lanes, carry=last) as v:
        rest = asm.load(row, v, mask=mask)
        rest = asm.select(mask, rest, reduce.neutral)
        last[_CHAINS - 1] = reduce([last[_CHAINS - 1], rest])
    state.update(last)
