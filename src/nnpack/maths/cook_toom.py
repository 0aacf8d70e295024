"""Short correlations with the fewest multiplications: exact Cook-Toom (Winograd) matrices.

A polynomial product ``s = g h`` of degree ``t - 1`` is fixed by its values at t points, of which
one may be infinity (the leading coefficient).  With V(n) the t x n matrix of the powers
``p_j ** k, k < n`` (Toom, 1963; Cook, 1966),

    s = V(t)^-1 [ (V(r) g) * (V(m) h) ].

Transposing this bilinear form in h gives the correlation that a convolutional layer needs
(Winograd, 1980; Lavin and Gray, 2016): for t inputs d and r weights g, the m = t - r + 1 outputs

    y_i = sum_k g_k d_(i + k)   =   A^T [ (G g) * (B^T d) ],
    A^T = V(m)^T,   G = V(r),   B^T = V(t)^-T,

take t multiplications rather than m r.  The rows of ``V(t)^-T`` are the coefficients of the
Lagrange polynomials, for the point p_j

    L_j(x) = N_j(x) / N_j(p_j),   N_j(x) = prod_(i != j) (x - p_i),

and for infinity ``prod_i (x - p_i)``.  Row j of B^T or column j of A^T may be multiplied by any
number by which row j of G is divided; that changes neither the result nor, as measured, its error.
G takes all the awkward numbers, because it is applied to the weights once and ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from nnpack.maths.points import best_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnpack.maths.program import Matrix, Vector

_ZERO, _ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True)
class CookToom:
    """``y = A^T [(G g) * (B^T d)]``, y (m,) the correlation of d (t,) with g (r,), t = m + r - 1.

    ``input`` is B^T (t, t), ``kernel`` G (t, r) and ``output`` A^T (m, t), all exact.  ``points``
    are the t - 1 finite points; infinity is the last row of B^T and G and column of A^T.
    `bounded_cook_toom` has fewer inputs, and t less by as many.
    """

    m: int
    r: int
    points: Vector
    input: Matrix
    kernel: Matrix
    output: Matrix

    def __hash__(self) -> int:
        return hash((self.m, self.r, self.points))

    @property
    def t(self) -> int:
        """The number of multiplications."""
        return len(self.kernel)

    @cached_property
    def output_amplifications(self) -> tuple[float, ...]:
        """By how much each output magnifies errors of the t products, as standard deviations.

        Independent relative errors of the products, for random data of one variance, cause in
        output i the error ``kappa_i`` times that of direct summation:

            kappa_i ** 2 = sum_j A_ij ** 2 |G_j| ** 2 |B_j| ** 2 / r,

        with |G_j| and |B_j| the Euclidean norms of rows (after Barabasz et al., 2020).
        """
        norms = [
            _square_norm(g) * _square_norm(b) / self.r
            for g, b in zip(self.kernel, self.input, strict=True)
        ]
        return tuple(
            math.sqrt(sum(float(a) ** 2 * norm for a, norm in zip(row, norms, strict=True)))
            for row in self.output
        )

    @property
    def kernel_gain(self) -> Fraction:
        """No transformed weight exceeds so many times the greatest weight."""
        return max(sum(map(abs, row), Fraction()) for row in self.kernel)

    @property
    def amplification(self) -> float:
        """The root mean square of ``output_amplifications``; 1 for direct summation."""
        return math.hypot(*self.output_amplifications) / math.sqrt(self.m)


@lru_cache(maxsize=256)
def cook_toom(m: int, r: int, points: Vector | None = None) -> CookToom:
    """F(m, r): the matrices for m >= 1 outputs of a correlation with r >= 1 weights.

    ``points`` are m + r - 2 distinct finite points, by default ``default_points(m + r - 2)``.
    Left to itself, F(1, r) is the plain sum of products and F(m, 1) the plain scaling, for which
    the transform of the input is the identity.

    Raises ValueError when m or r is less than 1 or the points are not as many or not distinct.
    """
    if m < 1 or r < 1:
        raise ValueError(f"F(m, r) needs m >= 1 and r >= 1, got F({m}, {r})")
    count = m + r - 2
    if points is None:
        direct = m == 1 or r == 1
        return _without_points(m, r) if direct else _from_points(m, r, default_points(count))
    if len(points) != count or len(set(points)) != count:
        raise ValueError(f"F({m}, {r}) needs {count} distinct points, got {points}")
    return _from_points(m, r, tuple(Fraction(p) for p in points))


@lru_cache(maxsize=256)
def bounded_cook_toom(m: int, r: int, first: int, count: int) -> CookToom:
    """F(m, r) of which only the inputs ``first .. first + count`` are not zero.

    The m outputs of ``count < r`` inputs see ``m + count - 1`` taps at most, so image and kernel
    change places: with the inputs in reverse order as weights and the taps in reverse order as
    image,

        y_i = sum_a x_a w_(a + first - i)

    is F(m, count), which takes ``m + count - 1`` multiplications for the ``m + r - 1`` of F(m, r).
    ``input`` is (t, count).

    Raises ValueError as `cook_toom` does.
    """
    swapped = cook_toom(m, count)
    taps = [count - 1 + first - p for p in range(r)]
    return CookToom(
        m,
        r,
        swapped.points,
        input=tuple(row[::-1] for row in swapped.kernel),
        kernel=tuple(
            tuple(row[tap] if 0 <= tap < swapped.t else _ZERO for tap in taps)
            for row in swapped.input
        ),
        output=swapped.output,
    )


def default_points(count: int) -> Vector:
    """`points.best_points`, exact."""
    return tuple(Fraction(p) for p in best_points(count))


def _without_points(m: int, r: int) -> CookToom:
    """F(1, r) and F(m, 1), in which every product belongs to one output."""
    t = m + r - 1
    identity = tuple(_unit(j, t) for j in range(t))
    if m == 1:
        return CookToom(m, r, (), identity, identity, ((_ONE,) * t,))
    return CookToom(m, r, (), identity, ((_ONE,),) * t, identity)


def _from_points(m: int, r: int, points: Vector) -> CookToom:
    scales = _output_scales(points, m)
    input_rows, kernel_rows, output_columns = [], [], []
    for j, (p, scale) in enumerate(zip(points, scales, strict=True)):
        others = points[:j] + points[j + 1 :]
        at_p = math.prod((p - q for q in others), start=_ONE)
        sign = 1 if at_p > 0 else -1
        input_rows.append((*(sign * c for c in _monic(others)), _ZERO))
        kernel_rows.append(tuple(p**k / (abs(at_p) * scale) for k in range(r)))
        output_columns.append(tuple(p**k * scale for k in range(m)))
    return CookToom(
        m,
        r,
        points,
        input=(*input_rows, _monic(points)),
        kernel=(*kernel_rows, _unit(r - 1, r)),
        output=tuple(zip(*output_columns, _unit(m - 1, m), strict=True)),
    )


def _output_scales(points: Vector, m: int) -> Vector:
    """Factors of the columns of A^T that save instructions or constants in its program.

    A sum costs an instruction less if one of its coefficients is 1.  The points 0, 1 and infinity
    bring that to the first, every and the last row; without the point 1, the k-th row gets it by
    dividing a pair by ``p ** k``: F(4, 3) takes 10 instructions for 12.  With the point 1, a pair
    whose reciprocals are points too is divided by its highest power, which gives it the
    coefficients of the reciprocals: F(6, 3) has 5 constants for 10.
    """
    sizes = list(dict.fromkeys(abs(p) for p in points if p))
    first_row = 1 if _ZERO in points else 0
    if _ONE in sizes:
        rows = {size: m - 1 for size in sizes if size < 1 and 1 / size in sizes}
    else:
        rows = {size: max(0, min(first_row + j, m - 2)) for j, size in enumerate(sizes)}
    return tuple(abs(p) ** -rows.get(abs(p), 0) for p in points)


def _monic(roots: Sequence[Fraction]) -> Vector:
    """``prod(x - root)`` as coefficients, the constant first."""
    coefficients = [_ONE]
    for root in roots:
        shifted, scaled = [_ZERO, *coefficients], [*(root * c for c in coefficients), _ZERO]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(coefficients)


def _unit(index: int, length: int) -> Vector:
    """``length`` numbers, 1 at ``index`` and else 0; the powers of infinity end in the 1."""
    return tuple(_ONE if i == index else _ZERO for i in range(length))


def _square_norm(row: Vector) -> float:
    return sum(float(c) ** 2 for c in row)
