"""Packing of patches: a block of the im2col matrix, straight into the microkernel's panels.

The patch matrix X[k, p] of one image has a row for each tap and channel, k = (r * kw + s) * C + c,
and a column for each output pixel, p = oh * OW + ow. It is never built as a whole: a task packs
the columns it needs into strips ``[depth][width]``, and a microkernel reads a strip as it is.
Consecutive pixels of one output row are consecutive (or evenly spaced) in the input row, so a
strip is copied in *runs*, vectors at a time, with zeros where a tap falls into the padding. Rows
of taps that fall into it for all pixels of a task (strong dilation) are left out of the product.

Where outputs are pooled, p counts the columns of *pairs* of output rows, and a strip holds those of
the upper row and, behind them, those of the lower: both halves of every window are in one strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass, replace
from nnpack.kernels.stage import Arguments

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

# Beyond this horizontal stride, a gather instruction is no slower than loading everything between.
MAX_SHUFFLED_STRIDE = 4

PATCH_FIELDS = dict.fromkeys(
    (
        "channels",
        "height",
        "width",
        "out_width",
        "kernel_h",
        "kernel_w",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
        "pad_top",
        "pad_left",
        "x_c",
        "x_h",
    ),
    "index",
)


# Channels ahead that a vector of pixels is asked for: planes are too far apart for hardware
# prefetchers, and memory takes as long as some dozens of copies.
_CHANNELS_AHEAD = 16


@dataclass(frozen=True)
class Strip:
    """Strips ``[depth][width]`` of patches: ``pixels`` of each of ``rows`` rows of outputs.

    Two rows are an upper and a lower one, which sees the image ``lower`` rows further down.
    """

    pixels: int
    rows: int = 1

    @property
    def width(self) -> int:
        """Floats of a step of the depth."""
        return self.pixels * self.rows

    @property
    def fields(self) -> dict[str, str]:
        """Argument words beside `PATCH_FIELDS`."""
        return {"lower": "index"} if self.rows > 1 else {}

    def reach(self, args: Arguments) -> Index:
        """From the image's row of the first output row to that of the last."""
        return args["lower"] if self.rows > 1 else 0


@dataclass(frozen=True)
class Run:
    """``length`` consecutive pixels of one output row, seen through one tap.

    Pixel l reads ``source + l * stride``; pixels outside low <= l < high fall into the padding.
    """

    source: Value
    length: Value
    low: Value
    high: Value


@dataclass(frozen=True)
class TapRows:
    """The rows ``first .. last`` of a kernel that meet the image, and their part of the depth."""

    first: Value
    last: Value
    start: Value
    depth: Value


def emit_tap_rows(
    asm: Assembler, args: Arguments, first: Value, last: Value, reach: Index = 0
) -> TapRows:
    """The rows of taps through which output rows ``first .. last``, both included, see the image.

    Tap r of output row i reads row ``i * sh + r * dh - top``, and all as far as ``reach`` below it.
    At least one row is kept.
    """
    top, stride = args.load("pad_top", "stride_h")
    taps, dilation, height = args.load("kernel_h", "dilation_h", "height")
    lowest, highest = first * stride - top, last * stride - top + reach
    begin, end = _emit_meeting(asm, taps, dilation, height, lowest, highest)
    row = args["kernel_w"] * args["channels"]
    return TapRows(begin, end, begin * row, (end - begin) * row)


def emit_tap_columns(asm: Assembler, args: Arguments) -> tuple[Value, Value]:
    """The columns ``first .. last`` of taps through which whole output rows see the image."""
    reach = (args["out_width"] - 1) * args["stride_w"]
    taps, dilation, width = args.load("kernel_w", "dilation_w", "width")
    lowest = 0 - args["pad_left"]
    return _emit_meeting(asm, taps, dilation, width, lowest, lowest + reach)


def _emit_meeting(
    asm: Assembler, taps: Value, dilation: Value, extent: Value, lowest: Value, highest: Value
) -> tuple[Value, Value]:
    """Taps ``first .. last`` that, from places ``lowest .. highest`` on, meet ``0 .. extent``.

    At least one.
    """
    first = asm.minimum(asm.ceil_div(asm.maximum(0 - highest, 0), dilation), taps - 1)
    last = asm.minimum(asm.ceil_div(asm.maximum(extent - lowest, 0), dilation), taps)
    return first, asm.maximum(last, first + 1)


