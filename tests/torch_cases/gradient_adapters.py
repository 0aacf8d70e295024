"""Gradients of PyTorch's operators as calls of this library, by name.

An adapter takes the gradient in the result and what the one of `adapters` takes, which has accepted
it, and returns the gradients by the names of those arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import nnpack
from tests.oracle import Array
from tests.torch_cases import adapters
from tests.torch_cases.adapters import need, pair

Gradients = dict[str, Array]


def _images(*arrays: Array) -> list[Array]:
    """Arrays of one image (C, H, W) as those of a batch."""
    return [array[None] if array.ndim == 3 else array for array in arrays]


def convolution(kind: str, defaults: Mapping[str, Any]) -> Callable[..., Gradients]:
    """The gradients of ``conv2d`` or ``conv_transpose2d``; ``defaults``: arguments after bias."""
    in_input = getattr(nnpack, f"{kind}_input_gradient")
    in_weight = getattr(nnpack, f"{kind}_weight_gradient")

    def call(
        grad: Array,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *values: Any,
        **options: Any,
    ) -> Gradients:
        words = {**defaults, **dict(zip(defaults, values, strict=False)), **options}
        words = {name: pair(value) for name, value in words.items()}
        images, grads = _images(x, grad)
        found = {
            "x": in_input(grads, weight, images.shape, **words).reshape(x.shape),
            "weight": in_weight(images, grads, weight.shape, **words),
        }
        if bias is not None:
            found["bias"] = nnpack.conv2d_bias_gradient(grads)
        return found

    return call


def one_dimensional(gradients: Callable[..., Gradients], *names: str) -> Callable[..., Gradients]:
    """The same of convolutions along one dimension: images one row high."""
    beside = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}

    def call(
        grad: Array,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *values: Any,
        **options: Any,
    ) -> Gradients:
        words = {**dict(zip(names, values, strict=False)), **options}
        for name, value in beside.items():
            if name in words and not isinstance(words[name], str):
                words[name] = (value, pair(words[name]))
        found = gradients(grad[..., None, :], x[..., None, :], weight[..., None, :], bias, **words)
        for name, array in (("x", x), ("weight", weight)):
            found[name] = found[name].reshape(array.shape)
        return found

    return call


def linear(grad: Array, x: Array, weight: Array, bias: Array | None = None) -> Gradients:
    found = {
        "x": nnpack.linear_input_gradient(grad, weight),
        "weight": nnpack.linear_weight_gradient(x, grad),
    }
    if bias is not None:
        found["bias"] = nnpack.linear_bias_gradient(grad)
    return found


def max_pool2d(
    grad: Array,
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *_: Any,
    **__: Any,
) -> Gradients:
    words = (pair(kernel_size), pair(stride), pair(padding), pair(dilation), ceil_mode)
    grads, images = _images(grad, x)
    indices = nnpack.max_pool2d(images, *words, return_indices=True)[1]
    found = nnpack.max_pool2d_gradient(grads, indices, images.shape)
    again = nnpack.max_pool2d_input_gradient(grads, images, *words)
    np.testing.assert_array_equal(found, again)
    return {"x": found.reshape(x.shape)}


def avg_pool2d(
    grad: Array,
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Gradients:
    grads, images = _images(grad, x)
    step = pair(stride) if stride != () else None
    words = (pair(kernel_size), step, pair(padding), ceil_mode, count_include_pad)
    found = nnpack.avg_pool2d_gradient(grads, images.shape, *words, divisor_override)
    return {"x": found.reshape(x.shape)}


def adaptive_avg_pool2d(grad: Array, x: Array, *_: Any, **__: Any) -> Gradients:
    grads, images = _images(grad, x)
    return {"x": nnpack.adaptive_avg_pool2d_gradient(grads, images.shape).reshape(x.shape)}


def adaptive_max_pool2d(grad: Array, x: Array, output_size: Any, *_: Any, **__: Any) -> Gradients:
    grads, images = _images(grad, x)
    indices = adapters.adaptive_max_pool2d(images, output_size, True)[1]
    return {"x": nnpack.max_pool2d_gradient(grads, indices, images.shape).reshape(x.shape)}


def softmax(grad: Array, x: Array, dim: int, **_: Any) -> Gradients:
    return {"x": nnpack.softmax_gradient(grad, nnpack.softmax(x, dim), dim)}


def log_softmax(grad: Array, x: Array, dim: int, **_: Any) -> Gradients:
    return {"x": nnpack.log_softmax_gradient(grad, nnpack.log_softmax(x, dim), dim)}


def batch_norm(
    grad: Array,
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Gradients:
    if training or running_mean is None or running_var is None:
        _, mean, inverse = nnpack.batch_norm(x, weight, bias, eps=eps, training=True)
    else:
        mean, inverse = running_mean, (1 / np.sqrt(running_var + eps)).astype(np.float32)
    found = dict(
        zip(
            ("x", "weight", "bias"),
            nnpack.batch_norm_gradient(grad, x, weight, mean, inverse, training=training),
            strict=True,
        )
    )
    absent = {"weight"} if weight is None else set()
    absent |= {"bias"} if bias is None else set()
    return {name: value for name, value in found.items() if name not in absent}


def cross_entropy(
    grad: Array, x: Array, labels: Array, *_: Any, reduction: Any = "mean", **__: Any
) -> Gradients:
    need(reduction != "none", "gradients of each loss")
    return {"x": grad * nnpack.cross_entropy_gradient(x, labels, reduction=reduction)}


def pad(grad: Array, _: Array, pad: Any, mode: Any = "constant", *__: Any, **___: Any) -> Gradients:
    left, right, top, bottom = (*pad, 0, 0)[:4]
    return {"x": nnpack.pad2d_gradient(grad, (top, bottom, left, right), mode)}


def interpolate(
    grad: Array,
    x: Array,
    *_: Any,
    mode: Any = "nearest",
    align_corners: bool | None = None,
    **__: Any,
) -> Gradients:
    return {"x": nnpack.upsample2d_gradient(grad, x.shape, mode, bool(align_corners))}


def activation(make: Callable[..., Any]) -> Callable[..., Gradients]:
    """The gradient behind ``make(*arguments)``, an activation of this library."""

    def call(grad: Array, x: Array, *arguments: Any, **options: Any) -> Gradients:
        options.pop("inplace", None)
        return {"x": nnpack.activation_gradient(grad, x, make(*arguments, **options))}

    return call


def prelu(grad: Array, x: Array, weight: Array) -> Gradients:
    return dict(zip(("x", "weight"), nnpack.prelu_gradient(grad, x, weight), strict=True))


_FORWARD = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_TRANSPOSED = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}

GRADIENTS: Mapping[str, Callable[..., Gradients]] = {
    "log_softmax": log_softmax,
    "nn.functional.adaptive_avg_pool2d": adaptive_avg_pool2d,
    "nn.functional.adaptive_max_pool2d": adaptive_max_pool2d,
    "nn.functional.avg_pool2d": avg_pool2d,
    "nn.functional.batch_norm": batch_norm,
    "nn.functional.conv1d": one_dimensional(convolution("conv2d", _FORWARD), *_FORWARD),
    "nn.functional.conv2d": convolution("conv2d", _FORWARD),
    "nn.functional.conv_transpose1d": one_dimensional(
        convolution("conv_transpose2d", _TRANSPOSED), *_TRANSPOSED
    ),
    "nn.functional.conv_transpose2d": convolution("conv_transpose2d", _TRANSPOSED),
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.elu": activation(nnpack.Elu),
    "nn.functional.gelu": activation(lambda approximate="none": nnpack.Gelu(approximate)),
    "nn.functional.hardsigmoid": activation(nnpack.HardSigmoid),
    "nn.functional.hardswish": activation(nnpack.HardSwish),
    "nn.functional.hardtanh": activation(
        lambda min_val=-1.0, max_val=1.0: nnpack.Clip(min_val, max_val)
    ),
    "nn.functional.interpolate": interpolate,
    "nn.functional.leaky_relu": activation(lambda negative_slope=0.01: nnpack.Relu(negative_slope)),
    "nn.functional.linear": linear,
    "nn.functional.max_pool2d": max_pool2d,
    "nn.functional.mish": activation(nnpack.Mish),
    "nn.functional.pad": pad,
    "nn.functional.prelu": prelu,
    "nn.functional.relu": activation(nnpack.Relu),
    "nn.functional.relu6": activation(lambda: nnpack.Clip(0, 6)),
    "nn.functional.silu": activation(nnpack.Silu),
    "sigmoid": activation(nnpack.Sigmoid),
    "softmax": softmax,
    "tanh": activation(nnpack.Tanh),
}
