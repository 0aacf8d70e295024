"""Images whose pixels are weighted sums of pixels of others, rows and columns by themselves.

Interpolation, borders that repeat the image, and the gradients of both are all of this kind:
``y[i, j] = sum_s sum_t R[s, i] C[t, j] x[r[s, i], c[t, j]]``. What differs is in the tables r, c
(places) and R, C (weights), of which each output has the same number of entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.vectors import emit_vectors

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class Resample:
    """The stage ``y[n, i, j] = sum_st R[s, i] C[t, j] x[n, r[s, i], c[t, j]]``, a row a task.

    r is i64 (row_taps, out_height), c i32 (column_taps, out_width). Without ``weigh_rows`` or
    ``weigh_columns`` there is one entry, of weight 1. Weighted rows are summed in ``rows``, a
    row of x for every worker; then columns are gathered from there.
    """

    weigh_rows: bool
    weigh_columns: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = ["x", "y", "row_places", "column_places"]
        names += ["row_weights", "rows"] * self.weigh_rows
        names += ["column_weights"] * self.weigh_columns
        extents = ("height", "width", "out_height", "out_width", "row_taps", "column_taps", "block")
        return {
            **dict.fromkeys(names, "pointer"),
            **dict.fromkeys((*extents, "count"), "index"),
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage; a task is ``block`` of ``count`` rows of y."""
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            stop = asm.minimum(last * args["block"], args["count"])
            with asm.loop(stop, start=first * args["block"]) as number:
                plane, row = number // args["out_height"], number % args["out_height"]
                image = args["x"] + plane * (args["height"] * args["width"])
                source = self._emit_rows(asm, args, image, row, worker)
                target = args["y"] + number * args["out_width"]
                self._emit_columns(asm, args, source, target)

    def _emit_rows(
        self, asm: Assembler, args: Arguments, image: Value, row: Value, worker: Value
    ) -> Value:
        """Sum the rows that a row of y is made of; return where the sum is."""
        width, places = args["width"], args["row_places"]
        if not self.weigh_rows:
            return image + asm.load_index(places, row) * width
        total = args["rows"] + worker * width

        def add(offset: Value, mask: Mask, _: int) -> None:
            carry = {0: asm.zeros()}
            with asm.loop(args["row_taps"], carry=carry) as tap:
                entry = tap * args["out_height"] + row
                pixels = asm.load(image + asm.load_index(places, entry) * width, offset, mask=mask)
                carry[0] = asm.fma(asm.broadcast(args["row_weights"], entry), pixels, carry[0])
            asm.store(carry[0], total, offset, mask=mask)

        emit_vectors(asm, width, add)
        return total

    def _emit_columns(self, asm: Assembler, args: Arguments, source: Value, target: Value) -> None:
        width = args["out_width"]
        every = asm.lanes_below(asm.lanes)

        def gather(entry: Value, mask: Mask) -> Value:
            places = asm.bitcast_to_int(asm.load(args["column_places"], entry, mask=mask))
            return asm.gather_at(source, places, every if mask is None else mask)

        def write(offset: Value, mask: Mask, _: int) -> None:
            if not self.weigh_columns:
                asm.store(gather(offset, mask), target, offset, mask=mask)
                return
            carry = {0: asm.zeros()}
            with asm.loop(args["column_taps"], carry=carry) as tap:
                entry = tap * width + offset
                weights = asm.load(args["column_weights"], entry, mask=mask)
                carry[0] = asm.fma(weights, gather(entry, mask), carry[0])
            asm.store(carry[0], target, offset, mask=mask)

        emit_vectors(asm, width, write)


@dataclass(frozen=True)
class PadConstant:
    """The stage ``y = x`` within borders of ``value``, (planes, height, width), a row a task."""

    @property
    def fields(self) -> dict[str, str]:
        """The argument words; ``top`` and ``left`` are borders."""
        extents = ("height", "width", "out_height", "out_width", "top", "left", "block", "count")
        return {"x": "pointer", "y": "pointer", **dict.fromkeys(extents, "index"), "value": "float"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage; a task is ``block`` of ``count`` rows of y."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            stop = asm.minimum(last * args["block"], args["count"])
            width, left = args.load("width", "left")
            with asm.loop(stop, start=first * args["block"]) as number:
                plane, row = number // args["out_height"], number % args["out_height"]
                target, source_row = args["y"] + number * args["out_width"], row - args["top"]
                inside = (source_row >= 0) & (source_row < args["height"])
                # A row of x, or of nothing at all, between borders.
                copied = asm.select(inside, width, 0)
                begin = asm.select(inside, left, args["out_width"])
                source = args["x"] + (plane * args["height"] + source_row) * width
                _emit_fill(asm, args["value"], target, begin)
                _emit_copy(asm, source, target + begin, copied)
                end = begin + copied
                _emit_fill(asm, args["value"], target + end, args["out_width"] - end)


@dataclass(frozen=True)
class CopyRows:
    """The stage ``y[n, :] = x[n, :]`` of rows of ``width`` floats, each with its own stride.

    A task is a piece of ``part`` floats of a row, of which there are ``parts``.
    """

    @property
    def fields(self) -> dict[str, str]:
        """The argument words; strides are in elements."""
        extents = ("x_stride", "y_stride", "width", "part", "parts")
        return {"x": "pointer", "y": "pointer", **dict.fromkeys(extents, "index")}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                row, start = task // args["parts"], task % args["parts"] * args["part"]
                count = asm.minimum(args["width"] - start, args["part"])
                source = args["x"] + row * args["x_stride"] + start
                _emit_copy(asm, source, args["y"] + row * args["y_stride"] + start, count)


def _emit_copy(asm: Assembler, source: Value, target: Value, count: Value) -> None:
    def copy(offset: Value, mask: Mask, _: int) -> None:
        asm.store(asm.load(source, offset, mask=mask), target, offset, mask=mask)

    emit_vectors(asm, count, copy, unroll=4)


def _emit_fill(asm: Assembler, value: Value, target: Value, count: Value) -> None:
    numbers = asm.splat(value)
    emit_vectors(asm, count, lambda offset, mask, _: asm.store(numbers, target, offset, mask=mask))
