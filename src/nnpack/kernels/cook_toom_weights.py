"""The weights of `kernels.cook_toom`: every tap column transformed, ``G g``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.cook_toom_shape import Columns
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.transform import emit_program
from nnpack.kernels.weights import WEIGHT_FIELDS

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class PackCookToomWeights:
    """The stage that packs ``[group][panel][channel][step][f][mr]``; a task is one panel.

    Steps are those of ``columns``, f the frequencies of a step's phase. Output channels beyond the
    last are zeros.
    """

    columns: Columns
    mr: int

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**WEIGHT_FIELDS, "panels": "index", "packed": "pointer"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        channel_floats = self.columns.products * self.mr
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as panel:
                group, k = panel // args["panels"], panel % args["panels"] * self.mr
                source = args["weight"] + group * args["weight_group"] + k * args["weight_out"]
                present = asm.minimum(args["group_out_channels"] - k, self.mr)
                state = {
                    "source": source,
                    "to": args["packed"] + panel * args["channels"] * channel_floats,
                }
                with asm.loop(args["channels"], carry=state):
                    for n in range(0, self.mr, asm.lanes):
                        self._emit_channel(asm, args, state["source"], state["to"], present, n)
                    state["source"] = state["source"] + args["weight_channel"]
                    state["to"] = state["to"] + channel_floats

    def _emit_channel(
        self,
        asm: Assembler,
        args: Arguments,
        source: Value,
        to: Value,
        present: Value,
        first: int,
    ) -> None:
        """All steps of one input channel, output channels ``first ..`` in the lanes."""
        from nnpack.maths.program import linear_program

        columns, (kh, _) = self.columns, self.columns.kernel
        program, (stride, stride_w) = linear_program(columns.factors.kernel), columns.stride
        row, column, out = args.load("weight_row", "weight_column", "weight_out")
        inside = asm.lanes_below(present - first)
        width = min(asm.lanes, self.mr - first)
        stored = None if width == asm.lanes else asm.lanes_below(width)
        place = first
        for p, n, shift in columns.steps:
            s = columns.phases[n][1] + shift * stride_w
            start = source + first * out + column * s
            taps = [
                asm.gather(start + row * r, out, inside) if r < kh else asm.zeros()
                for r in range(p, p + columns.r * stride, stride)
            ]
            values = emit_program(asm, program, taps)
            for f in columns.frequencies(p):
                asm.store(values[f], to, place, mask=stored)
                place += self.mr
