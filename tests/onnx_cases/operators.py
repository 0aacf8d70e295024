"""Every ONNX operator that this library has, as calls of it.

An adapter maps words to words (ONNX operator specification) and returns the outputs, or raises
`NotApplicableError` with what of the node is not in this library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import nnpack
from tests.onnx_cases.adapter import run_conv, run_conv_transpose
from tests.onnx_cases.cases import Array, Case


class NotApplicableError(Exception):
    """What of a node is not in this library."""


def run(case: Case, **options: Any) -> tuple[Array, ...]:
    """The outputs of the node; ``options`` go to convolutions. Raises NotApplicableError."""
    floats = [array for array in case.inputs[:1] if array is not None]
    _need(bool(floats) and all(array.dtype == np.float32 for array in floats), "not float32")
    if case.operator in _CONVOLUTIONS:
        return (_CONVOLUTIONS[case.operator](case, options),)
    return _ADAPTERS[case.operator](case)


def _need(condition: object, reason: str) -> None:
    if not condition:
        raise NotApplicableError(reason)


def _x(case: Case) -> Array:
    x = case.inputs[0]
    assert x is not None
    return x


def _input(case: Case, number: int) -> Array | None:
    return case.inputs[number] if number < len(case.inputs) else None


def _images(case: Case) -> Array:
    x = _x(case)
    _need(x.ndim == 4, "not 2-D")
    return x


def _conv(case: Case, options: Mapping[str, Any]) -> Array:
    _images(case)
    return run_conv(case, partial(nnpack.conv2d, **options))


def _conv_transpose(case: Case, options: Mapping[str, Any]) -> Array:
    _images(case)
    return run_conv_transpose(case, partial(nnpack.conv_transpose2d, **options))


def _pool_padding(case: Case, x: Array) -> Any:
    """``pads`` or ``auto_pad`` of a pool as (top, bottom, left, right)."""
    auto = case.attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        top, left, bottom, right = case.attributes.get("pads", (0, 0, 0, 0))
        return (top, bottom, left, right)
    if auto == "VALID":
        return 0
    padding: list[int] = []
    for axis in (0, 1):
        kernel = case.attributes["kernel_shape"][axis]
        stride = case.attributes.get("strides", (1, 1))[axis]
        extent = (kernel - 1) * case.attributes.get("dilations", (1, 1))[axis] + 1
        size = x.shape[2 + axis]
        total = max(0, (-(-size // stride) - 1) * stride + extent - size)
        halves = [total // 2, total - total // 2]
        padding += halves if auto == "SAME_UPPER" else halves[::-1]
    return tuple(padding)


def _max_pool(case: Case) -> tuple[Array, ...]:
    x, words = _images(case), case.attributes
    _need(not words.get("storage_order", 0), "indices by columns")
    y, indices = nnpack.max_pool2d(
        x,
        tuple(words["kernel_shape"]),
        tuple(words.get("strides", (1, 1))),
        _pool_padding(case, x),
        tuple(words.get("dilations", (1, 1))),
        bool(words.get("ceil_mode", 0)),
        return_indices=True,
    )
    # ONNX counts from the beginning of the whole array.
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], 1, 1)
    return (y, indices + planes * math.prod(x.shape[2:]))[: len(case.expected)]


def _average_pool(case: Case) -> tuple[Array, ...]:
    x, words = _images(case), case.attributes
    _need(set(words.get("dilations", (1, 1))) == {1}, "dilated average")
    y = nnpack.avg_pool2d(
        x,
        tuple(words["kernel_shape"]),
        tuple(words.get("strides", (1, 1))),
        _pool_padding(case, x),
        bool(words.get("ceil_mode", 0)),
        count_include_pad=bool(words.get("count_include_pad", 0)),
    )
    return (y,)


def _of_images(function: Callable[..., Array]) -> Callable[[Case], tuple[Array, ...]]:
    return lambda case: (function(_images(case)),)


def _softmax(function: Callable[..., Array], case: Case) -> tuple[Array, ...]:
    x = _x(case)
    if case.opset >= 13:
        return (function(x, case.attributes.get("axis", -1)),)
    # Up to opset 12 all axes from this one on are one.
    axis = case.attributes.get("axis", 1)
    flat = x.reshape(math.prod(x.shape[:axis]), -1)
    return (function(flat, 1).reshape(x.shape),)


def _batch_norm(case: Case) -> tuple[Array, ...]:
    x, gamma, beta, mean, variance = case.inputs
    assert mean is not None
    assert variance is not None
    words = {"eps": case.attributes.get("epsilon", 1e-5)}
    _need(case.attributes.get("spatial", 1), "not by channel")
    if not case.attributes.get("training_mode", 0):
        return (nnpack.batch_norm(x, gamma, beta, mean, variance, **words),)
    running = mean.copy(), variance.copy()
    momentum = 1 - case.attributes.get("momentum", 0.9)
    y, _, _ = nnpack.batch_norm(x, gamma, beta, *running, training=True, momentum=momentum, **words)
    # The running variance of ONNX is biased, PyTorch's and ours is not.
    return y, running[0]


_PAD_MODES: Mapping[str, Any] = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


def _pad(case: Case) -> tuple[Array, ...]:
    x = _images(case)
    mode = case.attributes.get("mode", b"constant").decode()
    _need(mode in _PAD_MODES, f"mode {mode}")
    given = _input(case, 1)
    pads: list[int] = list(case.attributes["pads"]) if given is None else given.tolist()
    value = _input(case, 2)
    number = case.attributes.get("value", 0.0) if value is None else float(value.reshape(-1)[0])
    chosen = _input(case, 3)
    axes = list(range(4)) if chosen is None else [int(axis) % 4 for axis in chosen]
    before, after = (
        dict(zip(axes, pads, strict=False)),
        dict(zip(axes, pads[len(axes) :], strict=True)),
    )
    _need(not any(d.get(axis) for d in (before, after) for axis in (0, 1)), "pads N or C")
    _need(min(pads) >= 0, "crops")
    padding = before.get(2, 0), after.get(2, 0), before.get(3, 0), after.get(3, 0)
    return (nnpack.pad2d(x, padding, _PAD_MODES[mode], number),)


def _concat(case: Case) -> tuple[Array, ...]:
    return (nnpack.concat(case.inputs, case.attributes["axis"]),)


def _upsample(case: Case) -> tuple[Array, ...]:
    x, scales = _images(case), _input(case, 1)
    mode = case.attributes.get("mode", b"nearest").decode()
    _need(mode == "nearest", "bilinear from the corner")
    assert scales is not None
    return (nnpack.upsample2d(x, tuple(scales[2:].tolist())),)


def _resize(case: Case) -> tuple[Array, ...]:
    x, words = _images(case), case.attributes
    scales, sizes = _input(case, 2), _input(case, 3)
    _need(not words.get("antialias", 0), "smoothed")
    _need("axes" not in words or list(words["axes"]) == [2, 3], "resizes N or C")
    _need(words.get("keep_aspect_ratio_policy", b"stretch") == b"stretch", "keeps the ratio")
    kind = words.get("mode", b"nearest"), words.get("coordinate_transformation_mode", b"half_pixel")
    rounding = words.get("nearest_mode", b"round_prefer_floor")
    known: dict[tuple[bytes, bytes], tuple[Any, bool]] = {
        (b"nearest", b"asymmetric"): ("nearest", False),
        (b"linear", b"half_pixel"): ("bilinear", False),
        (b"linear", b"align_corners"): ("bilinear", True),
    }
    _need(kind in known, "other places")
    _need(kind[0] == b"linear" or rounding == b"floor", "other places")
    if sizes is not None:
        size = tuple(int(n) for n in sizes[-2:])
    else:
        assert scales is not None
        exact = [n * float(scale) for n, scale in zip(x.shape[2:], scales[-2:], strict=True)]
        _need(all(n == int(n) for n in exact), "a scale that is not that of the sizes")
        size = tuple(int(n) for n in exact)
    return (nnpack.upsample2d(x, None, *known[kind], size=size),)


def _gemm(case: Case) -> tuple[Array, ...]:
    """``alpha * A' @ B' + beta * C``, as a fully connected layer with C as its residual."""
    a, b, c = _x(case), _input(case, 1), _input(case, 2)
    assert b is not None
    words = case.attributes
    x = a.T if words.get("transA", 0) else a
    weight = b if words.get("transB", 0) else b.T
    options: dict[str, Any] = {}
    if words.get("alpha", 1.0) != 1.0:
        options["scale"] = np.full(len(weight), words["alpha"], np.float32)
    if c is not None:
        added = np.float32(words.get("beta", 1.0)) * c
        shape = len(x), len(weight)
        options["residual"] = np.ascontiguousarray(np.broadcast_to(added, shape))
    return (nnpack.linear(x, weight, **options),)


def _matmul(case: Case) -> tuple[Array, ...]:
    x, weight = _x(case), _input(case, 1)
    assert weight is not None
    _need(weight.ndim == 2, "a batch of matrices")
    return (nnpack.linear(x, weight.T),)


def _elementwise(name: str, **attributes: tuple[str, float]) -> Callable[[Case], tuple[Array, ...]]:
    """The adapter of a plain function; of our arguments ``attributes`` has ONNX's name, default."""

    def adapt(case: Case) -> tuple[Array, ...]:
        words = case.attributes.items()
        known = {theirs for theirs, _ in attributes.values()}
        _need({word for word, _ in words} <= known, "other attributes")
        arguments = {
            ours: case.attributes.get(theirs, default)
            for ours, (theirs, default) in attributes.items()
        }
        return (_function(name)(_x(case), **arguments),)

    return adapt


