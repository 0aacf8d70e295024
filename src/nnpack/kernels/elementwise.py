"""Element-wise functions: an epilogue applied to what is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.activations import STREAMING
from nnpack.kernels.epilogue import Epilogue, epilogue_fields
from nnpack.kernels.stage import emit_stage
from nnpack.kernels.vectors import emit_vectors, streaming_lanes
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value

_UNROLL = 4


@dataclass(frozen=True)
class Elementwise:
    """The stage ``y = epilogue(x)`` of ``count`` numbers; y may be x, or the residual.

    A task is ``block`` rows of ``width`` numbers, the last of which may be shorter; row r is of
    channel ``r % channels``. With ``product`` it is ``epilogue(x * factor)``; y may be the factor.
    """

    epilogue: EpilogueKind
    product: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        words = dict.fromkeys(("count", "channels", "width", "block"), "index")
        names = ("x", "y", *(("factor",) if self.product else ()))
        pointers = dict.fromkeys(names, "pointer")
        return {**pointers, **words, **epilogue_fields(self.epilogue)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            epilogue = Epilogue(asm, self.epilogue, args)
            lanes = streaming_lanes(asm) if self.epilogue.activation in STREAMING else asm.lanes
            count, width, block = args.load("count", "width", "block")
            stop = asm.minimum(last * block, asm.ceil_div(count, width))
            with asm.loop(stop, start=first * block) as row:
                terms = epilogue.of_channel(row % args["channels"])
                start = row * width
                x, y = args["x"] + start, args["y"] + start

                def write(offset: Value, mask: Mask, _: int, start: Value = start) -> None:
                    value = asm.load(x, offset, mask=mask, lanes=lanes)
                    if self.product:
                        factor = args["factor"] + start
                        value = value * asm.load(factor, offset, mask=mask, lanes=lanes)
                    value = epilogue.prepare(value, terms)
                    epilogue.store(value, y, offset, mask=mask, terms=terms)

                several = asm.minimum(count - start, width)
                emit_vectors(asm, several, write, unroll=_UNROLL, lanes=lanes)
