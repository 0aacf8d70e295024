"""Depthwise convolution: one channel in, one channel out, in one pass over both planes.

Output pixels of one row stand in the lanes. A tile is one vector wide and several output rows high:
it loads each row of input once a tap column and adds it to every output row that it belongs to,

    acc[j] += weight[t - j * q, s] * row[t, s]        for 0 <= t - j * q < kh,

so that `rows` outputs of a kernel of kh rows cost (rows - 1) * q + kh loads a tap column instead
of rows * kh. With dilation the rows of a tile are `spacing` apart, the least distance at which they
share input rows; these are then q input rows (of the dilated grid) apart.

Rows outside the image are read from a row of zeros; lanes outside it are masked. Only vectors at
the ends of rows need masks. A block of rows is computed from its first column to its last: edges in
passes of their own would bring rows twice from the second-level cache, and find them anew. Narrow
planes, all of whose columns are edges, are computed column by column, with the masks in registers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnpack.frozen import dataclass
from nnpack.kernels.depthwise_rows import Band, RowBlock
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, epilogue_fields
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.taps import TapLoad
from nnpack.kernels.walk import Walk
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

# Weights of so many taps are kept in registers, or at least on the stack as whole vectors.
MAX_KEPT_WEIGHTS = 16

# Floats before and behind the row of zeros. Masked lanes that fall onto a page that is not there
# do no harm, but take an assist of some 500 cycles: ten times as long as a tile.
ZEROS_MARGIN = 128

_FIELDS = {
    **dict.fromkeys(("x", "weight", "y", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "channels",
            "multiplier",
            "bands",
            "band_rows",
            "height",
            "width",
            "out_height",
            "out_width",
            "inner_first",
            "inner_last",
            "rest_first",
            "stride_h",
            "dilation_h",
            "dilation_w",
            "spacing",
            "pad_top",
            "pad_left",
            "x_n",
            "x_c",
            "x_h",
            "y_n",
            "y_c",
            "y_h",
        ),
        "index",
    ),
}


@dataclass(frozen=True)
class DepthwiseConvolution:
    """The stage ``y[n, k, i, j] = epilogue(sum weight[k, r, s] * x[n, k // multiplier, i', j'])``.

    The sum is over r and s; ``i' = i * sh + r * dh - top``, ``j' = j * sw + s * dw - left``.
    ``rows``: output rows of a tile; a band has at least as many in each of its ``spacing`` phases.
    ``row_step``: how far they are apart in input rows, in units of the dilation. ``spaced``: they
    are ``spacing`` output rows apart, else they follow each other.
    ``adjacent``: the horizontal dilation is 1. ``lanes``: pixels in a vector, which may be fewer
    than the target has; from column ``rest_first`` on ``rest_lanes``, where these are fewer.
    ``walks``: tiles follow each other from left to right, each keeping what
    the next needs of its input; then ``inner_first`` is 0 and `can_walk` holds. ``narrow``: all
    columns need masks. ``skips``: rows outside the image are left out. Where the epilogue pools,
    ``rows``, rows of outputs and those of bands are even, and tiles not spaced.
    """

    kernel: tuple[int, int]
    rows: int
    row_step: int
    spaced: bool
    stride_w: int
    adjacent: bool
    lanes: int
    rest_lanes: int
    walks: bool
    narrow: bool
    skips: bool
    epilogue: EpilogueKind
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**_FIELDS, **epilogue_fields(self.epilogue), **profile_fields(self.profile)}

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def tap_groups(self) -> list[tuple[int, int]]:
        """Tap columns that are loaded together: the first of each group, and how many."""
        width = self.kernel[1]
        size = self.stride_w if self.adjacent else 1
        return [(s, min(size, width - s)) for s in range(0, width, size)]

    @property
    def in_rows(self) -> int:
        """Rows of input that a tile reads."""
        return (self.rows - 1) * self.row_step + self.kernel[0]

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        if self.epilogue.statistics:
            from nnpack.kernels.stored_sums import emit_sum_pixels

            emit_sum_pixels(asm, self.fields, planes=1)
        asm.lanes = (
            self.lanes
        )  # all vectors of this kernel, which may be narrower than the target's
        if self.walks:
            _emit_walk_function(asm, self)
        elif self.narrow:
            _emit_edges_function(asm, self)
        else:
            _emit_columns_function(asm, self)
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            zeros = args["scratch"] + worker * args["scratch_stride"] + ZEROS_MARGIN
            with asm.loop(args["width"], step=self.lanes) as v:
                asm.store(asm.zeros(), zeros, v)
            with PhaseTimer(args, self.profile).phase("multiplication"):
                place = _place_of(args, first)
                with asm.loop(last, start=first, carry=place):
                    _emit_task(asm, self, args, place, zeros)
                    if self.epilogue.statistics:
                        _emit_sums(asm, args, place)
                    _emit_advance(asm, args, place)


_BAND_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("block", "x", "y", "weight", "zeros"), "pointer"),
    **dict.fromkeys(("image", "channel", "first", "rows"), "index"),
}


_COUNTERS = ("band", "copy", "channel", "image")


def _place_of(args: Arguments, task: Value) -> dict[str, Value]:
    """Where a task is: band of output channel ``channel * multiplier + copy`` of an image."""
    place = {}
    for name, count in zip(_COUNTERS[:-1], ("bands", "multiplier", "channels"), strict=True):
        place[name] = task % args[count]
        task = task // args[count]
    return {**place, "image": task}


def _emit_advance(asm: Assembler, args: Arguments, place: dict[str, Value]) -> None:
    """Count on to the next task. Divisions would take as long as a small plane."""
    carry = asm.index(1)
    for name, count in zip(_COUNTERS[:-1], ("bands", "multiplier", "channels"), strict=True):
        after = place[name] + carry
        full = after.equals(args[count])
        place[name] = asm.select(full, asm.index(0), after)
        carry = asm.select(full, asm.index(1), asm.index(0))
    place["image"] = place["image"] + carry


def _emit_sums(asm: Assembler, args: Arguments, place: dict[str, Value]) -> None:
    """Sum the band that was stored: a piece of its own."""
    band, number, channel, n = (place[name] for name in _COUNTERS)
    k = channel * args["multiplier"] + number
    first, rows = _band_rows(asm, args, band)
    y = args["y"] + n * args["y_n"] + k * args["y_c"] + first * args["y_h"]
    piece = (n * args["bands"] + band) * args["sums_channels"] + k
    asm.call("sum_pixels", args.block, y, piece, 1, rows * args["out_width"])


def _band_rows(asm: Assembler, args: Arguments, band: Value) -> tuple[Value, Value]:
    """The first row of a band, and how many."""
    first, is_last = band * args["band_rows"], band.equals(args["bands"] - 1)
    return first, asm.select(is_last, args["out_height"] - first, args["band_rows"])


def _emit_task(
    asm: Assembler,
    kernel: DepthwiseConvolution,
    args: Arguments,
    place: dict[str, Value],
    zeros: Value,
) -> None:
    """One band of one output plane."""
    band, number, channel, n = (place[name] for name in _COUNTERS)
    k = channel * args["multiplier"] + number
    x = args["x"] + n * args["x_n"] + channel * args["x_c"]
    y = args["y"] + n * args["y_n"] + k * args["y_c"]
    weight = args["weight"] + k * kernel.taps
    words = (args.block, x, y, weight, zeros, n, k, *_band_rows(asm, args, band))
    asm.call("walk" if kernel.walks else "columns", *words)


def _emit_columns_function(asm: Assembler, kernel: DepthwiseConvolution) -> None:
    """Define the function for all columns of a band of rows.

    Those outside ``inner_first .. inner_last`` need masks; the last may need narrower vectors.
    """
    with asm.function("columns", **_BAND_WORDS) as (block, *rest):
        x, y, weight, zeros, image, channel, first, rows = rest
        args, lanes = Arguments(asm, block, kernel.fields), kernel.lanes
        band = Band(asm, kernel, args, x, y, zeros, first, rows)
        tile = _Tile(asm, kernel, args, weight, image, channel)
        inner_first, inner_last, right = args.load("inner_first", "inner_last", "out_width")
        narrows = kernel.rest_lanes < lanes
        last = args["rest_first"] if narrows else right
        loads = [TapLoad(asm, kernel.stride_w, taps) for _, taps in kernel.tap_groups]

        def emit_row_of_tiles(block: RowBlock) -> None:
            with asm.loop(last, step=lanes) as v:
                inside = asm.compare(">=", v, inner_first) & asm.compare("<", v, inner_last)
                with asm.when(inside):
                    tile.emit(block, v, loads, None)
                with asm.when(inside.equals(0)):
                    tile.emit(block, v, *_edge_loads(asm, kernel, args, v))
            if narrows:
                asm.lanes = kernel.rest_lanes
                narrow = tile.narrowed()
                with asm.loop(right, start=last, step=asm.lanes) as v:
                    narrow.emit(block, v, *_edge_loads(asm, kernel, args, v))
                asm.lanes = lanes

        band.emit(emit_row_of_tiles)


def _emit_edges_function(asm: Assembler, kernel: DepthwiseConvolution) -> None:
    """Define the function for all columns of a band of rows, all of which need masks."""
    with asm.function("columns", **_BAND_WORDS) as (block, *rest):
        x, y, weight, zeros, image, channel, first, rows = rest
        args, lanes = Arguments(asm, block, kernel.fields), kernel.lanes
        band = Band(asm, kernel, args, x, y, zeros, first, rows)
        tile, right = _Tile(asm, kernel, args, weight, image, channel), args["out_width"]

        def emit_columns(tile: _Tile, begin: Index, end: Value) -> None:
            with asm.loop(end, start=begin, step=asm.lanes) as v:
                loads, stored = _edge_loads(asm, kernel, args, v)
                band.emit(lambda block: tile.emit(block, v, loads, stored))

        if kernel.rest_lanes == lanes:
            emit_columns(tile, 0, right)
            return
        last = args["rest_first"]
        emit_columns(tile, 0, last)
        asm.lanes = kernel.rest_lanes
        emit_columns(tile.narrowed(), last, right)
        asm.lanes = lanes


def _emit_walk_function(asm: Assembler, kernel: DepthwiseConvolution) -> None:
    """Define the function for all columns of a band of rows, of which the last need masks."""
    with asm.function("walk", **_BAND_WORDS) as (block, *rest):
        x, y, weight, zeros, image, channel, first, rows = rest
        args = Arguments(asm, block, kernel.fields)
        inner, right = args.load("inner_last", "out_width")
        band = Band(asm, kernel, args, x, y, zeros, first, rows)
        tile = _Tile(asm, kernel, args, weight, image, channel)

        def emit_row_of_tiles(block: RowBlock) -> None:
            walk = Walk(asm, kernel.kernel[1], kernel.stride_w, args, block.sources, zeros)
            with asm.loop(inner, step=asm.lanes, carry=walk.carry) as v:
                tile.add_up(block, v, walk.columns(v, None), None, walk.restore)
            with asm.loop(right, start=inner, step=asm.lanes, carry=walk.carry) as v:
                bounds = walk.bounds(v)
                stored = _stored_mask(asm, kernel, args, v)
                tile.add_up(block, v, walk.columns(v, bounds), stored, walk.restore)

        band.emit(emit_row_of_tiles)


def _edge_loads(
    asm: Assembler, kernel: DepthwiseConvolution, args: Arguments, v: Value
) -> tuple[list[TapLoad], Mask]:
    """Loads for every group of tap columns that leave out what is outside, and the store mask."""
    loads = []
    for s, taps in kernel.tap_groups:
        column = v * kernel.stride_w + s * args["dilation_w"] - args["pad_left"]
        bounds = 0 - column, args["width"] - column
        loads.append(TapLoad(asm, kernel.stride_w, taps, bounds))
    return loads, _stored_mask(asm, kernel, args, v)


def _stored_mask(asm: Assembler, kernel: DepthwiseConvolution, args: Arguments, v: Value) -> Mask:
    """The lanes of y from output column ``v`` on."""
    step = 2 if kernel.epilogue.pool else 1
    return asm.lanes_below((args["out_width"] - v) // step, asm.lanes // step)


class _Tile:
    """Computes tiles of one output channel."""

    def __init__(
        self,
        asm: Assembler,
        kernel: DepthwiseConvolution,
        args: Arguments,
        weight: Value,
        image: Value,
        channel: Value,
    ) -> None:
        self.asm = asm
        self.kernel = kernel
        self.weight = weight
        self.image, self.channel, self.out_width = image, channel, args["out_width"]
        self.epilogue = Epilogue(asm, kernel.epilogue, args)
        self.terms: ChannelTerms = self.epilogue.of_channel(channel)
        # A row needs one pointer where the columns of taps are at constant distances.
        dilation: Index = 1 if kernel.adjacent else args["dilation_w"]
        self.offsets = [s * dilation for s in range(kernel.kernel[1])]
        self.kept: list[Value] = []
        if kernel.taps <= MAX_KEPT_WEIGHTS:
            self.kept = [asm.broadcast(weight, tap) for tap in range(kernel.taps)]

    def narrowed(self) -> _Tile:
        """The same with vectors of ``asm.lanes``, the first ones of these."""
        asm, lanes = self.asm, range(self.asm.lanes)

        def first(value: Value | None) -> Value | None:
            return None if value is None else asm.shuffle(value, None, lanes)

        tile = copy.copy(self)
        tile.kept = [asm.shuffle(weight, None, lanes) for weight in self.kept]
        terms = self.terms
        tile.terms = ChannelTerms(first(terms.scale), first(terms.bias), first(terms.slope))
        return tile

    def emit(self, block: RowBlock, v: Value, loads: Sequence[TapLoad], stored: Mask) -> None:
        """Compute and store one tile at output column ``v``.

        Tap columns one after the other: of the weights only those of one column are in use.
        """
        acc, column = self._zeros(), v * self.kernel.stride_w
        if self.kernel.skips:
            self._add_rows(acc, block, column, loads)
            self._store(block, v, acc, stored)
            return
        for (s, _), load in zip(self.kernel.tap_groups, loads, strict=True):
            for t, source in enumerate(block.sources):
                for n, vector in enumerate(load(source + column + self.offsets[s])):
                    self._accumulate(acc, t, s + n, vector)
        self._store(block, v, acc, stored)

    def _add_rows(
        self, acc: list[Value], block: RowBlock, column: Index, loads: Sequence[TapLoad]
    ) -> None:
        """Add row after row, but for those outside the image.

        Weights are operands in memory.
        """
        asm, kernel = self.asm, self.kernel
        height, step = kernel.kernel[0], kernel.row_step
        for t, (source, inside) in enumerate(zip(block.sources, block.inside, strict=True)):
            rows = [j for j in range(kernel.rows) if 0 <= t - j * step < height]
            sums: dict[Any, Value] = {j: acc[j] for j in rows}
            with asm.loop(asm.select(inside, asm.index(1), asm.index(0)), carry=sums):
                for (s, _), load in zip(kernel.tap_groups, loads, strict=True):
                    for n, vector in enumerate(load(source + column + self.offsets[s])):
                        for j in rows:
                            tap = (t - j * step) * kernel.kernel[1] + s + n
                            sums[j] = asm.fma(self._weight(tap), vector, sums[j])
            for j in rows:
                acc[j] = sums[j]

    def add_up(
        self,
        block: RowBlock,
        v: Value,
        columns: Callable[[int], list[Value]],
        stored: Mask,
        restore: Callable[[Value], Value],
    ) -> None:
        """Compute and store one tile; ``columns(t)`` is what each tap column reads of row t."""
        acc = self._zeros()
        for t in range(self.kernel.in_rows):
            for s, vector in enumerate(columns(t)):
                self._accumulate(acc, t, s, vector)
        self._store(block, v, [restore(value) for value in acc], stored)

    def _zeros(self) -> list[Value]:
        return [self.asm.zeros() for _ in range(self.kernel.rows)]

    def _store(self, block: RowBlock, v: Value, values: Sequence[Value], stored: Mask) -> None:
        if self.kernel.epilogue.pool:
            self._store_pooled(block, v, values, stored)
            return
        for j, (value, target) in enumerate(zip(values, block.targets, strict=True)):
            ready = self.epilogue.prepare(value, self.terms)
            if not self.kernel.epilogue.stores_once:
                self.epilogue.store(ready, target, v, mask=stored, terms=self.terms)
                continue
            with self.asm.when(self.asm.compare("<=", block.done, j)):
                self.epilogue.store(ready, target, v, mask=stored, terms=self.terms)

    def _store_pooled(
        self, block: RowBlock, v: Value, values: Sequence[Value], stored: Mask
    ) -> None:
        """Store half a vector for every two rows."""
        epilogue = self.epilogue
        mask = None if stored is None else self.asm.lanes_below(self.out_width - v)

        def residual(row: int) -> Value:
            source = epilogue.residual_row(self.image, self.channel, block.row + row)
            return self.asm.load(source, v, mask=mask)

        for n, target in enumerate(block.targets):
            upper, lower = values[2 * n : 2 * n + 2]
            added = None
            if epilogue.kind.residual:
                added = lambda i, _, n=n: residual(2 * n + i)  # noqa: E731
            (ready,) = epilogue.prepare_pixels([upper], [lower], self.terms, added)
            epilogue.store(ready, target, v // 2, mask=stored)

    def _accumulate(self, acc: list[Value], t: int, s: int, vector: Value) -> None:
        """Add input row ``t`` through tap column ``s`` to the output rows it belongs to."""
        height, width = self.kernel.kernel
        for j in range(self.kernel.rows):
            r = t - j * self.kernel.row_step
            if 0 <= r < height:
                acc[j] = self.asm.fma(self._weight(r * width + s), vector, acc[j])

    def _weight(self, tap: int) -> Value:
        return self.kept[tap] if self.kept else self.asm.broadcast(self.weight, tap)