def _function(name: str) -> Callable[..., Array]:
    _need(name in nnpack.__all__, f"no {name}")
    function: Callable[..., Array] = getattr(nnpack, name)
    return function


def _clip(case: Case) -> tuple[Array, ...]:
    bounds = [case.attributes.get("min", -math.inf), case.attributes.get("max", math.inf)]
    for number in (0, 1):
        given = _input(case, 1 + number)
        if given is not None:
            bounds[number] = float(given)
    _need(bounds[0] <= bounds[1], "bounds that contradict each other")
    return (_function("clip")(_x(case), *bounds),)


def _gelu(case: Case) -> tuple[Array, ...]:
    approximate = case.attributes.get("approximate", b"none").decode()
    return (_function("gelu")(_x(case), approximate=approximate),)


def _prelu(case: Case) -> tuple[Array, ...]:
    x, slope = _x(case), _input(case, 1)
    assert slope is not None
    channels = x.shape[1] if x.ndim > 1 else -1
    _need(slope.size == channels and slope.shape[0] == channels, "not a slope for each channel")
    return (_function("prelu")(x, slope.reshape(-1)),)


def _swish(case: Case) -> tuple[Array, ...]:
    _need(case.attributes.get("alpha", 1.0) == 1.0, "another slope")
    return (_function("silu")(_x(case)),)


