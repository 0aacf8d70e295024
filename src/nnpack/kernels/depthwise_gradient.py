"""The weight gradient of depthwise convolution: pixels in the lanes, one pass over both planes.

    gw[k, r, s] = sum over n, i, j of grad[n, k, i, j] * x[n, k // multiplier, i', j']

A task is some output channels next to each other, so that both arrays are read in long pieces; each
tap of a channel has a vector of sums. Nothing is copied: a tap column reads a row of x where it
stands, masked at both ends of the row. Going down a column of vectors, a row of x is loaded once
for each tap column (once for all that stand next to each other where a stride lets them share it)
and multiplied with the gradients of all output rows that see it, which stay in registers: tap rows
that share rows of x are ``spacing`` output rows apart, so row u of a spaced walk meets gradient
u - q as the q-th of them,

    acc[q, s] += grad[u - q] * x[u, s].

Sums of a band are added to the totals of the task, in order; those of each chunk of images are
totals of their own, which are added pairwise, and over the lanes at last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.pairwise import PAIRWISE_FIELDS, emit_pairwise_sum
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.taps import TapLoad
from nnpack.kernels.vectors import emit_lane_sum

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

_FIELDS = {
    **dict.fromkeys(("x", "grad", "y", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "batch",
            "chunk_images",
            "out_channels",
            "task_channels",
            "call_channels",
            "multiplier",
            "height",
            "width",
            "out_height",
            "out_width",
            "stride_h",
            "stride_w",
            "dilation_h",
            "dilation_w",
            "pad_top",
            "pad_left",
            "x_n",
            "x_c",
            "x_h",
            "grad_n",
            "grad_c",
            "bands",
            "band_rows",
            "spacing",
            "inner_first",
            "inner_last",
            "x_ahead",
            "grad_ahead",
        ),
        "index",
    ),
}


@dataclass(frozen=True)
class DepthwiseWeightGradient:
    """The stage above; a task is ``task_channels`` output channels.

    ``row_phases``: tap rows so far apart read the same rows of x. ``stride_w``: the horizontal
    stride where rows are loaded whole, or None when they are gathered. ``adjacent``: the horizontal
    dilation is 1. ``lanes``: of its vectors. ``registers``: vectors that may be held at once.
    ``accumulate``: sums are added to gw.

    Functions are called for ``call_channels`` planes at a time, of successive channels; more than
    one if there is one band and no multiplier. A band has at least as many rows in each of its
    ``spacing`` walks as there are tap rows of one phase, less one. From column ``inner_first`` to
    ``inner_last`` all taps of whole vectors are inside the image and the output. What is
    ``x_ahead`` and ``grad_ahead`` further on is read soon.
    """

    kernel: tuple[int, int]
    row_phases: int
    stride_w: int | None
    adjacent: bool
    lanes: int
    registers: int
    accumulate: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**_FIELDS, **PAIRWISE_FIELDS}

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def passes(self) -> list[tuple[int, int, int]]:
        """Phase of the tap rows, first tap column and how many: what a function sums at once."""
        result = []
        for phase in range(self.row_phases):
            rows = len(range(phase, self.kernel[0], self.row_phases))
            # A pass holds rows * columns sums, as many gradients as rows, and a vector of x.
            columns = max(1, (self.registers - 2 - rows) // rows)
            result += [
                (phase, s, min(columns, self.kernel[1] - s))
                for s in range(0, self.kernel[1], columns)
            ]
        return result

    def tap_groups(self, first: int, columns: int) -> list[tuple[int, int]]:
        """Of ``columns`` tap columns those that are loaded together: the first, and how many."""
        size = (self.stride_w or 1) if self.adjacent else 1
        end = first + columns
        return [(s, min(size, end - s)) for s in range(first, end, size)]

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        asm.lanes = self.lanes  # of all vectors of this kernel
        for part in self.passes:
            for edge in (False, True):
                _emit_sum_function(asm, self, part, edge)
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            totals = args["scratch"] + worker * args["scratch_stride"]
            with asm.loop(last, start=first) as task:
                _emit_task(args, self, task * args["task_channels"], totals)


def _name(part: tuple[int, int, int], edge: bool) -> str:
    phase, column, _ = part
    return f"{'edge' if edge else 'inner'}_{phase}_{column}"


def _emit_task(args: Arguments, kernel: DepthwiseWeightGradient, k: Value, totals: Value) -> None:
    """Output channels ``k ..``, over all images; their totals are in the scratch."""
    asm = args.asm
    count = asm.minimum(args["out_channels"] - k, args["task_channels"])
    floats = kernel.taps * kernel.lanes
    chunk_floats = args["task_channels"] * floats
    with asm.loop(args["chunks"]) as chunk:
        chunk_totals, start = totals + chunk * chunk_floats, chunk * args["chunk_images"]
        with asm.loop(count * floats, step=kernel.lanes) as place:
            asm.store(asm.zeros(), chunk_totals, place)
        stop = asm.minimum(start + args["chunk_images"], args["batch"])
        with asm.loop(stop, start=start) as n, asm.loop(count, step=args["call_channels"]) as c:
            x = args["x"] + n * args["x_n"] + (k + c) // args["multiplier"] * args["x_c"]
            grad = args["grad"] + n * args["grad_n"] + (k + c) * args["grad_c"]
            planes = asm.minimum(count - c, args["call_channels"])
            _emit_planes(args, kernel, (x, grad, chunk_totals + c * floats, planes))
    emit_pairwise_sum(args, totals, chunk_floats, count * floats)
    y = args["y"] + k * kernel.taps
    with asm.loop(count * kernel.taps) as tap:
        total = emit_lane_sum(asm, [asm.load(totals, tap * kernel.lanes)])
        if kernel.accumulate:
            total = total + asm.load_float(y, tap)
        asm.store(total, y, tap)


def _emit_planes(
    args: Arguments, kernel: DepthwiseWeightGradient, planes: tuple[Value, Value, Value, Value]
) -> None:
    """``planes``, first x, first gradient, first total and how many, band by band."""
    asm = args.asm
    out_height, bands, band_rows = args.load("out_height", "bands", "band_rows")
    has_inner = args["inner_first"] < args["inner_last"]
    has_edge = args["inner_last"] - args["inner_first"] < args["out_width"]
    with asm.loop(bands) as band:
        start = band * band_rows
        count = asm.select(band.equals(bands - 1), out_height - start, band_rows)
        for part in kernel.passes:
            for edge, exists in ((False, has_inner), (True, has_edge)):
                with asm.when(exists):
                    asm.call(_name(part, edge), args.block, *planes, start, count)


def _emit_sum_function(
    asm: Assembler, kernel: DepthwiseWeightGradient, part: tuple[int, int, int], edge: bool
) -> None:
    """Define the sums of one pass over a band of ``planes``, added to their totals.

    They are over the vectors of columns inside, or those at the ``edge``, left and right.
    """
    phase = part[0]
    tap_rows = len(range(phase, kernel.kernel[0], kernel.row_phases))
    with asm.function(
        _name(part, edge),
        block="pointer",
        x="pointer",
        grad="pointer",
        totals="pointer",
        planes="index",
        start="index",
        count="index",
    ) as (block, x, grad, totals, planes, start, count):
        args = Arguments(asm, block, kernel.fields)
        with asm.loop(args["spacing"]) as first:
            rows = _Rows(args, phase, tap_rows, start, count, first)
            place = {"x": x, "grad": grad, "totals": totals}
            with asm.loop(planes, carry=place):
                _emit_plane(args, kernel, part, edge, rows, place)
                place["x"] = place["x"] + args["x_c"]
                place["grad"] = place["grad"] + args["grad_c"]
                place["totals"] = place["totals"] + kernel.taps * kernel.lanes


def _emit_plane(
    args: Arguments,
    kernel: DepthwiseWeightGradient,
    part: tuple[int, int, int],
    edge: bool,
    rows: _Rows,
    place: dict[str, Value],
) -> None:
    """Columns of vectors from left to right, and what they sum to added to the totals."""
    asm, (phase, column, columns) = args.asm, part
    acc: dict[object, Value] = {
        (q, s): asm.zeros() for q in range(rows.tap_rows) for s in range(columns)
    }
    inner_first, inner_last = args.load("inner_first", "inner_last")
    width = inner_last - inner_first
    vectors = args["out_width"] - width if edge else width
    with asm.loop(vectors, step=kernel.lanes, carry=acc) as n:
        left = asm.select(n < inner_first, n, n + width) if edge else n + inner_first
        load = _ColumnLoad(args, kernel, part, left, edge)
        _Walk(asm, rows, load, place["x"], place["grad"]).emit(acc)
    for q in range(rows.tap_rows):
        row = (phase + q * kernel.row_phases) * kernel.kernel[1] + column
        for s in range(columns):
            total = place["totals"] + (row + s) * kernel.lanes
            asm.store(asm.load(total) + acc[q, s], total)


class _Rows:
    """The rows of a walk: ``length`` output rows from ``out_row`` on, rows of x from ``row`` on.

    Rows u of x with ``low <= u < high`` are inside the image; of those, all tap rows see
    ``begin <= u < end``.
    """

    def __init__(
        self,
        args: Arguments,
        phase: int,
        tap_rows: int,
        start: Value,
        count: Value,
        first: Value,
    ) -> None:
        asm = args.asm
        self.tap_rows = tap_rows
        self.out_row = start + first
        self.row = self.out_row * args["stride_h"] + phase * args["dilation_h"] - args["pad_top"]
        self.out_step = args["spacing"]
        self.step = self.out_step * args["stride_h"]
        self.length = asm.ceil_div(count - first, self.out_step)
        self.low = asm.ceil_div(asm.maximum(0 - self.row, 0), self.step)
        self.high = asm.ceil_div(asm.maximum(args["height"] - self.row, 0), self.step)
        self.begin = asm.minimum(asm.maximum(self.low, tap_rows - 1), self.length)
        self.end = asm.maximum(asm.minimum(self.high, self.length), self.begin)


class _ColumnLoad:
    """Loads a vector of columns, from output column ``left`` on: gradients, and x of every tap."""

    def __init__(
        self,
        args: Arguments,
        kernel: DepthwiseWeightGradient,
        part: tuple[int, int, int],
        left: Value,
        edge: bool,
    ) -> None:
        asm, (_, first, columns) = args.asm, part
        self.args = args
        self.left = left
        self.stride: Index = args["stride_w"] if kernel.stride_w is None else kernel.stride_w
        self.is_first = first == 0
        outputs = args["out_width"] - left
        self.grad_mask: Mask = asm.lanes_below(outputs) if edge else None
        self.column = left * self.stride - args["pad_left"]
        self.loads = []
        for s, count in kernel.tap_groups(first, columns):
            offset = asm.index(s) * args["dilation_w"]
            bounds = None
            if edge:
                place = self.column + offset
                inside = asm.minimum(args["width"] - place, outputs * self.stride)
                bounds = 0 - place, inside
            self.loads.append((offset, self._of_group(asm, kernel.stride_w, count, bounds)))

    def _of_group(
        self, asm: Assembler, stride: int | None, taps: int, bounds: tuple[Value, Value] | None
    ) -> _Gather | TapLoad:
        if stride is None:
            return _Gather(asm, self.stride, bounds)
        return TapLoad(asm, stride, taps, bounds)

    def of_x(self, row: Value) -> list[Value]:
        """Every tap column of the row of x whose vector begins at ``row``."""
        return [vector for offset, load in self.loads for vector in load(row + offset)]

    def ask_ahead(self, asm: Assembler, row: Value, grad: Value) -> None:
        """Ask for the lines of the next band, or plane, that stand where this row does.

        Into the second-level cache: asked for into the first, they take the few places in which it
        waits for lines (32 channels @112, batch 16: 5.0 ms where this takes 2.8).
        """
        if not self.is_first:
            return
        asm.prefetch(grad + self.args["grad_ahead"], level=2)
        vectors = self.stride if isinstance(self.stride, int) else 1
        for n in range(vectors):
            asm.prefetch(row + self.args["x_ahead"], n * asm.lanes, level=2)


class _Gather:
    """Loads lanes l from ``pointer + l * stride``; zeros outside ``bounds``, counted in floats."""

    def __init__(self, asm: Assembler, stride: Index, bounds: tuple[Value, Value] | None) -> None:
        self.asm = asm
        self.stride = stride
        low, high = bounds or (asm.index(0), asm.index(asm.lanes) * stride)
        low, high = (asm.ceil_div(asm.maximum(bound, 0), stride) for bound in (low, high))
        self.mask = asm.lanes_between(low, high)

    def __call__(self, pointer: Value) -> list[Value]:
        """Load."""
        return [self.asm.gather(pointer, self.stride, self.mask)]


class _Walk:
    """A walk down a column of vectors: row u of x by the gradients u - q that see it."""

    def __init__(
        self, asm: Assembler, rows: _Rows, load: _ColumnLoad, x: Value, grad: Value
    ) -> None:
        args = load.args
        self.asm = asm
        self.rows = rows
        self.load = load
        self.tap_rows = rows.tap_rows
        self.grad_step = rows.out_step * args["out_width"]
        self.row_step = rows.step * args["x_h"]
        self.grad = grad + rows.out_row * args["out_width"] + load.left
        self.row = x + rows.row * args["x_h"] + load.column

    def emit(self, acc: dict[object, Value]) -> None:
        """Rows that not all tap rows see come first and last."""
        asm, rows = self.asm, self.rows
        for t in range(self.tap_rows - 1):
            self._emit_single(asm.index(t), range(t + 1), acc)
        self._emit_all_seen(acc)
        for t in range(self.tap_rows - 1):
            self._emit_single(rows.length + t, range(t + 1, self.tap_rows), acc)

    def _emit_single(self, u: Value, seen: range, acc: dict[object, Value]) -> None:
        """Row u of x, if it is inside the image."""
        asm, rows = self.asm, self.rows
        inside = (u >= rows.low) & (u < rows.high)
        with asm.loop(asm.select(inside, asm.index(1), asm.index(0)), carry=acc):
            window = {q: self._gradient(u - q) for q in seen}
            self._emit_row(self.row + u * self.row_step, window, acc)

    def _emit_all_seen(self, acc: dict[object, Value]) -> None:
        asm, rows = self.asm, self.rows
        inner = range(1, self.tap_rows)
        state: dict[object, Value] = {f"window{q}": self._gradient(rows.begin - q) for q in inner}
        state["grad"] = self.grad + rows.begin * self.grad_step
        state["row"] = self.row + rows.begin * self.row_step
        state |= acc
        with asm.loop(rows.end, start=rows.begin, carry=state):
            row, grad = state["row"], state["grad"]
            window = {0: asm.load(grad, mask=self.load.grad_mask)}
            window |= {q: state[f"window{q}"] for q in inner}
            self.load.ask_ahead(asm, row, grad)
            self._emit_row(row, window, state)
            state.update({f"window{q}": window[q - 1] for q in inner})
            state["row"], state["grad"] = row + self.row_step, grad + self.grad_step
        acc.update({key: state[key] for key in acc})

    def _gradient(self, u: Value) -> Value:
        return self.asm.load(self.grad + u * self.grad_step, mask=self.load.grad_mask)

    def _emit_row(self, row: Value, window: dict[int, Value], acc: dict[object, Value]) -> None:
        for s, x in enumerate(self.load.of_x(row)):
            for q, gradient in window.items():
                acc[q, s] = self.asm.fma(x, gradient, acc[q, s])
