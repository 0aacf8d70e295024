"""Gradients of convolutions in float64, tap by tap; like `tests.oracle`, without the package."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests import oracle
from tests.oracle import Array, Borders, Float64Array


def input_gradient(
    grad: Array,
    weight: Array,
    shape: tuple[int, ...],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Float64Array:
    """Each gradient times the kernel, added to the pixels that its output was computed from."""
    borders, windows = _windows(shape, weight, grad.shape, stride, padding, dilation)
    batch, channels, height, width = shape
    padded = np.zeros((batch, groups, channels // groups, *_padded(shape, borders)))
    outputs = weight.shape[0] // groups
    pixels = grad.astype(np.float64).reshape(batch, groups, outputs, math.prod(grad.shape[2:]))
    taps = oracle.matrices(weight, groups)
    for tap, window in windows:
        product = np.swapaxes(taps[tap], 1, 2) @ pixels
        padded[window] += product.reshape(padded[window].shape)
    (top, _), (left, _) = borders
    inner = padded.reshape(batch, channels, *padded.shape[3:])
    return inner[:, :, top : top + height, left : left + width]


def weight_gradient(
    x: Array,
    grad: Array,
    shape: tuple[int, ...],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Float64Array:
    """Each gradient times the pixels under the kernel, summed over images and outputs."""
    weight = np.zeros(shape)
    borders, windows = _windows(x.shape, weight, grad.shape, stride, padding, dilation)
    batch, channels, height, width = x.shape
    padded = np.zeros((batch, groups, channels // groups, *_padded(x.shape, borders)))
    (top, _), (left, _) = borders
    inner = padded.reshape(batch, channels, *padded.shape[3:])
    inner[:, :, top : top + height, left : left + width] = x
    pixels = _sums_last(
        grad.astype(np.float64).reshape(batch, groups, shape[0] // groups, *grad.shape[2:])
    )
    taps = weight.reshape(groups, -1, *shape[1:])
    for (i, j), window in windows:
        taps[..., i, j] = pixels @ np.swapaxes(_sums_last(padded[window]), 1, 2)
    return weight


def _sums_last(values: Float64Array) -> Float64Array:
    """(batch, groups, channels, h, w) as (groups, channels, what is summed over)."""
    turned = np.moveaxis(values, 0, 2)
    return turned.reshape(*turned.shape[:2], math.prod(turned.shape[2:]))


def _windows(
    x_shape: Any, weight: Array, y_shape: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Borders, list[tuple[tuple[int, ...], Any]]]:
    """The borders of x; for every tap, the pixels of padded x that it meets, one an output."""
    steps, spacing = oracle._pair(stride), oracle._pair(dilation)
    kernel = weight.shape[2:]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, spacing, strict=True)]
    borders = oracle._borders(padding, list(x_shape[2:]), extent, steps)
    rows, columns = y_shape[2:]
    result: list[tuple[tuple[int, ...], Any]] = []
    for i, j in np.ndindex(*kernel):
        y, x = i * spacing[0], j * spacing[1]
        window = (
            ...,
            slice(y, y + (rows - 1) * steps[0] + 1, steps[0]),
            slice(x, x + (columns - 1) * steps[1] + 1, steps[1]),
        )
        result.append(((i, j), window))
    return borders, result


def _padded(shape: Any, borders: Borders) -> list[int]:
    return [size + sum(border) for size, border in zip(shape[2:], borders, strict=True)]
