"""Short correlations with the fewest multiplications: exact Cook-Toom (Winograd) matrices.

A polynomial product ``s = g h`` of degree ``t - 1`` is fixed by its values at t points, of which
one may be infinity (the leading coefficient): with V(n) the t x n matrix of the powers
``p_j ** k, k < n`` (Toom, 1963; Cook, 1966),

    s = V(t)^-1 [ (V(r) g) * (V(m) h) ].

Transposing this bilinear form in h gives the correlation that a convolutional layer needs
(Winograd, 1980; Lavin and Gray, 2016): for t inputs d and r weights g, the m = t - r + 1 outputs

    y_i = sum_k g_k d_(i + k)   =   A^T [ (G g) * (B^T d) ],
    A^T = V(m)^T,   G = V(r),   B^T = V(t)^-T,

take t multiplications rather than m r.  The rows of ``V(t)^-T`` are the coefficients of the
Lagrange polynomials, for the point p_j

    L_j(x) = N_j(x) / N_j(p_j),   N_j(x) = prod_(i != j) (x - p_i),

and for infinity ``prod_i (x - p_i)``.  Multiplying row j of B^T by a number, and dividing row j
of G by it, changes nothing, and likewise for column j of A^T: the N_j(p_j) are divided out of G,
which is applied to the weights once and ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

Matrix = tuple[tuple[Fraction, ...], ...]

# Positive halves of the pairs +p, -p by the number of finite points; an odd number includes 0.
_PAIRS: dict[int, tuple[str, ...]] = {
    0: (),
    1: (),
    2: ("1",),
    3: ("1",),
    4: ("1/2", "3/2"),
    5: ("5/8", "3/2"),
    6: ("1/4", "7/8", "7/4"),
    7: ("1/2", "1", "2"),
    8: ("1/4", "3/4", "5/4", "2"),
    9: ("1/2", "3/4", "5/4", "2"),
    10: ("1/4", "1/2", "1", "3/2", "5/2"),
    11: ("1/4", "1/2", "1", "2", "4"),
    12: ("1/4", "1/2", "3/4", "1", "2", "4"),
    13: ("1/4", "1/2", "3/4", "1", "2", "4"),
}


@dataclass(frozen=True, slots=True)
class CookToom:
    """``y = A^T [(G g) * (B^T d)]``, y (m,) the correlation of d (t,) with g (r,), t = m + r - 1.

    ``input`` is B^T (t, t), ``kernel`` G (t, r) and ``output`` A^T (m, t), all exact.  ``points``
    are the t - 1 finite points; infinity is the last row of B^T and G and column of A^T.
    """

    m: int
    r: int
    points: tuple[Fraction, ...]
    input: Matrix
    kernel: Matrix
    output: Matrix

    @property
    def t(self) -> int:
        """The number of inputs, and of multiplications."""
        return self.m + self.r - 1


@lru_cache(maxsize=256)
def cook_toom(m: int, r: int, points: tuple[Fraction, ...] | None = None) -> CookToom:
    """F(m, r): the matrices for m >= 1 outputs of a correlation with r >= 1 weights.

    ``points`` are m + r - 2 distinct finite points, by default those of least expected error.
    Without points F(1, r) and F(m, 1) are the plain sum and the plain scaling, for which the
    transforms of the input are the identity.

    Raises ValueError when m or r is less than 1 or the points are not as many or not distinct.
    """
    if m < 1 or r < 1:
        raise ValueError(f"F(m, r) needs m >= 1 and r >= 1, got F({m}, {r})")
    if points is None and (m == 1 or r == 1):
        return _without_points(m, r)
    points = default_points(m, r) if points is None else points
    if len(points) != m + r - 2 or len(set(points)) != len(points):
        raise ValueError(f"F({m}, {r}) needs {m + r - 2} distinct points, got {points}")
    return _from_points(m, r, tuple(Fraction(p) for p in points))


def default_points(m: int, r: int) -> tuple[Fraction, ...]:
    """The m + r - 2 finite points of F(m, r) with the least expected error, in pairs +p, -p."""
    count = m + r - 2
    pairs = [Fraction(p) for p in _PAIRS[count]]
    zero = [Fraction(0)] * (count % 2)
    return tuple(zero + [q for p in pairs for q in (p, -p)])


def _without_points(m: int, r: int) -> CookToom:
    t, one = m + r - 1, Fraction(1)
    identity = tuple(tuple(Fraction(i == j) for j in range(t)) for i in range(t))
    if m == 1:
        return CookToom(m, r, (), identity, identity, ((one,) * t,))
    return CookToom(m, r, (), identity, ((one,),) * t, identity)


def _from_points(m: int, r: int, points: tuple[Fraction, ...]) -> CookToom:
    numerators = [_monic([q for q in points if q != p]) for p in points]
    denominators = [math.prod((p - q for q in points if q != p), start=Fraction(1)) for p in points]
    input_rows = [(*row, Fraction(0)) for row in numerators] + [_monic(points)]
    kernel = [
        tuple(v / n for v in row) for row, n in zip(_powers(points, r), denominators, strict=True)
    ]
    columns = [*_powers(points, m), _unit(m)]
    output = tuple(zip(*columns, strict=True))
    return CookToom(m, r, points, tuple(input_rows), (*kernel, _unit(r)), output)


def _monic(roots: list[Fraction] | tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """The coefficients, constant first, of ``prod(x - root)``."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(coefficients)


def _powers(points: tuple[Fraction, ...], count: int) -> list[tuple[Fraction, ...]]:
    return [tuple(p**k for k in range(count)) for p in points]


def _unit(length: int) -> tuple[Fraction, ...]:
    """The powers of infinity: only the leading one counts."""
    return (*([Fraction(0)] * (length - 1)), Fraction(1))
