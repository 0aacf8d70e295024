"""Depthwise convolution of narrow planes: whole rows in registers, several planes side by side.

A vector holds one row of each of `planes` planes, `span` lanes a plane, as many as the power of
two that a row of output needs. A row of input is loaded once, masked to its width; what a tap
column reads is that row, every stride-th float of it, shifted by some lanes within its plane, with
zeros following: the padding at both ends of a row costs nothing,

    7 columns, tap -1:  | 0 a0 a1 a2 a3 a4 a5 a6 | 0 b0 b1 b2 b3 b4 b5 b6 |
              tap  0:   | a0 a1 a2 a3 a4 a5 a6 0 | b0 b1 b2 b3 b4 b5 b6 0 |

Rows of twice as many lanes are two vectors, of one plane, from which lanes move into one another.
Every tap loaded as it stands would cross cache lines, and take longer than the multiply-adds: 28
columns through 3x3 taps took 640 cycles a plane, and take 550 (Zen 4).

Rows outside the image are read from a row of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, epilogue_fields
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.taps import split_order

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value
    from nnpack.problem import EpilogueKind

_FIELDS = {
    **dict.fromkeys(("x", "weight", "y", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "groups",
            "out_channels",
            "multiplier",
            "height",
            "width",
            "out_height",
            "out_width",
            "pad_top",
            "span",
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
class DepthwisePlanes:
    """The stage ``y[n, k, i, j] = epilogue(sum weight[k, r, s] * x[n, k // multiplier, i', j'])``.

    The sum is over r and s; ``i' = i * sh + r - top``, ``j' = j * sw + s - pad_left``. A task is
    ``planes`` output channels of one image; the last of them may repeat the last channel, which
    is not stored twice where outputs must be stored once.
    ``span``: lanes of a plane; no row of output is longer, no row of input than ``span * sw``.
    They are ``vectors`` vectors: several only of a single plane. ``skips``: rows outside the image
    are left out, one by one.
    ``rows``: output rows of a tile, of which a plane has at least as many; both even where the
    epilogue pools.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad_left: int
    rows: int
    planes: int
    span: int
    vectors: int
    skips: bool
    epilogue: EpilogueKind
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**_FIELDS, **epilogue_fields(self.epilogue), **profile_fields(self.profile)}

    @property
    def in_rows(self) -> int:
        """Rows of input that a tile reads."""
        return (self.rows - 1) * self.stride[0] + self.kernel[0]

    @property
    def row_floats(self) -> int:
        """Floats of a row of zeros."""
        return self.span * self.stride[1]

    @property
    def lanes(self) -> int:
        """Lanes of a vector of sums."""
        return self.planes * self.span // self.vectors

    @property
    def splits(self) -> bool:
        """Whether sums have the pixels of their vectors in `split_order`.

        Parting two vectors within quarters of registers and turning the sums is less work than
        parting across quarters, which takes permutations of two vectors: two cycles each (Zen 4).
        """
        shifts = [abs(self.tap(s)[0]) for s in range(self.kernel[1])]
        return self.planes == 1 and self.stride[1] == 2 and self.lanes >= 8 and max(shifts) <= 2

    def tap(self, s: int) -> tuple[int, int]:
        """By how many lanes tap column ``s`` reads a row shifted, and which phase of it."""
        return divmod(s - self.pad_left, self.stride[1])

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        if self.epilogue.statistics:
            from nnpack.kernels.stored_sums import emit_sum_pixels

            emit_sum_pixels(asm, self.fields, self.planes)
        # What is loaded and stored; sums are `planes` times as wide.
        asm.lanes = self.span // self.vectors
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            zeros = args["scratch"] + worker * args["scratch_stride"]
            with asm.loop(self.row_floats, step=asm.lanes) as v:
                asm.store(asm.zeros(), zeros, v)
            groups, masks = args["groups"], _Masks(asm, self, args)
            place = {"group": first % groups, "image": first // groups}
            with (
                PhaseTimer(args, self.profile).phase("multiplication"),
                asm.loop(last, start=first, carry=place),
            ):
                group = _Group(asm, self, args, masks, zeros, place["image"], place["group"])
                group.emit()
                if self.epilogue.statistics:
                    self._emit_sums(asm, args, place["image"], place["group"], group.targets[0])
                after = place["group"] + 1
                full = after.equals(groups)
                place["group"] = asm.select(full, 0, after)
                place["image"] = asm.select(full, place["image"] + 1, place["image"])

    def _emit_sums(
        self, asm: Assembler, args: Arguments, image: Value, group: Value, y: Value
    ) -> None:
        """Sum the planes that were stored at ``y``, each a piece of its own."""
        channel = group * self.planes
        channels = asm.minimum(args["out_channels"] - channel, self.planes)
        place = image * args["sums_channels"] + channel
        pixels = args["out_height"] * args["out_width"]
        asm.call("sum_pixels", args.block, y, place, channels, pixels)


class _Masks:
    """The masks of all groups, made of what is known at run time only.

    Turning a vector and clearing lanes of it is one instruction with a mask, and so is a
    broadcast into some lanes. Of shuffles that say the same, LLVM would make several, or slow ones.
    """

    def __init__(self, asm: Assembler, kernel: DepthwisePlanes, args: Arguments) -> None:
        self._asm = asm
        self._kernel = kernel
        self._span = args["span"]
        lanes, width = kernel.lanes, args["width"]
        self.planes = [
            asm.lanes_between(i * self._span, lanes, lanes) for i in range(kernel.planes)
        ]
        size = min(kernel.row_floats, lanes)
        loaded = range(0, kernel.row_floats, size)
        self.loaded = [asm.lanes_below(width - n, size) for n in loaded]
        out_width, firsts = args["out_width"], range(0, kernel.span, asm.lanes)
        self.outputs = [asm.lanes_below(out_width - n) for n in firsts]
        self.stored = self.outputs
        if kernel.epilogue.pool:
            half = kernel.span // 2
            sizes = [(n, min(half - n, asm.lanes)) for n in range(0, half, asm.lanes)]
            self.stored = [asm.lanes_below(out_width // 2 - n, size) for n, size in sizes]
        shifts = {kernel.tap(s)[0] for s in range(kernel.kernel[1])} - {0}
        self.shifted = {shift: self._with_source(shift) for shift in sorted(shifts)}

    def _with_source(self, shift: int) -> Value:
        """The lanes l whose lane l + shift belongs to the same plane, or vector of a plane.

        Of vectors side by side, the first one that lanes come from; if their pixels are split, the
        lanes that come from a neighbour, before they are turned.
        """
        asm, kernel, span = self._asm, self._kernel, self._span
        lanes = kernel.lanes
        if kernel.splits:
            beyond = span // kernel.vectors - lanes + shift  # LLVM does not know that it is shift
            if shift > 0:
                return asm.lanes_below(beyond, lanes)
            return asm.lanes_between(beyond + lanes, lanes, lanes)
        if kernel.vectors > 1:
            return asm.lanes_below(span // kernel.vectors - shift % lanes, lanes)
        low, high = -min(shift, 0), span - max(shift, 0)
        mask = asm.lanes_between(low, high, lanes)
        for i in range(1, kernel.planes):
            mask = mask | asm.lanes_between(i * span + low, i * span + high, lanes)
        return mask


class _Group:
    """Computes the planes of one group."""

    def __init__(
        self,
        asm: Assembler,
        kernel: DepthwisePlanes,
        args: Arguments,
        masks: _Masks,
        zeros: Value,
        image: Value,
        group: Value,
    ) -> None:
        self.asm = asm
        self.kernel = kernel
        self.args = args
        self.masks = masks
        self.zeros = zeros
        self.image = image
        last, multiplier = args["out_channels"] - 1, args["multiplier"]
        wanted = [group * kernel.planes + i for i in range(kernel.planes)]
        channels = [asm.minimum(channel, last) for channel in wanted]
        self.present = [asm.compare("<=", channel, last) for channel in wanted]
        x, y = args["x"] + image * args["x_n"], args["y"] + image * args["y_n"]
        self.channels = channels
        self.sources = [x + channel // multiplier * args["x_c"] for channel in channels]
        self.targets = [y + channel * args["y_c"] for channel in channels]
        taps = kernel.kernel[0] * kernel.kernel[1]
        self.taps = [self.args["weight"] + channel * taps for channel in channels]
        # Of one plane each row of input has its weights broadcast anew.
        self.weights = [] if kernel.skips and kernel.planes == 1 else self._load_weights()
        self.epilogue = Epilogue(asm, kernel.epilogue, args)
        self.terms: list[ChannelTerms] = [self.epilogue.of_channel(c) for c in channels]

    def _load_weights(self) -> list[Value]:
        """Every tap, that of a plane in all of its lanes."""
        asm, kernel = self.asm, self.kernel
        weights = []
        for tap in range(kernel.kernel[0] * kernel.kernel[1]):
            weight = asm.broadcast(self.taps[0], tap, kernel.lanes)
            for row, mask in zip(self.taps[1:], self.masks.planes[1:], strict=True):
                weight = asm.select(mask, asm.broadcast(row, tap, kernel.lanes), weight)
            weights.append(weight)
        return weights

    def _weight(self, tap: int) -> Value:
        if self.weights:
            return self.weights[tap]
        return self.asm.broadcast(self.taps[0], tap, self.kernel.lanes)

    def emit(self) -> None:
        """Emit all tiles. The last moves back so as to end with the plane."""
        asm, rows, out_height = self.asm, self.kernel.rows, self.args["out_height"]
        with asm.loop(out_height, step=rows) as begin:
            row = asm.minimum(begin, out_height - rows)
            self._emit_tile(row, begin - row)

    def _emit_tile(self, row: Value, done: Value) -> None:
        """The tile from output row ``row`` on, whose first ``done`` rows are stored already."""
        kernel, asm = self.kernel, self.asm
        zero = asm.zeros(kernel.lanes)
        acc = [[zero] * kernel.vectors for _ in range(kernel.rows)]
        first = row * kernel.stride[0] - self.args["pad_top"]
        for t in range(kernel.in_rows):
            if kernel.skips:
                self._accumulate_inside(acc, t, first + t)
            else:
                self._accumulate(acc, t, self._tap_columns(first + t))
        if kernel.splits:
            acc = [[self._restored(value) for value in values] for values in acc]
        if kernel.epilogue.pool:
            self._store_pooled(acc, row)
            return
        y_h = self.args["y_h"]
        for j, values in enumerate(acc):
            for i, (target, terms) in enumerate(zip(self.targets, self.terms, strict=True)):
                parts = [self.epilogue.prepare(v, terms) for v in self._of_plane(values, i)]
                place = target + (row + j) * y_h
                if not kernel.epilogue.stores_once:
                    self._store(parts, place, terms)
                    continue
                with asm.when(asm.compare("<=", done, j) & self.present[i]):
                    self._store(parts, place, terms)

    def _of_plane(self, values: Sequence[Value], i: int) -> Sequence[Value]:
        """The lanes of plane i."""
        span = self.kernel.span
        if self.kernel.planes == 1:
            return values
        return [self.asm.shuffle(values[0], None, range(i * span, (i + 1) * span))]

    def _store(
        self, parts: Sequence[Value], place: Value, terms: ChannelTerms | None = None
    ) -> None:
        """Store a row."""
        for n, (part, mask) in enumerate(zip(parts, self.masks.stored, strict=True)):
            self.epilogue.store(part, place, n * self.asm.lanes, mask=mask, terms=terms)

    def _store_pooled(self, acc: Sequence[Sequence[Value]], row: Value) -> None:
        """Store half as much of every plane for every two rows."""
        asm, kernel, epilogue = self.asm, self.kernel, self.epilogue

        def residual(i: int, j: int, n: int) -> Value:
            source = epilogue.residual_row(self.image, self.channels[i], row + j)
            return asm.load(source, n * asm.lanes, mask=self.masks.outputs[n])

        for j in range(0, kernel.rows, 2):
            for i, (target, terms) in enumerate(zip(self.targets, self.terms, strict=True)):
                upper, lower = (self._of_plane(values, i) for values in acc[j : j + 2])
                added = None
                if epilogue.kind.residual:
                    added = lambda m, n, i=i, j=j: residual(i, j + m, n)  # noqa: E731
                ready = epilogue.prepare_pixels(upper, lower, terms, added)
                self._store(ready, target + (row + j) // 2 * self.args["y_h"])

    def _accumulate(
        self, acc: list[list[Value]], t: int, columns: Sequence[list[Value] | None]
    ) -> None:
        """Add input row ``t`` of the tile to the output rows it belongs to."""
        height, width = self.kernel.kernel
        for s, vectors in enumerate(columns):
            for j in range(self.kernel.rows):
                r = t - j * self.kernel.stride[0]
                if vectors is None or not 0 <= r < height:
                    continue
                weight = self._weight(r * width + s)
                acc[j] = [
                    self.asm.fma(weight, vector, total)
                    for vector, total in zip(vectors, acc[j], strict=True)
                ]

    def _accumulate_inside(self, acc: list[list[Value]], t: int, row: Value) -> None:
        """Add input row ``t`` of the tile, the image's ``row``, if it is one.

        As a block of its own, for which LLVM loads the weights where they are used: of more than
        there are registers for, whole vectors would be kept on the stack, and take twice as long.
        """
        asm, (height, _), step = self.asm, self.kernel.kernel, self.kernel.stride[0]
        rows = [j for j in range(self.kernel.rows) if 0 <= t - j * step < height]
        sums = {(j, n): value for j in rows for n, value in enumerate(acc[j])}
        inside = asm.compare(">=", row, 0) & asm.compare("<", row, self.args["height"])
        with asm.loop(asm.select(inside, asm.index(1), asm.index(0)), carry=sums):
            inner = [[sums.get((j, n), v) for n, v in enumerate(vs)] for j, vs in enumerate(acc)]
            self._accumulate(inner, t, self._tap_columns(row))
            sums.update({(j, n): inner[j][n] for j, n in sums})
        for (j, n), value in sums.items():
            acc[j][n] = value

    def _tap_columns(self, row: Value) -> list[list[Value] | None]:
        """What every tap column reads of an input row; None where that is nothing but padding."""
        phases = self._phases(row)
        taps = [self.kernel.tap(s) for s in range(self.kernel.kernel[1])]
        return [self._shifted(phases[phase], shift) for shift, phase in taps]

    def _phases(self, row: Value) -> list[list[Value]]:
        """Vectors p: floats p, p + sw, p + 2 sw, ... of the row of every plane."""
        asm, stride, span = self.asm, self.kernel.stride[1], self.kernel.span
        inside = asm.compare(">=", row, 0) & asm.compare("<", row, self.args["height"])
        offset = row * self.args["x_h"]
        planes = []
        for source in self.sources:
            pointer = asm.select(inside, source + offset, self.zeros)
            planes.append(self._load_row(pointer))
        if self.kernel.vectors > 1 or self.kernel.splits:
            return self._part(planes[0])
        rows = [asm.concatenate(plane) for plane in planes]
        if stride == 1:
            return [[asm.concatenate(rows)]]
        picks = [range(phase, span * stride, stride) for phase in range(stride)]
        return [[asm.concatenate([asm.shuffle(p, None, pick) for p in rows])] for pick in picks]

    def _part(self, row: list[Value]) -> list[list[Value]]:
        """The phases of a row, as many vectors of each as there are for a row of outputs."""
        asm, stride = self.asm, self.kernel.stride[1]
        if stride == 1:
            return [row]
        lanes = self.kernel.lanes
        if self.kernel.splits:
            order, pairs = split_order(lanes), list(zip(row[::2], row[1::2], strict=True))
            picked = [[2 * pixel + phase for pixel in order] for phase in range(2)]
            return [[asm.shuffle(low, high, pick) for low, high in pairs] for pick in picked]
        pieces = [asm.concatenate(row[n : n + stride]) for n in range(0, len(row), stride)]
        picks = [range(phase, lanes * stride, stride) for phase in range(stride)]
        return [[asm.shuffle(piece, None, pick) for piece in pieces] for pick in picks]

    def _load_row(self, pointer: Value) -> list[Value]:
        vectors = []
        for n, mask in enumerate(self.masks.loaded):
            size = mask.ir.type.count
            vectors.append(self.asm.load(pointer, n * size, mask=mask, lanes=size))
        return vectors

    def _shifted(self, vectors: list[Value], shift: int) -> list[Value] | None:
        """Lane l of each plane from its lane l + shift, zero where it has none."""
        asm, count = self.asm, self.kernel.lanes
        if shift == 0:
            return vectors
        if abs(shift) >= self.kernel.span:
            return None
        if self.kernel.splits:
            return self._moved_split(vectors, shift)
        if self.kernel.vectors > 1:
            return self._moved(vectors, shift)
        turned = asm.shuffle(vectors[0], None, [(lane + shift) % count for lane in range(count)])
        return [asm.select(self.masks.shifted[shift], turned, asm.zeros(count))]

    def _moved(self, vectors: list[Value], shift: int) -> list[Value]:
        """Vectors side by side, zeros on both sides, lane l from lane ``l + shift``."""
        asm, count = self.asm, self.kernel.lanes
        skipped, rest = divmod(shift, count)
        row = [asm.zeros(count), *vectors, asm.zeros(count)]

        def vector(n: int) -> Value:
            return row[max(0, min(n + 1, len(row) - 1))]

        if rest == 0:
            return [vector(n + skipped) for n in range(len(vectors))]
        order = [(lane + rest) % count for lane in range(count)]
        turned = [asm.shuffle(value, None, order) for value in row[1:-1]]
        turned = [row[0], *turned, row[-1]]
        mask, last = self.masks.shifted[shift], len(row) - 1
        pairs = [(n + 1 + skipped, n + 2 + skipped) for n in range(len(vectors))]
        return [
            asm.select(mask, turned[max(0, min(low, last))], turned[max(0, min(high, last))])
            for low, high in pairs
        ]

    def _moved_split(self, vectors: list[Value], shift: int) -> list[Value]:
        """The same of split vectors: first and last pixels are in the first and last lanes."""
        asm, count = self.asm, self.kernel.lanes
        order = split_order(count)
        turned = [order.index((pixel + shift) % count) for pixel in order]
        row, step = [asm.zeros(count), *vectors, asm.zeros(count)], 1 if shift > 0 else -1
        mask = self.masks.shifted[shift]
        joined = [asm.select(mask, row[n + step], row[n]) for n in range(1, len(row) - 1)]
        return [asm.shuffle(vector, None, turned) for vector in joined]

    def _restored(self, value: Value) -> Value:
        """The pixels of a split sum in their own order."""
        order = split_order(self.kernel.lanes)
        return self.asm.shuffle(value, None, [order.index(p) for p in range(len(order))])
