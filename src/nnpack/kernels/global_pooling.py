"""Global pooling: the greatest or the mean of whole planes, a vector at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.pooling import PLANE_FIELDS
from nnpack.kernels.reduction import Reduction
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.pool_problem import PoolKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

# Vectors that are reduced side by side: as many hide the latency of an addition.
_CHAINS = 4
# Pixels of longer rows that are reduced by themselves.
PIECE = 1 << 16


@dataclass(frozen=True)
class GlobalPool:
    """The stage ``y[n, c] = factor * sum x[n, c, :]``, or the greatest; a task is some planes.

    A plane is ``rows`` rows of ``columns`` pixels, ``x_h`` apart; numbers of y of an image are side
    by side. Lanes and chains of a plane are combined in an order that only its extents and the
    target decide, those of as many planes as there are lanes at once. With ``pieces`` rows are
    longer than ``PIECE`` pixels, and chains no longer than those of a piece.
    """

    kind: PoolKind
    pieces: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**PLANE_FIELDS, "rows": "index", "columns": "index", "factor": "float"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        reduce, lanes = Reduction(asm, self.kind), asm.lanes
        with emit_stage(asm, self.fields) as (args, first, last, _):
            plane = _Plane(asm, reduce, args, self.pieces)
            # In memory, for registers do not hold the chains of so many planes.
            found = asm.local_floats(lanes * lanes)
            with asm.loop(lanes) as n:
                asm.store(asm.zeros(), found, n * lanes)
            for x, y, count in _each_image(asm, args, first, last):
                with asm.loop(count, step=lanes) as c:
                    with asm.loop(asm.minimum(count - c, lanes)) as n:
                        asm.store(plane.reduced(x, c + n), found, n * lanes)
                    value = reduce.across([asm.load(found, n * lanes) for n in range(lanes)])
                    if self.kind == "average":
                        value = value * asm.splat(args["factor"])
                    asm.store(value, y, c, mask=asm.lanes_below(count - c))


def _each_image(
    asm: Assembler, args: Arguments, first: Value, last: Value
) -> Iterator[tuple[Value, Value, Value]]:
    """The loop over the images of tasks first .. last: x and y of the first plane, their number."""
    size, channels = args.load("task_planes", "channels")
    start, stop = first * size, asm.minimum(last * size, args["planes"])
    with asm.loop(asm.ceil_div(stop, channels), start=start // channels) as n:
        begin = asm.maximum(start - n * channels, 0)
        x = args["x"] + n * args["x_n"] + begin * args["x_c"]
        y = args["y"] + n * args["y_n"] + begin
        yield x, y, asm.minimum(stop - n * channels, channels) - begin


class _Plane:
    """Reduces planes to a vector each."""

    def __init__(self, asm: Assembler, reduce: Reduction, args: Arguments, pieces: bool) -> None:
        self._asm = asm
        self._reduce = reduce
        self._pieces = pieces
        self._rows, self._columns, self._x_h, self._x_c = args.load("rows", "columns", "x_h", "x_c")
        self._mask = asm.lanes_below(self._columns % asm.lanes)

    def reduced(self, x: Value, number: Value) -> Value:
        """Lane by lane what plane ``number`` behind x is reduced to."""
        plane = x + number * self._x_c
        chains = self._neutral()
        with self._asm.loop(self._rows, carry=chains) as i:
            row = plane + i * self._x_h
            if self._pieces:
                self._emit_pieces(row, chains)
            else:
                self._emit_row(row, self._columns, chains)
        return self._reduce([*chains.values()])

    def _neutral(self) -> dict[int, Value]:
        return dict.fromkeys(range(_CHAINS), self._asm.splat(self._reduce.neutral))

    def _emit_pieces(self, row: Value, chains: dict[int, Value]) -> None:
        """Reduce a row into the chains, a piece after the other."""
        asm, columns = self._asm, self._columns
        with asm.loop(columns, step=PIECE, carry=chains) as begin:
            piece = self._neutral()
            self._emit_row(row + begin, asm.minimum(columns - begin, PIECE), piece)
            for n, value in piece.items():
                chains[n] = self._reduce([chains[n], value])

    def _emit_row(self, row: Value, columns: Value, chains: dict[int, Value]) -> None:
        """Reduce a row into the chains; its rest, the lanes of the mask, into the last of them."""
        asm, reduce, lanes = self._asm, self._reduce, self._asm.lanes
        whole, most = columns // lanes * lanes, columns // (_CHAINS * lanes) * (_CHAINS * lanes)
        with asm.loop(most, step=_CHAINS * lanes, carry=chains) as v:
            for n in range(_CHAINS):
                chains[n] = reduce([chains[n], asm.load(row, v + n * lanes)])
        with asm.loop(whole, start=most, step=lanes, carry=chains) as v:
            chains[0] = reduce([chains[0], asm.load(row, v)])
        last = {_CHAINS - 1: chains[_CHAINS - 1]}
        with asm.loop(columns, start=whole, step=lanes, carry=last) as v:
            rest = asm.load(row, v, mask=self._mask)
            rest = asm.select(self._mask, rest, reduce.neutral)
            last[_CHAINS - 1] = reduce([last[_CHAINS - 1], rest])
        chains.update(last)
