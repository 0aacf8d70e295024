"""Modules that tell what computes them, and are leaves where graphs are traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

__all__ = ["Named"]


class Named(torch.nn.Module):
    """A module whose representation tells what computes it.

    `torch.fx.symbolic_trace` sees a call of a subclass as one node, as of PyTorch's own layers,
    unless the class is no ``leaf``. The first argument is called ``input``, as theirs is.
    """

    def __init_subclass__(cls, leaf: bool = True, **words: Any) -> None:
        super().__init_subclass__(**words)
        forward = cls.__dict__.get("forward")
        if leaf and forward is not None:
            cls.forward = _traceable(forward, cls.__name__)

    def _get_name(self) -> str:
        return f"nnpack.{type(self).__name__}"


def _traceable(forward: Callable[..., Any], owner: str) -> Callable[..., Any]:
    """``forward``, but of a symbol the node of a call; the module that is traced has no node."""

    def traceable(self: torch.nn.Module, input: Any, *more: Any, **words: Any) -> Any:  # noqa: A002
        if type(input) is not Tensor and isinstance(input, Proxy):
            tracer: Any = input.tracer
            if tracer.root is not self:
                place = tracer.path_of_module(self)
                return tracer.create_proxy("call_module", place, (input, *more), words)
        return forward(self, input, *more, **words)

    # torch.compile allows a code object so many compilations: each class has its own.
    traceable.__code__ = traceable.__code__.replace(co_name=f"{owner}_forward")
    return functools.wraps(forward)(traceable)
