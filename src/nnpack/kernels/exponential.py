"""Exponential and logarithm in vectors, to units in the last place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

# Adding 1.5 * 2^23 rounds a float of small magnitude to an integer in the low mantissa bits; 127
# more, and these are the exponent bits of that power of two.
_BIAS = 127
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000
_MANTISSA_BITS = 23
# exp(r) for |r| <= ln(2)/2 within 9.2e-8, expm1(r) / r within 1.1e-8: least greatest
# relative error, by Lawson's iterated least squares.
_EXP = (8.290298283e-3, 4.189797491e-2, 1.666763723e-1, 4.999915063e-1, 9.999997020e-1, 1.0)
_EXPM1 = (
    0.0013888872496793441,
    0.008369082852296175,
    0.04166713658866362,
    0.16666506091391134,
    0.4999999812253313,
    1.0000000106406786,
)
# s coth(s / 2) = 2 + s^2 (k1 + k0 s^2) for |s| <= ln(2)/2, the error of (c + s) / (c - s) 5e-10.
_COTH = (-0.0027659822694161224, 0.1666661768389532)
VANISHING, INFINITE = -88.0, 88.7
"""Where n = round(x / ln 2) is -127 and 128, and 2^n 0 and infinite: no x may be beyond."""


def emit_exp(asm: Assembler, x: Value) -> Value:
    """``exp(x)`` of a vector of x <= 0, within 3 ulp and 2e-9 of -x; a NaN stays.

    Below -87.7 it is 0. With n = round(x / ln 2) and r = x - n ln 2 (Cody & Waite, 1980; in one
    part, for x is itself a rounded difference), it is 2^n exp(r).
    """
    power, r = _emit_remainder(asm, asm.maximum(VANISHING, x), 1.0, parts=1)
    return power * emit_polynomial(asm, _EXP, r)


def emit_times_exp(
    asm: Assembler, value: Value, x: Value, factor: float = 1.0, rest: Value | None = None
) -> Value:
    """``value * exp(factor * (x + rest))``, one rounding and little more than that of the product.

    ``rest`` is what rounding has left out of x. n = round(factor x / ln 2), r = x + n ln 2 / factor
    + rest: 2^n value (1 + expm1(factor r)).
    """
    power, r = _emit_remainder(asm, x, factor)
    if rest is not None:
        r = r + rest
    scaled = value * power
    return asm.fma(scaled, _emit_expm1_of_remainder(asm, r, factor), scaled)


def emit_exp_ratio(
    asm: Assembler, x: Value, factor: float, rest: Value | None = None
) -> tuple[Value, Value, Value]:
    """``(2^n, p, q)`` with ``exp(factor * (x + rest)) = 2^n p / q``, within 2 ulp.

    ``rest`` is what rounding has left out of x. With n = round(factor x / ln 2), r = x + rest - n
    ln 2 / factor, s = factor r and c = s coth(s / 2), exp(s) is (c + s) / (c - s): c is even, so
    that two terms of its series do, and an error of c counts for a sixth of it. Beside a division
    that is made anyway this takes two multiplications less than a polynomial, and additions, which
    other units do. p and q are divided by |factor|, so they are within a fifth of 2 / |factor|.
    """
    power, r = _emit_remainder(asm, x, factor)
    if rest is not None:
        r = r + rest
    c = _emit_coth(asm, r, abs(factor))
    above, below = c + r, c - r
    return (power, above, below) if factor > 0.0 else (power, below, above)


def emit_tanh(asm: Assembler, t: Value) -> Value:
    """``tanh(t)`` for 0 <= t <= 40: 1 from 9.1 on, and never more.

    With exp(2 t) = 2^n (c + r) / (c - r), see `emit_exp_ratio`, it is ((2^n - 1) c + (2^n + 1) r)
    / (2^n (c + r) + (c - r)), where nothing cancels: with n = 0 the numerator is 2 r.
    """
    power, r = _emit_remainder(asm, t, 2.0)
    c = _emit_coth(asm, r, 2.0)
    numerator = asm.fma(power + 1.0, r, (power - 1.0) * c)
    return asm.divide(numerator, asm.fma(power, c + r, c - r))


def _emit_coth(asm: Assembler, r: Value, factor: float) -> Value:
    """``r coth(factor r / 2)`` of the remainder r."""
    coefficients = _COTH[0] * factor**3, _COTH[1] * factor, 2.0 / factor
    return emit_polynomial(asm, coefficients, r * r)


def emit_expm1(asm: Assembler, x: Value) -> Value:
    """``exp(x) - 1`` for x <= 0, within 2 ulp: 2^n expm1(r) + (2^n - 1).

    A NaN stays. Below -87 it is -1, to the last bit.
    """
    power, r = _emit_remainder(asm, asm.maximum(VANISHING, x), 1.0)
    return asm.fma(power, _emit_expm1_of_remainder(asm, r, 1.0), power - 1.0)


def _emit_expm1_of_remainder(asm: Assembler, r: Value, factor: float) -> Value:
    degree = len(_EXPM1)
    series = [c * factor ** (degree - n) for n, c in enumerate(_EXPM1)]
    return r * emit_polynomial(asm, series, r)


def _emit_remainder(
    asm: Assembler, x: Value, factor: float, parts: int | None = None
) -> tuple[Value, Value]:
    """``2^n``, n = round(factor x / ln 2), and ``r = x - n ln 2 / factor``.

    n is from -127, where 2^n is 0, to 128, where it is infinite. Cody & Waite (1980), in two parts
    where products are rounded. Where they are fused one will do: the error of ln 2 is left, 1.9e-9
    n, less than an ulp of what is more than 2^-24.
    """
    shifted = asm.fma(x, factor / math.log(2.0), emit_splat(asm, _ROUND + _BIAS, x))
    power = asm.bitcast_to_float(asm.bitcast_to_int(shifted) << _MANTISSA_BITS)
    n = shifted - (_ROUND + _BIAS)
    step = math.log(2.0) / factor
    if (parts or (1 if asm.target.fma else 2)) == 1:
        return power, asm.fma(n, -step, x)
    scale = 2.0 ** (15 - math.frexp(step)[1])
    high = round(step * scale) / scale
    return power, asm.fma(n, high - step, asm.fma(n, -high, x))


def emit_polynomial(asm: Assembler, coefficients: Sequence[float], x: Value) -> Value:
    """Horner's scheme, the coefficient of the highest power first."""
    first, second, *others = coefficients
    value = x + second if first == 1.0 else asm.fma(x, first, emit_splat(asm, second, x))
    for coefficient in others:
        value = asm.fma(value, x, emit_splat(asm, coefficient, x))
    return value


