"""Max pooling as an operator of PyTorch, which keeps the places of the maxima."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor

import nnpack
from nnpack.errors import NnpackError
from nnpack.functional.prepared import prepare_max_pool, prepare_max_pool_gradient
from nnpack.integrations.torch.arguments import Ints, as_hashable, as_pairs
from nnpack.integrations.torch.eligibility import (
    has_unit_columns,
    is_higher_order,
    is_plain,
    is_usable,
    records_gradients,
)
from nnpack.integrations.torch.exchange import as_array, as_tensor
from nnpack.integrations.torch.operator import Derivative, Operator
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, take_threads
from nnpack.runtime.memory import address, empty_indices

__all__ = ["max_pool2d"]

_CALL = "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool ceil"


def max_pool2d(
    input: Tensor,  # noqa: A002 - PyTorch's name
    kernel_size: int | Ints,
    stride: int | Ints | None = None,
    padding: int | Ints = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`torch.nn.functional.max_pool2d`, in the manner of `conv2d`.

    The indices of maxima are found where they are asked for, or a gradient is.
    """
    call: Any = None
    if is_usable() and is_plain(input) and has_unit_columns(input):
        # PyTorch takes () for None too
        step = kernel_size if stride is None or stride in ((), []) else stride
        call = as_pairs(kernel_size, step, padding, dilation)
    if call is None:
        words: Any = (stride, padding, dilation, ceil_mode, return_indices)
        return F.max_pool2d(input, kernel_size, *words)
    call = *call, ceil_mode
    if return_indices or records_gradients(input) or torch.compiler.is_compiling():
        y, indices = _max_pool2d.run((input,), call)
        return (y, indices) if return_indices else y
    threads = take_threads(WORK_PER_FLOAT * input.numel())
    with contextlib.suppress(NnpackError):  # what we refuse, PyTorch may allow, or else reports
        return as_tensor(nnpack.max_pool2d(as_array(input), *call, threads=threads))
    return torch.max_pool2d(input, *call)


def _compute(images: Tensor, *call: Any) -> tuple[Tensor, Tensor]:
    if is_plain(images) and has_unit_columns(images):
        return _by_library(images, tuple(map(as_hashable, call)))
    return _by_pytorch(images, *call)


def _by_library(images: Tensor, call: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    threads = take_threads(WORK_PER_FLOAT * images.numel())
    try:
        prepared = prepare_max_pool((images.shape, images.stride()), call, threads)
    except NnpackError:  # what we refuse, PyTorch may allow, or else reports
        return _by_pytorch(images, *call)
    indices = empty_indices(prepared.shape)
    y = prepared.run_at({"x": images.data_ptr(), "indices": address(indices)})
    return as_tensor(y), as_tensor(indices)


def _by_pytorch(images: Tensor, *call: Any) -> tuple[Tensor, Tensor]:
    y, indices = torch.ops.aten.max_pool2d_with_indices(images, *call)
    return y.contiguous(), indices.contiguous()


def _save(
    ctx: Any, tensors: Sequence[Any], call: Sequence[Any], output: tuple[Tensor, Tensor]
) -> None:
    ctx.call = call
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros of the size of the indices
    ctx.save_for_backward(tensors[0], output[1])


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,)
    images, indices = ctx.saved_tensors
    gradient = _gradient_by_pytorch if is_higher_order(grad) else _gradient
    return (gradient(grad, images, indices, *ctx.call),)


def _compute_gradient(grad: Tensor, images: Tensor, indices: Tensor, *call: Any) -> Tensor:
    if is_plain(grad) and is_plain(images) and _are_places(indices, grad):
        grad, indices = grad.contiguous(), indices.contiguous()
        threads = take_threads(WORK_PER_FLOAT * images.numel())
        with contextlib.suppress(NnpackError):
            prepared = prepare_max_pool_gradient(grad.shape, images.shape, threads)
            places = {"grad": grad.data_ptr(), "indices": indices.data_ptr()}
            return as_tensor(prepared.run_at(places))
    return _gradient_by_pytorch(grad, images, indices, *call).contiguous()


def _are_places(indices: Tensor, grad: Tensor) -> bool:
    """Whether these are the places of what ``grad`` is the gradient in, in memory."""
    return (
        grad.dim() == 4
        and type(indices) is Tensor
        and indices.dtype is torch.int64
        and indices.is_cpu
        and indices.shape == grad.shape
    )


def _gradient_by_pytorch(grad: Tensor, images: Tensor, indices: Tensor, *call: Any) -> Tensor:
    gradient = torch.ops.aten.max_pool2d_with_indices_backward
    return gradient(grad, images, *call, indices)


_gradient = Operator(
    f"max_pool2d_gradient(Tensor grad, Tensor input, Tensor indices, {_CALL}) -> Tensor",
    _compute_gradient,
    lambda grad, images, *_: grad.new_empty(images.shape),
)
_max_pool2d = Operator(
    f"max_pool2d_with_indices(Tensor input, {_CALL}) -> (Tensor, Tensor)",
    _compute,
    _by_pytorch,
    Derivative(_save, _backward, _by_library),
)
