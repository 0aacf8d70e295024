"""One description of an operator: known to PyTorch's dispatcher, and called without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from nnpack.integrations.torch.eligibility import is_direct, records_gradients

__all__ = ["Derivative", "Operator"]

_LIBRARY = torch.library.Library("nnpack", "DEF")


class Derivative(NamedTuple):
    """What autograd has to know: two functions in the form of `torch.library.register_autograd`.

    ``setup_context(ctx, inputs, output)`` saves what ``backward(ctx, *grads)`` reads; the latter
    returns one gradient, or None, for each input.
    """

    setup_context: Callable[[Any, tuple[Any, ...], Any], None]
    backward: Callable[..., tuple[Any, ...]]


class Operator:
    """``compute`` as the operator ``nnpack::name`` of ``schema``, with ``derivative``.

    ``fake`` makes the empty result for tensors without data. Tracers, `torch.compile` among them,
    meet the registered operator. A direct call goes through neither the dispatcher (7 us) nor its
    autograd wrapper (another 20 to 30), but through an autograd function (6 us) of the same two
    halves where a gradient is wanted, and straight to ``compute`` where none is.
    """

    def __init__(
        self,
        schema: str,
        compute: Callable[..., Any],
        fake: Callable[..., Any],
        derivative: Derivative | None = None,
    ) -> None:
        name = schema.partition("(")[0]
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")
        torch.library.register_fake(f"nnpack::{name}", fake, lib=_LIBRARY)
        if derivative is not None:
            torch.library.register_autograd(
                f"nnpack::{name}",
                derivative.backward,
                setup_context=derivative.setup_context,
                lib=_LIBRARY,
            )
        self.registered = getattr(torch.ops.nnpack, name).default
        self.compute = compute
        self._apply = None if derivative is None else _function(name, compute, derivative).apply

    def __call__(self, *arguments: Any) -> Any:
        """The operator's results; ``arguments`` are given by position, all of them."""
        if torch.compiler.is_compiling() or not is_direct():
            return self.registered(*arguments)
        tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
        if self._apply is not None and records_gradients(*tensors):
            return self._apply(*arguments)
        return self.compute(*arguments)


def _function(name: str, compute: Callable[..., Any], derivative: Derivative) -> Any:
    """The autograd function of ``compute``; its forward in one piece, which is the faster form."""

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = compute(*inputs)
        derivative.setup_context(ctx, inputs, output)
        return output

    body = {
        "forward": staticmethod(forward),
        "backward": staticmethod(derivative.backward),
        "__doc__": f"nnpack::{name}, differentiable.",
    }
    return type(f"nnpack_{name}", (torch.autograd.Function,), body)
