"""Mean and squares of what a task stores, read again while it is in the caches or not stored yet.

Outputs of a channel are summed in *pieces*, some pixels or tiles, which depend neither on tasks nor
on threads. Of each piece and channel ``sums_shift``, ``sums_mean`` (relative to the shift),
``sums_square`` (the squared distances from that mean) and ``sums_count`` are written, all
(pieces, channels), to be combined in order.

The shift is the mean of a piece's first vector, or one output: of a great mean no digits are lost,
and an outlier there costs the squares little more than it adds to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import SUMS
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.vectors import emit_vectors

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value

# Sums in flight, so that additions do not wait for each other: of as many channels, or vectors.
_CHAINS = 4
# The distances from the shift, and their squares.
_ADDED = ("total", "square")


class _Sums:
    """The sums over one piece of the channels at ``planes``, each in ``chains`` vectors."""

    def __init__(self, asm: Assembler, planes: Sequence[Value], width: Value) -> None:
        """``width`` floats, one at least, are side by side at the beginning of every plane."""
        self.asm = asm
        self.planes = planes
        self.chains = _CHAINS // len(planes)
        self.shift = self._shift(width)
        numbers = range(len(planes))
        self._shifts = [asm.shuffle(self.shift, None, [i] * asm.lanes) for i in numbers]
        keys = [(name, i, n) for name in _ADDED for i in numbers for n in range(self.chains)]
        self.state: dict[Any, Value] = dict.fromkeys(keys, asm.zeros())

    def _shift(self, width: Value) -> Value:
        """The means of the first vectors, 0 for one that is not finite."""
        asm, count = self.asm, self.asm.minimum(width, self.asm.lanes)
        mask = asm.lanes_below(count)
        first = emit_lane_sums(asm, [asm.load(plane, mask=mask) for plane in self.planes])
        mean = first * asm.splat(asm.divide(1.0, asm.to_float(count)), len(self.planes))
        return asm.select(asm.compare("==", mean - mean, 0.0), mean, 0.0)

    def add(self, offset: Value, mask: Mask, n: int) -> None:
        """Add the vectors at ``offset`` to chain ``n``."""
        asm, state = self.asm, self.state
        total, square = _ADDED
        for i, (plane, shift) in enumerate(zip(self.planes, self._shifts, strict=True)):
            distance = asm.load(plane, offset, mask=mask) - shift
            if mask is not None:
                distance = asm.select(mask, distance, asm.zeros())
            state[total, i, n] = state[total, i, n] + distance
            state[square, i, n] = asm.fma(distance, distance, state[square, i, n])

    def write(self, args: Arguments, place: Value, channels: Value, count: Value) -> None:
        """Write what was found of ``count`` outputs for the first ``channels`` of the planes."""
        asm, width = self.asm, len(self.planes)
        number = asm.splat(asm.to_float(count), width)
        total, square = (self._reduce(name) for name in _ADDED)
        mask = None if width == 1 else asm.lanes_below(channels, width)
        _Moments(self.shift, total, square, number).write(args, place, mask)

    def _reduce(self, name: str) -> Value:
        sums = []
        for i in range(len(self.planes)):
            sums.append(_added([self.state[name, i, n] for n in range(self.chains)]))
        return emit_lane_sums(self.asm, sums)


def emit_write_pixels(
    args: Arguments, place: Value, mask: Mask, pixels: Sequence[Value], done: Value
) -> None:
    """Write the sums of a piece that is in registers: ``pixels``, their channels in the lanes.

    The first ``done`` of them, not all, belong to the piece before. The shift is the last one.
    """
    asm = args.asm
    finite = asm.compare("==", pixels[-1] - pixels[-1], 0.0)
    shift = asm.select(finite, pixels[-1], asm.zeros())
    count = asm.splat(asm.to_float(asm.index(len(pixels)) - done))
    for overlaps in (False, True):
        with asm.when(done > 0 if overlaps else done.equals(0)):
            # One chain each: more need registers, all of which a tile may fill.
            total = square = asm.zeros()
            for i, value in enumerate(pixels):
                distance = value - shift
                if overlaps:
                    distance = asm.select(asm.compare("<=", done, i), distance, asm.zeros())
                total, square = total + distance, asm.fma(distance, distance, square)
            _Moments(shift, total, square, count).write(args, place, mask)


@dataclass(frozen=True)
class _Moments:
    """The shift, the sum of the distances from it, that of their squares, and how many they are."""

    shift: Value
    total: Value
    square: Value
    count: Value

    def write(self, args: Arguments, place: Value, mask: Mask) -> None:
        """Write them at ``place`` of the arrays `SUMS`."""
        asm = args.asm
        mean = asm.divide(self.total, self.count)
        square = self.square - self.total * mean
        # Where all are equal but for rounding it may be under 0; a NaN stays.
        square = asm.select(asm.compare("<", square, 0.0), 0.0, square)
        for name, value in zip(SUMS, (self.shift, mean, square, self.count), strict=True):
            asm.store(value, args[name], place, mask=mask)


def _added(chains: Sequence[Value]) -> Value:
    left = list(chains)
    while len(left) > 1:
        left = [a + b for a, b in zip(left[::2], left[1::2], strict=True)]
    return left[0]


def emit_lane_sums(asm: Assembler, vectors: Sequence[Value]) -> Value:
    """The vector whose lane i is the sum over all lanes of ``vectors[i]``.

    They are a power of two, no more than lanes. Vectors are added two at a time, by halves:

        a0 a1 a2 a3 + b0 b1 b2 b3  ->  a0+a2 a1+a3 b0+b2 b1+b3
    """
    left, groups = list(vectors), 1
    while len(left) > 1 or left[0].ir.type.count > groups:
        several = len(left) > 1
        size = left[0].ir.type.count // groups
        firsts = range(0, groups * size * (2 if several else 1), size)
        halves = [[n + k for n in firsts for k in range(b, b + size // 2)] for b in (0, size // 2)]
        pairs = zip(left[::2], left[1::2], strict=True) if several else [(left[0], None)]
        left = [asm.shuffle(a, b, halves[0]) + asm.shuffle(a, b, halves[1]) for a, b in pairs]
        groups = groups * 2 if several else groups
    return left[0]


def emit_sum_pixels(asm: Assembler, fields: Fields, planes: int = _CHAINS) -> None:
    """Define ``sum_pixels``: the pieces of ``count`` consecutive pixels of ``channels`` planes.

    The first plane begins at ``y``, its first piece is summed at ``place`` of the sums; a piece has
    ``sums_size`` pixels. ``planes``, 1, 2 or 4, are summed side by side.
    """
    with asm.function(
        "sum_pixels", block="pointer", y="pointer", place="index", channels="index", count="index"
    ) as (block, y, place, channels, count):
        args = Arguments(asm, block, fields)
        size, pitch = args.load("sums_size", "sums_channels")
        with asm.loop(channels, step=planes) as c:
            starts = _planes(asm, args, y, c, channels, planes)
            state = {"place": place + c}
            with asm.loop(count, step=size, carry=state) as begin:
                width = asm.minimum(count - begin, size)
                sums = _Sums(asm, [start + begin for start in starts], width)
                emit_vectors(asm, width, sums.add, carry=sums.state, unroll=sums.chains)
                sums.write(args, state["place"], channels - c, width)
                state["place"] = state["place"] + pitch


def _planes(
    asm: Assembler, args: Arguments, y: Value, c: Value, channels: Value, count: int
) -> list[Value]:
    """The planes of ``count`` channels from ``c`` on, the last one again where there are fewer."""
    last, y_c = channels - 1, args["y_c"]
    return [y + asm.minimum(c + i, last) * y_c for i in range(count)]


def emit_sum_tiles(asm: Assembler, fields: Fields, m: tuple[int, int]) -> None:
    """Define ``sum_tiles``: the pieces of tiles ``start .. start + count`` of ``channels`` planes.

    Tiles of m outputs, numbered as `tiles.TileWalk` does; a piece has ``sums_size`` of them, and
    ``start`` is a multiple of it. ``channel`` is the number of the first plane, at ``y``.
    """
    with asm.function(
        "sum_tiles",
        block="pointer",
        y="pointer",
        channel="index",
        channels="index",
        start="index",
        count="index",
    ) as (block, y, channel, channels, start, count):
        args = Arguments(asm, block, fields)
        size, pitch = args.load("sums_size", "sums_channels")
        with asm.loop(count, step=size) as offset:
            piece = _TilePiece(asm, args, m, start + offset, asm.minimum(count - offset, size))
            place = (start + offset) // size * pitch + channel
            with asm.loop(channels, step=_CHAINS) as c:
                planes = _planes(asm, args, y, c, channels, _CHAINS)
                piece.emit_sums(planes, place + c, channels - c)


class _TilePiece:
    """Tiles ``first .. first + count``: parts of rows of tiles, each a rectangle of outputs."""

    def __init__(
        self, asm: Assembler, args: Arguments, m: tuple[int, int], first: Value, count: Value
    ) -> None:
        tiles_h, tiles_w = args.load("tiles_h", "tiles_w")
        self.asm = asm
        self.args = args
        self.m = m
        self.count = count
        self.n, self.row = first // (tiles_h * tiles_w), first // tiles_w % tiles_h
        self.column = first % tiles_w
        self.parts = asm.ceil_div(self.column + count, tiles_w)

    def emit_sums(self, planes: Sequence[Value], place: Value, channels: Value) -> None:
        """Sum and write the piece of several channels."""
        asm, args = self.asm, self.args
        y_n, y_h, tiles_h, out_height = args.load("y_n", "y_h", "tiles_h", "out_height")
        left, width = self._columns(asm.index(0))
        corner = self.n * y_n + self.row * self.m[0] * y_h + left
        sums = _Sums(asm, [plane + corner for plane in planes], width)
        sums.planes = planes
        state = sums.state
        state |= {"n": self.n, "row": self.row, "count": asm.index(0)}
        with asm.loop(self.parts, carry=state) as part:
            left, width = self._columns(part)
            top = state["row"] * self.m[0]
            rows = asm.minimum(out_height - top, self.m[0])
            corner = state["n"] * y_n + top * y_h + left
            self._emit_rectangle(sums, corner, rows, width)
            state["count"] = state["count"] + rows * width
            after = state["row"] + 1
            ends = after.equals(tiles_h)
            state["row"] = asm.select(ends, 0, after)
            state["n"] = asm.select(ends, state["n"] + 1, state["n"])
        sums.write(args, place, channels, state["count"])

    def _columns(self, part: Value) -> tuple[Value, Value]:
        """The first column of outputs of a part, and how many."""
        asm, tiles_w = self.asm, self.args["tiles_w"]
        first = asm.select(part.equals(0), self.column, 0)
        last = asm.minimum(self.column + self.count - part * tiles_w, tiles_w)
        left = first * self.m[1]
        return left, asm.minimum(last * self.m[1], self.args["out_width"]) - left

    def _emit_rectangle(self, sums: _Sums, corner: Value, rows: Value, width: Value) -> None:
        """Add a rectangle of outputs, a vector of columns at a time: one mask serves all rows."""
        asm, state, y_h = self.asm, sums.state, self.args["y_h"]

        def add_column(offset: Value, mask: Mask, n: int) -> None:
            state["place"] = corner + offset
            with asm.loop(rows, carry=state):
                sums.add(state["place"], mask, n)
                state["place"] = state["place"] + y_h
            del state["place"]

        emit_vectors(asm, width, add_column, carry=state)