def emit_pack_patches(
    asm: Assembler,
    args: Arguments,
    strip: Strip,
    stride_w: int | None,
    x: Value,
    panel: Value,
    first: Value,
    count: Value,
) -> None:
    """Pack pixels ``first .. first + count`` of the image at ``x``, of each row of ``strip``.

    ``stride_w`` is the horizontal stride when known at compile time. Columns of the last strip
    beyond ``count`` are left as they are.
    """
    channels, kernel_w, out_width = args.load("channels", "kernel_w", "out_width")
    first_row, last_row = first // out_width, (first + count - 1) // out_width
    taps = emit_tap_rows(asm, args, first_row, last_row, strip.reach(args))
    with _runs(asm, args, strip, panel, first, count, taps.depth) as place:
        with asm.loop(taps.last, start=taps.first) as r:
            with asm.loop(kernel_w) as s:
                target = place.target + ((r - taps.first) * kernel_w + s) * channels * strip.width
                run = _emit_run(asm, args, stride_w, x, place, r, s)
                _emit_copy_run(asm, args, strip.width, stride_w, run, target, channels)


def emit_pack_tap(
    asm: Assembler,
    args: Arguments,
    strip: Strip,
    stride_w: int | None,
    x: Value,
    panel: Value,
    first: Value,
    count: Value,
    r: Value,
    s: Value,
    channels: Value,
) -> None:
    """Pack what `emit_pack_patches` does for one tap (r, s) and ``channels`` channels from x on."""
    with _runs(asm, args, strip, panel, first, count, channels) as place:
        run = _emit_run(asm, args, stride_w, x, place, r, s)
        _emit_copy_run(asm, args, strip.width, stride_w, run, place.target, channels)


@dataclass(frozen=True)
class _Place:
    """``length`` pixels of an output row, from ``column`` on, and where they stand in a strip.

    They see the image ``down`` rows below where row number ``row`` does.
    """

    row: Value
    column: Value
    length: Value
    target: Value
    down: Index = 0


