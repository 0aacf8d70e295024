"""Convolution of real tiles in the Fourier domain, as a bilinear form of real numbers.

Overlap-save (Stockham, 1966): the circular correlation of n x n inputs d with r_h x r_w weights g
is the plain one at the first ``n - r + 1`` places in each direction. With D and W the transforms of
d and of g padded with zeros, it is the inverse transform of ``D conj(W)``, frequency by frequency.

*Half of the frequencies suffice.* A row of n real numbers has the *packed* transform

    Re X[0], Re X[n / 2], Re X[1], Im X[1], ..., Re X[n / 2 - 1], Im X[n / 2 - 1],

so after the rows are transformed, two columns are real and n / 2 - 1 complex. Down these columns,
the real ones are transformed like the rows, the complex ones in full.

*The product of complex numbers* is one of two real bilinear forms, by what is scarce. Three real
multiplications (Gauss; Knuth, 1997, section 4.6.4),

    D conj(W) = (p - r) + i (p - q),   p = (Re D + Im D)  Re W
                                       q = Re D  (Re W + Im W)
                                       r = Im D  (Re W - Im W),

where each of p, q, r is a sum over the channels by itself: three *planes* of real matrix products,
and a real frequency is one. Or four, which read two numbers of each weight for three,

    | Re D    Im D | | Re W |
    | Im D   -Re D | | Im W |,

that is one plane of a matrix product of twice the rows and twice the depth. There two real
frequencies (Y, Z) of a column make a plane together, ``diag(Y, Z)`` in place of D.

Planes are in this order: the two real columns, the complex ones; each `form.Form` says how many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from nnpack.maths.dft import Complex, complex_dft, complex_inverse, real_dft, real_inverse
from nnpack.maths.expression import Formula, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nnpack.maths.form import Form
    from nnpack.maths.program import LinearProgram


@dataclass(frozen=True)
class Side:
    """The programs of one side of the bilinear form: ``row`` for rows, then or before the columns.

    Input and kernel: ``row`` makes a packed transform, ``real`` and ``full`` the factors of a
    real column and of a complex one (``Re, Im, Re, Im, ...``). Output: the other way round.
    """

    row: LinearProgram
    real: LinearProgram
    full: LinearProgram

    @property
    def programs(self) -> tuple[LinearProgram, ...]:
        """All three."""
        return self.row, self.real, self.full


@lru_cache(maxsize=64)
def input_side(form: Form) -> Side:
    """Rows of n inputs to the factors of D."""

    def real(x: list[Term]) -> list[Term]:
        first, *inner, last = real_dft(x)
        return [*_input_pair(form, first.re, last.re), *_each(form, _input_factors, inner)]

    def full(x: list[Term]) -> list[Term]:
        return _each(form, _input_factors, complex_dft(_paired(x)))

    return Side(
        _program(form.n, lambda x: _packed(real_dft(x))),
        _program(form.n, real),
        _program(2 * form.n, full),
    )


@lru_cache(maxsize=256)
def kernel_side(form: Form, r_h: int, r_w: int) -> Side:
    """Rows of r_w weights to the factors of W, the columns having r_h entries.

    The weights are to be multiplied by ``2 / n ** 2`` first; the inverse transforms do not divide.
    """
    n = form.n

    def real(x: list[Term]) -> list[Term]:
        first, *inner, last = real_dft(_padded(x, n))
        # `real_inverse` wants its two real numbers halved.
        return [first.re * 0.5, last.re * 0.5, *_each(form, _kernel_factors, inner)]

    def full(x: list[Term]) -> list[Term]:
        return _each(form, _kernel_factors, complex_dft(_paired(_padded(x, 2 * n))))

    return Side(
        _program(r_w, lambda x: _packed(real_dft(_padded(x, n)))),
        _program(r_h, real),
        _program(2 * r_h, full),
    )


@lru_cache(maxsize=256)
def output_side(form: Form, m_h: int, m_w: int) -> Side:
    """Sums of products to the first m_h entries of columns, and those to m_w outputs of rows."""
    n = form.n
    sums = 3 if form.multiplications == 3 else 2

    def products(x: Sequence[Term]) -> list[Complex]:
        return [_product(form, x[k : k + sums]) for k in range(0, len(x), sums)]

    def real(x: list[Term]) -> list[Term]:
        first, last = (Complex(x[k], x[k] * 0.0) for k in (0, 1))
        return real_inverse([first, *products(x[2:]), last])[:m_h]

    return Side(
        _program(n, lambda x: real_inverse(_unpacked(x))[:m_w]),
        _program(2 + sums * (n // 2 - 1), real),
        _program(sums * n, lambda x: _flat(complex_inverse(products(x))[:m_h])),
    )


def _input_factors(form: Form, d: Complex) -> list[Term]:
    """What D brings into ``D conj(W)``; in a folded plane row by row."""
    if form.multiplications == 3:
        return [d.re + d.im, d.re, d.im]
    return [d.re, d.im, d.im, -d.re]


def _kernel_factors(form: Form, w: Complex) -> list[Term]:
    """What W brings."""
    return [w.re, w.re + w.im, w.re - w.im] if form.multiplications == 3 else [w.re, w.im]


def _product(form: Form, sums: Sequence[Term]) -> Complex:
    """``D conj(W)`` from its real products: three, or the two rows of a folded plane."""
    if form.multiplications == 3:
        p, q, r = sums
        return Complex(p - r, p - q)
    return Complex(sums[0], sums[1])


def _input_pair(form: Form, first: Term, last: Term) -> list[Term]:
    """What two real frequencies bring."""
    zero = first * 0.0
    return [first, last] if form.multiplications == 3 else [first, zero, zero, last]


def _program(inputs: int, build: Callable[[list[Term]], list[Term]]) -> LinearProgram:
    formula = Formula(inputs)
    return formula.program(build(formula.inputs))


def _each(
    form: Form, factors: Callable[[Form, Complex], list[Term]], spectrum: Sequence[Complex]
) -> list[Term]:
    return [factor for value in spectrum for factor in factors(form, value)]


def _padded(x: list[Term], length: int) -> list[Term]:
    return [*x, *[x[0] * 0.0] * (length - len(x))]


def _packed(spectrum: Sequence[Complex]) -> list[Term]:
    first, *inner, last = spectrum
    return [first.re, last.re, *_flat(inner)]


def _unpacked(x: Sequence[Term]) -> list[Complex]:
    first, last = (Complex(x[k], x[k] * 0.0) for k in (0, 1))
    return [first, *_paired(x[2:]), last]


def _flat(numbers: Sequence[Complex]) -> list[Term]:
    return [part for number in numbers for part in (number.re, number.im)]


def _paired(x: Sequence[Term]) -> list[Complex]:
    return [Complex(re, im) for re, im in zip(x[0::2], x[1::2], strict=True)]
