"""PyTorch: plain, channels-last, and oneDNN with its weights packed ahead."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from nnpack.cli.bench.contestant import Operands, Prepared
from nnpack.cli.bench.layers import Layer


def prepare_contiguous(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """``torch.nn.functional.conv2d`` on NCHW tensors."""
    return _prepare_functional(layer, operands, threads, "contiguous_format")


def prepare_channels_last(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """The same on tensors whose channels lie innermost."""
    return _prepare_functional(layer, operands, threads, "channels_last")


def prepare_prepacked(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """The weights in oneDNN's own layout, NCHW activations: what a frozen graph computes."""
    return _prepare_packed(layer, operands, threads, "contiguous_format")


def prepare_prepacked_channels_last(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """The weights in oneDNN's own layout, and activations that need no reordering."""
    return _prepare_packed(layer, operands, threads, "channels_last")


def _torch(threads: int) -> Any:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    return torch


def _tensors(torch: Any, operands: Operands, memory_format: str) -> tuple[Any, Any, Any]:
    layout = getattr(torch, memory_format)
    x = torch.from_numpy(operands.x).to(memory_format=layout)
    weight = torch.from_numpy(operands.weight).to(memory_format=layout)
    return x, weight, torch.from_numpy(operands.bias)


def _prepare_functional(
    layer: Layer, operands: Operands, threads: int, memory_format: str
) -> Prepared:
    torch = _torch(threads)
    x, weight, bias = _tensors(torch, operands, memory_format)
    shape = (layer.stride, layer.margins, layer.dilation, layer.groups)
    run = partial(torch.nn.functional.conv2d, x, weight, bias, *shape)
    return Prepared(run, _to_array)


def _prepare_packed(layer: Layer, operands: Operands, threads: int, memory_format: str) -> Prepared:
    torch = _torch(threads)
    x, weight, bias = _tensors(torch, operands, memory_format)
    padding, stride = list(layer.margins), [layer.stride] * 2
    dilation = [layer.dilation] * 2
    packed = torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, stride, dilation, layer.groups, list(x.shape)
    )
    run = partial(
        torch.ops.mkldnn._convolution_pointwise,
        *(x, packed, bias, padding, stride, dilation, layer.groups, "none", [], ""),
    )
    return Prepared(run, _to_array)


def _to_array(tensor: Any) -> Any:
    return tensor.numpy()