@contextmanager
def _runs(
    asm: Assembler,
    args: Arguments,
    strip: Strip,
    panel: Value,
    first: Value,
    count: Value,
    depth: Value,
) -> Iterator[_Place]:
    """Loop over what of each output row stands in each strip."""
    out_width = args["out_width"]
    with asm.loop(count, step=strip.pixels) as start:
        begin = first + start
        end = asm.minimum(begin + strip.pixels, first + count)
        with asm.loop((end - 1) // out_width + 1, start=begin // out_width) as row:
            left = asm.maximum(begin, row * out_width)
            right = asm.minimum(end, (row + 1) * out_width)
            target = panel + start * (depth * strip.rows) + (left - begin)
            place = _Place(row, left - row * out_width, right - left, target)
            if strip.rows == 1:
                yield place
            else:
                with asm.loop(strip.rows) as n:
                    yield replace(place, target=target + n * strip.pixels, down=n * args["lower"])


def _emit_run(
    asm: Assembler,
    args: Arguments,
    stride_w: int | None,
    x: Value,
    place: _Place,
    r: Value,
    s: Value,
) -> Run:
    """A run of pixels seen through tap (r, s)."""
    stride: Index = args["stride_w"] if stride_w is None else stride_w
    in_row = place.row * args["stride_h"] + place.down + r * args["dilation_h"] - args["pad_top"]
    inside = asm.compare(">=", in_row, 0) & asm.compare("<", in_row, args["height"])
    in_width = asm.select(inside, args["width"], 0)
    in_column = place.column * stride + s * args["dilation_w"] - args["pad_left"]
    return Run(
        x + asm.select(inside, in_row, 0) * args["x_h"] + in_column,
        place.length,
        asm.ceil_div(asm.maximum(0 - in_column, 0), stride),
        asm.ceil_div(asm.maximum(in_width - in_column, 0), stride),
    )


def _emit_copy_run(
    asm: Assembler,
    args: Arguments,
    width: int,
    stride_w: int | None,
    run: Run,
    target: Value,
    channels: Value,
) -> None:
    """Copy a run of ``channels`` channels: channel c goes to ``target + c * width``."""
    lanes = asm.lanes
    stride: Index = args["stride_w"] if stride_w is None else stride_w
    with asm.loop(run.length, step=lanes) as v:
        whole = (
            asm.compare(">=", run.length - v, lanes)
            & asm.compare("<=", run.low, v)
            & asm.compare(">=", run.high - v, lanes)
        )
        source, to = run.source + v * stride, target + v
        with asm.when(whole):
            _emit_copy_channels(asm, args, width, stride_w, channels, source, to, None, None)
        with asm.when(whole.equals(0)):
            low, high = run.low - v, asm.minimum(run.high, run.length) - v
            edge = (low, high), asm.lanes_below(run.length - v)
            _emit_copy_channels(asm, args, width, stride_w, channels, source, to, *edge)


def _emit_copy_channels(
    asm: Assembler,
    args: Arguments,
    width: int,
    stride_w: int | None,
    channels: Value,
    source: Value,
    target: Value,
    bounds: tuple[Value, Value] | None,
    written: Mask,
) -> None:
    """Copy one vector of pixels of every channel."""
    stride: Index = args["stride_w"] if stride_w is None else stride_w
    reader = StridedLoad(asm, stride, bounds)
    state = {"source": source, "target": target}
    with asm.loop(channels, carry=state):
        reader.prefetch(state["source"] + _CHANNELS_AHEAD * args["x_c"])
        asm.store(reader(state["source"]), state["target"], mask=written)
        state["source"] = state["source"] + args["x_c"]
        state["target"] = state["target"] + width


class StridedLoad:
    """Loads lanes l from ``pointer + l * stride``; lanes outside ``bounds`` are zero and unread.

    The masks are made once, where the loader is constructed, outside the loop over channels.
    """

    def __init__(self, asm: Assembler, stride: Index, bounds: tuple[Value, Value] | None) -> None:
        self.asm = asm
        self.stride = stride
        lanes = asm.lanes
        self._shuffled = isinstance(stride, int) and stride <= MAX_SHUFFLED_STRIDE
        if not self._shuffled:
            low, high = bounds if bounds is not None else (asm.index(0), asm.index(lanes))
            self._masks: list[Mask] = [asm.lanes_between(low, high)]
            return
        assert isinstance(stride, int)
        # The last vector ends at the last lane's element, never beyond it.
        self._offsets = [n * lanes for n in range(stride - 1)] + [(lanes - 1) * (stride - 1)]
        self._masks = [None] * stride
        if bounds is not None:
            low, high = bounds[0] * stride, (bounds[1] - 1) * stride + 1
            self._masks = [asm.lanes_between(low - n, high - n) for n in self._offsets]

    def prefetch(self, pointer: Value) -> None:
        """Ask for the lines of a vector, as far as they are known."""
        for offset in self._offsets if self._shuffled else [0]:
            self.asm.prefetch(pointer, offset)

    def __call__(self, pointer: Value) -> Value:
        """Load one vector."""
        asm, lanes = self.asm, self.asm.lanes
        if not self._shuffled:
            mask = self._masks[0]
            assert mask is not None
            return asm.gather(pointer, self.stride, mask)
        assert isinstance(self.stride, int)
        parts = [
            asm.load(pointer, offset, mask=mask)
            for offset, mask in zip(self._offsets, self._masks, strict=True)
        ]
        result = parts[0]
        if self.stride == 1:
            return result
        # Each part adds the lanes it holds to those found so far; a part may hold some twice.
        found = [lane * self.stride if lane * self.stride < lanes else 0 for lane in range(lanes)]
        result = asm.shuffle(result, None, found)
        for part, offset in zip(parts[1:], self._offsets[1:], strict=True):
            order = list(range(lanes))
            for lane in range(lanes):
                position = lane * self.stride - offset
                if 0 <= position < lanes and lane * self.stride >= lanes:
                    order[lane] = lanes + position
            result = asm.shuffle(result, part, order)
        return result
