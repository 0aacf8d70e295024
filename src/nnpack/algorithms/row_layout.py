"""How the input rows of a block of output pixels are laid out for direct convolution."""

from __future__ import annotations

import math

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, round_up
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.plan import Argument
from nnpack.problem import Problem

# What one more block costs, in vectors of output: its halo is copied once more.
_BLOCK_VECTORS = 4


@dataclass(frozen=True)
class Axis:
    """The phases of one axis (see `kernels.rows`)."""

    phases: int
    modulus: int
    halo: int

    def places(self, outputs: int) -> int:
        """Input places copied for ``outputs`` outputs in a row."""
        return self.phases * (outputs + self.halo)


def shared_phases(taps: int, stride: int, dilation: int) -> Axis:
    """Taps of one phase read the same places."""
    phases = min(taps, stride // math.gcd(stride, dilation))
    return Axis(phases, stride, (taps - 1) * dilation // stride)


def separate_phases(taps: int, dilation: int) -> Axis:
    """Every tap has places of its own."""
    return Axis(taps, taps * dilation, 0)


def choose_phases(taps: int, stride: int, dilation: int, outputs: int) -> Axis:
    """Whatever copies fewer places for ``outputs`` outputs in a row."""
    shared, separate = shared_phases(taps, stride, dilation), separate_phases(taps, dilation)
    return min(shared, separate, key=lambda axis: axis.places(outputs))


@dataclass(frozen=True)
class RowLayout:
    """Blocks of ``block_rows`` by ``block_columns`` outputs and where their input is copied.

    ``flat``: the copied rows follow each other as the rows of the output do.
    """

    vertical: Axis
    horizontal: Axis
    flat: bool
    block_rows: int
    block_columns: int

    @property
    def pitch(self) -> int:
        """Floats from one copied row to the next."""
        return self.block_columns + self.horizontal.halo

    @property
    def plane(self) -> int:
        """Floats of one phase of one channel."""
        return (self.block_rows + self.vertical.halo) * self.pitch

    def scratch(self, channels: int, target: Target) -> int:
        """Floats of all phases; vectors may reach beyond the end of the last."""
        planes = channels * self.vertical.phases * self.horizontal.phases
        return round_up(planes * self.plane + 2 * target.lanes, target.lanes)

    def blocks(self, problem: Problem) -> int:
        """Blocks of one image and group."""
        down = ceil_div(problem.out_height, self.block_rows)
        return down * ceil_div(problem.out_width, self.block_columns)

    def arguments(self) -> dict[str, Argument]:
        """The words of a kernel that describe it."""
        return {
            "phases_h": self.vertical.phases,
            "phases_w": self.horizontal.phases,
            "modulus_h": self.vertical.modulus,
            "modulus_w": self.horizontal.modulus,
            "halo_h": self.vertical.halo,
            "halo_w": self.horizontal.halo,
            "pitch": self.pitch,
            "plane": self.plane,
            "flat": int(self.flat),
            "block_rows": self.block_rows,
            "block_columns": self.block_columns,
        }


def choose_layout(
    problem: Problem, target: Target, strip: int, flat: bool, most_rows: int
) -> RowLayout:
    """The largest block of at most ``most_rows`` rows whose input fits half the second-level cache.

    Large blocks copy least twice and were the fastest of all sizes tried. If not even one whole
    row fits, the block is a part of a row (``strip`` times some), though at least one strip.
    Rows that are pooled are not parted.
    """
    (kh, kw), (sh, sw), (dh, dw) = problem.kernel, problem.stride, problem.dilation
    width = problem.out_width
    horizontal = separate_phases(kw, dw) if flat else choose_phases(kw, sw, dw, width)
    floats = target.caches.l2 // 2 // FLOAT_BYTES // problem.group_in_channels
    columns = width
    one_row = choose_phases(kh, sh, dh, 1).places(1)
    if one_row * horizontal.places(width) > floats and not flat:
        fitting = floats // (one_row * horizontal.phases) - horizontal.halo
        columns = min(width, max(strip, fitting // strip * strip))
    rows = max(1, min(_fitting_rows(problem, horizontal.places(columns), floats), most_rows))
    rows = _even_rows(problem, target, rows, flat)
    rows = round_up(rows, 2) if problem.epilogue.pool else rows
    return RowLayout(choose_phases(kh, sh, dh, rows), horizontal, flat, rows, columns)


def _fitting_rows(problem: Problem, row: int, floats: int) -> int:
    """Rows of output whose input, copied rows of ``row`` floats, is within ``floats``."""
    shared = shared_phases(problem.kernel[0], problem.stride[0], problem.dilation[0])
    separate = separate_phases(problem.kernel[0], problem.dilation[0])
    fitting = max(floats // (axis.phases * row) - axis.halo for axis in (shared, separate))
    return min(fitting, problem.out_height)


def _even_rows(problem: Problem, target: Target, most: int, flat: bool) -> int:
    """Rows a block, at most ``most``: blocks of even size that fill their last vectors."""
    height = problem.out_height
    if not flat:
        return ceil_div(height, ceil_div(height, most))
    least = max(1, most // 2)
    return min(
        range(most, least - 1, -1),
        key=lambda rows: (
            ceil_div(height, rows)
            * (ceil_div(rows * problem.out_width, target.lanes) + _BLOCK_VECTORS)
        ),
    )
