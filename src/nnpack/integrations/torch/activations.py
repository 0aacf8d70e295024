"""Activations of large tensors, in place where PyTorch's are; smaller ones are PyTorch's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import nnpack
from nnpack.epilogue import Activation
from nnpack.errors import NnpackError
from nnpack.integrations.torch.eligibility import (
    is_direct,
    is_higher_order,
    is_plain,
    is_usable,
    records_gradients,
)
from nnpack.integrations.torch.exchange import as_array, as_tensor
from nnpack.integrations.torch.operator import quick_apply
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, num_threads, take_threads

__all__ = [
    "Function",
    "activate",
    "clip",
    "elu",
    "gelu",
    "hard_swish",
    "in_place",
    "leaky_relu",
    "relu",
    "silu",
]

_LEAST_RECORDED = 1 << 18
_LEAST_PARALLEL = 1 << 15
_LEAST = 1 << 23
"""Numbers from which a call of ours is the faster one, with and without a gradient recorded.

What is gained is not arithmetic: results lie in recycled pages, where PyTorch asks the system for
fresh ones, which takes longer than to compute them. In training that makes up for the time to
begin, 10 us a call and 70 with its gradient, from 1 MiB on. In inference the C library keeps what
it was given back, up to 32 MiB. On several threads it is ours, if recorded, as soon as PyTorch
would use several, whose spinning costs the layer that follows more (see `threads`).
"""


class Function(NamedTuple):
    """An activation: ``compute(x, *numbers, out, threads)``, and ``differentiate`` of PyTorch.

    ``differentiate(grad, seen)`` serves what we do not; ``seen`` is the input, or the output where
    that is kept. ``keeps``: "output" always, or "input" but the output of a call in place, or
    "input only", which it takes to tell the derivative.
    """

    compute: Callable[..., Any]
    numbers: tuple[Any, ...]
    activation: Activation
    differentiate: Callable[[Tensor, Tensor], Tensor]
    keeps: Literal["output", "input", "input only"] = "input only"


_aten = torch.ops.aten


@functools.cache
def relu() -> Function:
    """``max(x, 0)``."""
    backward = _aten.threshold_backward
    return Function(nnpack.relu, (), nnpack.Relu(), lambda g, y: backward(g, y, 0), "output")


@functools.lru_cache(maxsize=64)
def clip(low: float, high: float) -> Function:
    """``min(max(x, low), high)``."""
    backward = functools.partial(_aten.hardtanh_backward, min_val=low, max_val=high)
    return Function(nnpack.clip, (low, high), nnpack.Clip(low, high), backward, "input")


@functools.lru_cache(maxsize=64)
def leaky_relu(slope: float) -> Function:
    """``x`` where ``x > 0``, else ``slope * x``."""
    words = {"negative_slope": slope, "self_is_result": False}
    backward = functools.partial(_aten.leaky_relu_backward, **words)
    keeps: Any = "input" if slope > 0 else "input only"
    return Function(nnpack.leaky_relu, (slope,), nnpack.Relu(slope), backward, keeps)


@functools.lru_cache(maxsize=64)
def elu(alpha: float) -> Function:
    """``x`` where ``x > 0``, else ``alpha * (exp(x) - 1)``."""
    return Function(
        nnpack.elu,
        (alpha,),
        nnpack.Elu(alpha),
        lambda g, x: _aten.elu_backward(g, alpha, 1.0, 1.0, False, x),
    )


@functools.cache
def silu() -> Function:
    """``x * sigmoid(x)``."""
    return Function(nnpack.silu, (), nnpack.Silu(), _silu_backward)


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """What ``aten::silu_backward`` computes, which itself has no gradient."""
    share = torch.sigmoid(x)
    return grad * (share * (1 + x * (1 - share)))


@functools.cache
def hard_swish() -> Function:
    """``x * min(max(x + 3, 0), 6) / 6``."""
    return Function(nnpack.hard_swish, (), nnpack.HardSwish(), _aten.hardswish_backward)


@functools.lru_cache(maxsize=2)
def gelu(approximate: Literal["none", "tanh"]) -> Function:
    """``x * Phi(x)``, or its approximation by tanh."""
    backward = functools.partial(_aten.gelu_backward, approximate=approximate)
    return Function(nnpack.gelu, (approximate,), nnpack.Gelu(approximate), backward)


def activate(
    x: Tensor, function: Callable[..., Function], *numbers: Any, inplace: bool = False
) -> Any:
    """``function(*numbers)`` of x, or None: what is small, compiled or not ours is PyTorch's.

    PyTorch compiles activations into its own loops, which is better than any call. ``inplace``
    asks for x itself; views are PyTorch's then, whose bases would have to learn of it.
    """
    if torch.compiler.is_compiling() or not is_plain(x) or x.numel() < _least_recorded():
        return None
    records = records_gradients(x)
    if not (
        (records or (x.numel() >= _LEAST and not inplace))
        and is_usable()
        and x.is_contiguous()
        and not (inplace and x._is_view())
    ):
        return None
    try:
        chosen = function(*numbers)
        if not inplace:
            return _recorded(x, chosen, False) if records else _compute(x, chosen, False)
        if chosen.keeps != "input only" and not x.is_leaf:
            return _recorded(x, chosen, True)
    except NnpackError:  # what we refuse, PyTorch may allow, or else reports
        pass
    return None


def _least_recorded() -> int:
    return _LEAST_RECORDED if num_threads() == 1 else min(_LEAST_RECORDED, _LEAST_PARALLEL)


def _compute(x: Tensor, function: Function, inplace: bool) -> Tensor:
    array = as_array(x)
    words: Any = {
        "out": array if inplace else None,
        "threads": take_threads(WORK_PER_FLOAT * x.numel()),
    }
    y = function.compute(array, *function.numbers, **words)
    return x if inplace else as_tensor(y)


def in_place(x: Tensor, function: Function) -> Tensor:
    """``function`` of a plain, contiguous x, written over it; no gradient is recorded."""
    return _compute(x, function, True)


class _Activated(torch.autograd.Function):
    """`_compute`, differentiable."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, function, inplace = inputs
        if inplace:
            ctx.mark_dirty(x)
        y = _compute(x, function, inplace)
        ctx.save_for_backward(y if function.keeps == "output" else x)
        ctx.function = function
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (seen,), function, (grad,) = ctx.saved_tensors, ctx.function, grads
        return _gradient(grad, seen, function), None, None


_recorded = quick_apply(_Activated)


def _gradient(grad: Tensor, seen: Tensor, function: Function) -> Tensor:
    if is_higher_order(grad) or not (is_direct() and is_plain(grad) and grad.is_contiguous()):
        return function.differentiate(grad, seen)
    threads = take_threads(WORK_PER_FLOAT * seen.numel())
    arrays = as_array(grad), as_array(seen)
    return as_tensor(nnpack.activation_gradient(*arrays, function.activation, threads=threads))
