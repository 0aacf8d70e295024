"""Winograd convolution (Winograd, 1980; Lavin & Gray, 2016): the routines of F(m, r).

    y = A^T [ (G g G^T) * (B^T d B) ] A

for tiles d of t x t inputs, t = m + r - 1, giving m x m outputs, summed over channels between the
brackets: t * t matrix products, one for each *frequency* f = i * t_w + j. Channels stand in the
lanes throughout, in blocks of ``lanes``. The two directions may differ. `tile_stage` calls them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.codegen.compiler import ENTRY
from nnpack.frozen import dataclass, replace
from nnpack.kernels.tile_stage import TILE_FIELDS, tile_fields
from nnpack.kernels.winograd_shape import TileShape
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler


@dataclass(frozen=True)
class WinogradInput:
    """The routine ``transform_input`` for tiles of ``shape``."""

    shape: TileShape

    def emit(self, asm: Assembler) -> None:
        """Emit the routine."""
        from nnpack.kernels.winograd_input import InputTransform
        from nnpack.kernels.winograd_phases import PhaseTransform

        transform = PhaseTransform if self.shape.neighbours else InputTransform
        transform(asm, self.shape, TILE_FIELDS).emit(ENTRY, exported=True)


@dataclass(frozen=True)
class WinogradOutput:
    """The routine ``transform_output`` for tiles of ``shape``."""

    shape: TileShape
    epilogue: EpilogueKind
    storage: WeightStorage = "float32"

    def emit(self, asm: Assembler) -> None:
        """Emit the routine."""
        from nnpack.kernels.stored_sums import emit_sum_tiles
        from nnpack.kernels.winograd_output import OutputTransform

        fields = tile_fields(self.storage, self.epilogue)
        if self.epilogue.statistics:
            emit_sum_tiles(asm, fields, self.shape.m)
        OutputTransform(asm, self.shape, fields, self.epilogue).emit()


def input_shape(shape: TileShape) -> TileShape:
    """What of ``shape`` the input side depends on.

    Which of the taps the inputs of an axis meet is the weights' concern.
    """
    h, w = shape.bounded
    bounded = None if h is None else (0, h[1]), None if w is None else (0, w[1])
    return replace(shape, scattered=False, bounded=bounded)


def output_shape(shape: TileShape) -> TileShape:
    """What of ``shape`` the output side depends on: F(m, n) of n inputs is that of n taps."""
    return TileShape(shape.m, shape.factors, dilated=shape.dilated, scattered=shape.scattered)
