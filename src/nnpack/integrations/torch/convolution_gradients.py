"""Gradients of convolutions as operators of PyTorch, and PyTorch's own where those do not serve."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import nnpack
from nnpack.arrays import Float32Array
from nnpack.errors import NnpackError
from nnpack.integrations.torch.arguments import Ints
from nnpack.integrations.torch.eligibility import (
    has_unit_columns,
    is_higher_order,
    is_plain,
)
from nnpack.integrations.torch.exchange import as_array, as_tensor
from nnpack.integrations.torch.operator import Operator
from nnpack.integrations.torch.threads import take_threads

__all__ = ["CALL", "convolution_gradients"]

CALL = (
    "SymInt[2] stride, SymInt[2] padding, SymInt[2] output_padding, SymInt[2] dilation, "
    "SymInt groups, bool transposed, str accuracy"
)
_ZERO = (0, 0)


def convolution_gradients(
    grad: Tensor,
    input: Tensor,  # noqa: A002 - PyTorch's name
    weight: Tensor,
    wanted: Sequence[bool],
    call: tuple[Any, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the input, the weight and the bias, each where ``wanted``.

    ``call`` is (stride, padding, output_padding, dilation, groups, transposed, accuracy).
    """
    if is_higher_order(grad):
        return _by_pytorch(grad, input, weight, wanted, call)
    return (
        _input_gradient(grad, weight, input.shape, *call) if wanted[0] else None,
        _weight_gradient(grad, input, weight.shape, *call) if wanted[1] else None,
        _bias_gradient(grad) if wanted[2] else None,
    )


def _by_pytorch(
    grad: Tensor, input_: Tensor, weight: Tensor, wanted: Sequence[bool], call: tuple[Any, ...]
) -> tuple[Any, Any, Any]:
    stride, padding, output_padding, dilation, groups, transposed, _ = call
    gradients = torch.ops.aten.convolution_backward(
        grad,
        input_,
        weight,
        (grad.shape[1],),
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
        list(wanted),
    )
    return tuple(g if want else None for g, want in zip(gradients, wanted, strict=True))  # type: ignore[return-value]


def _compute_input_gradient(grad: Tensor, weight: Tensor, size: Ints, *call: Any) -> Tensor:
    shape, images = tuple(size), _with_unit_columns(grad)
    if is_plain(grad) and is_plain(weight) and weight.is_contiguous():
        with contextlib.suppress(NnpackError):  # what we refuse, PyTorch may allow, or else reports
            work = math.prod(shape) * weight.numel() // max(1, shape[1])
            gradients = nnpack.conv2d_input_gradient, nnpack.conv_transpose2d_input_gradient
            return _by_library(gradients, as_array(images), as_array(weight), shape, call, work)
    absent = grad.new_empty(1).expand(shape)
    return _by_pytorch(grad, absent, weight, (True, False, False), call)[0].contiguous()


def _compute_weight_gradient(grad: Tensor, input_: Tensor, size: Ints, *call: Any) -> Tensor:
    shape, images = tuple(size), _with_unit_columns(grad)
    if is_plain(grad) and is_plain(input_) and has_unit_columns(input_):
        with contextlib.suppress(NnpackError):
            work = input_.numel() * math.prod(shape) // max(1, input_.shape[1])
            gradients = nnpack.conv2d_weight_gradient, nnpack.conv_transpose2d_weight_gradient
            return _by_library(gradients, as_array(input_), as_array(images), shape, call, work)
    absent = grad.new_empty(1).expand(shape)
    return _by_pytorch(grad, input_, absent, (False, True, False), call)[1].contiguous()


def _compute_bias_gradient(grad: Tensor) -> Tensor:
    return grad.sum((0, 2, 3))


def _by_library(
    gradients: tuple[Callable[..., Any], Callable[..., Any]],
    first: Float32Array,
    second: Float32Array,
    shape: tuple[int, ...],
    call: tuple[Any, ...],
    work: int,
) -> Tensor:
    """The gradient of convolution, or of transposed convolution, for these arrays."""
    stride, padding, output_padding, dilation, groups, transposed, accuracy = call
    words = {
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "accuracy": accuracy,
        "threads": take_threads(work),
    }
    if transposed:
        words["output_padding"] = tuple(output_padding)
    return as_tensor(gradients[transposed](first, second, shape, **words))


def _with_unit_columns(grad: Tensor) -> Tensor:
    """``grad``, or a copy: autograd hands on expanded and transposed ones."""
    return grad if has_unit_columns(grad) else grad.contiguous()


_input_gradient = Operator(
    f"conv_input_gradient(Tensor grad, Tensor weight, SymInt[] input_size, {CALL}) -> Tensor",
    _compute_input_gradient,
    lambda grad, _weight, size, *_: grad.new_empty(size),
)
_weight_gradient = Operator(
    f"conv_weight_gradient(Tensor grad, Tensor input, SymInt[] weight_size, {CALL}) -> Tensor",
    _compute_weight_gradient,
    lambda grad, _input, size, *_: grad.new_empty(size),
)
_bias_gradient = Operator(
    "conv_bias_gradient(Tensor grad) -> Tensor",
    _compute_bias_gradient,
    lambda grad: grad.new_empty(grad.shape[1]),
)
