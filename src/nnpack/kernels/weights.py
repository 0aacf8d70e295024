"""Packing of weights for matrix products: panels ``[group][panel][depth][width]``.

Depth counts k = (r * kw + s) * C + c, as patches do; channels beyond the last are zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.transpose import emit_load_transposed
from nnpack.problem import WeightLayout, WeightStorage

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


Consecutive = Literal["out", "depth", "nothing"]
"""What of the raw weights is consecutive: output channels, or channels and taps as one row."""

# How many rows of weights ahead are asked for, where each row of a panel is read elsewhere.
_ROWS_AHEAD = 8


def consecutive_weights(layout: WeightLayout, kernel: tuple[int, int]) -> Consecutive:
    """What of weights that stand as ``layout`` says is consecutive."""
    if layout.out == 1:
        return "out"
    kh, kw = kernel
    row, column = (kw if kh > 1 else layout.row), (1 if kw > 1 else layout.column)
    dense = (layout.channel, layout.row, layout.column) == (kh * kw, row, column)
    return "depth" if dense else "nothing"


@dataclass(frozen=True)
class PackWeights:
    """The stage that packs panels of ``width`` output channels; a task is one panel.

    As halves, the weights must be some already. ``consecutive`` is as `consecutive_weights` says:
    rows of a panel are loaded, or transposed from loads, or gathered.
    """

    width: int
    storage: WeightStorage = "float32"
    consecutive: Consecutive = "nothing"

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**WEIGHT_FIELDS, "panels": "index", "packed": POINTER_KINDS[self.storage]}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            depth = args["channels"] * args["kernel_h"] * args["kernel_w"]
            with asm.loop(last, start=first) as panel:
                group, place = panel // args["panels"], panel % args["panels"] * self.width
                source = args["weight"] + group * args["weight_group"] + place * args["weight_out"]
                present = asm.minimum(args["group_out_channels"] - place, self.width)
                target = args["packed"] + panel * depth * self.width
                if self.consecutive == "depth":
                    self.emit_turned(args, source, present, depth, target)
                else:
                    self._emit_rows(args, source, present, target)

    def _emit_rows(self, args: Arguments, source: Value, present: Value, target: Value) -> None:
        """Row by row, the taps of a channel one after the other: they share lines of weights."""
        asm, step = args.asm, args["weight_channel"]
        masks = [asm.lanes_below(present - n) for n in range(0, self.width, asm.lanes)]
        tap_floats = args["channels"] * self.width
        state = {"target": target, "source": source}
        with asm.loop(args["channels"], carry=state):
            tap = {"target": state["target"]}
            with (
                asm.loop(args["kernel_h"], carry=tap) as r,
                asm.loop(args["kernel_w"], carry=tap) as s,
            ):
                weights = state["source"] + r * args["weight_row"] + s * args["weight_column"]
                if self.consecutive == "out":
                    for n in range(0, self.width, asm.lanes):
                        asm.prefetch(weights + step * _ROWS_AHEAD, n)
                self._emit_row(args, weights, masks, tap["target"])
                tap["target"] = tap["target"] + tap_floats
            state["target"] = state["target"] + self.width
            state["source"] = state["source"] + step

    def _emit_row(self, args: Arguments, weights: Value, masks: list[Value], target: Value) -> None:
        asm, step = args.asm, args["weight_out"]
        for n, mask in enumerate(masks):
            if self.consecutive == "out":
                row = asm.load(weights, n * asm.lanes, mask=mask)
            else:
                row = asm.gather(weights + n * asm.lanes * step, step, mask)
            self._emit_store(asm, row, n * asm.lanes, target)

    def _emit_store(self, asm: Assembler, row: Value, first: int, target: Value) -> None:
        """Channels ``first ..`` of a row of the panel."""
        width = min(asm.lanes, self.width - first)
        if self.storage == "float16":
            asm.store_first(row, width, target, first)
        else:
            asm.store(row, target, first, mask=_first(asm, width))

    def emit_turned(
        self, args: Arguments, source: Value, present: Value, depth: Value, target: Value
    ) -> None:
        """Pack ``depth`` steps of weights that are consecutive, from ``source`` on.

        Squares of as many channels and depths as lanes are transposed in registers.
        """
        asm, step = args.asm, args["weight_out"]
        whole = depth - depth % asm.lanes
        for first in range(0, self.width, asm.lanes):
            # Channels beyond the last are read as the last is, and made zeros.
            inside = asm.lanes_below(present - first)
            lanes = range(asm.lanes)
            rows = [source + asm.minimum(first + n, present - 1) * step for n in lanes]
            state = {"target": target, "tap": asm.index(0)}
            with asm.loop(whole, step=asm.lanes, carry=state) as e:
                self._emit_square(args, [row + e for row in rows], None, inside, first, state)
            with asm.loop(depth, start=whole, step=asm.lanes, carry=state) as e:
                places = [row + e for row in rows]
                self._emit_square(args, places, depth - e, inside, first, state)

    def _emit_square(
        self,
        args: Arguments,
        rows: list[Value],
        count: Value | None,
        inside: Value,
        first: int,
        state: dict[str, Value],
    ) -> None:
        """The next depths of channels ``first ..``: as many as lanes, or ``count``."""
        asm, taps = args.asm, args["kernel_h"] * args["kernel_w"]
        tap_floats = args["channels"] * self.width
        mask = None if count is None else asm.lanes_below(count)
        square = emit_load_transposed(asm, asm.lanes, lambda n, _: asm.load(rows[n], mask=mask))
        for n, row in enumerate(square):
            kept = asm.select(inside, row, asm.zeros())
            if count is None:
                self._emit_store(asm, kept, first, state["target"])
            else:
                with asm.when(count > n):
                    self._emit_store(asm, kept, first, state["target"])
            after = state["tap"] + 1
            ends = after.equals(taps)
            step = asm.select(ends, tap_floats * (1 - taps) + self.width, tap_floats)
            state["tap"] = asm.select(ends, 0, after)
            state["target"] = state["target"] + step


def _first(asm: Assembler, width: int) -> Value | None:
    return None if width == asm.lanes else asm.lanes_below(width)
