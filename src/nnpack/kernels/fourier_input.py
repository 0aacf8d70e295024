"""The input side of Fourier convolution: the planes V of a tile, channels in the lanes."""

from __future__ import annotations

from collections.abc import Sequence

from nnpack.codegen.assembler import Assembler, Index, Mask, Value
from nnpack.kernels.fourier_shape import Columns, FourierShape, complex_columns, real_columns
from nnpack.kernels.masked_load import MaskedLoad
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.tile_stage import INPUT_PARAMETERS
from nnpack.kernels.tiles import TileWalk
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_load_transposed, padded_columns
from nnpack.maths.program import LinearProgram
from nnpack.problem import ActivationKind


class InputTransform:
    """Emits ``transform_input`` for a block of tiles and channel blocks first .. last.

    Rows are loaded, turned and transformed into a buffer ``[row][packed column][lanes]`` in the
    first-level cache; columns from there into V.
    """

    def __init__(
        self,
        asm: Assembler,
        shape: FourierShape,
        fields: Fields,
        gradient: bool = False,
        activation: ActivationKind | None = None,
    ) -> None:
        """``gradient``: tiles are of m x m gradients, zeros behind them, and V what kernels are.

        ``activation``: which x is behind; `masked_load` has its words.
        """
        self.asm = asm
        self.activation = activation
        self.shape = shape
        self.fields = fields
        self.side = shape.gradient if gradient else shape.input
        # Rows and columns that a tile reads; its transform has n of each.
        self.n_h, self.n_w = shape.m if gradient else (shape.n, shape.n)
        self.width = padded_columns(self.n_w, asm.lanes)
        # What the loads of a row reach, which may be beyond what is wanted of it.
        self.reach = -(-self.n_w // self.width) * self.width
        self.row_floats = shape.n * asm.lanes

    def emit(self, name: str = "transform_input", *, exported: bool = False) -> None:
        """Define the function ``name``."""
        asm, lanes, fold = self.asm, self.asm.lanes, self.shape.form.fold
        with asm.function(name, exported=exported, **INPUT_PARAMETERS) as words:
            block, x, v, start, count, first, last = words
            args = Arguments(asm, block, self.fields)
            self.load = MaskedLoad(asm, self.activation, args, "x")
            offsets = asm.local_words(lanes)
            buffer = asm.local_floats(self.n_h * self.row_floats)
            with asm.loop(last, start=first) as c:
                self._emit_offsets(args, c, offsets)
                walk = TileWalk(asm, args, start)
                with asm.loop(count, carry=walk.state) as tile:
                    image = x + walk.state["n"] * args["x_n"] + c * lanes * args["x_c"]
                    self._emit_rows(args, walk, image, offsets, buffer)
                    place = v + (c * args["block_tiles"] + tile * fold) * lanes
                    self._emit_columns(args, buffer, place)
                    walk.advance()

    def _emit_offsets(self, args: Arguments, c: Value, offsets: Value) -> None:
        """Offsets of the channels of block c; beyond the last channel, of the last one again.

        What is read twice meets weights of zero.
        """
        asm, lanes = self.asm, self.asm.lanes
        limit = args["channels"] - 1 - c * lanes
        with asm.loop(lanes) as lane:
            asm.store_index(asm.minimum(limit, lane) * args["x_c"], offsets, lane)

    def _emit_rows(
        self, args: Arguments, walk: TileWalk, image: Value, offsets: Value, buffer: Value
    ) -> None:
        """Transform the rows of one tile, with zeros for what is in the padding."""
        asm = self.asm
        m_h, m_w = self.shape.m
        height, width, x_h = args.load("height", "width", "x_h")
        top = walk.state["row"] * m_h - args["pad_top"]
        left = walk.state["column"] * m_w - args["pad_left"]
        inside = (
            asm.compare(">=", top, 0)
            & asm.compare("<=", top + self.n_h, height)
            & asm.compare(">=", left, 0)
            & asm.compare("<=", left + self.reach, width)
        )
        corner = image + top * x_h + left
        with asm.when(inside), asm.loop(self.n_h) as i:
            self._emit_row(corner + i * x_h, offsets, buffer + i * self.row_floats, None)
        with asm.when(inside.equals(0)), asm.loop(self.n_h) as i:
            y = top + i
            exists = asm.compare(">=", y, 0) & asm.compare("<", y, height)
            end = asm.select(exists, width - left, 0)
            target = buffer + i * self.row_floats
            self._emit_row(corner + i * x_h, offsets, target, (0 - left, end))

    def _emit_row(
        self, row: Value, offsets: Value, target: Value, bounds: tuple[Value, Value] | None
    ) -> None:
        """Load one row, of which columns ``bounds`` exist, turn it and transform it."""
        asm = self.asm
        columns: list[Value] = []
        for q in range(0, self.n_w, self.width):
            mask: Mask = None
            if bounds is not None:
                mask = asm.lanes_between(bounds[0] - q, bounds[1] - q, self.width)

            def load_row(lane: int, width: int, q: int = q, mask: Mask = mask) -> Value:
                pointer = row + asm.load_index(offsets, lane)
                if q + width == self.reach:
                    # The next tile's part of the row: a third of the time on large images, where
                    # 16 channels by 16 rows are more streams than the hardware follows.
                    self.load.prefetch(pointer, self.reach + self.shape.m[1] - 1)
                return self.load(pointer, q, mask=mask, lanes=width)

            columns += emit_load_transposed(asm, self.width, load_row)
        program = self.side.row
        for j, value in enumerate(emit_program(asm, program, columns[: self.n_w])):
            asm.store(value, target, j * asm.lanes)

    def _emit_columns(self, args: Arguments, buffer: Value, place: Value) -> None:
        """Transform the columns in ``buffer`` into the planes of one tile."""
        form, side = self.shape.form, self.side
        self._emit_kind(args, buffer, place, real_columns(form), side.real)
        self._emit_kind(args, buffer, place, complex_columns(form), side.full)

    def _emit_kind(
        self, args: Arguments, buffer: Value, place: Value, kind: Columns, program: LinearProgram
    ) -> None:
        asm, lanes, parts = self.asm, self.asm.lanes, kind.parts
        rows = range(0, self.n_h * self.row_floats, self.row_floats)
        with asm.loop(kind.stop, start=kind.start) as j:
            source = buffer + j * (parts * lanes)
            column = [asm.load(source, row + p * lanes) for row in rows for p in range(parts)]
            target = place + kind.plane(j) * args["v_f"]
            self._emit_factors(args, emit_program(asm, program, column), target)

    def _emit_factors(self, args: Arguments, factors: Sequence[Value], target: Value) -> None:
        """Store the factors of one column, plane by plane; a folded plane has 2 x 2 of them."""
        asm, fold = self.asm, self.shape.form.fold
        v_f = args["v_f"]
        half: Index = 0
        if fold > 1:  # The second half of the depth follows the first.
            half = args["channel_blocks"] // fold * args["block_tiles"] * asm.lanes
        for plane in range(0, len(factors), fold * fold):
            for row in range(fold):
                for depth, value in enumerate(factors[plane + row * fold :][:fold]):
                    asm.store(value, target + half if depth else target, row * asm.lanes)
            target = target + v_f
