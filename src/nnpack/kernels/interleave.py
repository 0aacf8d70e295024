"""The outputs of phases shuffled into one another: whole rows, each written once.

    y[n, c, sh * i + p, sw * j + q] = phase_pq[n, c, i, j] (+ residual),   0 of a phase that is none

A phase by itself would store pixel by pixel, and every line of y as often as it has phases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, emit_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class Interleave:
    """The stage above; a task is a plane of y, from number ``skipped`` on.

    ``phases[p][q]``: whether there is such a phase. It stands at ``phase_p_q`` floats of x, dense.
    ``residual``: one is added, which lies as y does, and may be y.
    """

    phases: tuple[tuple[bool, ...], ...]
    residual: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words; y is ``height`` by ``width``."""
        rows, columns = range(len(self.phases)), range(len(self.phases[0]))
        names = ("channels", "height", "width", "y_n", "y_c", "y_h", "skipped")
        places = tuple(f"phase_{p}_{q}" for p in rows for q in columns if self.phases[p][q])
        pointers = ("x", "y", "residual") if self.residual else ("x", "y")
        return {**dict.fromkeys(pointers, "pointer"), **dict.fromkeys((*names, *places), "index")}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                plane = task + args["skipped"]
                n, channel = plane // args["channels"], plane % args["channels"]
                y = args["y"] + n * args["y_n"] + channel * args["y_c"]
                for p in range(len(self.phases)):
                    self._emit_rows(asm, args, plane, y, p)

    def _emit_rows(self, asm: Assembler, args: Arguments, plane: Value, y: Value, p: int) -> None:
        """The rows of a plane that start with phase (p, 0)."""
        height, width = args.load("height", "width")
        sh, sw = len(self.phases), len(self.phases[0])
        rows = asm.ceil_div(height - p, sh)
        widths = [asm.ceil_div(width - q, sw) for q in range(sw)]
        state: dict[int, Value] = {
            q: args["x"] + args[f"phase_{p}_{q}"] + plane * rows * widths[q]
            for q in range(sw)
            if self.phases[p][q]
        }
        step = sw * asm.lanes
        added = asm.distance(args["residual"], args["y"]) if self.residual else None
        with asm.loop(rows, carry=state) as i:
            target = y + (i * sh + p) * args["y_h"]
            whole = width // step * step
            with asm.loop(whole, step=step) as place:
                values = self._load(asm, state, place // sw, [None] * sw)
                _store(asm, values, target + place, added, [None] * sw)
            with asm.loop(width, start=whole, step=step) as place:
                j = place // sw
                values = self._load(asm, state, j, [asm.lanes_below(w - j) for w in widths])
                left = width - place
                masks = [asm.lanes_below(left - k * asm.lanes) for k in range(sw)]
                _store(asm, values, target + place, added, masks)
            for q, row in state.items():
                state[q] = row + widths[q]

    def _load(
        self, asm: Assembler, rows: dict[int, Value], j: Value, masks: Sequence[Mask]
    ) -> list[Value]:
        """A vector of each phase of a row, from column j on."""
        phases = range(len(self.phases[0]))
        return [asm.load(rows[q] + j, mask=masks[q]) if q in rows else asm.zeros() for q in phases]


def _store(
    asm: Assembler,
    values: Sequence[Value],
    target: Value,
    added: Value | None,
    masks: Sequence[Mask],
) -> None:
    """Lanes of all ``values`` by turns, as many vectors; what is ``added`` is so far from y."""
    for k, mask in enumerate(masks):
        result, place = _interleaved(asm, values, k), target + k * asm.lanes
        if added is not None:
            result = result + asm.load(place + added, mask=mask)
        asm.store(result, place, mask=mask)


def _interleaved(asm: Assembler, values: Sequence[Value], k: int) -> Value:
    """Vector k of lanes of all ``values`` by turns."""
    lanes, count = asm.lanes, len(values)
    sources = [divmod(k * lanes + lane, count) for lane in range(lanes)]
    if count == 1:
        return values[0]
    result = asm.shuffle(
        values[0], values[1], [place + lanes * (phase == 1) for place, phase in sources]
    )
    for number in range(2, count):
        order = [
            lanes + place if phase == number else lane
            for lane, (place, phase) in enumerate(sources)
        ]
        result = asm.shuffle(result, values[number], order)
    return result
