"""One description of an operator: known to PyTorch's dispatcher, and called without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from nnpack.integrations.torch.eligibility import is_direct, records_gradients

__all__ = ["Derivative", "Operator", "quick_apply"]

_LIBRARY = torch.library.Library("nnpack", "DEF")


class Derivative(NamedTuple):
    """What autograd has to know of an operator whose tensors come before all other arguments.

    ``save(ctx, tensors, call, output)`` keeps what ``backward(ctx, *grads)`` reads; the latter
    returns one gradient, or None, for each tensor. ``call`` holds the other arguments.
    ``direct(*tensors, call)`` computes the same of tensors that need no check any more. Without
    it the operator cannot be `run`. ``inference``, where there is one, is the same operator for
    compiled graphs that record no gradient of it, and keeps what it makes of parameters.
    """

    save: Callable[[Any, Sequence[Any], Sequence[Any], Any], None]
    backward: Callable[..., tuple[Any, ...]]
    direct: Callable[..., Any] | None = None
    inference: Operator | None = None


class Operator:
    """``compute`` as the operator ``nnpack::name`` of ``schema``, with ``derivative``.

    ``fake`` makes the empty result for tensors without data. Tracers, `torch.compile` among them,
    meet the registered operator. A direct call goes through neither the dispatcher (7 us) nor its
    autograd wrapper (another 20 to 30), but straight to what computes, through an autograd function
    (6 us) of the same two halves where a gradient is wanted.
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
        self.registered = getattr(torch.ops.nnpack, name).default
        self._compute, self._inference = compute, self.registered
        if derivative is not None:
            _register(name, schema.partition("->")[0].count("Tensor"), derivative)
            if derivative.inference is not None:
                self._inference = derivative.inference.registered
            if derivative.direct is not None:
                self._direct = derivative.direct
                self._apply = quick_apply(_function(name, derivative.direct, derivative))

    def __call__(self, *arguments: Any) -> Any:
        """The results, of which no gradient is recorded unless a tracer does.

        ``arguments`` are given by position, all of them.
        """
        if torch.compiler.is_compiling() or not is_direct():
            return self.registered(*arguments)
        return self._compute(*arguments)

    def run(self, tensors: tuple[Any, ...], call: tuple[Any, ...]) -> Any:
        """The results, differentiable, for tensors that are checked; calls must be usable.

        See `eligibility.is_usable`, and `Derivative` for both arguments.
        """
        records = records_gradients(*tensors)
        if torch.compiler.is_compiling():
            return (self.registered if records else self._inference)(*tensors, *call)
        if records:
            return self._apply(*tensors, call)
        return self._direct(*tensors, call)


def _register(name: str, tensors: int, derivative: Derivative) -> None:
    """Tell the dispatcher's autograd wrapper, which has no tuples of arguments."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        derivative.save(ctx, inputs[:tensors], inputs[tensors:], output)
        ctx.others = (None,) * (len(inputs) - tensors)

    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return *derivative.backward(ctx, *grads), *ctx.others

    torch.library.register_autograd(
        f"nnpack::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )


def quick_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` for where no transform of functions is active, in 6 us instead of 9.

    `Function.apply` looks for such transforms, and strips tensors that left one of its wrapper;
    those cannot be read as arrays and are not `is_plain`.
    """
    apply: Callable[..., Any] = super(torch.autograd.Function, function).apply
    return apply


def _function(name: str, direct: Callable[..., Any], derivative: Derivative) -> Any:
    """The autograd function of direct calls; its forward in one piece, which is the faster form."""
    save, differentiate = derivative.save, derivative.backward

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = direct(*inputs)
        save(ctx, inputs[:-1], inputs[-1], output)
        return output

    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return *differentiate(ctx, *grads), None

    body = {
        "forward": staticmethod(forward),
        "backward": staticmethod(backward),
        "__doc__": f"nnpack::{name}, differentiable.",
    }
    return type(f"nnpack_{name}", (torch.autograd.Function,), body)
