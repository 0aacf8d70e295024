"""Pooling problems: what is to be computed, validated here, once, and frozen.

Arrays are ``NCHW``, float32. Pairs are ``(h, w)``, padding is ``(top, bottom, left, right)``,
strides of arrays are in elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsIndex

from nnpack.arguments import (
    MAX_INTEGER,
    IntOrPair,
    PaddingLike,
    as_integer,
    as_paddings,
    as_pair,
    as_shape,
)
from nnpack.epilogue import PoolKind
from nnpack.errors import ProblemError
from nnpack.frozen import dataclass
from nnpack.geometry import Padding, Pair, Shape, Strides, dense_strides, kernel_extent
from nnpack.geometry import same_padding as least_same_padding

__all__ = ["PoolKind", "PoolProblem"]

RowStrides = tuple[int, int, int]

_IMAGE = ("N", "C", "H", "W")


@dataclass(frozen=True, kw_only=True)
class PoolProblem:
    """``y[n, c, i, j]``: the greatest or the mean of the pixels of x in window (i, j).

    Window (i, j) holds the pixels ``(i*sh + p*dh - top, j*sw + q*dw - left)`` for the taps (p, q)
    of ``kernel``, those inside the image. Without a kernel windows are *adaptive*: rows from
    ``floor(i * H / H')`` to ``ceil((i + 1) * H / H')``, columns likewise.

    A mean is the sum over ``divisor`` or, without one, over the number of pixels; taps in the
    padding count where ``count_padding``, those beyond it never. ``indices``: the place in the
    plane of each maximum is wanted too.
    """

    kind: PoolKind
    batch: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: Pair | None
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    count_padding: bool = True
    divisor: int | None = None
    indices: bool = False
    x_strides: RowStrides
    y_strides: Strides

    @property
    def y_shape(self) -> Shape:
        """``(N, C, H', W')``."""
        return self.batch, self.channels, self.out_height, self.out_width

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return self.batch == 0

    @property
    def is_global(self) -> bool:
        """Whether the one window of a plane is the plane."""
        whole = (self.height, self.width)
        exact = self.kernel == whole and self.dilation == (1, 1) and self.padding == (0,) * 4
        return (self.out_height, self.out_width) == (1, 1) and (exact or self.kernel is None)

    @property
    def has_equal_counts(self) -> bool:
        """Whether every mean is over equally many pixels."""
        if self.divisor is not None:
            return True
        if self.kernel is None:
            return self.is_global
        bottom, right = (
            (count - 1) * step + extent - before - size
            for count, step, extent, before, size in zip(
                (self.out_height, self.out_width),
                self.stride,
                self.kernel,
                (self.padding[0], self.padding[2]),
                (self.height, self.width),
                strict=True,
            )
        )
        if self.count_padding:
            return bottom <= self.padding[1] and right <= self.padding[3]
        return max(bottom, right, self.padding[0], self.padding[2]) <= 0

    @classmethod
    def pool2d(
        cls,
        kind: PoolKind,
        x_shape: Sequence[SupportsIndex],
        kernel_size: IntOrPair,
        *,
        stride: IntOrPair | None = None,
        padding: PaddingLike = 0,
        dilation: IntOrPair = 1,
        ceil_mode: bool = False,
        count_padding: bool = True,
        divisor: SupportsIndex | None = None,
        indices: bool = False,
        x_strides: RowStrides | None = None,
    ) -> PoolProblem:
        """Return the problem that the arguments of ``max_pool2d`` or ``avg_pool2d`` state.

        Raises ProblemError when they state no well-formed pooling.
        """
        batch, channels, height, width = as_shape("x", x_shape, _IMAGE)
        kernel = as_pair("kernel_size", kernel_size, least=1)
        step = kernel if stride is None else as_pair("stride", stride, least=1)
        spacing = as_pair("dilation", dilation, least=1)
        spacing = spacing[0] if kernel[0] > 1 else 1, spacing[1] if kernel[1] > 1 else 1
        extent = kernel_extent(kernel, spacing)
        borders = _as_padding(padding, (height, width), extent, step)
        rows = _outputs(height, borders[:2], extent[0], step[0], ceil_mode)
        columns = _outputs(width, borders[2:], extent[1], step[1], ceil_mode)
        if rows < 1 or columns < 1:
            raise ProblemError(
                f"kernel_size={kernel_size!r} spans {extent[0]}x{extent[1]} pixels, more than the "
                f"{height}x{width} of x with padding={borders}; pad more, or take a smaller one"
            )
        return cls(
            kind=kind,
            batch=batch,
            channels=channels,
            height=height,
            width=width,
            out_height=rows,
            out_width=columns,
            kernel=kernel,
            stride=step,
            padding=borders,
            dilation=spacing,
            count_padding=count_padding,
            divisor=None if divisor is None else as_integer("divisor_override", divisor, least=1),
            indices=indices,
            x_strides=x_strides or dense_strides((batch, channels, height, width))[:3],
            y_strides=dense_strides((batch, channels, rows, columns)),
        )

    @classmethod
    def adaptive_pool2d(
        cls,
        kind: PoolKind,
        x_shape: Sequence[SupportsIndex],
        output_size: IntOrPair,
        *,
        indices: bool = False,
        x_strides: RowStrides | None = None,
    ) -> PoolProblem:
        """Return the problem of pooling to ``output_size`` rows and columns.

        Where that divides the image, windows are equal: the problem is one of `pool2d`.

        Raises ProblemError when the arguments state no well-formed pooling.
        """
        batch, channels, height, width = as_shape("x", x_shape, _IMAGE)
        rows, columns = as_pair("output_size", output_size, least=1)
        kernel = None
        if height % rows == 0 and width % columns == 0:
            kernel = height // rows, width // columns
        return cls(
            kind=kind,
            batch=batch,
            channels=channels,
            height=height,
            width=width,
            out_height=rows,
            out_width=columns,
            kernel=kernel,
            stride=kernel or (1, 1),
            indices=indices,
            x_strides=x_strides or dense_strides((batch, channels, height, width))[:3],
            y_strides=dense_strides((batch, channels, rows, columns)),
        )

    def __post_init__(self) -> None:
        if self.indices and self.height * self.width > MAX_INTEGER:
            raise ProblemError(
                f"return_indices=True needs planes of at most {MAX_INTEGER} pixels, got "
                f"{self.height}x{self.width}; pool parts of the image"
            )
        if 4 * math.prod(self.y_shape) >= 2**47:
            raise ProblemError(f"y would have the shape {self.y_shape}; make the problem smaller")


def _as_padding(padding: PaddingLike, image: Pair, extent: Pair, stride: Pair) -> Padding:
    """Four paddings, each less than the window: none lies in the padding alone."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ProblemError(f"padding={padding!r} must be 'same', 'valid' or numbers")
        same = least_same_padding(image, extent, stride)
        return same if padding == "same" else (0, 0, 0, 0)
    borders = as_paddings("padding", padding)
    if max(borders[:2]) >= extent[0] or max(borders[2:]) >= extent[1]:
        raise ProblemError(
            f"padding={padding!r} must be less than the {extent[0]}x{extent[1]} pixels that "
            "kernel_size and dilation span: a window would lie in the padding alone"
        )
    return borders


def _outputs(size: int, padding: tuple[int, ...], extent: int, stride: int, ceil: bool) -> int:
    """Windows along one axis; with ``ceil`` the last may overhang, but begins no later than x."""
    span = size + sum(padding) - extent
    count = (span + (stride - 1 if ceil else 0)) // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding[0] else count
