"""Gradients of convolutions as operators of PyTorch, and PyTorch's own where those do not serve."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nnpack.errors import NnpackError
from nnpack.functional.prepared import Place, prepare_input_gradient, prepare_weight_gradient
from nnpack.integrations.torch.arguments import Ints, as_hashable
from nnpack.integrations.torch.eligibility import (
    has_unit_columns,
    is_higher_order,
    is_plain,
)
from nnpack.integrations.torch.exchange import as_tensor
from nnpack.integrations.torch.operator import Operator
from nnpack.integrations.torch.threads import take_threads

__all__ = ["CALL", "convolution_gradients"]

CALL = (
    "SymInt[2] stride, SymInt[2] padding, SymInt[2] output_padding, SymInt[2] dilation, "
    "SymInt groups, bool transposed, str accuracy"
)
_TRANSPOSED = 5
"""Which of them says whether the convolution is a transposed one."""


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
    shape, words = tuple(size), tuple(map(as_hashable, call))
    if is_plain(grad) and is_plain(weight) and weight.is_contiguous():
        given = _with_unit_columns(grad)
        threads = take_threads(math.prod(shape) * weight.numel() // max(1, shape[1]))
        with contextlib.suppress(NnpackError):  # what we refuse, PyTorch may allow, or else reports
            prepared = prepare_input_gradient(_place(given), weight.shape, shape, words, threads)
            places = {"x": given.data_ptr(), "weight": weight.data_ptr()}
            return as_tensor(prepared.run_at(places))
    absent = grad.new_empty(1).expand(shape)
    return _by_pytorch(grad, absent, weight, (True, False, False), call)[0].contiguous()


def _compute_weight_gradient(grad: Tensor, input_: Tensor, size: Ints, *call: Any) -> Tensor:
    shape, words = tuple(size), tuple(map(as_hashable, call))
    if is_plain(grad) and is_plain(input_) and has_unit_columns(input_):
        threads = take_threads(input_.numel() * math.prod(shape) // max(1, input_.shape[1]))
        of_transposed = bool(words[_TRANSPOSED])
        x, given = _with_unit_columns(input_), _with_unit_columns(grad)
        if of_transposed:
            x = _with_dense_planes(x)
        else:
            given = _with_dense_planes(given)
        with contextlib.suppress(NnpackError):
            prepared = prepare_weight_gradient(_place(x), _place(given), shape, words, threads)
            tensors = (given, x) if of_transposed else (x, given)
            places = {"x": tensors[0].data_ptr(), "grad": tensors[1].data_ptr()}
            return as_tensor(prepared.run_at(places))
    absent = grad.new_empty(1).expand(shape)
    return _by_pytorch(grad, input_, absent, (False, True, False), call)[1].contiguous()


def _compute_bias_gradient(grad: Tensor) -> Tensor:
    return grad.sum((0, 2, 3))


def _place(images: Tensor) -> Place:
    return images.shape, images.stride()


def _with_unit_columns(grad: Tensor) -> Tensor:
    """``grad``, or a copy: autograd hands on expanded and transposed ones."""
    return grad if has_unit_columns(grad) else grad.contiguous()


def _with_dense_planes(images: Tensor) -> Tensor:
    """``images``, which have consecutive columns, or a copy where there are gaps between rows."""
    is_dense = images.stride(2) == images.shape[3] or images.shape[2] == 1
    return images if is_dense else images.contiguous()


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
