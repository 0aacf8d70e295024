"""Batch normalisations as values: extents, and what there is of parameters."""

from __future__ import annotations

import functools
import math

from nnpack.arguments import as_number
from nnpack.epilogue import Activation, ChannelSlopes, Epilogue, Prelu, check_slopes
from nnpack.errors import ProblemError
from nnpack.frozen import dataclass

__all__ = [
    "BatchNormGradientProblem",
    "BatchNormProblem",
    "normalized_extents",
]

_MAX_ELEMENTS = 2**45


@dataclass(frozen=True)
class BatchNormProblem:
    """``activation(gamma * (x - mean) / sqrt(variance + eps) + beta)``, (batch, channels, pixels).

    ``gamma`` and ``beta`` say whether there is one. ``training``: mean and variance are those of x;
    ``running``: and those of former batches are moved towards them.
    Raises ProblemError for an ``eps`` that is negative, DtypeError for a wrong activation.
    """

    batch: int
    channels: int
    pixels: int
    gamma: bool
    beta: bool
    eps: float
    activation: Activation | ChannelSlopes | None = None
    training: bool = False
    running: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", as_number("eps", self.eps))
        if self.eps < 0:
            raise ProblemError(f"eps={self.eps} must be at least 0")
        if self.training and self.batch * self.pixels < 2:
            raise ProblemError(
                f"training needs 2 numbers a channel or more, got {self.batch * self.pixels}: "
                "a single one has no variance; use training=False"
            )
        _ = self.epilogue
        if isinstance(self.activation, Prelu):
            check_slopes(self.activation, self.channels)
            # Slopes are an array that is passed: the same is done for any.
            object.__setattr__(self, "activation", ChannelSlopes())

    @property
    def epilogue(self) -> Epilogue:
        """What is done to ``x - mean`` as it is stored, the scale being gamma / deviation."""
        return Epilogue(scale=True, bias=self.beta, activation=self.activation)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return self.batch * self.channels * self.pixels == 0


@dataclass(frozen=True)
class BatchNormGradientProblem:
    """The gradients of a batch normalisation; ``training`` as in the forward.

    ``beta`` says whether there is one behind which the ``activation`` is; it is False without.
    Raises ProblemError for a `Prelu`, DtypeError for what is no activation.
    """

    batch: int
    channels: int
    pixels: int
    gamma: bool
    training: bool
    beta: bool = False
    activation: Activation | None = None

    def __post_init__(self) -> None:
        Epilogue(activation=self.activation)  # which refuses what is no activation
        if isinstance(self.activation, Prelu):
            raise ProblemError(
                "activation=Prelu has slopes, which have gradients too: take prelu_gradient of "
                "the normalised numbers"
            )
        if self.activation is None:
            object.__setattr__(self, "beta", False)

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers of the activation."""
        return Epilogue(activation=self.activation).parameters


@functools.lru_cache(maxsize=256)
def normalized_extents(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(batch, channels, pixels) of an array (N, C, ...). Raises ProblemError for other shapes."""
    if len(shape) < 2 or min(shape[1:]) < 1:
        raise ProblemError(
            f"{name}.shape={shape} must be (N, C), (N, C, L) or (N, C, H, W); only N may be 0"
        )
    if math.prod(shape) >= _MAX_ELEMENTS:
        raise ProblemError(f"{name}.shape={shape} must have less than {_MAX_ELEMENTS} floats")
    return shape[0], shape[1], math.prod(shape[2:])
