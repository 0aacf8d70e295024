"""Exponential and logarithm in vectors, to units in the last place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

# Adding 1.5 * 2^23 rounds a float of small magnitude to an integer in the low mantissa bits.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000
_MANTISSA_BITS = 23
# Where exp, 1.8e-38, comes close to the least normal number.
_LOWEST = -86.9
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
LEAST_EXPONENT = -86.0
"""What exp may be taken of, without its results leaving the normal numbers."""


def emit_exp(asm: Assembler, x: Value) -> Value:
    """``exp(x)`` of a vector of x <= 0, within 3 ulp and 2e-9 of -x; a NaN stays.

    Below -86.9 it is 0. With n = round(x / ln 2) and r = x - n ln 2 (Cody & Waite, 1980; in one
    part, for x is itself a rounded difference), it is 2^n exp(r), n added to the exponent.
    """
    shifted = asm.fma(x, 1.0 / math.log(2.0), emit_splat(asm, _ROUND, x))
    r = asm.fma(shifted - _ROUND, -math.log(2.0), x)
    scaled = _emit_shift(asm, emit_polynomial(asm, _EXP, r), shifted)
    return asm.select(x < _LOWEST, emit_splat(asm, 0.0, x), scaled)


def emit_scaled_exp(asm: Assembler, x: Value, factor: float = 1.0) -> Value:
    """``exp(factor * x)`` for factor * x from -86 to 88, within 3 ulp while it is above 2^-24."""
    shifted, r = _emit_remainder(asm, x, factor)
    return _emit_shift(asm, emit_polynomial(asm, _scaled(_EXP, factor), r), shifted)


def emit_times_exp(
    asm: Assembler,
    value: Value,
    x: Value,
    factor: float = 1.0,
    rest: Value | None = None,
    parts: int = 1,
) -> Value:
    """``value * exp(factor * (x + rest))``, one rounding and little more than that of the product.

    ``rest`` is what rounding has left out of x. n = round(factor x / ln 2), r = x + n ln 2 / factor
    + rest: 2^n value (1 + expm1(factor r)). ``factor * x`` is from -86 to 88, and 2^n value normal
    unless n is 0. With two ``parts`` of ln 2 its error counts for nothing, see `_emit_remainder`.
    """
    shifted, r = _emit_remainder(asm, x, factor, parts)
    if rest is not None:
        r = r + rest
    scaled = _emit_shift(asm, value, shifted)
    return asm.fma(scaled, _emit_expm1_of_remainder(asm, r, factor), scaled)


def emit_expm1(asm: Assembler, x: Value, factor: float = 1.0) -> Value:
    """``exp(factor * x) - 1`` for factor * x <= 0, within 2 ulp: 2^n expm1(r) + (2^n - 1).

    A NaN stays. Below -86 it is -1, to the last bit.
    """
    limit = LEAST_EXPONENT / factor
    bounded = asm.maximum(limit, x) if factor > 0.0 else asm.minimum(limit, x)
    shifted, r = _emit_remainder(asm, bounded, factor)
    power = _emit_shift(asm, emit_splat(asm, 1.0, x), shifted)
    return asm.fma(power, _emit_expm1_of_remainder(asm, r, factor), power - 1.0)


def _emit_expm1_of_remainder(asm: Assembler, r: Value, factor: float) -> Value:
    # One power more of the factor than the polynomial has: its constant is that of r itself.
    series = [factor * c for c in _scaled(_EXPM1, factor)]
    return r * emit_polynomial(asm, series, r)


def _scaled(coefficients: Sequence[float], factor: float) -> list[float]:
    """The coefficients of a polynomial of ``factor * r`` as one of r."""
    degree = len(coefficients) - 1
    return [c * factor ** (degree - n) for n, c in enumerate(coefficients)]


def _emit_remainder(asm: Assembler, x: Value, factor: float, parts: int = 1) -> tuple[Value, Value]:
    """``n = round(factor x / ln 2)`` in the low bits of a float, ``r = x - n ln 2 / factor``.

    Cody & Waite (1980), in two parts where products are rounded. Where they are fused one will do:
    the error of ln 2 is left, 1.9e-9 n, less than an ulp of what is more than 2^-24.
    """
    shifted = asm.fma(x, factor / math.log(2.0), emit_splat(asm, _ROUND, x))
    n = shifted - _ROUND
    step = math.log(2.0) / factor
    if asm.target.fma and parts == 1:
        return shifted, asm.fma(n, -step, x)
    scale = 2.0 ** (15 - math.frexp(step)[1])
    high = round(step * scale) / scale
    return shifted, asm.fma(n, high - step, asm.fma(n, -high, x))


def _emit_shift(asm: Assembler, value: Value, shifted: Value) -> Value:
    """``2^n value``, n in the low bits of ``shifted``."""
    exponent = asm.bitcast_to_int(shifted) << _MANTISSA_BITS
    return asm.bitcast_to_float(asm.bitcast_to_int(value) + exponent)


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
