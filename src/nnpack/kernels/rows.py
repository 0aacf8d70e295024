"""Input rows copied once, so that every tap of a strip of output pixels is one contiguous load.

Output pixel (i, j) reads through tap (r, s) the pixel (i * sh + r * dh - top, j * sw + s * dw -
left) of the image. Along one axis, with stride S, dilation D and tap t, the place i * S + t * D is
row i + t * D // M of the *phase* that starts at t * D % M and takes every S-th place. With M = S,
taps share phases: each input place is copied once, a phase is longer than the output by its
*halo* (taps - 1) * D // M. With M beyond all places, each tap has a phase of its own and no halo:
then rows of phases can stand as close as rows of the output do.

Phases stand as planes ``[channel][phase_h][phase_w][row][pitch]``; what falls into the padding is
zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.packing import StridedLoad
from nnpack.kernels.stage import Arguments

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value

ROW_FIELDS = dict.fromkeys(
    (
        "channels",
        "height",
        "width",
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
        "phases_h",
        "phases_w",
        "modulus_h",
        "modulus_w",
        "halo_h",
        "halo_w",
        "pitch",
        "plane",
    ),
    "index",
)


# Channels ahead that rows are asked for: no hardware prefetcher follows short rows of many planes.
_CHANNELS_AHEAD = 2


@dataclass(frozen=True)
class Region:
    """A rectangle of output pixels."""

    row: Value
    rows: Value
    column: Value
    columns: Value

    @property
    def words(self) -> tuple[Value, ...]:
        """All of it, to be passed on."""
        return self.row, self.rows, self.column, self.columns


def emit_tap_table(asm: Assembler, args: Arguments, table: Value) -> None:
    """``table[(r * kw + s) * C + c]``: where tap (r, s) of channel c stands, from its pixel on."""
    phases_h, phases_w, plane = args.load("phases_h", "phases_w", "plane")
    state = {"entry": table}
    with asm.loop(args["kernel_h"], carry=state) as r:
        row = r * args["dilation_h"] // args["modulus_h"] * args["pitch"]
        with asm.loop(args["kernel_w"], carry=state) as s:
            column = s * args["dilation_w"] // args["modulus_w"]
            phase = r % phases_h * phases_w + s % phases_w
            state["offset"] = phase * plane + row + column
            with asm.loop(args["channels"], carry=state):
                asm.store_index(state["offset"], state["entry"])
                state["entry"] = asm.index_pointer(state["entry"], 1)
                state["offset"] = state["offset"] + phases_h * phases_w * plane
            del state["offset"]


def emit_copy_rows(
    asm: Assembler,
    args: Arguments,
    stride_w: int | None,
    x: Value,
    to: Value,
    region: Region,
) -> None:
    """Copy the input of an output region, all phases of all channels of the image at ``x``.

    ``stride_w`` is the horizontal stride where it is known. Up to a vector beyond the end of the
    last plane is written.
    """
    dilation_h, modulus_h = args.load("dilation_h", "modulus_h")
    state = {"x": x, "to": to}
    with asm.loop(args["channels"], carry=state) as channel:
        ahead = _ahead(asm, args, region, channel)
        with asm.loop(args["phases_h"], carry=state) as p:
            rows = _Span(
                asm,
                region.row * args["stride_h"] + p * dilation_h % modulus_h - args["pad_top"],
                region.rows + args["halo_h"],
                args["stride_h"],
                args["height"],
            )
            with asm.loop(args["phases_w"], carry=state) as q:
                columns = _columns(asm, args, stride_w, region, q)
                _emit_copy_plane(asm, args, rows, columns, state["x"], state["to"], ahead)
                state["to"] = state["to"] + args["plane"]
        state["x"] = state["x"] + args["x_c"]


def _ahead(asm: Assembler, args: Arguments, region: Region, channel: Value) -> Value:
    """How far on the rows stand that are wanted after those of ``channel`` and the next ones.

    Behind the last channel those of the region below follow, or, of a whole image, the next image.
    """
    channels, down = args["channels"], region.rows * args["stride_h"]
    wanted = channel + _CHANNELS_AHEAD
    below = wanted // channels * down * args["x_h"] + (wanted % channels - channel) * args["x_c"]
    whole = asm.compare(">=", down, args["height"] - args["stride_h"])
    return asm.select(whole, _CHANNELS_AHEAD * args["x_c"], below)


class _Span:
    """Places ``first + l * stride`` for 0 <= l < count, of which low <= l < high are inside."""

    def __init__(
        self, asm: Assembler, first: Value, count: Value, stride: Index, extent: Value
    ) -> None:
        self.first = first
        self.count = count
        self.stride = stride
        self.low = asm.minimum(asm.ceil_div(asm.maximum(0 - first, 0), stride), count)
        high = asm.minimum(asm.ceil_div(asm.maximum(extent - first, 0), stride), count)
        self.high = asm.maximum(high, self.low)


def _columns(
    asm: Assembler, args: Arguments, stride_w: int | None, region: Region, phase: Value
) -> _Span:
    """The columns of one horizontal phase."""
    stride: Index = args["stride_w"] if stride_w is None else stride_w
    place = phase * args["dilation_w"] % args["modulus_w"]
    first = region.column * stride + place - args["pad_left"]
    return _Span(asm, first, region.columns + args["halo_w"], stride, args["width"])


def _emit_copy_plane(
    asm: Assembler,
    args: Arguments,
    rows: _Span,
    columns: _Span,
    x: Value,
    to: Value,
    ahead: Value,
) -> None:
    """Copy one phase of one channel, a column of vectors at a time, the last column first.

    Whole vectors are written, and what a row writes beyond its end is the beginning of the next
    row, which is written later.
    """
    lanes, pitch = asm.lanes, args["pitch"]
    _emit_zeros(asm, to, rows.low * pitch)
    source = x + (rows.first + rows.low * rows.stride) * args["x_h"] + columns.first
    vectors = asm.ceil_div(columns.count, lanes)
    with asm.loop(vectors) as n:
        v = (vectors - 1 - n) * lanes
        low, high = columns.low - v, columns.high - v
        whole = asm.compare("<=", low, 0) & asm.compare(">=", high, lanes)
        place = source + v * columns.stride, to + rows.low * pitch + v
        with asm.when(whole):
            _emit_copy_column(
                asm, args, rows, StridedLoad(asm, columns.stride, None), *place, ahead
            )
        with asm.when(whole.equals(0)):
            edge = StridedLoad(asm, columns.stride, (low, high))
            _emit_copy_column(asm, args, rows, edge, *place, ahead)
    _emit_zeros(asm, to + rows.high * pitch, (rows.count - rows.high) * pitch)


def _emit_copy_column(
    asm: Assembler,
    args: Arguments,
    rows: _Span,
    load: StridedLoad,
    source: Value,
    to: Value,
    ahead: Value,
) -> None:
    """Copy one vector of every row inside the image, asking for what is so far ``ahead``."""
    step, pitch = args["x_h"] * rows.stride, args["pitch"]
    state = {"source": source, "to": to}
    with asm.loop(rows.high - rows.low, carry=state):
        load.prefetch(state["source"] + ahead)
        asm.store(load(state["source"]), state["to"])
        state["source"] = state["source"] + step
        state["to"] = state["to"] + pitch


def _emit_zeros(asm: Assembler, to: Value, count: Value) -> None:
    """Zeros in whole vectors, ``count`` or a few more."""
    with asm.loop(count, step=asm.lanes) as v:
        asm.store(asm.zeros(), to, v)
