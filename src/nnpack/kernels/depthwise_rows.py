"""The blocks of rows that depthwise convolution goes through: see `kernels.depthwise`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value
    from nnpack.kernels.depthwise import DepthwiseConvolution


@dataclass(frozen=True)
class RowBlock:
    """The input rows of a tile from column ``-pad_left`` on, and the rows of y it stores.

    ``row`` is its first output row. The first ``done`` output rows have been stored before.
    ``inside``: which of the input rows are in the image; the others are a row of zeros.
    """

    sources: Sequence[Value]
    targets: Sequence[Value]
    row: Value
    done: Value
    inside: Sequence[Value]


class Band:
    """Output rows ``first .. first + rows`` of a plane."""

    def __init__(
        self,
        asm: Assembler,
        kernel: DepthwiseConvolution,
        args: Arguments,
        x: Value,
        y: Value,
        zeros: Value,
        first: Value,
        rows: Value,
    ) -> None:
        self.asm = asm
        self.kernel = kernel
        self.args = args
        left = args["pad_left"]
        self.x, self.zeros, self.y = x - left, zeros - left, y
        self.first = first
        self.rows = rows

    def emit(self, body: Callable[[RowBlock], None]) -> None:
        """Emit ``body`` for every block of rows.

        The last block of a phase moves back so as to end with it: some rows are computed twice,
        and stored twice unless they must be stored once.
        """
        if not self.kernel.spaced:
            self._emit_phase(self.first, self.rows, 1, body)
            return
        asm, spacing = self.asm, self.args["spacing"]
        with asm.loop(asm.minimum(spacing, self.rows)) as phase:
            count = asm.ceil_div(self.rows - phase, spacing)
            self._emit_phase(self.first + phase, count, spacing, body)

    def _emit_phase(
        self, first: Value, count: Value, spacing: Index, body: Callable[[RowBlock], None]
    ) -> None:
        asm, rows = self.asm, self.kernel.rows
        with asm.loop(count, step=rows) as begin:
            number = asm.minimum(begin, count - rows)
            body(self._block(first + number * spacing, begin - number))

    def _block(self, row: Value, done: Value) -> RowBlock:
        """The block whose first output row is ``row``."""
        asm, args, kernel = self.asm, self.args, self.kernel
        height, x_h, dilation = args.load("height", "x_h", "dilation_h")
        in_row = row * args["stride_h"] - args["pad_top"]
        source, step = self.x + in_row * x_h, dilation * x_h
        sources, inside = [], []
        for _ in range(kernel.in_rows):
            inside.append(asm.compare(">=", in_row, 0) & asm.compare("<", in_row, height))
            sources.append(asm.select(inside[-1], source, self.zeros))
            source, in_row = source + step, in_row + dilation
        pooled = 2 if kernel.epilogue.pool else 1
        step = args["spacing"] * args["y_h"]
        start = self.y + row // pooled * args["y_h"]
        targets = [start + j * step for j in range(kernel.rows // pooled)]
        return RowBlock(sources, targets, row, done, inside)
