"""The choice of a tile for depthwise convolution of planes narrow enough for one register."""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.problem import Problem

# Multiply-adds of a tile: beyond, tiles were no faster and took longer to compile.
MAX_UNROLLED = 256
MAX_ROWS = 8
# Taps that are kept, in registers or at least as whole vectors on the stack.
MAX_TAPS = 49


@dataclass(frozen=True)
class PlanesChoice:
    """``rows`` of a tile, ``planes`` side by side of ``span`` lanes each; cycles of one plane."""

    rows: int
    planes: int
    span: int
    cycles: float


def choose_planes(problem: Problem, target: Target) -> PlanesChoice | None:
    """The tile for whole rows in registers; None where rows are too long."""
    span = _span(problem)
    taps = problem.kernel[0] * problem.kernel[1]
    if not target.masks or span > target.lanes or taps > MAX_TAPS or problem.dilation != (1, 1):
        return None
    planes = target.lanes // span
    step = 2 if problem.epilogue.pool else 1
    most = max(1, min(MAX_ROWS, MAX_UNROLLED // taps, problem.out_height))
    choices = [
        PlanesChoice(rows, planes, span, _cycles(problem, target, rows, planes))
        for rows in range(step, most + 1, step)
    ]
    return min(choices, key=lambda choice: choice.cycles)


def _span(problem: Problem) -> int:
    """Lanes for a row: a power of two that holds every row of output and phase of input."""
    longest = max(problem.out_width, ceil_div(problem.width, problem.stride[1]), 4)
    return 1 << (longest - 1).bit_length()


def _cycles(problem: Problem, target: Target, rows: int, planes: int) -> float:
    """Cycles of one plane: multiply-adds, and the loads and shuffles of every row of input.

    The constants fit 3x3 with strides 1 and 2 on planes of 7x7 to 28x28 within a tenth, 5x5 within
    a quarter (Zen 4, AVX-512).
    """
    (kh, kw), (sh, sw) = problem.kernel, problem.stride
    in_rows = (rows - 1) * sh + kh
    shuffles = 0.7 * (kw - 1) + 2.2 * (sw - 1) + 2.5 * (planes - 1)
    spilled = 1.6 if kh * kw > 16 else 1.0
    tile = rows * kh * kw / target.multiply_adds_per_cycle + in_rows * shuffles * spilled + 5
    blocks = ceil_div(problem.out_height, rows)
    padded = ceil_div(problem.out_channels, planes) * planes / problem.out_channels
    return padded * (blocks * tile + 5 + 10 * planes) / planes
