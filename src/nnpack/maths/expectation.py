"""The errors to expect of float32 convolutions, on random data of either sign.

All in ordinary arithmetic: a planner asks for the errors of tiles that are never computed, and the
exact matrices of all of them take longer than the rest of its work (10 ms).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from nnpack.maths.points import best_points

UNIT_ROUNDOFF = 2.0**-24
"""The greatest relative error of rounding to float32."""

# Fitted to emulated float32 with fma on normal data, for 16 pairs of F(1, 3) ... F(8, 3), F(3, 6),
# F(2, 7) and channels 4, 64, 256, 1024, 60 000 outputs each.  Relative L2 errors are within 18 % at
# 4 channels and 6 % beyond.  0.09 is what theory says of a running sum, whose roundings have a
# standard deviation of 0.41 units: 0.41 ** 2 / 2.
_TRANSFORM_VARIANCE = 1.2
_SUMMATION_VARIANCE = 0.09
# Greatest error against greatest value, beyond the relative L2 error at the worst place of a tile:
# 1.3 for F(2, 3), 1.25 for F(4, 3) and 1.3 for F(6, 3) at 256 channels; single runs scatter by 1.4.
_PEAK = 1.3

# Fitted to emulated float32 on normal data, for both forms, kernels of 3, 5 and 7 taps and 1 to 256
# channels: relative L2 errors are within 15 %. Two thirds of it come from the inverse transform.
_FOURIER_TRANSFORM_VARIANCE: Mapping[int, float] = {8: 4.8, 16: 7.8}
# Three multiplications have half as many roundings as four, of terms with twice the square.
_FOURIER_SUMMATION_VARIANCE = 0.18
# As above; single runs scatter by 1.3.
_FOURIER_PEAK = 1.2

# The standard deviation of rounding random numbers to half precision, which is at most 2^-11.
_HALF_DEVIATION = 0.44 * 2.0**-11


def expected_winograd_error(
    h: Sequence[float], w: Sequence[float], channels: int
) -> tuple[float, float]:
    """Relative L2 error, and greatest error over greatest value, of the tiles F(h) by F(w).

    ``h`` and ``w`` are the `output_amplifications` down and across. ``channels`` is the number of
    terms of a running sum over the input channels; where blocks of b channels are summed first and
    then their C / b sums, pass ``b + C / b``, rounded.
    """
    variance = _TRANSFORM_VARIANCE + _SUMMATION_VARIANCE * channels
    typical = root_mean_square(h) * root_mean_square(w)
    relative_l2 = typical * UNIT_ROUNDOFF * math.sqrt(variance)
    return relative_l2, _PEAK * max(h) * max(w) / typical * relative_l2


def expected_strassen_error(depth: int) -> tuple[float, float]:
    """Relative L2 error, and greatest error over greatest value, of sums of ``depth`` products.

    One level of Strassen's algorithm in Winograd's form: products of half the depth, of sums of up
    to three numbers, which cancel. Relative L2 errors of 4 to 2048 products are within 6 % of it,
    2.2 times those of a running sum.
    """
    relative_l2 = UNIT_ROUNDOFF * math.sqrt(3.0 + 0.44 * depth)
    return relative_l2, 2.2 * relative_l2


def expected_fourier_error(n: int, channels: int) -> tuple[float, float]:
    """Relative L2 error, and greatest error over greatest value, of n x n Fourier tiles.

    ``channels`` is the number of terms of a running sum, as above.
    """
    variance = _FOURIER_TRANSFORM_VARIANCE[n] + _FOURIER_SUMMATION_VARIANCE * channels
    relative_l2 = UNIT_ROUNDOFF * math.sqrt(variance)
    return relative_l2, _FOURIER_PEAK * relative_l2


def winograd_rounding(h: Sequence[float], w: Sequence[float]) -> tuple[float, float]:
    """The same errors, of rounding the transformed weights to half precision and of nothing else.

    As if all were rounded; where the transform only picks weights that are halves, none are: 3.3e-4
    was found for the 3.6e-4 of F(2x2, 3x3).
    """
    typical = root_mean_square(h) * root_mean_square(w)
    return typical * _HALF_DEVIATION, _PEAK * max(h) * max(w) * _HALF_DEVIATION


def fourier_rounding(multiplications: int) -> tuple[float, float]:
    """The same for Fourier tiles.

    Three multiplications use sums of real and imaginary parts too, whose square is twice as great.
    """
    relative_l2 = _HALF_DEVIATION * math.sqrt(2.0 if multiplications == 3 else 1.0)
    return relative_l2, _FOURIER_PEAK * relative_l2


def root_mean_square(values: Sequence[float]) -> float:
    """``sqrt(sum(v ** 2) / n)``."""
    return math.hypot(*values) / math.sqrt(len(values))


@lru_cache(maxsize=256)
def output_amplifications(m: int, r: int) -> tuple[float, ...]:
    """`CookToom.output_amplifications` of F(m, r) with its default points, to within rounding.

    Row j of B^T and column j of A^T are taken as they come (see `cook_toom`), as no factor of them
    changes the result.
    """
    if m == 1 or r == 1:
        return (1.0,) * m
    points = best_points(m + r - 2)
    squares = [0.0] * (m - 1) + [_square_norm(_monic(points)) / r]  # the point at infinity
    for j, p in enumerate(points):
        others = points[:j] + points[j + 1 :]
        at_p = math.prod([p - q for q in others])
        taps = sum([p ** (2 * k) for k in range(r)])
        norm = taps * _square_norm(_monic(others)) / (at_p * at_p * r)
        for i in range(m):
            squares[i] += p ** (2 * i) * norm
    return tuple([math.sqrt(square) for square in squares])


def _monic(roots: Sequence[float]) -> list[float]:
    """``prod(x - root)`` as coefficients, the constant first."""
    coefficients = [1.0]
    for root in roots:
        shifted, scaled = [0.0, *coefficients], [*[root * c for c in coefficients], 0.0]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _square_norm(row: Sequence[float]) -> float:
    return sum([c * c for c in row])
