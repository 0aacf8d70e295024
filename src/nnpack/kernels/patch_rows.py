"""Patches with the depth of a weight gradient in their columns: rows of taps and channels.

    X[(p, q, c), d] = x[n, c, i sh + p dh - top, j sw + q dw - left],   d = (n * OH + i) * OW + j

Some rows of it are copied into a panel ``[mr][row]``, the steps of a block side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.packing import StridedLoad
from nnpack.kernels.stage import Arguments, Fields

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value


@dataclass(frozen=True)
class _Rows:
    """Rows of one tap in a panel: their first channel and first row, and where the tap points."""

    x: Value
    to: Value
    count: Value
    top: Value
    left: Value


class PatchRows:
    """Emits ``pack_rows``, for panels of ``mr`` rows that stand ``row`` floats apart.

    Rows overrun by up to a vector. ``stride_w``: the horizontal stride, or None when it is only
    known at run time.
    """

    def __init__(
        self, asm: Assembler, fields: Fields, mr: int, row: int, stride_w: int | None
    ) -> None:
        self.asm = asm
        self.fields = fields
        self.mr = mr
        self.row = row
        self.stride_w = stride_w

    def emit(self) -> None:
        """Define ``pack_rows``: one panel of X, steps ``start .. start + count``, and a 0 each."""
        asm, mr = self.asm, self.mr
        with asm.function(
            "pack_rows",
            block="pointer",
            x="pointer",
            to="pointer",
            panel="index",
            start="index",
            count="index",
        ) as (block, x, to, panel, start, count):
            args = Arguments(asm, block, self.fields)
            channels, kernel_w = args.load("channels", "kernel_w")
            first = panel * mr
            last = asm.minimum(first + mr, channels * args["kernel_h"] * kernel_w)
            with asm.loop((last - 1) // channels + 1, start=first // channels) as tap:
                low = asm.maximum(first, tap * channels)
                rows = _Rows(
                    x + (low - tap * channels) * args["x_c"],
                    to + (low - first) * self.row,
                    asm.minimum(last, (tap + 1) * channels) - low,
                    tap // kernel_w * args["dilation_h"] - args["pad_top"],
                    tap % kernel_w * args["dilation_w"] - args["pad_left"],
                )
                self._emit_tap(args, rows, start, count)
            with asm.loop(mr) as i:
                asm.store(asm.zeros(), to + i * self.row + count)

    def _emit_tap(self, args: Arguments, rows: _Rows, start: Value, count: Value) -> None:
        """The channels of one tap, output row by output row."""
        asm = self.asm
        out_height, out_width = args.load("out_height", "out_width")
        columns = self._inner_columns(args, rows)
        first = start // out_width
        state = {
            "n": first // out_height,
            "i": first % out_height,
            "column": start % out_width,
            "done": asm.index(0),
        }
        with asm.loop((start + count - 1) // out_width + 1 - first, carry=state):
            length = asm.minimum(out_width - state["column"], count - state["done"])
            self._emit_run(args, rows, columns, state, length)
            state["done"] = state["done"] + length
            state["column"] = asm.index(0)
            ends = (state["i"] + 1).equals(out_height)
            state["n"] = asm.select(ends, state["n"] + 1, state["n"])
            state["i"] = asm.select(ends, 0, state["i"] + 1)

    def _stride(self, args: Arguments) -> Index:
        return args["stride_w"] if self.stride_w is None else self.stride_w

    def _inner_columns(self, args: Arguments, rows: _Rows) -> tuple[Value, Value]:
        """The output columns from which the tap sees the image: from the first to before the last.

        There may be none, or more than there are outputs.
        """
        asm, stride = self.asm, self._stride(args)
        first = asm.ceil_div(asm.maximum(0 - rows.left, 0), stride)
        return first, asm.ceil_div(asm.maximum(args["width"] - rows.left, 0), stride)

    def _emit_run(
        self,
        args: Arguments,
        rows: _Rows,
        columns: tuple[Value, Value],
        state: dict[str, Value],
        length: Value,
    ) -> None:
        """Consecutive outputs of one row, a vector at a time; zeros for what is in the padding.

        Beyond the run a vector has anything: what follows in the panel is written later.
        """
        asm, lanes, stride = self.asm, self.asm.lanes, self._stride(args)
        row = state["i"] * args["stride_h"] + rows.top
        column = state["column"] * stride + rows.left
        inside = asm.compare(">=", row, 0) & asm.compare("<", row, args["height"])
        source = rows.x + state["n"] * args["x_n"] + row * args["x_h"] + column
        low = columns[0] - state["column"]
        high = asm.select(inside, columns[1] - state["column"], 0)
        # Floats up to the end of the plane, which may be read: what no run wants is harmless.
        room = (args["height"] - 1 - row) * args["x_h"] + args["width"] - column
        reach = asm.add((lanes - 1) * asm.index(stride), 1)
        with asm.loop(length, step=lanes) as v:
            last = asm.minimum(v + lanes, length)
            whole = (
                asm.compare("<=", low, v)
                & asm.compare(">=", high, last)
                & asm.compare(">=", room, v * stride + reach)
            )
            place, target = source + v * stride, rows.to + state["done"] + v
            with asm.when(whole):
                self._emit_copy(args, rows, StridedLoad(asm, stride, None), place, target)
            with asm.when(whole.equals(0)):
                edge = StridedLoad(asm, stride, (low - v, high - v))
                self._emit_copy(args, rows, edge, place, target)

    def _emit_copy(
        self, args: Arguments, rows: _Rows, load: StridedLoad, source: Value, target: Value
    ) -> None:
        """One vector of every channel."""
        asm = self.asm
        state = {"source": source, "target": target}
        with asm.loop(rows.count, carry=state):
            asm.store(load(state["source"]), state["target"])
            state["source"] = state["source"] + args["x_c"]
            state["target"] = state["target"] + self.row
