"""Fourier convolution: overlap-save tiles, real matrix products of their spectra.

The mathematics is that of `maths.fourier`; channels stand in the lanes throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import epilogue_fields
from nnpack.kernels.fourier_shape import FourierShape
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.stage import profile_fields
from nnpack.kernels.storage import scaled_fields
from nnpack.kernels.tile_stage import TILE_FIELDS, Part, emit_tile_stage
from nnpack.kernels.tiles import MULTIPLY_FIELDS, emit_multiply_function
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler


@dataclass(frozen=True)
class Fourier:
    """The stage of blocks of tiles: ``part`` of what is to be done with them."""

    shape: FourierShape
    tile: GemmTile
    part: Part
    epilogue: EpilogueKind
    storage: WeightStorage = "float32"
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {
            **TILE_FIELDS,
            **MULTIPLY_FIELDS,
            **scaled_fields("weight", self.storage),
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        from nnpack.kernels.fourier_input import InputTransform
        from nnpack.kernels.fourier_output import OutputTransform
        from nnpack.kernels.stored_sums import emit_sum_tiles

        fields = self.fields
        if self.part in ("all", "input"):
            InputTransform(asm, self.shape, fields).emit()
        if self.part in ("all", "output"):
            emit_multiply_function(asm, fields, self.tile, self.shape.form.planes)
            if self.epilogue.statistics:
                emit_sum_tiles(asm, fields, self.shape.m)
            OutputTransform(asm, self.shape, fields, self.tile.nv, self.epilogue).emit()
        emit_tile_stage(asm, fields, self.part, self.shape.form.fold, self.profile)
