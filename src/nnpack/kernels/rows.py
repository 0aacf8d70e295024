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

from dataclasses import dataclass

from nnpack.codegen.assembler import Assembler, Index, Value
from nnpack.kernels.packing import StridedLoad
from nnpack.kernels.stage import Arguments

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

    Rows are copied in whole vectors in the order in which they stand: what a row writes beyond
    its end, the next one overwrites. ``stride_w`` is the horizontal stride where it is known.
    """
    stride_h, dilation_h, modulus_h = args.load("stride_h", "dilation_h", "modulus_h")
    state = {"x": x, "to": to}
    with asm.loop(args["channels"], carry=state):
        with asm.loop(args["phases_h"], carry=state) as p:
            in_row = region.row * stride_h + p * dilation_h % modulus_h - args["pad_top"]
            with asm.loop(args["phases_w"], carry=state) as q:
                columns = _Columns(asm, args, stride_w, region, q)
                _emit_copy_plane(asm, args, columns, state, in_row, region.rows)
                state["to"] = state["to"] + args["plane"]
        state["x"] = state["x"] + args["x_c"]


class _Columns:
    """The columns of one horizontal phase: pixel l is column ``first + l * stride`` of the image."""

    def __init__(
        self, asm: Assembler, args: Arguments, stride_w: int | None, region: Region, phase: Value
    ) -> None:
        self.stride: Index = args["stride_w"] if stride_w is None else stride_w
        place = phase * args["dilation_w"] % args["modulus_w"]
        self.first = region.column * self.stride + place - args["pad_left"]
        self.count = region.columns + args["halo_w"]
        # Pixels low <= l < high are inside the image.
        self.low = asm.ceil_div(asm.maximum(0 - self.first, 0), self.stride)
        self.high = asm.ceil_div(asm.maximum(args["width"] - self.first, 0), self.stride)


def _emit_copy_plane(
    asm: Assembler,
    args: Arguments,
    columns: _Columns,
    state: dict[str, Value],
    in_row: Value,
    rows: Value,
) -> None:
    """Copy one phase of one channel, from row ``in_row`` of the image on."""
    stride_h, x_h, pitch = args.load("stride_h", "x_h", "pitch")
    height = args["height"]
    inner = {"row": in_row, "to": state["to"]}
    with asm.loop(rows + args["halo_h"], carry=inner):
        row = inner["row"]
        inside = asm.compare(">=", row, 0) & asm.compare("<", row, height)
        source = state["x"] + (asm.select(inside, row, 0) * x_h + columns.first)
        high = asm.select(inside, columns.high, 0)
        _emit_copy_row(asm, columns, source, inner["to"], high)
        inner["row"] = row + stride_h
        inner["to"] = inner["to"] + pitch


def _emit_copy_row(
    asm: Assembler, columns: _Columns, source: Value, to: Value, high: Value
) -> None:
    """Copy vectors of one row; pixels outside ``low <= l < high`` are zero and not read."""
    lanes = asm.lanes
    with asm.loop(columns.count, step=lanes) as v:
        low, end = columns.low - v, high - v
        whole = asm.compare("<=", low, 0) & asm.compare(">=", end, lanes)
        pixels = source + v * columns.stride
        with asm.when(whole):
            asm.store(StridedLoad(asm, columns.stride, None)(pixels), to, v)
        with asm.when(whole.equals(0)):
            asm.store(StridedLoad(asm, columns.stride, (low, end))(pixels), to, v)
