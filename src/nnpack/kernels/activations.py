"""Activations of vectors of floats, of any width: one row of `ACTIVATIONS` each.

Each is within 4 ulp of ``max(|f(x)|, 2^-24 |x|, 2^-126)`` for every x, with and without fused
multiply-adds; a NaN stays. Where exp underflows, results are zeros of the sign of the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.exponential import (
    INFINITE,
    VANISHING,
    emit_exp_ratio,
    emit_expm1,
    emit_polynomial,
    emit_splat,
    emit_tanh,
    emit_times_exp,
)

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

_SIGN, _MAGNITUDE = -(2**31), 2**31 - 1
# The upper 12 bits of a mantissa: products of two such numbers are exact (Dekker, 1971).
_UPPER_HALF = -(2**12)


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
    return asm.fma(slope, asm.minimum(0.0, x), asm.maximum(0.0, x))


def _clip(asm: Assembler, x: Value, low: Value, high: Value) -> Value:
    return asm.minimum(high, asm.maximum(low, x))


def _elu(asm: Assembler, x: Value, alpha: Value) -> Value:
    return asm.fma(alpha, emit_expm1(asm, asm.minimum(0.0, x)), asm.maximum(0.0, x))


def _sigmoid(asm: Assembler, x: Value) -> Value:
    """``1 / (1 + exp(-x))``."""
    return _emit_gate(asm, asm.maximum(-INFINITE, asm.minimum(-VANISHING, x)), -1.0)


def _silu(asm: Assembler, x: Value) -> Value:
    """``x / (1 + exp(-x))`` (Elfwing et al., 2017)."""
    bounded = asm.maximum(-INFINITE, x)
    return bounded * _emit_gate(asm, asm.minimum(-VANISHING, bounded), -1.0)


def _emit_gate(asm: Assembler, x: Value, factor: float, rest: Value | None = None) -> Value:
    """``1 / (1 + exp(factor * (x + rest))) = q / (2^n p + q)``; 0 where 2^n is infinite."""
    power, p, q = emit_exp_ratio(asm, x, factor, rest)
    return asm.divide(q, asm.fma(power, p, q))


def _tanh(asm: Assembler, x: Value) -> Value:
    """``tanh(|x|)`` with the sign of x."""
    bits = asm.bitcast_to_int(x)
    positive = asm.bitcast_to_int(emit_tanh(asm, asm.minimum(9.5, _magnitude(asm, x))))
    return asm.bitcast_to_float(positive & _MAGNITUDE | (bits & _SIGN))


def _mish(asm: Assembler, x: Value) -> Value:
    """``x tanh(log(1 + e)) = x w / (w + 2 q^2)``, w = p^2 + 2 p q, e = exp(x) = p/q (Misra, 2019).

    From 20 on, that quotient is 1 to the last bit. Where products are rounded, a quotient for exp
    would be one rounding too many: q is 1 there.
    """
    bounded = asm.maximum(VANISHING, x)
    exponent = asm.minimum(20.0, bounded)
    if asm.target.fma:
        power, p, q = emit_exp_ratio(asm, exponent, 1.0)
        p, twice = power * p, q + q
        w = p * (p + twice)
        total = asm.fma(twice, q, w)
    else:
        e = emit_times_exp(asm, emit_splat(asm, 1.0, x), exponent)
        w = e * e + (e + e)
        total = w + 2.0
    return bounded * asm.divide(w, total)


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


# exp(-2 sqrt(2/pi) (x + 0.044715 x^3)) = exp(-lambda x (c1 + c2 x^2)): c1 of 20 bits,
# so that c1 - (c1 + c2 x^2) is exact, and such that c2 = 0.044715 c1 and ln 2 / lambda are within
# 1e-10 of floats.
_GELU_LINEAR = 1.1908683776855469
_GELU_CUBIC = 0.044715 * _GELU_LINEAR
_GELU_FACTOR = -2.0 * math.sqrt(2.0 / math.pi) / _GELU_LINEAR
# a is 88.7 there, where exp is infinite.
_GELU_TANH_LOWEST, _GELU_TANH_HIGHEST = -10.06, 9.5


def _gelu_tanh(asm: Assembler, x: Value) -> Value:
    """``x / (1 + exp(-a))``, a = 2 sqrt(2/pi) (x + 0.044715 x^3) (Hendrycks & Gimpel, 2016).

    An error of a is a relative error of the result, so a is found to 2^-30 of it, in two parts.
    From -10.06 down the result is -0; it is less than 1e-37 there.
    """
    bounded = asm.maximum(_GELU_TANH_LOWEST, x)
    product = _emit_exact_cubic if asm.target.fma else _emit_exact_cubic_by_halves
    high, low = product(asm, asm.minimum(_GELU_TANH_HIGHEST, bounded))
    return bounded * _emit_gate(asm, high, _GELU_FACTOR, low)


def _emit_exact_cubic(asm: Assembler, x: Value) -> tuple[Value, Value]:
    """``x (c1 + c2 x^2)`` rounded, and what that leaves out, by fused multiply-adds."""
    square = x * x
    square_rest = asm.fma(x, x, -square)
    c1 = emit_splat(asm, _GELU_LINEAR, x)
    factor = asm.fma(square, _GELU_CUBIC, c1)
    factor_rest = asm.fma(square, _GELU_CUBIC, c1 - factor)
    factor_rest = asm.fma(square_rest, _GELU_CUBIC, factor_rest)
    value = x * factor
    return value, asm.fma(x, factor_rest, asm.fma(x, factor, -value))


def _emit_exact_cubic_by_halves(asm: Assembler, x: Value) -> tuple[Value, Value]:
    """The same as the sum of an exact product and a small rest."""
    c1, c2 = _halves(_GELU_LINEAR), _halves(_GELU_CUBIC)
    x_high = _upper_half(asm, x)
    x_low = x - x_high
    square = x_high * x_high
    square_low = x_low * (x + x_high)
    square_high = _upper_half(asm, square)
    square_rest = (square - square_high) + square_low
    rounded = asm.fma(square, _GELU_CUBIC, emit_splat(asm, _GELU_LINEAR, x))
    factor_high = _upper_half(asm, rounded)
    factor_low = asm.fma(square_high, c2[0], emit_splat(asm, c1[0], x) - factor_high)
    factor_low = asm.fma(square_rest, _GELU_CUBIC, factor_low)
    factor_low = asm.fma(square_high, c2[1], factor_low) + c1[1]
    return x_high * factor_high, asm.fma(x, factor_low, x_low * factor_high)


# Phi(-t) = exp(-t^2 / 2) P(t) / (a t P(t) + R(t)), as in Mills' ratio, for 0 <= t <= 5.6 within
# 5e-8 of it, and nearly so beyond, where Phi(-t) counts for nothing beside 2^-24: least greatest
# relative error, by Lawson's iterated least squares. R(0) = 2 P(0), for Phi(0) is a half. What
# rounds t P(t) goes into both sides.
_MILLS_P = (1.0, 7.77188581507197, 25.098520771821796, 37.961150957521724)
_MILLS_R = (-0.06146975618969819, 3.0106000789898317, 15.549953711711566, 75.92230191504345)
_MILLS_SLOPE = 2.508463802357249
# exp(-t^2 / 2) is 0 there.
_GELU_HIGHEST = 13.27


def _gelu(asm: Assembler, x: Value) -> Value:
    """``x Phi(x) = max(x, 0) - t Phi(-t)``, t = |x|, Phi the normal distribution.

    An error of t^2 is a relative error of the result, so it is found in two parts. From -13.25 down
    the result is 0; it is less than 1e-38 there.
    """
    t = asm.minimum(_GELU_HIGHEST, _magnitude(asm, x))
    if asm.target.fma:
        square = t * t
        rest = asm.fma(t, t, -square)
    else:
        t_high = _upper_half(asm, t)
        square, rest = t_high * t_high, (t - t_high) * (t + t_high)
    numerator = t * emit_polynomial(asm, _MILLS_P, t)
    denominator = asm.fma(numerator, _MILLS_SLOPE, emit_polynomial(asm, _MILLS_R, t))
    tail = emit_times_exp(asm, asm.divide(numerator, denominator), square, -0.5, rest)
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


STREAMING = (None, "relu", "leaky_relu", "prelu", "clip", "hard_sigmoid", "hard_swish")
"""Activations that take an operation or two a number, and no exponential."""


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
