"""The sums that Strassen's algorithm multiplies: of quarters of weights and of strips of pixels.

`kernels.strassen` says what they are for. A panel of sums is ``[ceil(depth / 2)][width]``, half as
wide and half as deep as what is added: a step is an even and an odd row, of two halves each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.weights import WEIGHT_FIELDS, Consecutive, PackWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

    Quarters = Callable[[Value, Value, Value, Value], tuple[Value, ...]]

PRODUCTS = 7
# Of their pixels, those that are no quarter as it stands.
PIXEL_SUMS = 4

# Steps of weights that are turned at a time before their quarters are added; even.
_STEPS_TURNED = 32


def weight_sums(a11: Value, a12: Value, a21: Value, a22: Value) -> tuple[Value, ...]:
    """The weights of the seven products, in the order in which they are computed."""
    s1 = a21 + a22
    s2 = s1 - a11
    return a11, a12, s2, a11 - a21, -a22, s1, a12 - s2


def pixel_sums(b11: Value, b12: Value, b21: Value, b22: Value) -> tuple[Value, ...]:
    """The pixels of products 2 to 5; those of 0, 1 and 6 are B11, B21 and B22 as they stand."""
    t1 = b12 - b11
    t2 = b22 - t1
    return t2, b22 - b12, t2 - b21, t1


def panel_pitch(depth: int, width: int, lanes: int) -> int:
    """Floats from one panel ``[ceil(depth / 2)][width]`` of sums to the next.

    Vectors are stored whole, the last one beyond the panel.
    """
    return (depth + 1) // 2 * width + lanes


def emit_pitch(asm: Assembler, depth: Value, width: int) -> Value:
    """`panel_pitch` of a depth that is known at run time."""
    return asm.ceil_div(depth, 2) * width + asm.lanes


@dataclass(frozen=True)
class Halves:
    """Rows of floats, ``step`` apart, whose second half begins ``second`` behind the first.

    With ``counts``, as many floats are there of each half; otherwise all of them, and no more are
    read where ``is_exact``.
    """

    pointer: Value
    step: Index
    second: Index
    counts: tuple[Value, Value] | None = None
    is_exact: bool = False


class QuarterSums:
    """Emits sums of the quarters of some rows, each a panel of ``width`` floats a step."""

    def __init__(self, asm: Assembler, width: int, sums: Quarters, by_depth: bool) -> None:
        self._asm = asm
        self._width = width
        self._sums = sums
        # Whether quarter 12 is the other half of the depth, as of weights, or of the row.
        self._by_depth = by_depth

    def emit(self, rows: Halves, depth: Value, to: Value, pitch: Value) -> None:
        """Write the panels of ``depth`` rows at ``to`` and every ``pitch`` behind it."""
        asm = self._asm
        masks = self._masks(rows)
        state = {"row": rows.pointer, "to": to}
        with asm.loop(depth // 2, carry=state):
            self._emit_step(rows, masks, state, pitch, state["row"] + rows.step)
            state["row"] = state["row"] + rows.step * 2
            state["to"] = state["to"] + self._width
        with asm.when((depth % 2).equals(1)):
            self._emit_step(rows, masks, state, pitch, None)

    def _masks(self, rows: Halves) -> list[list[Mask]] | None:
        """Made once, outside the loop over the rows."""
        if rows.counts is None:
            return None
        places = range(0, self._width, self._asm.lanes)
        return [[self._asm.lanes_below(count - n) for n in places] for count in rows.counts]

    def _emit_step(
        self,
        rows: Halves,
        masks: list[list[Mask]] | None,
        state: dict[str, Value],
        pitch: Value,
        odd: Value | None,
    ) -> None:
        """An even row and, unless there is none, an odd one."""
        asm = self._asm
        for n, place in enumerate(range(0, self._width, asm.lanes)):
            found = []
            for row in (state["row"], odd):
                for half, start in enumerate((0, rows.second)):
                    mask = None if masks is None else masks[half][n]
                    found.append(self._load(rows, row, start, place, mask))
            first, second, odd_first, odd_second = found
            across = (odd_first, second) if self._by_depth else (second, odd_first)
            for k, value in enumerate(self._sums(first, *across, odd_second)):
                asm.store(value, state["to"] + pitch * k, place)

    def _load(self, rows: Halves, row: Value | None, start: Index, place: int, mask: Mask) -> Value:
        asm = self._asm
        if row is None:
            return asm.zeros()
        if mask is not None:
            return asm.load(row + start, place, mask=mask)
        count = min(asm.lanes, self._width - place) if rows.is_exact else asm.lanes
        return asm.load_first(count, row + start, place, lanes=asm.lanes)


def emit_second_half(asm: Assembler, count: Value, width: int, in_lanes: bool) -> Index:
    """Where the second half of ``count`` channels or pixels begins: ``width`` if all are there.

    Of fewer that stand in the lanes, where tiles are narrower, half of them in whole vectors.
    """
    if not in_lanes:
        return asm.index(width)
    return asm.ceil_div(count, 2 * asm.lanes) * asm.lanes


@dataclass(frozen=True)
class PackWeightSums:
    """The stage that packs `weight_sums` of 1x1 weights; a task is one panel.

    Panels are of twice ``width`` output channels, which stand ``in_lanes`` or are broadcast;
    `kernels.weights.PackWeights` says what is ``consecutive``.
    """

    width: int
    in_lanes: bool
    consecutive: Consecutive

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**WEIGHT_FIELDS, "panels": "index", "packed": "pointer"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        sums = QuarterSums(asm, self.width, weight_sums, by_depth=True)
        panel_width = 2 * self.width
        with emit_stage(asm, self.fields) as (args, first, last, _):
            depth, step = args.load("channels", "weight_channel")
            rows = asm.local_floats(_STEPS_TURNED * panel_width + 2 * asm.lanes)
            pitch = emit_pitch(asm, depth, self.width)
            with asm.loop(last, start=first) as panel:
                group, place = panel // args["panels"], panel % args["panels"] * panel_width
                source = args["weight"] + group * args["weight_group"] + place * args["weight_out"]
                present = asm.minimum(args["group_out_channels"] - place, panel_width)
                second = emit_second_half(asm, present, self.width, self.in_lanes)
                target = args["packed"] + panel * (pitch * PRODUCTS)
                with asm.loop(depth, step=_STEPS_TURNED) as k:
                    steps = asm.minimum(depth - k, _STEPS_TURNED)
                    self._emit_rows(args, source + k * step, present, steps, rows)
                    halves = Halves(rows, panel_width, second)
                    sums.emit(halves, steps, target + k // 2 * self.width, pitch)

    def _emit_rows(
        self, args: Arguments, source: Value, present: Value, steps: Value, rows: Value
    ) -> None:
        """``steps`` steps of the weights as they are; channels beyond the last are zeros."""
        asm, width = args.asm, 2 * self.width
        if self.consecutive == "depth":
            PackWeights(width, "float32", "depth").emit_turned(args, source, present, steps, rows)
            return
        places = range(0, width, asm.lanes)
        masks = [asm.lanes_below(asm.minimum(present, width) - n) for n in places]
        out = args["weight_out"]
        state = {"source": source, "to": rows}
        with asm.loop(steps, carry=state):
            for n, mask in zip(places, masks, strict=True):
                if self.consecutive == "out":
                    row = asm.load(state["source"], n, mask=mask)
                else:
                    row = asm.gather(state["source"] + out * n, out, mask)
                asm.store(row, state["to"], n)
            state["source"] = state["source"] + args["weight_channel"]
            state["to"] = state["to"] + width
