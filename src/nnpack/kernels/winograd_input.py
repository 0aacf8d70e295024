"""The input side of Winograd convolution: V = B^T d B, channels in the lanes.

A tile reads every ``step``-th row and column of the image, ``step`` being the stride or the
dilation of the convolution:

* *stride* s: tap p = s q + phase of a kernel sees ``x[s (i + q) + phase]``, so the convolution
  is one of stride 1 over s * s phase images, which count as channels: a lane stands for a channel
  and a phase (its *virtual channel* v = phase * C + c), and its pointer carries the phase.
  When there are channels enough, each phase has channel blocks of its own instead (*separated*): a
  unit of work is a row phase and a channel block, and a row loaded once serves all column phases.
* *dilation* d: outputs i = d j + phase see inputs of one phase only, so each image falls into d * d
  images of its own, which are walked like images of the batch.
"""

from __future__ import annotations

from nnpack.codegen.assembler import Assembler, Index, Mask, Value
from nnpack.frozen import dataclass
from nnpack.kernels.masked_load import MaskedLoad
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.tile_stage import INPUT_PARAMETERS
from nnpack.kernels.tiles import TileWalk
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_load_transposed, padded_columns
from nnpack.kernels.winograd_shape import PREFETCH_COLUMNS, TileShape
from nnpack.maths.program import linear_program
from nnpack.problem import ActivationKind


