"""Epilogues: what is done to each sum of a convolution as it is stored.

``activation(scale * conv + bias + residual)``, or ``activation(scale * conv + bias) + residual``,
is described here once, and each kernel that stores outputs emits it. A description parts into a
*kind*, which changes the instructions, and *parameters*, the run-time numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex

from nnpack.arguments import as_number, check_one_of
from nnpack.errors import DtypeError, ProblemError
from nnpack.frozen import dataclass, field

__all__ = [
    "Activation",
    "ActivationKind",
    "AveragePool",
    "ChannelSlopes",
    "Clip",
    "Elu",
    "Epilogue",
    "EpilogueKind",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "MaxPool",
    "Mish",
    "PoolKind",
    "Pooling",
    "Prelu",
    "Relu",
    "ResidualPosition",
    "Sigmoid",
    "Silu",
    "Tanh",
    "Terms",
    "activation_arrays",
    "check_slopes",
]

ActivationKind = Literal[
    "relu",
    "leaky_relu",
    "prelu",
    "elu",
    "clip",
    "sigmoid",
    "tanh",
    "silu",
    "hard_sigmoid",
    "hard_swish",
    "gelu",
    "gelu_tanh",
    "mish",
]

PoolKind = Literal["max", "average"]

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


@dataclass(frozen=True)
class Prelu:
    """``x`` where ``x > 0``, ``slope[c] * x`` elsewhere, c the channel (He et al., 2015).

    ``slope`` is a float32 vector, one number for each output channel; it is copied. For one slope
    for all of them take ``Relu(slope)``. Kept as a tuple, so that descriptions can be compared,
    hashed and pickled; ``array`` is what programs read.

    Raises DtypeError or ProblemError when ``slope`` is no vector of float32.
    """

    slope: Any
    array: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # No other description needs NumPy.
        from nnpack.arrays import frozen_vector

        array = frozen_vector("Prelu: slope", self.slope)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "slope", tuple(array.tolist()))


@dataclass(frozen=True)
class ChannelSlopes:
    """What an epilogue knows of a `Prelu`: its slopes are an array, passed at run time."""

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "prelu"."""
        return "prelu"

    @property
    def parameters(self) -> tuple[float, ...]:
        """No numbers are passed but the array."""
        return ()


@dataclass(frozen=True)
class Sigmoid:
    """``1 / (1 + exp(-x))``."""

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "sigmoid"."""
        return "sigmoid"

    @property
    def parameters(self) -> tuple[float, ...]:
        """No numbers are passed."""
        return ()


@dataclass(frozen=True)
class Tanh:
    """``tanh(x)``."""

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "tanh"."""
        return "tanh"

    @property
    def parameters(self) -> tuple[float, ...]:
        """No numbers are passed."""
        return ()


@dataclass(frozen=True)
class Silu:
    """``x * sigmoid(x)``, also called swish (Elfwing et al., 2017)."""

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "silu"."""
        return "silu"

    @property
    def parameters(self) -> tuple[float, ...]:
        """No numbers are passed."""
        return ()


@dataclass(frozen=True)
class HardSigmoid:
    """``min(max(alpha * x + beta, 0), 1)``; ONNX's default of alpha is 0.2.

    Raises ProblemError when a number is not finite in float32, DtypeError when it is no number.
    """

    alpha: float = 1.0 / 6.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", as_number("HardSigmoid: alpha", self.alpha))
        object.__setattr__(self, "beta", as_number("HardSigmoid: beta", self.beta))

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "hard_sigmoid"."""
        return "hard_sigmoid"

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers passed at run time: ``(alpha, beta)``."""
        return (self.alpha, self.beta)


@dataclass(frozen=True)
class HardSwish:
    """``x * min(max(x + 3, 0), 6) / 6`` (Howard et al., 2019)."""

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "hard_swish"."""
        return "hard_swish"

    @property
    def parameters(self) -> tuple[float, ...]:
        """No numbers are passed."""
        return ()


