"""Weight gradients in the transform domain: the stages of F(r, m), accumulated over tiles.

    gw = A^T [ sum over tiles (G g G^T) * (B^T d B) ] A

for tiles g of m x m gradients and d of the t x t inputs under them, t = m + r - 1, giving the r x r
taps of every pair of channels: a correlation of d with g (Winograd, 1980; Lavin & Gray, 2016),
whose sum over tiles and images is t * t matrix products, one a frequency f = i * t_w + j,
transformed back once. `gradient_tiles` says what becomes of the transforms.

With a stride s, tap p = s q + phase meets the inputs of that phase alone, so each phase has a
gradient of its own of ceil(r / s) taps in each direction, and all of them meet the same gradients:
phases count as channels (`winograd_input`), and each leaves its taps where they belong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gradient_tiles import (
    INVERSE_FIELDS,
    TRANSFORM_FIELDS,
    emit_inverse_stage,
    emit_transform_stage,
    kernel_place,
)
from nnpack.kernels.masked_load import masked_load_fields
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_rows
from nnpack.kernels.winograd_shape import TileShape
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


# How far ahead the sums of each frequency are asked for: more streams than hardware follows.
AHEAD_VECTORS = 8

_PHASE_FIELDS = dict.fromkeys(
    ("phase_channels", "part_channels", "kernel_h", "kernel_w", "step_h", "step_w"), "index"
)


@dataclass(frozen=True)
class TransformTiles:
    """The stage that fills V from x, or with ``gradient`` H from the gradients, for one block.

    A task is ``task_tiles`` tiles and a block of channels, or of those of a row phase where the
    shape is separated. ``x`` is what is transformed, and ``activation`` what it is behind.
    """

    shape: TileShape
    gradient: bool
    activation: ActivationKind | None = None

    @property
    def fields(self) -> Fields:
        """The argument words."""
        phases = dict.fromkeys(("depth", "phase_blocks"), "index") if self.shape.strided else {}
        return {**TRANSFORM_FIELDS, **phases, **masked_load_fields(self.activation)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        from nnpack.kernels.winograd_input import InputTransform

        InputTransform(
            asm, self.shape, self.fields, self.gradient, self.activation, reordered=False
        ).emit()
        emit_transform_stage(asm, self.fields)


@dataclass(frozen=True)
class InverseTransform:
    """The stage ``gw[k, c] (+)= A^T S A``; a task is a block of input channels and a panel.

    ``accumulate``: added to gw, which is dense. Where the shape is strided, ``channels`` of S are
    the phases one behind the other, each of ``phase_channels``, of which ``part_channels`` exist.
    """

    shape: TileShape
    nv: int
    accumulate: bool

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return {**INVERSE_FIELDS, **(_PHASE_FIELDS if self.shape.strided else {})}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        emit_kernels = self._emit_phase if self.shape.strided else self._emit_kernels
        emit_inverse_stage(asm, self.fields, self.nv, emit_kernels)

    def _emit_phase(
        self, args: Arguments, source: Value, channel: Value, output: Value, count: Value
    ) -> None:
        """Those taps of ``count`` kernels that one phase of the stride meets, one by one."""
        asm, lanes, (r_h, r_w) = args.asm, args.asm.lanes, self.shape.r
        kernel_h, kernel_w, step_h, step_w = args.load("kernel_h", "kernel_w", "step_h", "step_w")
        phase, channel = channel // args["phase_channels"], channel % args["phase_channels"]
        row, column = phase // step_w, phase % step_w
        taps = kernel_h * kernel_w
        kernel = args["y"] + (output * args["y_channels"] + channel) * taps
        buffer = asm.local_floats(r_h * r_w * lanes, "taps")
        with asm.when(channel < args["part_channels"]):
            for n, value in enumerate(self._emit_taps(args, source)):
                asm.store(value, buffer, n * lanes)
            with asm.loop(asm.ceil_div(kernel_h - row, step_h)) as p:
                with asm.loop(asm.ceil_div(kernel_w - column, step_w)) as q:
                    tap = (row + p * step_h) * kernel_w + column + q * step_w
                    values = buffer + (p * r_w + q) * lanes
                    self._emit_scatter(args, values, kernel + tap, args["y_channels"] * taps, count)

    def _emit_scatter(
        self, args: Arguments, values: Value, target: Value, step: Value, count: Value
    ) -> None:
        """``count`` floats from ``values`` on, ``step`` apart."""
        asm, state = args.asm, {"target": target}
        with asm.loop(count, carry=state) as lane:
            value = asm.load_float(values, lane)
            if self.accumulate:
                value = value + asm.load_float(state["target"])
            asm.store(value, state["target"])
            state["target"] = state["target"] + step

    def _emit_kernels(
        self, args: Arguments, source: Value, channel: Value, output: Value, count: Value
    ) -> None:
        """The kernels of ``count`` output channels, which stand in the lanes, and one input."""
        asm, lanes = args.asm, args.asm.lanes
        taps = self._emit_taps(args, source)
        target = kernel_place(args, channel, output, len(taps))
        step = args["y_channels"] * len(taps)
        for start in range(0, len(taps), lanes):
            part = taps[start : start + lanes]
            for lane, value in emit_rows(asm, part):
                with asm.when(asm.compare(">", count, lane)):
                    place = target + step * lane + start
                    size = value.ir.type.count
                    mask = asm.lanes_below(len(part), size)
                    kernel = value
                    if self.accumulate:
                        kernel = value + asm.load(place, mask=mask, lanes=size)
                    asm.store(kernel, place, mask=mask)

    def _emit_taps(self, args: Arguments, source: Value) -> list[Value]:
        """``A^T S A``, the taps row by row."""
        from nnpack.maths.program import linear_program

        asm, (t_h, t_w), r_h = args.asm, self.shape.t, self.shape.r[0]
        along_h = linear_program(self.shape.gradient_rows.output)
        along_w = linear_program(self.shape.gradient_columns.output)
        buffer, s_f = asm.local_floats(r_h * t_w * asm.lanes), args["s_f"]
        with asm.loop(t_w) as j:
            places = [source + (j + i * t_w) * s_f for i in range(t_h)]
            column = [asm.load(place) for place in places]
            for place in places:
                asm.prefetch(place, AHEAD_VECTORS * asm.lanes)
            for p, value in enumerate(emit_program(asm, along_h, column)):
                asm.store(value, buffer + j * asm.lanes, p * t_w * asm.lanes)
        taps = []
        for p in range(r_h):
            row = [asm.load(buffer, (p * t_w + j) * asm.lanes) for j in range(t_w)]
            taps += emit_program(asm, along_w, row)
        return taps
