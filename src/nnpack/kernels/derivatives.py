"""Gradients behind activations, ``grad * f'(x)``: one row each of `GRADIENTS`, which are told from
the input x, and of `OUTPUT_GRADIENTS`, told from the output f(x), where that is possible.

Within 1e-6 of ``max(1, |f'(x)|)`` times grad, for every x. Where there is a corner, the derivative
is that of the constant side, as PyTorch has it, and a NaN lets the gradient through; elsewhere a
NaN stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.activations import ACTIVATIONS
from nnpack.kernels.exponential import emit_exp
from nnpack.kernels.stage import emit_stage
from nnpack.kernels.vectors import emit_vectors
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class ActivationGradient:
    """The stage ``y = grad * act'(x)`` of ``count`` numbers; a task is a ``block`` of them."""

    activation: ActivationKind

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        pointers = dict.fromkeys(("x", "grad", "y"), "pointer")
        numbers = dict.fromkeys(ACTIVATIONS[self.activation].parameters, "float")
        return {**pointers, "count": "index", "block": "index", **numbers}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        gradient = GRADIENTS[self.activation]
        names = ACTIVATIONS[self.activation].parameters
        with emit_stage(asm, self.fields) as (args, first, last, _):
            numbers = [asm.splat(args[name]) for name in names]
            begin = first * args["block"]
            count = asm.minimum(last * args["block"], args["count"]) - begin
            x, grad, y = (args[name] + begin for name in ("x", "grad", "y"))

            def write(offset: Value, mask: Mask, _: int) -> None:
                value, at = asm.load(grad, offset, mask=mask), asm.load(x, offset, mask=mask)
                asm.store(gradient(asm, value, at, *numbers), y, offset, mask=mask)

            emit_vectors(asm, count, write, unroll=2)


def _relu(asm: Assembler, grad: Value, x: Value) -> Value:
    return asm.select(x <= 0.0, 0.0, grad)


def _leaky_relu(asm: Assembler, grad: Value, x: Value, slope: Value) -> Value:
    return asm.select(x <= 0.0, grad * slope, grad)


def _clip(asm: Assembler, grad: Value, x: Value, low: Value, high: Value) -> Value:
    return asm.select((x <= low) | (x >= high), 0.0, grad)


def _hard_sigmoid(asm: Assembler, grad: Value, x: Value, alpha: Value, beta: Value) -> Value:
    inner = asm.fma(alpha, x, beta)
    return asm.select((inner <= 0.0) | (inner >= 1.0), 0.0, grad * alpha)


def _elu_of_output(asm: Assembler, grad: Value, y: Value, alpha: Value) -> Value:
    """``alpha exp(x) = y + alpha`` left of zero."""
    return asm.select(y <= 0.0, grad * (y + alpha), grad)


def _sigmoid_of_output(_: Assembler, grad: Value, y: Value) -> Value:
    return grad * (y * (1.0 - y))


def _tanh_of_output(_: Assembler, grad: Value, y: Value) -> Value:
    return grad * (1.0 - y * y)


def _elu(asm: Assembler, x: Value, alpha: Value) -> Value:
    return asm.select(x > 0.0, asm.splat(1.0), alpha * emit_exp(asm, asm.minimum(0.0, x)))


def _sigmoid(asm: Assembler, x: Value) -> Value:
    """``s (1 - s) = e / (1 + e)^2``, e = exp(-|x|)."""
    e = emit_exp(asm, -_magnitude(asm, x))
    return asm.divide(e, (e + 1.0) * (e + 1.0))


def _tanh(asm: Assembler, x: Value) -> Value:
    """``1 - tanh^2 = 4 e / (1 + e)^2``, e = exp(-2 |x|)."""
    return _sigmoid(asm, x + x) * 4.0


def _silu(asm: Assembler, x: Value) -> Value:
    """``s + x s (1 - s)``."""
    return asm.fma(_bounded(asm, x, 100.0), _sigmoid(asm, x), _logistic(asm, x))


def _hard_swish(asm: Assembler, x: Value) -> Value:
    middle = asm.fma(x, 1.0 / 3.0, asm.splat(0.5))
    return asm.select(x <= -3.0, asm.zeros(), asm.select(x >= 3.0, asm.splat(1.0), middle))


# erfc(z) = k (a1 + k (a2 + ...)) exp(-z^2), k = 1 / (1 + p z), within 1.5e-7 (Abramowitz & Stegun,
# 1964, formula 7.1.26).
_ERFC = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ERFC_P = 0.3275911


