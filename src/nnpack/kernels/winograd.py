"""Winograd convolution (Winograd, 1980; Lavin & Gray, 2016): the stages of F(m, r) for any m and r.

    y = A^T [ (G g G^T) * (B^T d B) ] A

for tiles d of t x t inputs, t = m + r - 1, giving m x m outputs, summed over channels between the
brackets: t * t matrix products, one for each *frequency* f = i * t_w + j. Channels stand in the
lanes throughout, in blocks of ``lanes``. The two directions may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import epilogue_fields
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.stage import Arguments, profile_fields
from nnpack.kernels.storage import scaled_fields
from nnpack.kernels.tile_stage import TILE_FIELDS, Part, emit_tile_stage
from nnpack.kernels.tiles import MULTIPLY_FIELDS, emit_multiply_function
from nnpack.kernels.winograd_shape import TileShape
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

_STEP_FIELDS = dict.fromkeys(
    (
        "step_h",
        "step_w",
        "phases_h",
        "phases_w",
        "depth",
        "phase_blocks",
        "steps_row",
        "steps_column",
        "steps_corner",
    ),
    "index",
)


@dataclass(frozen=True)
class Winograd:
    """The stage of blocks of tiles: ``part`` of what is to be done with them."""

    shape: TileShape
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
            **_STEP_FIELDS,
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        from nnpack.kernels.stored_sums import emit_sum_tiles
        from nnpack.kernels.winograd_input import InputTransform
        from nnpack.kernels.winograd_output import OutputTransform
        from nnpack.kernels.winograd_phases import PhaseTransform

        fields = self.fields
        if self.part in ("all", "input"):
            transform = PhaseTransform if self.shape.neighbours else InputTransform
            transform(asm, self.shape, fields).emit()
        if self.part in ("all", "output"):
            frequencies, depth_at = self.shape.frequencies, self._depth_at
            emit_multiply_function(asm, fields, self.tile, frequencies, depth_at)
            if self.epilogue.statistics:
                emit_sum_tiles(asm, fields, self.shape.m)
            OutputTransform(asm, self.shape, fields, self.tile.nv, self.epilogue).emit()
        emit_tile_stage(asm, fields, self.part, 1, self.profile)

    def _depth_at(self, args: Arguments, f: Value) -> Value:
        """The channels whose transformed weights are not all zero at frequency f.

        At infinity a transformed kernel is its last tap, which some phases of a stride lack; those
        stand last there (see `winograd_input`).
        """
        if not self.shape.strided:
            return args["steps"]
        asm, (t_h, t_w) = args.asm, self.shape.t
        last_row = asm.compare(">=", f, (t_h - 1) * t_w)
        last_column = (f % t_w).equals(t_w - 1)
        at_row_end = asm.select(last_column, args["steps_corner"], args["steps_row"])
        elsewhere = asm.select(last_column, args["steps_column"], args["steps"])
        return asm.select(last_row, at_row_end, elsewhere)
