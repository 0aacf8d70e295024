"""Average pooling: sums by the library, gradients by whoever is faster at them.

Sums of windows take the library a third to a tenth of PyTorch's time, gradients of small images
twice as much. A mean of whole planes is as fast in PyTorch, which it is left to; so is what is
compiled.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor

import nnpack
from nnpack.errors import NnpackError
from nnpack.integrations.torch.arguments import Ints, as_pairs
from nnpack.integrations.torch.eligibility import (
    has_unit_columns,
    is_direct,
    is_higher_order,
    is_plain,
    is_usable,
    records_gradients,
)
from nnpack.integrations.torch.exchange import as_array, as_tensor
from nnpack.integrations.torch.operator import quick_apply
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, take_threads

__all__ = ["adaptive_avg_pool2d", "avg_pool2d"]

_LEAST_WIDTH = 32
"""Columns from which gradients of ours are the faster ones: 56 take a third of PyTorch's time."""
_aten = torch.ops.aten


def avg_pool2d(
    input: Tensor,  # noqa: A002 - PyTorch's name
    kernel_size: int | Ints,
    stride: int | Ints | None = None,
    padding: int | Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """`torch.nn.functional.avg_pool2d`, in the manner of `conv2d`."""
    if _is_for_us(input):
        step = kernel_size if stride is None or stride in ((), []) else stride
        pairs = as_pairs(kernel_size, step, padding)
        if pairs is not None:
            call = *pairs, ceil_mode, count_include_pad, divisor_override
            return (_sliding if records_gradients(input) else _Sliding.compute)(input, call)
    words: Any = stride, padding, ceil_mode, count_include_pad, divisor_override
    return F.avg_pool2d(input, kernel_size, *words)


def adaptive_avg_pool2d(
    input: Tensor,  # noqa: A002 - PyTorch's name
    output_size: Any,
) -> Tensor:
    """`torch.nn.functional.adaptive_avg_pool2d`, in the manner of `conv2d`."""
    if _is_for_us(input):
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 2
        if len(sizes) == 2:
            size = tuple(s if n is None else n for n, s in zip(sizes, input.shape[2:], strict=True))
            if size != (1, 1):
                run = _adaptive if records_gradients(input) else _Adaptive.compute
                return run(input, (size,))
    return F.adaptive_avg_pool2d(input, output_size)


def _is_for_us(images: Tensor) -> bool:
    return bool(
        not torch.compiler.is_compiling()
        and is_usable()
        and is_plain(images)
        and has_unit_columns(images)
    )


class _Sliding(torch.autograd.Function):
    """`avg_pool2d`, differentiable."""

    @staticmethod
    def compute(images: Tensor, call: tuple[Any, ...]) -> Tensor:
        """The means, of tensors that are checked."""
        threads = take_threads(WORK_PER_FLOAT * images.numel())
        with contextlib.suppress(NnpackError):  # what we refuse, PyTorch may allow, or else reports
            return as_tensor(nnpack.avg_pool2d(as_array(images), *call, threads=threads))
        return _aten.avg_pool2d(images, *call)

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.save_for_backward(inputs[0])
        ctx.call = inputs[1]
        return _Sliding.compute(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (images,), (grad,) = ctx.saved_tensors, grads
        if _is_gradient_for_us(grad, images):
            threads = take_threads(WORK_PER_FLOAT * images.numel())
            words = tuple(images.shape), *ctx.call
            with contextlib.suppress(NnpackError):
                gradient = nnpack.avg_pool2d_gradient(as_array(grad), *words, threads=threads)
                return as_tensor(gradient), None
        return _aten.avg_pool2d_backward(grad, images, *ctx.call), None


class _Adaptive(torch.autograd.Function):
    """`adaptive_avg_pool2d`, differentiable."""

    @staticmethod
    def compute(images: Tensor, call: tuple[Any, ...]) -> Tensor:
        """The means, of tensors that are checked."""
        threads = take_threads(WORK_PER_FLOAT * images.numel())
        with contextlib.suppress(NnpackError):
            return as_tensor(nnpack.adaptive_avg_pool2d(as_array(images), *call, threads=threads))
        return _aten._adaptive_avg_pool2d(images, *call)

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.save_for_backward(inputs[0])
        return _Adaptive.compute(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _aten._adaptive_avg_pool2d_backward(grads[0], *ctx.saved_tensors), None


def _is_gradient_for_us(grad: Tensor, images: Tensor) -> bool:
    return bool(
        images.shape[3] >= _LEAST_WIDTH
        and not is_higher_order(grad)
        and is_direct()
        and is_plain(grad)
        and grad.dim() == 4
    )


_sliding = quick_apply(_Sliding)
_adaptive = quick_apply(_Adaptive)
