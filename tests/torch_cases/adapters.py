"""PyTorch's operators as calls of this library: arguments to arguments, by name.

An adapter takes what PyTorch's operator takes, with arrays for tensors, and returns what it would;
it raises `NotApplicableError` with what is not in this library. Errors of the library pass through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import nnpack
from tests.oracle import Array


class NotApplicableError(Exception):
    """What of a call is not in this library."""


def need(condition: object, reason: str) -> None:
    """Raise NotApplicableError unless ``condition`` holds."""
    if not condition:
        raise NotApplicableError(reason)


def pair(value: Any) -> Any:
    """PyTorch takes a sequence of one for both directions."""
    if isinstance(value, tuple | list) and len(value) == 1:
        return value[0]
    return tuple(value) if isinstance(value, list) else value


def batched(function: Callable[..., Any], x: Array, *arguments: Any, **options: Any) -> Any:
    """``function`` of one image, (C, H, W), or of a batch."""
    if x.ndim != 3:
        return function(x, *arguments, **options)
    y = function(x[None], *arguments, **options)
    return tuple(part[0] for part in y) if isinstance(y, tuple) else y[0]


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Array:
    # Of an odd total both libraries pad more behind.
    plain = padding != "same" or pair(stride) in (1, (1, 1))
    need(plain, "PyTorch refuses strides here, this library does not")
    options = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation)}
    y: Array = batched(nnpack.conv2d, x, weight, bias, groups=groups, **options)
    return y


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Array:
    options = {
        "stride": pair(stride),
        "padding": pair(padding),
        "output_padding": pair(output_padding),
        "dilation": pair(dilation),
        "groups": groups,
    }
    y: Array = batched(nnpack.conv_transpose2d, x, weight, bias, **options)
    return y


def one_dimensional(function: Callable[..., Array], *names: str) -> Callable[..., Array]:
    """A convolution along one dimension, whose arguments behind the bias are ``names``."""

    def call(
        x: Array, weight: Array, bias: Array | None = None, *values: Any, **options: Any
    ) -> Array:
        words = {**dict(zip(names, values, strict=False)), **options}
        plain = words.get("padding") != "same" or pair(words.get("stride", 1)) == 1
        need(plain, "PyTorch refuses strides here, this library does not")
        words = {name: pair(value) for name, value in words.items()}
        if x.ndim != 2:
            return function(x, weight, bias, **words)
        single: Array = function(x[None], weight, bias, **words)[0]
        return single

    return call


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    need(weight.ndim == 2, "a vector of weights")
    need(x.ndim > 1, "a single vector")
    need(bias is None or bias.ndim == 1, "a bias of other dimensions")
    need(x.size and weight.size, "nothing to multiply")
    return nnpack.linear(x, weight, bias)


def max_pool2d(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    words = (pair(kernel_size), pair(stride), pair(padding), pair(dilation), ceil_mode)
    return batched(nnpack.max_pool2d, x, *words, return_indices)


def avg_pool2d(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    need((divisor_override or 1) > 0, "a negative divisor")
    step = pair(stride) if stride != () else None
    words = (pair(kernel_size), step, pair(padding), ceil_mode, count_include_pad)
    return batched(nnpack.avg_pool2d, x, *words, divisor_override)


def adaptive_avg_pool2d(x: Array, output_size: Any) -> Any:
    return batched(nnpack.adaptive_avg_pool2d, x, _sizes(x, output_size))


def adaptive_max_pool2d(x: Array, output_size: Any, return_indices: bool = False) -> Any:
    return batched(nnpack.adaptive_max_pool2d, x, _sizes(x, output_size), return_indices)


def _sizes(x: Array, output_size: Any) -> Any:
    """None stands for the size of x."""
    if not isinstance(output_size, tuple | list) or len(output_size) != 2:
        return output_size
    return tuple(
        size if wanted is None else wanted
        for wanted, size in zip(output_size, x.shape[-2:], strict=True)
    )


def softmax(x: Array, dim: int, dtype: Any = None) -> Array:
    need(dtype is None, "converts")
    need(x.ndim, "a number")
    return nnpack.softmax(x, dim)


def log_softmax(x: Array, dim: int, dtype: Any = None) -> Array:
    need(dtype is None, "converts")
    need(x.ndim, "a number")
    return nnpack.log_softmax(x, dim)


def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    need(x.ndim > 1 and 0 not in x.shape[1:], "no channels")
    need((running_mean is None) == (running_var is None), "one of the statistics")
    words = (weight, bias, running_mean, running_var)
    if not training:
        return nnpack.batch_norm(x, *words, eps=eps)
    return nnpack.batch_norm(x, *words, eps=eps, training=True, momentum=momentum)[0]


def cross_entropy(
    x: Array,
    labels: Array,
    weight: Array | None = None,
    reduction: Any = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Array:
    need(weight is None and not label_smoothing, "weights or smoothing")
    need(labels.dtype.kind == "i", "probabilities for labels")
    need(x.ndim > 1, "a single vector")
    need(ignore_index < 0 or not (labels == ignore_index).any(), "labels to be ignored")
    return nnpack.cross_entropy(x, labels, reduction=reduction)


_PADS: Mapping[str, Any] = {"constant": "constant", "reflect": "reflect", "replicate": "replicate"}


def pad(x: Array, pad: Any, mode: str = "constant", value: float | None = None) -> Array:
    need(x.ndim == 4 and len(pad) in (2, 4) and mode in _PADS, "not of images")
    left, right, top, bottom = (*pad, 0, 0)[:4]
    need(min(pad) >= 0, "crops")
    return nnpack.pad2d(x, (top, bottom, left, right), _PADS[mode], value or 0.0)


def interpolate(
    x: Array,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Array:
    need(x.ndim == 4 and mode in ("nearest", "bilinear"), "not of images")
    need(not antialias, "smoothed")
    if scale_factor is not None:
        factors = (scale_factor,) * 2 if isinstance(scale_factor, int | float) else scale_factor
        exact = [n * factor for n, factor in zip(x.shape[2:], factors, strict=True)]
        # PyTorch then interpolates by a scale that is not the ratio of the sizes.
        same = all(n == int(n) for n in exact) or recompute_scale_factor
        need(same, "a scale that is not that of the sizes")
    need(0 not in x.shape[1:], "empty images")
    chosen: Any = mode
    return nnpack.upsample2d(x, pair(scale_factor), chosen, bool(align_corners), size=pair(size))


def cat(tensors: Any, dim: int = 0) -> Array:
    arrays = all(isinstance(array, np.ndarray) for array in tensors)
    need(arrays and all(array.dtype == np.float32 for array in tensors), "other dtypes")
    # PyTorch lets vectors of nothing stand beside arrays of any shape.
    need(not any(array.shape == (0,) for array in tensors), "vectors of nothing")
    return nnpack.concat(tensors, dim)


def elementwise(name: str, **names: str) -> Callable[..., Array]:
    """The plain function ``name``; ``names``: what PyTorch calls our arguments."""

    def call(x: Array, *arguments: Any, inplace: bool = False, **options: Any) -> Array:
        need(not inplace, "in place")
        need(name in nnpack.__all__, f"no {name}")
        words = {names.get(word, word): value for word, value in options.items()}
        function: Callable[..., Array] = getattr(nnpack, name)
        return function(x, *arguments, **words)

    return call


def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    need("clip" in nnpack.__all__, "no clip")
    need(not math.isnan(min_val + max_val), "bounds that are no numbers")
    return elementwise("clip")(x, min_val, max_val)


def prelu(x: Array, weight: Array) -> Array:
    need(x.ndim > 1 and weight.size == x.shape[1], "not a slope for each channel")
    return elementwise("prelu")(x, weight)


ADAPTERS: Mapping[str, Callable[..., Any]] = {
    "cat": cat,
    "log_softmax": log_softmax,
    "nn.functional.adaptive_avg_pool2d": adaptive_avg_pool2d,
    "nn.functional.adaptive_max_pool2d": adaptive_max_pool2d,
    "nn.functional.avg_pool2d": avg_pool2d,
    "nn.functional.batch_norm": batch_norm,
    "nn.functional.conv1d": one_dimensional(
        nnpack.conv1d, "stride", "padding", "dilation", "groups"
    ),
    "nn.functional.conv2d": conv2d,
    "nn.functional.conv_transpose1d": one_dimensional(
        nnpack.conv_transpose1d, "stride", "padding", "output_padding", "groups", "dilation"
    ),
    "nn.functional.conv_transpose2d": conv_transpose2d,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.elu": elementwise("elu"),
    "nn.functional.gelu": elementwise("gelu"),
    "nn.functional.hardsigmoid": elementwise("hard_sigmoid"),
    "nn.functional.hardswish": elementwise("hard_swish"),
    "nn.functional.hardtanh": hardtanh,
    "nn.functional.interpolate": interpolate,
    "nn.functional.leaky_relu": elementwise("leaky_relu", negative_slope="slope"),
    "nn.functional.linear": linear,
    "nn.functional.max_pool2d": max_pool2d,
    "nn.functional.mish": elementwise("mish"),
    "nn.functional.pad": pad,
    "nn.functional.prelu": prelu,
    "nn.functional.relu": elementwise("relu"),
    "nn.functional.relu6": lambda x: hardtanh(x, 0.0, 6.0),
    "nn.functional.silu": elementwise("silu"),
    "sigmoid": elementwise("sigmoid"),
    "softmax": softmax,
    "tanh": elementwise("tanh"),
}
