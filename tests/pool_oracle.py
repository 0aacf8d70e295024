"""The truth about pools: windows listed tap by tap, in float64. Nothing imports the package."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pair = tuple[int, int]
# First tap, taps, distance of taps, and the bounds of what a mean counts, of every window.
Axis = list[tuple[list[int], int]]


def _sliding(
    size: int, k: int, s: int, pads: Pair, d: int, ceil: bool, count_padding: bool
) -> Axis:
    span = size + sum(pads) - (k - 1) * d - 1
    outputs = (math.ceil(span / s) if ceil else span // s) + 1
    if ceil and (outputs - 1) * s >= size + pads[0]:
        outputs -= 1
    axis = []
    for i in range(outputs):
        taps = [i * s - pads[0] + t * d for t in range(k)]
        low, high = (-pads[0], size + pads[1]) if count_padding else (0, size)
        axis.append(([t for t in taps if 0 <= t < size], sum(low <= t < high for t in taps)))
    return axis


def _adaptive(size: int, outputs: int) -> Axis:
    windows = [
        list(range(i * size // outputs, -(-(i + 1) * size // outputs))) for i in range(outputs)
    ]
    return [(window, len(window)) for window in windows]


def _taps(x: Array, rows: Axis, columns: Axis) -> Iterator[tuple[Array, Array, Array]]:
    """Tap by tap in order: which windows have it, its pixel in each plane, and its place."""
    for down in _numbered(rows):
        for across in _numbered(columns):
            there = (down >= 0)[:, None] & (across >= 0)
            places = down[:, None] * x.shape[3] + across
            yield there, x[:, :, down[:, None], across], np.where(there, places, -1)


def _numbered(axis: Axis) -> Iterator[Array]:
    """For n = 0, 1, ...: where the n-th tap of each window is, or -1 where it has fewer."""
    for n in range(max((len(taps) for taps, _ in axis), default=0)):
        yield np.array([taps[n] if n < len(taps) else -1 for taps, _ in axis])


def _max(x: Array, rows: Axis, columns: Axis) -> tuple[Array, Array]:
    y = np.full((*x.shape[:2], len(rows), len(columns)), -np.inf, np.float32)
    places = np.full(y.shape, -1, np.int64)
    for there, values, at in _taps(x, rows, columns):
        better = there & ((places < 0) | (values > y) | np.isnan(values))
        y, places = np.where(better, values, y), np.where(better, at, places)
    return y, places


def _average(x: Array, rows: Axis, columns: Axis, divisor: int | None) -> Array:
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for there, values, _ in _taps(x, rows, columns):
        y += np.where(there, values, 0.0)
    counts = np.outer([count for _, count in rows], [count for _, count in columns])
    return y / (divisor or counts)


def _axes(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: tuple[int, int, int, int],
    dilation: Pair = (1, 1),
    ceil: bool = False,
    count_padding: bool = True,
) -> tuple[Axis, Axis]:
    rows, columns = (
        _sliding(size, k, s, pads, d, ceil, count_padding)
        for size, k, s, pads, d in zip(
            x.shape[2:], kernel, stride, (padding[:2], padding[2:]), dilation, strict=True
        )
    )
    return rows, columns


def max_pool2d(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: tuple[int, int, int, int],
    dilation: Pair = (1, 1),
    ceil: bool = False,
) -> tuple[Array, Array]:
    """The maxima and their places."""
    return _max(x, *_axes(x, kernel, stride, padding, dilation, ceil))


def avg_pool2d(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: tuple[int, int, int, int],
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Array:
    """The means."""
    axes = _axes(x, kernel, stride, padding, (1, 1), ceil, count_padding)
    return _average(x, *axes, divisor)


def adaptive_max_pool2d(x: Array, outputs: Pair) -> tuple[Array, Array]:
    """The maxima and their places."""
    return _max(x, _adaptive(x.shape[2], outputs[0]), _adaptive(x.shape[3], outputs[1]))


def adaptive_avg_pool2d(x: Array, outputs: Pair) -> Array:
    """The means."""
    axes = _adaptive(x.shape[2], outputs[0]), _adaptive(x.shape[3], outputs[1])
    return _average(x, *axes, None)