def emit_splat(asm: Assembler, number: float, like: Value) -> Value:
    """A number in as many lanes as ``like`` has."""
    return asm.splat(number, like.ir.type.count)


# log(1 + f) = f - f^2/2 + f^3 P(f) for sqrt(1/2) <= 1 + f < sqrt(2) (Moshier, Cephes, logf.c).
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_SQRT_HALF_BITS = 0x3F3504F3
_LOG2_HIGH, _LOG2_LOW = 0.693359375, -2.12194440e-4


def emit_log(asm: Assembler, x: Value) -> Value:
    """``log(x)`` of a vector of normal, positive, finite numbers within 2 ulp; a NaN stays."""
    shifted = asm.bitcast_to_int(x) - _SQRT_HALF_BITS
    exponent = asm.binary("ashr", shifted, _MANTISSA_BITS)
    fraction = asm.bitcast_to_float((shifted & 0x007FFFFF) + _SQRT_HALF_BITS) - 1.0
    # In the low mantissa bits of 1.5 * 2^23 an integer of few bits becomes a float.
    power = asm.bitcast_to_float(exponent + _ROUND_BITS) - _ROUND
    value = emit_polynomial(asm, _LOG, fraction)
    square = fraction * fraction
    tail = asm.fma(power, _LOG2_LOW, fraction * square * value)
    tail = asm.fma(square, -0.5, tail)
    # x - x is zero, or NaN where x is.
    return asm.fma(power, _LOG2_HIGH, fraction + tail) + (x - x)
