"""Sequences of modules in which batch normalisation and the activation behind it are one step."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from nnpack.integrations.torch.activation_modules import function_of
from nnpack.integrations.torch.activations import Function
from nnpack.integrations.torch.modules import BatchNorm2d
from nnpack.integrations.torch.named import Named

__all__ = ["Sequential", "merges", "merging"]


class Sequential(Named, torch.nn.Sequential, leaf=False):
    """`torch.nn.Sequential` that trains a batch normalisation and an activation in one pass.

    The numbers between the two are never in memory, neither forward nor backward. They are wanted
    where either has hooks or is compiled by itself; then, and in everything but training by the
    library, modules are called one by one.
    """

    def forward(self, x: Any) -> Any:
        """As `torch.nn.Sequential`."""
        if type(x) is not Tensor or torch.compiler.is_compiling():
            return super().forward(x)
        modules = list(self._modules.values())
        place = 0
        while place < len(modules):
            module: Any = modules[place]
            behind = modules[place + 1] if place + 1 < len(modules) else None
            function = _merged(module, behind)
            if function is not None:
                x = module.forward_through(x, behind, function)
                place += 2
            else:
                x = module(x)
                place += 1
        return x


def _merged(module: Any, behind: torch.nn.Module | None) -> Function | None:
    """The function of ``behind`` that ``module`` computes along, if nobody looks between."""
    if type(module) is not BatchNorm2d or not module.training or behind is None:
        return None
    function = function_of(behind)
    if function is None or torch_module._has_any_global_hook():
        return None
    return None if _is_watched(module) or _is_watched(behind) else function


def _is_watched(module: torch.nn.Module) -> bool:
    """Whether a call of ``module`` is more than its ``forward``."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or module._compiled_call_impl is not None
        or "forward" in module.__dict__
    )


def merges(sequence: torch.nn.Sequential) -> bool:
    """Whether there is something to merge."""
    modules = list(sequence)
    pairs = itertools.pairwise(modules)
    return any(type(a) is BatchNorm2d and function_of(b) is not None for a, b in pairs)


def merging(sequence: Any) -> type | None:
    """The class of ``sequence`` that merges, None where it does something else than a sequence.

    `Sequential`, or a subclass of a subclass of PyTorch's that inherits ``forward``.
    """
    if sequence is torch.nn.Sequential:
        return Sequential
    is_plain = issubclass(sequence, torch.nn.Sequential) and (
        sequence.forward is torch.nn.Sequential.forward
    )
    return _subclass(sequence) if is_plain else None


@functools.cache
def _subclass(sequence: type) -> type:
    """A subclass under the same name, which is made anew where an instance is unpickled."""

    def reduce(self: Any, _protocol: object) -> tuple[Any, ...]:
        return _make, (sequence,), object.__reduce_ex__(self, 2)[2]  # or its own __getstate__

    body = {"__reduce_ex__": reduce, "__module__": sequence.__module__, "__doc__": sequence.__doc__}
    return type(sequence.__name__, (Sequential, sequence), body)


def _make(sequence: type) -> Any:
    """An instance without content."""
    made: Any = _subclass(sequence)
    return made.__new__(made)
