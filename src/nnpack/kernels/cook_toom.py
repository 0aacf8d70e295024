"""Convolution by F(m, r) down the columns: pixels of output rows in the lanes, weights broadcast.

Of Winograd's algorithm the half that needs no shuffle: input rows are transformed, across they
are read as they lie, and every tap column is a product in the transform domain,

    y[i * m .. i * m + m] = A^T sum_(c, s) (G g[c, :, s]) * (B^T x[c, i * m .. i * m + t, j + s]),

t = m + r - 1 multiplications a tap column for m * r (Winograd, 1980). For few input channels, whose
2-D transforms would cost more than they save: of a row of outputs only A^T is added here, m vectors
of t sums that are in registers. A task transforms a block of input rows once, into the worker's
scratch, as planes ``[channel][tile row][phase][t][pitch]``.

With a stride, phase p of the rows is a channel of its own with the taps p, p + sh, ...; phases with
a tap less have no product at infinity. Phase q of the columns is read by the taps q, q + sw, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnpack.frozen import dataclass
from nnpack.kernels.cook_toom_shape import Columns
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, Residuals, epilogue_fields
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.stored_sums import emit_sum_pixels
from nnpack.kernels.taps import TapLoad
from nnpack.kernels.transform import emit_program
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

_FIELDS = {
    **dict.fromkeys(("x", "weight", "y", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "zeros",
            "groups",
            "channels",
            "group_out_channels",
            "height",
            "width",
            "out_height",
            "out_width",
            "pad_top",
            "pad_left",
            "block_tiles",
            "pitch",
            "panels",
            "chunk_panels",
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
class CookToomConvolution:
    """The stage ``y[n, k, i, j] = epilogue(sum weight[k, c, r, s] * x[n, c, i', j'])``.

    The sum is over c, r and s; ``i' = i * sh + r - top``, ``j' = j * sw + s - left``. A task is
    ``block_tiles`` rows of tiles of one image and group, and ``chunk_panels`` panels of weights of
    `PackCookToomWeights`. A tile is m rows by one vector of ``mr`` output channels.
    ``zeros``: floats of a row of zeros at the beginning of the scratch, no fewer than
    ``pitch * sw`` and a vector. Where the epilogue pools, m and the extents of outputs are even.
    """

    columns: Columns
    mr: int
    epilogue: EpilogueKind
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**_FIELDS, **epilogue_fields(self.epilogue), **profile_fields(self.profile)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


@dataclass(frozen=True)
class _Block:
    """Rows of tiles ``first .. first + count`` of an image and group, transformed at ``source``."""

    image: Value
    group: Value
    first: Value
    count: Value
    source: Value


@dataclass(frozen=True)
class _Place:
    """Where a tile goes: ``y`` is its first pixel, of ``channels`` channels from ``channel`` on.

    ``rows`` by ``pixels`` are left to be stored. ``residual``: that of the first pixel, if what is
    pooled has one.
    """

    y: Value
    channel: Value
    channels: Value
    rows: Value
    pixels: Value
    residual: Value


class _Emitter:
    def __init__(self, asm: Assembler, kernel: CookToomConvolution) -> None:
        from nnpack.maths.program import linear_program

        self.asm = asm
        self.kernel = kernel
        self.columns = kernel.columns
        self.input = linear_program(self.columns.factors.input)
        self.output = linear_program(self.columns.factors.output)
        # Rows of outputs that give one of y.
        self.step = 2 if kernel.epilogue.pool else 1
        # Whether a residual is added before the pool.
        self.adds = kernel.epilogue.pool is not None and kernel.epilogue.residual is not None

    def emit(self) -> None:
        asm, kernel = self.asm, self.kernel
        self._emit_row_function()
        if kernel.epilogue.statistics:
            emit_sum_pixels(asm, kernel.fields)
        self._emit_transform_function()
        with emit_stage(asm, kernel.fields) as (args, first, last, worker):
            zeros = args["scratch"] + worker * args["scratch_stride"]
            with asm.loop(args["zeros"], step=asm.lanes) as v:
                asm.store(asm.zeros(), zeros, v)
            chunks = asm.ceil_div(args["panels"], args["chunk_panels"])
            state = {"done": asm.index(-1)}
            with asm.loop(last, start=first, carry=state) as task:
                number = task // chunks
                is_new = number.equals(state["done"]).equals(0)
                self._emit_task(args, zeros, number, is_new, task % chunks)
                state["done"] = number

    def _emit_task(
        self, args: Arguments, zeros: Value, number: Value, is_new: Value, chunk: Value
    ) -> None:
        """One task; transforms unless the task before was of the same block."""
        asm, m = self.asm, self.columns.m
        timer = PhaseTimer(args, self.kernel.profile)
        tiles, block_tiles = asm.ceil_div(args["out_height"], m), args["block_tiles"]
        blocks = asm.ceil_div(tiles, block_tiles)
        image, first = number // blocks, number % blocks * block_tiles
        n, group = image // args["groups"], image % args["groups"]
        count = asm.minimum(block_tiles, tiles - first)
        block = _Block(n, group, first, count, zeros + args["zeros"])
        x = args["x"] + n * args["x_n"] + group * args["channels"] * args["x_c"]
        with asm.when(is_new), timer.phase("input transform"):
            asm.call("transform", args.block, x, zeros, block.source, first, count)
        with timer.phase("multiplication"):
            self._emit_panels(args, block, chunk)

    def _plane_floats(self, args: Arguments) -> Value:
        """Floats of a row of tiles of one channel."""
        return args["pitch"] * (len(self.columns.phases) * self.columns.t)

    def _emit_transform_function(self) -> None:
        asm, columns = self.asm, self.columns
        with asm.function(
            "transform",
            block="pointer",
            x="pointer",
            zeros="pointer",
            to="pointer",
            first="index",
            count="index",
        ) as (block, x, zeros, to, first, count):
            args = Arguments(asm, block, self.kernel.fields)
            top, plane = args["pad_top"], self._plane_floats(args)
            state = {"x": x, "to": to}
            with asm.loop(args["channels"], carry=state):
                tile = {"to": state["to"]}
                with asm.loop(first + count, start=first, carry=tile) as i:
                    row = i * (columns.m * columns.stride[0]) - top
                    rows = self._input_rows(args, state["x"], zeros, row)
                    self._emit_row_of_tiles(args, rows, tile["to"])
                    tile["to"] = tile["to"] + plane
                state["x"] = state["x"] + args["x_c"]
                state["to"] = state["to"] + args["block_tiles"] * plane

    def _input_rows(self, args: Arguments, x: Value, zeros: Value, row: Value) -> list[Value]:
        """The rows of a tile from column ``-left`` on, those outside the image a row of zeros."""
        asm, (stride, _) = self.asm, self.columns.stride
        count = (self.columns.t - 1) * stride + min(stride, self.columns.kernel[0])
        height, x_h, rows = args["height"], args["x_h"], []
        source = x - args["pad_left"] + row * x_h
        for n in range(count):
            inside = asm.compare(">=", row + n, 0) & asm.compare("<", row + n, height)
            rows.append(asm.select(inside, source, zeros))
            source = source + x_h
        return rows

    def _emit_row_of_tiles(self, args: Arguments, rows: Sequence[Value], to: Value) -> None:
        """Transform whole vectors of columns; what they hold beyond the last is not read."""
        asm, columns, lanes = self.asm, self.columns, self.asm.lanes
        stride, taps = columns.stride[1], min(columns.kernel[1], columns.stride[1])
        left, width = args.load("pad_left", "width")
        used = args["out_width"] + (columns.kernel[1] - 1) // stride
        with asm.loop(used, step=lanes) as v:
            low = left - v * stride
            high = low + width
            whole = asm.compare("<=", low, 0)
            whole = whole & asm.compare(">=", high, (lanes - 1) * stride + taps)
            with asm.when(whole):
                self._emit_vectors(args, rows, TapLoad(asm, stride, taps), v, to)
            with asm.when(whole.equals(0)):
                self._emit_vectors(args, rows, TapLoad(asm, stride, taps, (low, high)), v, to)

    def _emit_vectors(
        self, args: Arguments, rows: Sequence[Value], load: TapLoad, v: Value, to: Value
    ) -> None:
        """Transform the vectors of all phases at column ``v``."""
        columns, pitch = self.columns, args["pitch"]
        (stride, stride_w), t = columns.stride, columns.t
        across = min(columns.kernel[1], stride_w)
        for p in range(min(columns.kernel[0], stride)):
            loaded = [load(rows[a * stride + p] + v * stride_w) for a in range(t)]
            for q in range(across):
                values = emit_program(self.asm, self.input, [vectors[q] for vectors in loaded])
                for f in columns.frequencies(p):
                    place = (p * across + q) * t + f
                    self.asm.store(values[f], to + pitch * place, v)

    def _emit_panels(self, args: Arguments, block: _Block, chunk: Value) -> None:
        """All tiles of the block times the panels of the chunk."""
        asm, kernel, m = self.asm, self.kernel, self.columns.m
        panels, out_channels = args.load("panels", "group_out_channels")
        floats = args["channels"] * (self.columns.products * kernel.mr)
        begin = chunk * args["chunk_panels"]
        end = asm.minimum(begin + args["chunk_panels"], panels)
        y = args["y"] + block.image * args["y_n"]
        y = y + block.group * out_channels * args["y_c"]
        epilogue = Epilogue(asm, kernel.epilogue, args)
        with asm.loop(end, start=begin) as panel:
            weight = args["weight"] + (block.group * panels + panel) * floats
            channel = panel * kernel.mr
            channels = asm.minimum(out_channels - channel, kernel.mr)
            out, number = y + channel * args["y_c"], channel + block.group * out_channels
            state = {"source": block.source}
            with asm.loop(block.first + block.count, start=block.first, carry=state) as i:
                row = i * m
                residual = out
                if self.adds:
                    residual = epilogue.residual_row(block.image, number, row)
                target, left = out + row // self.step * args["y_h"], args["out_height"] - row
                words = (target, number, channels, left, residual)
                asm.call("row", args.block, weight, state["source"], *words)
                state["source"] = state["source"] + self._plane_floats(args)
            if kernel.epilogue.statistics:
                self._emit_sums(args, block, out, number, channels)

    def _emit_sums(
        self, args: Arguments, block: _Block, y: Value, channel: Value, channels: Value
    ) -> None:
        """Sum what was stored of the channels of a panel: the block is a piece."""
        asm, m = self.asm, self.columns.m
        size, pitch, height, width = args.load(
            "sums_size", "sums_channels", "out_height", "out_width"
        )
        row = block.first * m
        rows = asm.minimum(block.count * m, height - row)
        start, pieces = row * width, asm.ceil_div(height * width, size)
        place = (block.image * pieces + start // size) * pitch + channel
        asm.call("sum_pixels", args.block, y + start, place, channels, rows * width)

    def _emit_row_function(self) -> None:
        """Define the function for a row of tiles."""
        asm = self.asm
        with asm.function(
            "row",
            block="pointer",
            weight="pointer",
            source="pointer",
            y="pointer",
            channel="index",
            channels="index",
            rows="index",
            residual="pointer",
        ) as (block, weight, source, y, channel, channels, rows, residual):
            args = Arguments(asm, block, self.kernel.fields)
            width = args["out_width"]
            with asm.loop(width, step=asm.lanes) as v:
                target = y + v // self.step
                added = residual + v if self.adds else residual
                place = _Place(target, channel, channels, rows, width - v, added)
                self._emit_prefetch(args, place)
                sums = self._emit_product(args, weight, source + v)
                self._emit_store(args, sums, place)

    def _emit_prefetch(self, args: Arguments, place: _Place) -> None:
        """Ask for the lines of the next tile, each in another row or plane.

        Stored without, outputs beyond the second-level cache took a fifth longer. A residual is
        asked for a row of tiles ahead: behind 7x7/2 it costs 8 % and not 21, behind 3x3 3->64 @224
        48 % and not 129.
        """
        asm, step = self.asm, self.step
        epilogue = Epilogue(asm, self.kernel.epilogue, args)
        y_c, y_h = args.load("y_c", "y_h")
        for i in range(self.kernel.mr):
            for row in range(self.columns.m // step):
                line = place.y + y_c * i + y_h * row
                asm.prefetch(line, asm.lanes // step, write=True)
                if epilogue.adds:
                    asm.prefetch(epilogue.residual(line) + y_h * self.columns.m, level=2)

    def _emit_product(self, args: Arguments, weight: Value, source: Value) -> dict[Any, Value]:
        """The sums ``[f, i]`` over channels and tap columns."""
        asm, columns, mr = self.asm, self.columns, self.kernel.mr
        pitch, plane = args["pitch"], self._plane_floats(args) * args["block_tiles"]
        places = [(f, i) for f in range(columns.t) for i in range(mr)]
        state: dict[Any, Value] = dict.fromkeys(places, asm.zeros())
        offsets = [pitch * f for f in range(columns.t)]
        phase_floats = pitch * columns.t
        state |= {"weight": weight, "source": source}
        with asm.loop(args["channels"], carry=state):
            phases = [state["source"]]
            for _ in columns.phases[1:]:
                phases.append(phases[-1] + phase_floats)
            number = 0
            for p, n, column in columns.steps:
                for f in columns.frequencies(p):
                    vector = asm.load(phases[n] + offsets[f], column)
                    for i in range(mr):
                        factor = asm.broadcast(state["weight"], number)
                        number += 1
                        state[f, i] = asm.fma(factor, vector, state[f, i])
            state["weight"] = state["weight"] + columns.products * mr
            state["source"] = state["source"] + plane
        return {place: state[place] for place in places}

    def _emit_store(self, args: Arguments, sums: dict[Any, Value], place: _Place) -> None:
        """Transform back and store: a whole tile without masks, any other with them.

        Channel by channel: in one piece, LLVM would transform all and keep them on the stack.
        """
        asm, kernel = self.asm, self.kernel
        epilogue = Epilogue(asm, kernel.epilogue, args)
        whole = asm.compare(">=", place.pixels, asm.lanes)
        whole = whole & asm.compare(">=", place.rows, self.columns.m)
        for i in range(kernel.mr):
            with asm.when(asm.compare(">", place.channels, i)):
                for masked in (False, True):
                    with asm.when(whole.equals(0) if masked else whole):
                        self._emit_channel(args, epilogue, sums, place, i, masked=masked)

    def _emit_channel(
        self,
        args: Arguments,
        epilogue: Epilogue,
        sums: dict[Any, Value],
        place: _Place,
        i: int,
        *,
        masked: bool,
    ) -> None:
        """Store channel i of a tile."""
        asm, columns, step = self.asm, self.columns, self.step
        terms = epilogue.of_channel(place.channel + i)
        outputs = emit_program(asm, self.output, [sums[f, i] for f in range(columns.t)])
        plane, y_h = place.y + args["y_c"] * i, args["y_h"]
        for row in range(0, columns.m, step):
            target = plane + y_h * (row // step)
            residuals = self._residuals(args, place, i, row) if self.adds else None
            values = outputs[row : row + step]
            if not masked:
                self._emit_row(epilogue, values, terms, residuals, target, None)
                continue
            with asm.when(asm.compare(">", place.rows, row)):
                self._emit_row(epilogue, values, terms, residuals, target, place.pixels // step)

    def _emit_row(
        self,
        epilogue: Epilogue,
        values: Sequence[Value],
        terms: ChannelTerms,
        residuals: Residuals | None,
        target: Value,
        pixels: Value | None,
    ) -> None:
        """Store what a row of outputs, or two that are pooled, gives of y: ``pixels`` or all."""
        if self.step == 1:
            value = epilogue.prepare(values[0], terms)
        else:
            (value,) = epilogue.prepare_pixels(values[:1], values[1:], terms, residuals)
        mask = None if pixels is None else self.asm.lanes_below(pixels, value.ir.type.count)
        epilogue.store(value, target, mask=mask, terms=terms)

    def _residuals(self, args: Arguments, place: _Place, i: int, row: int) -> Residuals:
        """Those of two rows of channel i of a tile."""
        asm, (channel, height) = self.asm, args.load("residual_c", "residual_h")

        def load(n: int, _: int) -> Value:
            source = place.residual + (channel * i + height * (row + n))
            return asm.load(source, mask=asm.lanes_below(place.pixels))

        return load
