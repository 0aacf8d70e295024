"""Discrete Fourier transforms of short lengths as straight-line programs.

With ``w = exp(-2 pi i / n)`` and ``X[k] = sum_j x[j] w^(j k)``, the conjugate-pair split-radix
step (Kamar and Elcherif, 1989) for n a multiple of 4 is

    X[k]          = E[k] + S[k]               E[k] = sum_j x[2 j]     w^(2 j k),    n / 2 long
    X[k + n / 2]  = E[k] - S[k]               A[k] = sum_j x[4 j + 1] w^(4 j k),    n / 4 long
    X[k + n / 4]  = E[k + n / 4] - i D[k]     B[k] = sum_j x[4 j - 1] w^(4 j k),    n / 4 long
    X[k + 3n / 4] = E[k + n / 4] + i D[k]     S, D = w^k A[k] +- w^-k B[k]

for 0 <= k < n / 4. Both factors have the same cosine, which `Term` keeps outside of S and D and
fuses into the sums with E. Real inputs give ``X[n - k] = conj X[k]``, and half of every step
(Sorensen et al., 1987). The inverses take the same steps backwards, without dividing by n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnpack.maths.expression import Term


@dataclass(frozen=True, slots=True)
class Complex:
    """A complex number of two terms."""

    re: Term
    im: Term

    def __add__(self, other: Complex) -> Complex:
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Complex) -> Complex:
        return Complex(self.re - other.re, self.im - other.im)

    @property
    def conjugate(self) -> Complex:
        """``re - i im``."""
        return Complex(self.re, -self.im)

    @property
    def turned(self) -> Complex:
        """``i (re + i im)``."""
        return Complex(-self.im, self.re)

    @property
    def swapped(self) -> Complex:
        """``im + i re``, that is i times the conjugate."""
        return Complex(self.im, self.re)

    @property
    def nothing(self) -> Complex:
        """0."""
        return Complex(self.re * 0.0, self.im * 0.0)

    def rotated(self, k: int, n: int) -> Complex:
        """The number times ``exp(-2 pi i k / n)``."""
        c, s = cosine(k, n), sine(k, n)
        return Complex(self.re * c + self.im * s, self.im * c - self.re * s)


def cosine(k: int, n: int) -> float:
    """``cos(2 pi k / n)``, n a multiple of 8; equal magnitudes are equal to the last bit."""
    k = min(k % n, -k % n)
    if k > n // 4:
        return -cosine(n // 2 - k, n)
    if k == n // 4:
        return 0.0
    return (
        math.cos(2 * math.pi * k / n) if k <= n // 8 else math.sin(2 * math.pi * (n // 4 - k) / n)
    )


def sine(k: int, n: int) -> float:
    """``sin(2 pi k / n)``, n a multiple of 8."""
    return cosine(n // 4 - k, n)


def complex_dft(x: Sequence[Complex]) -> list[Complex]:
    """``X[k] = sum_j x[j] exp(-2 pi i j k / n)``, n a power of 2."""
    n = len(x)
    if n == 1:
        return list(x)
    if n == 2:
        return [x[0] + x[1], x[0] - x[1]]
    quarter = n // 4
    even, a, b = complex_dft(x[0::2]), complex_dft(x[1::4]), complex_dft((x[-1], *x[3:-1:4]))
    result = 4 * even[:quarter]
    for k in range(quarter):
        p, q = _twiddled(a[k], k, n), _twiddled(b[k], -k, n)
        s, d = p + q, (p - q).turned
        result[k], result[k + 2 * quarter] = even[k] + s, even[k] - s
        result[k + quarter], result[k + 3 * quarter] = even[k + quarter] - d, even[k + quarter] + d
    return result


def complex_inverse(x: Sequence[Complex]) -> list[Complex]:
    """``n x[j] = sum_k X[k] exp(2 pi i j k / n)``: swapping re and im reverses the exponent."""
    return [value.swapped for value in complex_dft([value.swapped for value in x])]


def real_dft(x: Sequence[Term]) -> list[Complex]:
    """``X[0], ..., X[n / 2]`` of n real numbers; the first and the last have no imaginary part."""
    n = len(x)
    zero = x[0].formula.zero
    if n == 1:
        return [Complex(x[0], zero)]
    if n == 2:
        return [Complex(x[0] + x[1], zero), Complex(x[0] - x[1], zero)]
    quarter = n // 4
    even, a, b = real_dft(x[0::2]), real_dft(x[1::4]), real_dft((x[-1], *x[3:-1:4]))
    result = 2 * even
    for k in range(n // 8 + 1):
        p, q = _twiddled(a[k], k, n), _twiddled(b[k], -k, n)
        s, d = p + q, (p - q).turned
        opposite = even[quarter - k].conjugate
        result[quarter + k], result[quarter - k] = opposite - d, (opposite + d).conjugate
        result[k], result[2 * quarter - k] = even[k] + s, (even[k] - s).conjugate
    return result[: n // 2 + 1]


def real_inverse(spectrum: Sequence[Complex]) -> list[Term]:
    """``y[j] = Re sum_(k <= n / 2) Y[k] exp(2 pi i j k / n)`` from ``Y[0], ..., Y[n / 2]``.

    That is ``n / 2 x[j]`` when ``Y[k] = X[k]`` but for ``Y[0] = X[0] / 2`` and
    ``Y[n / 2] = X[n / 2] / 2``: halving the two real numbers saves doubling all others.
    What meets its own conjugate, at k = 0, n / 8 and n / 4, counts once, by its real part.
    """
    n = 2 * (len(spectrum) - 1)
    if n == 2:
        return [spectrum[0].re + spectrum[1].re, spectrum[0].re - spectrum[1].re]
    half, quarter, eighth = n // 2, n // 4, n // 8
    even = [spectrum[k] + spectrum[half - k].conjugate for k in range(quarter)]
    s = [spectrum[k] - spectrum[half - k].conjugate for k in range(eighth + 1)]
    d = [spectrum[quarter + k] - spectrum[quarter - k].conjugate for k in range(eighth + 1)]
    d[0] = spectrum[quarter]
    if eighth:
        d[eighth] = d[eighth].nothing
    a = [_twiddled(s[k] + d[k].turned, -k, n) for k in range(eighth + 1)]
    b = [_twiddled(s[k] - d[k].turned, k, n) for k in range(eighth + 1)]
    result = 2 * real_inverse([*even, spectrum[quarter]])
    result[0::2] = result[:half]
    result[1::4] = real_inverse(a) if eighth else [a[0].re]
    last = real_inverse(b) if eighth else [b[0].re]
    result[3::4] = [*last[1:], last[0]]
    return result


def _twiddled(value: Complex, k: int, n: int) -> Complex:
    """``value * exp(-2 pi i k / n)``."""
    return value if k == 0 else value.rotated(k, n)
