"""Which tensors the library computes with; PyTorch's own operators take all others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "has_unit_columns",
    "is_direct",
    "is_higher_order",
    "is_plain",
    "is_usable",
    "records_gradients",
]

_TENSOR_TYPES = (Tensor, torch.nn.Parameter)
# A call looks at several tensors: names of this module are found in half the time.
_FLOAT32, _STRIDED = torch.float32, torch.strided
_is_compiling, _is_autocast_enabled = torch.compiler.is_compiling, torch.is_autocast_enabled


def is_plain(tensor: Tensor) -> bool:
    """Whether the elements are float32 numbers in memory the processor can read, and seen by us.

    Subclasses (fake, distributed, quantised, ... tensors) have meanings of their own; nested
    and sparse tensors have no strides, and a negated view has its signs elsewhere (which compiled
    code cannot ask; the operator does when it runs).
    """
    return (
        type(tensor) in _TENSOR_TYPES
        and tensor.dtype is _FLOAT32
        and tensor.is_cpu
        and tensor.layout is _STRIDED
        and not tensor.is_nested
        and (_is_compiling() or not tensor.is_neg())
    )


def has_unit_columns(images: Tensor) -> bool:
    """Whether (N, C, H, W) images have consecutive columns, which channels-last ones have not."""
    return bool(images.dim() == 4 and (images.stride(3) == 1 or images.is_contiguous()))


def is_direct() -> bool:
    """Whether operators are simply computed: nothing traces, transforms or watches them."""
    return not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def is_usable() -> bool:
    """Whether a call may go to the library: directly, or into a graph as its operator."""
    if _is_autocast_enabled("cpu"):
        return False
    return _is_compiling() or is_direct()


def records_gradients(*tensors: Tensor | None) -> bool:
    """Whether autograd wants to know what is computed from ``tensors``."""
    if torch.is_grad_enabled():
        for tensor in tensors:  # a quarter of the time that any() and its generator take
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def is_higher_order(grad: Tensor) -> bool:
    """Whether gradients are wanted of what is computed from ``grad``, or it is a batch of them.

    PyTorch's own operators for gradients have both.
    """
    return bool(
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(grad)
    )
