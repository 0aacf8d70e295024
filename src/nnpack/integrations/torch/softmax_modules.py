"""Softmax and its logarithm of large tensors; smaller and compiled ones are PyTorch's own."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

import nnpack
from nnpack.errors import NnpackError
from nnpack.integrations.torch.eligibility import (
    is_direct,
    is_higher_order,
    is_plain,
    is_usable,
    records_gradients,
)
from nnpack.integrations.torch.exchange import as_array, as_tensor
from nnpack.integrations.torch.named import Named
from nnpack.integrations.torch.operator import quick_apply
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, take_threads

__all__ = ["LogSoftmax", "Softmax"]

_LEAST = 1 << 16
"""Numbers from which half of PyTorch's time is more than a recorded call takes: some 20 us."""
_aten = torch.ops.aten


class Softmax(Named, torch.nn.Softmax):
    """`torch.nn.Softmax`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.Softmax`."""
        y = _softmax(x, self.dim, logarithm=False)
        return super().forward(x) if y is None else y


class LogSoftmax(Named, torch.nn.LogSoftmax):
    """`torch.nn.LogSoftmax`, computed by the library where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.LogSoftmax`."""
        y = _softmax(x, self.dim, logarithm=True)
        return super().forward(x) if y is None else y


def _softmax(x: Tensor, dim: int | None, logarithm: bool) -> Any:
    """The result, or None where it is PyTorch's."""
    if (
        torch.compiler.is_compiling()
        or dim is None
        or not (is_plain(x) and x.numel() >= _LEAST and x.is_contiguous() and is_usable())
    ):
        return None
    with contextlib.suppress(NnpackError):  # what we refuse, PyTorch may allow, or else reports
        return (_recorded if records_gradients(x) else _compute)(x, dim, logarithm)
    return None


def _compute(x: Tensor, dim: int, logarithm: bool) -> Tensor:
    function = nnpack.log_softmax if logarithm else nnpack.softmax
    threads = take_threads(WORK_PER_FLOAT * x.numel())
    return as_tensor(function(as_array(x), dim, threads=threads))


class _Recorded(torch.autograd.Function):
    """`_compute`, differentiable; the gradient of softmax itself is PyTorch's, which is as fast."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y = _compute(*inputs)
        ctx.save_for_backward(y)
        ctx.call = inputs[1:]
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (y,), (dim, logarithm), (grad,) = ctx.saved_tensors, ctx.call, grads
        if not logarithm:
            return _aten._softmax_backward_data(grad, y, dim, y.dtype), None, None
        if is_higher_order(grad) or not (is_direct() and is_plain(grad) and grad.is_contiguous()):
            return _aten._log_softmax_backward_data(grad, y, dim, y.dtype), None, None
        arrays, threads = (as_array(grad), as_array(y)), take_threads(WORK_PER_FLOAT * y.numel())
        return as_tensor(nnpack.log_softmax_gradient(*arrays, dim, threads=threads)), None, None


_recorded = quick_apply(_Recorded)
