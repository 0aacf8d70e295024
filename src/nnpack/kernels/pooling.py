"""Pooling: the greatest or the mean of the pixels of a window, rows first.

A window is a rectangle of taps, so that its reduction parts into two: of its rows, column by
column of the image, in full vectors whatever the stride; and of what that leaves, ``kw`` values
``dw`` apart. Between them stands a *line*, a row of the image's width for each output row, with
neutral values (minus infinity, zero) beyond both ends, so that nothing there needs a mask. Rows
outside the image are read from a line of neutral values.

A block of output rows, whose lines stay in the first-level cache, is reduced down, then across.
Windows that share no columns need no lines: they are reduced down and across in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.reduction import Reduction
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.taps import TapLoad
from nnpack.pool_problem import PoolKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

# Taps that are unrolled in a direction, and strides whose vectors are loaded and shuffled.
MAX_UNROLLED = 8
MAX_SHUFFLED_STRIDE = 4

PLANE_FIELDS = {
    **dict.fromkeys(("x", "y"), "pointer"),
    **dict.fromkeys(
        ("planes", "task_planes", "channels", "x_n", "x_c", "x_h", "y_n", "y_c", "y_h"), "index"
    ),
}
WINDOW_FIELDS = dict.fromkeys(
    (
        "height",
        "width",
        "out_height",
        "out_width",
        "kernel_h",
        "kernel_w",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
        "pad_top",
        "pad_left",
    ),
    "index",
)
_LINE_FIELDS = {
    "scratch": "pointer",
    **dict.fromkeys(
        (
            "scratch_stride",
            "inverses",
            "lines",
            "block_rows",
            "pitch",
            "count_top",
            "count_bottom",
            "count_left",
            "count_right",
        ),
        "index",
    ),
    "factor": "float",
}


@dataclass(frozen=True)
class Pool:
    """The stage ``y[n, c, i, j] = reduction of window (i, j)``; a task is some planes.

    ``kernel``: taps down and across that are unrolled, None where they are counted at run time.
    ``stride_w``: None where outputs are computed one by one. ``adjacent``: taps of a row are side
    by side. ``equal``: means are sums times ``factor``; else over the taps from row ``count_top``
    to ``count_bottom`` and from column ``count_left`` to ``count_right`` of the image.
    ``adaptive``: windows follow from the extents of x and y. ``apart``: windows share no columns
    and lie between the first and the last of the image, so that no lines are needed.

    ``scratch`` has three parts: a line of neutral values, one over the counted taps of every column
    of y (from ``inverses`` on), and ``block_rows`` lines, ``pitch`` apart, the first column of the
    image in the first of them at ``lines``.
    """

    kind: PoolKind
    kernel: tuple[int | None, int | None]
    stride_w: int | None
    adjacent: bool
    equal: bool
    adaptive: bool
    apart: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**PLANE_FIELDS, **WINDOW_FIELDS, **_LINE_FIELDS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            with asm.loop(args["scratch_stride"], step=asm.lanes) as v:
                asm.store(asm.splat(Reduction(asm, self.kind).neutral), scratch, v)
            pool = _Emitter(asm, self, args, scratch)
            pool.emit_inverses()
            with emit_planes(asm, args, first, last) as place:
                if self.apart:
                    pool.emit_apart(place)
                else:
                    pool.emit_blocks(place)


@dataclass(frozen=True)
class Place:
    """A plane: its number, and where it begins in x and in y."""

    plane: Value
    x: Value
    y: Value


@contextmanager
def emit_planes(asm: Assembler, args: Arguments, first: Value, last: Value) -> Iterator[Place]:
    """Loop over the planes of tasks first .. last.

    Image and channel are counted: a division a plane takes as long as a small plane.
    """
    size, channels = args.load("task_planes", "channels")
    start, stop = first * size, asm.minimum(last * size, args["planes"])
    state = {"n": start // channels, "c": start % channels}
    with asm.loop(stop, start=start, carry=state) as plane:
        n, c = state["n"], state["c"]
        x = args["x"] + n * args["x_n"] + c * args["x_c"]
        yield Place(plane, x, args["y"] + n * args["y_n"] + c * args["y_c"])
        full = (c + 1).equals(channels)
        state["c"] = asm.select(full, asm.index(0), c + 1)
        state["n"] = asm.select(full, n + 1, n)


@dataclass(frozen=True)
class Span:
    """What a window covers of one axis: taps at ``start + t * step``, low <= t < high inside."""

    start: Value
    low: Value
    high: Value
    step: Index


def emit_span(asm: Assembler, args: Arguments, axis: str, number: Value, *, adaptive: bool) -> Span:
    """The span of window ``number`` along ``axis``, "h" or "w"."""
    size = args["height" if axis == "h" else "width"]
    if adaptive:
        outputs = args["out_height" if axis == "h" else "out_width"]
        start = number * size // outputs
        return Span(start, asm.index(0), asm.ceil_div((number + 1) * size, outputs) - start, 1)
    padding = args["pad_top" if axis == "h" else "pad_left"]
    start, step = number * args[f"stride_{axis}"] - padding, args[f"dilation_{axis}"]
    low = asm.ceil_div(asm.maximum(0 - start, 0), step)
    high = asm.ceil_div(asm.maximum(size - start, 0), step)
    return Span(start, low, asm.minimum(high, args[f"kernel_{axis}"]), step)


class _Emitter:
    """Emits the two halves of a pool for one row of outputs."""

    def __init__(self, asm: Assembler, pool: Pool, args: Arguments, scratch: Value) -> None:
        self.asm = asm
        self.pool = pool
        self.args = args
        self.reduce = Reduction(asm, pool.kind)
        self.neutral_line = scratch
        self.inverses = scratch + args["inverses"]
        self.lines = scratch + args["lines"]
        self.width, self.out_width = args.load("width", "out_width")
        # Of rows narrower than a vector: made once, not for every row.
        self._inside, self._stored = asm.lanes_below(self.width), asm.lanes_below(self.out_width)
        if pool.apart:
            assert pool.stride_w is not None
            assert pool.kernel[1] is not None
            bounds = asm.index(0), self.width
            self._whole = TapLoad(asm, pool.stride_w, pool.kernel[1])
            self._narrow = TapLoad(asm, pool.stride_w, pool.kernel[1], bounds)

    def emit_inverses(self) -> None:
        """One over the counted taps of every column of y."""
        if self.pool.equal:
            return
        with self.asm.loop(self.out_width) as j:
            self.asm.store(self._inverse("w", j), self.inverses, j)

    def _inverse(self, axis: str, number: Value) -> Value:
        """One over the counted taps of window ``number`` along ``axis``."""
        asm, args = self.asm, self.args
        span = emit_span(asm, args, axis, number, adaptive=self.pool.adaptive)
        count = span.high
        if not self.pool.adaptive:
            before, after = ("top", "bottom") if axis == "h" else ("left", "right")
            end = asm.minimum(span.start + args[f"kernel_{axis}"], args[f"count_{after}"])
            count = end - asm.maximum(span.start, args[f"count_{before}"])
        return asm.divide(1.0, asm.to_float(count))

    def emit_blocks(self, place: Place) -> None:
        """Reduce a plane in blocks of rows: down, then across."""
        asm = self.asm
        block_rows, out_height = self.args.load("block_rows", "out_height")
        with asm.loop(out_height, step=block_rows) as begin:
            rows = asm.minimum(block_rows, out_height - begin)
            with asm.loop(rows) as i:
                self.emit_down(place.x, begin + i, i)
            with asm.loop(rows) as i:
                self.emit_across(place.y, begin + i, i)

    def emit_down(self, x: Value, row: Value, line: Value) -> None:
        """Reduce the rows of output row ``row``: column by column of the image."""
        asm, lanes, width = self.asm, self.asm.lanes, self.width
        to = self.lines + line * self.args["pitch"]
        column = self._unrolled_column(x, row) if self.pool.kernel[0] else self._column(x, row)
        wide = asm.compare(">=", width, lanes)
        with asm.when(wide), asm.loop(width, step=lanes) as v:
            # The last vector moves back so as to end with the row.
            place = asm.minimum(v, width - lanes)
            asm.store(column(place, None), to, place)
        with asm.when(wide.equals(0)):
            asm.store(column(asm.index(0), self._inside), to, mask=self._inside)

    def emit_apart(self, place: Place) -> None:
        """Reduce a plane of windows that are apart, each down and across at once."""
        asm, lanes, width = self.asm, self.asm.lanes, self.out_width
        y_h, height = self.args.load("y_h", "out_height")
        wide = asm.compare(">=", width, lanes)
        with asm.when(wide), asm.loop(height) as i:
            sources, factor = self._sources(place.x, i), self._row_factor(i)
            with asm.loop(width, step=lanes) as v:
                column = asm.minimum(v, width - lanes)
                value = self._window(sources, self._whole, column, factor)
                asm.store(value, place.y + i * y_h, column)
        with asm.when(wide.equals(0)), asm.loop(height) as i:
            sources, factor = self._sources(place.x, i), self._row_factor(i)
            value = self._window(sources, self._narrow, asm.index(0), factor)
            asm.store(value, place.y + i * y_h, mask=self._stored)

    def _row_factor(self, row: Value) -> Value:
        return self.asm.splat(self.args["factor"] if self.pool.equal else self._inverse("h", row))

    def _window(
        self, sources: Sequence[Value], load: TapLoad, column: Value, factor: Value
    ) -> Value:
        """Outputs ``column`` and on of the rows ``sources``."""
        rows = [load.parts(source + column * load.stride) for source in sources]
        parts = [self.reduce(part) for part in zip(*rows, strict=True)]
        value = self.reduce(load.picked(parts))
        return self._mean(value, factor, column, self.asm.lanes)

    def _unrolled_column(self, x: Value, row: Value) -> Callable[[Value, Mask], Value]:
        sources = self._sources(x, row)
        return lambda v, mask: self.reduce(
            [self.asm.load(source, v, mask=mask) for source in sources]
        )

    def _sources(self, x: Value, row: Value) -> list[Value]:
        """The rows of output row ``row``, in its order; those outside are neutral."""
        asm, args = self.asm, self.args
        assert self.pool.kernel[0] is not None
        in_row = row * args["stride_h"] - args["pad_top"]
        sources = []
        for _ in range(self.pool.kernel[0]):
            inside = asm.compare(">=", in_row, 0) & asm.compare("<", in_row, args["height"])
            sources.append(asm.select(inside, x + in_row * args["x_h"], self.neutral_line))
            in_row = in_row + args["dilation_h"]
        return sources

    def _column(self, x: Value, row: Value) -> Callable[[Value, Mask], Value]:
        asm, args = self.asm, self.args
        span = emit_span(asm, args, "h", row, adaptive=self.pool.adaptive)
        step = args["x_h"] * span.step

        def column(v: Value, mask: Mask) -> Value:
            source = x + (span.start + span.low * span.step) * args["x_h"] + v
            state = {"source": source, "value": asm.splat(self.reduce.neutral)}
            with asm.loop(span.high - span.low, carry=state):
                vector = asm.load(state["source"], mask=mask)
                state["value"] = self.reduce([state["value"], vector])
                state["source"] = state["source"] + step
            return state["value"]

        return column

    def emit_across(self, y: Value, row: Value, line: Value) -> None:
        """Reduce the columns of output row ``row``, and store it."""
        asm, lanes, width = self.asm, self.asm.lanes, self.out_width
        source = self.lines + line * self.args["pitch"]
        to = y + row * self.args["y_h"]
        factor = self.args["factor"] if self.pool.equal else self._inverse("h", row)
        if self.pool.stride_w is None:
            with asm.loop(width) as j:
                asm.store(self._mean(self._float(source, j), factor, j, 1), to, j)
            return
        factor = asm.splat(factor)
        wide = asm.compare(">=", width, lanes)
        with asm.when(wide), asm.loop(width, step=lanes) as v:
            place = asm.minimum(v, width - lanes)
            asm.store(self._mean(self._vector(source, place), factor, place, lanes), to, place)
        with asm.when(wide.equals(0)):
            value = self._mean(self._vector(source, asm.index(0)), factor, asm.index(0), lanes)
            asm.store(value, to, mask=self._stored)

    def _mean(self, value: Value, factor: Value, column: Value, lanes: int) -> Value:
        """``value`` over the number of its pixels, if it is a sum."""
        if self.pool.kind == "max":
            return value
        if not self.pool.equal:
            load = self.asm.load_float if lanes == 1 else self.asm.load
            value = value * load(self.inverses, column)
        return value * factor

    def _vector(self, line: Value, column: Value) -> Value:
        """Outputs ``column`` and on of a line."""
        asm, pool, args = self.asm, self.pool, self.args
        stride, taps = pool.stride_w, pool.kernel[1]
        assert stride is not None
        start = line + (column * stride - args["pad_left"])
        dilation: Index = 1 if pool.adjacent else args["dilation_w"]
        if taps is None:
            state = {"source": start, "value": asm.splat(self.reduce.neutral)}
            with asm.loop(args["kernel_w"], carry=state):
                (vector,) = TapLoad(asm, stride, 1)(state["source"])
                state["value"] = self.reduce([state["value"], vector])
                state["source"] = state["source"] + dilation
            return state["value"]
        group = stride if pool.adjacent else 1
        vectors: list[Value] = []
        for s in range(0, taps, group):
            load = TapLoad(asm, stride, min(group, taps - s))
            vectors += load(start + dilation * s)
        return self.reduce(vectors)

    def _float(self, line: Value, column: Value) -> Value:
        """Output ``column`` of a line."""
        asm = self.asm
        span = emit_span(asm, self.args, "w", column, adaptive=self.pool.adaptive)
        neutral = asm.wrap(asm.constant(self.reduce.neutral, asm.load_float(line).ir.type))
        state = {"source": line + (span.start + span.low * span.step), "value": neutral}
        with asm.loop(span.high - span.low, carry=state):
            state["value"] = self.reduce([state["value"], asm.load_float(state["source"])])
            state["source"] = state["source"] + span.step
        return state["value"]