def _gelu(asm: Assembler, x: Value) -> Value:
    """``Phi(x) + x phi(x)``, of the normal distribution and its density."""
    bounded = _bounded(asm, x, 20.0)
    weight = emit_exp(asm, bounded * bounded * -0.5)
    scaled = asm.fma(_magnitude(asm, bounded), _ERFC_P / math.sqrt(2.0), asm.splat(1.0))
    k = asm.divide(asm.splat(1.0), scaled)
    series = asm.splat(_ERFC[0])
    for coefficient in _ERFC[1:]:
        series = asm.fma(series, k, asm.splat(coefficient))
    tail = series * k * weight * 0.5
    distribution = asm.select(bounded < 0.0, tail, asm.splat(1.0) - tail)
    return asm.fma(bounded * weight, 1.0 / math.sqrt(2.0 * math.pi), distribution)


def _gelu_tanh(asm: Assembler, x: Value) -> Value:
    """``s + x s (1 - s) a'``, s the logistic function of ``a = 2 c (x + 0.044715 x^3)``."""
    c = 2.0 * math.sqrt(2.0 / math.pi)
    bounded = _bounded(asm, x, 20.0)
    square = bounded * bounded
    a = bounded * asm.fma(square, 0.044715 * c, asm.splat(c))
    slope = asm.fma(square, 3.0 * 0.044715 * c, asm.splat(c))
    return asm.fma(bounded * slope, _sigmoid(asm, a), _logistic(asm, a))


def _mish(asm: Assembler, x: Value) -> Value:
    """``w / (w + 2) + 4 x e (e + 1) / (w + 2)^2``, e = exp(x), w = e^2 + 2 e.

    Right of zero, numerators and denominators are multiplied by powers of m = exp(-x).
    """
    bounded = _bounded(asm, x, 100.0)
    m = emit_exp(asm, -_magnitude(asm, bounded))
    left, square = bounded < 0.0, m * m
    whole = asm.select(left, square + m * 2.0 + 2.0, square * 2.0 + m * 2.0 + 1.0)
    first = asm.select(left, square + m * 2.0, m * 2.0 + 1.0)
    second = (m + 1.0) * asm.select(left, m, square)
    inverse = asm.divide(asm.splat(1.0), whole)
    return asm.fma(bounded * 4.0, second * inverse * inverse, first * inverse)


def _logistic(asm: Assembler, x: Value) -> Value:
    e = emit_exp(asm, -_magnitude(asm, x))
    return asm.divide(asm.select(x < 0.0, e, asm.splat(1.0)), e + 1.0)


def _magnitude(asm: Assembler, x: Value) -> Value:
    return asm.maximum(-x, x)


def _bounded(asm: Assembler, x: Value, bound: float) -> Value:
    """X where products with what vanishes beyond ``bound`` are finite."""
    return asm.minimum(bound, asm.maximum(-bound, x))


_Gradient = Callable[..., "Value"]
"""``emit(asm, grad, x or f(x), *numbers)``; the slope of a channel is the number of a "prelu"."""


def _times(derivative: Callable[..., Value]) -> _Gradient:
    """The gradient behind a smooth function, whose derivative has a formula."""

    def emit(asm: Assembler, grad: Value, x: Value, *numbers: Value) -> Value:
        slope = derivative(asm, x, *numbers)
        # An infinite gradient must not turn a constant side into NaN.
        return asm.select(slope.equals(0.0), 0.0, grad * slope)

    return emit


KINKED: Mapping[str, _Gradient] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "prelu": _leaky_relu,
    "clip": _clip,
}
"""Functions that keep on which side of their corners their input was, if no slope is negative."""

GRADIENTS: Mapping[str, _Gradient] = {
    **KINKED,
    "elu": _times(_elu),
    "sigmoid": _times(_sigmoid),
    "tanh": _times(_tanh),
    "silu": _times(_silu),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _times(_hard_swish),
    "gelu": _times(_gelu),
    "gelu_tanh": _times(_gelu_tanh),
    "mish": _times(_mish),
}
OUTPUT_GRADIENTS: Mapping[str, _Gradient] = {
    **KINKED,
    "elu": _elu_of_output,
    "sigmoid": _sigmoid_of_output,
    "tanh": _tanh_of_output,
}
