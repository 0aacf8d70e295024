"""The weights' side of Fourier convolution: the planes U of every kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.fourier_shape import Columns, FourierShape, complex_columns, real_columns
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.storage import emit_scale, scaled_fields
from nnpack.kernels.transform import emit_program
from nnpack.kernels.weights import WEIGHT_FIELDS
from nnpack.problem import WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Operand, Value
    from nnpack.maths.program import LinearProgram


@dataclass(frozen=True)
class PackFourierWeights:
    """The stage that makes U, ``[group][plane][panel][c][width]``; a task is one panel.

    ``width`` is ``nv`` vectors of output channels; channels beyond the last are zeros. A folded
    plane has the imaginary parts of all channels behind the real ones. Halves are scaled (see
    `storage`).
    """

    shape: FourierShape
    nv: int
    storage: WeightStorage = "float32"

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        words = dict.fromkeys(("panels", "input_blocks"), "index")
        return {**WEIGHT_FIELDS, **words, **scaled_fields("packed", self.storage)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        width = self.nv * asm.lanes
        with emit_stage(asm, self.fields) as (args, first, last, _):
            panels = args["panels"]
            panel_floats = args["input_blocks"] * (self.shape.form.fold * asm.lanes * width)
            with asm.loop(last, start=first) as task:
                group, panel = task // panels, task % panels
                whole = group * panels * self.shape.form.planes + panel
                packed = args["packed"] + whole * panel_floats
                raw = args["weight"] + group * args["weight_group"]
                with asm.loop(self.nv) as j:
                    k = panel * width + j * asm.lanes
                    target = packed + j * asm.lanes
                    self._emit_vector(asm, args, raw + k * args["weight_out"], target, k)

    def _emit_vector(
        self, asm: Assembler, args: Arguments, raw: Value, target: Value, k: Value
    ) -> None:
        """All channels of one vector of output channels."""
        width, shape = self.nv * asm.lanes, self.shape
        half = args["input_blocks"] * (asm.lanes * width)
        stride = args["panels"] * half * shape.form.fold
        buffer = asm.local_floats(shape.r[0] * shape.n * asm.lanes)
        mask = asm.lanes_below(args["group_out_channels"] - k)
        with asm.loop(args["channels"]) as c:
            place = _Place(target + c * width, stride, half)
            self._emit_rows(asm, args, raw + c * args["weight_channel"], buffer, mask)
            self._emit_kind(asm, buffer, place, real_columns(shape.form), shape.kernel.real)
            self._emit_kind(asm, buffer, place, complex_columns(shape.form), shape.kernel.full)
        with asm.loop(args["input_blocks"] * asm.lanes, start=args["channels"]) as c:
            with asm.loop(shape.form.planes) as f:
                for depth in range(shape.form.fold):
                    asm.store(asm.zeros(), target + c * width + f * stride + half * depth)

    def _emit_rows(
        self, asm: Assembler, args: Arguments, tap: Value, buffer: Value, mask: Value
    ) -> None:
        """``buffer[p]``: the packed transform of row p of the kernel."""
        shape, lanes = self.shape, asm.lanes
        # Both inverse transforms leave out their divisions; a power of two is exact.
        scale: Operand = 2.0 / shape.n**2
        if self.storage == "float16":
            scale = emit_scale(asm, args) * scale
        with asm.loop(shape.r[0]) as p:
            row = tap + p * args["weight_row"]
            taps = []
            for q in range(shape.r[1]):
                source = row + args["weight_column"] * q
                taps.append(asm.gather(source, args["weight_out"], mask) * scale)
            for j, value in enumerate(emit_program(asm, shape.kernel.row, taps)):
                asm.store(value, buffer + p * (shape.n * lanes), j * lanes)

    def _emit_kind(
        self, asm: Assembler, buffer: Value, place: _Place, kind: Columns, program: LinearProgram
    ) -> None:
        """Transform the columns of one kind in ``buffer`` into planes."""
        shape, lanes, parts = self.shape, asm.lanes, kind.parts
        rows = range(0, shape.r[0] * shape.n * lanes, shape.n * lanes)
        with asm.loop(kind.stop, start=kind.start) as j:
            source = buffer + j * (parts * lanes)
            column = [asm.load(source, row + p * lanes) for row in rows for p in range(parts)]
            first = place.pointer + kind.plane(j) * place.stride
            for i, value in enumerate(emit_program(asm, program, column)):
                plane, depth = divmod(i, shape.form.fold)
                asm.store(value, first + place.stride * plane + place.half * depth)


@dataclass(frozen=True)
class _Place:
    """Where a channel's factors go: in plane 0, floats to the next plane and half of the depth."""

    pointer: Value
    stride: Value
    half: Value
