"""The error of convolutions by Cook-Toom tiles in float32: what is certain (see `expectation`).

With F(h) down and F(w) across, one tile of one output channel is

    Y = A_h^T [ sum_c (G_h g_c G_w^T) * (B_h^T d_c B_w) ] A_w,

g_c (h.r, w.r) the weights and d_c (h.t, w.t) the inputs of channel c, all transforms computed by
their ``linear_program``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from nnpack.maths.expectation import UNIT_ROUNDOFF
from nnpack.maths.program import linear_program

if TYPE_CHECKING:
    from nnpack.maths.cook_toom import CookToom

# Its constant, its product and its sum are rounded, where the machine has no fused multiply-add.
_ROUNDINGS_PER_OP = 3


def error_limit(h: CookToom, w: CookToom, channels: int) -> float:
    """E with ``|error| <= E * max(full(|x|, |weight|))`` for any data without over- or underflow.

    ``full`` is the convolution at every place where kernel and image overlap at all: conv2d with a
    padding of (h.r - 1, w.r - 1).  With less padding the bound does *not* hold relative to the
    outputs that exist, for any algorithm of this family: a tile multiplies inputs by weights whose
    product is no part of any output, and only cancels them again.  Such a product is that of the
    first row of the image and the last row of the kernel.  F(2, 3) for d = (0, X, 1, 0) and
    g = (0, 0, 1) computes y_0 = 1 as ``(1 + X) / 2 + (1 - X) / 2``.

    Proof.  Every coefficient of a transform belongs to one path through its program, so at most
    N = 3 (sum of the depths of the six programs) + channels roundings act on any product of an
    input and a weight, whatever the order of summation (Higham, 2002, section 3.1):

        |error| <= gamma_N  |A_h^T| [ sum_c (|G_h| |g_c| |G_w^T|) * (|B_h^T| |d_c| |B_w|) ] |A_w|

    with gamma_N = N u / (1 - N u).  In one dimension the right side at output i is

        sum_(a, b) T_i(a, b) S(a, b),  T_i(a, b) = sum_j |A_ij| |B_ja| |G_jb|,
                                       S(a, b) = sum_c |d_ca| |g_cb|.

    The S(a, b) of one shift a - b = o add up to a part of ``full`` at o, so that they are at most
    its maximum together, and the sum at most ``max_i sum_o max_(a - b = o) T_i(a, b)`` times that.
    T is a product over the two dimensions, and so is the bound.
    """
    roundings = _roundings(h) + _roundings(w) + channels
    gamma = roundings * UNIT_ROUNDOFF / (1 - roundings * UNIT_ROUNDOFF)
    return gamma * worst_amplification(h) * worst_amplification(w)


@lru_cache(maxsize=256)
def worst_amplification(f: CookToom) -> float:
    """``max_i sum_o max_(a - b = o) sum_j |A_ij| |B_ja| |G_jb|``; 1 for direct summation."""
    b_columns = [[abs(float(c)) for c in column] for column in zip(*f.input, strict=True)]
    g_columns = [[abs(float(c)) for c in column] for column in zip(*f.kernel, strict=True)]
    worst = 0.0
    for row in f.output:
        by_shift: dict[int, float] = {}
        for a, b_column in enumerate(b_columns):
            weighted = [abs(float(c)) * v for c, v in zip(row, b_column, strict=True)]
            for b, g_column in enumerate(g_columns):
                product = sum(v * c for v, c in zip(weighted, g_column, strict=True))
                by_shift[a - b] = max(by_shift.get(a - b, 0.0), product)
        worst = max(worst, sum(by_shift.values()))
    return worst


@lru_cache(maxsize=256)
def _roundings(f: CookToom) -> int:
    """Bound the roundings that the three transforms in one dimension put on a product."""
    programs = (linear_program(matrix) for matrix in (f.input, f.kernel, f.output))
    return _ROUNDINGS_PER_OP * sum(program.depth for program in programs)
