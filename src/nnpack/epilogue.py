"""Epilogues: what is done to each sum of a convolution as it is stored.

``activation(scale * conv + bias + residual)``, or ``activation(scale * conv + bias) + residual``,
is described here once, and each kernel that stores outputs emits it. A description parts into a
*kind*, which changes the instructions, and *parameters*, the run-time numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, SupportsIndex

from nnpack.arguments import as_number
from nnpack.errors import DtypeError, ProblemError
from nnpack.frozen import dataclass

__all__ = [
    "Activation",
    "ActivationKind",
    "Clip",
    "Elu",
    "Epilogue",
    "EpilogueKind",
    "Relu",
    "ResidualPosition",
    "Terms",
]

ActivationKind = Literal["relu", "leaky_relu", "elu", "clip"]

ResidualPosition = Literal["before", "after"]
"""Where a residual is added: before the activation (ResNet), or after it."""


@dataclass(frozen=True)
class Relu:
    """``x`` where ``x > 0``, ``slope * x`` elsewhere.

    Raises ProblemError when ``slope`` is not finite in float32, DtypeError when it is no number.
    """

    slope: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", as_number("Relu: slope", self.slope))

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "relu" without a slope, "leaky_relu" with one."""
        return "leaky_relu" if self.slope else "relu"

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers passed at run time: ``(slope,)`` when there is one."""
        return (self.slope,) if self.slope else ()


@dataclass(frozen=True)
class Elu:
    """``x`` where ``x > 0``, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al., 2015).

    Raises ProblemError when ``alpha`` is not finite in float32, DtypeError when it is no number.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", as_number("Elu: alpha", self.alpha))

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "elu"."""
        return "elu"

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers passed at run time: ``(alpha,)``."""
        return (self.alpha,)


@dataclass(frozen=True)
class Clip:
    """``min(max(x, low), high)``; either bound may be infinite.

    Raises ProblemError when a bound is NaN or finite beyond float32, or ``low > high``; DtypeError
    when one is no number.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", as_number("Clip: low", self.low, infinite=True))
        object.__setattr__(self, "high", as_number("Clip: high", self.high, infinite=True))
        if self.low > self.high:
            raise ProblemError(
                f"Clip: low={self.low} must not be above high={self.high}; swap them"
            )

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "clip"."""
        return "clip"

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers passed at run time: ``(low, high)``."""
        return (self.low, self.high)


Activation = Relu | Elu | Clip


@dataclass(frozen=True)
class EpilogueKind:
    """What of an epilogue is compiled: its operations without their numbers."""

    scale: bool = False
    bias: bool = False
    activation: ActivationKind | None = None
    residual: ResidualPosition | None = None

    @property
    def stores_once(self) -> bool:
        """Whether every output must be stored once: what is stored may be the residual itself.

        Without that, kernels may store an output again where tiles overlap.
        """
        return self.residual is not None


@dataclass(frozen=True)
class Epilogue:
    """What is applied as the results of a convolution are stored.

    ``scale`` and ``bias`` say whether there is one, a float32 vector with a number for each output
    channel; ``residual`` where an array with the shape and the strides of y is added, if one is.

    Raises DtypeError when ``activation`` is neither an activation nor None.
    """

    scale: bool = False
    bias: bool = False
    activation: Activation | None = None
    residual: ResidualPosition | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.activation, Activation | None):
            raise DtypeError(
                f"activation={self.activation!r} must be Relu(slope), Elu(alpha), Clip(low, high), "
                "an instance and not the class, or None"
            )

    @property
    def kind(self) -> EpilogueKind:
        """The part that changes the instructions."""
        if self.activation is None:
            residual: ResidualPosition | None = "after" if self.residual else None
            return EpilogueKind(self.scale, self.bias, None, residual)
        return EpilogueKind(self.scale, self.bias, self.activation.kind, self.residual)

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers of the activation, passed at run time."""
        return self.activation.parameters if self.activation else ()


@dataclass(frozen=True)
class Terms:
    """The shapes of what an epilogue multiplies and adds, None where there is nothing."""

    scale: Sequence[SupportsIndex] | None
    bias: Sequence[SupportsIndex] | None
    residual: Sequence[SupportsIndex] | None
    position: ResidualPosition

    def epilogue(
        self, activation: Activation | None, y_shape: tuple[int, ...], axis: int = 1
    ) -> Epilogue:
        """The epilogue of y, whose channels are counted by ``axis``.

        Raises ProblemError when a shape does not go with it.
        """
        for name, shape in (("scale", self.scale), ("bias", self.bias)):
            if shape is not None and tuple(shape) != (y_shape[axis],):
                raise ProblemError(
                    f"{name}.shape={tuple(shape)} must be ({y_shape[axis]},), "
                    "one number for each output channel"
                )
        if self.position not in ("before", "after"):
            raise ProblemError(f'residual_position={self.position!r} must be "before" or "after"')
        if self.residual is not None and tuple(self.residual) != y_shape:
            raise ProblemError(
                f"residual.shape={tuple(self.residual)} must be {y_shape}, what it is added to"
            )
        position = None if self.residual is None else self.position
        return Epilogue(self.scale is not None, self.bias is not None, activation, position)
