"""Weight gradients in the Fourier domain: the planes of products, summed over tiles.

With tiles d of n x n inputs and g of the m x m gradients under them, m = n - r + 1, zeros behind
them, the r x r taps of a pair of channels are the first of the circular correlation of d with g,

    gw = F^-1 [ sum over tiles  F d * conj(F g) ],

that is a forward tile (`maths.fourier`) whose kernel is g and whose outputs are the taps. Each
complex product is three real ones, and each of the three is summed by itself: a *plane*, one of
``3/2 n^2 - 2`` real matrix products. One inverse transform follows the sums of all tiles and
images. `gradient_tiles` says what becomes of the planes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.fourier_shape import FourierShape
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
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class TransformFourierTiles:
    """The stage that fills V from x, or with ``gradient`` H from the gradients, for one block.

    ``activation`` is what they are behind.
    """

    shape: FourierShape
    gradient: bool
    activation: ActivationKind | None = None

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return {**TRANSFORM_FIELDS, **masked_load_fields(self.activation)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        from nnpack.kernels.fourier_input import InputTransform

        InputTransform(asm, self.shape, self.fields, self.gradient, self.activation).emit()
        emit_transform_stage(asm, self.fields)


@dataclass(frozen=True)
class InverseFourierTransform:
    """The stage ``gw[k, c] (+)= F^-1 S``; a task is a block of input channels and a panel.

    ``accumulate``: added to gw, which is dense.
    """

    shape: FourierShape
    nv: int
    accumulate: bool

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return INVERSE_FIELDS

    @property
    def _taps(self) -> int:
        return self.shape.r[0] * self.shape.r[1]

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        emit_inverse_stage(asm, self.fields, self.nv, self._emit_kernels)

    def _emit_kernels(
        self, args: Arguments, source: Value, channel: Value, output: Value, count: Value
    ) -> None:
        """The kernels of ``count`` output channels, which stand in the lanes, and one input."""
        asm, lanes = args.asm, args.asm.lanes
        target = kernel_place(args, channel, output, self._taps)
        taps = self._emit_taps(args, source)
        step = args["y_channels"] * self._taps
        with asm.loop(self._taps, step=lanes) as start:
            vectors = [asm.load(taps + start * lanes, i * lanes) for i in range(lanes)]
            mask = asm.lanes_below(self._taps - start)
            for lane, value in emit_rows(asm, vectors):
                with asm.when(asm.compare(">", count, lane)):
                    place = target + step * lane + start
                    kernel = value
                    if self.accumulate:
                        kernel = value + asm.load(place, mask=mask)
                    asm.store(kernel, place, mask=mask)

    def _emit_taps(self, args: Arguments, source: Value) -> Value:
        """A buffer of the taps row by row, a vector each, with room up to a multiple of lanes."""
        from nnpack.kernels.fourier_output import emit_sum_columns

        asm, shape, lanes = args.asm, self.shape, args.asm.lanes
        (r_h, r_w), row_floats = shape.r, shape.n * lanes
        columns = asm.local_floats(r_h * row_floats, "columns")
        taps = asm.local_floats(-(-self._taps // lanes) * lanes * lanes)
        emit_sum_columns(asm, shape.form, shape.taps, source, args["s_f"], columns)
        with asm.loop(r_h) as p:
            row = [asm.load(columns + p * row_floats, j * lanes) for j in range(shape.n)]
            for q, value in enumerate(emit_program(asm, shape.taps.row, row)):
                # The inverse transforms leave out their divisions; a power of two is exact.
                asm.store(value * (2.0 / shape.n**2), taps + p * (r_w * lanes), q * lanes)
        return taps
