"""The truth: naive convolutions in float64, and how far a result is from them.

Nothing here imports the package: argument forms, output extents and activations are worked out
anew. Every function loops over the taps of the kernel and leaves the rest to NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]
IntOrPair = int | tuple[int, int]
Padding = int | tuple[int, int] | tuple[int, int, int, int] | str
Borders = tuple[tuple[int, int], tuple[int, int]]


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    scale: Array | None = None,
    activation: Any = None,
    residual: Array | None = None,
    residual_position: str = "before",
    pool: Any = None,
) -> Float64Array:
    """``pool(activation(scale * conv + bias + residual))``, or the residual outside.

    Padding may be negative, which crops.
    """
    batch, channels, *image = x.shape
    out_channels, _, *kernel = weight.shape
    steps, spacing = _pair(stride), _pair(dilation)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, spacing, strict=True)]
    borders = _borders(padding, image, extent, steps)
    padded = _pad(x, borders).reshape(batch, groups, channels // groups, *_padded(image, borders))
    rows, columns = (
        (size - span) // step + 1
        for size, span, step in zip(padded.shape[3:], extent, steps, strict=True)
    )
    taps = matrices(weight, groups)
    y = np.zeros((batch, groups, out_channels // groups, rows * columns))
    for i, j in np.ndindex(*kernel):
        window = padded[
            ...,
            slice(i * spacing[0], i * spacing[0] + (rows - 1) * steps[0] + 1, steps[0]),
            slice(j * spacing[1], j * spacing[1] + (columns - 1) * steps[1] + 1, steps[1]),
        ]
        y += taps[i, j] @ window.reshape(*window.shape[:3], rows * columns)
    y = _scaled(y.reshape(batch, out_channels, rows, columns), scale, bias)
    return _finish(y, activation, residual, residual_position, pool)


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    scale: Array | None = None,
    activation: Any = None,
    residual: Array | None = None,
    residual_position: str = "before",
    pool: Any = None,
) -> Float64Array:
    """Scatter every pixel of x times the kernel into y, crop by padding, apply the epilogue."""
    batch, channels, height, width = x.shape
    _, group_outputs, *kernel = weight.shape
    steps, spacing = _pair(stride), _pair(dilation)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, spacing, strict=True)]
    borders, surplus = _transposed_borders(padding, _pair(output_padding), extent, steps)
    rows, columns = (
        (size - 1) * step + span + more
        for size, step, span, more in zip((height, width), steps, extent, surplus, strict=True)
    )
    pixels = x.astype(np.float64).reshape(batch, groups, channels // groups, height * width)
    taps = matrices(weight, groups)
    y = np.zeros((batch, groups, group_outputs, rows, columns))
    for i, j in np.ndindex(*kernel):
        product = np.swapaxes(taps[i, j], 1, 2) @ pixels
        y[
            ...,
            slice(i * spacing[0], i * spacing[0] + (height - 1) * steps[0] + 1, steps[0]),
            slice(j * spacing[1], j * spacing[1] + (width - 1) * steps[1] + 1, steps[1]),
        ] += product.reshape(*product.shape[:3], height, width)
    (top, bottom), (left, right) = borders
    y = y[..., top : rows - bottom, left : columns - right]
    y = _scaled(y.reshape(batch, groups * group_outputs, *y.shape[3:]), scale, bias)
    return _finish(y, activation, residual, residual_position, pool)


def matrices(weight: Array, groups: int) -> Float64Array:
    """A dense matrix for every tap and group: the shape is (kh, kw, groups, O / groups, I)."""
    grouped = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    return np.ascontiguousarray(np.moveaxis(grouped, (3, 4), (0, 1)))


def conv2d_magnitude(x: Array, weight: Array, **arguments: Any) -> float:
    """``max(conv2d(|x|, |weight|))``, what an algorithm's error limit is a multiple of."""
    return float(np.max(conv2d(np.abs(x), np.abs(weight), **arguments), initial=0.0))


def max_error(y: Array, reference: Float64Array) -> float:
    """``max|y - reference| / max|reference|``; 0 for nothing, infinite against zeros."""
    _check_shapes(y, reference)
    return _ratio(
        float(np.max(np.abs(y - reference), initial=0.0)),
        float(np.max(np.abs(reference), initial=0.0)),
    )


def relative_l2(y: Array, reference: Float64Array) -> float:
    """``|y - reference| / |reference|`` in the Euclidean norm; 0 for nothing."""
    _check_shapes(y, reference)
    return _ratio(float(np.linalg.norm(y - reference)), float(np.linalg.norm(reference)))


def _ratio(error: float, size: float) -> float:
    if size == 0.0:
        return error if math.isnan(error) else math.inf if error else 0.0
    return error / size


def _check_shapes(y: Array, reference: Float64Array) -> None:
    # Broadcasting would compare a wrong shape without a word.
    assert y.shape == reference.shape, f"got {y.shape}, expected {reference.shape}"


