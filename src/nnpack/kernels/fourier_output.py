"""The output side of Fourier convolution: the planes M of a tile back into rows of pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.compiler import ENTRY
from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, Residuals
from nnpack.kernels.fourier_shape import Columns, FourierShape, complex_columns, real_columns
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.tile_stage import OUTPUT_PARAMETERS
from nnpack.kernels.tiles import TileWalk, tile_residuals
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_rows
from nnpack.maths.program import LinearProgram
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.maths.form import Form
    from nnpack.maths.fourier import Side


@dataclass(frozen=True)
class _Channels:
    """One vector of output channels: the first, their number, epilogue and offsets in y."""

    first: Value
    count: Value
    epilogue: Epilogue
    terms: ChannelTerms
    offsets: Value


class OutputTransform:
    """Emits the routine ``transform_output``: a block of tiles and panels first .. last.

    Columns of M are transformed into a buffer ``[row][packed column][lanes]``, rows from there
    through the epilogue into y.
    """

    def __init__(
        self, asm: Assembler, shape: FourierShape, fields: Fields, kind: EpilogueKind
    ) -> None:
        self.asm = asm
        self.shape = shape
        self.fields = fields
        self.kind = kind
        self.row_floats = shape.n * asm.lanes
        # A pooled tile stores a row for two, and a column for two.
        self.step = 2 if kind.pool else 1

    def emit(self) -> None:
        """Emit the routine."""
        asm, lanes = self.asm, self.asm.lanes
        form, side, fold = self.shape.form, self.shape.output, self.shape.form.fold
        with asm.function(ENTRY, exported=True, **OUTPUT_PARAMETERS) as words:
            block, m, y, group, start, count, first, last = words
            args = Arguments(asm, block, self.fields)
            epilogue = Epilogue(asm, self.kind, args)
            offsets = asm.local_words(lanes)
            buffer = asm.local_floats(self.shape.m[0] * self.row_floats)
            for lane in range(lanes):
                asm.store_index(args["y_c"] * lane, offsets, lane)
            vectors, nv = asm.ceil_div(args["group_out_channels"], lanes), args["panel_vectors"]
            with asm.loop(asm.minimum(last * nv, vectors), start=first * nv) as k:
                channels = self._channels(args, epilogue, group, k * lanes, offsets)
                plane = y + k * lanes * args["y_c"]
                source = m + (k - first * nv) * args["block_tiles"] * lanes
                walk = TileWalk(asm, args, start)
                with asm.loop(count, carry=walk.state) as tile:
                    place = source + tile * (fold * lanes)
                    emit_sum_columns(asm, form, side, place, args["m_f"], buffer)
                    self._emit_rows(args, walk, plane, channels, buffer)
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

    def _emit_rows(
        self, args: Arguments, walk: TileWalk, plane: Value, channels: _Channels, buffer: Value
    ) -> None:
        """Store the rows of one tile, as far as there are rows, columns and channels."""
        asm, lanes = self.asm, self.asm.lanes
        m_h, m_w = (m // self.step for m in self.shape.m)
        height, width, y_h = args.load("out_height", "out_width", "y_h")
        if self.step > 1:
            height, width = height // self.step, width // self.step
        top, left = walk.state["row"] * m_h, walk.state["column"] * m_w
        rows = asm.minimum(height - top, m_h)
        columns = width - left
        corner = plane + walk.state["n"] * args["y_n"] + top * y_h + left
        full = asm.compare(">=", columns, m_w) & channels.count.equals(lanes)
        residuals = tile_residuals(channels.epilogue, args, walk, m_h, m_w)
        with asm.when(full), asm.loop(rows) as i:
            for lane, q, value in self._emit_row(buffer, i, channels, residuals):
                target = corner + i * y_h + asm.load_index(channels.offsets, lane)
                whole, channel = min(lanes, m_w - q), channels.first + lane
                channels.epilogue.store_first(value, whole, target, q, channel=channel)
        with asm.when(full.equals(0)), asm.loop(rows) as i:
            for lane, q, value in self._emit_row(buffer, i, channels, residuals):
                with asm.when(asm.compare(">", channels.count, lane)):
                    target = corner + i * y_h + asm.load_index(channels.offsets, lane)
                    count = asm.minimum(columns, m_w) - q
                    mask = asm.lanes_below(count, value.ir.type.count)
                    channel = channels.first + lane
                    channels.epilogue.store(value, target, q, mask=mask, channel=channel)

    def _emit_row(
        self,
        buffer: Value,
        i: Value,
        channels: _Channels,
        residuals: Callable[[Value, Value, Value], Residuals] | None,
    ) -> list[tuple[int, int, Value]]:
        """One row of y: (lane, first column, values) for every channel."""
        lanes, step = self.asm.lanes, self.step
        rows = [self._outputs(buffer + (i * step + n) * self.row_floats) for n in range(step)]
        added = residuals and residuals(i, channels.first, channels.count)
        columns = channels.epilogue.prepare_rows(rows, channels.terms, added)
        result = []
        for q in range(0, len(columns), lanes):
            turned = emit_rows(self.asm, columns[q : q + lanes])
            result += [(lane, q, value) for lane, value in turned]
        return result

    def _outputs(self, source: Value) -> list[Value]:
        """The outputs of one row of the buffer."""
        asm, lanes = self.asm, self.asm.lanes
        row = [asm.load(source, j * lanes) for j in range(self.shape.n)]
        return emit_program(asm, self.shape.output.row, row)


def emit_sum_columns(
    asm: Assembler, form: Form, side: Side, source: Value, stride: Value, buffer: Value
) -> None:
    """Transform the sums of one tile, planes ``stride`` apart, into the columns of ``buffer``.

    The buffer is ``[row][packed column][lanes]``, with the rows that ``side``, an output, has.
    """
    _emit_kind(asm, form, real_columns(form), side.real, source, stride, buffer)
    _emit_kind(asm, form, complex_columns(form), side.full, source, stride, buffer)


def _emit_kind(
    asm: Assembler,
    form: Form,
    kind: Columns,
    program: LinearProgram,
    source: Value,
    stride: Value,
    buffer: Value,
) -> None:
    lanes, parts = asm.lanes, kind.parts
    with asm.loop(kind.stop, start=kind.start) as j:
        place = source + kind.plane(j) * stride
        sums = []
        for _ in range(kind.planes):
            sums += [asm.load(place, row * lanes) for row in range(form.fold)]
            place = place + stride
        target = buffer + j * (parts * lanes)
        for i, value in enumerate(emit_program(asm, program, sums)):
            row, part = divmod(i, parts)
            asm.store(value, target, (row * form.n + part) * lanes)