@dataclass(frozen=True)
class Gelu:
    """``x * Phi(x)``, Phi the normal distribution (Hendrycks & Gimpel, 2016).

    ``approximate="tanh"``: ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))``.

    Raises ProblemError when ``approximate`` is neither "none" nor "tanh".
    """

    approximate: Literal["none", "tanh"] = "none"

    def __post_init__(self) -> None:
        check_one_of("Gelu: approximate", self.approximate, ("none", "tanh"))

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "gelu" or "gelu_tanh"."""
        return "gelu" if self.approximate == "none" else "gelu_tanh"

    @property
    def parameters(self) -> tuple[float, ...]:
        """No numbers are passed."""
        return ()


@dataclass(frozen=True)
class Mish:
    """``x * tanh(log(1 + exp(x)))`` (Misra, 2019)."""

    @property
    def kind(self) -> ActivationKind:
        """What is compiled: "mish"."""
        return "mish"

    @property
    def parameters(self) -> tuple[float, ...]:
        """No numbers are passed."""
        return ()


Activation = (
    Relu | Prelu | Elu | Clip | Sigmoid | Tanh | Silu | HardSigmoid | HardSwish | Gelu | Mish
)


@dataclass(frozen=True)
class MaxPool:
    """The greatest of 2x2 outputs, 2 apart; an odd last row or column is dropped.

    A window that holds a NaN gives NaN. Raises ProblemError for any other ``size`` than 2.
    """

    size: int = 2

    def __post_init__(self) -> None:
        _check_pool_size("MaxPool", self.size)

    @property
    def kind(self) -> PoolKind:
        """What is compiled: "max"."""
        return "max"


@dataclass(frozen=True)
class AveragePool:
    """The mean of 2x2 outputs, 2 apart; an odd last row or column is dropped.

    Raises ProblemError for any other ``size`` than 2.
    """

    size: int = 2

    def __post_init__(self) -> None:
        _check_pool_size("AveragePool", self.size)

    @property
    def kind(self) -> PoolKind:
        """What is compiled: "average"."""
        return "average"


Pooling = MaxPool | AveragePool


def _check_pool_size(name: str, size: object) -> None:
    if type(size) is not int or size != 2:
        function = "max_pool2d" if name == "MaxPool" else "avg_pool2d"
        raise ProblemError(f"{name}: size={size!r} must be 2; others are for {function}")


@dataclass(frozen=True)
class EpilogueKind:
    """What of an epilogue is compiled: its operations without their numbers."""

    scale: bool = False
    bias: bool = False
    activation: ActivationKind | None = None
    residual: ResidualPosition | None = None
    pool: PoolKind | None = None
    statistics: bool = False

    @property
    def per_channel(self) -> bool:
        """Whether the activation has a slope for each channel, the slot ``slopes``."""
        return self.activation == "prelu"

    @property
    def stores_once(self) -> bool:
        """Whether every output must be stored once: what is stored may be the residual itself.

        Without that, kernels may store an output again where tiles overlap. What is pooled is
        never where its residual is.
        """
        return self.residual is not None and self.pool is None


@dataclass(frozen=True)
class Epilogue:
    """What is applied as the results of a convolution are stored.

    ``scale`` and ``bias`` say whether there is one, a float32 vector with a number for each output
    channel; ``residual`` where an array with the shape and the strides of y is added, if one is;
    ``pool``: how what all that gives is pooled; ``statistics``: whether mean and variance of each
    channel of y are found as well, which none has with a pool. ``residual_strides`` are those of
    (n, c, h) of a residual of what is pooled, of which the pool sees a part; inside this package.

    Raises DtypeError when ``activation`` is neither an activation nor None, ``pool`` likewise, or
    ``statistics`` is no bool; ProblemError for statistics of what is pooled.
    """

    scale: bool = False
    bias: bool = False
    activation: Activation | ChannelSlopes | None = None
    residual: ResidualPosition | None = None
    pool: Pooling | None = None
    statistics: bool = False
    residual_strides: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if type(self.statistics) is not bool:
            raise DtypeError(f"statistics={self.statistics!r} must be True or False")
        if self.statistics and self.pool:
            raise ProblemError(f"statistics=True with pool={self.pool}: pool y in a later call")
        if not isinstance(self.pool, Pooling | None):
            raise DtypeError(f"pool={self.pool!r} must be MaxPool(2), AveragePool(2) or None")
        if not isinstance(self.activation, Activation | ChannelSlopes | None):
            raise DtypeError(
                f"activation={self.activation!r} must be Relu(slope), Elu(alpha), Clip(low, high), "
                "Silu() or another, an instance and not the class, or None"
            )
        if isinstance(self.activation, Prelu):
            object.__setattr__(self, "activation", ChannelSlopes())

    @property
    def kind(self) -> EpilogueKind:
        """The part that changes the instructions."""
        pool = self.pool.kind if self.pool else None
        if self.activation is None:
            residual: ResidualPosition | None = "after" if self.residual else None
            return EpilogueKind(self.scale, self.bias, None, residual, pool, self.statistics)
        assert not isinstance(self.activation, Prelu)  # whose slopes are left out above
        kind, terms = self.activation.kind, (self.scale, self.bias)
        return EpilogueKind(*terms, kind, self.residual, pool, self.statistics)

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers of the activation, passed at run time."""
        activation = self.activation
        return () if activation is None or isinstance(activation, Prelu) else activation.parameters

    def stored(self, outputs: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of y for ``outputs`` of the convolution."""
        return (outputs[0] // 2, outputs[1] // 2) if self.pool else outputs


@dataclass(frozen=True)
class Terms:
    """The shapes of what an epilogue multiplies and adds, None where there is nothing."""

    scale: Sequence[SupportsIndex] | None
    bias: Sequence[SupportsIndex] | None
    residual: Sequence[SupportsIndex] | None
    position: ResidualPosition
    statistics: bool = False

    def epilogue(
        self,
        activation: Activation | None,
        y_shape: tuple[int, ...],
        axis: int = 1,
        pool: Pooling | None = None,
    ) -> Epilogue:
        """The epilogue of y, whose channels are counted by ``axis``, of its shape before a pool.

        Raises ProblemError when a shape does not go with it.
        """
        for name, shape in (("scale", self.scale), ("bias", self.bias)):
            if shape is not None and tuple(shape) != (y_shape[axis],):
                raise ProblemError(
                    f"{name}.shape={tuple(shape)} must be ({y_shape[axis]},), "
                    "one number for each output channel"
                )
        if isinstance(activation, Prelu):
            check_slopes(activation, y_shape[axis])
        check_one_of("residual_position", self.position, ("before", "after"))
        if self.residual is not None and tuple(self.residual) != y_shape:
            raise ProblemError(
                f"residual.shape={tuple(self.residual)} must be {y_shape}, what it is added to"
            )
        position = None if self.residual is None else self.position
        if pool is not None and min(y_shape[2:]) == 1:
            raise ProblemError(
                f"pool={pool} needs at least 2x2 outputs, got {y_shape[2]}x{y_shape[3]}; pad more"
            )
        terms = self.scale is not None, self.bias is not None
        return Epilogue(*terms, activation, position, pool, self.statistics)


def check_slopes(activation: Prelu, channels: int) -> None:
    """Raise ProblemError unless there is a slope for each of ``channels``."""
    if len(activation.slope) != channels:
        raise ProblemError(
            f"Prelu: slope.shape=({len(activation.slope)},) must be ({channels},), one number for "
            "each output channel; for one slope for all take Relu(slope)"
        )


def activation_arrays(activation: object) -> dict[str, Any]:
    """The arrays that an activation has programs read, by slot."""
    return {"slopes": activation.array} if isinstance(activation, Prelu) else {}