def _pair(value: IntOrPair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _borders(
    padding: Padding, image: list[int], extent: list[int], steps: tuple[int, int]
) -> Borders:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        totals = [
            max(0, (math.ceil(size / step) - 1) * step + span - size)
            for size, step, span in zip(image, steps, extent, strict=True)
        ]
        return _split(totals[0]), _split(totals[1])
    assert not isinstance(padding, str)
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    if len(padding) == 2:
        return (padding[0], padding[0]), (padding[1], padding[1])
    return (padding[0], padding[1]), (padding[2], padding[3])


def _transposed_borders(
    padding: Padding, surplus: tuple[int, int], extent: list[int], steps: tuple[int, int]
) -> tuple[Borders, tuple[int, int]]:
    if padding != "same":
        return _borders(padding, [], extent, steps), surplus
    totals = [span - step for span, step in zip(extent, steps, strict=True)]
    missing = (max(0, -totals[0]), max(0, -totals[1]))
    return (_split(max(0, totals[0])), _split(max(0, totals[1]))), missing


def _split(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def _padded(image: list[int], borders: Borders) -> list[int]:
    return [size + before + after for size, (before, after) in zip(image, borders, strict=True)]


def _pad(x: Array, borders: Borders) -> Float64Array:
    padded = np.zeros((*x.shape[:2], *_padded(list(x.shape[2:]), borders)))
    (i, i_x, rows), (j, j_x, columns) = (
        (max(0, before), max(0, -before), min(size, size + after) - max(0, -before))
        for size, (before, after) in zip(x.shape[2:], borders, strict=True)
    )
    if rows > 0 and columns > 0:
        padded[:, :, i : i + rows, j : j + columns] = x[:, :, i_x : i_x + rows, j_x : j_x + columns]
    return padded


def _scaled(y: Float64Array, scale: Array | None, bias: Array | None) -> Float64Array:
    if scale is not None:
        y = y * scale.astype(np.float64)[:, None, None]
    if bias is not None:
        y = y + bias.astype(np.float64)[:, None, None]
    return y


def _finish(
    y: Float64Array, activation: Any, residual: Array | None, position: str, pooling: Any
) -> Float64Array:
    assert residual is None or residual.shape == y.shape
    if residual is not None and position == "before":
        y = y + residual
    y = activate(y, activation)
    if residual is not None and position == "after":
        y = y + residual
    return pool(y, pooling)


def pool(y: Float64Array, pooling: Any) -> Float64Array:
    """2x2 windows, 2 apart; an odd last row or column is dropped."""
    if pooling is None:
        return y
    rows, columns = y.shape[2] // 2, y.shape[3] // 2
    windows = y[:, :, : 2 * rows, : 2 * columns].reshape(*y.shape[:2], rows, 2, columns, 2)
    by_average = {"MaxPool": False, "AveragePool": True}[type(pooling).__name__]
    pooled: Float64Array = windows.mean((3, 5)) if by_average else windows.max((3, 5))
    return pooled


def activate(y: Float64Array, activation: Any) -> Float64Array:
    """``activation(y)``, element by element."""
    return y if activation is None else _ACTIVATIONS[type(activation).__name__](y, activation)


def _gelu(y: Float64Array, activation: Any) -> Float64Array:
    if activation.approximate == "none":
        return _gated(y, 0.5 * np.asarray(_erfc(-y / math.sqrt(2)), np.float64))
    linear = math.sqrt(8 / math.pi)
    with np.errstate(over="ignore"):
        return _gated(y, _sigmoid(y * (linear + 0.044715 * linear * y * y)))


def _mish(y: Float64Array, _: Any) -> Float64Array:
    # tanh(log(1 + e^y)) without what cancels where e^y is small.
    e = np.exp(np.minimum(y, 30))
    return _gated(y, e * (e + 2) / (e * (e + 2) + 2))


_ACTIVATIONS: dict[str, Callable[[Float64Array, Any], Float64Array]] = {
    "Relu": lambda y, a: np.where(y > 0, y, a.slope * y),
    "Prelu": lambda y, a: np.where(y > 0, y, np.array(a.slope).reshape(-1, 1, 1) * y),
    "Elu": lambda y, a: np.where(y > 0, y, a.alpha * np.expm1(np.minimum(y, 0))),
    "Clip": lambda y, a: np.clip(y, a.low, a.high),
    "Sigmoid": lambda y, _: _sigmoid(y),
    "Tanh": lambda y, _: np.tanh(y),
    "Silu": lambda y, _: _gated(y, _sigmoid(y)),
    "HardSigmoid": lambda y, a: np.clip(a.alpha * y + a.beta, 0, 1),
    "HardSwish": lambda y, _: _gated(y, np.clip((y + 3) / 6, 0, 1)),
    "Gelu": _gelu,
    "Mish": _mish,
}


def _sigmoid(y: Float64Array) -> Float64Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-y))


def _gated(y: Float64Array, gate: Float64Array) -> Float64Array:
    """``y * gate``, 0 where the gate is: also at minus infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(gate == 0, 0.0, y * gate)


_erfc: Any = np.frompyfunc(math.erfc, 1, 1)
