"""The weights' side of Winograd convolution: U = G g G^T."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.storage import emit_scale, scaled_fields
from nnpack.kernels.transform import emit_program
from nnpack.kernels.weights import WEIGHT_FIELDS
from nnpack.kernels.winograd_shape import TileShape
from nnpack.problem import WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value


@dataclass(frozen=True)
class PackWinogradWeights:
    """The stage ``U = G g G^T`` into ``[group][f][panel][v][width]``; a task is one panel.

    ``width`` is ``nv`` vectors of output channels. With strides (``step_h``, ``step_w``) a virtual
    channel v is a phase and a channel, and its taps are the taps of that phase. Output channels,
    virtual channels and taps beyond the last are zeros. Halves are scaled (see `storage`).
    """

    shape: TileShape
    nv: int
    storage: WeightStorage = "float32"

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = ("panels", "channel_blocks", "phase_blocks", "step_h", "step_w")
        words = dict.fromkeys(names, "index")
        return {**WEIGHT_FIELDS, **words, **scaled_fields("packed", self.storage)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        width = self.nv * asm.lanes
        with emit_stage(asm, self.fields) as (args, first, last, _):
            panels = args["panels"]
            panel_floats = args["channel_blocks"] * (asm.lanes * width)
            with asm.loop(last, start=first) as task:
                group, panel = task // panels, task % panels
                whole = group * panels * self.shape.frequencies + panel
                packed = args["packed"] + whole * panel_floats
                raw = args["weight"] + group * args["weight_group"]
                with asm.loop(self.nv) as j:
                    k = panel * width + j * asm.lanes
                    target = packed + j * asm.lanes
                    self._emit_vector(asm, args, raw + k * args["weight_out"], target, k)

    def _emit_vector(
        self, asm: Assembler, args: Arguments, raw: Value, target: Value, k: Value
    ) -> None:
        """All virtual channels of one vector of output channels."""
        width, lanes = self.nv * asm.lanes, asm.lanes
        frequency = args["panels"] * args["channel_blocks"] * (lanes * width)
        present = args["group_out_channels"] - k
        with asm.loop(args["channel_blocks"] * lanes) as v:
            with asm.loop(self.shape.frequencies) as f:
                asm.store(asm.zeros(), target + v * width + f * frequency)
        step_h, step_w = args.load("step_h", "step_w")
        phases: Index = step_h * step_w if self.shape.strided else 1
        with asm.loop(phases) as phase:
            row, column = phase // step_w, phase % step_w
            start = raw + row * args["weight_row"] + column * args["weight_column"]
            with asm.loop(args["channels"]) as c:
                tap = start + c * args["weight_channel"]
                places = [target + v * width for v in self._virtual(args, row, column, c)]
                kernel = self._emit_kernel(asm, args, tap, row, column, present)
                if self.storage == "float16":
                    scale = emit_scale(asm, args)
                    kernel = [value * scale for value in kernel]
                for number, value in enumerate(kernel):
                    at_infinity = number % self.shape.t[1] == self.shape.t[1] - 1
                    asm.store(value, places[at_infinity] + frequency * number)

    def _virtual(self, args: Arguments, row: Value, column: Value, c: Value) -> tuple[Value, Value]:
        """The virtual channel, at most frequencies and at infinity (see `winograd_input`)."""
        step_h, step_w = args.load("step_h", "step_w")
        by_row = row * step_w + column
        if not self.shape.separated:
            place = by_row * args["channels"] + c if self.shape.strided else c
            return place, place
        phase = args["phase_blocks"] * args.asm.lanes
        return by_row * phase + c, (column * step_h + row) * phase + c

    def _emit_kernel(
        self,
        asm: Assembler,
        args: Arguments,
        tap: Value,
        row: Value,
        column: Value,
        present: Value,
    ) -> list[Value]:
        """``G g G^T`` of one virtual channel, output channels in the lanes."""
        from nnpack.maths.program import linear_program

        r_h, r_w = self.shape.r
        along_w = linear_program(self.shape.columns.kernel)
        along_h = linear_program(self.shape.rows.kernel)
        rows = []
        for p in range(r_h):
            taps = [
                self._emit_tap(asm, args, tap, (row, column), (p, q), present) for q in range(r_w)
            ]
            rows.append(emit_program(asm, along_w, taps))
        columns = [
            emit_program(asm, along_h, [row[j] for row in rows]) for j in range(self.shape.t[1])
        ]
        return [columns[j][i] for i in range(self.shape.t[0]) for j in range(self.shape.t[1])]

    def _emit_tap(
        self,
        asm: Assembler,
        args: Arguments,
        tap: Value,
        phase: tuple[Value, Value],
        index: tuple[int, int],
        present: Value,
    ) -> Value:
        """Tap ``index`` of the phase, zero where the kernel has no such tap."""
        p, q = index
        source = tap
        if self.shape.strided:
            step_h, step_w = args.load("step_h", "step_w")
            source = tap + step_h * args["weight_row"] * p + step_w * args["weight_column"] * q
            exists = asm.compare("<", step_h * p + phase[0], args["kernel_h"]) & asm.compare(
                "<", step_w * q + phase[1], args["kernel_w"]
            )
            present = asm.select(exists, present, 0)
        else:
            source = tap + args["weight_row"] * p + args["weight_column"] * q
        return asm.gather(source, args["weight_out"], asm.lanes_below(present))
