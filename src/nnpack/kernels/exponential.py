"""Exponential and logarithm in vectors, to units in the last place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

# Adding 1.5 * 2^23 rounds a float of small magnitude to an integer in the low mantissa bits.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000
_MANTISSA_BITS = 23
# Where exp, 1.8e-38, comes close to the least normal number.
_LOWEST = -86.9
# exp(r) = 1 + r P(r) for |r| <= ln(2)/2 within 9.2e-8: least greatest relative error, by Lawson's
# iterated least squares.
_EXP = (8.290298283e-3, 4.189797491e-2, 1.666763723e-1, 4.999915063e-1, 9.999997020e-1)


def emit_exp(asm: Assembler, x: Value) -> Value:
    """``exp(x)`` of a vector of x <= 0, within 3 ulp and 2e-9 of -x; a NaN stays.

    Below -86.9 it is 0. With n = round(x / ln 2) and r = x - n ln 2 (Cody & Waite, 1980; in one
    part, for x is itself a rounded difference), it is 2^n exp(r), n added to the exponent.
    """
    lanes = x.ir.type.count
    shifted = asm.fma(x, 1.0 / math.log(2.0), asm.splat(_ROUND, lanes))
    r = asm.fma(shifted - _ROUND, -math.log(2.0), x)
    value = asm.splat(_EXP[0], lanes)
    for coefficient in (*_EXP[1:], 1.0):
        value = asm.fma(value, r, asm.splat(coefficient, lanes))
    scaled = asm.bitcast_to_int(value) + (asm.bitcast_to_int(shifted) << _MANTISSA_BITS)
    return asm.select(x < _LOWEST, asm.zeros(lanes), asm.bitcast_to_float(scaled))


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
    value = asm.splat(_LOG[0], x.ir.type.count)
    for coefficient in _LOG[1:]:
        value = asm.fma(value, fraction, asm.splat(coefficient, x.ir.type.count))
    square = fraction * fraction
    tail = asm.fma(power, _LOG2_LOW, fraction * square * value)
    tail = asm.fma(square, -0.5, tail)
    # x - x is zero, or NaN where x is.
    return asm.fma(power, _LOG2_HIGH, fraction + tail) + (x - x)
