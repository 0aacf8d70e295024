"""Packing of weights for matrix products: panels ``[group][panel][depth][width]``.

Depth counts k = (r * kw + s) * C + c, as patches do; channels beyond the last are zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.problem import WeightStorage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nnpack.codegen.assembler import Assembler, Value

# Words that every kernel reading raw weights has, in the manner of `problem.WeightLayout`.
WEIGHT_FIELDS = {
    "weight": "pointer",
    **dict.fromkeys(
        (
            "weight_group",
            "weight_out",
            "weight_channel",
            "weight_row",
            "weight_column",
            "channels",
            "group_out_channels",
            "kernel_h",
            "kernel_w",
        ),
        "index",
    ),
}

POINTER_KINDS: Mapping[WeightStorage, str] = {"float32": "pointer", "float16": "halves"}
"""The kind of an argument word that points to packed weights."""


@dataclass(frozen=True)
class PackWeights:
    """The stage that packs panels of ``width`` output channels; a task is one panel.

    As halves, the weights must be some already.
    """

    width: int
    storage: WeightStorage = "float32"

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**WEIGHT_FIELDS, "panels": "index", "packed": POINTER_KINDS[self.storage]}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            depth = args["channels"] * args["kernel_h"] * args["kernel_w"]
            with asm.loop(last, start=first) as panel:
                target = args["packed"] + panel * depth * self.width
                self._emit_panel(asm, args, panel, target)

    def _emit_panel(self, asm: Assembler, args: Arguments, panel: Value, target: Value) -> None:
        group, place = panel // args["panels"], panel % args["panels"] * self.width
        source = args["weight"] + group * args["weight_group"] + place * args["weight_out"]
        present = asm.minimum(args["group_out_channels"] - place, self.width)
        state = {"target": target}
        with asm.loop(args["kernel_h"], carry=state) as r:
            with asm.loop(args["kernel_w"], carry=state) as s:
                tap = source + r * args["weight_row"] + s * args["weight_column"]
                self._emit_tap(asm, args, tap, present, state)

    def _emit_tap(
        self, asm: Assembler, args: Arguments, tap: Value, present: Value, state: dict[str, Value]
    ) -> None:
        """One row of the panel for every input channel."""
        lanes, step = asm.lanes, args["weight_out"]
        masks = [asm.lanes_below(present - n) for n in range(0, self.width, lanes)]
        with asm.loop(args["channels"], carry=state) as c:
            weights = tap + c * args["weight_channel"]
            for n, mask in enumerate(masks):
                row = asm.gather(weights + n * lanes * step, step, mask)
                width = min(lanes, self.width - n * lanes)
                if self.storage == "float16":
                    asm.store_first(row, width, state["target"], n * lanes)
                else:
                    asm.store(row, state["target"], n * lanes, mask=_first(asm, width))
            state["target"] = state["target"] + self.width


def _first(asm: Assembler, width: int) -> Value | None:
    return None if width == asm.lanes else asm.lanes_below(width)
