"""The weight gradient of depthwise convolution: pixels in the lanes, one pass over both planes.

    gw[k, r, s] = sum over n, i, j of grad[n, k, i, j] * x[n, k // multiplier, i', j']

A task is an output channel. It copies a band of the image's rows, padded and split into the phases
of the stride (`kernels.rows`), after which every tap is a contiguous load. Each tap keeps a vector
of sums. Going down a column of vectors, a row of x is loaded once for each tap column and
multiplied with the gradients of all output rows that see it, which stay in registers: tap rows
that share rows of x are ``spacing`` rows apart, so row t of a spaced walk meets gradient t - q as
the q-th of them,

    acc[q, s] += grad[t - q] * x[t, s].

Sums of a band are added to the totals of the task, in order, and over the lanes at last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.rows import ROW_FIELDS, Region, emit_copy_rows
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.vectors import emit_lane_sum

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value

_FIELDS = {
    **dict.fromkeys(("x", "grad", "y", "scratch"), "pointer"),
    **ROW_FIELDS,
    **dict.fromkeys(
        (
            "scratch_stride",
            "batch",
            "multiplier",
            "out_width",
            "out_height",
            "bands",
            "band_rows",
            "spacing",
            "columns",
            "x_n",
            "grad_n",
            "grad_c",
        ),
        "index",
    ),
}


@dataclass(frozen=True)
class DepthwiseWeightGradient:
    """The stage above. ``phases`` of the copied rows, down and across; ``lanes`` of its vectors.

    ``registers``: vectors that may be held at once. ``accumulate``: sums are added to gw. The word
    ``channels`` is 1: rows are copied plane by plane. A band has at least as many rows in each of
    its ``spacing`` walks as there are tap rows of one phase, less one.
    """

    kernel: tuple[int, int]
    phases: tuple[int, int]
    stride_w: int | None
    lanes: int
    registers: int
    accumulate: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return dict(_FIELDS)

    @property
    def passes(self) -> list[tuple[int, int, int]]:
        """Phase of the tap rows, first tap column and how many: what a function sums at once."""
        result = []
        for phase in range(self.phases[0]):
            rows = len(range(phase, self.kernel[0], self.phases[0]))
            # A pass holds rows * columns sums, as many gradients as rows, and a vector of x.
            columns = max(1, (self.registers - 2 - rows) // rows)
            result += [
                (phase, s, min(columns, self.kernel[1] - s))
                for s in range(0, self.kernel[1], columns)
            ]
        return result

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        asm.lanes = self.lanes  # of all vectors of this kernel
        _Emitter(asm, self).emit()


class _Emitter:
    def __init__(self, asm: Assembler, kernel: DepthwiseWeightGradient) -> None:
        self.asm = asm
        self.kernel = kernel
        self.taps = kernel.kernel[0] * kernel.kernel[1]

    def emit(self) -> None:
        asm = self.asm
        self._emit_copy_function()
        for part in self.kernel.passes:
            self._emit_sum_function(*part)
        with emit_stage(asm, self.kernel.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            with asm.loop(last, start=first) as k:
                self._emit_channel(args, k, scratch)

    def _emit_channel(self, args: Arguments, k: Value, totals: Value) -> None:
        """One output channel, over all images; totals are first in the scratch, then the rows."""
        asm, lanes = self.asm, self.asm.lanes
        rows = totals + self.taps * lanes
        with asm.loop(self.taps) as tap:
            asm.store(asm.zeros(), totals, tap * lanes)
        x = args["x"] + k // args["multiplier"] * args["x_c"]
        grad = args["grad"] + k * args["grad_c"]
        out_height, out_width, band_rows = args.load("out_height", "out_width", "band_rows")
        with asm.loop(args["batch"]) as n, asm.loop(args["bands"]) as band:
            start = band * band_rows
            is_last = band.equals(args["bands"] - 1)
            count = asm.select(is_last, out_height - start, band_rows)
            image, source = x + n * args["x_n"], grad + n * args["grad_n"] + start * out_width
            below = image + (start + count) * args["stride_h"] * args["x_h"]
            following = asm.select(is_last, image + args["x_n"], below)
            next_source = asm.select(
                is_last, grad + (n + 1) * args["grad_n"], source + count * out_width
            )
            asm.call("copy", args.block, image, rows, start, count)
            for phase, column, _ in self.kernel.passes:
                name = f"sum_{phase}_{column}"
                words = source, rows, totals, count, next_source, following
                asm.call(name, args.block, *words)
        self._emit_store(args, k, totals)

    def _emit_store(self, args: Arguments, k: Value, totals: Value) -> None:
        asm = self.asm
        y = args["y"] + k * self.taps
        with asm.loop(self.taps) as tap:
            total = emit_lane_sum(asm, [asm.load(totals, tap * asm.lanes)])
            if self.kernel.accumulate:
                total = total + asm.load_float(y, tap)
            asm.store(total, y, tap)

    def _emit_copy_function(self) -> None:
        asm, kernel = self.asm, self.kernel
        with asm.function(
            "copy", block="pointer", x="pointer", to="pointer", row="index", rows="index"
        ) as (block, x, to, row, rows):
            args = Arguments(asm, block, kernel.fields)
            region = Region(row, rows, asm.index(0), args["columns"])
            emit_copy_rows(asm, args, kernel.stride_w, x, to, region)

    def _emit_sum_function(self, phase: int, column: int, columns: int) -> None:
        """Define ``sum_...``: the sums of one pass over a band, added to the totals."""
        asm, lanes, (kh, kw) = self.asm, self.asm.lanes, self.kernel.kernel
        tap_rows = range(phase, kh, self.kernel.phases[0])
        with asm.function(
            f"sum_{phase}_{column}",
            block="pointer",
            grad="pointer",
            rows="pointer",
            totals="pointer",
            count="index",
            next_grad="pointer",
            next_x="pointer",
        ) as (block, grad, rows, totals, count, next_grad, next_x):
            args = Arguments(asm, block, self.kernel.fields)
            taps = [self._tap_place(args, rows, phase, s) for s in range(column, column + columns)]
            keys = [(q, s) for q in range(len(tap_rows)) for s in range(columns)]
            acc: dict[object, Value] = {key: asm.zeros() for key in keys}
            ahead = _Ahead(args, self.kernel) if (phase, column) == (0, 0) else None
            spacing, pitch, out_width = args.load("spacing", "pitch", "out_width")
            with asm.loop(spacing, carry=acc) as start:
                length = asm.ceil_div(count - start, spacing)
                with asm.loop(out_width, step=lanes, carry=acc) as v:
                    walk = _Walk(
                        grad + start * out_width + v,
                        spacing * out_width,
                        [tap + (start * pitch + v) for tap in taps],
                        spacing * pitch,
                        asm.lanes_below(out_width - v),
                    )
                    if ahead is not None:
                        walk.ahead = ahead.place(next_grad, next_x, start, v)
                    self._emit_walk(walk, len(tap_rows), length, acc)
            for q, s in keys:
                place = (tap_rows[q] * kw + column + s) * lanes
                asm.store(asm.load(totals, place) + acc[q, s], totals, place)

    def _tap_place(self, args: Arguments, rows: Value, phase: int, s: int) -> Value:
        """Where the first row of a phase stands for tap column ``s``."""
        phases_w = self.kernel.phases[1]
        plane = (phase * phases_w + s % phases_w) * args["plane"]
        row = phase * args["dilation_h"] // args["modulus_h"] * args["pitch"]
        return rows + plane + row + s * args["dilation_w"] // args["modulus_w"]

    def _emit_walk(
        self, walk: _Walk, tap_rows: int, length: Value, acc: dict[object, Value]
    ) -> None:
        """Down one column of vectors: rows that not all tap rows see come first and last."""
        asm = self.asm
        window = [asm.zeros()] * tap_rows
        for t in range(tap_rows - 1):
            window = [walk.load_grad(asm), *window[:-1]]
            self._emit_row(walk, window, range(t + 1), acc)
        state: dict[object, Value] = {**acc, **walk.state}
        state |= {f"window{n}": value for n, value in enumerate(window)}
        with asm.loop(length - (tap_rows - 1), carry=state):
            window = [state[f"window{n}"] for n in range(tap_rows)]
            inner = walk.of(state)
            window = [inner.load_grad(asm), *window[:-1]]
            inner.emit_prefetch(asm)
            sums = {key: state[key] for key in acc}
            self._emit_row(inner, window, range(tap_rows), sums)
            state.update(sums)
            state.update(inner.state)
            state.update({f"window{n}": value for n, value in enumerate(window)})
        acc.update({key: state[key] for key in acc})
        window = [state[f"window{n}"] for n in range(tap_rows)]
        last = walk.of(state)
        for t in range(tap_rows - 1):
            window = [asm.zeros(), *window[:-1]]
            self._emit_row(last, window, range(t + 1, tap_rows), acc)

    def _emit_row(
        self, walk: _Walk, window: list[Value], seen: range, acc: dict[object, Value]
    ) -> None:
        """One row of x, by the gradients of the output rows that see it."""
        asm = self.asm
        for s, source in enumerate(walk.rows):
            x = asm.load(source)
            for q in seen:
                acc[q, s] = asm.fma(x, window[q], acc[q, s])
        walk.rows = [row + walk.row_step for row in walk.rows]


class _Ahead:
    """What the next band will read: asked for, a line at a time, while this one is summed.

    Planes are walked column by column of vectors, which no hardware prefetcher follows: beyond the
    caches this takes a third off the time.
    """

    def __init__(self, args: Arguments, kernel: DepthwiseWeightGradient) -> None:
        self.args = args
        self.kernel = kernel

    def place(self, grad: Value, x: Value, start: Value, v: Value) -> _Lines:
        """The lines that belong to a walk: those of its gradients and of the rows under them."""
        spacing, out_width, stride_h, x_h = self.args.load(
            "spacing", "out_width", "stride_h", "x_h"
        )
        phases_h, phases_w = self.kernel.phases
        stride: Index = self.kernel.stride_w or self.args["stride_w"]
        lanes = self.args.asm.lanes
        row = start * stride_h * x_h
        lines = [grad + start * out_width + v]
        lines += [
            x + (row + x_h * p + v * stride + q * lanes)
            for p in range(phases_h)
            for q in range(phases_w)
        ]
        steps = [spacing * out_width] + [spacing * stride_h * x_h] * (phases_h * phases_w)
        return _Lines(lines, steps)


class _Lines:
    """Cache lines to ask for, and how far on they are in the next row."""

    def __init__(self, lines: list[Value], steps: list[Value]) -> None:
        self.lines = lines
        self.steps = steps

    def emit(self, asm: Assembler) -> None:
        """Ask, and go on."""
        for line in self.lines:
            asm.prefetch(line)
        pairs = zip(self.lines, self.steps, strict=True)
        self.lines = [line + step for line, step in pairs]


class _Walk:
    """Where a walk down a column of vectors is: the next gradients, the next row of each tap."""

    def __init__(
        self, grad: Value, grad_step: Value, rows: list[Value], row_step: Value, mask: Value
    ) -> None:
        self.grad = grad
        self.grad_step = grad_step
        self.rows = rows
        self.row_step = row_step
        self.mask = mask
        self.ahead: _Lines | None = None

    @property
    def state(self) -> dict[object, Value]:
        """What changes from row to row."""
        lines = self.ahead.lines if self.ahead else []
        return {
            "grad": self.grad,
            **{f"row{n}": row for n, row in enumerate(self.rows)},
            **{f"line{n}": line for n, line in enumerate(lines)},
        }

    def of(self, state: dict[object, Value]) -> _Walk:
        """The walk at ``state``."""
        rows = [state[f"row{n}"] for n in range(len(self.rows))]
        walk = _Walk(state["grad"], self.grad_step, rows, self.row_step, self.mask)
        if self.ahead:
            steps = self.ahead.steps
            walk.ahead = _Lines([state[f"line{n}"] for n in range(len(steps))], steps)
        return walk

    def emit_prefetch(self, asm: Assembler) -> None:
        """Ask for the lines of the next band that stand where this row does."""
        if self.ahead:
            self.ahead.emit(asm)

    def load_grad(self, asm: Assembler) -> Value:
        """The next row of gradients, zeros beyond its end."""
        value = asm.load(self.grad, mask=self.mask)
        self.grad = self.grad + self.grad_step
        return value