def _add(case: Case) -> tuple[Array, ...]:
    first, *others = case.inputs
    assert first is not None
    total = first
    for other in others:
        assert other is not None
        _need(other.shape == first.shape, "broadcasts")
        total = nnpack.add(total, other)
    return (total,)


_CONVOLUTIONS: Mapping[str, Callable[[Case, Mapping[str, Any]], Array]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
}
_ADAPTERS: Mapping[str, Callable[[Case], tuple[Array, ...]]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Elu": _elementwise("elu", alpha=("alpha", 1.0)),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _of_images(nnpack.global_avg_pool2d),
    "GlobalMaxPool": _of_images(nnpack.global_max_pool2d),
    "HardSigmoid": _elementwise("hard_sigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5)),
    "HardSwish": _elementwise("hard_swish"),
    "LeakyRelu": _elementwise("leaky_relu", slope=("alpha", 0.01)),
    "LogSoftmax": partial(_softmax, nnpack.log_softmax),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mish": _elementwise("mish"),
    "PRelu": _prelu,
    "Pad": _pad,
    "Relu": _elementwise("relu"),
    "Resize": _resize,
    "Sigmoid": _elementwise("sigmoid"),
    "Softmax": partial(_softmax, nnpack.softmax),
    "Sum": _add,
    "Swish": _swish,
    "Tanh": _elementwise("tanh"),
    "Upsample": _upsample,
}
