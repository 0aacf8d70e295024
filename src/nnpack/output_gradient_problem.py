"""Problems of gradients behind an activation, validated here, once, and frozen."""

from __future__ import annotations

from collections.abc import Sequence

from nnpack.epilogue import Clip, Elu, Relu, Sigmoid, Tanh
from nnpack.errors import DtypeError, ProblemError
from nnpack.frozen import dataclass
from nnpack.geometry import Pair, Shape

__all__ = ["OutputGradientProblem", "check_activation"]


TellingActivation = Relu | Elu | Clip | Sigmoid | Tanh
"""Activations whose derivative can be told from their output."""


@dataclass(frozen=True, kw_only=True)
class OutputGradientProblem:
    """``masked = grad * act'(output)`` of ``shape`` (N, O, H, W), and its sum by channel.

    Strides are those of (n, k), in elements; planes are dense. ``masked`` and ``sums`` say what is
    wanted; with ``accumulate`` the sums are added to what their array holds.
    """

    shape: Shape
    activation: TellingActivation | None
    grad_strides: Pair
    output_strides: Pair
    masked: bool
    sums: bool
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
            f"activation={activation!r} must be Relu, Elu, Clip, Sigmoid or Tanh, an instance; "
            "behind others, multiply grad_output by the derivative"
        )
    if output_shape is None:
        raise ProblemError(f"activation={activation!r} needs output=, what it gave")
    if (isinstance(activation, Relu) and activation.slope < 0) or (
        isinstance(activation, Elu) and activation.alpha < 0
    ):
        raise ProblemError(
            f"activation={activation!r} falls on one side: its output does not tell its input; "
            "multiply grad_output by the derivative"
        )
    return activation
