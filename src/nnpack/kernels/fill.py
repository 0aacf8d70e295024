"""Outputs that are sums of nothing: the epilogue of zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import Epilogue, epilogue_fields
from nnpack.kernels.stage import emit_stage
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler


@dataclass(frozen=True)
class Fill:
    """The stage ``y[n, k, :] = epilogue(0)``, planes of ``pixels``; a task is a plane."""

    epilogue: EpilogueKind

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        words = dict.fromkeys(("y_n", "y_c", "out_channels", "pixels"), "index")
        return {"y": "pointer", **words, **epilogue_fields(self.epilogue)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            epilogue = Epilogue(asm, self.epilogue, args)
            with asm.loop(last, start=first) as plane:
                n, channel = plane // args["out_channels"], plane % args["out_channels"]
                value = epilogue.prepare(asm.zeros(), epilogue.of_channel(channel))
                target = args["y"] + n * args["y_n"] + channel * args["y_c"]
                with asm.loop(args["pixels"], step=asm.lanes) as pixel:
                    mask = asm.lanes_below(args["pixels"] - pixel)
                    epilogue.store(value, target, pixel, mask=mask, channel=channel)
