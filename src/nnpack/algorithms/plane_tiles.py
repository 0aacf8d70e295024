"""The choice of a tile for depthwise convolution of planes narrow enough for registers."""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div, round_up
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.problem import Problem

# Multiply-adds of a tile: beyond, tiles were no faster and took longer to compile. More where each
# row of input is a block of its own: 7x7 taps of 14 columns gain a sixth, with seven rows for five.
MAX_UNROLLED = 256
MAX_UNROLLED_BLOCKS = 400
MAX_ROWS = 8
# Vectors of a row: more leave no registers for rows.
MAX_VECTORS = 4
# Taps that are kept, in registers or at least as whole vectors on the stack.
MAX_TAPS = 49
# Taps whose weights fit the registers beside a tile.
MAX_KEPT_TAPS = 16


@dataclass(frozen=True)
class PlanesChoice:
    """``rows`` of a tile, ``planes`` side by side of ``span`` lanes each; cycles of one plane.

    Rows are ``vectors`` vectors. ``skips``: input rows are blocks of their own, and left out where
    they are outside the image.
    """

    rows: int
    planes: int
    span: int
    vectors: int
    skips: bool
    cycles: float


def choose_planes(problem: Problem, target: Target) -> PlanesChoice | None:
    """The tile for whole rows in registers; None where rows are too long."""
    span = _span(problem, target)
    taps = problem.kernel[0] * problem.kernel[1]
    planes, vectors = max(1, target.lanes // span), max(1, span // target.lanes)
    if not target.masks or vectors > MAX_VECTORS or taps > MAX_TAPS or problem.dilation != (1, 1):
        return None
    step = 2 if problem.epilogue.pool else 1
    # Weights of planes side by side, and of rows of several vectors, are better kept on the stack:
    # blocks of their own took up to a quarter longer.
    skips = planes == vectors == 1 and taps > MAX_KEPT_TAPS
    unrolled = MAX_UNROLLED_BLOCKS if skips else MAX_UNROLLED
    most = max(1, min(MAX_ROWS, unrolled // (taps * vectors), problem.out_height))
    choices = [
        PlanesChoice(
            rows, planes, span, vectors, skips, _cycles(problem, target, rows, planes, vectors)
        )
        for rows in range(step, most + 1, step)
    ]
    return min(choices, key=lambda choice: choice.cycles)


def _span(problem: Problem, target: Target) -> int:
    """Lanes for a row, of output or of a phase of input: a power of two, or whole vectors."""
    longest = max(problem.out_width, ceil_div(problem.width, problem.stride[1]), 4)
    return min(1 << (longest - 1).bit_length(), round_up(longest, target.lanes))


def _cycles(problem: Problem, target: Target, rows: int, planes: int, vectors: int) -> float:
    """Cycles of one plane: multiply-adds, and the loads and shuffles of every row of input.

    The constants fit 3x3 and 5x5 with strides 1 and 2 on planes of 7x7 to 112x112 within a tenth,
    7x7 within a quarter (Zen 4, AVX-512).
    """
    (kh, kw), (sh, sw) = problem.kernel, problem.stride
    in_rows = (rows - 1) * sh + kh
    parted = 1.9 if planes == 1 and sw == 2 else 2.2 * (sw - 1)
    shuffles = vectors * (0.3 * (kw - 1) + parted) + 2.5 * (planes - 1)
    spilled = 1.0 if kh * kw <= MAX_KEPT_TAPS else 1.6 if kh * kw <= 25 else 6.0
    if planes == vectors == 1 and kh * kw > 25:
        spilled = 1.0  # weights are not kept
    if kh * kw <= MAX_KEPT_TAPS:
        # Sums of the rows that are in use, a row seen through all taps, the weights.
        live = vectors * (ceil_div(kh, sh) + kw) + kh * kw + 3
        shuffles += 2.5 * max(0, live - target.registers)
    products = rows * kh * kw * vectors / target.multiply_adds_per_cycle
    tile = products + in_rows * shuffles * spilled + 5
    blocks = ceil_div(problem.out_height, rows)
    padded = ceil_div(problem.out_channels, planes) * planes / problem.out_channels
    return padded * (blocks * tile + 5 + 10 * planes) / planes
