"""The output side of Winograd convolution: y = epilogue(A^T M A), turned back into rows."""

from __future__ import annotations

from collections.abc import Callable

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.compiler import ENTRY
from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, Residuals
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.tile_stage import OUTPUT_PARAMETERS
from nnpack.kernels.tiles import TileWalk, tile_residuals
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_rows
from nnpack.kernels.winograd_shape import PREFETCH_COLUMNS, TileShape
from nnpack.maths.program import linear_program
from nnpack.problem import EpilogueKind


@dataclass(frozen=True)
class _Channels:
    """One vector of output channels: the first, how many, their epilogue, their planes' offsets."""

    first: Value
    count: Value
    epilogue: Epilogue
    terms: ChannelTerms
    offsets: Value


class OutputTransform:
    """Emits the routine ``transform_output``: a block of tiles and panels first .. last."""

    def __init__(
        self, asm: Assembler, shape: TileShape, fields: Fields, kind: EpilogueKind
    ) -> None:
        self.asm = asm
        self.shape = shape
        self.fields = fields
        self.kind = kind
        self.t_h, self.t_w = shape.t
        self.m_h, self.m_w = shape.m
        # A pooled tile stores a row for two, and a column for two.
        self.step = 2 if kind.pool else 1
        self.rows, self.columns = self.m_h // self.step, self.m_w // self.step

    def emit(self) -> None:
        """Emit the routine."""
        asm, lanes = self.asm, self.asm.lanes
        with asm.function(ENTRY, exported=True, **OUTPUT_PARAMETERS) as words:
            block, m, y, group, start, count, first, last = words
            args = Arguments(asm, block, self.fields)
            epilogue = Epilogue(asm, self.kind, args)
            offsets, buffer = asm.local_words(lanes), asm.local_floats(self.m_h * self.t_w * lanes)
            for lane in range(lanes):
                asm.store_index(args["y_c"] * lane, offsets, lane)
            vectors, nv = asm.ceil_div(args["group_out_channels"], lanes), args["panel_vectors"]
            with asm.loop(asm.minimum(last * nv, vectors), start=first * nv) as k:
                channels = self._channels(args, epilogue, group, k * lanes, offsets)
                plane = y + k * lanes * args["y_c"]
                source = m + (k - first * nv) * args["block_tiles"] * lanes
                walk = TileWalk(asm, args, start)
                with asm.loop(count, carry=walk.state) as tile:
                    self._emit_columns(args, source + tile * lanes, buffer)
                    self._emit_tile(args, walk, plane, channels, buffer)
                    walk.advance()
                if self.kind.statistics:
                    summed = channels.first, channels.count, start, count
                    asm.call("sum_tiles", block, plane, *summed)

    def _channels(
        self, args: Arguments, epilogue: Epilogue, group: Value, channel: Value, offsets: Value
    ) -> _Channels:
        asm = self.asm
        count = asm.minimum(args["group_out_channels"] - channel, asm.lanes)
        first = group * args["group_out_channels"] + channel
        terms = epilogue.of_lanes(first, asm.lanes_below(count))
        return _Channels(first, count, epilogue, terms, offsets)

    def _emit_columns(self, args: Arguments, source: Value, buffer: Value) -> None:
        """``buffer[i][j] = (A^T M)[i][j]``."""
        asm, lanes = self.asm, self.asm.lanes
        program = linear_program(self.shape.rows.output)
        stride = args["m_f"]
        with asm.loop(self.t_w) as j:
            place = source + j * stride
            column = [asm.load(place + (i * self.t_w) * stride) for i in range(self.t_h)]
            for i, value in enumerate(emit_program(asm, program, column)):
                asm.store(value, buffer + j * lanes, i * self.t_w * lanes)

    def _emit_tile(
        self, args: Arguments, walk: TileWalk, plane: Value, channels: _Channels, buffer: Value
    ) -> None:
        """Store the rows of one tile, as far as there are rows, columns and channels."""
        asm, lanes = self.asm, self.asm.lanes
        place = self._place(args, walk, plane)
        columns = place.columns
        full = asm.compare(">=", columns, self.columns) & channels.count.equals(lanes)
        residuals = tile_residuals(channels.epilogue, args, walk, self.rows, self.columns)
        with asm.when(full), asm.loop(place.rows) as i:
            for lane, q, value in self._emit_row(buffer, i, channels, residuals):
                target = place.row(i) + asm.load_index(channels.offsets, lane)
                whole = min(lanes, self.columns - q)
                if self.shape.scattered:
                    self._emit_scatter(args, channels, lane, value, target, q, whole)
                else:
                    channel = channels.first + lane
                    channels.epilogue.store_first(value, whole, target, q, channel=channel)
                    asm.prefetch(target, q + PREFETCH_COLUMNS, write=True)
                    if channels.epilogue.adds:
                        below = channels.epilogue.residual(target)
                        asm.prefetch(below, q + PREFETCH_COLUMNS)
        with asm.when(full.equals(0)), asm.loop(place.rows) as i:
            for lane, q, value in self._emit_row(buffer, i, channels, residuals):
                with asm.when(asm.compare(">", channels.count, lane)):
                    target = place.row(i) + asm.load_index(channels.offsets, lane)
                    width = value.ir.type.count
                    count = asm.minimum(columns, self.columns) - q
                    if self.shape.scattered:
                        count = asm.minimum(count, width)
                        self._emit_scatter(args, channels, lane, value, target, q, count)
                    else:
                        mask = asm.lanes_below(count, width)
                        channel = channels.first + lane
                        channels.epilogue.store(value, target, q, mask=mask, channel=channel)

    def _place(self, args: Arguments, walk: TileWalk, plane: Value) -> _Place:
        """Where a tile goes: outputs of a dilated image stand its steps apart."""
        asm, n = self.asm, walk.state["n"]
        top, left = walk.state["row"] * self.rows, walk.state["column"] * self.columns
        height, width, y_h, y_w = args.load("out_height", "out_width", "y_h", "y_w")
        if self.step > 1:
            height, width = height // self.step, width // self.step
        if self.shape.dilated:
            step_h, step_w = args.load("step_h", "step_w")
            phases_h, phases_w = args.load("phases_h", "phases_w")
            phase_h, phase_w = n // phases_w % phases_h, n % phases_w
            height = asm.ceil_div(height - phase_h + step_h, step_h) - 1
            width = asm.ceil_div(width - phase_w + step_w, step_w) - 1
            plane = plane + phase_h * y_h + phase_w * y_w
            y_h, y_w, n = y_h * step_h, y_w * step_w, n // (phases_h * phases_w)
        corner = plane + n * args["y_n"] + top * y_h + left * y_w
        rows = asm.minimum(height - top, self.rows)
        return _Place(corner, y_h, asm.maximum(rows, 0), asm.maximum(width - left, 0))

    def _emit_scatter(
        self,
        args: Arguments,
        channels: _Channels,
        lane: int,
        value: Value,
        target: Value,
        q: int,
        count: Value | int,
    ) -> None:
        """Finish and store the first ``count`` lanes, each a step behind the other."""
        asm, epilogue, width = self.asm, channels.epilogue, value.ir.type.count
        step = args["y_w"] * args["step_w"] if self.shape.dilated else args["y_w"]
        buffer = asm.local_floats(width, "row")
        if epilogue.adds:
            residual = epilogue.residual(target)
            with asm.loop(count) as n:
                asm.store(asm.load_float(residual, (n + q) * step), buffer + n)
            added = asm.load(buffer, lanes=width)
            value = epilogue.finish(value, added, channel=channels.first + lane)
        asm.store(value, buffer)
        with asm.loop(count) as n:
            asm.store(asm.load_float(buffer, n), target + (n + q) * step)

    def _emit_row(
        self,
        buffer: Value,
        i: Value,
        channels: _Channels,
        residuals: Callable[[Value, Value, Value], Residuals] | None,
    ) -> list[tuple[int, int, Value]]:
        """One row of y: (lane, first column, values) for every channel."""
        lanes, step = self.asm.lanes, self.step
        rows = [self._outputs(buffer + (i * step + n) * (self.t_w * lanes)) for n in range(step)]
        added = residuals and residuals(i, channels.first, channels.count)
        columns = channels.epilogue.prepare_rows(rows, channels.terms, added)
        result = []
        for q in range(0, self.columns, lanes):
            turned = emit_rows(self.asm, columns[q : q + lanes])
            result += [(lane, q, value) for lane, value in turned]
        return result

    def _outputs(self, source: Value) -> list[Value]:
        """The outputs of one row of ``A^T M``."""
        asm, lanes = self.asm, self.asm.lanes
        row = [asm.load(source, j * lanes) for j in range(self.t_w)]
        return emit_program(asm, linear_program(self.shape.columns.output), row)


@dataclass(frozen=True)
class _Place:
    """Where a tile's outputs go: first element, row stride, rows and columns that exist."""

    corner: Value
    y_h: Value
    rows: Value
    columns: Value

    def row(self, i: Value) -> Value:
        """The first element of row i."""
        return self.corner + i * self.y_h
