"""Convolution and transposed convolution as operators of PyTorch, with their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor

import nnpack
from nnpack.errors import NnpackError
from nnpack.functional.prepared import prepare_convolution
from nnpack.integrations.torch.arguments import Ints, as_hashable, as_pair, as_pairs
from nnpack.integrations.torch.convolution_gradients import CALL, convolution_gradients
from nnpack.integrations.torch.eligibility import (
    has_unit_columns,
    is_plain,
    is_usable,
)
from nnpack.integrations.torch.exchange import as_tensor
from nnpack.integrations.torch.operator import Derivative, Operator
from nnpack.integrations.torch.packed import forget, run_kept
from nnpack.integrations.torch.threads import take_threads
from nnpack.problem import Accuracy

__all__ = ["are_images", "are_weights", "conv2d", "conv_transpose2d", "make_layer"]


def conv2d(
    input: Tensor,  # noqa: A002 - PyTorch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Ints = 1,
    padding: int | Ints | str = 0,
    dilation: int | Ints = 1,
    groups: int = 1,
    *,
    accuracy: Accuracy = "fast",
) -> Tensor:
    """`torch.nn.functional.conv2d`, computed and differentiated by the library where it can.

    Tensors that it does not take, and calls it refuses, go to PyTorch, which raises its own errors.
    What the library returns is contiguous.
    """
    if _is_for_us(input, weight, bias):
        borders: int | Ints | None
        if isinstance(padding, str):
            borders = _paddings(padding, weight, as_pair(dilation))
        else:
            borders = padding
        if borders is not None:
            pairs = as_pairs(stride, borders, 0, dilation)
            if pairs is not None:
                return _convolution.run((input, weight, bias), (*pairs, groups, False, accuracy))
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: Tensor,  # noqa: A002 - PyTorch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Ints = 1,
    padding: int | Ints = 0,
    output_padding: int | Ints = 0,
    groups: int = 1,
    dilation: int | Ints = 1,
    *,
    accuracy: Accuracy = "fast",
) -> Tensor:
    """`torch.nn.functional.conv_transpose2d`, in the manner of `conv2d`."""
    if _is_for_us(input, weight, bias):
        pairs = as_pairs(stride, padding, output_padding, dilation)
        if pairs is not None:
            return _convolution.run((input, weight, bias), (*pairs, groups, True, accuracy))
    words = stride, padding, output_padding, groups, dilation
    return F.conv_transpose2d(input, weight, bias, *words)


def are_images(tensor: Tensor) -> bool:
    """Whether the library takes ``tensor`` as images, without a copy."""
    return is_plain(tensor) and has_unit_columns(tensor)


def are_weights(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the library takes these parameters of a convolution, without a copy."""
    return (
        is_plain(weight)
        and weight.dim() == 4
        and weight.is_contiguous()
        and (bias is None or (is_plain(bias) and bias.dim() == 1 and bias.is_contiguous()))
    )


def _is_for_us(images: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return is_usable() and are_images(images) and are_weights(weight, bias)


def _paddings(name: str, weight: Tensor, dilation: Ints) -> tuple[int, ...] | None:
    """The borders that are called "same" or "valid"; None where two opposite ones differ."""
    if name == "valid":
        return (0, 0)
    both = [d * (taps - 1) for d, taps in zip(dilation, weight.shape[2:], strict=True)]
    return None if name != "same" or any(n % 2 for n in both) else tuple(n // 2 for n in both)


def _compute(images: Tensor, weight: Tensor, bias: Tensor | None, *call: Any) -> Tensor:
    forget(weight)
    if are_images(images) and are_weights(weight, bias):
        return _by_library(images, weight, bias, tuple(map(as_hashable, call)))
    return _by_pytorch(images, weight, bias, *call)


def _infer(images: Tensor, weight: Tensor, bias: Tensor | None, *call: Any) -> Tensor:
    """`_compute` where no gradients are recorded: ``weight`` is packed once for each version."""
    y = None
    if are_images(images) and are_weights(weight, bias):
        y = run_kept(images, weight, bias, tuple(map(as_hashable, call)), make_layer)
    return _compute(images, weight, bias, *call) if y is None else y


def make_layer(weight: object, bias: object, call: tuple[Any, ...], threads: int) -> Any:
    """The layer of the library that convolves with copies of ``weight`` and ``bias``."""
    stride, padding, output_padding, dilation, groups, transposed, accuracy = call
    words: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "accuracy": accuracy,
        "threads": threads,
    }
    if transposed:
        return nnpack.ConvTranspose2d(weight, bias, output_padding=output_padding, **words)
    return nnpack.Conv2d(weight, bias, **words)


def _by_library(
    images: Tensor, weight: Tensor, bias: Tensor | None, call: tuple[Any, ...]
) -> Tensor:
    threads = take_threads(images.numel() * weight.numel() // max(1, images.shape[1]))
    places, bias_shape = {"x": images.data_ptr(), "weight": weight.data_ptr()}, None
    if bias is not None:
        places["bias"], bias_shape = bias.data_ptr(), bias.shape
    x = images.shape, images.stride()
    try:
        prepared = prepare_convolution(x, weight.shape, bias_shape, call, threads)
    except NnpackError:  # what we refuse, PyTorch may allow, or reports
        return _by_pytorch(images, weight, bias, *call)
    return as_tensor(prepared.run_at(places))


def _by_pytorch(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
    transposed: bool,
    _accuracy: str,
) -> Tensor:
    """PyTorch's operator; the result is contiguous, so that a graph can rely on its strides."""
    words = stride, padding, dilation, transposed, output_padding, groups
    return torch.convolution(images, weight, bias, *words).contiguous()


def _save(ctx: Any, tensors: Sequence[Any], call: Sequence[Any], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(tensors[0], tensors[1])
    ctx.call = call


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    images, weight = ctx.saved_tensors
    return convolution_gradients(grad, images, weight, ctx.needs_input_grad[:3], ctx.call)


_inference = Operator(
    f"convolution_inference(Tensor input, Tensor weight, Tensor? bias, {CALL}) -> Tensor",
    _infer,
    _by_pytorch,
)
_convolution = Operator(
    f"convolution(Tensor input, Tensor weight, Tensor? bias, {CALL}) -> Tensor",
    _compute,
    _by_pytorch,
    Derivative(_save, _backward, _by_library, _inference),
)