class InputTransform:
    """Emits ``transform_input`` for a block of tiles and channel blocks first .. last."""

    def __init__(
        self,
        asm: Assembler,
        shape: TileShape,
        fields: Fields,
        gradient: bool = False,
        activation: ActivationKind | None = None,
        reordered: bool = True,
    ) -> None:
        """``gradient``: tiles are of m x m gradients, and V = G d G^T with the G of F(r, m).

        ``activation``: which x is behind; `masked_load` has its words. ``reordered``: `_block`.
        """
        self.asm = asm
        self.activation = activation
        self.reordered = reordered
        self.shape = shape
        self.fields = fields
        self.t_h, self.t_w = shape.t
        self.rows, self.columns = shape.rows.input, shape.columns.input
        if gradient:
            self.rows, self.columns = shape.gradient_rows.kernel, shape.gradient_columns.kernel
        # Rows and columns that a tile reads; its transform has t of each.
        self.n_h, self.n_w = shape.m if gradient else shape.inputs
        lanes = asm.lanes
        # Columns are loaded with those between them, a register's width at a time, if few lie
        # between; otherwise each is gathered.
        step = shape.column_step
        self.phases = shape.column_phases
        self.span = 0 if step is None else (self.n_w - 1) * step + self.phases
        starts = range(0, self.span, lanes)
        self.chunks = [(q, padded_columns(min(lanes, self.span - q), lanes)) for q in starts]
        self.reach = max((q + width for q, width in self.chunks), default=0)

    def emit(self, name: str = "transform_input", *, exported: bool = False) -> None:
        """Define the function ``name``."""
        asm, lanes = self.asm, self.asm.lanes
        with asm.function(name, exported=exported, **INPUT_PARAMETERS) as words:
            block, x, v, start, count, first, last = words
            args = Arguments(asm, block, self.fields)
            self.load = MaskedLoad(asm, self.activation, args, "x")
            mixed = self.shape.strided and not self.shape.separated
            channels = VirtualChannels(asm, args, mixed)
            buffer = asm.local_floats(self.phases * self.n_h * self.t_w * lanes)
            with asm.loop(last, start=first) as unit:
                row_phase, c = self._unit(args, unit)
                channels.emit_tables(c)
                walk = TileWalk(asm, args, start)
                with asm.loop(count, carry=walk.state) as tile:
                    image, phase_h, phase_w = self._image(args, walk, x)
                    top = walk.state["row"] * self.shape.m[0] * args["step_h"] + row_phase
                    left = walk.state["column"] * self.shape.m[1] * args["step_w"]
                    corner = top + phase_h - args["pad_top"], left + phase_w - args["pad_left"]
                    self._emit_tile(args, image, corner, channels, buffer)
                    for phase in range(self.phases):
                        place = Place(v + tile * lanes, row_phase, phase, c)
                        self._emit_columns(args, buffer, place)
                    walk.advance()

    def _unit(self, args: Arguments, unit: Value) -> tuple[Index, Value]:
        """Row phase and channel block of a unit of work."""
        if not self.shape.separated:
            return 0, unit
        return unit // args["phase_blocks"], unit % args["phase_blocks"]

    def _image(self, args: Arguments, walk: TileWalk, x: Value) -> tuple[Value, Index, Index]:
        """The image of a tile and, for dilated convolutions, its phase in that image."""
        n = walk.state["n"]
        if not self.shape.dilated:
            return x + n * args["x_n"], 0, 0
        phases_h, phases_w = args.load("phases_h", "phases_w")
        image = x + n // (phases_h * phases_w) * args["x_n"]
        return image, n // phases_w % phases_h, n % phases_w

    def _emit_tile(
        self,
        args: Arguments,
        image: Value,
        corner: tuple[Value, Value],
        channels: VirtualChannels,
        buffer: Value,
    ) -> None:
        """``buffer[i][j] = (d B)[i][j]`` for one tile, with zeros for what is in the padding."""
        asm = self.asm
        top, left = corner
        height, width, step_h = args.load("height", "width", "step_h")
        bottom = top + (self.n_h - 1) * step_h + channels.most_rows
        right = left + self._reach(args) + channels.most_columns
        inside = (
            asm.compare(">=", top, 0)
            & asm.compare("<", bottom, height)
            & asm.compare(">=", left, 0)
            & asm.compare("<=", right, width)
        )
        start = image + top * args["x_h"] + left
        with asm.when(inside), asm.loop(self.n_h) as i:
            row = start + i * step_h * args["x_h"]
            self._emit_row(args, row, channels, None, buffer, i)
        with asm.when(inside.equals(0)), asm.loop(self.n_h) as i:
            row = start + i * step_h * args["x_h"]
            bounds = _Bounds(asm, args, top + i * step_h, left)
            self._emit_row(args, row, channels, bounds, buffer, i)

    def _reach(self, args: Arguments) -> Index:
        """Columns that a row of a tile reads, from its first."""
        if self.shape.column_step is not None:
            return self.reach
        return args["step_w"] * (self.n_w - 1) + 1

    def _emit_row(
        self,
        args: Arguments,
        row: Value,
        channels: VirtualChannels,
        bounds: _Bounds | None,
        buffer: Value,
        i: Value,
    ) -> None:
        """Load row i of a tile, channels turned into the lanes, and transform it along w."""
        asm, step = self.asm, self.shape.column_step
        program = linear_program(self.columns)
        loaded: list[Value] = []
        for q, width in self.chunks:
            loaded += self._emit_load(row, q, width, channels, bounds)
        for phase in range(self.phases):
            if step is None:
                columns = [
                    channels.gather(row, args["step_w"] * j, bounds) for j in range(self.n_w)
                ]
            else:
                columns = loaded[phase : self.span : step][: self.n_w]
            target = buffer + (i + phase * self.n_h) * (self.t_w * asm.lanes)
            for j, value in enumerate(emit_program(asm, program, columns)):
                asm.store(value, target, j * asm.lanes)

    def _emit_load(
        self, row: Value, q: int, width: int, channels: VirtualChannels, bounds: _Bounds | None
    ) -> list[Value]:
        """Columns q .. q + width of a row, one vector each."""
        asm = self.asm
        shared: Mask = None
        if bounds is not None and not channels.mixed:
            shared = bounds.mask(0, 0, q, width)

        def load_row(lane: int, width: int) -> Value:
            mask = shared
            if bounds is not None and channels.mixed:
                mask = bounds.mask(channels.row(lane), channels.column(lane), q, width)
            pointer = row + channels.offset(lane)
            if bounds is None and q == 0:
                self.load.prefetch(pointer, self.reach + PREFETCH_COLUMNS)
            return self.load(pointer, q, mask=mask, lanes=width)

        return emit_load_transposed(asm, width, load_row)

    def _emit_columns(self, args: Arguments, buffer: Value, place: Place) -> None:
        """``V[i * t_w + j] = (B^T buffer)[i][j]``."""
        asm, lanes = self.asm, self.asm.lanes
        program = linear_program(self.rows)
        stride, block = args["v_f"], args["block_tiles"] * lanes
        rows = buffer + place.column_phase * (self.n_h * self.t_w * lanes)
        with asm.loop(self.t_w) as j:
            source = rows + j * lanes
            column = [asm.load(source, i * self.t_w * lanes) for i in range(self.n_h)]
            target = place.v + self._block(args, place, j) * block + j * stride
            for i, value in enumerate(emit_program(asm, program, column)):
                asm.store(value, target + (i * self.t_w) * stride)

    def _block(self, args: Arguments, place: Place, j: Value) -> Value:
        """Where the channel block stands among those of frequency column j.

        Phases in order of (row, column), but of (column, row) at infinity where they are reordered:
        there the kernels of the last column phases may be zero, and the product stops before them.
        """
        asm = self.asm
        if not self.shape.separated:
            return place.block
        phase_blocks, step_h, step_w = args.load("phase_blocks", "step_h", "step_w")
        by_row = place.row_phase * step_w + place.column_phase
        if not self.reordered:
            return by_row * phase_blocks + place.block
        by_column = place.row_phase + step_h * place.column_phase
        phase = asm.select(j.equals(self.t_w - 1), by_column, by_row)
        return phase * phase_blocks + place.block


