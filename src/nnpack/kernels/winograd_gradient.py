"""Weight gradients in the transform domain: the stages of F(r, m), accumulated over tiles.

    gw = A^T [ sum over tiles (G g G^T) * (B^T d B) ] A

for tiles g of m x m gradients and d of the t x t inputs under them, t = m + r - 1, giving the r x r
taps of every pair of channels: a correlation of d with g (Winograd, 1980; Lavin & Gray, 2016),
whose sum over tiles and images is t * t matrix products, one a frequency f = i * t_w + j,
transformed back once. `gradient_tiles` says what becomes of the transforms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gradient_tiles import (
    INVERSE_FIELDS,
    TRANSFORM_FIELDS,
    emit_inverse_stage,
    emit_transform_stage,
)
from nnpack.kernels.masked_load import masked_load_fields
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_rows
from nnpack.kernels.winograd_shape import TileShape
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class TransformTiles:
    """The stage that fills V from x, or with ``gradient`` H from the gradients, for one block.

    A task is a block of channels and ``task_tiles`` tiles. ``x`` is what is transformed, and
    ``activation`` what it is behind.
    """

    shape: TileShape
    gradient: bool
    activation: ActivationKind | None = None

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return {**TRANSFORM_FIELDS, **masked_load_fields(self.activation)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        from nnpack.kernels.winograd_input import InputTransform

        InputTransform(asm, self.shape, self.fields, self.gradient, self.activation).emit()
        emit_transform_stage(asm, self.fields)


@dataclass(frozen=True)
class InverseTransform:
    """The stage ``gw[k, c] (+)= A^T S A``; a task is a block of input channels and a panel.

    ``accumulate``: added to gw, which is dense.
    """

    shape: TileShape
    nv: int
    accumulate: bool

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return INVERSE_FIELDS

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        taps = self.shape.r[0] * self.shape.r[1]
        emit_inverse_stage(asm, self.fields, self.nv, taps, self._emit_kernels)

    def _emit_kernels(self, args: Arguments, source: Value, target: Value, count: Value) -> None:
        """The kernels of ``count`` output channels, which stand in the lanes, and one input."""
        asm, lanes = args.asm, args.asm.lanes
        taps = self._emit_taps(args, source)
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
            column = [asm.load(source + (j + i * t_w) * s_f) for i in range(t_h)]
            for p, value in enumerate(emit_program(asm, along_h, column)):
                asm.store(value, buffer + j * asm.lanes, p * t_w * asm.lanes)
        taps = []
        for p in range(r_h):
            row = [asm.load(buffer, (p * t_w + j) * asm.lanes) for j in range(t_w)]
            taps += emit_program(asm, along_w, row)
        return taps
