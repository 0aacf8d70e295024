"""Activations of vectors of floats, of any width: one row of `ACTIVATIONS` each.

Each is within 4 ulp of ``max(|f(x)|, 2^-24 |x|, 2^-126)`` for every x, with and without fused
multiply-adds; a NaN stays. Where exp underflows, results are zeros of the sign of the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

_SIGN, _MAGNITUDE = -(2**31), 2**31 - 1
# The upper 12 bits of a mantissa: products of two such numbers are exact (Dekker, 1971).
_UPPER_HALF = -(2**12)

# Adding 1.5 * 2^23 rounds a float of small magnitude to an integer in the low mantissa bits.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723e-6
# exp(-87) is close to the least normal float; below, expm1 is -1 to the last bit.
_LOWEST = -87.0
# Beyond, exp(-x) is no finite float, and x exp(x) far below 2^-24 x.
_FARTHEST = -88.0


@dataclass(frozen=True)
class Activation:
    """How an activation is emitted: ``emit(asm, x, *numbers)``, the numbers splatted to x's width.

    ``parameters`` name the numbers. A ``slope`` of each channel comes before them if
    ``per_channel``.
    """

    emit: Callable[..., Value]
    parameters: tuple[str, ...] = ()
    per_channel: bool = False


def _relu(asm: Assembler, x: Value) -> Value:
    return asm.maximum(0.0, x)


def _leaky_relu(asm: Assembler, x: Value, slope: Value) -> Value:
    return asm.select(x < 0.0, x * slope, x)


def _clip(asm: Assembler, x: Value, low: Value, high: Value) -> Value:
    return asm.minimum(high, asm.maximum(low, x))


def _elu(asm: Assembler, x: Value, alpha: Value) -> Value:
    return asm.select(x < 0.0, alpha * emit_expm1(asm, asm.minimum(0.0, x)), x)


def _sigmoid(asm: Assembler, x: Value) -> Value:
    """``1 / (1 + exp(-x))``."""
    denominator = _emit_exp_of_negative(asm, x) + 1.0
    return asm.select(x < _FARTHEST, 0.0, asm.divide(_splat(asm, 1.0, x), denominator))


def _silu(asm: Assembler, x: Value) -> Value:
    """``x / (1 + exp(-x))`` (Elfwing et al., 2017)."""
    denominator = _emit_exp_of_negative(asm, x) + 1.0
    return asm.select(x < _FARTHEST, -0.0, asm.divide(x, denominator))


def _tanh(asm: Assembler, x: Value) -> Value:
    """``-t / (2 + t)`` with the sign of x, t = expm1(-2 |x|)."""
    bits = asm.bitcast_to_int(x)
    magnitude = asm.bitcast_to_float(bits & _MAGNITUDE)
    t = emit_expm1(asm, magnitude * -2.0)
    quotient = asm.bitcast_to_int(asm.divide(t, t + 2.0)) & _MAGNITUDE
    return asm.bitcast_to_float(quotient | (bits & _SIGN))


def _mish(asm: Assembler, x: Value) -> Value:
    """``x tanh(log(1 + e)) = x w / (w + 2)``, w = e^2 + 2 e, e = exp(x) (Misra, 2019).

    From 20 on, w / (w + 2) is 1 to the last bit.
    """
    power, expm1 = _emit_exp_parts(asm, asm.maximum(_LOWEST, asm.minimum(20.0, x)))
    e = asm.fma(power, expm1, power)
    w = asm.fma(e, e, e + e)
    return asm.select(x < _FARTHEST, -0.0, x * asm.divide(w, w + 2.0))


def _hard_sigmoid(asm: Assembler, x: Value, alpha: Value, beta: Value) -> Value:
    """``min(max(alpha x + beta, 0), 1)``, one rounding of the sum, also where it cancels."""
    if asm.target.fma:
        value = asm.fma(alpha, x, beta)
    else:
        product = alpha * x
        a_high, x_high = _upper_half(asm, alpha), _upper_half(asm, x)
        a_low, x_low = alpha - a_high, x - x_high
        error = a_high * x_high - product
        error = error + a_high * x_low + a_low * x_high + a_low * x_low
        # The error of an infinite product is no number, that of a huge one does not matter.
        error = asm.select(asm.compare("<", _magnitude(asm, x), 1e6), error, 0.0)
        value = (product + beta) + error
    return asm.minimum(1.0, asm.maximum(0.0, value))


def _hard_swish(asm: Assembler, x: Value) -> Value:
    """``x min(max(x + 3, 0), 6) / 6`` (Howard et al., 2019); -0 from -3 down."""
    gate = asm.minimum(6.0, asm.maximum(0.0, x + 3.0))
    return asm.maximum(-3.0, x) * (gate * (1.0 / 6.0))


# 2 sqrt(2/pi) and that times 0.044715.
_GELU_LINEAR = 2.0 * math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715 * _GELU_LINEAR
_GELU_TANH_LOWEST = -9.5


def _gelu_tanh(asm: Assembler, x: Value) -> Value:
    """``x / (1 + exp(-a))``, a = x (c1 + c2 x^2): the approximation of Hendrycks & Gimpel (2016).

    An error of a is a relative error of the result, so a is found to 2^-30 of it, in two parts.
    From -9.5 down the result is -0; it is less than 1e-32 there.
    """
    bounded = asm.minimum(-_GELU_TANH_LOWEST, asm.maximum(_GELU_TANH_LOWEST, x))
    high, low = _emit_gelu_argument(asm, bounded)
    power, expm1 = _emit_exp_parts(asm, -high, -low)
    denominator = asm.fma(power, expm1, power) + 1.0
    return asm.select(x < _GELU_TANH_LOWEST, -0.0, asm.divide(x, denominator))


def _emit_gelu_argument(asm: Assembler, x: Value) -> tuple[Value, Value]:
    """``x (c1 + c2 x^2)`` as a sum of an exact product and a small rest."""
    c1, c2 = _halves(_GELU_LINEAR), _halves(_GELU_CUBIC)
    x_high = _upper_half(asm, x)
    x_low = x - x_high
    square = x_high * x_high
    square_low = x_low * (x + x_high)
    square_high = _upper_half(asm, square)
    square_rest = (square - square_high) + square_low
    factor_high = _upper_half(asm, asm.fma(square, _GELU_CUBIC, _splat(asm, _GELU_LINEAR, x)))
    factor_low = asm.fma(square_high, c2[0], _splat(asm, c1[0], x) - factor_high)
    factor_low = asm.fma(square_rest, _GELU_CUBIC, factor_low)
    factor_low = asm.fma(square_high, c2[1], factor_low) + c1[1]
    return x_high * factor_high, asm.fma(x, factor_low, x_low * factor_high)


# Phi(-t) = exp(-t^2 / 2) / (sqrt(2 pi) t + w(t)), as in Mills' ratio: w falls slowly from 2. This
# polynomial, in t - 1.5 so that little cancels, gives the sum within 1.3e-8 of it up to t = 5.4 and
# nearly so to 7.5, beyond which Phi(-t) counts for nothing beside 1: least greatest error, by
# Lawson's iterated least squares.
_MILLS = (
    4.494871353119032e-09,
    -1.1469684832124413e-07,
    1.2646749663241845e-06,
    -7.854643191069307e-06,
    2.8053557278667898e-05,
    -2.3645065553516843e-05,
    -0.0004616762570914177,
    0.0041886280964760275,
    -0.023681340589215484,
    0.10421478363604704,
    -0.37485755889793126,
    1.099600645180204,
)
_MILLS_HIGHEST, _MILLS_CENTRE = 7.5, 1.5
_GELU_HIGHEST = 13.0


def _gelu(asm: Assembler, x: Value) -> Value:
    """``x Phi(x) = max(x, 0) - t Phi(-t)``, t = |x|, Phi the normal distribution.

    An error of t^2 is a relative error of the result, so it is found in two parts, the first
    exact. From -13 down the result is 0; it is less than 1e-37 there.
    """
    magnitude = _magnitude(asm, x)
    t = asm.minimum(_GELU_HIGHEST, magnitude)
    t_high = _upper_half(asm, t)
    rest = (t - t_high) * (t + t_high) * -0.5
    power, expm1 = _emit_exp_parts(asm, t_high * t_high * -0.5, rest)
    weight = asm.fma(power, expm1, power)
    slow = _polynomial(asm, _MILLS, asm.minimum(_MILLS_HIGHEST, t) - _MILLS_CENTRE)
    tail = asm.divide(t * weight, asm.fma(t, math.sqrt(2.0 * math.pi), slow))
    tail = asm.select(asm.compare(">", magnitude, _GELU_HIGHEST), 0.0, tail)
    return asm.maximum(0.0, x) - tail


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(_relu),
    "leaky_relu": Activation(_leaky_relu, ("slope",)),
    "prelu": Activation(_leaky_relu, per_channel=True),
    "elu": Activation(_elu, ("alpha",)),
    "clip": Activation(_clip, ("low", "high")),
    "sigmoid": Activation(_sigmoid),
    "tanh": Activation(_tanh),
    "silu": Activation(_silu),
    "hard_sigmoid": Activation(_hard_sigmoid, ("alpha", "beta")),
    "hard_swish": Activation(_hard_swish),
    "gelu": Activation(_gelu),
    "gelu_tanh": Activation(_gelu_tanh),
    "mish": Activation(_mish),
}


def emit_expm1(asm: Assembler, x: Value) -> Value:
    """``exp(x) - 1`` for x <= 0, within 2 ulp; a NaN stays: 2^n expm1(r) + (2^n - 1)."""
    power, expm1 = _emit_exp_parts(asm, asm.maximum(_LOWEST, x))
    return asm.fma(power, expm1, power - 1.0)


def _emit_exp_of_negative(asm: Assembler, x: Value) -> Value:
    """``exp(-x)``, of an x below -88 as of -88, of one above 87 as of 87."""
    bounded = asm.minimum(-_LOWEST, asm.maximum(_FARTHEST, x))
    power, expm1 = _emit_exp_parts(asm, -bounded)
    return asm.fma(power, expm1, power)


def _emit_exp_parts(asm: Assembler, x: Value, rest: Value | None = None) -> tuple[Value, Value]:
    """``2^n`` and ``expm1(r)``, whose product with exp(n ln 2) is ``exp(x + rest)``; |x| <= 88.

    n = round(x / ln 2) and r = x - n ln 2 + rest (Cody & Waite, 1980, in two parts); expm1(r) is
    its Taylor polynomial of degree 7, whose remainder for |r| <= ln(2)/2 is below 6e-9 of r.
    """
    shifted = asm.fma(x, 1.0 / math.log(2.0), _splat(asm, _ROUND, x))
    n = shifted - _ROUND
    r = asm.fma(n, -_LN2_LOW, asm.fma(n, -_LN2_HIGH, x))
    if rest is not None:
        r = r + rest
    series = [1.0 / math.factorial(degree) for degree in range(7, 1, -1)]
    expm1 = asm.fma(_polynomial(asm, series, r) * r, r, r)
    exponent = asm.bitcast_to_int(shifted) - (_ROUND_BITS - 127)
    return asm.bitcast_to_float(exponent << 23), expm1


def _polynomial(asm: Assembler, coefficients: Sequence[float], x: Value) -> Value:
    """Horner's scheme, the coefficient of the highest power first."""
    value = _splat(asm, coefficients[0], x)
    for coefficient in coefficients[1:]:
        value = asm.fma(value, x, _splat(asm, coefficient, x))
    return value


def _splat(asm: Assembler, number: float, like: Value) -> Value:
    return asm.splat(number, like.ir.type.count)


def _magnitude(asm: Assembler, x: Value) -> Value:
    return asm.bitcast_to_float(asm.bitcast_to_int(x) & _MAGNITUDE)


def _upper_half(asm: Assembler, x: Value) -> Value:
    """X without the lower 12 bits of its mantissa: what is left out is a float of 12 bits."""
    return asm.bitcast_to_float(asm.bitcast_to_int(x) & _UPPER_HALF)


def _halves(number: float) -> tuple[float, float]:
    """A number as one of few bits, 2^-9 of it at most apart, and the rest."""
    scale = 2.0 ** (10 - math.frexp(number)[1])
    high = math.floor(number * scale) / scale
    return high, number - high
