"""The input side of Winograd convolution where a tile is a whole phase of a dilated image.

Consecutive tiles are phases side by side, and what a column of theirs sees are consecutive columns
of the image: these are loaded together and turned, so that each becomes a column of one tile.
"""

from __future__ import annotations

from nnpack.codegen.assembler import Mask, Value
from nnpack.kernels.stage import Arguments
from nnpack.kernels.tile_stage import INPUT_PARAMETERS
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_load_transposed
from nnpack.kernels.winograd_input import InputTransform, Place, VirtualChannels
from nnpack.maths.program import linear_program


class PhaseTransform(InputTransform):
    """Emits ``transform_input`` for tiles of which ``shape.neighbours`` are loaded together."""

    def emit(self, name: str = "transform_input", *, exported: bool = False) -> None:
        """Define the function ``name``."""
        asm, lanes, together = self.asm, self.asm.lanes, self.shape.neighbours
        with asm.function(name, exported=exported, **INPUT_PARAMETERS) as words:
            block, x, v, start, count, first, last = words
            args = Arguments(asm, block, self.fields)
            channels = VirtualChannels(asm, args, mixed=False)
            loaded = asm.local_floats(together * self.n_h * self.n_w * lanes, "loaded")
            buffer = asm.local_floats(self.n_h * self.t_w * lanes)
            phases, end = args["phases_w"], start + count
            with asm.loop(last, start=first) as c:
                channels.emit_tables(c)
                with asm.loop((end - 1) // phases + 1, start=start // phases) as row:
                    begin = row * phases
                    stop = asm.minimum(begin + phases, end)
                    with asm.loop(stop, start=asm.maximum(begin, start), step=together) as tile:
                        size = asm.minimum(stop - tile, together)
                        self._emit_load_phases(args, channels, x, (row, tile - begin, size), loaded)
                        with asm.loop(size) as phase:
                            tiles = loaded + phase * (self.n_h * self.n_w * lanes)
                            self._emit_phase(tiles, buffer)
                            place = Place(v + (tile - start + phase) * lanes, 0, 0, c)
                            self._emit_columns(args, buffer, place)

    def _emit_load_phases(
        self,
        args: Arguments,
        channels: VirtualChannels,
        x: Value,
        phases: tuple[Value, Value, Value],
        loaded: Value,
    ) -> None:
        """``loaded[phase][i][j]``: the inputs of some phases of one row, zeros for padding.

        ``phases``: the row, counted over images, the first phase in it and how many.
        """
        asm, lanes = self.asm, self.asm.lanes
        row, phase, size = phases
        height, width, step_h, step_w = args.load("height", "width", "step_h", "step_w")
        image = x + row // args["phases_h"] * args["x_n"]
        top, left = row % args["phases_h"] - args["pad_top"], phase - args["pad_left"]
        with asm.loop(self.n_h) as i, asm.loop(self.n_w) as j:
            y, column = top + i * step_h, left + j * step_w
            exists = asm.compare(">=", y, 0) & asm.compare("<", y, height)
            stop = asm.select(exists, asm.minimum(width - column, size), 0)
            mask = asm.lanes_between(0 - column, stop, self.shape.neighbours)
            pixel = image + y * args["x_h"] + column
            target = loaded + (i * self.n_w + j) * lanes
            for n, value in enumerate(self._emit_load_columns(pixel, channels, mask)):
                asm.store(value, target, n * (self.n_h * self.n_w * lanes))

    def _emit_load_columns(
        self, pixel: Value, channels: VirtualChannels, mask: Mask
    ) -> list[Value]:
        """Neighbouring columns of one row, channels in the lanes; the next block is asked for."""
        asm = self.asm
        ahead = channels.args["x_c"] * asm.lanes

        def load_row(lane: int, width: int) -> Value:
            row = pixel + channels.offset(lane)
            asm.prefetch(row + ahead, level=2)
            return asm.load(row, mask=mask, lanes=width)

        return emit_load_transposed(asm, self.shape.neighbours, load_row)

    def _emit_phase(self, tile: Value, buffer: Value) -> None:
        """``buffer[i][j] = (d B)[i][j]`` for one tile."""
        asm, lanes = self.asm, self.asm.lanes
        program = linear_program(self.columns)
        with asm.loop(self.n_h) as i:
            row = tile + i * (self.n_w * lanes)
            columns = [asm.load(row, j * lanes) for j in range(self.n_w)]
            target = buffer + i * (self.t_w * lanes)
            for j, value in enumerate(emit_program(asm, program, columns)):
                asm.store(value, target, j * lanes)
