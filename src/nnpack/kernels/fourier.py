"""Fourier convolution: overlap-save tiles, real matrix products of their spectra.

The mathematics is that of `maths.fourier`; channels stand in the lanes throughout. `tile_stage`
calls these routines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.codegen.compiler import ENTRY
from nnpack.frozen import dataclass
from nnpack.kernels.fourier_shape import FourierShape
from nnpack.kernels.tile_stage import TILE_FIELDS, tile_fields
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler


@dataclass(frozen=True)
class FourierInput:
    """The routine ``transform_input`` for tiles of ``shape``."""

    shape: FourierShape

    def emit(self, asm: Assembler) -> None:
        """Emit the routine."""
        from nnpack.kernels.fourier_input import InputTransform

        InputTransform(asm, self.shape, TILE_FIELDS).emit(ENTRY, exported=True)


@dataclass(frozen=True)
class FourierOutput:
    """The routine ``transform_output`` for tiles of ``shape``."""

    shape: FourierShape
    epilogue: EpilogueKind
    storage: WeightStorage = "float32"

    def emit(self, asm: Assembler) -> None:
        """Emit the routine."""
        from nnpack.kernels.fourier_output import OutputTransform
        from nnpack.kernels.stored_sums import emit_sum_tiles

        fields = tile_fields(self.storage, self.epilogue)
        if self.epilogue.statistics:
            emit_sum_tiles(asm, fields, self.shape.m)
        OutputTransform(asm, self.shape, fields, self.epilogue).emit()
