"""Transposed depthwise convolution with a stride: all phases of the output in one pass.

    y[n, k, sh*a + p - top, sw*m + q - left] = epilogue(sum over e, d of
        weight[k, p + sh*e, q + sw*d] * x[n, k // multiplier, a - e, m - d])

Columns m stand in the lanes. Row a of x, shifted by every d, gives ``sh`` rows of y together with
the rows before it, which stay in registers; the ``sw`` phases q of a row are sums of their own,
shuffled into one another and stored side by side. So x is read once and y is written once, where
phases by themselves would touch every line of y once a column phase, a float at a time.

Rows of x outside the image are read from a row of zeros; lanes outside it are masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import Epilogue, epilogue_fields
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

_FIELDS = {
    **dict.fromkeys(("x", "weight", "y", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "zeros_margin",
            "out_channels",
            "multiplier",
            "height",
            "width",
            "out_height",
            "out_width",
            "pad_top",
            "pad_left",
            "x_n",
            "x_c",
            "x_h",
            "y_n",
            "y_c",
            "y_h",
        ),
        "index",
    ),
}

Window = dict[tuple[int, int], "Value"]


@dataclass(frozen=True)
class DepthwiseTransposed:
    """The stage above, of no dilation; a task is one output plane.

    ``lanes``: columns of x in a vector. A worker's scratch has a row of zeros as long as one of x,
    ``zeros_margin`` floats from its beginning.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    lanes: int
    epilogue: EpilogueKind

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**_FIELDS, **epilogue_fields(self.epilogue)}

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of x that outputs of one phase see."""
        (kh, kw), (sh, sw) = self.kernel, self.stride
        return -(-kh // sh), -(-kw // sw)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        asm.lanes = self.lanes  # of all vectors of this kernel
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            zeros = args["scratch"] + worker * args["scratch_stride"] + args["zeros_margin"]
            with asm.loop(args["width"], step=self.lanes) as v:
                asm.store(asm.zeros(), zeros, v)
            with asm.loop(last, start=first) as task:
                k = task % args["out_channels"]
                _Plane(args, self, task // args["out_channels"], k, zeros).emit()


class _Plane:
    """Computes one output plane."""

    def __init__(
        self, args: Arguments, kernel: DepthwiseTransposed, n: Value, k: Value, zeros: Value
    ) -> None:
        self.args = args
        self.asm = args.asm
        self.kernel = kernel
        self.zeros = zeros
        self.channel = k
        self.x = args["x"] + n * args["x_n"] + k // args["multiplier"] * args["x_c"]
        self.y = args["y"] + n * args["y_n"] + k * args["y_c"]
        self.weight = args["weight"] + k * (kernel.kernel[0] * kernel.kernel[1])
        self.epilogue = Epilogue(args.asm, kernel.epilogue, args)
        self.terms = self.epilogue.of_channel(k)

    def emit(self) -> None:
        """Columns of vectors from left to right."""
        asm, stride = self.asm, self.kernel.stride[1]
        left, out_width = self.args.load("pad_left", "out_width")
        end = (left + out_width - 1) // stride + 1
        with asm.loop(end, start=left // stride, step=asm.lanes) as m:
            self._emit_columns(m)

    def _emit_columns(self, m: Value) -> None:
        """Down the columns of x from ``m`` on."""
        asm, args, (sh, sw) = self.asm, self.args, self.kernel.stride
        top, left, width, out_width = args.load("pad_top", "pad_left", "width", "out_width")
        self.masks = [asm.lanes_between(d - m, width + d - m) for d in range(self.kernel.reach[1])]
        self.column = m * sw - left
        self.stored = [
            asm.lanes_between(0 - self.column - place, out_width - self.column - place)
            for place in range(0, sw * asm.lanes, asm.lanes)
        ]
        self.place = m
        first, rows = top // sh, self.kernel.reach[0]
        end = (top + args["out_height"] - 1) // sh + 1
        carry: Window = {}
        for e in range(1, rows):
            carry |= self._load_row(first - e, e - 1)
        with asm.loop(end, start=first, carry=carry) as a:
            window = self._load_row(a, 0)
            window |= {(e + 1, d): value for (e, d), value in carry.items()}
            for p in range(sh):
                self._emit_row(a * sh + p - top, p, window)
            carry.update({key: window[key] for key in carry})

    def _load_row(self, a: Value, e: int) -> Window:
        """Row ``a`` of x shifted by every d, as the e-th of a window."""
        asm, args = self.asm, self.args
        inside = (a >= 0) & (a < args["height"])
        row = asm.select(inside, self.x + a * args["x_h"], self.zeros) + self.place
        return {(e, d): asm.load(row - d, mask=mask) for d, mask in enumerate(self.masks)}

    def _emit_row(self, row: Value, p: int, window: Window) -> None:
        """Row ``row`` of y, of phase p, if it is one."""
        asm = self.asm
        with asm.when((row >= 0) & (row < self.args["out_height"])):
            phases = [
                self.epilogue.prepare(self._sum(p, q, window), self.terms)
                for q in range(self.kernel.stride[1])
            ]
            target = self.y + row * self.args["y_h"] + self.column
            for t, mask in enumerate(self.stored):
                value = self._interleaved(phases, t)
                place = t * asm.lanes
                self.epilogue.store(value, target, place, mask=mask, channel=self.channel)

    def _sum(self, p: int, q: int, window: Window) -> Value:
        """The sums of one phase; zeros where no tap belongs to it."""
        asm, (kh, kw), (sh, sw) = self.asm, self.kernel.kernel, self.kernel.stride
        total = asm.zeros()
        for e, r in enumerate(range(p, kh, sh)):
            for d, s in enumerate(range(q, kw, sw)):
                total = asm.fma(asm.broadcast(self.weight, r * kw + s), window[e, d], total)
        return total

    def _interleaved(self, phases: list[Value], t: int) -> Value:
        """Vector ``t`` of the row whose every ``len(phases)``-th float is of one phase."""
        asm, count = self.asm, len(phases)
        if count == 1:
            return phases[0]
        places = range(t * asm.lanes, (t + 1) * asm.lanes)
        order = [place % count * asm.lanes + place // count for place in places]
        if count == 2:
            return asm.shuffle(phases[0], phases[1], order)
        return asm.shuffle(asm.concatenate(phases), None, order)
