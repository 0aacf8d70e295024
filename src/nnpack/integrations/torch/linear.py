"""Fully connected layers as operators of PyTorch, with their gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor

import nnpack
from nnpack.errors import NnpackError
from nnpack.functional.prepared import prepare_linear
from nnpack.integrations.torch.eligibility import (
    is_higher_order,
    is_plain,
    is_usable,
)
from nnpack.integrations.torch.exchange import as_array, as_tensor
from nnpack.integrations.torch.operator import Derivative, Operator
from nnpack.integrations.torch.packed import forget, run_kept
from nnpack.integrations.torch.threads import take_threads

__all__ = ["are_rows", "are_weights", "linear", "make_layer"]


def linear(
    input: Tensor,  # noqa: A002 - PyTorch's name
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """`torch.nn.functional.linear`, in the manner of `conv2d`, for contiguous tensors."""
    if not (is_usable() and are_rows(input) and are_weights(weight, bias)):
        return F.linear(input, weight, bias)
    return _linear.run((input, weight, bias), ())


def are_rows(tensor: Tensor) -> bool:
    """Whether the library takes ``tensor`` (..., I) as rows, without a copy."""
    return bool(is_plain(tensor) and tensor.dim() >= 1 and tensor.is_contiguous())


def are_weights(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the library takes these parameters, without a copy."""
    return bool(
        is_plain(weight)
        and weight.dim() == 2
        and weight.is_contiguous()
        and (bias is None or (is_plain(bias) and bias.dim() == 1 and bias.is_contiguous()))
    )


def _compute(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    forget(weight)
    if are_rows(rows) and are_weights(weight, bias):
        return _by_library(rows, weight, bias)
    return _by_pytorch(rows, weight, bias)


def _infer(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`_compute` where no gradients are recorded: ``weight`` is packed once for each version."""
    y = None
    if are_rows(rows) and are_weights(weight, bias):
        y = run_kept(rows, weight, bias, (), make_layer)
    return _compute(rows, weight, bias) if y is None else y


def make_layer(weight: object, bias: object, _call: tuple[Any, ...], threads: int) -> Any:
    """The layer of the library that multiplies by copies of ``weight`` and ``bias``."""
    return nnpack.Linear(weight, bias, threads=threads)


def _by_library(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    _call: tuple[()] = (),
) -> Tensor:
    threads = take_threads(rows.numel() * weight.shape[0])
    places, bias_shape = {"x": rows.data_ptr(), "weight": weight.data_ptr()}, None
    if bias is not None:
        places["bias"], bias_shape = bias.data_ptr(), bias.shape
    try:
        prepared = prepare_linear(rows.shape, weight.shape, bias_shape, threads)
    except NnpackError:  # what we refuse, PyTorch may allow, or else reports
        return _by_pytorch(rows, weight, bias)
    return as_tensor(prepared.run_at(places))


def _by_pytorch(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(rows, weight, bias).contiguous()


def _compute_input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    if are_rows(grad) and are_weights(weight, None):
        with contextlib.suppress(NnpackError):
            arrays, work = (as_array(grad), as_array(weight)), grad.numel() * weight.shape[1]
            return as_tensor(nnpack.linear_input_gradient(*arrays, threads=take_threads(work)))
    return torch.matmul(grad, weight)


def _compute_weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    if are_rows(grad) and are_rows(rows):
        with contextlib.suppress(NnpackError):
            arrays, work = (as_array(rows), as_array(grad)), grad.numel() * rows.shape[-1]
            return as_tensor(nnpack.linear_weight_gradient(*arrays, threads=take_threads(work)))
    return _weight_gradient_by_pytorch(grad, rows)


def _weight_gradient_by_pytorch(grad: Tensor, rows: Tensor) -> Tensor:
    return grad.reshape(-1, grad.shape[-1]).t() @ rows.reshape(-1, rows.shape[-1])


def _bias_gradient(grad: Tensor) -> Tensor:
    """A sum of rows, which PyTorch does as well."""
    return grad.reshape(-1, grad.shape[-1]).sum(0)


def _save(ctx: Any, tensors: Sequence[Any], call: Sequence[Any], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(tensors[0], tensors[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rows, weight = ctx.saved_tensors
    of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
    input_gradient: Any = _input_gradient
    weight_gradient: Any = _weight_gradient
    if is_higher_order(grad):
        input_gradient, weight_gradient = torch.matmul, _weight_gradient_by_pytorch
    elif not grad.is_contiguous():  # of a sum, or of a transposed result
        grad = grad.contiguous()
    return (
        input_gradient(grad, weight) if of_input else None,
        weight_gradient(grad, rows) if of_weight else None,
        _bias_gradient(grad) if of_bias else None,
    )


_input_gradient = Operator(
    "linear_input_gradient(Tensor grad, Tensor weight) -> Tensor",
    _compute_input_gradient,
    lambda grad, weight: grad.new_empty((*grad.shape[:-1], weight.shape[1])),
)
_weight_gradient = Operator(
    "linear_weight_gradient(Tensor grad, Tensor input) -> Tensor",
    _compute_weight_gradient,
    lambda grad, rows: grad.new_empty((grad.shape[-1], rows.shape[-1])),
)
_inference = Operator(
    "linear_inference(Tensor input, Tensor weight, Tensor? bias) -> Tensor", _infer, _by_pytorch
)
_linear = Operator(
    "linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor",
    _compute,
    _by_pytorch,
    Derivative(_save, _backward, _by_library, _inference),
)
