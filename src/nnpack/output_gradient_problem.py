"""Problems of gradients behind an activation, validated here, once, and frozen."""

from __future__ import annotations

from collections.abc import Sequence

from nnpack.epilogue import ChannelSlopes, Clip, Elu, Prelu, Relu, Sigmoid, Tanh, check_slopes
from nnpack.errors import DtypeError, ProblemError
from nnpack.frozen import dataclass
from nnpack.geometry import Pair, Shape

__all__ = ["OutputGradientProblem", "SingleActivation", "TellingActivation", "check_activation"]


SingleActivation = Relu | Elu | Clip | Sigmoid | Tanh
TellingActivation = SingleActivation | Prelu
"""Activations whose derivative can be told from their output; those that are one for all."""


@dataclass(frozen=True, kw_only=True)
class OutputGradientProblem:
    """``masked = grad * act'(output)`` of ``shape`` (N, O, H, W), and its sum by channel.

    Strides are those of (n, k), in elements; planes are dense. ``masked``, ``sums`` and ``falls``,
    the sums of ``grad * min(output, 0)``, say what is wanted; with ``accumulate`` the sums are
    added to what their arrays hold. The slopes of a `Prelu` are an array, passed at run time.
    """

    shape: Shape
    activation: SingleActivation | ChannelSlopes | None
    grad_strides: Pair
    output_strides: Pair
    masked: bool
    sums: bool
    falls: bool = False
    accumulate: bool = False


def check_activation(
    activation: object, output_shape: Sequence[int] | None
) -> TellingActivation | None:
    """``activation`` if its derivative can be told from its output, which is given with it.

    Raises DtypeError when it is no activation, ProblemError when there is no output or when the
    activation takes different numbers to the same.
    """
    if activation is None:
        if output_shape is not None:
            raise ProblemError("output= needs activation=, whose output it is")
        return None
    if not isinstance(activation, TellingActivation):
        raise DtypeError(
            f"activation={activation!r} must be Relu, Prelu, Elu, Clip, Sigmoid or Tanh, an "
            "instance; behind others, take activation_gradient of the sums"
        )
    if output_shape is None:
        raise ProblemError(f"activation={activation!r} needs output=, what it gave")
    if isinstance(activation, Prelu) and len(output_shape) > 1:
        check_slopes(activation, output_shape[1])
    if not all(number >= 0 for number in _slopes(activation)):
        raise ProblemError(
            f"activation={activation!r} falls on one side: its output does not tell its input; "
            "take activation_gradient or prelu_gradient of the sums"
        )
    return activation


def _slopes(activation: TellingActivation) -> Sequence[float]:
    """What the activation multiplies numbers below zero by, or their exponential."""
    match activation:
        case Relu(slope=slope):
            return (slope,)
        case Elu(alpha=alpha):
            return (alpha,)
        case Prelu(slope=slopes):
            return tuple(slopes)
        case _:
            return ()