@dataclass(frozen=True)
class Place:
    """Where a tile goes in V: its column of V, its phases and its channel block."""

    v: Value
    row_phase: Index
    column_phase: int
    block: Value


class _Bounds:
    """What of a row of a tile lies inside the image: the row starts at (top, left)."""

    def __init__(self, asm: Assembler, args: Arguments, top: Value, left: Value) -> None:
        self.asm = asm
        self.height, self.width = args.load("height", "width")
        self.top = top
        self.left = left

    def mask(self, row: Index, column: Index, q: int, width: int) -> Value:
        """Columns q .. q + width, shifted by the phase (row, column) of a virtual channel."""
        asm = self.asm
        y, left = asm.add(self.top, row), asm.add(self.left, column)
        exists = asm.compare(">=", y, 0) & asm.compare("<", y, self.height)
        end = asm.select(exists, self.width - left, 0)
        return asm.lanes_between(0 - left - q, end - q, width)


class VirtualChannels:
    """Tables of the virtual channels in the lanes: offset in an image, and phase (row, column).

    Beyond the last channel the last one stands again: what is read twice meets weights of zero.
    """

    def __init__(self, asm: Assembler, args: Arguments, mixed: bool) -> None:
        self.asm = asm
        self.args = args
        self.mixed = mixed
        self._offsets = asm.local_words(asm.lanes)
        self._phases = asm.local_words(2 * asm.lanes) if mixed else self._offsets
        self.most_rows: Index = args["step_h"] - 1 if mixed else 0
        self.most_columns: Index = args["step_w"] - 1 if mixed else 0

    def emit_tables(self, block: Value) -> None:
        """Fill the tables for one block of channels."""
        asm, args, lanes = self.asm, self.args, self.asm.lanes
        last = (args["depth"] if self.mixed else args["channels"]) - 1
        with asm.loop(lanes) as lane:
            virtual = asm.minimum(last, block * lanes + lane)
            offset = virtual * args["x_c"]
            if self.mixed:
                channels, step_w = args.load("channels", "step_w")
                phase = virtual // channels
                row, column = phase // step_w, phase % step_w
                offset = virtual % channels * args["x_c"] + row * args["x_h"] + column
                asm.store_index(row, self._phases, lane)
                asm.store_index(column, self._phases, lane + lanes)
            asm.store_index(offset, self._offsets, lane)

    def offset(self, lane: Index) -> Value:
        """Where the channel of a lane stands, from the start of the tile."""
        return self.asm.load_index(self._offsets, lane)

    def row(self, lane: int) -> Value:
        """The row phase of a lane."""
        return self.asm.load_index(self._phases, lane)

    def column(self, lane: int) -> Value:
        """The column phase of a lane."""
        return self.asm.load_index(self._phases, lane + self.asm.lanes)

    def gather(self, row: Value, column: Value, bounds: _Bounds | None) -> Value:
        """One column of all lanes, by single loads (for steps with much between the columns)."""
        asm, lanes = self.asm, self.asm.lanes
        buffer = asm.local_floats(lanes, "row")
        asm.store(asm.zeros(), buffer)
        with asm.loop(lanes) as lane:
            source = row + self.offset(lane) + column
            if bounds is None:
                asm.store(asm.load_float(source), buffer, lane)
            else:
                y, x = bounds.top, bounds.left + column
                if self.mixed:
                    y = y + asm.load_index(self._phases, lane)
                    x = x + asm.load_index(self._phases, lane + lanes)
                inside = (
                    asm.compare(">=", y, 0)
                    & asm.compare("<", y, bounds.height)
                    & asm.compare(">=", x, 0)
                    & asm.compare("<", x, bounds.width)
                )
                with asm.when(inside):
                    asm.store(asm.load_float(source), buffer, lane)
        return asm.load(buffer)
