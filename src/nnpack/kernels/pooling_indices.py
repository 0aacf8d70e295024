"""Max pooling that also says where each maximum is.

Of equal maxima the first in row-major order counts, of several NaNs the last, as in PyTorch:
a tap takes the place of the greatest so far when it is greater, or NaN, or the first of its window.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.packing import StridedLoad
from nnpack.kernels.pooling import PLANE_FIELDS, WINDOW_FIELDS, Span, emit_planes, emit_span
from nnpack.kernels.stage import Arguments, emit_stage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class PoolWithIndices:
    """The stage ``y[n, c, i, j] = x[n, c, k]``, ``indices[n, c, i, j] = k``, k in window (i, j).

    k counts the pixels of a plane row by row; planes have less than 2^31. ``stride_w``: that of
    vectors, None where outputs are computed one by one. ``indices`` is dense, as y is, and may be
    of the size of two floats each. A task is some planes.
    """

    stride_w: int | None
    adaptive: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**PLANE_FIELDS, **WINDOW_FIELDS, "indices": "pointer"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            emitter = _Emitter(asm, self, args)
            with emit_planes(asm, args, first, last) as place:
                offset = place.plane * (args["out_height"] * args["out_width"])
                with asm.loop(args["out_height"]) as i:
                    target = offset + i * args["out_width"]
                    emitter.emit_row(place.x, place.y + i * args["y_h"], target, i)


class _Emitter:
    """Emits rows of outputs."""

    def __init__(self, asm: Assembler, pool: PoolWithIndices, args: Arguments) -> None:
        self.asm = asm
        self.pool = pool
        self.args = args

    def emit_row(self, x: Value, y: Value, target: Value, row: Value) -> None:
        """Compute output row ``row``, whose indices go to ``target`` and on."""
        asm, width = self.asm, self.args["out_width"]
        rows = emit_span(asm, self.args, "h", row, adaptive=self.pool.adaptive)
        indices = asm.index_pointer(self.args["indices"], target)
        if self.pool.stride_w is None:
            with asm.loop(width) as j:
                best, index = self._float(x, rows, j)
                asm.store(best, y, j)
                asm.store_index(index, indices, j)
            return
        with asm.loop(width, step=asm.lanes) as v:
            mask = asm.lanes_below(width - v)
            best, index = self._vector(x, rows, v)
            asm.store(best, y, v, mask=mask)
            asm.store_indices(index, indices, v, mask=mask)

    def _float(self, x: Value, rows: Span, column: Value) -> tuple[Value, Value]:
        """The greatest of one window, and its place."""
        asm, args = self.asm, self.args
        columns = emit_span(asm, args, "w", column, adaptive=self.pool.adaptive)
        state = {"best": asm.extract(asm.splat(-math.inf), 0), "index": asm.index(-1)}
        with asm.loop(rows.high, start=rows.low, carry=state) as r:
            row = rows.start + r * rows.step
            with asm.loop(columns.high, start=columns.low, carry=state) as s:
                place = columns.start + s * columns.step
                value = asm.load_float(x + row * args["x_h"], place)
                self._take(state, value, row * args["width"] + place, None)
        return state["best"], state["index"]

    def _vector(self, x: Value, rows: Span, column: Value) -> tuple[Value, Value]:
        """The greatest of a vector of windows, and their places."""
        asm, args, stride = self.asm, self.args, self.pool.stride_w
        assert stride is not None
        width = args["width"]
        spread = asm.lane_numbers() * stride
        state = {"best": asm.splat(-math.inf), "index": asm.splat_index(-1)}
        with asm.loop(rows.high, start=rows.low, carry=state) as r:
            row = rows.start + r * rows.step
            with asm.loop(args["kernel_w"], carry=state) as s:
                place = column * stride + s * args["dilation_w"] - args["pad_left"]
                low = asm.ceil_div(asm.maximum(0 - place, 0), stride)
                high = asm.ceil_div(asm.maximum(width - place, 0), stride)
                load = StridedLoad(asm, stride, (low, high))
                value = load(x + row * args["x_h"] + place)
                index = asm.splat_index(row * width + place) + spread
                self._take(state, value, index, asm.lanes_between(low, high))
        return state["best"], state["index"]

    def _take(
        self, state: dict[str, Value], value: Value, index: Value, inside: Value | None
    ) -> None:
        """Keep ``value`` where it is inside and greater than the best, NaN, or the first."""
        asm = self.asm
        number = asm.compare("ord", value, value)
        better = (value > state["best"]) | number.equals(0) | (state["index"] < 0)
        if inside is not None:
            better = better & inside
        state["best"] = asm.select(better, value, state["best"])
        state["index"] = asm.select(better, index, state["index"])
