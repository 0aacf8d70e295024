"""The activations that `convert` puts in place of PyTorch's: the same, by `activations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nnpack.errors import NnpackError
from nnpack.integrations.torch import activations
from nnpack.integrations.torch.activations import Function, activate
from nnpack.integrations.torch.named import Named

__all__ = ["ELU", "GELU", "Hardswish", "Hardtanh", "LeakyReLU", "ReLU", "ReLU6", "SiLU"]


class ReLU(Named, torch.nn.ReLU):
    """`torch.nn.ReLU`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.ReLU`."""
        y: Tensor | None = activate(x, activations.relu, inplace=self.inplace)
        return super().forward(x) if y is None else y


class Hardtanh(Named, torch.nn.Hardtanh):
    """`torch.nn.Hardtanh`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.Hardtanh`."""
        bounds = self.min_val, self.max_val
        y: Tensor | None = activate(x, activations.clip, *bounds, inplace=self.inplace)
        return super().forward(x) if y is None else y


class ReLU6(Named, torch.nn.ReLU6):
    """`torch.nn.ReLU6`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.ReLU6`."""
        y: Tensor | None = activate(x, activations.clip, 0.0, 6.0, inplace=self.inplace)
        return super().forward(x) if y is None else y


class LeakyReLU(Named, torch.nn.LeakyReLU):
    """`torch.nn.LeakyReLU`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.LeakyReLU`."""
        slope = self.negative_slope
        y: Tensor | None = activate(x, activations.leaky_relu, slope, inplace=self.inplace)
        return super().forward(x) if y is None else y


class ELU(Named, torch.nn.ELU):
    """`torch.nn.ELU`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.ELU`."""
        y: Tensor | None = activate(x, activations.elu, self.alpha, inplace=self.inplace)
        return super().forward(x) if y is None else y


class SiLU(Named, torch.nn.SiLU):
    """`torch.nn.SiLU`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.SiLU`."""
        y: Tensor | None = activate(x, activations.silu, inplace=self.inplace)
        return super().forward(x) if y is None else y


class Hardswish(Named, torch.nn.Hardswish):
    """`torch.nn.Hardswish`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.Hardswish`."""
        y: Tensor | None = activate(x, activations.hard_swish, inplace=self.inplace)
        return super().forward(x) if y is None else y


class GELU(Named, torch.nn.GELU):
    """`torch.nn.GELU`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.GELU`."""
        y: Tensor | None = activate(x, activations.gelu, self.approximate)
        return super().forward(x) if y is None else y


_FUNCTIONS: dict[type, Callable[[Any], Function]] = {
    ReLU: lambda _: activations.relu(),
    Hardtanh: lambda module: activations.clip(module.min_val, module.max_val),
    ReLU6: lambda _: activations.clip(0.0, 6.0),
    LeakyReLU: lambda module: activations.leaky_relu(module.negative_slope),
    ELU: lambda module: activations.elu(module.alpha),
    SiLU: lambda _: activations.silu(),
    Hardswish: lambda _: activations.hard_swish(),
    GELU: lambda module: activations.gelu(module.approximate),
}


def function_of(module: torch.nn.Module) -> Function | None:
    """What ``module`` computes of each number, if it is one of these and the library has that."""
    make = _FUNCTIONS.get(type(module))
    try:
        return None if make is None else make(module)
    except NnpackError:  # what we refuse, PyTorch may allow, or else reports
        return None
