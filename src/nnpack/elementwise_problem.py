"""Problems of element-wise functions, stated by what is applied to each number."""

from __future__ import annotations

from nnpack.epilogue import Activation, Epilogue
from nnpack.frozen import dataclass

__all__ = ["ActivationGradientProblem", "ElementwiseProblem"]


@dataclass(frozen=True)
class ElementwiseProblem:
    """``y = epilogue(x)`` for ``count`` numbers of dense arrays; a residual is a second operand.

    The numbers stand in rows of ``width``, row r of channel ``r % channels``. With ``product`` x is
    multiplied by a second operand before the epilogue.
    """

    count: int
    epilogue: Epilogue
    channels: int = 1
    width: int = 0
    product: bool = False


@dataclass(frozen=True)
class ActivationGradientProblem:
    """``y = grad * f'(x)`` for ``count`` numbers of dense arrays; f is no `Prelu`."""

    activation: Activation
    count: int
